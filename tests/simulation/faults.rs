//! What goes wrong, when, and for how long a client may then be without an answer: the fault table as data.

use crate::client::Stream;
use crate::kernel::{Addresses, LEASE, Place};
use fastrand::Rng;
use nodelocaldns::node::{OptionalMatches, TransportProtocol};
use nodelocaldns::watchdog::state::Timing;
use std::net::IpAddr;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

// What the fault table grants, in its own numbers and not the machine's.

/// Until KubeDNS answers in the place of a server that does not come back.
const TAKEOVER: Duration = Duration::from_millis(100);

/// Until a server that hangs is replaced.
const HANG: Duration = Duration::from_millis(700);

/// How long an answer to a probe may be on its way while probes are slow.
pub const SLOWEST_PROBE: Duration = Duration::from_millis(600);

/// Until it is known that one address or protocol is not served, also when the watchdog could not look meanwhile
/// (src/watchdog/README.md).
const PART_HANGS: Duration = Duration::from_secs(2);

/// Until what somebody has changed on the node is mended.
pub const MENDING: Duration = Duration::from_millis(100);

/// What holds the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A table that goes with its owner.
    Nftables,
    /// Rules that outlive us, narrowed by what matches there are.
    Iptables(OptionalMatches),
}

impl Backend {
    /// What narrows rules of iptables, of which there are none beside nftables.
    pub fn matches(self) -> OptionalMatches {
        match self {
            Self::Nftables => OptionalMatches::NONE,
            Self::Iptables(matches) => matches,
        }
    }

    /// The longest that setting rules takes.
    pub fn settling(self) -> Duration {
        match self {
            Self::Nftables => 3 * MS,
            Self::Iptables(_) => 25 * MS,
        }
    }
}

/// The node of one run.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    pub backend: Backend,
    pub addresses: Addresses,
    /// The ClusterIP is IPVS's: its queries cannot be had, whatever the rules say.
    pub is_ipvs: bool,
    /// The kernel can hold the fallback of the link-local address.
    pub has_fallback: bool,
    /// How long kubelet takes to start an agent after one has ended.
    pub restart: Duration,
}

impl Scene {
    pub fn draw(rng: &mut Rng) -> Self {
        let v4 = ["10.96.0.10", "169.254.20.10", "10.96.0.11", "10.244.1.5", "10.244.0.7", "192.0.2.1"];
        let v6 = ["fd00:96::a", "fd00:20::a", "fd00:96::b", "fd00:244:1::5", "fd00:244::7", "2001:db8::1"];
        let texts = if rng.bool() { v4 } else { v6 };
        let [cluster_ip, link_local, upstream, kube_dns, pod, node] =
            texts.map(|text| text.parse().expect("an address"));
        let backend = match rng.u8(..10) {
            0..7 => Backend::Nftables,
            _ => Backend::Iptables(OptionalMatches { socket: rng.u8(..4) > 0, recent: rng.u8(..4) > 0 }),
        };
        let has_fallback = backend == Backend::Nftables || rng.bool();
        Self {
            backend,
            addresses: Addresses { cluster_ip, link_local, upstream, kube_dns, pod, node },
            is_ipvs: rng.u8(..6) == 0,
            has_fallback,
            // Where there is a lease, also longer than that.
            restart: MS * rng.u32(50..if backend.matches().recent { 2500 } else { 800 }),
        }
    }
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ServerKilled,
    ServerExits,
    ServerTalksNonsense,
    ServerStopped,
    /// The server is killed, and each that is started ends at once.
    StartsFail,
    /// The same, and each that is started comes to nothing.
    StartsHang,
    /// The same, and each that is started takes its time.
    StartsSlow,
    ForkFails,
    /// Servers do not read what comes to one address over one protocol.
    Deaf(IpAddr, TransportProtocol),
    /// Servers answer there, and not as ours do.
    Wrong(IpAddr, TransportProtocol),
    ProbesSlow,
    ProbesLost,
    WatchdogKilled,
    WatchdogStopped,
    BothKilled,
    BothStopped,
    /// SIGTERM; another agent is started after that.
    Terminated,
    /// Another agent is started, and SIGTERM goes to this one after a while.
    Upgraded,
    /// `iptables -t raw -F`, `nft flush ruleset`: all but tables with an owner are empty.
    RulesFlushed,
    LinkRemoved,
    /// Somebody holds the xtables lock.
    LockHeld,
    /// Whatever sets rules or the link fails.
    NodeFails,
    Reload,
    Retry,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// Since the node was well for the first time.
    pub after: Duration,
    pub lasts: Duration,
}

