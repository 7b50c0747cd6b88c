//! A session against fake sheep: what is told when, and what ends it.

use super::*;
use crate::fake::{CTIME, FakeSheep};
use crate::sheep::CONNECTIONS;
use sheepfs::ipc::channel::pair;
use sheepfs::ipc::{
    Arena, Gateways, Locking, LostReason, Query, QuietReason, Route, SupervisorEnd, Tag, VolumeId,
    WorkerEnd,
};
use sheepfs::wire::Opcode;
use sheepfs::wire::name::VolumeName;
use std::net::TcpListener;
use std::sync::atomic::Ordering;

/// A session and its supervisor.
struct Game {
    session: Session,
    supervisor: SupervisorEnd,
    heard: Vec<FromWorker>,
}

impl Game {
    fn new(sheep: &FakeSheep, io_timeout: Duration, watch: Vec<SocketAddr>) -> Self {
        Self::after(sheep, io_timeout, watch, Vec::new())
    }

    fn after(
        sheep: &FakeSheep,
        io_timeout: Duration,
        watch: Vec<SocketAddr>,
        left: Vec<SocketAddr>,
    ) -> Self {
        let (supervisor, worker) = pair().unwrap();
        let link = Link::new(WorkerEnd::from_fd(worker), Arena::create(4096).unwrap());
        let now = Instant::now();
        let connections = Sheep::connect(sheep.address, CONNECTIONS, 1, now).unwrap();
        let plan = Plan {
            sheep: sheep.address,
            io_timeout,
            generation: 1,
            watch,
            left,
            route: Route::Replica,
            connections_max: 64,
            avoid: Vec::new(),
        };
        let cluster = ClusterFacts {
            ctime: CTIME,
            epoch: 1,
            running: true,
            has_locks: true,
            ..ClusterFacts::default()
        };
        let session = Session::new(link, connections, &plan, cluster, 0, now);
        Self { session, supervisor, heard: Vec::new() }
    }

    fn patient(sheep: &FakeSheep, watch: Vec<SocketAddr>) -> Self {
        Self::new(sheep, Duration::from_secs(3600), watch)
    }

    fn tell(&self, message: &ToWorker) {
        assert!(self.supervisor.send(message).unwrap());
    }

    fn hear(&mut self) {
        while let Some(message) = self.supervisor.receive().unwrap() {
            self.heard.push(message);
        }
    }

    /// Hears, and notes what must be noted.
    fn attend(&mut self) {
        let before = self.heard.len();
        self.hear();
        let new = self.heard[before..].iter().filter(|word| must_be_noted(word)).count();
        (0..new).for_each(|_| self.tell(&ToWorker::Noted));
    }

    /// Attends, and turns until something like that was said.
    fn until(&mut self, which: impl Fn(&FromWorker) -> bool) {
        loop {
            self.attend();
            if self.heard.iter().any(&which) {
                return;
            }
            self.session.turn().unwrap();
        }
    }

    /// Turns until the session ends.
    fn end(&mut self) -> End {
        loop {
            if let Err(end) = self.session.turn() {
                self.hear();
                return end;
            }
        }
    }

    fn place(&self, which: impl Fn(&FromWorker) -> bool) -> Option<usize> {
        self.heard.iter().position(which)
    }
}

fn connected(message: &FromWorker) -> bool {
    matches!(message, FromWorker::Connected { .. })
}

fn quiet(message: &FromWorker) -> bool {
    matches!(message, FromWorker::Quiet { .. })
}

fn members(message: &FromWorker) -> bool {
    matches!(message, FromWorker::Members { .. })
}

fn attach(tag: u64) -> ToWorker {
    let name = VolumeName::parse(b"disk").unwrap();
    let (tag, volume) = (Tag(tag), VolumeId(1));
    ToWorker::Attach { tag, volume, name, lock_sent: Gateways::default(), locking: Locking::Take }
}

fn done(wanted: u64) -> impl Fn(&FromWorker) -> bool {
    move |message| matches!(message, FromWorker::Done { tag, .. } if tag.0 == wanted)
}

/// The usual case, as when only the worker was killed.
#[test]
fn gateways_that_were_left_and_live_are_asked_once_and_home_is_not() {
    let (home, others) = (FakeSheep::start(), [FakeSheep::start(), FakeSheep::start()]);
    let left = vec![others[0].address, home.address, others[1].address];
    let mut game = Game::after(&home, Duration::from_secs(3600), Vec::new(), left);
    let holds = |game: &Game| game.session.errands.hold(Instant::now()).changes;
    assert!(holds(&game));
    while holds(&game) {
        game.session.turn().unwrap();
    }
    let asked = |sheep: &FakeSheep| sheep.count(Opcode::GetClusterDefault);
    assert_eq!((asked(&others[0]), asked(&others[1]), asked(&home)), (1, 1, 0));
    assert!(home.count(Opcode::GetNodeList) <= 1, "the list that each session asks for");
}

