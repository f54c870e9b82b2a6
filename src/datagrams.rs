//! Many datagrams in one system call, the socket options that neither the standard library nor socket2 has, and a
//! socket's registration for reading only; for clients' sockets and for those to upstreams. The `unsafe` code of the
//! query's path is all here: recvmmsg(2), sendmmsg(2), cmsg(3), IP_PKTINFO of ip(7), IPV6_RECVPKTINFO (RFC 3542 section
//! 6).

#![allow(unsafe_code, reason = "recvmmsg(2) and sendmmsg(2), which no crate offers safely")]

use crate::message::DEFAULT_UDP_SIZE;
use std::cell::RefCell;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::slice;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Datagrams taken or sent in one call.
pub(crate) const BATCH: usize = 32;

/// Octets of the longest query that is read over UDP. Queries are far shorter: a name and a few EDNS options.
pub(crate) const MAX_QUERY: usize = DEFAULT_UDP_SIZE as usize;

/// Octets of the longest answer that is ever asked for over UDP (`bufsize 4096`).
pub(crate) const MAX_ANSWER: usize = 4096;

/// Between one buffer and the next, so that their first lines do not share one set of the processor's cache.
const GAP: usize = 64;

/// Room for one packet information message: 16 octets of header and at most 20 of content.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// A socket address as the kernel reads and writes it.
#[repr(C)]
#[derive(Clone, Copy)]
union SocketName {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// What one call needs beside the octets. All fields are valid when zero. Used again from call to call: to zero it each
/// time cost as much as a tenth of a query's way through the program (measured: benches/README.md).
struct BatchBuffers {
    headers: [libc::mmsghdr; BATCH],
    parts: [libc::iovec; BATCH],
    names: [SocketName; BATCH],
    controls: [Control; BATCH],
}

// SAFETY: the pointers in it are written before each use and lead to memory of whoever uses it then; nobody follows
// them otherwise.
unsafe impl Send for BatchBuffers {}

impl BatchBuffers {
    fn new() -> Box<Self> {
        // SAFETY: the fields are integers, null pointers, and unions and arrays of integers, for which all zeroes is
        // valid.
        Box::new(unsafe { mem::zeroed() })
    }

    /// Makes header and name of one datagram those of one with no address and no control message, its octets in `part`.
    fn prepare(&mut self, index: usize, part: libc::iovec) {
        self.parts[index] = part;
        let header = &mut self.headers[index].msg_hdr;
        header.msg_iov = &raw mut self.parts[index];
        header.msg_iovlen = 1;
        header.msg_name = ptr::null_mut();
        header.msg_namelen = 0;
        header.msg_control = ptr::null_mut();
        header.msg_controllen = 0;
        header.msg_flags = 0;
    }
}

thread_local! {
    /// For sending.
    static FRAME: RefCell<Box<BatchBuffers>> = RefCell::new(BatchBuffers::new());
}

/// A received datagram.
pub(crate) struct Datagram<'a> {
    pub octets: &'a [u8],
    /// It was longer than the inbox takes; the rest is lost.
    pub is_cut: bool,
    /// As the socket names it: on a dual-stack socket an IPv4 client has an IPv4-mapped address.
    pub client: SocketAddr,
    /// The address it was sent to, likewise; only known of sockets with packet information.
    pub local: Option<IpAddr>,
}

#[derive(Clone, Copy)]
struct Arrival {
    length: usize,
    is_cut: bool,
    client: SocketAddr,
    local: Option<IpAddr>,
}

/// Receives batches into buffers of its own, which are used again by the next batch.
pub(crate) struct Inbox {
    /// Not zeroed, so that buffers which no batch has reached take no memory: few sockets ever have so many datagrams
    /// waiting.
    octets: Box<[MaybeUninit<u8>]>,
    /// Octets of the longest datagram.
    longest: usize,
    arrivals: Vec<Arrival>,
    origin: AddressDetail,
    frame: Box<BatchBuffers>,
}

