//! Which sheep to try: the addresses that the configured one stands for, in
//! turn. Pure, but for the one function that asks the resolver.

use sheepfs::address::SheepAddress;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use thiserror::Error;

/// Why there is no sheep to try.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// The resolver knows no such name, or did not answer.
    #[error("cannot look up the host {host}: {cause}")]
    LookUp {
        /// The host.
        host: String,
        /// Why.
        cause: io::Error,
    },
    /// The name exists and has no address.
    #[error("the host {0} has no address")]
    NoAddress(String),
}

/// The addresses, and which of them is in use or tried next. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    first: SocketAddr,
    rest: Vec<SocketAddr>,
    at: usize,
}

impl Candidates {
    /// One address.
    pub fn one(address: SocketAddr) -> Self {
        Self { first: address, rest: Vec::new(), at: 0 }
    }

    /// Several, unless there is none.
    pub fn several(addresses: impl IntoIterator<Item = SocketAddr>) -> Option<Self> {
        let mut addresses = addresses.into_iter();
        let first = addresses.next()?;
        let mut rest = Vec::new();
        for address in addresses {
            if address != first && !rest.contains(&address) {
                rest.push(address);
            }
        }
        Some(Self { first, rest, at: 0 })
    }

    /// Looks up what a user wrote.
    pub fn resolve(address: &SheepAddress, port: u16) -> Result<Self, ResolveError> {
        let host = &address.host;
        let found = (host.as_str(), port)
            .to_socket_addrs()
            .map_err(|cause| ResolveError::LookUp { host: host.clone(), cause })?;
        Self::several(found).ok_or_else(|| ResolveError::NoAddress(host.clone()))
    }

    /// The one in use, or tried next.
    pub fn current(&self) -> SocketAddr {
        let beyond = self.at.checked_sub(1).and_then(|at| self.rest.get(at));
        beyond.copied().unwrap_or(self.first)
    }

    /// Goes on to the next. `false`: all were tried, and the first comes again.
    pub fn advance(&mut self) -> bool {
        self.at = (self.at + 1) % (self.rest.len() + 1);
        self.at != 0
    }
}

/// What is odd about an address, for a warning.
pub fn oddity(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("it stands for any address of this machine");
    }
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    (address.is_multicast() || broadcast).then_some("no single machine has it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn all_are_tried_in_turn_and_none_twice() {
        let mut candidates = Candidates::several([1, 2, 1, 3, 2].map(address)).unwrap();
        let mut tried = vec![candidates.current().port()];
        while candidates.advance() {
            tried.push(candidates.current().port());
        }
        assert_eq!(tried, [1, 2, 3]);
        assert_eq!(candidates.current(), address(1));
        assert_eq!(Candidates::several([]), None);
        assert!(!Candidates::one(address(1)).advance());
    }

    #[test]
    fn odd_addresses_are_noticed() {
        for odd in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1"] {
            assert!(oddity(odd.parse().unwrap()).is_some(), "{odd}");
        }
        for usual in ["127.0.0.1", "::1", "10.0.0.1"] {
            assert_eq!(oddity(usual.parse().unwrap()), None, "{usual}");
        }
    }

    #[test]
    fn an_ip_address_needs_no_resolver() {
        let address: SheepAddress = "::1".parse().unwrap();
        let candidates = Candidates::resolve(&address, 7001).unwrap();
        assert_eq!(candidates.current(), "[::1]:7001".parse().unwrap());
    }
}
