//! The mount comes and goes.

use super::Shell;
use crate::exit::Failed;
use crate::fs::SheepFs;
use crate::mount::Mount;
use crate::notify;
use crate::session::Session;
use fuser::INodeNo;
use sheepfs::ipc::VolumeId;
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

    /// Its requests fail from now on, and what the kernel has cached of it goes, so that it
    /// does not look as if they did not.
    ///
    /// On a thread of its own, for which nobody waits: it waits for pages that are being
    /// read. Those reads fail at once, without a worker, so it is not for long (hazard 28).
    pub(super) fn volume_replaced(&self, id: VolumeId) {
        self.data.volume_replaced(id);
        let volume = self.parts.shared.volumes().by_id(id);
        let (Some(volume), Some(notifier)) = (volume, self.notifier.clone()) else { return };
        let drop_pages = move || {
            if let Err(error) = notifier.inval_inode(INodeNo(volume.ino), 0, 0) {
                let errno = error.raw_os_error();
                tracing::warn!(errno, volume = %volume.name, "what the kernel has cached of a VDI that is another one now stays: {error}");
            }
        };
        let started = thread::Builder::new().name("invalidate".to_owned()).spawn(drop_pages);
        if let Err(error) = started {
            tracing::warn!(errno = error.raw_os_error(), "no thread to drop cached pages: {error}");
        }
    }

    /// What the kernel believes of its size goes, so that whoever has it open sees the new one.
    /// No page is touched, so nothing is waited for; on a thread of its own all the same, since
    /// the kernel may hold the lock of the inode while it waits for an answer of ours.
    pub(super) fn volume_grown(&self, id: VolumeId) {
        let volume = self.parts.shared.volumes().by_id(id);
        let (Some(volume), Some(notifier)) = (volume, self.notifier.clone()) else { return };
        let forget_size = move || {
            if let Err(error) = notifier.inval_inode(INodeNo(volume.ino), -1, 0) {
                tracing::debug!(errno = error.raw_os_error(), volume = %volume.name, "the kernel was not told of the new size: {error}");
            }
        };
        let started = thread::Builder::new().name("invalidate".to_owned()).spawn(forget_size);
        if let Err(error) = started {
            tracing::warn!(
                errno = error.raw_os_error(),
                "no thread to tell of a new size: {error}"
            );
        }
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
