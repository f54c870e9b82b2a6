//! The kernel of one node, as far as a DNS packet sees it: the raw hooks, connection tracking, kube-proxy's DNAT, the
//! link, and sockets with their buffers. Rules are the real ones, from `node::desired()`.
//!
//! What it leaves out: fragments, the filter table, and that a TCP connection is more than one packet each way.

use crate::faults::Scene;
use nodelocaldns::node::{Hook, OptionalMatches, PacketEnd, Rule, TransportProtocol};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// nf_conntrack_udp_timeout and nf_conntrack_udp_timeout_stream: of a connection without and with packets both ways.
const UNREPLIED: Duration = Duration::from_secs(30);
const REPLIED: Duration = Duration::from_secs(120);

/// A lease lasts while so many probes to the address were seen within so long (`src/node/iptables/narrowing.rs`).
const LEASE_PROBES: usize = 2;
pub const LEASE: Duration = Duration::from_secs(1);

/// Packets that a socket's buffer holds here; the real ones hold thousands.
const BUFFER: usize = 4096;

/// Addresses on and around the node.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub cluster_ip: IpAddr,
    pub link_local: IpAddr,
    /// Another Service of KubeDNS, which nobody intercepts.
    pub upstream: IpAddr,
    /// The one pod of KubeDNS.
    pub kube_dns: IpAddr,
    pub pod: IpAddr,
    pub node: IpAddr,
}

pub const DNS: u16 = 53;

/// From which network namespace a packet comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Pod,
    Host,
}

#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub protocol: TransportProtocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub mark: u32,
}

/// Where a query has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Into the buffer of a socket of this agent.
    Socket(u32),
    /// KubeDNS, whose answer the client sees come from this address.
    KubeDns(SocketAddr),
    Nobody,
}

type Tuple = (TransportProtocol, SocketAddr, SocketAddr);

#[derive(Clone, Copy, Debug)]
struct Connection {
    from: SocketAddr,
    to: SocketAddr,
    /// `to` after nat; the connection's other tuple is from here to `from`.
    translated: SocketAddr,
    /// Its connection mark has the fallback's bit.
    is_shadow: bool,
    expires: Instant,
}

/// A listening socket and what waits in its buffer.
pub struct Socket<T> {
    pub agent: u32,
    pub protocol: TransportProtocol,
    pub address: IpAddr,
    /// Closed to new packets, while those in the buffer can still be read.
    pub is_draining: bool,
    pub buffer: VecDeque<T>,
}

/// Everything that outlives processes, and what goes with them. `T` is what waits in buffers.
pub struct Kernel<T> {
    pub addresses: Addresses,
    /// The link is there and has its addresses.
    pub has_link: bool,
    /// nftables tables, each with the agent that owns it.
    owned: HashMap<u32, Vec<Rule>>,
    /// Table raw of iptables.
    iptables: Vec<Rule>,
    /// What narrows the rules of iptables.
    pub matches: OptionalMatches,
    /// The list of `-m recent`: when the latest probes over UDP to each address met their rule.
    probed: HashMap<IpAddr, VecDeque<Instant>>,
    /// kube-proxy balances by IPVS, which takes packets for a Service's address whether they are tracked or not.
    pub is_ipvs: bool,
    /// The table that sends queries for the link-local address to the upstream Service unless they are untracked.
    pub has_fallback: bool,
    pub sockets: Vec<Socket<T>>,
    connections: Vec<Connection>,
    /// Both tuples of each.
    tuples: HashMap<Tuple, usize>,
}

impl<T> Kernel<T> {
    pub fn new(addresses: Addresses, matches: OptionalMatches, is_ipvs: bool) -> Self {
        Self {
            addresses,
            has_link: false,
            owned: HashMap::new(),
            iptables: Vec::new(),
            matches,
            probed: HashMap::new(),
            is_ipvs,
            has_fallback: false,
            sockets: Vec::new(),
            connections: Vec::new(),
            tuples: HashMap::new(),
        }
    }

    /// Where a packet to `address` from `place` says it comes from: routing prefers the address itself where that is
    /// local.
    pub fn source(&self, place: Place, address: IpAddr, port: u16) -> SocketAddr {
        let ip = match place {
            Place::Pod => self.addresses.pod,
            Place::Host if self.is_local(address) => address,
            Place::Host => self.addresses.node,
        };
        SocketAddr::new(ip, port)
    }

