//! What the end of a supervisor means: the end of the mount, or another life, and
//! after which pause. Pure.
//!
//! | how it ended | what follows |
//! | --- | --- |
//! | status 0 | the end: it has unmounted, or somebody else has |
//! | status 0, after SIGUSR2 was passed on | another life: it has left the mount to its successor |
//! | anything else, before any life was ready | the end: the attempt has failed, and has said why |
//! | usage or configuration, with nothing stored | the end: there is no mount to save |
//! | anything else | another life, for ever |
//!
//! When it was asked to stop, another life is only there to unmount what a dead
//! one could not, and there are few of them.

use crate::exit::{Failed, Status};
use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

/// A life of less is short.
const SHORT: Duration = Duration::from_secs(1);
/// So many short lives in a row are followed by another one at once.
const SHORT_LIVES_FREE: u32 = 3;
/// The first pause; each one is twice the one before, up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Lives that are spent on unmounting.
const STOPPING_LIVES: u32 = 3;

/// How a supervisor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It did not even begin.
    NotStarted,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::NotStarted,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::NotStarted => write!(f, "not started"),
        }
    }
}

impl Exit {
    /// With what the keeper ends, too.
    ///
    /// # Errors
    /// When the supervisor had no chance to say what was wrong.
    pub fn outcome(self) -> Result<Status, Failed> {
        match self {
            Self::Code(code) => Ok(Status::of_code(code)),
            Self::Signal(_) => Err(Failed::Killed),
            Self::NotStarted => Ok(Status::Internal),
        }
    }

    /// Whether the next try would end in the same way, as far as one can tell.
    fn is_for_good(self) -> bool {
        [Status::Usage, Status::Configuration].iter().any(|s| self == Self::Code(*s as i32))
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// End, as the supervisor did.
    End,
    /// Start the next one after a pause.
    Again(Duration),
}

/// What the supervisor was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Nothing,
    /// To end and leave the mount to a successor.
    Leave,
    /// To unmount and end; so many more lives may try.
    Stop {
        lives_left: u32,
    },
}

/// The lives so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    begun: u64,
    was_ever_ready: bool,
    is_ready: bool,
    short_in_a_row: u32,
    ask: Ask,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            begun: 0,
            was_ever_ready: false,
            is_ready: false,
            short_in_a_row: 0,
            ask: Ask::Nothing,
        }
    }
}

impl Lives {
    /// The next one begins.
    pub fn began(&mut self) {
        self.begun += 1;
        self.is_ready = false;
    }

    /// This one is ready.
    pub fn said_ready(&mut self) {
        self.is_ready = true;
        self.was_ever_ready = true;
    }

    /// It is told to stop.
    pub fn stop(&mut self) {
        if !self.is_stopping() {
            self.ask = Ask::Stop { lives_left: STOPPING_LIVES };
        }
    }

    /// It is told to leave the mount to its successor.
    pub fn leave(&mut self) {
        if !self.is_stopping() {
            self.ask = Ask::Leave;
        }
    }

    /// Whether this life is ready.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Whether any life was.
    pub fn was_ever_ready(&self) -> bool {
        self.was_ever_ready
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        matches!(self.ask, Ask::Stop { .. })
    }

    /// How many there were, with this one.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// This one has ended after that time. `has_kept`: it left something in the
    /// store.
    pub fn ended(&mut self, exit: Exit, lived: Duration, has_kept: bool) -> Verdict {
        let was_ready = std::mem::take(&mut self.is_ready);
        match (self.ask, exit) {
            (Ask::Leave, Exit::Code(0)) => {
                self.ask = Ask::Nothing;
                self.short_in_a_row = 0;
                Verdict::Again(Duration::ZERO)
            }
            (_, Exit::Code(0)) => Verdict::End,
            _ if !self.was_ever_ready => Verdict::End,
            (Ask::Stop { lives_left }, _) => {
                // With a status of its own it has done what it could.
                let is_over = was_ready && matches!(exit, Exit::Code(_));
                if is_over || !has_kept || lives_left == 0 {
                    return Verdict::End;
                }
                self.ask = Ask::Stop { lives_left: lives_left - 1 };
                Verdict::Again(Duration::ZERO)
            }
            (Ask::Nothing | Ask::Leave, _) => {
                self.ask = Ask::Nothing;
                if exit.is_for_good() && !has_kept {
                    return Verdict::End;
                }
                Verdict::Again(self.pause_after(lived))
            }
        }
    }

