//! The DNS sockets that a server is passed, and the addresses at which it is then probed.

use crate::server::{ListenAddresses, Sockets};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// More than any machine has processors.
const MAX_WORKERS: usize = 4096;

/// Addresses at which sockets are held for a server, those of a configuration and of the one that it replaces: far more
/// than any node has.
pub(super) const MOST_ADDRESSES: usize = 512;

/// Opens the sockets for `wanted` that `held` has not, and returns all that are for `wanted`.
///
/// # Errors
/// Some could not be opened, or there would be too many: one text for each, with what to do.
pub(super) fn open(held: &mut Sockets, wanted: &ListenAddresses, workers: usize) -> Result<Sockets, Vec<String>> {
    held.drop_stopped();
    let count = address_count(held, wanted);
    if count > MOST_ADDRESSES {
        return Err(vec![format!("DNS would be served at {count} addresses, more than {MOST_ADDRESSES}: serve fewer")]);
    }
    let opened = Sockets::bind(wanted, workers.clamp(1, MAX_WORKERS), held);
    opened.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// Where the server is asked that listens at `listens` and is reached by programs on this node at `reachable`: with the
/// unspecified address it listens at each of the `intercepted` ones too, and each of them is to be proven.
pub(super) fn reached(listens: SocketAddr, reachable: SocketAddr, intercepted: &[IpAddr]) -> Vec<SocketAddr> {
    let is_meant = |ip: &IpAddr| {
        listens.ip().is_unspecified() && (ip.is_ipv4() == listens.is_ipv4() || ip.is_ipv4() && reachable.is_ipv4())
    };
    let intercepted = intercepted.iter().map(IpAddr::to_canonical).filter(|ip| !ip.is_unspecified());
    let meant = intercepted.filter(is_meant).map(|ip| SocketAddr::new(ip, listens.port()));
    [reachable].into_iter().chain(meant).collect()
}

/// At how many addresses there are sockets once those of `wanted` are held too.
fn address_count(held: &Sockets, wanted: &ListenAddresses) -> usize {
    held.addresses().chain(wanted.all()).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::{MOST_ADDRESSES, address_count, reached};
    use crate::server::{ListenAddresses, Sockets};
    use std::net::{IpAddr, SocketAddr};

    #[test]
    fn a_server_is_passed_no_more_sockets_than_of_512_addresses_those_that_are_held_included() {
        let at = |port: usize| SocketAddr::from(([192, 0, 2, 1], u16::try_from(port).unwrap()));
        let wanted: ListenAddresses = (0..MOST_ADDRESSES).map(|port| at(port + 1)).collect();
        assert_eq!(address_count(&Sockets::default(), &wanted), MOST_ADDRESSES);
        let twice = ListenAddresses { streams: wanted.dns.clone(), ..wanted.clone() };
        assert_eq!(address_count(&Sockets::default(), &twice), MOST_ADDRESSES);
        let held = Sockets::bind(&[([127, 0, 0, 1], 0).into()].into_iter().collect(), 1, &Sockets::default()).unwrap();
        assert_eq!(address_count(&held, &wanted), MOST_ADDRESSES + 1, "more than may be");
    }

    #[test]
    fn a_server_on_the_unspecified_address_is_asked_at_each_address_that_is_intercepted() {
        let intercepted: Vec<IpAddr> = ["10.96.0.10", "fd00::10"].map(|text| text.parse().unwrap()).to_vec();
        let reached = |listens: &str, reachable: &str| -> Vec<String> {
            let targets = reached(listens.parse().unwrap(), reachable.parse().unwrap(), &intercepted);
            targets.iter().map(ToString::to_string).collect()
        };
        assert_eq!(reached("10.96.0.10:53", "10.96.0.10:53"), ["10.96.0.10:53"]);
        assert_eq!(reached("0.0.0.0:53", "127.0.0.1:53"), ["127.0.0.1:53", "10.96.0.10:53"]);
        assert_eq!(reached("[::]:53", "127.0.0.1:53"), ["127.0.0.1:53", "10.96.0.10:53", "[fd00::10]:53"]);
        assert_eq!(reached("[::]:53", "[::1]:53"), ["[::1]:53", "[fd00::10]:53"], "of IPv6 alone");
    }
}
