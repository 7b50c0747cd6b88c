//! The mount comes and goes.

use super::Shell;
use crate::exit::Failed;
use crate::fs::SheepFs;
use crate::mount::Mount;
use crate::notify;
use crate::session::Session;
use std::sync::Arc;
use std::thread;

impl Shell {
    pub(super) fn mount(&mut self) -> Result<(), Failed> {
        if notify::was_given_descriptors() {
            // Of a mount that is gone.
            self.keep_nothing();
        }
        let (mount, device) = Mount::new(&self.parts.point, &self.parts.options)?;
        let ready = Session::start(&device, self.filesystem()).map_err(Failed::from).and_then(
            |(session, handshake)| {
                let mounted = mount.saved(handshake);
                self.serve(session, mounted, &mount, device)
            },
        );
        if ready.is_err() {
            self.keep_nothing();
            if let Err(error) = mount.unmount() {
                tracing::error!(errno = error.errno(), "{error}");
            }
        }
        self.mount = Some(Arc::new(mount));
        ready
    }

    pub(super) fn filesystem(&self) -> SheepFs {
        SheepFs {
            shared: Arc::clone(&self.parts.shared),
            data: Arc::clone(&self.data),
            texts: Arc::clone(&self.texts),
            handles: Arc::clone(&self.parts.handles),
            uniques: Arc::clone(&self.uniques),
            events: self.parts.events.clone(),
            look: self.parts.look,
        }
    }

    /// On a thread of its own: the kernel may want to write back, and then waits
    /// for the data path.
    pub(super) fn unmount(&mut self) {
        let Some(mount) = self.mount.clone() else { return };
        if let Some(manager) = &self.parts.manager {
            manager.stopping();
        }
        let unmount = move || match mount.unmount() {
            Ok(how) => tracing::info!(?how, "unmounted"),
            Err(error) => tracing::error!(errno = error.errno(), "{error}"),
        };
        match thread::Builder::new().name("unmount".to_owned()).spawn(unmount) {
            Ok(thread) => self.unmounting = Some(thread),
            Err(error) => {
                tracing::error!(errno = error.raw_os_error(), "cannot unmount: {error}");
            }
        }
    }
}
