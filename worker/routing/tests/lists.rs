//! Whose node list counts, and which of its nodes home is and the watched ones are.

use super::super::known::PAUSE;
use super::*;

/// A router with one node besides home, which is ready.
fn with_one() -> (Game, SocketAddr) {
    let mut game = Game::new(2, 64);
    game.want();
    game.let_in();
    assert_eq!(game.ready(), 1);
    (game, address(1))
}

impl Game {
    /// Where a request goes while home is busy.
    fn goes_to(&mut self) -> Option<SocketAddr> {
        let chosen = self.router.choose(object(1), 2, 9, self.now);
        if let Some(node) = chosen {
            self.router.done(node);
        }
        chosen
    }
}

/// Whoever mentions a newer epoch, home or another: its node list decides.
#[test]
fn nodes_are_asked_while_homes_list_is_the_newest_that_is_heard_of() {
    let home_says = |game: &mut Game| game.router.note_epoch(4);
    let node_says = |game: &mut Game| {
        assert!(!game.router.heard(address(1), 4, game.now), "home's list does not say so");
    };
    for news in [home_says as fn(&mut Game), node_says] {
        let (mut game, node) = with_one();
        assert_eq!(game.goes_to(), Some(node));
        news(&mut game);
        assert_eq!((game.goes_to(), game.router.newest_epoch()), (None, 4));
        game.router.learn(3, Some(&nodes(2)), Some(address(HOME)), game.now);
        assert_eq!(game.goes_to(), None, "that list is as old");
        game.router.learn(4, Some(&nodes(2)), Some(address(HOME)), game.now);
        assert_eq!(game.goes_to(), Some(node));
        assert!(game.router.heard(node, 4, game.now));
    }
}

/// One broken node stops the others for some seconds at most.
#[test]
fn an_epoch_that_nobody_else_hears_of_costs_its_node_the_trust() {
    let (mut game, node) = with_one();
    assert!(!game.router.heard(node, u32::MAX, game.now));
    assert_eq!(game.goes_to(), None);
    let over = game.now + epochs::ALONE_MAX;
    assert!(game.router.next_deadline(game.now).is_some_and(|at| at <= over));
    game.now = over;
    assert_eq!(game.acts(), [Act::Close(node)]);
    assert_eq!(game.router.newest_epoch(), 3);
    game.now += PAUSE[0];
    game.want();
    assert!(game.acts().is_empty(), "it rests for long");
    game.now += PAUSE[1];
    game.want();
    assert_eq!(game.acts(), [Act::Try(node)]);
}

/// The same at its trial, which it is given again and again.
#[test]
fn nor_is_such_a_node_let_in() {
    let mut game = Game::new(2, 64);
    let (node, start) = (address(1), game.now);
    let mut trials = 0;
    while game.now < start + PAUSE[1] {
        game.want();
        if game.acts().contains(&Act::Try(node)) {
            trials += 1;
            let odd = trial(CTIME, u32::MAX);
            assert_eq!(game.router.tried(node, &odd, game.now), Err(Unfit::Ahead));
            game.router.failed(node, Unfit::Ahead, game.now);
        }
        game.now += Duration::from_millis(500);
    }
    assert!((1..=4).contains(&trials), "{trials}");
    assert_eq!(game.router.newest_epoch(), 3);
}

#[test]
fn the_listed_node_that_home_is_counts_as_home() {
    let mut game = Game::new(2, 64);
    let given = SocketAddr::from(([127, 0, 0, 1], 7000));
    game.router = Router::new(given, CTIME, 3).with(Route::Replica, 64, []);
    game.router.learn(3, Some(&nodes(2)), Some(address(HOME)), game.now);
    game.want();
    assert_eq!(game.let_in(), [address(1)]);
    let ring = Ring::new(&nodes(2)).unwrap();
    for index in 0..50 {
        let first = ring.holders(object(index), 1).as_slice()[0];
        let chosen = game.router.choose(object(index), 1, 0, game.now);
        assert_eq!(chosen, (first != HOME).then_some(address(1)));
    }
}

#[test]
fn nothing_is_asked_directly_while_home_is_not_known_in_the_list() {
    let (mut game, node) = with_one();
    game.router.learn(4, Some(&nodes(2)), None, game.now);
    assert!(game.router.said_unlisted);
    assert_eq!((game.goes_to(), game.acts()), (None, vec![Act::Close(node)]));
    game.router.learn(5, Some(&nodes(2)), Some(address(HOME)), game.now);
    game.want();
    assert_eq!(game.acts(), [Act::Try(node)]);
}

#[test]
fn a_watched_node_is_kept_away_from_under_its_listed_address() {
    let mut game = Game::new(2, 64);
    let asked = SocketAddr::from(([127, 0, 0, 1], 7000));
    game.router = Router::new(address(HOME), CTIME, 3).with(Route::Replica, 64, [asked]);
    game.router.learn(3, Some(&nodes(2)), Some(address(HOME)), game.now);
    game.router.watched_as(asked, address(1));
    game.want();
    assert!(game.acts().is_empty());
    game.router.quiet(asked);
    game.want();
    assert_eq!(game.acts(), [Act::Try(address(1))]);
}
