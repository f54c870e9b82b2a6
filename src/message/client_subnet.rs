//! Client Subnet, the EDNS option by which an answer may be made for the network that a client is in (RFC 7871).

use super::WireError;
use super::opt;
use super::wire_reader::u16_at;
use smallvec::SmallVec;
use std::net::IpAddr;

/// The option's code.
pub(super) const CODE: u16 = 8;
/// Octets of an option before its address: code, length, family, the two prefix lengths.
const HEADER_LENGTH: usize = 8;
/// Address families (RFC 7871 section 6, from IANA's list). 0 goes with a prefix of 0 only.
const NONE: u16 = 0;
const IPV4: u16 = 1;
const IPV6: u16 = 2;

/// A client's network: an address family, the length of the prefix in bits, and as much of the address.
///
/// A prefix of 0 is its own thing: a client that writes it wants no answer made for it (RFC 7871 section 7.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientSubnet {
    family: u16,
    prefix: u8,
    /// Zero beyond the prefix.
    address: [u8; 16],
}

/// How long prefixes may be, in bits; longer ones are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLimits {
    /// At most 32.
    pub ipv4: u8,
    /// At most 128.
    pub ipv6: u8,
}

/// For whom an upstream made its answer to a query with a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It says so: for the network of so many bits around the subnet, 0 for everybody. More bits than were asked with
    /// say that those did not do to choose an answer (RFC 7871 section 7.2.1), so this one is for clients that ask with
    /// exactly this subnet.
    Stated(u8),
    /// It does not say, or it is a failure. So it is for clients that ask with exactly this subnet: a client may name a
    /// short prefix, and must not have spoken for all networks in it.
    Unstated,
}

impl Default for PrefixLimits {
    /// What RFC 7871 section 11.1 recommends, to tell no more of a client than its network.
    fn default() -> Self {
        Self { ipv4: 24, ipv6: 56 }
    }
}

impl ClientSubnet {
    /// What a client writes who wants no answer made for it.
    pub const UNTAILORED: Self = Self { family: IPV4, prefix: 0, address: [0; 16] };

    /// The network of this address that has so many bits, at most all of them.
    pub fn of(address: IpAddr, prefix: u8) -> Self {
        let (family, longest, address) = match address {
            IpAddr::V4(address) => {
                let mut octets = [0; 16];
                octets[..4].copy_from_slice(&address.octets());
                (IPV4, 32, octets)
            }
            IpAddr::V6(address) => (IPV6, 128, address.octets()),
        };
        Self { family, prefix: longest, address }.cut_to(prefix)
    }

    /// The first option of this kind among the options of an OPT record; `None` if there is none. Beside it its scope,
    /// in bits.
    pub(super) fn find(options: &[u8]) -> Result<Option<(Self, u8)>, WireError> {
        opt::Options(options).find(|(code, _)| *code == CODE).map(|(_, option)| Self::read(option)).transpose()
    }

    /// An option, from its code on (RFC 7871 section 6).
    fn read(option: &[u8]) -> Result<(Self, u8), WireError> {
        let family = u16_at(option, 4).map_err(|_| WireError::BadClientSubnet)?;
        let (Some([prefix, scope]), Some(octets)) = (option.get(6..HEADER_LENGTH), option.get(HEADER_LENGTH..)) else {
            return Err(WireError::BadClientSubnet);
        };
        let (prefix, scope) = (*prefix, *scope);
        let longest = match family {
            NONE => 0,
            IPV4 => 32,
            IPV6 => 128,
            _ => return Err(WireError::BadClientSubnet),
        };
        if prefix > longest || scope > longest || octets.len() != octets_of(prefix) {
            return Err(WireError::BadClientSubnet);
        }
        let mut address = [0; 16];
        address[..octets.len()].copy_from_slice(octets);
        let whole = Self { family, prefix, address };
        // A bit set beyond the prefix makes it another one.
        if whole.cut_to(prefix) == whole { Ok((whole, scope)) } else { Err(WireError::BadClientSubnet) }
    }

    /// Its prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// True if it asks for an answer that is made for nobody.
    pub fn is_untailored(&self) -> bool {
        self.prefix == 0
    }

    /// As it may be passed on. Without a prefix nothing is left of it that could make a difference.
    pub fn within(&self, limits: PrefixLimits) -> Self {
        let limit = if self.family == IPV4 { limits.ipv4 } else { limits.ipv6 };
        let cut = self.cut_to(limit);
        if cut.is_untailored() { Self::UNTAILORED } else { cut }
    }

