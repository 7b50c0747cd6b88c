//! The socket on which the supervisor is heard.
//!
//! It is in no directory: the kernel chose a name for it. Such a name is open to
//! everybody on the machine, so only the child is heard. Who sent a message, as the
//! kernel says, is looked at before anything that came with it is let in:
//! descriptors of a stranger never become ours, for closing one can take as long as
//! the stranger's own file system likes.

use super::message::Message;
use nix::sys::socket::{UnixAddr, bind};
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;

/// A longer message is nobody's.
const MESSAGE_LEN_MAX: usize = 8192;

/// The keeper's end of the protocol.
#[derive(Debug)]
pub struct Mailbox {
    socket: UnixDatagram,
    address: String,
}

/// What was found in the mailbox.
#[derive(Debug)]
pub enum Received {
    /// From the child.
    Message(Message),
    /// From somebody else, or without sense; it is gone.
    Refused,
    /// It is empty.
    Nothing,
}

impl Mailbox {
    /// Opens one.
    ///
    /// # Errors
    /// As socket(2) and bind(2).
    pub fn open() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        set_socket_passcred(&socket, true)?;
        // Without a name, the kernel gives it an unused one (unix(7), autobind).
        bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
        let bound = socket.local_addr()?;
        let name = bound.as_abstract_name().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let address = format!("@{}", String::from_utf8_lossy(name));
        Ok(Self { socket, address })
    }

    /// Where it is, as `NOTIFY_SOCKET` has it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next message, if it is from the process `child`. Never waits.
    pub fn receive(&self, child: Option<i32>) -> Received {
        let mut bytes = [0; MESSAGE_LEN_MAX];
        match self.sender() {
            Err(_) => Received::Nothing,
            Ok(sender) if sender.is_some() && sender == child => match self.take(&mut bytes) {
                Ok((len, fds)) => Received::Message(Message::read(&bytes[..len], fds)),
                Err(_) => Received::Refused,
            },
            Ok(sender) => {
                // Without room for them, what came with it is dropped by the kernel.
                let _ = self.socket.recv(&mut []);
                tracing::debug!(sender, "a message that is not the supervisor's");
                Received::Refused
            }
        }
    }

    /// Who sent the next message. There is no room for anything else that came with
    /// it.
    fn sender(&self) -> io::Result<Option<i32>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        self.receive_into(&mut [], &mut control, RecvFlags::PEEK)?;
        Ok(control.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmCredentials(who) => Some(who.pid.as_raw_pid()),
            _ => None,
        }))
    }

    fn take(&self, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let (len, flags) = self.receive_into(bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let fds = control.drain().filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fds = fds.flatten().collect();
        if flags.contains(ReturnFlags::TRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok((len, fds))
    }

    fn receive_into(
        &self,
        bytes: &mut [u8],
        control: &mut RecvAncillaryBuffer<'_>,
        flags: RecvFlags,
    ) -> io::Result<(usize, ReturnFlags)> {
        let flags = flags | RecvFlags::DONTWAIT;
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(&self.socket, &mut [IoSliceMut::new(bytes)], control, flags)
        })?;
        Ok((received.bytes, received.flags))
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::message::Ask;
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use nix::unistd::getpid;
    use std::fs;
    use std::io::{IoSlice, PipeReader, Read, pipe};

    fn send(mailbox: &Mailbox, text: &str) -> PipeReader {
        let (read, write) = pipe().unwrap();
        let number = [write.as_raw_fd()];
        let to = UnixAddr::new_abstract(&mailbox.address.as_bytes()[1..]).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        let control = [ControlMessage::ScmRights(&number)];
        let bytes = [IoSlice::new(text.as_bytes())];
        sendmsg(socket.as_raw_fd(), &bytes, &control, MsgFlags::empty(), Some(&to)).unwrap();
        read
    }

    fn ours() -> Option<i32> {
        Some(getpid().as_raw())
    }

    #[test]
    fn the_child_is_heard_with_what_it_sends() {
        let mailbox = Mailbox::open().unwrap();
        let mut pipe = send(&mailbox, "FDSTORE=1\nFDNAME=a\n");
        let Received::Message(message) = mailbox.receive(ours()) else { panic!() };
        assert_eq!(message.ask, Ask::Store("a".into()));
        assert_eq!(message.fds.len(), 1);
        drop(message);
        assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
        assert!(matches!(mailbox.receive(ours()), Received::Nothing));
    }

    /// Its descriptor is closed, and was never ours.
    #[test]
    fn a_stranger_is_not_heard() {
        let mailbox = Mailbox::open().unwrap();
        for child in [Some(1), None] {
            let mut pipe = send(&mailbox, "FDSTORE=1\nFDNAME=a\n");
            assert!(matches!(mailbox.receive(child), Received::Refused));
            assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
            assert!(matches!(mailbox.receive(child), Received::Nothing));
        }
    }

    #[test]
    fn looking_at_the_sender_lets_nothing_in() {
        let mailbox = Mailbox::open().unwrap();
        let pipe = send(&mailbox, "FDSTORE=1\n");
        let ours_of_pipe = || {
            let name = fs::read_link(format!("/proc/self/fd/{}", pipe.as_raw_fd())).unwrap();
            let entries = fs::read_dir("/proc/self/fd").unwrap();
            let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
            links.filter(|link| *link == name).count()
        };
        assert_eq!(mailbox.sender().unwrap(), ours());
        assert_eq!(ours_of_pipe(), 1);
        let Received::Message(_message) = mailbox.receive(ours()) else { panic!() };
        assert_eq!(ours_of_pipe(), 2);
    }

    #[test]
    fn a_message_that_is_too_long_is_not_half_believed() {
        let mailbox = Mailbox::open().unwrap();
        let mut pipe = send(&mailbox, &format!("READY=1\n{}", "x".repeat(MESSAGE_LEN_MAX)));
        assert!(matches!(mailbox.receive(ours()), Received::Refused));
        assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
    }
}
