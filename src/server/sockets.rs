//! The bound DNS sockets, apart from who serves on them: opened here, or taken over from the process that did.

use super::closing;
use super::listen_addresses::ListenAddresses;
use crate::chain::Transport;
use crate::datagrams::{dropped_packets, forbid_fragments, force_receive_buffer, request_packet_information};
use crate::net::reachable_address;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Octets of a UDP socket's receive buffer: what arrives while a worker is busy, or while the process is being
/// replaced.
const UDP_RECEIVE_BUFFER: usize = 4 << 20;

/// Octets of a TCP connection's buffers in the kernel, instead of the megabytes it would grow them to for a client that
/// sends and never reads: one largest message and a bit.
const TCP_RECEIVE_BUFFER: usize = 64 << 10;
const TCP_SEND_BUFFER: usize = 128 << 10;

/// Connections that wait to be accepted; the kernel caps it with net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketUse {
    DnsUdp,
    DnsTcp,
    /// DNS within TLS or HTTP.
    DnsStream,
    Http,
}

impl fmt::Display for SocketUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DnsUdp => "DNS over UDP",
            Self::DnsTcp => "DNS over TCP",
            Self::DnsStream => "DNS over TLS or HTTPS",
            Self::Http => "HTTP",
        })
    }
}

/// Why there is no socket to serve on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("cannot listen on {address} for {usage}: {cause}{}", remedy(cause, *address, *usage))]
    Bind { address: SocketAddr, usage: SocketUse, cause: io::Error },
    #[error(
        "file descriptor {fd} was passed as a listening socket but is none: {cause}; pass bound UDP and listening TCP sockets only"
    )]
    NotListening { fd: i32, cause: io::Error },
    #[error("UDP sockets on {0} were passed without a TCP listener; pass both for every address")]
    NoTcpListener(SocketAddr),
    #[error("no sockets for {0}; bind them before the plan is applied")]
    NotBound(SocketAddr),
    #[error(
        "cannot serve on the sockets of {address}: {cause}; if open files are at their limit, raise it (`ulimit -n`)"
    )]
    Register { address: SocketAddr, cause: io::Error },
}

/// What to do about a failed bind, with the separator before it.
fn remedy(cause: &io::Error, address: SocketAddr, usage: SocketUse) -> String {
    let port = address.port();
    match cause.raw_os_error() {
        Some(libc::EADDRINUSE) if usage == SocketUse::Http => format!(
            "; another process holds it (`ss -lntp 'sport = :{port}'` names it): stop that one, or write another port in the Corefile \
             (`prometheus`, `health`, `ready`) or after -metrics-listen-address"
        ),
        Some(libc::EADDRINUSE) if usage == SocketUse::DnsStream => format!(
            "; another process holds it (`ss -lntp 'sport = :{port}'` names it): stop that one, or choose another address with \
             `bind` or another port"
        ),
        Some(libc::EADDRINUSE) => format!(
            "; another process holds it (`ss -lunpt 'sport = :{port}'` names it; often systemd-resolved, dnsmasq or another DNS \
             cache): stop that one, or choose another address with `bind` or another port"
        ),
        Some(libc::EACCES | libc::EPERM) if port < 1024 => {
            "; ports below 1024 need the capability NET_BIND_SERVICE (or a lower net.ipv4.ip_unprivileged_port_start): grant it, \
             or choose a port such as 1053"
                .to_owned()
        }
        Some(libc::EADDRNOTAVAIL) => {
            let place = if usage == SocketUse::Http { "the Corefile" } else { "`bind`" };
            format!("; no interface of this machine has the address {}: add it to one, or take it out of {place}", address.ip())
        }
        Some(libc::EAFNOSUPPORT) => "; this kernel has no such address family: take the address out of `bind`".to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => "; open files are at their limit: raise it (`ulimit -n`)".to_owned(),
        _ => String::new(),
    }
}