impl Fault {
    fn draw(scene: &Scene, rng: &mut Rng) -> Self {
        let Addresses { cluster_ip, link_local, .. } = scene.addresses;
        let address = if rng.bool() { cluster_ip } else { link_local };
        let protocol = if rng.bool() { TransportProtocol::Udp } else { TransportProtocol::Tcp };
        let kinds = [
            Kind::ServerKilled,
            Kind::ServerExits,
            Kind::ServerTalksNonsense,
            Kind::ServerStopped,
            Kind::StartsFail,
            Kind::StartsHang,
            Kind::StartsSlow,
            Kind::ForkFails,
            Kind::Deaf(address, protocol),
            Kind::Wrong(address, protocol),
            Kind::ProbesSlow,
            Kind::ProbesLost,
            Kind::WatchdogKilled,
            Kind::WatchdogStopped,
            Kind::BothKilled,
            Kind::BothStopped,
            Kind::Terminated,
            Kind::Upgraded,
            Kind::RulesFlushed,
            Kind::LinkRemoved,
            Kind::LockHeld,
            Kind::NodeFails,
            Kind::Reload,
            Kind::Retry,
        ];
        let kind = kinds[rng.usize(..kinds.len())];
        let longest = match kind {
            Kind::Deaf(..) | Kind::Wrong(..) => 3000,
            Kind::Upgraded => 1500,
            _ => 1200,
        };
        let shortest = if kind == Kind::Upgraded { 1000 } else { 1 };
        let after = MS * rng.u32(0..1500) + Duration::from_micros(rng.u64(..1000));
        Self { kind, after, lasts: MS * rng.u32(shortest..longest) }
    }

    /// What goes wrong in one run: mostly one thing, so that the table is held to its word.
    pub fn draw_some(scene: &Scene, rng: &mut Rng) -> Vec<Self> {
        let count = if rng.u8(..3) < 2 { 1 } else { rng.usize(2..=4) };
        (0..count).map(|_| Self::draw(scene, rng)).collect()
    }

    /// Whether nobody may lose a single answer over it: the server goes on, or its buffers are read by the next one.
    pub fn loses_nothing(&self, scene: &Scene) -> bool {
        let everywhere = matches!(
            self.kind,
            Kind::ServerStopped
                | Kind::WatchdogStopped
                | Kind::BothStopped
                | Kind::LockHeld
                | Kind::NodeFails
                | Kind::Reload
                | Kind::Retry
        );
        everywhere || scene.has_fallback && matches!(self.kind, Kind::Terminated | Kind::Upgraded | Kind::RulesFlushed)
    }

    /// For how long clients may be without an answer because of this, as the fault table has it; `is_alone`: nothing
    /// else goes wrong.
    pub fn allows(&self, scene: &Scene, stream: &Stream, is_alone: bool) -> Duration {
        let start_limit = Timing::default().start_limit;
        let is_link_local = stream.address == scene.addresses.link_local;
        if is_link_local && !scene.has_fallback {
            // Nobody else has this address: whatever keeps the server away keeps the answer away.
            let starting = if self.kind == Kind::StartsHang { start_limit } else { Duration::ZERO };
            return self.lasts + scene.restart + starting + Duration::from_secs(8);
        }
        // The rules of iptables outlive the watchdog; for pods they end with its sockets, where there is a match for
        // sockets, and for all with the lease, where there is one.
        let until_next_start = scene.restart + 2 * scene.backend.settling();
        let left_behind = match scene.backend {
            Backend::Iptables(matches) if stream.place == Place::Host || !matches.socket => {
                if matches.recent {
                    until_next_start.min(LEASE)
                } else {
                    until_next_start
                }
            }
            Backend::Nftables | Backend::Iptables(_) => Duration::ZERO,
        };
        let of_the_table = match self.kind {
            Kind::ServerKilled | Kind::ServerExits | Kind::ServerTalksNonsense => 50 * MS,
            Kind::ServerStopped => HANG,
            Kind::StartsFail | Kind::StartsHang | Kind::StartsSlow | Kind::ForkFails => TAKEOVER,
            Kind::Deaf(address, protocol) | Kind::Wrong(address, protocol) => {
                let is_here = address == stream.address && protocol == stream.protocol;
                if is_here { PART_HANGS + TAKEOVER } else { TAKEOVER }
            }
            Kind::ProbesSlow | Kind::ProbesLost => TAKEOVER,
            Kind::WatchdogKilled | Kind::BothKilled => left_behind,
            Kind::BothStopped => self.lasts,
            Kind::LinkRemoved => MENDING,
            Kind::WatchdogStopped
            | Kind::Terminated
            | Kind::Upgraded
            | Kind::RulesFlushed
            | Kind::LockHeld
            | Kind::NodeFails
            | Kind::Reload
            | Kind::Retry => Duration::ZERO,
        };
        if is_alone {
            return of_the_table;
        }
        let longer = match self.kind {
            // Whatever else goes wrong meanwhile waits for it, and gets its whole grace once more.
            Kind::WatchdogStopped => self.lasts + TAKEOVER,
            // What goes through iptables beside nftables keeps nobody waiting.
            Kind::LockHeld if scene.backend == Backend::Nftables => TAKEOVER,
            Kind::LockHeld | Kind::NodeFails => self.lasts + Duration::from_secs(1) + 2 * scene.backend.settling(),
            Kind::ServerStopped | Kind::BothStopped => HANG,
            // An answer from before a server hung is heard so much later.
            Kind::ProbesSlow => SLOWEST_PROBE + TAKEOVER,
            // Perhaps there is no agent to mend it until kubelet has started one.
            Kind::RulesFlushed | Kind::LinkRemoved => TAKEOVER.max(scene.restart + 2 * scene.backend.settling()),
            // Neither of two agents takes iptables' rules away, since the other one may need them; and who stays looks
            // at them again each second, once the other one has drained and ended.
            Kind::Upgraded if scene.backend != Backend::Nftables => {
                self.lasts + Duration::from_secs(8) + 2 * scene.backend.settling()
            }
            _ => TAKEOVER,
        };
        of_the_table.max(longer)
    }
}
