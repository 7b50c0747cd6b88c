//! How many connections there are, and for how long.

use super::*;

#[test]
fn idle_nodes_are_closed_and_busy_ones_are_not() {
    let mut game = Game::new(2, 64);
    game.want();
    game.let_in();
    let mut index = 0;
    let busy = loop {
        index += 1;
        if let Some(node) = game.router.choose(object(index), 2, 9, game.now) {
            break node;
        }
    };
    game.now += 2 * IDLE_MAX;
    assert!(game.acts().is_empty());
    game.router.done(busy);
    game.now += SWEEP_EVERY;
    assert_eq!(game.acts(), [Act::Close(busy)]);
    game.note();
    assert_eq!(game.said.last(), Some(&FromWorker::Closed { node: busy }));
    assert_eq!(game.router.next_deadline(game.now), None, "nothing is left to be done");
    assert_eq!(game.ready(), 0);
}

/// Neither are there more than may be, nor do they come and go with each request.
#[test]
fn a_thousand_nodes_share_few_connections_without_haste() {
    let mut game = Game::new(1_000, 64);
    let mut tried = 0;
    for _ in 0..50 {
        game.want();
        tried += game.let_in().len();
        game.now += Duration::from_millis(20);
    }
    assert_eq!((tried, game.ready()), (30, 30));
    assert!(game.router.counted().direct > 0 && game.router.counted().gateway > 0);
    // Other objects are asked for from now on: idle nodes make room.
    game.now += IDLE_FULL;
    for index in 5_000..5_200 {
        if let Some(node) = game.choose(index) {
            game.router.done(node);
        }
    }
    assert!(!game.let_in().is_empty());
    assert_eq!(game.ready(), 30);
    let closed = game.said.iter().filter(|word| matches!(word, FromWorker::Closed { .. }));
    assert!(closed.count() > 0);
}
