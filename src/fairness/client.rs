//! Which addresses count as one client: a prefix for each address family.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

/// Bits of an IPv4 address.
const IPV4_BITS: u8 = 32;
/// Bits of an IPv6 address.
const IPV6_BITS: u8 = 128;
/// Bits of an IPv4-mapped IPv6 address before the IPv4 address (RFC 4291 section 2.5.5.2).
const MAPPED_BITS: u8 = IPV6_BITS - IPV4_BITS;

/// How clients are told apart, and whether that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fairness {
    /// If not, whoever comes when something is full is refused.
    pub is_on: bool,
    /// Addresses that share so many leading bits count as one client.
    pub ipv4_prefix: u8,
    pub ipv6_prefix: u8,
}

impl Default for Fairness {
    /// An IPv4 address is a client. An IPv6 /64 is one, since whoever has one address of it may have them all (RFC 4291
    /// section 2.5.4).
    fn default() -> Self {
        Self { is_on: true, ipv4_prefix: IPV4_BITS, ipv6_prefix: 64 }
    }
}

impl Fairness {
    /// Who asks from `address`; an IPv4-mapped one is its IPv4 address.
    pub fn client(self, address: IpAddr) -> Client {
        let (bits, length, full) = match address.to_canonical() {
            IpAddr::V4(address) => {
                (address.to_ipv6_mapped().to_bits(), MAPPED_BITS + self.ipv4_prefix.min(IPV4_BITS), IPV6_BITS)
            }
            IpAddr::V6(address) => (address.to_bits(), self.ipv6_prefix.min(IPV6_BITS), IPV6_BITS),
        };
        let network = (length < full).then(|| Network { bits: bits & mask(length), length });
        Client { address: bits, network }
    }
}

/// The leading `length` bits.
fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(u32::from(IPV6_BITS - length)).unwrap_or(0)
}

/// A client's address, and the network that it counts as one client with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// As IPv6, IPv4-mapped if it is none.
    pub(super) address: u128,
    /// `None` where an address is a client by itself.
    pub(super) network: Option<Network>,
}

/// Addresses with the same leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Network {
    pub bits: u128,
    pub length: u8,
}

impl Client {
    /// Its address as IPv6, IPv4-mapped if it is none.
    pub fn address(self) -> u128 {
        self.address
    }

    /// The same for all addresses that count as one client.
    pub fn holder(self) -> u128 {
        self.network.map_or(self.address, |network| network.bits)
    }
}

impl fmt::Display for Client {
    /// The address, or the network: `192.0.2.1`, `2001:db8::/64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |bits| Ipv6Addr::from_bits(bits).to_canonical();
        match self.network {
            None => write!(f, "{}", address(self.address)),
            Some(Network { bits, length }) => match address(bits) {
                IpAddr::V4(address) => write!(f, "{address}/{}", length.saturating_sub(MAPPED_BITS)),
                IpAddr::V6(address) => write!(f, "{address}/{length}"),
            },
        }
    }
}

/// The [`Fairness`] of a process, which a changed Corefile may change.
#[derive(Debug)]
pub struct SharedFairness(AtomicU32);

impl Default for SharedFairness {
    fn default() -> Self {
        let policy = Self(AtomicU32::new(0));
        policy.set(Fairness::default());
        policy
    }
}

impl SharedFairness {
    /// From now on, for places that are taken anew.
    pub fn set(&self, fairness: Fairness) {
        let Fairness { is_on, ipv4_prefix, ipv6_prefix } = fairness;
        self.0.store(u32::from_le_bytes([u8::from(is_on), ipv4_prefix, ipv6_prefix, 0]), Ordering::Relaxed);
    }

    pub fn get(&self) -> Fairness {
        let [is_on, ipv4_prefix, ipv6_prefix, _] = self.0.load(Ordering::Relaxed).to_le_bytes();
        Fairness { is_on: is_on != 0, ipv4_prefix, ipv6_prefix }
    }
}
