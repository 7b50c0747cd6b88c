//! Errands that are given up: by whoever waits for them, by the end of the mount, or because
//! workers break down over them.

use super::managing::MARK;
use super::succeeding::successor;
use super::*;
use crate::events::LifeFile;

/// Whoever hears that it timed out may do something else.
#[test]
fn what_had_not_begun_in_time_is_never_done() {
    let mut running = Loop::running();
    let caller = running.life(LifeFile::Delete, "a");
    let (late, ..) = running.told_one();
    running.later(Duration::from_secs(600));
    assert_eq!(running.answer(caller), Some(Answer::Refused(Errno::ETIMEDOUT)));
    running.says(FromWorker::Begun { tag: late, mark: MARK });
    assert!(!running.sent().contains(&ToWorker::GoOn { tag: late }));
    assert!(running.control.saved().errands.is_empty());
    running.life(LifeFile::Create, "b 1G");
    running.told_one();
}

#[test]
fn nothing_is_begun_once_the_end_has() {
    let mut running = Loop::running();
    let caller = running.life(LifeFile::Delete, "a");
    let (late, ..) = running.told_one();
    running.apply(Input::Stop);
    assert_eq!(running.answer(caller), Some(Answer::Refused(Errno::ESHUTDOWN)));
    running.says(FromWorker::Begun { tag: late, mark: MARK });
    assert!(!running.sent().contains(&ToWorker::GoOn { tag: late }));
}

/// Worker after worker breaks down over it. Where it stands must be looked at.
#[test]
fn an_errand_that_is_given_up_in_the_middle_is_said_to_be_half_done() {
    for somebody_waits in [true, false] {
        let mut running = Loop::running();
        let number = running.begun(LifeFile::Delete, "a");
        let mut next = if somebody_waits {
            running
        } else {
            let mut next = successor(&running, wishes(&[7000], &[]));
            next.connect();
            next.says(FromWorker::Quiet { gateway: sheep(7000), how: QuietReason::Gone });
            next
        };
        for _ in 0..3 {
            next.is_gone(CRASHED);
            next.later(Duration::from_secs(1));
            next.recover();
        }
        assert_eq!(
            next.last_error().as_deref(),
            Some(
                "delete a: the worker broke down again and again in the middle of it; \
                 vdi/list shows what there is"
            )
        );
        assert!(next.control.saved().errands.is_empty());
        let errno = Errno::EIO;
        if somebody_waits {
            assert_eq!(next.answer(number), Some(Answer::Refused(errno)));
        } else {
            assert!(next.does(&format!("Answered {{ number: {number}, errno: {}", errno as i32)));
        }
    }
}

/// What the last worker sent for it may still be under way, also when a successor begins.
#[test]
fn an_errand_that_is_given_up_still_holds_the_next_one() {
    let mut running = Loop::running();
    running.begun(LifeFile::Delete, "a");
    for _ in 0..3 {
        running.is_gone(CRASHED);
        running.later(Duration::from_secs(1));
        running.spare_is_next();
    }
    let mut next = successor(&running, wishes(&[7000], &[]));
    next.connect();
    next.life(LifeFile::Create, "a 1G");
    assert!(next.told().is_empty());
    next.says(FromWorker::Quiet { gateway: sheep(7000), how: QuietReason::Drained });
    next.told_one();
}
