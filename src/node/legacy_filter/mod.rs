//! The filter table of legacy iptables, read from the kernel as its programs read it, where there are none of them:
//! without one nothing can be put into that table, so it is only asked whether its rules may drop DNS packets. On a
//! node with a kubelet they do not: KUBE-FIREWALL drops what comes to 127.0.0.0/8 from elsewhere.

mod table;

use super::desired::Rule;
use super::error::Error;
use super::nftables::firewall::Packet;
use crate::platform::read_option;
use socket2::{Domain, Socket, Type};
use std::io;
use std::os::fd::AsFd;
use table::FilterTable;

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES` (include/uapi/linux/netfilter_ipv4/ip_tables.h); those of IPv6 have the
/// same numbers.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;

/// `XT_TABLE_MAXNAMELEN`, and the octets of `struct ipt_getinfo`, at whose end stands the size of the entries.
const NAME_LENGTH: usize = 32;
const INFO_LENGTH: usize = 84;
/// What of `struct ipt_get_entries` stands before the entries.
const ENTRIES_HEADER: usize = 40;
/// Octets of entries: far more than the rules of a node with ten thousand Services have.
const MOST_OCTETS: usize = 64 << 20;
/// Tries when somebody changes the table between two calls.
const TRIES: usize = 3;

/// Finds out whether the legacy filter tables let every packet pass for which `rules` are.
///
/// # Errors
/// [`Error::LegacyFilter`] if they may drop one, [`Error::LegacyUnread`].
pub(super) fn check(rules: &[Rule]) -> Result<(), Error> {
    for is_ipv6 in [false, true] {
        let packets = rules.iter().filter(|rule| rule.address.is_ipv6() == is_ipv6).filter_map(Packet::of);
        let mut packets = packets.filter(|packet| !packet.is_loopback).peekable();
        if packets.peek().is_none() {
            continue;
        }
        let octets = read(is_ipv6).map_err(|source| Error::LegacyUnread { source })?;
        let (info, entries) = octets.split_at_checked(INFO_LENGTH).unwrap_or_default();
        let table = FilterTable::new(info, entries, is_ipv6);
        if packets.any(|packet| table.may_drop(&packet)) {
            return Err(Error::LegacyFilter);
        }
    }
    Ok(())
}

/// The table as the kernel has it: `struct ipt_getinfo`, and behind it the entries.
fn read(is_ipv6: bool) -> io::Result<Vec<u8>> {
    let (domain, level) = match is_ipv6 {
        false => (Domain::IPV4, libc::IPPROTO_IP),
        true => (Domain::IPV6, libc::IPPROTO_IPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let mut info = named(INFO_LENGTH);
        read_option(socket.as_fd(), level, GET_INFO, &mut info)?;
        let size = info.last_chunk().map_or(0, |size| u32::from_ne_bytes(*size));
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        if length > MOST_OCTETS {
            return Err(io::Error::other(format!("its rules take {length} octets")));
        }
        let mut entries = named(ENTRIES_HEADER + length);
        entries[NAME_LENGTH..NAME_LENGTH + 4].copy_from_slice(&size.to_ne_bytes());
        match read_option(socket.as_fd(), level, GET_ENTRIES, &mut entries) {
            Ok(_) => {
                info.extend_from_slice(&entries[ENTRIES_HEADER..]);
                return Ok(info);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

/// Octets that begin with the table's name.
fn named(length: usize) -> Vec<u8> {
    let mut octets = vec![0; length];
    octets[..b"filter".len()].copy_from_slice(b"filter");
    octets
}
