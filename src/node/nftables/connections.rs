//! Connections that the kernel tracks (ctnetlink).

use super::header::header;
use super::socket::NetlinkSocket;
use crate::node::desired::TransportProtocol;
use netlink_bindings::conntrack::{IterableTupleAttrs, Nfgenmsg, OpGetDump, Request};
use netlink_bindings::traits::NetlinkRequest;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// A connection, as the client that began it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrackedConnection {
    pub protocol: TransportProtocol,
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Who answers in truth; differs from `to` where the destination is rewritten.
    pub answered_by: Option<SocketAddr>,
}

/// Connections to `port` of `addresses`.
///
/// # Errors
///
/// The kernel cannot list them, or refuses for lack of NET_ADMIN.
pub(crate) fn read(addresses: &[IpAddr], port: u16) -> io::Result<Vec<TrackedConnection>> {
    let mut channel = NetlinkSocket::open()?;
    let mut family = Nfgenmsg::new();
    family.nfgen_family = header(0, 0).nfgen_family;
    let mut found = Vec::new();
    let is_asked_for =
        |connection: &TrackedConnection| connection.to.port() == port && addresses.contains(&connection.to.ip());
    channel.dump(&Request::new().op_get_dump(&family), |payload| {
        found.extend(TrackedConnection::of(payload).filter(is_asked_for))
    })?;
    Ok(found)
}

impl TrackedConnection {
    /// What a message tells of a connection.
    pub(in crate::node) fn of(payload: &[u8]) -> Option<Self> {
        let (_, attributes) = OpGetDump::decode_reply(payload);
        let (protocol, from, to) = ends(&attributes.get_tuple_orig().ok()?)?;
        let answered_by = attributes.get_tuple_reply().ok().and_then(|tuple| ends(&tuple)).map(|(_, from, _)| from);
        Some(Self { protocol, from, to, answered_by })
    }
}

/// Protocol, source and destination of one direction.
fn ends(tuple: &IterableTupleAttrs<'_>) -> Option<(TransportProtocol, SocketAddr, SocketAddr)> {
    let ip = tuple.get_tuple_ip().ok()?;
    let transport = tuple.get_tuple_proto().ok()?;
    let protocol = match libc::c_int::from(transport.get_proto_num().ok()?) {
        libc::IPPROTO_UDP => TransportProtocol::Udp,
        libc::IPPROTO_TCP => TransportProtocol::Tcp,
        _ => return None,
    };
    let (source, destination): (IpAddr, IpAddr) = match (ip.get_ip_v4_src(), ip.get_ip_v4_dst()) {
        (Ok(source), Ok(destination)) => (source.into(), destination.into()),
        _ => (ip.get_ip_v6_src().ok()?.into(), ip.get_ip_v6_dst().ok()?.into()),
    };
    let (from, to) = (transport.get_proto_src_port().ok()?, transport.get_proto_dst_port().ok()?);
    Some((protocol, (source, from).into(), (destination, to).into()))
}
