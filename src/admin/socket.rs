//! The names of admin sockets, and who is at the other end of one.
//!
//! A name is `nodelocaldns/LABEL/BEGUN-RANDOM` in the abstract namespace (unix(7)): it needs no folder that can be
//! written, no file that is left behind, and its owner alone can have it. The label is what users tell one instance
//! from another by. The time says which of two servers of one label is the newer, as in a hand-over, when both run.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime};

const PREFIX: &str = "nodelocaldns/";

/// Octets of a label: the whole name has 107 at most.
pub(crate) const LABEL_OCTETS: usize = 48;

/// Users that a user namespace does not know have this number in it (`/proc/sys/kernel/overflowuid` by default): it is
/// nobody's own.
const OVERFLOW_USER: u32 = 65534;

/// Whether a text can be a label.
pub(crate) fn is_label(text: &str) -> bool {
    let is_known = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_' | b':');
    (1..=LABEL_OCTETS).contains(&text.len()) && text.bytes().all(is_known)
}

/// What a name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SocketName {
    /// All of it.
    pub name: String,
    pub label: String,
    /// Milliseconds since 1970.
    pub begun: u64,
}

impl SocketName {
    fn new(label: &str, begun: Duration, random: u32) -> Self {
        let begun = u64::try_from(begun.as_millis()).unwrap_or(u64::MAX);
        Self { name: format!("{PREFIX}{label}/{begun:012x}-{random:08x}"), label: label.to_owned(), begun }
    }

    /// `None` for a name of something else.
    fn read(name: &str) -> Option<Self> {
        let (label, rest) = name.strip_prefix(PREFIX)?.split_once('/')?;
        let (begun, random) = rest.split_once('-')?;
        let is_hexadecimal = |text: &str| text.bytes().all(|octet| octet.is_ascii_hexdigit());
        let is_ours = is_label(label) && [begun, random].into_iter().all(is_hexadecimal);
        let begun = u64::from_str_radix(begun, 16).ok().filter(|_| is_ours)?;
        Some(Self { name: name.to_owned(), label: label.to_owned(), begun })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddrUnix> {
        Ok(SocketAddrUnix::new_abstract_name(self.name.as_bytes())?)
    }
}

/// Connections that wait to be taken. Not more: root waits behind those of strangers.
const BACKLOG: i32 = 64;

/// Listens under a new name with this label.
///
/// # Errors
/// Open files are at their limit, or there are no Unix sockets here.
pub(crate) fn listen(label: &str) -> io::Result<OwnedFd> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let name = SocketName::new(label, now, fastrand::u32(..));
    let socket = stream_socket()?;
    bind(&socket, &name.address()?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

pub(super) fn stream_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// The admin sockets in the kernel's list of Unix sockets (`/proc/net/unix`, proc_net(5)).
pub(super) fn listening(list: &str) -> Vec<SocketName> {
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        // Number, count, protocol, flags, type, state, inode, and a name that begins with `@` if it is abstract.
        let flags = u32::from_str_radix(words.nth(3)?, 16).ok()?;
        const LISTENS: u32 = 1 << 16;
        let name = words.nth(3)?.strip_prefix('@')?;
        SocketName::read(name).filter(|_| flags & LISTENS != 0)
    };
    list.lines().filter_map(read).collect()
}

/// Who is at the other end of a connection, or has opened a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketPeer {
    pub user: u32,
    /// It runs in this process's PID namespace, or in one below: in its container.
    pub is_visible: bool,
}

impl SocketPeer {
    pub(super) fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(socket, PeerCredentials)?;
        Ok(Self { user: credentials.uid(), is_visible: credentials.pid() != 0 })
    }

    /// Root, and who has started the program.
    pub(super) fn is_trusted(&self, owner: u32) -> bool {
        self.user == 0 || (self.user == owner && owner != OVERFLOW_USER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_made_and_any_other_is_none() {
        let name = SocketName::new("169.254.20.10", Duration::from_millis(1_800_000_000_123), 7);
        assert_eq!(name.name, "nodelocaldns/169.254.20.10/01a3185c507b-00000007");
        assert_eq!(SocketName::read(&name.name), Some(name));
        let longest = SocketName::new(&"x".repeat(LABEL_OCTETS), Duration::MAX, u32::MAX);
        assert!(longest.address().is_ok());
        for wrong in [
            "nodelocaldns/",
            "nodelocaldns/a",
            "nodelocaldns/a/",
            "nodelocaldns/a/1",
            "nodelocaldns/a/+1-1",
            "nodelocaldns/a/x-1",
            "nodelocaldns//1-1",
            "nodelocaldns/\u{1b}[31m/1-1",
            "nodelocaldns/a/fffffffffffffffff-1",
            "other/a/1-1",
        ] {
            assert_eq!(SocketName::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_label_has_octets_that_neither_a_shell_nor_a_terminal_heeds() {
        for good in ["a", "fd00::10", "node-1_b.c"] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "a b", "a/b", "@a", "\u{fc}", "a\n", &"x".repeat(LABEL_OCTETS + 1)] {
            assert!(!is_label(bad), "{bad}");
        }
    }

    #[test]
    fn of_all_sockets_those_that_listen_under_such_a_name_are_found() {
        let list = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 3152 @nodelocaldns/a/00000000000f-00000001\n\
                    0000000000000000: 00000003 00000000 00000000 0001 03 3153 @nodelocaldns/b/00000000000f-00000001\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 3154 nodelocaldns/c/00000000000f-00000001\n\
                    0000000000000000: 00000002 00000000 00010000 0001 01 3155 /run/dbus/system_bus_socket\n\
                    0000000000000000: 00000002 00000000 00000000 0002 01 3156\n\
                    0000000000000000: 00000002\n";
        let found: Vec<_> = listening(list).into_iter().map(|name| (name.label, name.begun)).collect();
        assert_eq!(found, [("a".to_owned(), 15)]);
        assert_eq!(listening(""), []);
    }

    #[test]
    fn root_and_the_owner_are_trusted() {
        let peer = |user| SocketPeer { user, is_visible: true };
        assert!(peer(0).is_trusted(1000) && peer(1000).is_trusted(1000));
        assert!(!peer(1001).is_trusted(1000) && !peer(65534).is_trusted(0));
        assert!(!peer(65534).is_trusted(65534), "it may be any user");
    }
}