/// Sockets of one DNS listen address.
pub(super) struct DnsSockets {
    /// With SO_REUSEPORT: the kernel spreads clients over them, so all of them must be read. None where clients come
    /// over TCP alone.
    pub udp: Vec<UdpSocket>,
    pub tcp: TcpListener,
    /// Another process holds them too, and will read what waits in them when this one is gone.
    is_shared: AtomicBool,
}

impl DnsSockets {
    /// The other process will not read them any more: from now on they may be stopped.
    pub(super) fn claim(&self) {
        self.is_shared.store(false, Ordering::Relaxed);
    }

    /// Whether this or another process has had [`DnsSockets::stop_receiving`] done. Either may have failed for want of
    /// memory.
    fn is_stopped(&self) -> bool {
        closing::refuses_connections(self.tcp.as_fd()) || self.udp.iter().any(|socket| socket.peer_addr().is_ok())
    }

    /// Has the kernel deliver no more datagrams and connections here; those that wait can still be read, and replies
    /// sent. A UDP socket that is connected receives only from that peer; nobody answers from our own discard port.
    /// Left alone if another process holds the sockets too: what waits in them is then for that one to read.
    pub(super) fn stop_receiving(&self) {
        if self.is_shared.load(Ordering::Relaxed) {
            return;
        }
        for socket in &self.udp {
            let Ok(local) = socket.local_addr() else { continue };
            // Of the same family: an IPv4 peer would take the IPv6 half of a dual-stack socket away, and with it
            // replies still to be sent.
            let mut peer = reachable_address(local, local.is_ipv6());
            peer.set_port(9);
            if let Err(cause) = SockRef::from(socket).connect(&peer.into()) {
                tracing::debug!("datagrams may still arrive on {peer} while it is drained: {cause}");
            }
        }
        if let Err(cause) = closing::refuse_connections(self.tcp.as_fd()) {
            tracing::debug!("connections may still be made while their listener is drained: {cause}");
        }
    }
}

/// Bound sockets by address. Cloning shares them; they close when nobody holds or serves them any longer.
#[derive(Clone, Default)]
pub struct Sockets {
    pub(super) dns: BTreeMap<SocketAddr, Arc<DnsSockets>>,
    /// [`ListenAddresses::streams`]
    pub(super) streams: BTreeMap<SocketAddr, Arc<DnsSockets>>,
}

impl Sockets {
    /// Sockets for every address: those `previous` has, new ones for the others, as many UDP sockets as there are
    /// workers. All are opened before anything serves, so that a plan is applied whole or not at all. On failure all
    /// errors are told.
    ///
    /// SO_REUSEPORT is set on all, as the reference does: the pod of a rolling update binds while its predecessor still
    /// serves. The unspecified IPv6 address serves IPv4 too, as in the reference, and stands for the unspecified IPv4
    /// address where the kernel has no IPv6.
    pub fn bind(wanted: &ListenAddresses, workers: usize, previous: &Self) -> Result<Self, Vec<SocketError>> {
        let mut errors = Vec::new();
        let mut take =
            |addresses: &[SocketAddr], held, bind: &dyn Fn(SocketAddr) -> Result<DnsSockets, SocketError>| {
                let mut taken = BTreeMap::new();
                for address in addresses.iter().copied().collect::<BTreeSet<_>>() {
                    match find(held, address).map_or_else(|| bind(address).map(Arc::new), Ok) {
                        Ok(found) => _ = taken.insert(address, found),
                        Err(error) => errors.push(error),
                    }
                }
                taken
            };
        let dns = take(&wanted.dns, &previous.dns, &|address| bind_dns(address, workers));
        let streams = take(&wanted.streams, &previous.streams, &bind_stream);
        if errors.is_empty() { Ok(Self { dns, streams }) } else { Err(errors) }
    }

