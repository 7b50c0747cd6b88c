//! Every errand, against a cluster in memory: what it does, what it refuses, and that it is
//! done once however often and wherever whoever runs it dies.

mod others;
mod server;

use super::{Answer, Event, Life, Next};
use server::Server;
use sheepfs::ipc::{Errand, Failure, Mark, NewShape};
use sheepfs::wire::name::{Generation, VdiName, VdiRef, VdiTag, VolumeName};
use sheepfs::wire::{Opcode, Request, Status};

/// More steps than any errand has.
const STEPS_MAX: usize = 200;

fn name(text: &str) -> VdiName {
    VdiName::new(text).unwrap()
}

fn tag(text: &str) -> VdiTag {
    VdiTag::new(text).unwrap()
}

fn snapshot_of(text: &str, of: &str) -> VdiRef {
    VdiRef { name: name(text), generation: Generation::Tag(tag(of)) }
}

fn create(text: &str, size: u64) -> Errand {
    let shape = NewShape { size, copies: 2, ..NewShape::default() };
    Errand::Create { name: name(text), shape }
}

fn delete(text: &str) -> Errand {
    Errand::Delete { name: VolumeName::parse(text.as_bytes()).unwrap() }
}

fn snapshot(text: &str, of: &str) -> Errand {
    Errand::Snapshot { name: name(text), tag: tag(of) }
}

fn clone(text: &str, of: &str, new: &str) -> Errand {
    Errand::Clone { from: vec![snapshot_of(text, of)], new: name(new) }
}

fn rollback(text: &str, of: &str) -> Errand {
    Errand::Rollback { to: vec![snapshot_of(text, of)] }
}

fn resize(text: &str, size: u64) -> Errand {
    Errand::Resize { name: name(text), size }
}

/// A VDI "disk" of some data, with a snapshot "s" and data written since.
fn cluster() -> Server {
    let mut server = Server::default();
    server.make("disk", 1 << 30);
    server.allocate("disk", [0, 1, 5, 200]);
    server.take_snapshot("disk", "s");
    server.allocate("disk", [1, 7]);
    server
}

/// All kinds of errands, which all can be done there.
fn all() -> Vec<Errand> {
    vec![
        create("new", 5 << 20),
        delete("disk"),
        delete("disk:s"),
        snapshot("disk", "t"),
        clone("disk", "s", "copy"),
        rollback("disk", "s"),
        resize("disk", 2 << 30),
    ]
}

/// Where whoever runs an errand dies: in that step, which was carried out or not.
#[derive(Clone, Copy, Debug)]
struct Death {
    step: usize,
    carried_out: bool,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done(Result<(), Failure>),
    /// With what was written down.
    Died(Option<Mark>),
}

struct Run<'a> {
    server: &'a mut Server,
    noted: Option<Mark>,
    steps: usize,
    /// In that step the cluster says so, and does not know whether it was done.
    unsure: Option<(Death, Status)>,
    asked: Vec<Request>,
}

impl<'a> Run<'a> {
    fn new(server: &'a mut Server) -> Self {
        Self { server, noted: None, steps: 0, unsure: None, asked: Vec::new() }
    }

    fn again(server: &'a mut Server, noted: Option<Mark>) -> Self {
        Self { noted, ..Self::new(server) }
    }

    /// Runs it to its end, or to a death.
    fn run(&mut self, errand: &Errand, death: Option<Death>) -> End {
        let mut life = Life::new(errand.clone(), self.noted);
        let mut next = life.step(Event::Begin);
        loop {
            assert!(self.steps < STEPS_MAX, "{errand:?} has no end");
            let dies = death.filter(|death| death.step == self.steps);
            let carried_out = dies.is_none_or(|death| death.carried_out);
            self.steps += 1;
            next = match next {
                Next::Ask(request) | Next::AskLater(request) => {
                    let mut reply = None;
                    if carried_out {
                        reply = Some(self.ask(request));
                    }
                    match reply {
                        Some(_) | None if dies.is_some() => return End::Died(self.noted),
                        Some((status, bytes, vid)) => {
                            life.answered(&Answer { status, bytes: &bytes, vid })
                        }
                        None => unreachable!(),
                    }
                }
                Next::Mark(mark) => {
                    if carried_out {
                        self.noted = Some(mark);
                    }
                    if dies.is_some() {
                        return End::Died(self.noted);
                    }
                    life.step(Event::Marked)
                }
                Next::Pause | Next::Follow if dies.is_some() => return End::Died(self.noted),
                Next::Pause | Next::Follow => life.step(Event::Paused(None)),
                Next::End(outcome) => return End::Done(outcome),
                Next::SheepGone => panic!("nobody said so"),
            };
        }
    }