    /// The network of this many bits that it is in, or itself if it has no more.
    pub fn cut_to(&self, prefix: u8) -> Self {
        let prefix = prefix.min(self.prefix);
        let mut address = self.address;
        for (index, octet) in address.iter_mut().enumerate() {
            let bits = usize::from(prefix).saturating_sub(8 * index).min(8);
            *octet &= !(0xff_u16 >> bits) as u8;
        }
        Self { family: self.family, prefix, address }
    }

    /// True if all of `other` is in it.
    pub fn contains(&self, other: &Self) -> bool {
        other.prefix >= self.prefix && other.cut_to(self.prefix) == *self
    }

    /// The option, with this scope in bits: 0 in a query.
    pub(super) fn option(&self, scope: u8) -> SmallVec<[u8; 24]> {
        let octets = octets_of(self.prefix);
        let mut option = SmallVec::new();
        option.extend_from_slice(&CODE.to_be_bytes());
        option.extend_from_slice(&((HEADER_LENGTH - 4 + octets) as u16).to_be_bytes());
        option.extend_from_slice(&self.family.to_be_bytes());
        option.extend_from_slice(&[self.prefix, scope]);
        option.extend_from_slice(&self.address[..octets]);
        option
    }

    /// As octets that no other has, nor begins with.
    pub(super) fn octets(&self) -> SmallVec<[u8; 24]> {
        let mut octets = SmallVec::new();
        octets.extend_from_slice(&[self.family as u8, self.prefix]);
        octets.extend_from_slice(&self.address[..octets_of(self.prefix)]);
        octets
    }

    /// For whom an upstream's answer is, whose OPT record has these options (RFC 7871 section 7.3). One that does not
    /// say is for everybody if it `is_proven` that the upstream sent it, else for this subnet alone: who names many
    /// subnets has one question asked so many times at once, and a forger who meets any of those, without knowing
    /// which, must not have spoken to others (section 11.2).
    ///
    /// # Errors
    /// The answer is for another subnet, which is how a forged one may look.
    pub(super) fn scope_of(&self, options: &[u8], is_proven: bool) -> Result<Scope, WireError> {
        match Self::find(options)? {
            None => Ok(if is_proven { Scope::Stated(0) } else { Scope::Unstated }),
            // Whom the upstream made it for then is its own matter.
            Some(_) if self.is_untailored() => Ok(Scope::Stated(0)),
            Some((same, scope)) if same == *self => Ok(Scope::Stated(scope)),
            Some(_) => Err(WireError::OtherClientSubnet),
        }
    }
}

