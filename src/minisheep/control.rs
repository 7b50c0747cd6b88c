//! The control socket: a Unix socket on which each line is a command of [`super::faults`].
//!
//! Only `--control` opens it. It has the rights of its path: mode 0600.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tracing::debug;

use super::faults::{Faults, Subject};

/// Who has a control socket: a minisheep, or a gateway to one.
pub trait Controlled: Send + Sync {
    /// What the commands are about.
    fn subject(&self) -> Subject<'_>;
}

/// Listens on `path`, replacing what a dead server left there, and serves on a thread.
///
/// # Errors
/// What the file system says.
pub fn listen(path: &Path, faults: Arc<Faults>, controlled: Arc<dyn Controlled>) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    thread::Builder::new().name("control".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let (faults, controlled) = (Arc::clone(&faults), Arc::clone(&controlled));
            thread::spawn(move || {
                if let Err(error) = serve(&stream, &faults, &*controlled) {
                    debug!("a control connection ended: {error}");
                }
            });
        }
    })?;
    Ok(())
}

fn serve(mut stream: &UnixStream, faults: &Faults, controlled: &dyn Controlled) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        stream.write_all(faults.command(controlled.subject(), &line?).as_bytes())?;
    }
    Ok(())
}