/// What is to be told of a datagram beside its octets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AddressDetail {
    Nothing,
    Client,
    ClientAndLocal,
}

impl Inbox {
    /// For datagrams of at most `longest` octets. `wants_local`: the socket was given to
    /// [`request_packet_information`].
    pub(crate) fn new(longest: usize, wants_local: bool) -> Self {
        Self::of(longest, if wants_local { AddressDetail::ClientAndLocal } else { AddressDetail::Client })
    }

    /// The same for connected sockets, whose datagrams all come from where they are connected: [`Datagram::client`] is
    /// unspecified.
    pub(crate) fn of_connected(longest: usize) -> Self {
        Self::of(longest, AddressDetail::Nothing)
    }

    fn of(longest: usize, origin: AddressDetail) -> Self {
        let octets = Box::new_uninit_slice(BATCH * (longest + GAP));
        let mut inbox =
            Self { octets, longest, arrivals: Vec::with_capacity(BATCH), origin, frame: BatchBuffers::new() };
        inbox.prepare(BATCH);
        inbox
    }

    /// Makes the first `count` headers those of datagrams to be received.
    fn prepare(&mut self, count: usize) {
        let Self { octets, longest, origin, frame, .. } = self;
        for (index, buffer) in octets.chunks_exact_mut(*longest + GAP).take(count).enumerate() {
            frame.prepare(index, libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: *longest });
            let header = &mut frame.headers[index].msg_hdr;
            if *origin != AddressDetail::Nothing {
                header.msg_name = (&raw mut frame.names[index]).cast();
                header.msg_namelen = mem::size_of::<SocketName>() as _;
            }
            if *origin == AddressDetail::ClientAndLocal {
                header.msg_control = (&raw mut frame.controls[index]).cast();
                header.msg_controllen = mem::size_of::<Control>() as _;
            }
        }
    }

    /// Takes up to [`BATCH`] datagrams, without waiting, in place of those of the last call. Fewer than that: the
    /// socket was empty.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        // The kernel has written to no other headers than those of the last call's datagrams.
        self.prepare(self.arrivals.len());
        let Self { longest, arrivals, origin, frame, .. } = self;
        arrivals.clear();
        let received = retry(|| {
            // SAFETY: every header points to an iovec, a name and a control buffer of the stated sizes, which live in
            // `frame`, and through the iovec to `longest` octets of `self.octets`, which nobody else touches during the
            // call. Neither has moved since the headers were prepared, since both are boxed and stay with this inbox.
            unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    frame.headers.as_mut_ptr(),
                    BATCH as _,
                    libc::MSG_DONTWAIT as _,
                    ptr::null_mut(),
                )
            }
        })?;
        for (header, name) in frame.headers.iter().zip(&frame.names).take(received) {
            let (client, local) = match origin {
                AddressDetail::Nothing => (None, None),
                // SAFETY: the kernel has filled this header, name and control buffer.
                _ => unsafe { (read_name(name), read_packet_information(&header.msg_hdr)) },
            };
            arrivals.push(Arrival {
                length: (header.msg_len as usize).min(*longest),
                is_cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                // A datagram without a sender's address cannot come from an Internet socket; port 0 is answered
                // nowhere.
                client: client.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)),
                local,
            });
        }
        Ok(received)
    }

    /// The datagrams of the last [`Inbox::receive`].
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.arrivals.iter().enumerate().map(|(index, arrival)| Datagram {
            octets: self.octets(index),
            is_cut: arrival.is_cut,
            client: arrival.client,
            local: arrival.local,
        })
    }

    /// The octets of one of them.
    #[inline]
    pub(crate) fn octets(&self, index: usize) -> &[u8] {
        let length = self.arrivals.get(index).map_or(0, |arrival| arrival.length);
        let start = index * (self.longest + GAP);
        let received = self.octets.get(start..start + length).unwrap_or_default();
        // SAFETY: the kernel has written these octets of the buffer, all of them.
        unsafe { slice::from_raw_parts(received.as_ptr().cast(), received.len()) }
    }
}