/// Octets that hold this many bits.
fn octets_of(prefix: u8) -> usize {
    usize::from(prefix).div_ceil(8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An option for queries and answers put together octet by octet.
    pub(crate) fn option(family: u16, prefix: u8, scope: u8, address: &[u8]) -> Vec<u8> {
        let length = (4 + address.len() as u16).to_be_bytes();
        [&[0, 8][..], &length, &family.to_be_bytes(), &[prefix, scope], address].concat()
    }

    fn read(options: &[u8]) -> Option<(ClientSubnet, u8)> {
        ClientSubnet::find(options).unwrap()
    }

    fn subnet(family: u16, prefix: u8, address: &[u8]) -> ClientSubnet {
        read(&option(family, prefix, 0, address)).unwrap().0
    }

    #[test]
    fn an_option_reads_back_as_it_was_written() {
        for (family, prefix, address) in [
            (1, 24, &[192, 0, 2][..]),
            (1, 0, &[]),
            (0, 0, &[]),
            (1, 25, &[192, 0, 2, 0x80]),
            (1, 1, &[0x80]),
            (2, 56, &[0x20, 1, 0xd, 0xb8, 0, 0, 7]),
            (2, 128, &[0xff; 16]),
        ] {
            let option = option(family, prefix, 0, address);
            let (read, scope) = read(&option).unwrap();
            assert_eq!((read.option(0).as_slice(), scope, read.prefix()), (&option[..], 0, prefix));
        }
    }

    #[test]
    fn the_network_of_an_address_has_as_many_of_its_bits_as_it_is_to_have() {
        for (address, prefix, option) in [
            ("192.0.2.77", 24, option(1, 24, 0, &[192, 0, 2])),
            ("192.0.2.77", 40, option(1, 32, 0, &[192, 0, 2, 77])),
            ("192.0.2.77", 0, option(1, 0, 0, &[])),
            ("2001:db8:0:ff::1", 57, option(2, 57, 0, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0x80])),
        ] {
            assert_eq!(ClientSubnet::of(address.parse().unwrap(), prefix).option(0)[..], option, "{address}/{prefix}");
        }
    }

    #[test]
    fn only_the_first_option_of_the_kind_counts_and_none_of_another() {
        let [first, second] = [option(1, 8, 7, &[10]), option(1, 8, 0, &[11])];
        let cookie = [0, 10, 0, 2, 1, 2];
        assert_eq!(read(&[&cookie[..], &first, &second].concat()), Some((subnet(1, 8, &[10]), 7)));
        assert_eq!((read(&cookie), read(&[])), (None, None));
    }

    #[test]
    fn what_rfc_7871_calls_malformed_is_refused() {
        for malformed in [
            option(3, 8, 0, &[10]),
            option(0, 8, 0, &[10]),
            option(1, 33, 0, &[10, 0, 0, 0, 0]),
            option(1, 32, 33, &[10, 0, 0, 1]),
            option(2, 129, 0, &[0; 17]),
            // Too few octets, too many, and bits beyond the prefix.
            option(1, 24, 0, &[192, 0]),
            option(1, 24, 0, &[192, 0, 2, 0]),
            option(1, 0, 0, &[0]),
            option(1, 23, 0, &[192, 0, 3]),
            option(2, 1, 0, &[0xc0]),
            vec![0, 8, 0, 3, 0, 1, 24],
            vec![0, 8, 0, 0],
        ] {
            assert_eq!(ClientSubnet::find(&malformed), Err(WireError::BadClientSubnet), "{malformed:?}");
        }
    }

    #[test]
    fn a_subnet_is_cut_to_the_limit_of_its_family_and_to_nothing_without_its_family() {
        let limits = PrefixLimits { ipv4: 20, ipv6: 33 };
        assert_eq!(subnet(1, 24, &[192, 0, 0xff]).within(limits), subnet(1, 20, &[192, 0, 0xf0]));
        assert_eq!(subnet(1, 16, &[192, 7]).within(limits), subnet(1, 16, &[192, 7]));
        assert_eq!(subnet(2, 40, &[0x20, 1, 2, 3, 0xff]).within(limits), subnet(2, 33, &[0x20, 1, 2, 3, 0x80]));
        for nothing in [subnet(2, 0, &[]), subnet(0, 0, &[]), subnet(1, 0, &[])] {
            assert_eq!(nothing.within(limits), ClientSubnet::UNTAILORED);
        }
        let none = PrefixLimits { ipv4: 0, ipv6: 0 };
        assert_eq!(subnet(2, 40, &[0x20, 1, 2, 3, 0xff]).within(none), ClientSubnet::UNTAILORED);
    }

    #[test]
    fn a_subnet_contains_itself_and_those_within_it_and_no_other() {
        let outer = subnet(1, 12, &[10, 0x10]);
        assert!(outer.contains(&outer) && outer.contains(&subnet(1, 16, &[10, 0x1f])));
        for other in
            [subnet(1, 16, &[10, 0x20]), subnet(1, 8, &[10]), subnet(2, 16, &[10, 0x1f]), ClientSubnet::UNTAILORED]
        {
            assert!(!outer.contains(&other), "{other:?}");
        }
    }

    #[test]
    fn an_answer_is_for_as_many_bits_as_it_says() {
        let asked = subnet(1, 24, &[192, 0, 2]);
        let scope = |scope| asked.scope_of(&option(1, 24, scope, &[192, 0, 2]), false);
        for bits in [0, 16, 24, 32] {
            assert_eq!(scope(bits), Ok(Scope::Stated(bits)));
        }
        assert_eq!(
            (asked.scope_of(&[], true), asked.scope_of(&[], false)),
            (Ok(Scope::Stated(0)), Ok(Scope::Unstated))
        );
    }

    #[test]
    fn an_answer_for_another_subnet_is_refused() {
        let asked = subnet(1, 24, &[192, 0, 2]);
        for other in [option(1, 24, 24, &[192, 0, 3]), option(1, 16, 16, &[192, 0]), option(2, 24, 24, &[192, 0, 2])] {
            assert_eq!(asked.scope_of(&other, true), Err(WireError::OtherClientSubnet));
        }
        assert_eq!(asked.scope_of(&option(1, 24, 24, &[192]), true), Err(WireError::BadClientSubnet));
        // Who wanted none is told for whom it was made all the same (RFC 7871 section 7.3).
        assert_eq!(ClientSubnet::UNTAILORED.scope_of(&option(1, 24, 24, &[192, 0, 3]), false), Ok(Scope::Stated(0)));
    }
}
