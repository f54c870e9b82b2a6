//! Whether another agent is at work on this node, as during a rolling update with a surge. Then link, addresses and
//! iptables rules are left in place, since both need them.
//!
//! An agent holds a Unix socket with an abstract name, which lives in the network namespace, just as all that is
//! shared, and goes with the process, however it ends. Nothing is ever sent to it.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const PREFIX: &str = "nodelocaldns-agent/";
/// The sockets of the reader's network namespace (man 5 proc).
const LISTING: &str = "/proc/self/net/unix";

/// This agent's presence, until it is dropped.
pub(super) struct Presence {
    _socket: UnixDatagram,
    name: String,
}

impl Presence {
    /// Makes this agent seen.
    ///
    /// # Errors
    ///
    /// No descriptor is free.
    pub(super) fn announce() -> io::Result<Self> {
        let name = format!("{PREFIX}{:016x}", fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(&name)?;
        Ok(Self { _socket: UnixDatagram::bind_addr(&address)?, name })
    }

    /// Whether no other agent is seen. Where sockets cannot be listed, none is.
    pub(super) fn is_alone(&self) -> bool {
        std::fs::read_to_string(LISTING).map_or(true, |listing| others(&listing, Some(&self.name)) == 0)
    }
}

/// Whether any agent is seen, by somebody who is none.
pub(super) fn is_any() -> bool {
    std::fs::read_to_string(LISTING).is_ok_and(|listing| others(&listing, None) > 0)
}

/// How many agents but `own` there are in a listing of Unix sockets, as the kernel writes it. Pure.
pub fn others(listing: &str, own: Option<&str>) -> usize {
    let names = listing.lines().filter_map(|line| line.split_whitespace().nth(7)?.strip_prefix('@'));
    names.filter(|name| name.starts_with(PREFIX) && Some(*name) != own).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_agents_are_told_from_oneself_and_from_other_programs() {
        let listing = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 31 @nodelocaldns-agent/01\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 32\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 33 @nodelocaldns-agent/02\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 34 /run/nodelocaldns-agent/03\n";
        assert_eq!(others(listing, Some("nodelocaldns-agent/01")), 1);
        assert_eq!(others(listing, None), 2);
        assert_eq!(others("", None), 0);
    }
}
