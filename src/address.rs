//! A sheep's address as a user writes it: `10.0.0.1`, `::1`, `sheep1`, each with
//! a port behind a colon if need be, an IPv6 address then in brackets.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use thiserror::Error;

/// The port a sheep listens on if nobody says otherwise.
pub const DEFAULT_PORT: u16 = 7000;
/// The longest host name (RFC 1035).
const HOST_LEN_MAX: usize = 253;

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// Nothing was written.
    #[error("the address is empty")]
    Empty,
    /// What stands behind the colon is no port.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// What stands in brackets, or has several colons, is not IPv6.
    #[error("this is not an IPv6 address; with a port it is written [ADDR]:PORT")]
    Ipv6,
    /// Neither an IPv4 address nor a host name.
    #[error("this is neither an IP address nor a host name")]
    Host,
}

/// Where a sheep is, not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SheepAddress {
    /// An IP address or a host name; an IPv6 address without brackets, perhaps with a `%` scope.
    pub host: String,
    /// The port, if the address named one.
    pub port: Option<u16>,
}

impl SheepAddress {
    /// The IP address, unless a name must be looked up.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for SheepAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if let Some(rest) = text.strip_prefix('[') {
            return bracketed(rest);
        }
        if text.matches(':').count() > 1 {
            return Ok(Self { host: checked_ipv6(text)?, port: None });
        }
        match text.split_once(':') {
            Some((host, port)) => {
                Ok(Self { host: checked_host(host)?, port: Some(parse_port(port)?) })
            }
            None => Ok(Self { host: checked_host(text)?, port: None }),
        }
    }
}

impl fmt::Display for SheepAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (_, None) => f.write_str(&self.host),
        }
    }
}

/// Reads a port.
///
/// # Errors
/// [`AddressError::Port`] for anything but 1 to 65535 in digits.
pub fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().map_err(|_| AddressError::Port)?;
    if digits && port > 0 { Ok(port) } else { Err(AddressError::Port) }
}

/// What follows an opening bracket.
fn bracketed(rest: &str) -> Result<SheepAddress, AddressError> {
    let (host, behind) = rest.split_once(']').ok_or(AddressError::Ipv6)?;
    let host = checked_ipv6(host)?;
    let port = match behind.strip_prefix(':') {
        Some(port) => Some(parse_port(port)?),
        None if behind.is_empty() => None,
        None => return Err(AddressError::Port),
    };
    Ok(SheepAddress { host, port })
}

fn checked_ipv6(text: &str) -> Result<String, AddressError> {
    let (address, scope) = text.split_once('%').unwrap_or((text, "scope"));
    let scope_ok = !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic());
    match address.parse::<Ipv6Addr>() {
        Ok(_) if scope_ok => Ok(text.to_owned()),
        _ => Err(AddressError::Ipv6),
    }
}

fn checked_host(text: &str) -> Result<String, AddressError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let name = !text.is_empty() && text.len() <= HOST_LEN_MAX && text.bytes().all(allowed);
    // Digits and dots alone are meant as an IPv4 address; the resolver would
    // take `10.1` for 10.0.0.1.
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !name || text.starts_with(['-', '.']) || (numeric && text.parse::<IpAddr>().is_err()) {
        return Err(AddressError::Host);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, host, port) in [
            ("127.0.0.1", "127.0.0.1", None),
            ("127.0.0.1:7001", "127.0.0.1", Some(7001)),
            ("::1", "::1", None),
            ("fe80::1%eth0", "fe80::1%eth0", None),
            ("[::1]", "::1", None),
            ("[::1]:7001", "::1", Some(7001)),
            ("sheep-1.example", "sheep-1.example", None),
            ("sheep_1:65535", "sheep_1", Some(65535)),
            (" localhost\n", "localhost", None),
        ] {
            let address: SheepAddress = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_its_reason() {
        for (text, reason) in [
            ("", AddressError::Empty),
            (" ", AddressError::Empty),
            ("host:", AddressError::Port),
            ("host:0", AddressError::Port),
            ("host:65536", AddressError::Port),
            ("host:+7", AddressError::Port),
            ("[::1]7000", AddressError::Port),
            ("[::1", AddressError::Ipv6),
            ("[10.0.0.1]:7000", AddressError::Ipv6),
            ("1:2:3", AddressError::Ipv6),
            (":7000", AddressError::Host),
            ("a b", AddressError::Host),
            ("-a", AddressError::Host),
            ("300.1.1.1", AddressError::Host),
            ("10.1", AddressError::Host),
            ("http://sheep", AddressError::Port),
            ("sheep/1", AddressError::Host),
        ] {
            assert_eq!(text.parse::<SheepAddress>(), Err(reason), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(text in ".{0,40}") {
            if let Ok(address) = text.parse::<SheepAddress>() {
                prop_assert_eq!(address.to_string().parse::<SheepAddress>(), Ok(address));
            }
        }
    }
}
