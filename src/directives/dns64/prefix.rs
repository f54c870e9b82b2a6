//! The IPv6 addresses that stand for IPv4 ones (RFC 6052 section 2.2).

use ipnet::{IpNet, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A prefix of 32, 40, 48, 56, 64, 72, 80, 88 or 96 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Zero beyond its length.
    octets: [u8; 16],
    /// Octets of it.
    length: usize,
}

/// Octet 8 of an address is zero: those before and after it hold the IPv4 address.
const RESERVED: usize = 8;

impl Default for Prefix {
    /// The well-known one, `64:ff9b::/96`.
    fn default() -> Self {
        Self { octets: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0).octets(), length: 12 }
    }
}

/// Why a word is no prefix.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PrefixError {
    #[error("it is no IPv6 network in CIDR form")]
    Network,
    #[error("its length is none of 32, 40, 48, 56, 64, 72, 80, 88 and 96")]
    Length,
}

impl Prefix {
    /// Bits beyond the length are left out.
    ///
    /// # Errors
    /// Another form or length.
    pub(super) fn parse(text: &str) -> Result<Self, PrefixError> {
        let Ok(IpNet::V6(network)) = text.parse() else { return Err(PrefixError::Network) };
        Self::of(network.trunc())
    }

    fn of(network: Ipv6Net) -> Result<Self, PrefixError> {
        let bits = network.prefix_len();
        match bits.is_multiple_of(8) && (32..=96).contains(&bits) {
            true => Ok(Self { octets: network.network().octets(), length: usize::from(bits / 8) }),
            false => Err(PrefixError::Length),
        }
    }

    /// The address that stands for an IPv4 one.
    pub(super) fn map(&self, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = self.octets;
        match octets.get_mut(self.length..).map(<&mut [u8; 4]>::try_from) {
            Some(Ok(last)) => *last = address.octets(),
            // A prefix longer than 64 bits covers the reserved octet itself.
            _ => {
                let places = (self.length..16).filter(|place| *place != RESERVED);
                for (place, octet) in places.zip(address.octets()) {
                    octets[place] = octet;
                }
            }
        }
        octets.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_embedded_as_rfc_6052_has_it() {
        // Its section 2.4.
        for (prefix, expected) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let mapped = Prefix::parse(prefix).unwrap().map(Ipv4Addr::new(192, 0, 2, 33));
            assert_eq!(mapped, expected.parse::<Ipv6Addr>().unwrap(), "{prefix}");
        }
        assert_eq!(Prefix::parse("64:ff9b::/96"), Ok(Prefix::default()));
    }

    #[test]
    fn other_networks_are_refused() {
        for (text, error) in [
            ("64:ff9b::", PrefixError::Network),
            ("192.0.2.0/24", PrefixError::Network),
            ("x", PrefixError::Network),
            ("64:ff9b::/24", PrefixError::Length),
            ("64:ff9b::/104", PrefixError::Length),
            ("64:ff9b::/63", PrefixError::Length),
        ] {
            assert_eq!(Prefix::parse(text), Err(error), "{text}");
        }
    }
}