/// Where a reply goes, and the address it comes from if the socket has no address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub to: SocketAddr,
    pub from: Option<IpAddr>,
}

/// A datagram to send.
pub(crate) struct Outgoing {
    /// `None`: to where the socket is connected.
    pub route: Option<Route>,
    pub octets: Vec<u8>,
}

/// Octets a buffer keeps for the next datagram.
const KEPT: usize = 4096;

/// Datagrams gathered to be sent together, in buffers that are used again.
pub(crate) struct Outbox {
    datagrams: Vec<Outgoing>,
    used: usize,
    /// Octets that a buffer begins with.
    room: usize,
}

impl Default for Outbox {
    /// For replies.
    fn default() -> Self {
        Self::of_short(512)
    }
}

impl Outbox {
    /// For datagrams most of which have no more than so many octets.
    pub(crate) fn of_short(room: usize) -> Self {
        Self { datagrams: Vec::new(), used: 0, room }
    }

    /// The buffer for the next datagram, empty.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.used == self.datagrams.len() {
            self.datagrams.push(Outgoing { route: None, octets: Vec::with_capacity(self.room) });
        }
        let octets = &mut self.datagrams[self.used].octets;
        octets.clear();
        octets
    }

    /// Keeps what was written to the buffer; nothing is no datagram.
    pub(crate) fn keep(&mut self, route: Option<Route>) {
        if let Some(datagram) = self.datagrams.get_mut(self.used)
            && !datagram.octets.is_empty()
        {
            datagram.route = route;
            self.used += 1;
        }
    }

    /// What is kept, in order.
    pub(crate) fn kept(&self) -> &[Outgoing] {
        &self.datagrams[..self.used]
    }

    /// Forgets what is kept but the datagrams from `done` on, which it gives back.
    pub(crate) fn clear(&mut self, done: usize) -> Vec<Outgoing> {
        let unsent = self.datagrams[done.min(self.used)..self.used].iter_mut();
        let unsent = unsent
            .map(|datagram| Outgoing { route: datagram.route, octets: std::mem::take(&mut datagram.octets) })
            .collect();
        for datagram in &mut self.datagrams[..self.used] {
            if datagram.octets.capacity() > KEPT {
                datagram.octets = Vec::new();
            }
        }
        self.used = 0;
        unsent
    }
}

/// Sends the first of `batch`, as many as one call takes, without waiting; tells how many were sent. An error is the
/// first one's.
pub(crate) fn send(socket: BorrowedFd<'_>, batch: &[Outgoing]) -> io::Result<usize> {
    FRAME.with_borrow_mut(|frame| {
        let count = batch.len().min(BATCH);
        for (index, outgoing) in batch.iter().take(count).enumerate() {
            // The kernel does not write to what is sent.
            let iov_base = outgoing.octets.as_ptr().cast_mut().cast();
            frame.prepare(index, libc::iovec { iov_base, iov_len: outgoing.octets.len() });
            let Some(route) = outgoing.route else { continue };
            let header = &mut frame.headers[index].msg_hdr;
            header.msg_namelen = write_name(route.to, &mut frame.names[index]) as _;
            header.msg_name = (&raw mut frame.names[index]).cast();
            if let Some(from) = route.from {
                frame.controls[index] = Control([0; 64]);
                header.msg_control = (&raw mut frame.controls[index]).cast();
                header.msg_controllen = mem::size_of::<Control>() as _;
                // SAFETY: the control buffer is there, zeroed, aligned, and larger than any packet information message.
                unsafe { write_packet_information(header, from) };
            }
        }
        retry(|| {
            // SAFETY: the first `count` headers point to iovecs, names and control buffers in `frame`, and to octets in
            // `batch`; all of them outlive the call.
            unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    frame.headers.as_mut_ptr(),
                    count as _,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            }
        })
    })
}

