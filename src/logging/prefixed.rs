//! Lines with their priority in front, as sd-daemon(3) has it: `<4>` is a warning. Whatever
//! collects a service's stderr knows these, and adds the time and the name itself.

use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The form of such lines.
pub struct Prefixed;

impl<S, N> FormatEvent<S, N> for Prefixed
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        let priority = priority_of(*event.metadata().level());
        text.lines().try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
}

/// The priority of syslog(3) for a level.
fn priority_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The level that a line says it has by its prefix, and the line without it.
#[must_use]
pub fn split_priority(line: &str) -> (Option<Level>, &str) {
    let digit = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    match digit {
        Some(("0" | "1" | "2" | "3", rest)) => (Some(Level::ERROR), rest),
        Some(("4", rest)) => (Some(Level::WARN), rest),
        Some(("5" | "6", rest)) => (Some(Level::INFO), rest),
        Some(("7", rest)) => (Some(Level::DEBUG), rest),
        _ => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn each_line_has_its_priority_and_its_fields() {
        let written = Written::default();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).event_format(Prefixed);
        let subscriber = subscriber.with_writer(written.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(volume = %"disk", errno = 5, "it failed");
            tracing::error!("two\nlines");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "<4>it failed volume=disk errno=5\n<3>two\n<3>lines\n");
    }

    #[test]
    fn a_prefix_that_is_written_is_understood() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG] {
            let line = format!("<{}>words", priority_of(level));
            assert_eq!(split_priority(&line), (Some(level), "words"));
        }
        for line in ["", "words", "<", "<9>words", "<46>words", "<a>b"] {
            assert_eq!(split_priority(line), (None, line));
        }
    }
}