    fn pause_after(&mut self, lived: Duration) -> Duration {
        self.short_in_a_row = if lived < SHORT { self.short_in_a_row + 1 } else { 0 };
        match self.short_in_a_row.checked_sub(SHORT_LIVES_FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => PAUSE_MAX.min(PAUSE_MIN * (1 << doublings.min(10))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const KILLED: Exit = Exit::Signal(9);
    const AT_ONCE: Verdict = Verdict::Again(Duration::ZERO);

    fn ready() -> Lives {
        let mut lives = Lives::default();
        lives.began();
        lives.said_ready();
        lives
    }

    fn again(lives: &mut Lives) {
        lives.began();
        lives.said_ready();
    }

    #[test]
    fn an_attempt_that_fails_is_not_repeated() {
        for exit in [Exit::Code(0), Exit::Code(69), KILLED, Exit::NotStarted] {
            let mut lives = Lives::default();
            lives.began();
            assert_eq!(lives.ended(exit, LONG, true), Verdict::End, "{exit}");
        }
    }

    #[test]
    fn an_end_without_fault_is_the_end_and_any_other_is_not() {
        assert_eq!(ready().ended(Exit::Code(0), LONG, true), Verdict::End);
        for exit in [Exit::Code(70), Exit::Code(69), Exit::Code(1), KILLED, Exit::NotStarted] {
            assert_eq!(ready().ended(exit, LONG, false), AT_ONCE, "{exit}");
        }
    }

    #[test]
    fn what_cannot_get_better_is_repeated_only_for_a_mount() {
        for exit in [Exit::Code(64), Exit::Code(78)] {
            assert_eq!(ready().ended(exit, LONG, false), Verdict::End, "{exit}");
            assert_eq!(ready().ended(exit, LONG, true), AT_ONCE, "{exit}");
        }
    }

    #[test]
    fn short_lives_make_pauses_that_grow_and_a_long_one_ends_them() {
        let mut lives = ready();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let Verdict::Again(pause) = lives.ended(KILLED, SHORT / 2, true) else { panic!() };
            pauses.push(pause.as_millis());
            lives.began();
        }
        assert_eq!(pauses, [0, 0, 0, 50, 100, 200, 400, 800, 1600, 2000, 2000, 2000]);
        assert_eq!(lives.begun(), 13);
        assert_eq!(lives.ended(KILLED, SHORT, true), AT_ONCE);
        assert_eq!(lives.ended(KILLED, SHORT / 2, true), AT_ONCE);
    }

    #[test]
    fn one_that_leaves_the_mount_has_a_successor_and_one_that_stops_has_none() {
        let mut lives = ready();
        lives.leave();
        assert_eq!(lives.ended(Exit::Code(0), LONG, true), AT_ONCE);
        again(&mut lives);
        lives.leave();
        lives.stop();
        assert_eq!(lives.ended(Exit::Code(0), LONG, true), Verdict::End);
        let mut lives = ready();
        lives.stop();
        lives.leave();
        assert_eq!(lives.ended(Exit::Code(0), LONG, true), Verdict::End);
    }

    /// A crash after the request to leave is a crash, and the request is forgotten.
    #[test]
    fn a_request_to_leave_is_for_one_life() {
        let mut lives = ready();
        lives.leave();
        assert_eq!(lives.ended(KILLED, LONG, true), AT_ONCE);
        again(&mut lives);
        assert_eq!(lives.ended(Exit::Code(0), LONG, true), Verdict::End);
    }

    #[test]
    fn a_stop_that_crashes_is_tried_again_a_few_times_while_there_is_a_mount() {
        let mut lives = ready();
        lives.stop();
        for _ in 0..STOPPING_LIVES {
            assert_eq!(lives.ended(KILLED, LONG, true), AT_ONCE);
            again(&mut lives);
            lives.stop();
        }
        assert_eq!(lives.ended(KILLED, LONG, true), Verdict::End);
        let mut lives = ready();
        lives.stop();
        assert_eq!(lives.ended(KILLED, LONG, false), Verdict::End);
        let mut lives = ready();
        lives.stop();
        assert_eq!(lives.ended(Exit::Code(70), LONG, true), Verdict::End);
    }

    #[test]
    fn the_keeper_ends_as_the_supervisor_did() {
        assert_eq!(Exit::Code(69).outcome().unwrap(), Status::Unavailable);
        assert!(matches!(KILLED.outcome(), Err(Failed::Killed)));
        assert_eq!(Exit::NotStarted.outcome().unwrap(), Status::Internal);
    }
}