    fn ask(&mut self, request: Request) -> (Status, Vec<u8>, u32) {
        self.asked.push(request.clone());
        // Only of objects it is said that they are not there.
        let is_for_object = matches!(request.opcode(), Some(Opcode::ReadObj | Opcode::WriteObj));
        let can_be = |status| status != Status::NoObj || is_for_object;
        let now =
            |(unsure, status): &(Death, Status)| unsure.step + 1 == self.steps && can_be(*status);
        match self.unsure.filter(now) {
            Some((unsure, status)) => {
                if unsure.carried_out {
                    self.server.serve(&request);
                }
                (status, Vec::new(), 0)
            }
            None => self.server.serve(&request),
        }
    }
}

fn run(server: &mut Server, errand: &Errand) -> Result<(), Failure> {
    match Run::new(server).run(errand, None) {
        End::Done(outcome) => outcome,
        End::Died(_) => unreachable!(),
    }
}

/// What is to come of it, and how many steps that takes.
fn reference(errand: &Errand) -> (Vec<String>, usize) {
    let mut server = cluster();
    let mut run = Run::new(&mut server);
    assert_eq!(run.run(errand, None), End::Done(Ok(())), "{errand:?}");
    let steps = run.steps;
    (server.described(), steps)
}

fn deaths(steps: usize) -> impl Iterator<Item = Death> + Clone {
    (0..steps).flat_map(|step| [false, true].map(|carried_out| Death { step, carried_out }))
}

#[test]
fn an_errand_is_done_once_wherever_its_runner_dies() {
    for errand in all() {
        let (wanted, steps) = reference(&errand);
        let mut deaths_seen = 0;
        for first in deaths(steps) {
            for second in deaths(steps) {
                let mut server = cluster();
                let mut noted = None;
                for death in [first, second] {
                    let mut run = Run::again(&mut server, noted);
                    let end = run.run(&errand, Some(death));
                    // It may have come to its end, and only the answer is lost.
                    noted = run.noted;
                    deaths_seen += usize::from(matches!(end, End::Died(_)));
                }
                let end = Run::again(&mut server, noted).run(&errand, None);
                assert_eq!(end, End::Done(Ok(())), "{errand:?} {first:?} {second:?}");
                assert_eq!(server.described(), wanted, "{errand:?} {first:?} {second:?}");
                assert!(!server.aborted);
            }
        }
        assert!(deaths_seen > steps, "{errand:?}: nobody died");
    }
}

/// While nodes come and go, the cluster does not find an inode for a moment: its VDI is not gone.
#[test]
fn an_inode_that_is_not_found_yet_is_asked_for_again() {
    for errand in all() {
        let (wanted, steps) = reference(&errand);
        for step in 0..steps {
            let not_found = (Death { step, carried_out: false }, Status::NoObj);
            // The first of these is before anything was done; nobody dies at the end.
            for death in deaths(steps - 1) {
                let mut server = cluster();
                let mut first = Run::new(&mut server);
                let end = first.run(&errand, Some(death));
                let noted = first.noted;
                assert!(matches!(end, End::Died(_)), "{errand:?} {death:?}");
                let mut run = Run::again(&mut server, noted);
                run.unsure = Some(not_found);
                assert_eq!(
                    run.run(&errand, None),
                    End::Done(Ok(())),
                    "{errand:?} {step} {death:?}"
                );
                assert_eq!(server.described(), wanted, "{errand:?} {step} {death:?}");
            }
        }
    }
}

/// "Its fate is unknown", the cluster may say of anything, or that its nodes did not hear each
/// other. A snapshot that is asked for once more would be undone.
#[test]
fn a_cluster_that_is_unsure_is_looked_at() {
    let answers = [Status::ClusterError, Status::NetworkError];
    for (errand, status) in
        all().into_iter().flat_map(|errand| answers.map(|one| (errand.clone(), one)))
    {
        let (wanted, steps) = reference(&errand);
        for unsure in deaths(steps) {
            let mut server = cluster();
            let mut run = Run::new(&mut server);
            run.unsure = Some((unsure, status));
            assert_eq!(run.run(&errand, None), End::Done(Ok(())), "{errand:?} {unsure:?}");
            assert_eq!(server.described(), wanted, "{errand:?} {unsure:?}");
            assert_eq!(server.rebased, 0, "{errand:?} {unsure:?}");
        }
    }
}

#[test]
fn the_same_words_written_twice_are_two_errands() {
    for (errand, second) in [
        (create("new", 5 << 20), Err(Failure::Exists)),
        (delete("disk"), Err(Failure::NoSuchVdi)),
        (delete("disk:s"), Err(Failure::NoSuchSnapshot)),
        (snapshot("disk", "t"), Err(Failure::Exists)),
        (clone("disk", "s", "copy"), Err(Failure::Exists)),
        (rollback("disk", "s"), Ok(())),
        (resize("disk", 2 << 30), Ok(())),
    ] {
        let mut server = cluster();
        assert_eq!(run(&mut server, &errand), Ok(()));
        assert_eq!(run(&mut server, &errand), second, "{errand:?}");
    }
}

