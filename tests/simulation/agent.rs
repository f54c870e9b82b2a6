//! The watchdog's process around the real state machine: what it is told, and what it does.

use crate::node_thread::{NodeCommand, NodeThread};
use crate::prober::Probe;
use crate::server::Server;
use crate::world::{Happening, World};
use nodelocaldns::chain::Transport;
use nodelocaldns::node::Interception;
use nodelocaldns::watchdog::state::{Action, Event, Exit, ProbeResult, ProbeTarget, StateMachine};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// The machine's events, with what they borrow.
#[derive(Clone, Debug)]
pub enum Message {
    Tick,
    Serving,
    ConfigurationRefused,
    ProtocolViolated,
    Exited(Exit),
    ProbeEnded { target: ProbeTarget, probe_id: u64, result: ProbeResult },
    ProbeLate { target: ProbeTarget, probe_id: u64 },
    NodeSettled { interception: Interception, is_done: bool },
    TornDown,
    Reload,
    Retry,
    Stop,
}

pub struct Agent {
    pub id: u32,
    machine: StateMachine,
    wake: Option<Instant>,
    /// The watchdog has ended, and its server not yet.
    pub is_dead: bool,
    /// SIGSTOP; what would happen to it waits.
    pub is_stopped: bool,
    pub held: Vec<Happening>,
    /// Another agent is to take its place.
    pub is_leaving: bool,
    pub node: NodeThread,
    /// What the machine wanted to be intercepted last.
    wanted: Interception,
    pub server: Option<Server>,
    pub probes: BTreeMap<ProbeTarget, Probe>,
    pub next_port: u16,
}

impl Agent {
    pub fn has_server(&self, number: u32) -> bool {
        self.server.as_ref().is_some_and(|server| server.number == number)
    }

    /// When the machine wants to be asked again.
    pub fn wake(&self) -> Option<Instant> {
        self.wake.filter(|_| !self.is_stopped && !self.is_dead)
    }

    /// It lives, and has done what it means to.
    pub fn is_idle(&self) -> bool {
        !self.is_dead && !self.is_stopped && self.node.is_idle()
    }

    /// What it wants to be intercepted.
    pub fn wanted(&self) -> &Interception {
        &self.wanted
    }

    pub fn serving_since(&self) -> Option<Instant> {
        self.server.as_ref().filter(|_| !self.is_dead && !self.is_stopped)?.serving_since()
    }

    pub fn describe(&self) -> String {
        let Self { id, is_dead, is_stopped, server, .. } = self;
        let server = server.as_ref().map(|server| server.number);
        format!("agent {id}: wants {:?}, dead {is_dead}, stopped {is_stopped}, server {server:?}", self.wanted)
    }
}

impl World {
    /// Starts an agent; one beside another only if `is_surge`.
    pub fn start_agent(&mut self, is_surge: bool) {
        if !is_surge && self.agents.values().any(|agent| !agent.is_dead && !agent.is_leaving) {
            return;
        }
        let id = self.number();
        let agent = Agent {
            id,
            machine: StateMachine::new(self.design.timing, false, self.now),
            wake: None,
            is_dead: false,
            is_stopped: false,
            held: Vec::new(),
            is_leaving: false,
            node: NodeThread::default(),
            wanted: Interception::default(),
            server: None,
            probes: BTreeMap::new(),
            next_port: 0,
        };
        self.agents.insert(id, agent);
        self.note(|_| format!("agent {id} starts"));
        self.tell(id, Message::Tick);
    }

