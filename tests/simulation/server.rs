//! The server's process: it starts, serves, hangs and ends; it reads what waits in its agent's sockets and answers.

use crate::agent::Message;
use crate::client::{Answerer, Query};
use crate::faults::Kind;
use crate::kernel::Packet;
use crate::world::{Happening, World};
use nodelocaldns::node::TransportProtocol;
use nodelocaldns::watchdog::state::{Exit, ProbeResult, ProbeTarget};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// What waits in a socket.
#[derive(Clone, Debug)]
pub enum Parcel {
    Query(Query),
    Probe { agent: u32, target: ProbeTarget, probe_id: u64, source: SocketAddr },
}

pub struct Server {
    pub number: u32,
    serving_since: Option<Instant>,
    /// SIGSTOP.
    pub is_stopped: bool,
    is_told_to_stop: bool,
    has_ended: bool,
    /// Questions that were read and are not yet answered.
    outstanding: u32,
}

impl Server {
    /// Since when it answers.
    pub fn serving_since(&self) -> Option<Instant> {
        self.serving_since.filter(|_| !self.has_ended && !self.is_stopped && !self.is_told_to_stop)
    }
}

impl World {
    /// A process is started for `agent`.
    pub fn spawn(&mut self, agent: u32) {
        if self.is_going_on(Kind::ForkFails) {
            return self.schedule(Duration::ZERO, Happening::Tell(agent, Message::Exited(Exit::NotStarted)));
        }
        let number = self.number();
        let startup = if self.is_going_on(Kind::StartsSlow) { self.draw(150, 1200) } else { self.draw(8, 40) };
        let server = Server {
            number,
            serving_since: None,
            is_stopped: false,
            is_told_to_stop: false,
            has_ended: false,
            outstanding: 0,
        };
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.server = Some(server);
        }
        if self.is_going_on(Kind::StartsFail) {
            self.schedule(startup, Happening::Tell(agent, Message::ConfigurationRefused));
            self.end_server(agent, Exit::Status(1), startup);
        } else if !self.is_going_on(Kind::StartsHang) {
            self.schedule(startup, Happening::ServerUp(number));
        }
    }

    /// It has its configuration, and wants sockets.
    pub fn server_up(&mut self, number: u32) {
        let Some(agent) = self.agents.values_mut().find(|agent| agent.has_server(number)) else { return };
        let id = agent.id;
        let is_held_up = agent.is_stopped || agent.server.as_ref().is_some_and(|server| server.is_stopped);
        if agent.is_dead || agent.server.as_ref().is_none_or(|server| server.has_ended) {
            return;
        }
        if is_held_up {
            return self.schedule(5 * MS, Happening::ServerUp(number));
        }
        if !self.bind(id) {
            self.schedule(Duration::ZERO, Happening::Tell(id, Message::ConfigurationRefused));
            return self.end_server(id, Exit::Status(1), MS);
        }
        let now = self.now;
        if let Some(server) = self.server(id) {
            server.serving_since = Some(now);
        }
        self.note(|_| format!("agent {id}: server {number} serves"));
        self.schedule(Duration::ZERO, Happening::Tell(id, Message::Serving));
        self.read(id);
    }

    /// The server of `agent` reads and answers what waits, if it does such things now.
    pub fn read(&mut self, agent: u32) {
        let Some(server) = self.server(agent) else { return };
        if server.serving_since.is_none() || server.is_stopped || server.has_ended {
            return;
        }
        let number = server.number;
        let mut parcels = Vec::new();
        for index in 0..self.kernel.sockets.len() {
            let socket = &self.kernel.sockets[index];
            let deaf = Kind::Deaf(socket.address, socket.protocol);
            if socket.agent == agent && !socket.buffer.is_empty() && !self.is_going_on(deaf) {
                parcels.extend(self.kernel.sockets[index].buffer.drain(..));
            }
        }
        for parcel in parcels {
            match parcel {
                Parcel::Query(query) if query.is_cached => self.reply(&query),
                Parcel::Query(query) => {
                    let upstream = self.draw(1, 300);
                    self.schedule(upstream, Happening::Found(number, query));
                    if let Some(server) = self.server(agent) {
                        server.outstanding += 1;
                    }
                }
                Parcel::Probe { agent: asking, target, probe_id, source } => {
                    self.reply_to_probe(agent, asking, target, probe_id, source);
                }
            }
        }
    }

    /// An answer has come from upstream.
    pub fn find(&mut self, number: u32, query: &Query) {
        let Some(agent) = self.agents.values_mut().find(|agent| agent.has_server(number)) else { return };
        let id = agent.id;
        let Some(server) = agent.server.as_mut().filter(|server| !server.has_ended) else { return };
        if server.is_stopped {
            return self.schedule(5 * MS, Happening::Found(number, *query));
        }
        server.outstanding -= 1;
        self.reply(query);
        self.drain(id);
    }

    fn reply(&mut self, query: &Query) {
        let packet = Packet { protocol: query.protocol, source: query.asked, destination: query.source, mark: 0 };
        let seen = self.kernel.send_reply(packet, self.now);
        if seen == Some(query.asked) && !self.is_going_on(Kind::Wrong(query.asked.ip(), query.protocol)) {
            self.answer(query, Answerer::Node);
        }
    }

    fn reply_to_probe(&mut self, own: u32, asking: u32, target: ProbeTarget, probe_id: u64, source: SocketAddr) {
        let (address, protocol) = Self::end_of(target);
        let seen = self.kernel.send_reply(Packet { protocol, source: address, destination: source, mark: 0 }, self.now);
        if seen != Some(address) {
            return;
        }
        let result = match own == asking {
            _ if self.is_going_on(Kind::Wrong(address.ip(), protocol)) => ProbeResult::Foreign,
            true => ProbeResult::Answered,
            false => ProbeResult::OtherGeneration,
        };
        self.take_probe_answer(asking, target, probe_id, source, result);
    }

    /// SIGTERM by way of the control socket: it answers what it has, and ends.
    pub fn tell_server_to_stop(&mut self, agent: u32) {
        if let Some(server) = self.server(agent) {
            server.is_told_to_stop = true;
        }
        self.drain(agent);
    }

    /// Goes on with stopping, if it was told to.
    pub fn drain(&mut self, agent: u32) {
        let Some(server) = self.server(agent) else { return };
        if !server.is_told_to_stop || server.is_stopped || server.has_ended {
            return;
        }
        self.read(agent);
        self.kernel
            .sockets
            .iter_mut()
            .filter(|socket| socket.agent == agent)
            .for_each(|socket| socket.is_draining = true);
        if self.server(agent).is_some_and(|server| server.outstanding == 0) {
            self.end_server(agent, Exit::Status(0), 2 * MS);
        }
    }

    /// The process of `agent` ends by a signal or by itself, and whoever waits for it hears of it after a while.
    pub fn end_server(&mut self, agent: u32, exit: Exit, after: Duration) {
        let Some(server) = self.server(agent).filter(|server| !server.has_ended) else { return };
        let number = server.number;
        server.has_ended = true;
        self.note(|_| format!("agent {agent}: server {number} ends: {exit:?}"));
        self.schedule(after, Happening::ServerEnded(number, exit));
    }

    pub fn server_ended(&mut self, number: u32, exit: Exit) {
        let Some(agent) = self.agents.values_mut().find(|agent| agent.has_server(number)) else { return };
        agent.server = None;
        let id = agent.id;
        if agent.is_dead {
            self.bury(id);
        } else {
            self.tell(id, Message::Exited(exit));
        }
    }

    /// The server of `agent`, if there is one.
    pub fn server(&mut self, agent: u32) -> Option<&mut Server> {
        self.agents.get_mut(&agent)?.server.as_mut()
    }

    /// Sockets for `agent`, unless it has them; they can only be bound to addresses that the node has.
    fn bind(&mut self, agent: u32) -> bool {
        if self.kernel.sockets.iter().any(|socket| socket.agent == agent) {
            return true;
        }
        if !self.kernel.has_link {
            return false;
        }
        for address in self.spec.addresses.clone() {
            for protocol in [TransportProtocol::Udp, TransportProtocol::Tcp] {
                self.kernel.bind(agent, protocol, address);
            }
        }
        true
    }
}