    /// Takes over what another process has bound. Each socket tells its own address and kind; a TCP listener without
    /// UDP sockets at its address is for DNS within TLS or HTTP.
    pub fn from_fds(fds: impl IntoIterator<Item = OwnedFd>) -> Result<Self, SocketError> {
        let mut udp: BTreeMap<SocketAddr, Vec<UdpSocket>> = BTreeMap::new();
        let mut tcp = BTreeMap::new();
        for fd in fds {
            let number = std::os::fd::AsRawFd::as_raw_fd(&fd);
            let not_listening = |cause| SocketError::NotListening { fd: number, cause };
            let socket = Socket::from(fd);
            let address = socket.local_addr().map_err(not_listening)?.as_socket();
            let address = address.ok_or_else(|| not_listening(io::Error::other("not an Internet socket")))?;
            let is_datagram = socket.r#type().map_err(not_listening)? == Type::DGRAM;
            if !is_datagram && !socket.is_listener().map_err(not_listening)? {
                return Err(not_listening(io::Error::other("a TCP socket that does not listen")));
            }
            socket.set_nonblocking(true).map_err(not_listening)?;
            socket.set_cloexec(true).map_err(not_listening)?;
            if is_datagram {
                tell_local_address(&socket, address).map_err(not_listening)?;
                udp.entry(address).or_default().push(socket.into());
            } else {
                tcp.insert(address, TcpListener::from(socket));
            }
        }
        let mut sockets = Self::default();
        for (address, udp) in udp {
            let tcp = tcp.remove(&address).ok_or(SocketError::NoTcpListener(address))?;
            sockets.dns.insert(address, Arc::new(DnsSockets { udp, tcp, is_shared: true.into() }));
        }
        let streams = tcp
            .into_iter()
            .map(|(address, tcp)| (address, Arc::new(DnsSockets { udp: Vec::new(), tcp, is_shared: true.into() })));
        sockets.streams.extend(streams);
        Ok(sockets)
    }

