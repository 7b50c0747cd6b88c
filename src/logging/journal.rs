//! Lines for the journal, with their fields.
//!
//! `tracing-journald` sends them. It gives one prefix to all fields but the message, and so has
//! no way to say `ERRNO`, which has a meaning for all programs
//! (systemd.journal-fields(7)). It takes fields that all lines have, though. So a
//! line with an errno is sent by a layer that is made for it: one socket, for a line that is rare.
//!
//! Each line looks the journal's socket up anew, so a journal that was restarted gets the next
//! one.

use std::io;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// What both programs log under.
const IDENTIFIER: &str = "sheepfs";
/// Comes before all fields of our own, with an underscore.
const PREFIX: &str = "SHEEPFS";

type Fields = Vec<(&'static str, String)>;

/// The journal, for lines of this process.
pub struct Journal {
    plain: tracing_journald::Layer,
    fields: Fields,
}

impl Journal {
    /// Looks whether there is a journal; all lines will have these fields.
    ///
    /// # Errors
    /// When there is none.
    pub fn connect(fields: Fields) -> io::Result<Self> {
        Ok(Self { plain: layer(&fields)?, fields })
    }

    /// The layer for a line with that errno.
    fn with_errno(&self, errno: i64) -> io::Result<tracing_journald::Layer> {
        Ok(layer(&self.fields)?.with_custom_fields([("ERRNO", errno.to_string())]))
    }
}

fn layer(fields: &Fields) -> io::Result<tracing_journald::Layer> {
    let priorities = PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        ..PriorityMappings::new()
    };
    let layer = tracing_journald::layer()?
        .with_syslog_identifier(IDENTIFIER.to_owned())
        .with_field_prefix(Some(PREFIX.to_owned()))
        .with_priority_mappings(priorities);
    Ok(layer.with_custom_fields(fields.iter().map(|(name, value)| (name, value))))
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.plain.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.plain.on_record(id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        match errno_of(event).and_then(|errno| self.with_errno(errno).ok()) {
            Some(layer) => layer.on_event(event, context),
            None => self.plain.on_event(event, context),
        }
    }
}

fn errno_of(event: &Event<'_>) -> Option<i64> {
    let mut errno = Errno(None);
    event.metadata().fields().field("errno")?;
    event.record(&mut errno);
    errno.0
}

struct Errno(Option<i64>);

impl Visit for Errno {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "errno" {
            self.0 = Some(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<Option<i64>>>>);

    impl<S: Subscriber> Layer<S> for Seen {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(errno_of(event));
        }
    }

    #[test]
    fn an_errno_is_found_among_the_fields() {
        let seen = Seen::default();
        let subscriber = tracing_subscriber::registry().with(seen.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(errno = 5, "an error");
            tracing::info!(errno = nix::errno::Errno::ENOENT as i32, volume = "disk", "another");
            tracing::info!(errno = None::<i32>, "none");
            tracing::info!(volume = 5, "no field of that name");
        });
        assert_eq!(*seen.0.lock().unwrap(), [Some(5), Some(2), None, None]);
    }
}
