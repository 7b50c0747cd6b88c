//! Candidates of every kind, pings meanwhile, and the end of the supervisor.

use super::*;
use crate::fake::{CTIME, FakeSheep};
use sheepfs::ipc::SupervisorEnd;
use sheepfs::ipc::WorkerEnd;
use sheepfs::ipc::channel::pair;
use std::io::Write;
use std::net::TcpListener;

/// A room and its supervisor.
struct Game {
    room: Room,
    supervisor: SupervisorEnd,
}

impl Game {
    fn new() -> Self {
        let (supervisor, worker) = pair().unwrap();
        let link = Link::new(WorkerEnd::from_fd(worker), Arena::create(4096).unwrap());
        Self { room: Room::new(link), supervisor }
    }

    fn tell(&self, message: &ToWorker) {
        assert!(self.supervisor.send(message).unwrap());
    }

    fn check(&self, tag: u64, sheep: SocketAddr) {
        self.tell(&ToWorker::Check { tag: Tag(tag), sheep });
    }

    fn connect(&self, sheep: SocketAddr) {
        self.tell(&ToWorker::Connect {
            build: BUILD.to_owned(),
            sheep,
            cache_bytes: 0,
            io_timeout_ms: 5000,
            generation: 1,
            watch: Vec::new(),
            left: Vec::new(),
            route: sheepfs::ipc::Route::Replica,
            connections_max: 64,
            avoid: Vec::new(),
        });
    }

    /// Turns until the room says something.
    fn heard(&mut self) -> FromWorker {
        loop {
            self.room.link.send().unwrap();
            if let Some(message) = self.supervisor.receive().unwrap() {
                return message;
            }
            assert!(self.room.turn().unwrap().is_none());
        }
    }

    fn checked(&mut self) -> (u64, Outcome) {
        match self.heard() {
            FromWorker::Checked { tag, outcome } => (tag.0, outcome),
            other => panic!("{other:?}"),
        }
    }
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_check_tells_the_cluster_or_why_there_is_none() {
    let sheep = FakeSheep::start();
    let mut game = Game::new();
    game.check(1, sheep.address);
    let cluster = ClusterFacts { ctime: CTIME, epoch: 1, running: true, ..ClusterFacts::default() };
    assert_eq!(game.checked(), (1, Ok(cluster)));
    game.check(2, nobody());
    assert_eq!(game.checked(), (2, Err(LostReason::Refused)));
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut peer, _) = stranger.accept().unwrap();
        peer.write_all(&[b'x'; 100]).unwrap();
        std::mem::forget(peer);
    });
    game.check(3, address);
    assert_eq!(game.checked(), (3, Err(LostReason::NotASheep)));
}

/// Also several at once, and pings in between.
#[test]
fn a_silent_candidate_keeps_nothing_waiting() {
    let (silent, sheep) = (TcpListener::bind("127.0.0.1:0").unwrap(), FakeSheep::start());
    let mut game = Game::new();
    game.check(1, silent.local_addr().unwrap());
    game.tell(&ToWorker::Ping { number: 9 });
    assert_eq!(game.heard(), FromWorker::Pong { number: 9 });
    game.check(2, sheep.address);
    assert!(matches!(game.checked(), (2, Ok(_))));
    assert_eq!(game.checked(), (1, Err(LostReason::Unreachable)));
}

#[test]
fn after_a_candidate_that_does_not_answer_comes_the_next() {
    let sheep = FakeSheep::start();
    let mut game = Game::new();
    for _ in 0..2 {
        game.connect(nobody());
        assert_eq!(game.heard(), FromWorker::Unreached { reason: LostReason::Refused });
    }
    game.connect(sheep.address);
    assert!(game.room.wait().is_ok());
}

#[test]
fn checks_that_a_session_cuts_short_are_answered() {
    let (silent, sheep) = (TcpListener::bind("127.0.0.1:0").unwrap(), FakeSheep::start());
    let game = Game::new();
    game.check(1, silent.local_addr().unwrap());
    game.connect(sheep.address);
    let Ok(session) = game.room.wait() else { panic!("there is a session") };
    drop(game.supervisor.receive());
    std::thread::spawn(move || session.run());
    let told = std::iter::from_fn(|| {
        loop {
            if let Some(message) = game.supervisor.receive().unwrap() {
                return Some(message);
            }
            std::thread::yield_now();
        }
    });
    let first_two: Vec<_> = told.take(2).collect();
    let unchecked = Err(LostReason::Unreachable);
    assert_eq!(first_two[0], FromWorker::Checked { tag: Tag(1), outcome: unchecked });
    assert!(matches!(first_two[1], FromWorker::Connected { .. }));
}

#[test]
fn the_end_of_the_supervisor_is_noticed_while_candidates_are_asked() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let game = Game::new();
    game.check(1, silent.local_addr().unwrap());
    let Game { room, supervisor } = game;
    drop(supervisor);
    let end = match room.wait() {
        Ok(_) => panic!("there is no session"),
        Err(left) => left.1,
    };
    assert!(matches!(end, End::Supervisor(_)), "{end}");
}
