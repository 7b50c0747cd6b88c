//! What the worker gives up before it speaks to the network.
//!
//! It needs its two inherited descriptors and TCP sockets, nothing else. So it
//! takes no new privileges, becomes nobody when it was root, and dies with the
//! supervisor (hazard 33).

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, geteuid, getppid, setgroups, setresgid, setresuid};

/// The id that owns nothing, by Debian's and systemd's convention.
const NOBODY: u32 = 65534;

/// Drops what is not needed.
///
/// # Errors
/// The system's; the worker must not go on with rights it should not have.
pub fn drop_all(parent: nix::unistd::Pid) -> nix::Result<()> {
    if geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setgroups(&[])?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
    }
    prctl::set_no_new_privs()?;
    // After the change of ids, which clears it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == parent { Ok(()) } else { Err(nix::errno::Errno::ESRCH) }
}
