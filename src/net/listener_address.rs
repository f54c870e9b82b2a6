//! The address at which a client on this machine reaches a listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The address at which a client on this machine reaches a listener. For an unspecified address that is the loopback
/// address: the IPv6 one only if the listener takes nothing else, because a machine may have IPv6 switched off and a
/// listener on `[::]` usually takes IPv4 too.
pub(crate) fn reachable_address(listener: SocketAddr, only_v6: bool) -> SocketAddr {
    if !listener.ip().is_unspecified() {
        return listener;
    }
    let loopback: IpAddr = if only_v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    SocketAddr::new(loopback, listener.port())
}

#[cfg(test)]
mod tests {
    use super::reachable_address;

    #[test]
    fn a_listener_on_every_address_is_reached_over_loopback() {
        for (listener, only_v6, expected) in [
            ("0.0.0.0:8080", false, "127.0.0.1:8080"),
            ("[::]:8080", false, "127.0.0.1:8080"),
            ("[::]:8080", true, "[::1]:8080"),
            ("169.254.20.10:8080", false, "169.254.20.10:8080"),
            ("[::1]:80", false, "[::1]:80"),
        ] {
            assert_eq!(reachable_address(listener.parse().unwrap(), only_v6), expected.parse().unwrap());
        }
    }
}