/// Has every datagram tell the address it was sent to, so that a socket on the unspecified address can answer from
/// there.
pub(crate) fn request_packet_information(socket: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// Has IPv4 datagrams that are too long for a packet not leave at all, EMSGSIZE, until [`allow_fragments`]:
/// IP_PMTUDISC_DO of ip(7) in place of IP_PMTUDISC_WANT. What is never fragmented needs no identification of its own
/// (RFC 6864 section 4.1); to choose one is 3 % of what a hit costs (measured: benches/README.md).
///
/// Where the node has path MTU discovery switched off (`net.ipv4.ip_no_pmtu_disc`) nothing changes: DF, which both set,
/// must not be set there. Only where a route's MTU is locked (`ip route … mtu lock`) does DF appear that was not there
/// before; a link beyond, with an MTU smaller still, drops such a reply.
pub(crate) fn forbid_fragments(socket: BorrowedFd<'_>) -> io::Result<()> {
    change_discovery(socket, libc::IP_PMTUDISC_WANT, libc::IP_PMTUDISC_DO)
}

/// Has the kernel fragment what is too long for a packet, from now on, if that was [forbidden](forbid_fragments).
pub(crate) fn allow_fragments(socket: BorrowedFd<'_>) -> io::Result<()> {
    change_discovery(socket, libc::IP_PMTUDISC_DO, libc::IP_PMTUDISC_WANT)
}

/// Sets path MTU discovery over IPv4 to `to` if it is `from`.
fn change_discovery(socket: BorrowedFd<'_>, from: libc::c_int, to: libc::c_int) -> io::Result<()> {
    if option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)? == from {
        set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, to)?;
    }
    Ok(())
}

/// Sets the receive buffer beyond net.core.rmem_max, which needs NET_ADMIN.
pub(crate) fn force_receive_buffer(socket: BorrowedFd<'_>, octets: usize) -> io::Result<()> {
    let octets = libc::c_int::try_from(octets).unwrap_or(libc::c_int::MAX);
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, octets)
}

/// How many packets the kernel has dropped that came to this socket, since its queue was full: datagrams, or at a
/// listener attempts to connect (SK_MEMINFO_DROPS of SO_MEMINFO, Linux 4.12). It wraps around at 2³².
pub(crate) fn dropped_packets(socket: BorrowedFd<'_>) -> io::Result<u64> {
    const SO_MEMINFO: libc::c_int = 55;
    const DROPS: usize = 8;
    let mut figures = [0_u32; DROPS + 1];
    let mut size = mem::size_of_val(&figures) as libc::socklen_t;
    // SAFETY: the pointers are those of `figures`, of which any octets are valid, and of its size.
    let outcome = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, figures.as_mut_ptr().cast(), &raw mut size)
    };
    if outcome == 0 { Ok(figures[DROPS].into()) } else { Err(io::Error::last_os_error()) }
}

/// Has the socket be found by no packet that comes from now on: it is bound to an interface of a number that no
/// interface gets (SO_BINDTOIFINDEX, Linux 5.0; without capabilities 5.7).
pub(crate) fn bind_to_no_interface(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, libc::c_int::MAX)
}

/// Whether packets that come to the socket pass a filter first (SO_GET_FILTER, Linux 3.8).
pub(crate) fn has_filter(socket: BorrowedFd<'_>) -> bool {
    let mut instructions: libc::socklen_t = 0;
    // SAFETY: with a size of zero the kernel writes nothing but the filter's length, into `instructions`.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_GET_FILTER,
            std::ptr::null_mut(),
            &raw mut instructions,
        )
    };
    outcome == 0 && instructions > 0
}

