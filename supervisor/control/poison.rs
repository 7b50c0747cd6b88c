//! Against a request that kills every worker that gets it (hazard 24).
//!
//! Only deaths of the worker's own making count: a signal of its own, a panic,
//! nonsense on the channel. What an operator, the kernel's memory killer or we
//! ourselves ended proves nothing against any request. After two such deaths in a
//! row, what was under way is replayed one at a time, and what was alone under way
//! at such a death gets a strike. At the third it is answered EIO.

use crate::datapath::Pace;
use nix::libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS};
use sheepfs::ipc::Tag;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Deaths further apart than this have nothing to do with each other.
const IN_A_ROW: Duration = Duration::from_secs(60);
/// So many in a row, and suspects are told apart.
const DEATHS_MAX: u32 = 2;
/// So many, and a request is guilty.
const STRIKES_MAX: u32 = 3;
/// `sysexits.h`'s internal error, and the exit status of a panic that unwinds.
const CODES: [i32; 2] = [70, 101];
const SIGNALS: [i32; 6] = [SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGSYS];

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with that status.
    Code(i32),
    /// By that signal.
    Signal(i32),
    /// Somebody else has asked the kernel before us.
    Unknown,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

/// Whose fault a death was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The worker's own.
    OwnMaking,
    /// Somebody ended it, or it had done its work.
    Ended,
}

impl Death {
    /// What an end means; `nonsense` if we killed it for what it said.
    pub fn of(exit: Exit, nonsense: bool) -> Self {
        let own = match exit {
            Exit::Code(code) => CODES.contains(&code),
            Exit::Signal(signal) => SIGNALS.contains(&signal),
            Exit::Unknown => false,
        };
        if own || nonsense { Self::OwnMaking } else { Self::Ended }
    }
}

/// What is remembered of such deaths.
#[derive(Debug, Default)]
pub struct Guard {
    last: Option<Instant>,
    in_a_row: u32,
    strikes: BTreeMap<Tag, u32>,
}

impl Guard {
    /// A worker died that had been told of these requests and had not answered
    /// them, and perhaps of something for a control file. Returns those that are
    /// guilty.
    pub fn died(
        &mut self,
        death: Death,
        under_way: &[Tag],
        with_control: bool,
        now: Instant,
    ) -> Vec<Tag> {
        self.forget_old(now);
        match death {
            Death::Ended => Vec::new(),
            Death::OwnMaking => {
                self.last = Some(now);
                self.in_a_row = self.in_a_row.saturating_add(1);
                if with_control { Vec::new() } else { self.strike(under_way) }
            }
        }
    }

    fn strike(&mut self, under_way: &[Tag]) -> Vec<Tag> {
        let [alone] = under_way else { return Vec::new() };
        let strikes = self.strikes.entry(*alone).or_default();
        *strikes += 1;
        if *strikes < STRIKES_MAX {
            return Vec::new();
        }
        self.strikes.remove(alone);
        vec![*alone]
    }

    /// How the next worker shall get what was under way.
    pub fn pace(&mut self, now: Instant) -> Pace {
        self.forget_old(now);
        if self.in_a_row >= DEATHS_MAX { Pace::Single } else { Pace::All }
    }

    fn forget_old(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > IN_A_ROW) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc::{SIGKILL, SIGTERM};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_what_a_worker_does_to_itself_is_its_own_making() {
        for signal in [SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE, SIGSYS] {
            assert_eq!(Death::of(Exit::Signal(signal), false), Death::OwnMaking, "{signal}");
        }
        for exit in [Exit::Code(70), Exit::Code(101)] {
            assert_eq!(Death::of(exit, false), Death::OwnMaking, "{exit:?}");
        }
        let ended = [
            Exit::Signal(SIGKILL),
            Exit::Signal(SIGTERM),
            Exit::Code(0),
            Exit::Code(77),
            Exit::Unknown,
        ];
        for exit in ended {
            assert_eq!(Death::of(exit, false), Death::Ended, "{exit:?}");
            assert_eq!(Death::of(exit, true), Death::OwnMaking, "{exit:?}");
        }
    }

    #[test]
    fn a_real_end_is_read() {
        let shell = |script: &str| {
            let status = std::process::Command::new("sh").args(["-c", script]).status();
            Exit::from(status.unwrap())
        };
        assert_eq!(shell("exit 70"), Exit::Code(70));
        assert_eq!(shell("kill -SEGV $$"), Exit::Signal(SIGSEGV));
    }

    #[test]
    fn suspects_are_told_apart_after_two_deaths_in_a_row_for_a_minute() {
        let start = Instant::now();
        let mut guard = Guard::default();
        guard.died(Death::OwnMaking, &[Tag(1), Tag(2)], false, start);
        assert_eq!(guard.pace(start), Pace::All);
        guard.died(Death::OwnMaking, &[Tag(1), Tag(2)], false, start + SECOND * 60);
        assert_eq!(guard.pace(start + SECOND * 60), Pace::Single);
        assert_eq!(guard.pace(start + SECOND * 120), Pace::Single);
        assert_eq!(guard.pace(start + SECOND * 121), Pace::All);
        guard.died(Death::OwnMaking, &[], false, start + SECOND * 200);
        guard.died(Death::OwnMaking, &[], false, start + SECOND * 261);
        assert_eq!(guard.pace(start + SECOND * 261), Pace::All, "too far apart");
    }

    #[test]
    fn what_kills_alone_three_times_is_guilty_and_nothing_else() {
        let now = Instant::now();
        let mut guard = Guard::default();
        let alone = [Tag(7)];
        assert!(guard.died(Death::OwnMaking, &[Tag(6), Tag(7)], false, now).is_empty());
        assert!(guard.died(Death::OwnMaking, &alone, false, now).is_empty());
        assert!(guard.died(Death::Ended, &alone, false, now).is_empty());
        assert!(guard.died(Death::OwnMaking, &[Tag(6)], false, now).is_empty());
        assert!(guard.died(Death::OwnMaking, &alone, false, now).is_empty());
        assert_eq!(guard.died(Death::OwnMaking, &alone, false, now), alone);
    }

    #[test]
    fn no_number_of_kills_makes_a_request_guilty() {
        let now = Instant::now();
        let mut guard = Guard::default();
        for _ in 0..100 {
            assert!(guard.died(Death::Ended, &[Tag(1)], false, now).is_empty());
            assert_eq!(guard.pace(now), Pace::All);
        }
    }
}
