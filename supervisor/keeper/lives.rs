//! What the end of a supervisor means: the end of the mount, or another life, and
//! after which pause. Pure.
//!
//! | how it ended | what follows |
//! | --- | --- |
//! | status 0 | the end: it has unmounted, or somebody else has |
//! | status 75 | another life, at once: it has left the mount to its successor |
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
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// The status of one that leaves the mount.
const LEFT: i32 = Status::Left as i32;
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

    /// This one becomes another program, perhaps, and is not ready for a while.
    pub fn said_reloading(&mut self) {
        self.is_ready = false;
    }

    /// It is told to stop.
    pub fn stop(&mut self) {
        if !self.is_stopping() {
            self.ask = Ask::Stop { lives_left: STOPPING_LIVES };
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
            (Ask::Nothing, Exit::Code(LEFT)) if has_kept => {
                self.short_in_a_row = 0;
                Verdict::Again(Duration::ZERO)
            }
            (Ask::Nothing, _) => {
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
mod tests;