#[test]
fn each_cause_has_its_failure_and_nothing_is_changed() {
    let hyper = NewShape { size: 1 << 55, hyper: true, ..NewShape::default() };
    for (errand, failure) in [
        (create("disk", 1), Failure::Exists),
        (create("big", (4 << 40) + 1), Failure::TooLarge { shift: 22 }),
        (Errand::Create { name: name("big"), shape: hyper }, Failure::TooLargeForAny),
        (delete("none"), Failure::NoSuchVdi),
        (delete("disk:none"), Failure::NoSuchSnapshot),
        (snapshot("none", "t"), Failure::NoSuchVdi),
        (snapshot("disk", "s"), Failure::Exists),
        (snapshot("tree", "t"), Failure::NoSnapshots),
        (clone("disk", "none", "copy"), Failure::NoSuchSnapshot),
        (clone("none", "s", "copy"), Failure::NoSuchVdi),
        (clone("disk", "s", "disk"), Failure::Exists),
        (rollback("disk", "none"), Failure::NoSuchSnapshot),
        (rollback("none", "s"), Failure::NoSuchVdi),
        (resize("none", 1), Failure::NoSuchVdi),
        (resize("disk", (1 << 30) - 1), Failure::Shrinks),
        (resize("disk", (4 << 40) + 1), Failure::TooLarge { shift: 22 }),
    ] {
        let mut server = cluster();
        server.make_hyper("tree");
        let before = server.described();
        assert_eq!(run(&mut server, &errand), Err(failure), "{errand:?}");
        assert_eq!(server.described(), before, "{errand:?}");
    }
}

#[test]
fn what_another_has_locked_is_not_deleted() {
    for errand in [delete("disk"), rollback("disk", "s")] {
        let mut server = cluster();
        server.lock("disk");
        let before = server.described();
        assert_eq!(run(&mut server, &errand), Err(Failure::Locked));
        assert_eq!(server.described(), before);
    }
}

/// A hyper volume's tree is the server's to walk; cleared like an array it makes it abort.
#[test]
fn a_hyper_volume_is_deleted_with_its_tree_as_it_is() {
    let mut server = cluster();
    server.make_hyper("tree");
    assert_eq!(run(&mut server, &delete("tree")), Ok(()));
    assert!(!server.aborted && !server.described().iter().any(|vdi| vdi.contains("tree")));
}

#[test]
fn a_rollback_whose_working_vdi_is_gone_is_finished() {
    let mut server = cluster();
    let (wanted, _) = reference(&rollback("disk", "s"));
    assert_eq!(run(&mut server, &delete("disk")), Ok(()));
    assert_eq!(run(&mut server, &rollback("disk", "s")), Ok(()));
    assert_eq!(server.described(), wanted);
}

/// A tag on a VDI that is no snapshot would confuse whoever lists it.
#[test]
fn a_snapshot_that_the_cluster_refuses_leaves_no_tag() {
    let mut server = cluster();
    server.refused = Some((Opcode::NewVdi, Status::VdiWrite));
    let before = server.described();
    assert_eq!(run(&mut server, &snapshot("disk", "t")), Err(Failure::NotStored));
    assert_eq!(server.described(), before);
}

#[test]
fn a_cluster_that_needs_a_moment_is_asked_again() {
    let mut server = cluster();
    let mut life = Life::new(resize("disk", 2 << 30), None);
    let Next::Ask(first) = life.step(Event::Begin) else { panic!() };
    let answer = Answer { status: Status::Again, bytes: &[], vid: 0 };
    let Next::AskLater(again) = life.answered(&answer) else { panic!() };
    assert_eq!(again, first);
    let answer = Answer { status: Status::Shutdown, bytes: &[], vid: 0 };
    assert!(matches!(life.answered(&answer), Next::SheepGone));
    assert_eq!(run(&mut server, &resize("disk", 2 << 30)), Ok(()));
}

/// A vid may belong to another VDI by now, where the cluster gives them anew.
#[test]
fn a_vid_that_is_anothers_by_now_is_left_alone() {
    let mut server = cluster();
    let End::Died(noted) =
        Run::new(&mut server).run(&delete("disk"), Some(Death { step: 4, carried_out: true }))
    else {
        panic!("it died")
    };
    let noted = noted.expect("it had begun");
    server.replace("disk", "other");
    let before = server.described();
    assert_eq!(Run::again(&mut server, Some(noted)).run(&delete("disk"), None), End::Done(Ok(())));
    assert_eq!(server.described(), before);
}