    /// All of them, to be passed to another process and taken over there by [`Sockets::from_fds`].
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all().flat_map(|sockets| sockets.udp.iter().map(AsFd::as_fd).chain([sockets.tcp.as_fd()]))
    }

    /// Sockets for every address: those `previous` has, else those of `received`, which another process has bound. On
    /// failure all errors are told.
    pub fn assemble(wanted: &ListenAddresses, received: &Self, previous: &Self) -> Result<Self, Vec<SocketError>> {
        let mut errors = Vec::new();
        let mut take = |addresses: &[SocketAddr], previous, received| {
            let mut taken = BTreeMap::new();
            for address in addresses {
                match find(previous, *address).or_else(|| find(received, *address)) {
                    Some(found) => _ = taken.insert(*address, found),
                    None => errors.push(SocketError::NotBound(*address)),
                }
            }
            taken
        };
        let dns = take(&wanted.dns, &previous.dns, &received.dns);
        let streams = take(&wanted.streams, &previous.streams, &received.streams);
        if errors.is_empty() { Ok(Self { dns, streams }) } else { Err(errors) }
    }

    /// Those of `wanted` for which there are no DNS sockets.
    pub fn lacking(&self, wanted: &ListenAddresses) -> ListenAddresses {
        let lacking = |addresses: &[SocketAddr], held| {
            addresses.iter().copied().filter(|address| find(held, *address).is_none()).collect()
        };
        ListenAddresses { dns: lacking(&wanted.dns, &self.dns), streams: lacking(&wanted.streams, &self.streams) }
    }

    /// The other process will not read them any more: from now on they may be stopped.
    pub fn claim(&self) {
        self.all().for_each(|sockets| sockets.claim());
    }

    /// Takes the sockets of `other` in, beside its own.
    pub fn join(&mut self, other: Self) {
        self.dns.extend(other.dns);
        self.streams.extend(other.streams);
    }

    /// Lets go of DNS sockets but those of `served`.
    pub fn retain(&mut self, served: &ListenAddresses) {
        self.dns.retain(|address, _| served.dns.contains(address));
        self.streams.retain(|address, _| served.streams.contains(address));
    }

    /// Lets go of DNS sockets that a process which holds them too has stopped ([`Sockets::claim`]): nothing arrives
    /// there any more.
    pub fn drop_stopped(&mut self) {
        for held in [&mut self.dns, &mut self.streams] {
            held.retain(|_, sockets| !sockets.is_stopped());
        }
    }

    /// Whether these are among them, at whichever address.
    pub(super) fn has(&self, sockets: &Arc<DnsSockets>) -> bool {
        self.all().any(|held| Arc::ptr_eq(held, sockets))
    }

    /// Those of an address over UDP and TCP, or over TCP alone.
    pub(super) fn get(&self, address: &SocketAddr, is_plain: bool) -> Option<&Arc<DnsSockets>> {
        if is_plain { &self.dns } else { &self.streams }.get(address)
    }

    /// Where a client on this machine reaches the DNS sockets of `address`: for the unspecified address the loopback
    /// one, that of IPv4 if there is a choice, since an interface may have IPv6 switched off.
    pub fn reachable(&self, address: SocketAddr) -> SocketAddr {
        let is_only_v6 = |sockets: Arc<DnsSockets>| SockRef::from(&sockets.tcp).only_v6().unwrap_or(false);
        reachable_address(address, find(&self.dns, address).is_some_and(is_only_v6))
    }

    /// How many packets the kernel has dropped that came to the DNS sockets a client reaches at `address`, since their
    /// queues were full: those bound there, and those on the unspecified address with its port. `None` if the kernel
    /// does not tell.
    pub fn dropped_packets(&self, address: SocketAddr, transport: Transport) -> Option<u64> {
        let is_reached =
            |bound: &SocketAddr| *bound == address || bound.ip().is_unspecified() && bound.port() == address.port();
        let mut sum = 0_u64;
        for (_, sockets) in self.dns.iter().filter(|(bound, _)| is_reached(bound)) {
            let dropped = match transport {
                Transport::Udp => sockets.udp.iter().map(|socket| dropped_packets(socket.as_fd())).sum(),
                Transport::Tcp => dropped_packets(sockets.tcp.as_fd()),
            };
            sum = sum.saturating_add(dropped.ok()?);
        }
        Some(sum)
    }

    /// Addresses that serve DNS.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.dns.keys().chain(self.streams.keys()).copied()
    }

    /// Those of all addresses.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<DnsSockets>> {
        self.dns.values().chain(self.streams.values())
    }
}

/// What is bound for `address`, be it that of the other family which stands for it.
fn find<T>(bound: &BTreeMap<SocketAddr, Arc<T>>, address: SocketAddr) -> Option<Arc<T>> {
    bound.get(&address).or_else(|| bound.get(&without_ipv6(address)?).filter(|_| !has_ipv6())).cloned()
}

/// Whether this kernel has IPv6, and [`open`] so opens IPv6 sockets.
fn has_ipv6() -> bool {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let opened = Socket::new(Domain::IPV6, Type::DGRAM, None).and_then(|socket| socket.bind(&any.into()));
    !opened.is_err_and(|cause| lacks_ipv6(&cause))
}

/// Whether a failure to open an IPv6 socket is for want of IPv6.
fn lacks_ipv6(cause: &io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// The unspecified IPv4 address in place of the unspecified IPv6 one.
fn without_ipv6(address: SocketAddr) -> Option<SocketAddr> {
    (address.is_ipv6() && address.ip().is_unspecified())
        .then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
}

fn bind_dns(address: SocketAddr, workers: usize) -> Result<DnsSockets, SocketError> {
    let udp = (0..workers.max(1)).map(|_| bind_udp(address)).collect::<Result<_, _>>()?;
    Ok(DnsSockets { udp, tcp: bind_tcp(address, SocketUse::DnsTcp)?, is_shared: false.into() })
}

fn bind_stream(address: SocketAddr) -> Result<DnsSockets, SocketError> {
    Ok(DnsSockets { udp: Vec::new(), tcp: bind_tcp(address, SocketUse::DnsStream)?, is_shared: false.into() })
}

fn bind_udp(address: SocketAddr) -> Result<UdpSocket, SocketError> {
    open(address, SocketUse::DnsUdp, |socket, address| {
        // Best effort: a smaller buffer serves as well until it overflows.
        if force_receive_buffer(socket.as_fd(), UDP_RECEIVE_BUFFER).is_err() {
            _ = socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER);
        }
        // Best effort too: replies are cheaper so. Sockets that are taken over stay as they are, since their other
        // process still sends from them.
        _ = forbid_fragments(socket.as_fd());
        tell_local_address(socket, address)?;
        socket.bind(&address.into())
    })
    .map(UdpSocket::from)
}