    /// A query on its way; `parcel` is what a socket gets of it.
    pub fn send_query(&mut self, mut packet: Packet, place: Place, parcel: T, now: Instant) -> Arrival {
        if self.is_ipvs && packet.destination == SocketAddr::new(self.addresses.cluster_ip, DNS) {
            return Arrival::KubeDns(packet.destination);
        }
        let hook = if place == Place::Pod { Hook::RawPrerouting } else { Hook::RawOutput };
        let is_untracked = self.is_untracked(hook, &packet, now);
        self.note_probe(hook, &packet, now);
        if is_untracked {
            return self.deliver(packet, packet.destination, parcel);
        }
        // Priority -299, after raw's -300; the bit that it sets in the mark is in the connection mark from -150 on.
        let is_shadow = self.has_fallback && packet.destination == SocketAddr::new(self.addresses.link_local, DNS);
        if is_shadow {
            packet.destination.set_ip(self.addresses.upstream);
        }
        let translated = self.track_query(&packet, is_shadow, now);
        self.deliver(packet, translated, parcel)
    }

    /// A reply of a process on this node. The address that the client sees it come from; none if the client cannot make
    /// anything of it.
    pub fn send_reply(&mut self, packet: Packet, now: Instant) -> Option<SocketAddr> {
        if self.is_untracked(Hook::RawOutput, &packet, now) {
            return Some(packet.source);
        }
        let (own, opposite) = (
            (packet.protocol, packet.source, packet.destination),
            (packet.protocol, packet.destination, packet.source),
        );
        if let Some(connection) = self.connection(own, now) {
            connection.expires = now + REPLIED;
            return Some(packet.source);
        }
        if self.connection(opposite, now).is_some() {
            // nat would have to give the reply another source port, since its tuple is taken.
            return None;
        }
        // To conntrack this reply begins a connection, and the client's next query belongs to it: nat is not asked, the
        // client is kept.
        let (from, to) = (packet.source, packet.destination);
        self.remember(
            packet.protocol,
            Connection { from, to, translated: to, is_shadow: false, expires: now + UNREPLIED },
        );
        Some(packet.source)
    }

    /// The nftables table of `agent` holds exactly these.
    pub fn own(&mut self, agent: u32, rules: Vec<Rule>) {
        self.owned.insert(agent, rules.into_iter().filter(|rule| rule.hook.is_raw()).collect());
    }

    /// The netlink socket of `agent` is closed.
    pub fn disown(&mut self, agent: u32) {
        self.owned.remove(&agent);
    }

    /// The rules of iptables in table raw are these; where others may need them, others stay.
    pub fn restore(&mut self, rules: &[Rule], is_alone: bool) {
        if is_alone {
            self.iptables.clear();
        }
        let missing: Vec<Rule> =
            rules.iter().filter(|rule| rule.hook.is_raw() && !self.iptables.contains(rule)).copied().collect();
        self.iptables.extend(missing);
    }

    /// Somebody empties the tables that have no owner; the list of the lease goes with the last rule that names it.
    pub fn flush(&mut self) {
        self.iptables.clear();
        self.probed.clear();
        self.has_fallback = false;
    }

    /// Link, rules and fallback are there.
    pub fn has_everything(&self, scene: &Scene) -> bool {
        let has_rules = !self.owned.is_empty() || !self.iptables.is_empty();
        self.has_link && has_rules && self.has_fallback == scene.has_fallback
    }

    /// Every connection has expired.
    pub fn forget_connections(&mut self) {
        self.connections.clear();
        self.tuples.clear();
    }

    /// A listening socket for `agent`.
    pub fn bind(&mut self, agent: u32, protocol: TransportProtocol, address: IpAddr) {
        self.sockets.push(Socket { agent, protocol, address, is_draining: false, buffer: VecDeque::new() });
    }

    /// Closes all sockets of `agent`; what waited in them is lost.
    pub fn close(&mut self, agent: u32) {
        self.sockets.retain(|socket| socket.agent != agent);
    }

    fn is_local(&self, address: IpAddr) -> bool {
        self.has_link && (address == self.addresses.cluster_ip || address == self.addresses.link_local)
    }

    fn is_untracked(&self, hook: Hook, packet: &Packet, now: Instant) -> bool {
        let counts = |rule: &Rule| {
            let needs_socket = self.matches.socket && hook == Hook::RawPrerouting;
            let needs_lease = self.matches.recent && rule.end == PacketEnd::Destination && rule.mark.is_none();
            (!needs_socket || self.has_socket(packet)) && (!needs_lease || self.has_lease(rule.address, now))
        };
        self.owned.values().flatten().any(|rule| applies(rule, hook, packet))
            || self.iptables.iter().any(|rule| applies(rule, hook, packet) && counts(rule))
    }

