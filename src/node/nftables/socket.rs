//! A netlink socket to nf_tables. The kernel works a request off while it is sent and queues the answers before `send`
//! returns, so nothing here waits, and no async is needed.

use super::encode::{Batch, FAMILY};
use super::header::header;
use super::message::take_answers;
use netlink_bindings::nftables::{OpGetruleDump, OpGettableDump, Request};
use netlink_bindings::traits::NetlinkRequest;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};
use rustix::net::sockopt;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};

/// The kernel puts at most 32 KiB into a datagram of a list, and acknowledgements are short.
const DATAGRAM_LIMIT: usize = 64 * 1024;
/// Room for the acknowledgements of a few thousand rules, as far as the machine allows it.
const RECEIVE_BUFFER: libc::c_int = 1 << 20;
/// Beside the octets of a message that is sent (`netlink_sendmsg` of net/netlink/af_netlink.c).
const SEND_OVERHEAD: usize = 32;

/// A socket; tables that it creates with the flag `owner` go when it is closed. It is not passed on to programs that we
/// start.
pub struct NetlinkSocket {
    socket: Socket,
    port_id: u32,
    next_sequence: u32,
}

/// A table as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableView {
    pub name: String,
    /// Port ID of the socket that owns it.
    pub owner: Option<u32>,
}

/// A rule as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleView {
    pub chain: String,
    /// Another handle is another rule.
    pub handle: u64,
    /// What it does, as netlink attributes; counters among them go up.
    pub expressions: Vec<u8>,
}

impl TableView {
    /// What a message tells of a table of family inet.
    pub fn of(payload: &[u8]) -> Option<Self> {
        let (family, attributes) = OpGettableDump::decode_reply(payload);
        let name = attributes.get_name().ok()?.to_str().ok()?.to_owned();
        (family.nfgen_family == FAMILY).then(|| Self { name, owner: attributes.get_owner().ok() })
    }
}

impl RuleView {
    /// What a message tells of a rule of the table of this name, in family inet.
    pub fn of(payload: &[u8], table: &str) -> Option<Self> {
        let (family, attributes) = OpGetruleDump::decode_reply(payload);
        let is_here = attributes.get_table().ok()?.to_bytes() == table.as_bytes();
        let chain = attributes.get_chain().ok()?.to_str().ok()?.to_owned();
        let handle = attributes.get_handle().ok()?;
        let expressions = attributes.get_expressions().map(|list| list.get_buf().to_vec()).unwrap_or_default();
        (is_here && family.nfgen_family == FAMILY).then_some(Self { chain, handle, expressions })
    }
}

impl NetlinkSocket {
    /// Opens a socket.
    ///
    /// # Errors
    ///
    /// The kernel has no netfilter over netlink, or descriptors are short.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let port_id = socket.bind_auto()?.port_number();
        socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
        // Refusals need not repeat the request.
        socket.set_cap_ack(true)?;
        Ok(Self { socket, port_id, next_sequence: 1 })
    }

    /// The number by which the kernel knows this socket: in a table's `owner`, and as the sender of a change.
    pub fn port_id(&self) -> u32 {
        self.port_id
    }

    /// Another descriptor of the same socket: for the kernel it is closed only when both are.
    ///
    /// # Errors
    ///
    /// Descriptors are short.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Applies the batch that `build` makes from a first sequence number.
    ///
    /// # Errors
    ///
    /// The first refusal in the batch; nothing of it was applied.
    pub fn commit(&mut self, build: impl FnOnce(u32) -> Batch) -> io::Result<()> {
        let batch = build(self.next_sequence);
        let begin = batch.sequence.start().saturating_sub(1);
        self.next_sequence = batch.sequence.end().wrapping_add(2).max(1);
        self.make_room(batch.octets.len());
        self.send(&batch.octets)?;
        // A refusal of the whole batch, such as for lack of rights, comes as the answer to its first message.
        self.receive(begin..=*batch.sequence.end(), |_| {})
    }

    /// The tables of family inet.
    ///
    /// # Errors
    ///
    /// The kernel refused, or has no nf_tables.
    pub fn tables(&mut self) -> io::Result<Vec<TableView>> {
        let request = Request::new().op_gettable_dump(&header(FAMILY, 0));
        let mut tables = Vec::new();
        self.dump(&request, |payload| tables.extend(TableView::of(payload)))?;
        Ok(tables)
    }

    /// The rules of `table`, in the order of the kernel.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub fn rules(&mut self, table: &str) -> io::Result<Vec<RuleView>> {
        let mut request = Request::new().op_getrule_dump(&header(FAMILY, 0));
        request.encode().push_table_bytes(table.as_bytes());
        let mut rules = Vec::new();
        self.dump(&request, |payload| rules.extend(RuleView::of(payload, table)))?;
        Ok(rules)
    }

    /// Asks for a list and gives each of its parts to `part`.
    ///
    /// # Errors
    ///
    /// The kernel refused, or `request` asks for no list of netfilter.
    pub(super) fn dump<R: NetlinkRequest>(&mut self, request: &R, part: impl FnMut(&[u8])) -> io::Result<()> {
        let netlink_bindings::traits::Protocol::Raw { request_type, .. } = request.protocol() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a request of nf_tables"));
        };
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1).max(1);
        let payload = request.payload();
        let mut octets = Vec::with_capacity(16 + payload.len());
        octets.extend((16 + payload.len() as u32).to_ne_bytes());
        octets.extend(request_type.to_ne_bytes());
        octets.extend((request.flags() | NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        octets.extend(sequence.to_ne_bytes());
        octets.extend(0_u32.to_ne_bytes());
        octets.extend(payload);
        self.send(&octets)?;
        self.receive(sequence..=sequence, part)
    }

    /// Sees to it that a batch of so many octets, which goes into one message, may be sent: a dozen addresses take more
    /// than what a socket has by default.
    fn make_room(&self, octets: usize) {
        let needed = octets + SEND_OVERHEAD;
        if sockopt::socket_send_buffer_size(&self.socket).is_ok_and(|size| size < needed) {
            // NET_ADMIN of a user namespace is not enough for more than the machine's limit. What is too much is told
            // by whoever sends it.
            _ = sockopt::set_socket_send_buffer_size_force(&self.socket, needed)
                .or_else(|_| sockopt::set_socket_send_buffer_size(&self.socket, needed));
        }
    }

    fn send(&self, octets: &[u8]) -> io::Result<()> {
        let kernel = SocketAddr::new(0, 0);
        self.socket.send_to(octets, &kernel, 0).map(|_all_of_it| ())
    }

    /// Reads until the request with the last of the sequence numbers is answered or one of them is refused. Answers to
    /// earlier requests, given up on after an error, are passed over.
    fn receive(&self, sequence: RangeInclusive<u32>, mut part: impl FnMut(&[u8])) -> io::Result<()> {
        let mut datagram = Vec::with_capacity(DATAGRAM_LIMIT);
        loop {
            datagram.clear();
            self.socket.recv(&mut datagram, libc::MSG_DONTWAIT).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel did not answer"),
                _ => error,
            })?;
            if take_answers(&datagram, &sequence, &mut part)? {
                return Ok(());
            }
        }
    }
}
