//! Who is asked: chosen, tried, announced, left.

use super::life::*;
use super::*;
use sheepfs::ipc::{ClusterFacts, LostReason};
use sheepfs::wire::cluster::NodeId;

mod connections;
mod lists;
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
fn a_trial_has_its_time() {
    let mut game = Game::new(2, 64);
    game.want();
    assert_eq!(game.acts(), [Act::Try(address(1))]);
    assert_eq!(game.router.next_deadline(game.now), Some(game.now + TRIAL_MAX));
    game.now += TRIAL_MAX;
    assert_eq!(game.router.acts(game.now), [Act::GiveUp(address(1))]);
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
