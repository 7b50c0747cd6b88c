//! What `$NOTIFY_SOCKET` may say: the path of a socket, or `@` and the name of one
//! that is in no directory.

use nix::sys::socket::UnixAddr;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;

/// Where the manager listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(UnixAddr);

impl Address {
    /// Reads the variable's value.
    ///
    /// # Errors
    /// When it is no such address. systemd also has some for virtual machines
    /// (`vsock:`), of no use to us.
    pub fn parse(value: &OsStr) -> io::Result<Self> {
        let address = match value.as_bytes() {
            [b'@', name @ ..] if !name.is_empty() => UnixAddr::new_abstract(name)?,
            [b'/', ..] => UnixAddr::new(value)?,
            _ => return Err(ErrorKind::Unsupported.into()),
        };
        Ok(Self(address))
    }
}

impl AsRef<UnixAddr> for Address {
    fn as_ref(&self) -> &UnixAddr {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> io::Result<Address> {
        Address::parse(OsStr::new(value))
    }

    #[test]
    fn a_path_and_a_name_are_addresses() {
        assert_eq!(parse("/run/notify").unwrap().0.path().unwrap().to_str(), Some("/run/notify"));
        assert_eq!(parse("@name").unwrap().0.as_abstract(), Some(&b"name"[..]));
    }

    #[test]
    fn anything_else_is_none() {
        for value in ["", "@", "run/notify", "vsock:2:1234"] {
            assert_eq!(parse(value).unwrap_err().kind(), ErrorKind::Unsupported, "{value}");
        }
        parse(&format!("/{}", "x".repeat(200))).unwrap_err();
    }
}
