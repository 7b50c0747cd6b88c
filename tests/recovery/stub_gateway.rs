//! STUB, to be deleted: when minisheep has `--gateway-of`, `site.rs` takes `Gateway` from
//! `tests/support/minisheep.rs` instead. This one is a proxy that looks like it from afar.

use crate::minisheep::Minisheep;
use crate::proxy::{Mode, Proxy};
use nix::sys::signal::Signal;

/// Stands for a gateway.
#[derive(Debug)]
pub struct Gateway(Proxy);

impl Gateway {
    /// Starts one.
    pub fn start(sheep: &Minisheep) -> Self {
        Self(Proxy::start(sheep.address()))
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        self.0.address()
    }

    /// Stops it or lets it go on.
    pub fn signal(&self, signal: Signal) {
        self.0.set(if signal == Signal::SIGSTOP { Mode::Blackhole } else { Mode::Pass });
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.0.set(Mode::Refuse);
        self.0.reset();
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.0.set(Mode::Pass);
    }

    /// Says a line on the control socket.
    pub fn control(&self, line: &str) -> String {
        panic!("the stub of a gateway can't {line}")
    }
}
