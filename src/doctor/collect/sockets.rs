//! Sockets that take queries or connections, whoever's.

use super::processes::holders;
use crate::chain::Transport;
use crate::doctor::findings::ListeningSocket;
use procfs::ProcError;
use procfs::net::TcpState;
use std::collections::HashSet;
use std::net::SocketAddr;

/// Those on `ports`, of this network namespace.
///
/// # Errors
///
/// /proc is not mounted.
pub(super) fn listeners(ports: &[u16]) -> Result<Vec<ListeningSocket>, ProcError> {
    let mut found: Vec<(Transport, SocketAddr, u64)> = Vec::new();
    // Where the kernel has no IPv6 there are no lists of it.
    let udp = procfs::net::udp()?.into_iter().chain(procfs::net::udp6().unwrap_or_default());
    // A connected one takes nobody else's datagrams.
    let open = udp.filter(|socket| socket.remote_address.port() == 0);
    found.extend(open.map(|socket| (Transport::Udp, socket.local_address, socket.inode)));
    let tcp = procfs::net::tcp()?.into_iter().chain(procfs::net::tcp6().unwrap_or_default());
    let listening = tcp.filter(|socket| socket.state == TcpState::Listen);
    found.extend(listening.map(|socket| (Transport::Tcp, socket.local_address, socket.inode)));
    found.retain(|(_, address, _)| ports.contains(&address.port()));
    let holders = holders(&found.iter().map(|(_, _, inode)| *inode).collect::<HashSet<u64>>());
    let listener = |(transport, address, inode): (Transport, SocketAddr, u64)| ListeningSocket {
        transport,
        address,
        holders: holders.get(&inode).cloned().unwrap_or_default(),
    };
    Ok(found.into_iter().map(listener).collect())
}
