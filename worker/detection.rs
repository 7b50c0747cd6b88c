//! Whether the sheep still lives: the decision, pure.
//!
//! ```text
//!            something is on the wire            overdue
//!  Idle ────────────────────────────> Looking ──────────> Probing
//!   ^   nothing is on the wire           ^  ^                │ │
//!   └────────────────────────────────────┘  │   answered     │ │ no answer, and
//!                                           └────────────────┘ │ still overdue
//!                                                              v
//!                                                             lost
//! ```
//!
//! A request that makes no progress for the I/O time-out proves nothing: the
//! sheep may recover objects or wait for a hanging peer, and such a sheep is waited
//! for (hazard 49). So it is asked the cheapest question, over a fresh connection,
//! since the old one may be what is broken. A sheep that answers that is only slow.
//! One that does not, while the request still stands still, is lost: it hangs,
//! or the network drops what we send (hazard 31). With nothing on the wire nothing
//! is asked.
//!
//! Look-ups, locks and other operations of the whole cluster wait for each other
//! over all nodes, so they may stand still for longer (hazard 50).

use crate::connection::Stalled;
use sheepfs::ipc::LostReason;
use sheepfs::wire::Opcode;
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// How much longer an operation of the whole cluster may take.
const LOOKUP_FACTOR: u32 = 3;
/// The least time that a probe has.
const PROBE_MIN: Duration = Duration::from_secs(1);
/// How often the log says that a sheep is slow.
const SAY_INTERVAL: Duration = Duration::from_secs(30);

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was on the wire when it looked last.
    Idle,
    /// It looks then.
    Looking(Instant),
    /// A probe is under way.
    Probing,
}

/// The detector of one session.
#[derive(Debug)]
pub struct Detector {
    io_timeout: Duration,
    state: State,
    said: Option<Instant>,
}

impl Detector {
    /// A detector for that time-out.
    pub fn new(io_timeout: Duration) -> Self {
        Self { io_timeout, state: State::Idle, said: None }
    }

    /// How long a probe may take.
    pub fn probe_time(&self) -> Duration {
        PROBE_MIN.max(self.io_timeout / 2)
    }

    /// Something is on the wire.
    pub fn wake(&mut self, now: Instant) {
        if self.state == State::Idle {
            self.state = State::Looking(now + self.io_timeout);
        }
    }

    /// Whether [`Self::look`] has something to do.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next_deadline().is_some_and(|at| at <= now)
    }

    /// When it has.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Looking(at) => Some(at),
            State::Idle | State::Probing => None,
        }
    }

    /// Looks at what is on the wire. `true`: the sheep must be probed.
    pub fn look(&mut self, now: Instant, stalled: &[Stalled]) -> bool {
        let first_due = stalled.iter().map(|one| self.due(one)).min();
        self.state = match first_due {
            None => State::Idle,
            Some(due) if due <= now => State::Probing,
            // What comes meanwhile can't be due before the time-out has passed.
            Some(due) => State::Looking(due.min(now + self.io_timeout)),
        };
        self.state == State::Probing
    }

    /// The probe was answered: the sheep is only slow.
    pub fn answered(&mut self, now: Instant, stalled: &[Stalled]) {
        self.state = State::Looking(now + self.io_timeout);
        let silent = self.said.is_none_or(|at| now.duration_since(at) >= SAY_INTERVAL);
        if let (Some(worst), true) = (stalled.iter().min_by_key(|one| one.since), silent) {
            self.said = Some(now);
            warn!(
                request = ?worst.opcode,
                seconds = now.duration_since(worst.since).as_secs(),
                outstanding = stalled.len(),
                "the sheep is slow: a request makes no progress, but the sheep answers"
            );
        }
    }

    /// The probe was not answered.
    ///
    /// # Errors
    /// The sheep is lost, unless what was overdue went on meanwhile.
    pub fn unanswered(
        &mut self,
        why: LostReason,
        now: Instant,
        stalled: &[Stalled],
    ) -> Result<(), LostReason> {
        if stalled.iter().any(|one| self.due(one) <= now) {
            debug!(?why, "a probe of the sheep failed");
            return Err(LostReason::Silent);
        }
        self.state = State::Looking(now + self.io_timeout);
        Ok(())
    }

    fn due(&self, stalled: &Stalled) -> Instant {
        stalled.since + self.io_timeout * if is_lookup(stalled.opcode) { LOOKUP_FACTOR } else { 1 }
    }
}

