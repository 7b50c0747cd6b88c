//! The things that can only be done with descriptors as bare numbers.
#![expect(unsafe_code, reason = "a number becomes an owner here, and an owner changes its file")]

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that is handed on (sd_listen_fds(3)).
pub const FIRST_FD: RawFd = 3;

/// Marks whatever descriptors we were started with as close-on-exec, but for the
/// standard three: what a careless caller left open is no business of our
/// children's, and would keep that caller waiting for its end (hazard 29).
///
/// Kernels before 5.11 can't, and nothing is lost but that.
pub fn keep_from_children() {
    let (first, last) = (3, libc::c_uint::MAX);
    // SAFETY: no memory is touched and no descriptor closed; only flags of
    // descriptors change.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Keeps the `count` numbers from 3 on free of anything that matters: there a program that
/// goes on in the place of this one finds what is handed to it (sd_listen_fds(3)), and
/// until it does, other threads of this one still use what they have open. What is open
/// there already stays. To be called before anything else is opened.
///
/// # Errors
/// As open(2).
pub fn reserve(count: RawFd) -> io::Result<()> {
    loop {
        let taken = File::open("/dev/null")?;
        if taken.as_raw_fd() >= FIRST_FD + count {
            return Ok(());
        }
        // For as long as this process lives.
        let _ = taken.into_raw_fd();
    }
}

/// Puts the open file of `new` in the place of what `old` refers to, close-on-exec
/// (hazard 29). The owner of `old` keeps its number and never notices.
///
/// # Errors
/// As dup3(2); nothing changed then.
pub fn replace(old: BorrowedFd<'_>, new: impl AsFd) -> Result<(), Errno> {
    let (new, old) = (new.as_fd().as_raw_fd(), old.as_raw_fd());
    loop {
        // SAFETY: no memory is touched. Both numbers are open descriptors, since
        // both are borrowed for the length of the call, and the one that is
        // replaced stays open, so its owner's number stays valid.
        match Errno::result(unsafe { libc::dup3(new, old, OFlag::O_CLOEXEC.bits()) }) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR | Errno::EBUSY) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A descriptor that becomes readable when that child is dead, close-on-exec. It
/// names this process for ever, whatever becomes of its number.
///
/// # Errors
/// As pidfd_open(2).
pub fn pidfd_of(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: no memory is touched. The child is not reaped while it is borrowed,
    // so its number can't name another process.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let number = RawFd::try_from(Errno::result(number)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns
    // it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes those of `numbers` that we were started with, once: a second call gives
/// nothing. To be called before anything is opened. What is not open is left out,
/// and all after it.
pub fn take_inherited(numbers: &[RawFd]) -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    numbers.iter().map_while(|number| take(*number)).collect()
}

fn take(number: RawFd) -> Option<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return None;
    }
    // SAFETY: the number is only used to ask the kernel whether it is open, and to
    // set its close-on-exec flag, while nothing else in this process uses it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: it is open, as just seen; it was inherited, so nothing in this
    // process owns it, and `take_inherited` gives it out once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The same for any process of that number. `None`: there is none.
///
/// # Errors
/// As pidfd_open(2).
pub fn pidfd_open(pid: i32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: no memory is touched.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match Errno::result(number) {
        Err(Errno::ESRCH) => Ok(None),
        Err(errno) => Err(errno.into()),
        Ok(number) => {
            let number = RawFd::try_from(number).map_err(|_| Errno::EBADF)?;
            // SAFETY: the kernel has just made this descriptor for us, so nobody else
            // owns it.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
        }
    }
}

/// Kills the process of that descriptor. It fails only for one that is dead.
///
/// # Errors
/// As pidfd_send_signal(2).
pub fn kill_process(process: impl AsFd) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    let number = process.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, since it is borrowed; without a siginfo no memory
    // is touched.
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, number, libc::SIGKILL, none, 0) };
    Ok(Errno::result(sent).map(drop)?)
}

/// Receives the one descriptor that another process sends over a Unix socket,
/// close-on-exec. `None`: it hung up, or sent none.
///
/// # Errors
/// As recvmsg(2).
pub fn receive(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let socket = socket.as_fd().as_raw_fd();
    let message = loop {
        match recvmsg::<()>(socket, &mut bytes, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let sent = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(sent) => sent.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just put this descriptor into our table for this
    // message, and the buffer has room for one only, so nobody else owns it.
    Ok(sent.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn an_owner_goes_on_with_another_file() {
        let (mut first, mut second) =
            (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        replace(first.as_fd(), &second).unwrap();
        first.write_all(b"sheep").unwrap();
        second.rewind().unwrap();
        let mut text = String::new();
        second.read_to_string(&mut text).unwrap();
        assert_eq!(text, "sheep");
        let flags = FdFlag::from_bits_truncate(fcntl(&first, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn the_death_of_a_child_is_seen() {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let pidfd = pidfd_of(&child).unwrap();
        let is_dead = |timeout: PollTimeout| {
            poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
        };
        assert!(!is_dead(PollTimeout::ZERO));
        child.kill().unwrap();
        assert!(is_dead(PollTimeout::from(60_000u16)));
        child.wait().unwrap();
    }

    #[test]
    fn a_descriptor_arrives_and_a_hang_up_is_none() {
        use nix::sys::socket::{ControlMessage, sendmsg};
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = File::from(OwnedFd::from(tempfile::tempfile().unwrap()));
        let number = [file.as_raw_fd()];
        let bytes = [std::io::IoSlice::new(b"x")];
        let control = [ControlMessage::ScmRights(&number)];
        sendmsg::<()>(theirs.as_raw_fd(), &bytes, &control, MsgFlags::empty(), None).unwrap();
        let received = File::from(receive(&ours).unwrap().unwrap());
        received.set_len(77).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 77);
        drop(theirs);
        assert!(receive(&ours).unwrap().is_none());
    }
}
