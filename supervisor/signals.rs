//! Signals that ask to stop become events.

use crate::events::{Event, Events};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::thread;

/// Starts the thread that waits for them. Each one counts: the second and third
/// make the end faster.
pub fn watch(events: Events) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let pass_on = move || {
        for signal in signals.forever() {
            tracing::info!(signal, "asked to stop");
            events.tell(Event::Stop);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(pass_on)?;
    Ok(())
}
