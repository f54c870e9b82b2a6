//! The network interfaces of the machine we run on.

use crate::chain::Interfaces;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use std::net::IpAddr;

/// The interfaces of this machine's (this network namespace's) kernel, asked anew at each call: getifaddrs(3).
pub struct SystemInterfaces;

impl Interfaces for SystemInterfaces {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let all = match getifaddrs() {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(
                    "bind: the interfaces of this machine cannot be listed, so none can be bound by name: {error}"
                );
                return None;
            }
        };
        // An interface without IP addresses still has an entry: its link-layer address, or none at all.
        let mut found = None;
        for entry in all.filter(|entry| entry.interface_name == name) {
            let addresses: &mut Vec<IpAddr> = found.get_or_insert_default();
            let Some(address) = entry.address else { continue };
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            let v6 = address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
            addresses.extend(v4.or(v6));
        }
        found
    }

    fn index(&self, name: &str) -> Option<u32> {
        if_nametoindex(name).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::SystemInterfaces;
    use crate::chain::Interfaces;

    #[test]
    fn the_loopback_interface_has_the_loopback_address() {
        let addresses = SystemInterfaces.addresses("lo").expect("every Linux machine has lo");
        assert!(addresses.contains(&[127, 0, 0, 1].into()), "{addresses:?}");
        assert_eq!(SystemInterfaces.index("lo"), Some(1));
    }

    #[test]
    fn there_is_no_interface_of_an_impossible_name() {
        assert_eq!(SystemInterfaces.addresses("no/such/interface"), None);
        assert_eq!(SystemInterfaces.index("no/such/interface"), None);
    }
}
