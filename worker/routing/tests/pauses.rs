//! How long a node that failed is left alone.

use super::super::known::{PAUSE, PROVEN};
use super::*;

/// What ended a session before is known to the supervisor, whatever the cluster says now.
#[test]
fn a_node_that_is_avoided_is_not_tried_before_its_time() {
    let mut game = Game::new(2, 64);
    let router = Router::new(address(HOME), CTIME, 3).with(Route::Replica, 64, []);
    game.router = router.avoiding(&[(address(1), 5_000)], game.now);
    for epoch in [3, 4] {
        game.router.learn(epoch, Some(&nodes(2)), Some(address(HOME)), game.now);
        game.want();
        assert!(game.acts().is_empty());
        game.now += Duration::from_millis(2_500);
    }
    game.want();
    assert_eq!(game.acts(), [Act::Try(address(1))]);
}

#[test]
fn a_node_that_was_away_meanwhile_is_not_avoided() {
    let mut game = Game::new(2, 64);
    let router = Router::new(address(HOME), CTIME, 3).with(Route::Replica, 64, []);
    game.router = router.avoiding(&[(address(1), 5_000)], game.now);
    for (epoch, count) in [(3, 2), (4, 1), (5, 2)] {
        assert!(game.acts().is_empty());
        game.router.learn(epoch, Some(&nodes(count)), Some(address(HOME)), game.now);
        game.want();
    }
    assert_eq!(game.acts(), [Act::Try(address(1))]);
}

/// Its trials go well, each time.
#[test]
fn a_sick_node_rests_longer_each_time_until_it_was_well_for_long() {
    let mut game = Game::new(2, 64);
    let node = address(1);
    let let_in = |game: &mut Game| {
        game.want();
        assert_eq!(game.let_in(), [node]);
        game.want();
    };
    let rests = |game: &mut Game| {
        (0..2).for_each(|_| game.router.is_sick(node));
        assert_eq!(game.acts(), [Act::Close(node)]);
        let closed = game.now;
        loop {
            game.want();
            if !game.router.wanted.is_empty() {
                return (game.now - closed).as_secs();
            }
            game.now += Duration::from_secs(1);
        }
    };
    for expected in [5, 10, 20] {
        let_in(&mut game);
        assert_eq!(rests(&mut game), expected);
    }
    let_in(&mut game);
    game.now += IDLE_MAX;
    assert_eq!(game.acts(), [Act::Close(node)], "it was hardly used");
    let_in(&mut game);
    assert_eq!(rests(&mut game), 40);
    let_in(&mut game);
    game.now += PROVEN;
    game.want();
    assert_eq!(rests(&mut game), 5);
}

#[test]
fn pauses_grow_and_a_change_of_the_cluster_ends_them() {
    let mut game = Game::new(2, 64);
    let node = address(1);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        game.want();
        assert_eq!(game.acts(), [Act::Try(node)]);
        game.router.failed(node, Unfit::Lost(LostReason::Refused), game.now);
        let failed = game.now;
        while game.acts().is_empty() {
            game.now += Duration::from_millis(500);
            game.want();
        }
        game.router.failed(node, Unfit::Lost(LostReason::Refused), game.now);
        pauses.push(game.now - failed);
        game.router.learn(3, Some(&nodes(2)), Some(address(HOME)), game.now);
        game.now += PAUSE[1];
    }
    assert!(pauses.is_sorted() && pauses[0] == PAUSE[0], "{pauses:?}");
    assert_eq!(pauses.last(), Some(&PAUSE[1]));
    game.want();
    game.acts();
    game.router.failed(node, Unfit::Lost(LostReason::Refused), game.now);
    game.router.learn(4, Some(&nodes(2)), Some(address(HOME)), game.now);
    game.want();
    assert_eq!(game.acts(), [Act::Try(node)]);
}
