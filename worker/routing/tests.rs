//! Who is asked: chosen, tried, announced, left.

use super::known::{PAUSE, PROVEN};
use super::life::*;
use super::*;
use sheepfs::ipc::{ClusterFacts, LostReason};
use sheepfs::wire::cluster::NodeId;

mod pauses;

const CTIME: u64 = 77;
const HOME: u16 = 0;

fn address(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 7000))
}

fn nodes(count: u16) -> Vec<Node> {
    let node = |number: u16| Node {
        id: NodeId::new(address(number)),
        nr_vnodes: 128,
        zone: number.into(),
        space: 0,
    };
    (0..count).map(node).collect()
}

fn object(index: u64) -> ObjectId {
    ObjectId::from_raw(0x12_3456 << 32 | index)
}

fn trial(ctime: u64, epoch: u32) -> Trial {
    let facts =
        ClusterFacts { ctime, epoch, running: true, has_locks: true, ..ClusterFacts::default() };
    Trial { said: Ok(facts), epoch }
}

/// A router with so many nodes, and the time.
struct Game {
    router: Router,
    now: Instant,
    said: Vec<FromWorker>,
}

impl Game {
    fn new(count: u16, connections_max: u32) -> Self {
        let now = Instant::now();
        let router = Router::new(address(HOME), CTIME, 3);
        let mut router = router.with(Route::Replica, connections_max, []);
        router.learn(3, Some(&nodes(count)), Some(address(HOME)), now);
        Self { router, now, said: Vec::new() }
    }

    fn choose(&mut self, index: u64) -> Option<SocketAddr> {
        self.router.choose(object(index), 2, 0, self.now)
    }

    fn acts(&mut self) -> Vec<Act> {
        let acts = self.router.acts(self.now);
        assert!(self.router.next_deadline(self.now).is_none_or(|at| at > self.now));
        acts
    }

    /// All nodes that are tried answer well, and the supervisor notes them.
    fn let_in(&mut self) -> Vec<SocketAddr> {
        let mut tried = Vec::new();
        loop {
            let acts = self.acts();
            let new = acts.iter().filter_map(|act| match act {
                Act::Try(node) => Some(*node),
                Act::Close(_) | Act::GiveUp(_) => None,
            });
            let new: Vec<_> = new.collect();
            if new.is_empty() {
                return tried;
            }
            for node in &new {
                for _ in 0..CONNECTIONS_EACH {
                    self.router.tried(*node, &trial(CTIME, 3), self.now).unwrap();
                }
            }
            self.note();
            tried.extend(new);
        }
    }

    /// The supervisor hears, and notes.
    fn note(&mut self) {
        for word in self.router.take_words() {
            if let FromWorker::Opened { opening, .. } = word {
                self.router.may_use(opening, self.now);
            }
            self.said.push(word);
        }
    }

    /// Wants holders of many objects.
    fn want(&mut self) {
        for index in 0..200 {
            if let Some(node) = self.choose(index) {
                self.router.done(node);
            }
        }
    }

    fn ready(&mut self) -> u32 {
        self.router.counted().nodes
    }
}

#[test]
fn home_is_asked_until_a_holder_is_ready() {
    let mut game = Game::new(3, 64);
    assert_eq!(game.choose(1), None);
    let acts = game.acts();
    assert!(!acts.is_empty() && acts.iter().all(|act| matches!(act, Act::Try(_))));
    let Act::Try(node) = acts[0] else { panic!() };
    assert_eq!(game.choose(1), None, "it has not answered");
    assert!(game.acts().is_empty(), "it is tried once");
    game.router.tried(node, &trial(CTIME, 3), game.now).unwrap();
    assert!(game.router.take_words().is_empty(), "one connection has not answered");
    game.router.tried(node, &trial(CTIME, 3), game.now).unwrap();
    let words = game.router.take_words();
    assert_eq!(words, [FromWorker::Opened { node, opening: 1 }]);
    assert_eq!(game.choose(1), None, "the supervisor does not know it yet");
    game.router.may_use(1, game.now);
    game.want();
    assert!(game.router.counted().direct > 0);
}

/// The answer to an announcement that is over is none to the next one.
#[test]
fn a_node_waits_for_the_word_on_its_own_announcement() {
    let mut game = Game::new(3, 64);
    game.choose(1);
    let Act::Try(node) = game.acts()[0] else { panic!() };
    let announce = |game: &mut Game, epoch| {
        (0..2).for_each(|_| game.router.tried(node, &trial(CTIME, epoch), game.now).unwrap());
    };
    announce(&mut game, 3);
    game.router.failed(node, Unfit::Lost(LostReason::Disconnected), game.now);
    game.router.learn(4, Some(&nodes(3)), Some(address(HOME)), game.now);
    while !game.acts().contains(&Act::Try(node)) {
        game.want();
    }
    announce(&mut game, 4);
    let openings: Vec<_> = game.router.take_words().into_iter().collect();
    let opened = |opening| FromWorker::Opened { node, opening };
    assert_eq!(openings, [opened(1), FromWorker::Closed { node }, opened(2)]);
    game.router.may_use(1, game.now);
    assert_eq!(game.ready(), 0);
    game.router.may_use(2, game.now);
    assert_eq!(game.ready(), 1);
}