/// One refuses, so the node list is looked at, which never had it.
#[test]
fn a_gateway_that_refuses_is_looked_for_in_the_node_list() {
    let (home, other) = (FakeSheep::start(), FakeSheep::start());
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let left = vec![dead, other.address];
    let mut game = Game::after(&home, Duration::from_secs(3600), Vec::new(), left);
    while game.session.errands.hold(Instant::now()).changes {
        game.session.turn().unwrap();
    }
    assert!(home.count(Opcode::GetNodeList) >= 1);
    assert_eq!(other.count(Opcode::GetClusterDefault), 1);
}

#[test]
fn an_answer_counts_though_the_sheep_is_gone_behind_it() {
    use sheepfs::wire::HEADER_LEN;
    use sheepfs::wire::header::{ReplyHeader, RequestHeader};
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let habits = FakeSheep::start().habits;
    let mut game =
        Game::patient(&FakeSheep { address: listener.local_addr().unwrap(), habits }, Vec::new());
    game.tell(&ToWorker::Query { tag: Tag(1), query: Query::Nodes });
    // Two node lists are asked for, one by the session itself. Both are answered, and
    // then all connections end.
    let sheep = std::thread::spawn(move || {
        let mut peers: Vec<_> = (0..CONNECTIONS).map(|_| listener.accept().unwrap().0).collect();
        for peer in &mut peers[..2] {
            let mut request = [0; HEADER_LEN];
            peer.read_exact(&mut request).unwrap();
            let request = RequestHeader::decode(&request);
            let reply = ReplyHeader::new(&request, 1, sheepfs::wire::Status::Success, 0);
            peer.write_all(&reply.encode()).unwrap();
        }
    });
    let end = game.end();
    sheep.join().unwrap();
    assert!(matches!(end, End::Sheep(Loss { reason: LostReason::Disconnected, .. })), "{end}");
    let report =
        |message: &FromWorker| matches!(message, FromWorker::ReportChunk { last, .. } if *last);
    assert!(game.place(report).is_some(), "{:?}", game.heard);
    assert!(game.place(members).is_some(), "{:?}", game.heard);
}

#[test]
fn pings_are_answered_whatever_the_sheep_does() {
    let sheep = FakeSheep::start();
    sheep.habits.frozen.store(true, Ordering::SeqCst);
    let mut game = Game::patient(&sheep, vec![sheep.address]);
    game.tell(&ToWorker::Ping { number: 4 });
    game.until(|message| *message == FromWorker::Pong { number: 4 });
    game.until(connected);
}

#[test]
fn members_are_told_at_first_and_when_the_epoch_changes() {
    let sheep = FakeSheep::start();
    let mut game = Game::patient(&sheep, Vec::new());
    let told = |epoch| {
        let nodes = vec![sheep.address];
        move |message: &FromWorker| *message == FromWorker::Members { epoch, nodes: nodes.clone() }
    };
    game.until(told(1));
    let first = game.place(connected).expect("the cluster is told first");
    assert!(Some(first) < game.place(members));
    sheep.habits.epoch.store(5, Ordering::SeqCst);
    game.tell(&attach(1));
    game.until(told(5));
}

/// They may be known while the session still opens; whose they are is looked at first.
#[test]
fn members_are_told_after_the_cluster() {
    let sheep = FakeSheep::start();
    let left = SocketAddr::from(([127, 0, 0, 2], sheep.address.port()));
    let long = Duration::from_secs(3600);
    // One that says nothing is waited for.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut game = Game::after(&sheep, long, vec![mute.local_addr().unwrap()], vec![left]);
    game.until(members);
    let first = game.place(connected).expect("the cluster is told first");
    assert!(Some(first) < game.place(members));
}

/// The proof comes before the supervisor may send anything, when it can.
#[test]
fn the_sheep_of_the_session_is_quiet_before_it_is_connected() {
    let sheep = FakeSheep::start();
    let mut game = Game::patient(&sheep, vec![sheep.address]);
    game.until(connected);
    let gateway = sheep.address;
    let drained = FromWorker::Quiet { gateway, how: QuietReason::Drained };
    // On a machine that is held up for longer than the session waits, it comes later.
    game.until(|message| *message == drained);
    assert!(sheep.count(Opcode::Stat) >= 2);
}