/// Whether all nodes of the cluster take part in an operation.
fn is_lookup(opcode: Opcode) -> bool {
    match opcode {
        Opcode::NewVdi
        | Opcode::LockVdi
        | Opcode::ReleaseVdi
        | Opcode::GetVdiInfo
        | Opcode::DelVdi
        | Opcode::MakeFs
        | Opcode::Shutdown
        | Opcode::GetVdiAttr => true,
        Opcode::CreateAndWriteObj
        | Opcode::ReadObj
        | Opcode::WriteObj
        | Opcode::RemoveObj
        | Opcode::DiscardObj
        | Opcode::DecrefObj
        | Opcode::ReadVdis
        | Opcode::FlushVdi
        | Opcode::GetClusterDefault
        | Opcode::GetNodeList
        | Opcode::StatSheep
        | Opcode::StatCluster
        | Opcode::GetStoreList
        | Opcode::StatRecovery
        | Opcode::FlushDelCache
        | Opcode::GetVdiCopies
        | Opcode::Stat
        | Opcode::Exist
        | Opcode::ClusterInfo
        | Opcode::ReadDelVdis => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn stalled(opcode: Opcode, since: Instant) -> Stalled {
        Stalled { opcode, since }
    }

    #[test]
    fn nothing_on_the_wire_is_never_probed() {
        let (mut detector, start) = (Detector::new(TIMEOUT), Instant::now());
        assert_eq!(detector.next_deadline(), None);
        detector.wake(start);
        assert_eq!(detector.next_deadline(), Some(start + TIMEOUT));
        assert!(!detector.look(start + TIMEOUT, &[]));
        assert_eq!(detector.next_deadline(), None);
    }

    #[test]
    fn a_request_without_progress_is_probed_for_when_it_is_due_and_not_before() {
        let (mut detector, start) = (Detector::new(TIMEOUT), Instant::now());
        detector.wake(start);
        let younger = [stalled(Opcode::WriteObj, start + TIMEOUT / 2)];
        assert!(!detector.look(start + TIMEOUT, &younger));
        assert_eq!(detector.next_deadline(), Some(start + TIMEOUT * 3 / 2));
        assert!(detector.look(start + TIMEOUT * 3 / 2, &younger));
        assert_eq!(detector.next_deadline(), None, "one probe at a time");
    }

    #[test]
    fn a_sheep_that_answers_is_only_slow_and_is_probed_again() {
        let (mut detector, start) = (Detector::new(TIMEOUT), Instant::now());
        let slow = [stalled(Opcode::WriteObj, start)];
        assert!(detector.look(start + TIMEOUT, &slow));
        detector.answered(start + TIMEOUT, &slow);
        assert_eq!(detector.next_deadline(), Some(start + 2 * TIMEOUT));
        assert!(detector.look(start + 2 * TIMEOUT, &slow));
    }

    #[test]
    fn a_sheep_that_answers_neither_is_lost() {
        let (mut detector, start) = (Detector::new(TIMEOUT), Instant::now());
        let stuck = [stalled(Opcode::ReadObj, start)];
        assert!(detector.look(start + TIMEOUT, &stuck));
        let late = start + TIMEOUT + detector.probe_time();
        let outcome = detector.unanswered(LostReason::Unreachable, late, &stuck);
        assert_eq!(outcome, Err(LostReason::Silent));
    }

    #[test]
    fn progress_during_a_probe_counts_more_than_the_probe() {
        let (mut detector, start) = (Detector::new(TIMEOUT), Instant::now());
        assert!(detector.look(start + TIMEOUT, &[stalled(Opcode::ReadObj, start)]));
        let late = start + TIMEOUT * 2;
        let moved = [stalled(Opcode::ReadObj, start + TIMEOUT * 3 / 2)];
        assert_eq!(detector.unanswered(LostReason::Unreachable, late, &moved), Ok(()));
        assert!(detector.next_deadline().is_some());
    }

    /// Hazard 50.
    #[test]
    fn a_lookup_may_take_three_times_as_long() {
        let (mut detector, start) = (Detector::new(TIMEOUT), Instant::now());
        let lookup = [stalled(Opcode::LockVdi, start)];
        assert!(!detector.look(start + TIMEOUT * 2, &lookup));
        assert!(detector.look(start + TIMEOUT * 3, &lookup));
    }
}
