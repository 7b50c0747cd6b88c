//! Where log lines go.

use super::SINK_VARIABLE;
use nix::sys::stat::{FileStat, SFlag, fstat, major, minor};
use std::env;
use std::io;

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// To stderr, for somebody who watches.
    Stderr,
    /// To stderr, each line with its priority as sd-daemon(3) has it: a manager reads them.
    Prefixed,
    /// To the journal; while there is none, as [`Sink::Prefixed`].
    Journal,
    /// To the journal; while there is none, nowhere: stderr is the caller's until the mount is
    /// ready, and leads nowhere then.
    Background,
}

/// What stderr is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stderr {
    /// The journal's stream for this service.
    Journal,
    /// `/dev/null`, or closed.
    Nothing,
    /// A terminal, a file, a pipe.
    Something,
}

impl Sink {
    /// For a supervisor in the foreground. Lines that would get into the journal through stderr,
    /// or nowhere, go to the journal itself, where they have fields. Whoever led stderr elsewhere
    /// finds them there.
    #[must_use]
    pub fn of_foreground() -> Self {
        let stream = env::var("JOURNAL_STREAM").ok();
        let stderr = stderr_is(fstat(io::stderr()).ok().as_ref(), stream.as_deref());
        Self::chosen(stderr, env::var_os("NOTIFY_SOCKET").is_some())
    }

    fn chosen(stderr: Stderr, managed: bool) -> Self {
        match (stderr, managed) {
            (Stderr::Journal | Stderr::Nothing, _) => Self::Journal,
            (Stderr::Something, true) => Self::Prefixed,
            (Stderr::Something, false) => Self::Stderr,
        }
    }

    /// For a worker, as the value of [`SINK_VARIABLE`].
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Stderr => "stderr",
            Self::Prefixed => "prefixed",
            // Its stderr is heard by the supervisor, who knows what to do with its lines.
            Self::Journal | Self::Background => "journal",
        }
    }

    /// Whether the supervisor must listen to a worker's stderr: what leads nowhere else is logged.
    #[must_use]
    pub fn hears_workers(self) -> bool {
        matches!(self, Self::Journal | Self::Background)
    }

    /// From [`SINK_VARIABLE`]; stderr when it says nothing.
    #[must_use]
    pub fn from_environment() -> Self {
        let said = env::var(SINK_VARIABLE).unwrap_or_default();
        let known = [Self::Journal, Self::Prefixed];
        known.into_iter().find(|sink| sink.word() == said).unwrap_or(Self::Stderr)
    }
}

fn stderr_is(stderr: Option<&FileStat>, journal_stream: Option<&str>) -> Stderr {
    let Some(stat) = stderr else { return Stderr::Nothing };
    let is_device = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
    // The number of /dev/null, in Documentation/admin-guide/devices.txt of Linux.
    if is_device && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3) {
        return Stderr::Nothing;
    }
    // As systemd.exec(5) has it; a child whose stderr was led elsewhere has the variable too.
    let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
    if journal_stream == Some(&stream) { Stderr::Journal } else { Stderr::Something }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_journal_gets_what_stderr_would_lead_to_it_or_nowhere() {
        assert_eq!(Sink::chosen(Stderr::Journal, false), Sink::Journal);
        assert_eq!(Sink::chosen(Stderr::Nothing, true), Sink::Journal);
        assert_eq!(Sink::chosen(Stderr::Something, true), Sink::Prefixed);
        assert_eq!(Sink::chosen(Stderr::Something, false), Sink::Stderr);
    }

    #[test]
    fn the_journals_stream_is_known_by_its_numbers() {
        let file = tempfile::tempfile().unwrap();
        let stat = fstat(&file).unwrap();
        let own = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert_eq!(stderr_is(Some(&stat), Some(&own)), Stderr::Journal);
        assert_eq!(stderr_is(Some(&stat), Some("8:1")), Stderr::Something);
        assert_eq!(stderr_is(Some(&stat), None), Stderr::Something);
        let null = fstat(File::open("/dev/null").unwrap()).unwrap();
        assert_eq!(stderr_is(Some(&null), Some(&own)), Stderr::Nothing);
        assert_eq!(stderr_is(None, None), Stderr::Nothing);
    }

    #[test]
    fn a_worker_that_is_heard_by_the_supervisor_logs_to_the_journal() {
        for sink in [Sink::Stderr, Sink::Prefixed, Sink::Journal, Sink::Background] {
            assert_eq!(sink.word() == "journal", sink.hears_workers(), "{sink:?}");
        }
    }
}
