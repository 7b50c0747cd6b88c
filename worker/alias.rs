//! Under which address the cluster lists a sheep that is known by another one.
//!
//! The cluster announces one address of each node, and a sheep listens on all that its
//! host has: whoever is told `127.0.0.1`, the default, speaks with a node that is listed
//! as `10.1.2.3`. If the two were taken for two nodes, the same sheep would get twice the
//! requests that it has threads for (hazard 49), and its counter would never be seen at 0
//! by a session that keeps it up itself under the other name.
//!
//! The host's own addresses tell: the sheep of this host at that port is one process,
//! whichever of them is asked. Where several could be meant, which takes sheep that are
//! bound to one address each, nothing is guessed. A sheep on another host that is reached
//! by an address which the cluster does not list is not found either.

use nix::ifaddrs::getifaddrs;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use tracing::debug;

/// The listed one of `nodes` that `asked` is, when `is_local` knows this host's addresses.
pub fn listed_as(
    asked: SocketAddr,
    nodes: &[SocketAddr],
    is_local: impl Fn(IpAddr) -> bool,
) -> Option<SocketAddr> {
    // A scope belongs to this host, so no list has it.
    let place = |node: &SocketAddr| (node.ip().to_canonical(), node.port());
    if let Some(same) = nodes.iter().find(|node| place(node) == place(&asked)) {
        return Some(*same);
    }
    let is_here = |node: &SocketAddr| is_local(node.ip().to_canonical());
    let mut here = nodes.iter().filter(|node| node.port() == asked.port() && is_here(node));
    match (is_here(&asked), here.next(), here.next()) {
        (true, Some(only), None) => Some(*only),
        _ => None,
    }
}

/// The addresses of this host, looked up when they are first needed.
#[derive(Debug, Default)]
pub struct OwnAddresses(OnceCell<BTreeSet<IpAddr>>);

impl OwnAddresses {
    /// Whether that is one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.0.get_or_init(of_interfaces).contains(&address)
    }
}

fn of_interfaces() -> BTreeSet<IpAddr> {
    let Ok(interfaces) = getifaddrs()
        .inspect_err(|error| debug!(%error, "this host's own addresses could not be read"))
    else {
        return BTreeSet::new();
    };
    let addresses = interfaces.filter_map(|interface| interface.address);
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    addresses.filter_map(ip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a host with these addresses, besides loopback.
    fn found(asked: &str, nodes: &[&str]) -> Option<String> {
        let own = ["10.0.0.1", "fd00::1", "fe80::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let is_local = |ip: IpAddr| ip.is_loopback() || own.contains(&ip);
        let nodes: Vec<_> = nodes.iter().map(|node| node.parse().unwrap()).collect();
        listed_as(asked.parse().unwrap(), &nodes, is_local).map(|node| node.to_string())
    }

    fn is(node: &str) -> Option<String> {
        Some(node.to_owned())
    }

    #[test]
    fn a_listed_address_is_itself_wherever_it_is() {
        let nodes = ["10.0.0.1:7000", "10.0.0.2:7000", "127.0.0.2:7000", "[fe80::2]:7000"];
        for node in nodes {
            assert_eq!(found(node, &nodes), is(node));
        }
        assert_eq!(found("[::ffff:10.0.0.2]:7000", &nodes), is("10.0.0.2:7000"));
        assert_eq!(found("[fe80::2%3]:7000", &nodes), is("[fe80::2]:7000"));
    }

    #[test]
    fn any_address_of_this_host_leads_to_its_sheep() {
        for listed in ["10.0.0.1:7000", "[fd00::1]:7000", "127.0.0.1:7000", "[::1]:7000"] {
            let nodes = ["10.0.0.2:7000", listed, "[fd00::2]:7000"];
            let names = ["127.0.0.1", "127.0.0.2", "[::1]", "10.0.0.1", "[fd00::1]", "[fe80::1%2]"];
            for asked in names {
                assert_eq!(found(&format!("{asked}:7000"), &nodes), is(listed), "{asked}");
            }
        }
    }

    #[test]
    fn the_port_tells_one_sheep_of_a_host_from_another() {
        let nodes = ["10.0.0.1:7000", "10.0.0.1:7001", "10.0.0.2:7001", "10.0.0.2:7002"];
        assert_eq!(found("127.0.0.1:7000", &nodes), is("10.0.0.1:7000"));
        assert_eq!(found("127.0.0.1:7001", &nodes), is("10.0.0.1:7001"));
        assert_eq!(found("127.0.0.1:7002", &nodes), None, "that one is on another host");
        assert_eq!(found("127.0.0.1:7003", &nodes), None);
    }

    #[test]
    fn nothing_is_guessed() {
        let bound = ["127.0.0.1:7000", "127.0.0.2:7000", "10.0.0.2:7000"];
        assert_eq!(found("127.0.0.3:7000", &bound), None, "it may be either");
        assert_eq!(found("127.0.0.2:7000", &bound), is("127.0.0.2:7000"));
        assert_eq!(found("192.0.2.1:7000", &["10.0.0.1:7000"]), None, "that is another host");
        assert_eq!(found("127.0.0.1:7000", &["10.0.0.2:7000"]), None);
        assert_eq!(found("127.0.0.1:7000", &[]), None);
    }

    #[test]
    fn this_host_knows_itself() {
        let own = OwnAddresses::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(own.contain(ip("127.0.0.2")) && own.contain(ip("::1")));
        assert!(!own.contain(ip("192.0.2.1")) && !own.contain(ip("0.0.0.0")));
        assert!(of_interfaces().iter().all(|address| own.contain(*address)));
    }
}