    fn note_probe(&mut self, hook: Hook, packet: &Packet, now: Instant) {
        let is_renewal = |rule: &&Rule| rule.mark.is_some() && rule.protocol == TransportProtocol::Udp;
        if self.iptables.iter().filter(is_renewal).any(|rule| applies(rule, hook, packet)) {
            let times = self.probed.entry(packet.destination.ip()).or_default();
            if times.len() == LEASE_PROBES {
                times.pop_front();
            }
            times.push_back(now);
        }
    }

    fn has_lease(&self, address: IpAddr, now: Instant) -> bool {
        let times = self.probed.get(&address);
        times.is_some_and(|times| times.len() == LEASE_PROBES && times.front().is_some_and(|at| now - *at <= LEASE))
    }

    fn has_socket(&self, packet: &Packet) -> bool {
        self.sockets.iter().any(|socket| is_open(socket, packet.protocol, packet.destination.ip()))
    }

    /// Where conntrack and nat send a query.
    fn track_query(&mut self, packet: &Packet, is_shadow: bool, now: Instant) -> SocketAddr {
        let tuple = (packet.protocol, packet.source, packet.destination);
        if let Some(connection) = self.connection(tuple, now) {
            connection.expires = now + REPLIED;
            connection.is_shadow |= is_shadow;
            let is_reply = connection.from == packet.destination && connection.translated == packet.source;
            return if is_reply { packet.destination } else { connection.translated };
        }
        let Addresses { cluster_ip, upstream, kube_dns, .. } = self.addresses;
        let is_service = [cluster_ip, upstream].map(|ip| SocketAddr::new(ip, DNS)).contains(&packet.destination);
        let translated = if is_service { SocketAddr::new(kube_dns, DNS) } else { packet.destination };
        let (from, to) = (packet.source, packet.destination);
        self.remember(packet.protocol, Connection { from, to, translated, is_shadow, expires: now + UNREPLIED });
        translated
    }

    fn deliver(&mut self, packet: Packet, to: SocketAddr, parcel: T) -> Arrival {
        if to.ip() == self.addresses.kube_dns {
            // It answers; nat and the fallback's chains write the source address back.
            let tuple = (packet.protocol, packet.source, packet.destination);
            let is_shadow = self.tuples.get(&tuple).is_some_and(|index| self.connections[*index].is_shadow);
            let ip = if is_shadow && self.has_fallback { self.addresses.link_local } else { packet.destination.ip() };
            return Arrival::KubeDns(SocketAddr::new(ip, DNS));
        }
        if !self.is_local(to.ip()) {
            return Arrival::Nobody;
        }
        // SO_REUSEPORT: by the client's address and port.
        let mut open: Vec<&mut Socket<T>> =
            self.sockets.iter_mut().filter(|socket| is_open(socket, packet.protocol, to.ip())).collect();
        let count = open.len().max(1);
        let Some(socket) = open.get_mut(usize::from(packet.source.port()) % count) else { return Arrival::Nobody };
        if socket.buffer.len() < BUFFER {
            socket.buffer.push_back(parcel);
        }
        Arrival::Socket(socket.agent)
    }

    fn connection(&mut self, tuple: Tuple, now: Instant) -> Option<&mut Connection> {
        let index = *self.tuples.get(&tuple)?;
        Some(&mut self.connections[index]).filter(|connection| connection.expires > now)
    }

    fn remember(&mut self, protocol: TransportProtocol, connection: Connection) {
        let index = self.connections.len();
        self.connections.push(connection);
        self.tuples.insert((protocol, connection.from, connection.to), index);
        self.tuples.insert((protocol, connection.translated, connection.from), index);
    }
}

fn applies(rule: &Rule, hook: Hook, packet: &Packet) -> bool {
    let end = match rule.end {
        PacketEnd::Source => packet.source,
        PacketEnd::Destination => packet.destination,
    };
    rule.hook == hook
        && end.port() == rule.port
        && rule.protocol == packet.protocol
        && end.ip() == rule.address
        && rule.mark.is_none_or(|mark| packet.mark & mark == mark)
}

fn is_open<T>(socket: &Socket<T>, protocol: TransportProtocol, address: IpAddr) -> bool {
    socket.protocol == protocol && socket.address == address && !socket.is_draining
}
