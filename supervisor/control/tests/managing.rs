//! Errands: one at a time, once, and never beside what an earlier worker may still do.

use super::succeeding::successor;
use super::*;
use crate::events::LifeFile;
use sheepfs::ipc::{Errand, Mark};

pub(super) const MARK: Mark = Mark { vid: 7, create_time: 3, base: 0 };

impl Loop {
    pub(super) fn life(&mut self, file: LifeFile, text: &str) -> u64 {
        self.write(WritableFile::Life(file), text)
    }

    /// A successor gets a write again that was not answered.
    fn resent(&mut self, file: LifeFile, text: &str, number: u64) -> u64 {
        let caller = self.caller();
        let line = (WritableFile::Life(file), number);
        self.apply(Input::Write(caller, line, text.as_bytes().to_vec()));
        self.callers
    }

    /// What the worker was told to do since the last look, and what was begun with it before.
    pub(super) fn told(&mut self) -> Vec<(Tag, String, Option<Mark>)> {
        let mut told = Vec::new();
        self.done.retain(|effect| match effect {
            Effect::Send(_, ToWorker::Manage { tag, errand, begun }) => {
                told.push((*tag, errand.words(), *begun));
                false
            }
            _ => true,
        });
        told
    }

    /// The only errand that the worker was told of since the last look.
    pub(super) fn told_one(&mut self) -> (Tag, String, Option<Mark>) {
        let mut told = self.told();
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0)
    }

    /// An errand that the worker has begun; who waits for it.
    pub(super) fn begun(&mut self, file: LifeFile, text: &str) -> u64 {
        let caller = self.life(file, text);
        let (tag, ..) = self.told_one();
        self.says(FromWorker::Begun { tag, mark: MARK });
        caller
    }

    pub(super) fn ends(&mut self, tag: Tag, outcome: Result<(), Failure>) {
        self.says(FromWorker::Done { tag, outcome });
    }

    /// The next worker has a session, and nothing of earlier ones is under way.
    pub(super) fn recover(&mut self) {
        self.spare_is_next();
        self.says(FromWorker::Quiet { gateway: sheep(7000), how: QuietReason::Drained });
    }

    /// The next worker has a session.
    pub(super) fn spare_is_next(&mut self) {
        self.reach();
        self.apply(Input::Tick);
    }
}

#[test]
fn errands_are_done_one_after_the_other() {
    let mut running = Loop::running();
    let first = running.life(LifeFile::Create, "a 1G");
    let second = running.life(LifeFile::Create, "a 1G");
    let (tag, words, begun) = running.told_one();
    assert_eq!((words.as_str(), begun), ("create a of 1073741824 bytes", None));
    running.ends(tag, Ok(()));
    assert_eq!(running.answer(first), Some(Answer::Done));
    let (tag, ..) = running.told_one();
    running.ends(tag, Err(Failure::Exists));
    assert_eq!(running.answer(second), Some(Answer::Refused(Errno::EEXIST)));
    assert_eq!(
        running.last_error().as_deref(),
        Some("create a of 1073741824 bytes: there is one of that name already")
    );
}

#[test]
fn what_means_nothing_is_refused_in_words() {
    let mut running = Loop::running();
    let caller = running.life(LifeFile::Clone, "a b");
    assert_eq!(running.answer(caller), Some(Answer::Refused(Errno::EINVAL)));
    let said = running.last_error();
    assert_eq!(
        said.as_deref(),
        Some("write \"a b\" to vdi/clone: a snapshot is wanted, as NAME:TAG or NAME:ID")
    );
    assert!(running.told().is_empty());
}

/// What is changed is written down before the worker may go on.
#[test]
fn a_mark_is_saved_before_the_worker_goes_on() {
    let mut running = Loop::running();
    running.life(LifeFile::Snapshot, "a s");
    assert!(running.control.saved().errands.is_empty());
    let (tag, ..) = running.told_one();
    running.says(FromWorker::Begun { tag, mark: MARK });
    let errands = running.control.saved().errands;
    assert_eq!((errands.len(), errands[0].2), (1, MARK));
    assert!(running.does("Send"), "{:?}", running.done);
    running.ends(tag, Ok(()));
    assert!(running.control.saved().errands.is_empty());
}

#[test]
fn the_next_worker_is_told_what_had_begun_once_nothing_is_under_way() {
    let mut running = Loop::running();
    let caller = running.begun(LifeFile::Snapshot, "a s");
    running.is_gone(KILLED);
    running.spare_is_next();
    assert!(running.told().is_empty(), "the old request may be under way");
    running.says(FromWorker::Quiet { gateway: sheep(7000), how: QuietReason::Drained });
    let (tag, _, begun) = running.told_one();
    assert_eq!(begun, Some(MARK));
    running.ends(tag, Ok(()));
    assert_eq!(running.answer(caller), Some(Answer::Done));
}

#[test]
fn what_had_not_begun_does_not_wait() {
    let mut running = Loop::running();
    running.life(LifeFile::Snapshot, "a s");
    running.told_one();
    running.is_gone(KILLED);
    running.spare_is_next();
    assert_eq!(running.told_one().2, None);
}

/// A gateway that hangs is not waited for for ever.
#[test]
fn an_errand_goes_on_when_the_fence_time_is_over() {
    let mut running = Loop::running();
    running.begun(LifeFile::Resize, "a 2G");
    running.is_gone(KILLED);
    running.spare_is_next();
    running.later(FENCE - Duration::from_millis(1));
    assert!(running.told().is_empty());
    running.later(Duration::from_millis(1));
    assert_eq!(running.told_one().2, Some(MARK));
}