#[test]
fn each_object_goes_to_its_holder_with_the_fewest_requests() {
    let mut game = Game::new(5, 64);
    game.want();
    game.let_in();
    game.want();
    game.let_in();
    assert_eq!(game.ready(), 4, "all but home");
    let ring = Ring::new(&nodes(5)).unwrap();
    for index in 0..500 {
        let holders = ring.holders(object(index), 2);
        let holders: Vec<_> = holders.as_slice().iter().map(|n| address(*n)).collect();
        let [first, second] = [game.choose(index), game.choose(index)];
        for chosen in [first, second] {
            assert!(holders.contains(&chosen.unwrap_or(address(HOME))));
        }
        if !holders.contains(&address(HOME)) {
            assert_ne!(first, second, "the second one has less to do");
        }
        for node in [first, second].into_iter().flatten() {
            game.router.done(node);
        }
    }
    // Home is asked for its own objects, unless it has more to do than others.
    let homes = |index: &u64| ring.holders(object(*index), 2).as_slice()[0] == HOME;
    let index = (0..500).find(homes).unwrap();
    assert_eq!(game.choose(index), None);
    assert!(game.router.choose(object(index), 2, 1, game.now).is_some());
}

#[test]
fn nothing_goes_elsewhere_when_that_is_not_wanted_or_not_known() {
    for connections_max in [4, 5] {
        let mut game = Game::new(5, connections_max);
        game.want();
        assert!(game.acts().is_empty());
    }
    let mut game = Game::new(5, 64);
    game.router.set_route(Route::Gateway);
    game.want();
    assert!(game.acts().is_empty());
    let mut game = Game::new(5, 64);
    game.router.learn(4, None, Some(address(HOME)), game.now);
    game.want();
    assert!(game.acts().is_empty());
    assert_eq!(game.router.counted().direct, 0);
}

#[test]
fn a_node_without_virtual_nodes_or_a_usable_address_is_never_asked() {
    let mut game = Game::new(0, 64);
    let mut list = nodes(4);
    list[1].nr_vnodes = 0;
    list[2].id.port = 0;
    list[3].id.addr = [0; 16];
    game.router.learn(4, Some(&list), Some(address(HOME)), game.now);
    game.want();
    assert!(game.acts().is_empty());
}

#[test]
fn one_of_another_cluster_or_an_old_epoch_is_not_let_in() {
    let waits = ClusterFacts { ctime: CTIME, epoch: 3, has_locks: true, ..ClusterFacts::default() };
    for (trial, why) in [
        (trial(78, 3), Unfit::OtherCluster),
        (trial(CTIME, 2), Unfit::Behind),
        (trial(CTIME, 4), Unfit::Ahead),
        (Trial { said: Ok(waits), epoch: 3 }, Unfit::NotServing),
        (Trial { said: Err(LostReason::NotASheep), epoch: 0 }, Unfit::Lost(LostReason::NotASheep)),
    ] {
        let mut game = Game::new(3, 64);
        game.choose(1);
        let Act::Try(node) = game.acts()[0] else { panic!() };
        assert_eq!(game.router.tried(node, &trial, game.now), Err(why));
        game.router.failed(node, why, game.now);
        game.want();
        assert!(!game.acts().contains(&Act::Try(node)), "it rests");
        assert!(game.router.take_words().is_empty(), "nothing ever went there");
    }
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

#[test]
fn a_trial_has_its_time() {
    let mut game = Game::new(2, 64);
    game.want();
    assert_eq!(game.acts(), [Act::Try(address(1))]);
    assert_eq!(game.router.next_deadline(game.now), Some(game.now + TRIAL_MAX));
    game.now += TRIAL_MAX;
    assert_eq!(game.router.acts(game.now), [Act::GiveUp(address(1))]);
}

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

#[test]
fn a_watched_node_is_not_asked_before_it_is_quiet() {
    let mut game = Game::new(2, 64);
    game.router = Router::new(address(HOME), CTIME, 3).with(Route::Replica, 64, [address(1)]);
    game.router.learn(3, Some(&nodes(2)), Some(address(HOME)), game.now);
    game.want();
    assert!(game.acts().is_empty());
    game.router.quiet(address(1));
    game.want();
    assert_eq!(game.acts(), [Act::Try(address(1))]);
}

/// What was cut off may answer with what it had then.
#[test]
fn one_that_is_behind_gets_nothing_new_and_is_closed_when_it_has_answered() {
    let mut game = Game::new(2, 64);
    game.want();
    game.let_in();
    let node = address(1);
    assert_eq!(game.router.choose(object(1), 2, 9, game.now), Some(node));
    assert_eq!(game.router.choose(object(2), 2, 9, game.now), Some(node));
    assert!(game.router.heard(node, 3, game.now));
    game.router.note_epoch(4);
    game.router.done(node);
    assert!(!game.router.heard(node, 3, game.now) && !game.router.heard(node, 0, game.now));
    game.router.learn(4, Some(&nodes(2)), Some(address(HOME)), game.now);
    assert_eq!(game.router.choose(object(1), 2, 9, game.now), None);
    assert!(game.acts().is_empty(), "a request is outstanding there");
    game.router.done(node);
    assert_eq!(game.acts(), [Act::Close(node)]);
    game.now += PAUSE_BEHIND;
    game.want();
    assert_eq!(game.acts(), [Act::Try(node)]);
    assert_eq!(game.router.tried(node, &trial(CTIME, 3), game.now), Err(Unfit::Behind));
}

#[test]
fn who_leaves_the_cluster_or_the_route_is_closed() {
    for leave in [
        (|game: &mut Game| game.router.learn(4, Some(&nodes(1)), Some(address(HOME)), game.now))
            as fn(&mut Game),
        |game| game.router.set_route(Route::Gateway),
    ] {
        let mut game = Game::new(2, 64);
        game.want();
        game.let_in();
        leave(&mut game);
        assert_eq!(game.acts(), [Act::Close(address(1))]);
        game.want();
        assert!(game.acts().is_empty());
    }
}

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