#[test]
fn a_busy_gateway_is_asked_again_until_it_is_quiet() {
    let sheep = FakeSheep::start();
    sheep.habits.active.store(2, Ordering::SeqCst);
    let mut game = Game::patient(&sheep, vec![sheep.address]);
    game.until(connected);
    assert_eq!(game.place(quiet), None);
    let over = |game: &Game| game.session.errands.are_orphans_over(Instant::now());
    assert!(!over(&game), "requests of an earlier worker may be what is active");
    // Requests go on meanwhile.
    game.tell(&attach(1));
    game.until(done(1));
    assert_eq!(game.place(quiet), None);
    sheep.habits.active.store(0, Ordering::SeqCst);
    game.until(quiet);
    assert!(over(&game));
}

#[test]
fn another_gateway_is_quiet_when_it_is_gone_or_drained() {
    let (sheep, other) = (FakeSheep::start(), FakeSheep::start());
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut game = Game::patient(&sheep, vec![gone, other.address]);
    for (gateway, how) in [(gone, QuietReason::Gone), (other.address, QuietReason::Drained)] {
        game.until(|message| *message == FromWorker::Quiet { gateway, how });
    }
    assert_eq!(sheep.count(Opcode::Stat), 0);
}

/// Hazard 31.
#[test]
fn a_sheep_that_answers_nothing_is_lost() {
    let sheep = FakeSheep::start();
    let mut game = Game::new(&sheep, Duration::from_millis(50), Vec::new());
    game.until(members);
    sheep.habits.frozen.store(true, Ordering::SeqCst);
    game.tell(&attach(1));
    let end = game.end();
    assert!(matches!(end, End::Sheep(Loss { reason: LostReason::Silent, .. })), "{end}");
    assert_eq!(sheep.count(Opcode::GetClusterDefault), 1, "one probe, over a fresh connection");
}

/// Hazard 49 and 50: what takes long on a sheep that lives is waited for.
#[test]
fn a_sheep_that_is_only_slow_is_not_left() {
    let sheep = FakeSheep::start();
    sheep.habits.slow.store(true, Ordering::SeqCst);
    let mut game = Game::new(&sheep, Duration::from_millis(20), Vec::new());
    game.until(members);
    game.tell(&attach(1));
    while sheep.count(Opcode::GetClusterDefault) < 3 {
        game.attend();
        game.session.turn().unwrap();
    }
    game.hear();
    assert_eq!(game.place(done(1)), None);
}

/// Requests leave only when all that was said before them is in the kernel.
#[test]
fn a_full_channel_holds_requests_back() {
    let sheep = FakeSheep::start();
    let mut game = Game::patient(&sheep, Vec::new());
    game.until(members);
    while game.session.link.is_clear() {
        // The supervisor does not listen, and asks on.
        for number in 0..100 {
            game.tell(&ToWorker::Ping { number });
        }
        game.session.turn().unwrap();
    }
    game.tell(&attach(1));
    game.session.turn().unwrap();
    assert!(game.session.sheep.is_idle(), "a lock was asked for before that was said");
    game.until(done(1));
    assert_eq!(sheep.count(Opcode::LockVdi), 1);
    let said = |message: &FromWorker| matches!(message, FromWorker::LockSent { .. });
    assert!(game.place(said) < game.place(done(1)));
}

#[test]
fn nothing_is_sent_before_the_lock_is_announced_and_noted() {
    let sheep = FakeSheep::start();
    let mut game = Game::patient(&sheep, Vec::new());
    game.until(members);
    game.tell(&attach(1));
    game.session.turn().unwrap();
    game.hear();
    assert_eq!(game.heard.last(), Some(&FromWorker::LockSent { volume: VolumeId(1) }));
    for number in 0..10 {
        game.tell(&ToWorker::Ping { number });
        game.session.turn().unwrap();
        assert!(game.session.sheep.is_idle(), "a lock was asked for before that was noted");
    }
    game.tell(&ToWorker::Noted);
    game.until(done(1));
    assert_eq!(sheep.count(Opcode::LockVdi), 1);
}

/// The list has the sheep of this host by one of its addresses, and who left it used another.
#[test]
fn the_sheep_that_was_left_is_missed_under_its_listed_address() {
    let sheep = FakeSheep::start();
    let left = SocketAddr::from(([127, 0, 0, 2], sheep.address.port()));
    let long = Duration::from_secs(3600);
    let mut game = Game::after(&sheep, long, Vec::new(), vec![left]);
    game.until(members);
    assert!(game.session.errands.hold(Instant::now()).changes, "it is listed, and refuses");
    assert!(!game.session.errands.are_orphans_over(Instant::now()), "others may have got some");
}