    /// What the watchdog learns, and what it does about it.
    pub fn tell(&mut self, id: u32, message: Message) {
        let now = self.now;
        let targets = self.targets();
        let Some(agent) = self.agents.get_mut(&id).filter(|agent| !agent.is_dead) else { return };
        if agent.is_stopped {
            return agent.held.push(Happening::Tell(id, message));
        }
        let event = match message {
            Message::Tick => Event::Tick,
            Message::Serving => Event::Serving { targets: &targets, has_streams: false, drain: Duration::from_secs(5) },
            Message::ConfigurationRefused => Event::ConfigurationRefused,
            Message::ProtocolViolated => Event::ProtocolViolated,
            Message::Exited(exit) => Event::Exited(exit),
            Message::ProbeEnded { target, probe_id, result } => Event::ProbeEnded { target, probe_id, result },
            Message::ProbeLate { target, probe_id } => Event::ProbeLate { target, probe_id, is_overrun: false },
            Message::NodeSettled { ref interception, is_done } => Event::NodeSettled { interception, is_done },
            Message::TornDown => Event::TornDown,
            Message::Reload => Event::Reload,
            Message::Retry => Event::Retry,
            Message::Stop => Event::Stop,
        };
        let actions = agent.machine.handle(event, now);
        agent.wake = agent.machine.wake_at();
        let is_spinning = agent.wake.is_some_and(|at| at <= now);
        for action in actions {
            self.perform(id, action);
        }
        if is_spinning {
            self.fail(format!("agent {id} would spin"));
        }
    }

    fn perform(&mut self, id: u32, action: Action) {
        match action {
            Action::Probe { .. } => {}
            _ => self.note(|_| format!("agent {id}: {action:?}")),
        }
        match action {
            Action::Spawn => self.spawn(id),
            Action::Kill => self.end_server(id, Exit::Signal(9), MS),
            Action::Stop { .. } => self.tell_server_to_stop(id),
            Action::Probe { target, probe_id, is_single_packet } => self.probe(id, target, probe_id, is_single_packet),
            Action::CancelProbes => {
                if let Some(agent) = self.agents.get_mut(&id) {
                    agent.probes.clear();
                }
            }
            Action::Intercept(interception) => {
                if let Some(agent) = self.agents.get_mut(&id) {
                    agent.wanted = interception.clone();
                }
                self.spec(id, NodeCommand::Intercept(interception));
            }
            Action::Teardown => self.spec(id, NodeCommand::TearDown),
            Action::Exit(_) => self.end_watchdog(id, Duration::ZERO),
            Action::Reload
            | Action::CountRestart(_)
            | Action::AnnounceProven
            | Action::StopOffering
            | Action::ReportObstacle { .. } => {}
        }
    }

    /// The watchdog's process ends; the kernel closes what it alone held, and kills its server after `orphaned`.
    pub fn end_watchdog(&mut self, id: u32, orphaned: Duration) {
        let Some(agent) = self.agents.get_mut(&id).filter(|agent| !agent.is_dead) else { return };
        agent.is_dead = true;
        let has_server = agent.server.is_some();
        self.note(|_| format!("agent {id} has ended"));
        if !self.design.holds_rules {
            self.kernel.disown(id);
        }
        if !has_server {
            self.bury(id);
        } else if let Some(number) = self.server(id).map(|server| server.number) {
            self.schedule(orphaned, Happening::ServerEnded(number, Exit::Signal(9)));
        }
        let restart = self.scene.restart;
        self.schedule(restart, Happening::AgentStarts);
    }

    /// Nobody is left who holds the rules and the sockets of agent `id`.
    pub fn bury(&mut self, id: u32) {
        self.kernel.disown(id);
        self.kernel.close(id);
        self.agents.remove(&id);
    }

    fn targets(&self) -> Vec<ProbeTarget> {
        let each = self.spec.addresses.iter().map(|address| SocketAddr::new(*address, self.spec.port));
        each.flat_map(|address| [Transport::Udp, Transport::Tcp].map(|transport| ProbeTarget { address, transport }))
            .collect()
    }

    /// Holds back what would happen to a stopped watchdog; true if it was.
    pub fn hold_back(&mut self, id: u32, happening: Happening) -> bool {
        let Some(agent) = self.agents.get_mut(&id).filter(|agent| agent.is_stopped && !agent.is_dead) else {
            return false;
        };
        agent.held.push(happening);
        true
    }

    /// Whether nobody else is at work on the node.
    pub fn has_node_alone(&self, id: u32) -> bool {
        !self.agents.values().any(|agent| agent.id != id && !agent.is_dead)
    }
}