/// A listener for HTTP. SO_REUSEPORT as for DNS.
pub(super) fn bind_http(address: SocketAddr) -> Result<TcpListener, SocketError> {
    bind_tcp(address, SocketUse::Http)
}

fn bind_tcp(address: SocketAddr, usage: SocketUse) -> Result<TcpListener, SocketError> {
    open(address, usage, |socket, address| {
        socket.set_reuse_address(true)?;
        if usage != SocketUse::Http {
            _ = socket.set_recv_buffer_size(TCP_RECEIVE_BUFFER);
            _ = socket.set_send_buffer_size(TCP_SEND_BUFFER);
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)
    })
    .map(TcpListener::from)
}

/// On the unspecified address a reply must name the address that was asked, or the client would not know it for an
/// answer.
fn tell_local_address(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.ip().is_unspecified() { request_packet_information(socket.as_fd(), address.is_ipv6()) } else { Ok(()) }
}

/// A socket made ready by `prepare`, which is given the address to bind.
fn open(
    address: SocketAddr,
    usage: SocketUse,
    prepare: impl Fn(&Socket, SocketAddr) -> io::Result<()>,
) -> Result<Socket, SocketError> {
    let open = |address: SocketAddr| -> io::Result<Socket> {
        let (kind, protocol) = match usage {
            SocketUse::DnsUdp => (Type::DGRAM, Protocol::UDP),
            SocketUse::DnsTcp | SocketUse::DnsStream | SocketUse::Http => (Type::STREAM, Protocol::TCP),
        };
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() && address.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        prepare(&socket, address)?;
        Ok(socket)
    };
    let opened = open(address).or_else(|cause| match without_ipv6(address) {
        Some(instead) if lacks_ipv6(&cause) => open(instead),
        _ => Err(cause),
    });
    opened.map_err(|cause| SocketError::Bind { address, usage, cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::free_port;

    fn listen<const N: usize>(dns: [SocketAddr; N]) -> ListenAddresses {
        dns.into_iter().collect()
    }

    fn free() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], free_port()))
    }

    #[test]
    fn an_address_of_the_previous_sockets_keeps_them() {
        let (first, second) = (free(), free());
        let before = Sockets::bind(&listen([first]), 2, &Sockets::default()).unwrap();
        let after = Sockets::bind(&listen([first, second]), 2, &before).unwrap();
        assert!(Arc::ptr_eq(&before.dns[&first], &after.dns[&first]));
        assert_eq!(after.dns[&second].udp.len(), 2);
        assert_eq!(after.fds().count(), 6);
    }

    #[test]
    fn every_failed_bind_is_told_with_what_to_do() {
        // Another process may have the port over TCP.
        let free_over_tcp = |holder: &UdpSocket| TcpListener::bind(holder.local_addr().unwrap()).is_ok();
        let holders = std::iter::repeat_with(|| UdpSocket::bind("127.0.0.1:0").unwrap());
        let holder = holders.take(100).find(free_over_tcp).unwrap();
        let taken = holder.local_addr().unwrap();
        let nowhere: SocketAddr = "192.0.2.1:1053".parse().unwrap();
        let Err(mut errors) = Sockets::bind(&listen([taken, nowhere]), 1, &Sockets::default()) else { panic!("bound") };
        errors.extend([taken, nowhere].map(|address| bind_http(address).err()).into_iter().flatten());
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3, "the port is free for TCP");
        assert!(
            texts[0].starts_with(&format!("cannot listen on {taken} for DNS over UDP: Address already in use")),
            "{}",
            texts[0]
        );
        assert!(texts[0].contains(&format!("sport = :{}", taken.port())), "{}", texts[0]);
        assert!(texts[1].contains("no interface of this machine has the address 192.0.2.1"), "{}", texts[1]);
        assert!(texts[2].contains("192.0.2.1:1053 for HTTP"), "{}", texts[2]);
    }

    #[test]
    fn a_privileged_port_asks_for_the_capability() {
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        assert!(remedy(&denied, "127.0.0.1:53".parse().unwrap(), SocketUse::DnsUdp).contains("NET_BIND_SERVICE"));
        assert_eq!(remedy(&denied, "127.0.0.1:5300".parse().unwrap(), SocketUse::DnsUdp), "");
    }

    #[test]
    fn passed_descriptors_tell_their_own_addresses() {
        let dns = free();
        let bound = Sockets::bind(&listen([dns]), 3, &Sockets::default()).unwrap();
        let taken = Sockets::from_fds(bound.fds().map(|fd| fd.try_clone_to_owned().unwrap())).unwrap();
        assert_eq!(taken.dns[&dns].udp.len(), 3);
        assert!(taken.dns[&dns].is_shared.load(Ordering::Relaxed));
    }

    #[test]
    fn passed_descriptors_that_cannot_serve_are_refused() {
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert!(matches!(Sockets::from_fds([file]), Err(SocketError::NotListening { .. })));
        let unbound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(matches!(Sockets::from_fds([unbound.into()]), Err(SocketError::NotListening { .. })));
        let lonely = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(matches!(Sockets::from_fds([lonely]), Err(SocketError::NoTcpListener(_))));
        let lonely = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = lonely.local_addr().unwrap();
        let streams = Sockets::from_fds([OwnedFd::from(lonely)]).unwrap();
        assert!(streams.dns.is_empty() && streams.streams.contains_key(&address), "for TLS or HTTP");
    }

    #[test]
    fn what_was_received_is_assembled_with_what_is_served_and_only_the_rest_is_lacking() {
        let (kept, new) = (free(), free());
        let dup = |sockets: &Sockets| {
            Sockets::from_fds(sockets.fds().map(|fd| fd.try_clone_to_owned().unwrap()).collect::<Vec<_>>()).unwrap()
        };
        let watchdog = Sockets::bind(&listen([kept, new]), 1, &Sockets::default()).unwrap();
        let previous = dup(&Sockets::bind(&listen([kept]), 1, &watchdog).unwrap());
        assert_eq!(previous.lacking(&listen([kept, new])), listen([new]));
        let received = dup(&watchdog);
        let assembled = Sockets::assemble(&listen([kept, new]), &received, &previous).unwrap();
        assert!(Arc::ptr_eq(&assembled.dns[&kept], &previous.dns[&kept]));
        assert!(Arc::ptr_eq(&assembled.dns[&new], &received.dns[&new]));
        let Err(errors) = Sockets::assemble(&listen([kept, new]), &Sockets::default(), &previous) else {
            panic!("assembled")
        };
        assert!(matches!(errors[..], [SocketError::NotBound(missing)] if missing == new));
    }

    #[test]
    fn a_stream_is_another_thing_than_dns_at_the_same_address() {
        let at = free();
        let streams =
            |streams: &[SocketAddr]| ListenAddresses { streams: streams.to_vec(), ..ListenAddresses::default() };
        let plain = Sockets::bind(&listen([at]), 1, &Sockets::default()).unwrap();
        assert_eq!(plain.lacking(&streams(&[at])), streams(&[at]));
        let mut held = Sockets::bind(&streams(&[at]), 1, &plain).unwrap();
        assert_eq!((held.fds().count(), held.dns.len()), (1, 0), "no UDP");
        assert!(Sockets::assemble(&listen([at]), &held, &Sockets::default()).is_err());
        let taken = Sockets::from_fds(held.fds().map(|fd| fd.try_clone_to_owned().unwrap())).unwrap();
        assert_eq!(taken.lacking(&streams(&[at])), ListenAddresses::default());
        held.drop_stopped();
        held.join(plain);
        held.retain(&listen([at]));
        assert_eq!((held.dns.len(), held.streams.len()), (1, 0));
    }

    #[test]
    fn shared_sockets_stop_only_when_claimed_and_the_other_process_sees_it() {
        let (first, second) = (free(), free());
        let mut held = Sockets::bind(&listen([first, second]), 1, &Sockets::default()).unwrap();
        let passed =
            Sockets::from_fds(held.fds().map(|fd| fd.try_clone_to_owned().unwrap()).collect::<Vec<_>>()).unwrap();
        passed.dns[&first].stop_receiving();
        held.drop_stopped();
        assert_eq!(held.addresses().count(), 2, "another process reads them on");
        passed.claim();
        passed.dns[&first].stop_receiving();
        held.drop_stopped();
        assert_eq!(held.addresses().collect::<Vec<_>>(), [second]);
    }

    #[test]
    fn streams_that_another_process_has_stopped_are_let_go_of() {
        let (stopped, served) = (free(), free());
        let streams = ListenAddresses { streams: vec![stopped, served], ..ListenAddresses::default() };
        let mut held = Sockets::bind(&streams, 1, &Sockets::default()).unwrap();
        let passed = Sockets::from_fds(held.fds().map(|fd| fd.try_clone_to_owned().unwrap())).unwrap();
        passed.claim();
        passed.streams[&stopped].stop_receiving();
        held.drop_stopped();
        assert_eq!(held.addresses().collect::<Vec<_>>(), [served]);
    }

    #[test]
    fn an_unspecified_address_is_reached_through_loopback() {
        let port = free().port();
        let everywhere = SocketAddr::new("::".parse().unwrap(), port);
        let sockets = Sockets::bind(&listen([everywhere]), 1, &Sockets::default()).unwrap();
        assert_eq!(sockets.reachable(everywhere), SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        let one = free();
        assert_eq!(sockets.reachable(one), one);
    }

    #[test]
    fn a_socket_that_stopped_receiving_keeps_what_waits_and_can_still_reply() {
        for (bind, asked) in [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1")]
        {
            let port = free().port();
            let (bind, asked) =
                (SocketAddr::new(bind.parse().unwrap(), port), SocketAddr::new(asked.parse().unwrap(), port));
            let old = Sockets::bind(&listen([bind]), 1, &Sockets::default()).unwrap();
            let old = &old.dns[&bind];
            let client = UdpSocket::bind(if asked.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
            client.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            client.send_to(b"early", asked).unwrap();
            old.stop_receiving();
            let new = Sockets::bind(&listen([bind]), 1, &Sockets::default()).unwrap();
            for _ in 0..20 {
                client.send_to(b"late", asked).unwrap();
            }
            let mut inbox = crate::datagrams::Inbox::new(512, bind.ip().is_unspecified());
            assert_eq!(inbox.receive(new.dns[&bind].udp[0].as_fd()).unwrap(), 20, "{bind}");
            assert_eq!(inbox.receive(old.udp[0].as_fd()).unwrap(), 1, "{bind}");
            let early = inbox.datagrams().next().unwrap();
            assert_eq!(early.octets, b"early");
            let route = Some(crate::datagrams::Route { to: early.client, from: early.local });
            let reply = crate::datagrams::Outgoing { route, octets: b"answer".to_vec() };
            assert_eq!(crate::datagrams::send(old.udp[0].as_fd(), &[reply]).unwrap(), 1);
            let mut buffer = [0; 16];
            assert_eq!(client.recv_from(&mut buffer).unwrap(), (6, asked), "{bind}");
        }
    }
}