/// Registers a socket with the runtime whose context this is called in. For reading only: told of writing too, as
/// tokio's own socket is, the runtime would be woken by every datagram that leaves.
pub(crate) fn register(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: the registration owns the socket and lends it only by shared reference, so its descriptor stays open and
    // the same.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

fn set_option(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and the size are those of `value`.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn option(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut size = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointers are those of `value` and of its size.
    let outcome = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut size) };
    if outcome == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// # Safety
/// `name` is initialised for as long as its family says.
unsafe fn read_name(name: &SocketName) -> Option<SocketAddr> {
    // SAFETY: both variants begin with the family; the rest is read as the family says.
    unsafe {
        match libc::c_int::from(name.v4.sin_family) {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(u32::from_be(name.v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(name.v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(name.v6.sin6_addr.s6_addr);
                let port = u16::from_be(name.v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, name.v6.sin6_flowinfo, name.v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// Writes `address` into `name`; returns its length in octets.
fn write_name(address: SocketAddr, name: &mut SocketName) -> usize {
    match address {
        SocketAddr::V4(address) => {
            // SAFETY: `name` was zeroed once and every variant is integers, so each is initialised.
            let v4 = unsafe { &mut name.v4 };
            v4.sin_family = libc::AF_INET as _;
            v4.sin_port = address.port().to_be();
            v4.sin_addr.s_addr = u32::from(*address.ip()).to_be();
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(address) => {
            // SAFETY: as above.
            let v6 = unsafe { &mut name.v6 };
            v6.sin6_family = libc::AF_INET6 as _;
            v6.sin6_port = address.port().to_be();
            v6.sin6_addr.s6_addr = address.ip().octets();
            v6.sin6_flowinfo = address.flowinfo();
            v6.sin6_scope_id = address.scope_id();
            mem::size_of::<libc::sockaddr_in6>()
        }
    }
}

/// # Safety
/// `header` is as recvmmsg(2) left it, its control buffer still there.
unsafe fn read_packet_information(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the macros stay within msg_controllen, which the kernel has set; content is read unaligned, and only of
    // the type that the level and type of the message say.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(current) = message.as_ref() {
            match (current.cmsg_level, current.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let information: libc::in_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                    // The local address; that in the header may be a broadcast address, from which nothing can be sent.
                    let local = Ipv4Addr::from(u32::from_be(information.ipi_spec_dst.s_addr));
                    let header = Ipv4Addr::from(u32::from_be(information.ipi_addr.s_addr));
                    return Some(IpAddr::V4(if local.is_unspecified() { header } else { local }));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let information: libc::in6_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                    return Some(IpAddr::V6(Ipv6Addr::from(information.ipi6_addr.s6_addr)));
                }
                _ => message = libc::CMSG_NXTHDR(header, message),
            }
        }
        None
    }
}

/// Writes the message that sets the source address, the interface left to routing, and cuts the control length to it.
///
/// # Safety
/// `header` has a zeroed control buffer of the size of [`Control`].
unsafe fn write_packet_information(header: &mut libc::msghdr, from: IpAddr) {
    // SAFETY: CMSG_SPACE of either content is below the size of the control buffer.
    unsafe {
        let Some(message) = libc::CMSG_FIRSTHDR(header).as_mut() else { return };
        let length = match from {
            IpAddr::V4(from) => {
                let mut information: libc::in_pktinfo = mem::zeroed();
                information.ipi_spec_dst.s_addr = u32::from(from).to_be();
                message.cmsg_level = libc::IPPROTO_IP;
                message.cmsg_type = libc::IP_PKTINFO;
                ptr::write_unaligned(libc::CMSG_DATA(message).cast(), information);
                mem::size_of::<libc::in_pktinfo>()
            }
            IpAddr::V6(from) => {
                let mut information: libc::in6_pktinfo = mem::zeroed();
                information.ipi6_addr.s6_addr = from.octets();
                message.cmsg_level = libc::IPPROTO_IPV6;
                message.cmsg_type = libc::IPV6_PKTINFO;
                ptr::write_unaligned(libc::CMSG_DATA(message).cast(), information);
                mem::size_of::<libc::in6_pktinfo>()
            }
        };
        message.cmsg_len = libc::CMSG_LEN(length as _) as _;
        header.msg_controllen = libc::CMSG_SPACE(length as _) as _;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn socket(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        socket
    }

    #[test]
    fn a_batch_is_received_whole_with_lengths_and_senders() {
        let (server, client) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        for length in 1..=BATCH + 1 {
            client.send_to(&vec![length as u8; length], server.local_addr().unwrap()).unwrap();
        }
        let mut inbox = Inbox::new(MAX_QUERY, false);
        assert_eq!(inbox.receive(server.as_fd()).unwrap(), BATCH);
        for (index, datagram) in inbox.datagrams().enumerate() {
            assert_eq!(datagram.octets, vec![index as u8 + 1; index + 1]);
            assert_eq!(datagram.client, client.local_addr().unwrap());
            assert_eq!((datagram.is_cut, datagram.local), (false, None));
        }
        assert_eq!(inbox.receive(server.as_fd()).unwrap(), 1);
        assert_eq!(inbox.datagrams().count(), 1);
        assert_eq!(inbox.receive(server.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(inbox.datagrams().count(), 0);
    }

    #[test]
    fn a_datagram_beyond_the_longest_query_is_told() {
        let (server, client) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        client.send_to(&[1; MAX_QUERY], server.local_addr().unwrap()).unwrap();
        client.send_to(&[2; MAX_QUERY + 1], server.local_addr().unwrap()).unwrap();
        client.send_to(&[], server.local_addr().unwrap()).unwrap();
        let mut inbox = Inbox::new(MAX_QUERY, false);
        inbox.receive(server.as_fd()).unwrap();
        let seen: Vec<_> = inbox.datagrams().map(|datagram| (datagram.octets.len(), datagram.is_cut)).collect();
        assert_eq!(seen, [(MAX_QUERY, false), (MAX_QUERY, true), (0, false)]);
    }

    #[test]
    fn packet_information_tells_the_address_asked_and_sets_that_of_the_reply() {
        for (bind, asked) in [("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "::1"), ("[::]:0", "127.0.0.3")] {
            let server = socket(bind);
            request_packet_information(server.as_fd(), bind.starts_with('[')).unwrap();
            let asked: IpAddr = asked.parse().unwrap();
            let client = socket(if asked.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" });
            let target = SocketAddr::new(asked, server.local_addr().unwrap().port());
            client.send_to(b"ask", target).unwrap();
            let mut inbox = Inbox::new(MAX_QUERY, true);
            assert_eq!(inbox.receive(server.as_fd()).unwrap(), 1);
            let datagram = inbox.datagrams().next().unwrap();
            assert_eq!(datagram.local.map(|local| local.to_canonical()), Some(asked));
            let route = Some(Route { to: datagram.client, from: datagram.local });
            assert_eq!(send(server.as_fd(), &[Outgoing { route, octets: b"answer".to_vec() }]).unwrap(), 1);
            let mut buffer = [0; 16];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&b"answer"[..], target));
        }
    }

    #[test]
    fn a_batch_stops_before_a_destination_that_fails_and_the_failure_is_told_next() {
        let (server, client) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        let outgoing = |to: &str, octets: &[u8]| Outgoing {
            route: Some(Route { to: to.parse().unwrap(), from: None }),
            octets: octets.to_vec(),
        };
        let good = client.local_addr().unwrap().to_string();
        // Port 0 is EINVAL.
        let batch = [outgoing(&good, b"1"), outgoing("127.0.0.1:0", b"2"), outgoing(&good, b"3")];
        assert_eq!(send(server.as_fd(), &batch).unwrap(), 1);
        assert_eq!(send(server.as_fd(), &batch[1..]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(send(server.as_fd(), &batch[2..]).unwrap(), 1);
    }
}
