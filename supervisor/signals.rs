//! Signals become events.
//!
//! | signal | asks |
//! | --- | --- |
//! | SIGTERM, SIGINT | to unmount and stop |
//! | SIGUSR2 | to leave the mount to a successor |
//! | SIGUSR1 | to go on as the program that is installed now |
//! | SIGHUP | to open the log anew, and read what is logged |

use crate::events::{Event, Events};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::io;
use std::thread;

/// Starts the thread that waits for them. Each one counts: the second and third
/// make the end faster.
pub fn watch(events: Events) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2])?;
    let pass_on = move || {
        for signal in signals.forever() {
            let (event, what) = match signal {
                SIGHUP => (Event::Hangup, "to open the log anew"),
                SIGUSR1 => (Event::Upgrade, "to go on as the installed program"),
                SIGUSR2 => (Event::Leave, "to leave the mount to a successor"),
                _ => (Event::Stop, "to stop"),
            };
            tracing::info!(signal, "asked {what}");
            events.tell(event);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(pass_on)?;
    Ok(())
}