/// A write that is delivered again joins its errand; the same words of somebody else don't.
#[test]
fn a_successor_goes_on_and_knows_whom_it_was_for() {
    let mut running = Loop::running();
    let number = running.begun(LifeFile::Delete, "a");
    let mut next = successor(&running, wishes(&[7000], &[]));
    next.connect();
    // The kernel's numbers go on.
    next.callers += 100;
    let other = next.life(LifeFile::Delete, "a");
    assert_ne!(other, number, "another request");
    let again = next.resent(LifeFile::Delete, "a", number);
    assert!(next.told().is_empty());
    next.says(FromWorker::Quiet { gateway: sheep(7000), how: QuietReason::Drained });
    let (tag, _, begun) = next.told_one();
    assert_eq!(begun, Some(MARK));
    next.ends(tag, Ok(()));
    assert_eq!(next.answer(again), Some(Answer::Done));
    assert_eq!(next.answer(other), None);
    let (tag, _, begun) = next.told_one();
    assert_eq!(begun, None);
    next.ends(tag, Err(Failure::NoSuchVdi));
    assert_eq!(next.answer(other), Some(Answer::Refused(Errno::ENOENT)));
}

/// The kernel may deliver it after the end of its errand.
#[test]
fn the_end_of_an_errand_that_nobody_waits_for_is_noted() {
    let mut running = Loop::running();
    let number = running.begun(LifeFile::Create, "a 1G");
    let mut next = successor(&running, wishes(&[7000], &[]));
    next.connect();
    next.says(FromWorker::Quiet { gateway: sheep(7000), how: QuietReason::Gone });
    let (tag, ..) = next.told_one();
    next.ends(tag, Ok(()));
    let noted = next.done.iter().any(
        |effect| matches!(effect, Effect::Answered { number: noted, errno: 0 } if *noted == number),
    );
    assert!(noted, "{:?}", next.done);
}

#[test]
fn a_volume_is_not_deleted_and_one_that_goes_is_not_attached() {
    let mut running = Loop::running();
    running.attached("a", 7);
    for (file, text) in [(LifeFile::Delete, "a"), (LifeFile::Rollback, "a:s")] {
        let caller = running.life(file, text);
        assert_eq!(running.answer(caller), Some(Answer::Refused(Errno::EBUSY)));
    }
    running.life(LifeFile::Delete, "b");
    let attach = running.write(WritableFile::Mount, "b");
    assert_eq!(running.answer(attach), Some(Answer::Refused(Errno::EBUSY)));
}

/// It would have to hold still for a snapshot, or to grow.
#[test]
fn an_errand_waits_for_its_volume_to_be_there() {
    let mut running = Loop::running();
    let attach = running.write(WritableFile::Mount, "a");
    running.life(LifeFile::Snapshot, "a s");
    assert!(running.told().is_empty());
    let tag = running.attach_tags()[0];
    running.says(FromWorker::Attached { tag, facts: facts(7) });
    assert_eq!(running.answer(attach), Some(Answer::Done));
    running.told_one();
}

#[test]
fn a_volume_grows_and_whoever_truncated_it_is_told() {
    let mut running = Loop::running();
    let volume = running.attached("a", 7);
    let caller = running.caller();
    running.apply(Input::Grow(caller, (volume.name.clone(), 2 << 30), 99));
    let (tag, words, _) = running.told_one();
    assert_eq!(words, "resize a to 2147483648 bytes");
    running.says(FromWorker::Grown { volume: volume.id, size: 2 << 30 });
    assert!(running.does("VolumeGrown"));
    running.ends(tag, Ok(()));
    assert_eq!(running.answer(running.callers), Some(Answer::Done));
    assert_eq!(volume.size(), 2 << 30);
    // No worker makes it smaller, or larger than an index allows.
    for size in [1 << 30, (4 << 40) + 1, u64::MAX] {
        running.says(FromWorker::Grown { volume: volume.id, size });
        assert_eq!(volume.size(), 2 << 30);
    }
}

#[test]
fn without_a_sheep_an_errand_waits_a_little_and_was_never_begun() {
    let mut running = Loop::running();
    running.lose(LostReason::Disconnected);
    let caller = running.life(LifeFile::Create, "a 1G");
    running.later(Duration::from_secs(5));
    assert_eq!(running.answer(caller), Some(Answer::Refused(Errno::EHOSTUNREACH)));
    assert!(running.control.waits.managed().next().is_none());
}

#[test]
fn an_errand_that_has_begun_goes_on_without_those_who_gave_up() {
    let mut running = Loop::running();
    let caller = running.begun(LifeFile::Delete, "a");
    running.later(Duration::from_secs(600));
    assert_eq!(running.answer(caller), Some(Answer::Refused(Errno::ETIMEDOUT)));
    running.is_gone(KILLED);
    running.recover();
    assert!(matches!(running.told_one().2, Some(MARK)));
}

#[test]
fn words_name_what_was_tried() {
    let errand = Errand::Delete { name: name("a:s") };
    assert_eq!((errand.words().as_str(), errand.target()), ("delete a:s", "a:s"));
}

/// An attach may take long, and a VDI that no worker can take up again longer.
#[test]
fn an_errand_that_waits_for_its_volume_lets_others_pass() {
    let mut running = Loop::running();
    running.write(WritableFile::Mount, "a");
    let attach = running.attach_tags()[0];
    running.life(LifeFile::Snapshot, "a s");
    running.life(LifeFile::Create, "b 1G");
    let (tag, words, _) = running.told_one();
    assert_eq!(words, "create b of 1073741824 bytes");
    // One at a time, all the same.
    running.says(FromWorker::Attached { tag: attach, facts: facts(7) });
    assert!(running.told().is_empty());
    running.ends(tag, Ok(()));
    assert_eq!(running.told_one().1, "make snapshot s of a");
}
