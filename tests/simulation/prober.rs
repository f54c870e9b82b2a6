//! The watchdog's probes, on their way through the kernel as everybody's packets.

use crate::agent::Message;
use crate::faults::{Kind, SLOWEST_PROBE};
use crate::kernel::{Arrival, Packet, Place};
use crate::server::Parcel;
use crate::world::{Happening, PROBE_MARK, World};
use nodelocaldns::watchdog::state::{ProbeResult, ProbeTarget};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// As `watchdog::probe` and `watchdog::run` have them.
const RESEND: Duration = Duration::from_millis(100);
const ONE_PORT: Duration = Duration::from_millis(900);
const FOREIGN_PAUSE: Duration = Duration::from_millis(10);
const FOREIGN_TRIES: u32 = 16;
const PROBE_DEADLINE: Duration = Duration::from_millis(250);

/// A question of the watchdog's that is on its way.
pub struct Probe {
    probe_id: u64,
    /// Of the port that asks now; port 0 while none is open.
    source: SocketAddr,
    port_since: Instant,
    foreign: u32,
    has_heard_other_generation: bool,
    sent: u32,
    /// One packet, and no other.
    is_single_packet: bool,
}

impl World {
    /// Asks until something is heard.
    pub fn probe(&mut self, id: u32, target: ProbeTarget, probe_id: u64, is_single_packet: bool) {
        let now = self.now;
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let probe = Probe {
            probe_id,
            source: target.address,
            port_since: now,
            foreign: 0,
            has_heard_other_generation: false,
            sent: 0,
            is_single_packet,
        };
        agent.probes.insert(target, probe);
        self.take_port(id, target);
        self.send_probe(id, target);
        if self.agents.get(&id).is_some_and(|agent| agent.probes.contains_key(&target)) {
            self.schedule(PROBE_DEADLINE, Happening::Tell(id, Message::ProbeLate { target, probe_id }));
        }
    }

    fn take_port(&mut self, id: u32, target: ProbeTarget) {
        let now = self.now;
        let Some(agent) = self.agents.get_mut(&id) else { return };
        agent.next_port = (agent.next_port + 1) % 4096;
        let source = self.kernel.source(Place::Host, target.address.ip(), 50_000 + agent.next_port);
        if let Some(probe) = agent.probes.get_mut(&target) {
            (probe.source, probe.port_since) = (source, now);
        }
    }

    fn send_probe(&mut self, id: u32, target: ProbeTarget) {
        let Some(probe) = self.agents.get_mut(&id).and_then(|agent| agent.probes.get_mut(&target)) else { return };
        probe.sent += 1;
        let (probe_id, source, sent) = (probe.probe_id, probe.source, probe.sent);
        let (destination, protocol) = Self::end_of(target);
        let again = if probe.is_single_packet { ONE_PORT } else { RESEND };
        self.schedule(again, Happening::ProbeAgain { agent: id, target, probe_id, sent });
        let packet = Packet { protocol, source, destination, mark: PROBE_MARK };
        let parcel = Parcel::Probe { agent: id, target, probe_id, source };
        match self.kernel.send_query(packet, Place::Host, parcel, self.now) {
            Arrival::Socket(agent) => self.read(agent),
            // The kernel refuses to send it there.
            Arrival::KubeDns(_) => self.end_probe(id, target, probe_id, ProbeResult::Unproven, MS / 4),
            Arrival::Nobody => {}
        }
    }

    /// Somebody has answered a probe from this port.
    pub fn take_probe_answer(
        &mut self,
        id: u32,
        target: ProbeTarget,
        probe_id: u64,
        source: SocketAddr,
        answer: ProbeResult,
    ) {
        if self.is_going_on(Kind::ProbesLost) && self.rng.u8(..4) > 0 {
            return;
        }
        let latency =
            if self.is_going_on(Kind::ProbesSlow) { self.draw(1, SLOWEST_PROBE.as_millis() as u64) } else { MS / 4 };
        let Some(agent) = self.agents.get_mut(&id) else { return };
        let Some(probe) =
            agent.probes.get_mut(&target).filter(|probe| probe.probe_id == probe_id && probe.source == source)
        else {
            return;
        };
        probe.has_heard_other_generation |= answer == ProbeResult::OtherGeneration;
        let result = match answer {
            ProbeResult::Answered => ProbeResult::Answered,
            _ if probe.foreign < FOREIGN_TRIES && !probe.is_single_packet => {
                probe.foreign += 1;
                probe.sent += 1;
                // Closed: another answer to this port is not heard.
                probe.source.set_port(0);
                let again = Happening::ProbeAgain { agent: id, target, probe_id, sent: probe.sent };
                return self.schedule(FOREIGN_PAUSE, again);
            }
            _ if probe.has_heard_other_generation => ProbeResult::OtherGeneration,
            _ => ProbeResult::Foreign,
        };
        self.end_probe(id, target, probe_id, result, latency);
    }

    /// The watchdog hears after `latency` what its question came to.
    fn end_probe(&mut self, id: u32, target: ProbeTarget, probe_id: u64, result: ProbeResult, latency: Duration) {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.probes.remove(&target);
        }
        self.schedule(latency, Happening::Tell(id, Message::ProbeEnded { target, probe_id, result }));
    }

    pub fn probe_again(&mut self, id: u32, target: ProbeTarget, probe_id: u64, sent: u32) {
        let now = self.now;
        let Some(agent) = self.agents.get_mut(&id) else { return };
        if agent.is_stopped {
            return agent.held.push(Happening::ProbeAgain { agent: id, target, probe_id, sent });
        }
        let Some(probe) = agent.probes.get(&target).filter(|probe| probe.probe_id == probe_id && probe.sent == sent)
        else {
            return;
        };
        if probe.is_single_packet {
            return self.end_probe(id, target, probe_id, ProbeResult::Silent, Duration::ZERO);
        }
        if probe.source.port() == 0 || now - probe.port_since >= ONE_PORT {
            self.take_port(id, target);
        }
        self.send_probe(id, target);
    }
}
