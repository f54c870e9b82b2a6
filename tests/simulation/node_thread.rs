//! The thread that makes the node as wished: one wish after the other, the last one counts, failures are tried again.

use crate::agent::Message;
use crate::faults::{Backend, Kind};
use crate::world::{Happening, World};
use nodelocaldns::node::{Interception, desired};
use std::time::Duration;

/// How long iptables waits for the xtables lock, and the thread after a failure, or while it leaves rules to another
/// agent.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeCommand {
    Intercept(Interception),
    TearDown,
}

/// What is being done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Job {
    number: u32,
    spec: NodeCommand,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What goes through iptables beside it waits by itself.
    Nftables,
    Iptables {
        is_locked: bool,
    },
}

/// The thread.
#[derive(Debug, Default)]
pub struct NodeThread {
    spec: Option<NodeCommand>,
    is_due: bool,
    job: Option<Job>,
    jobs: u32,
}

impl NodeThread {
    pub fn is_idle(&self) -> bool {
        self.job.is_none() && !self.is_due
    }
}

impl World {
    pub fn spec(&mut self, agent: u32, spec: NodeCommand) {
        let none = Interception::default();
        if spec == NodeCommand::Intercept(none.clone()) && !self.design.withdraws && self.kernel.has_link {
            return self.schedule(Duration::ZERO, Happening::Tell(agent, settled(none, true)));
        }
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.node.spec = Some(spec);
            agent.node.is_due = true;
        }
        self.begin_job(agent);
    }

    /// Somebody has changed the node, and the kernel tells.
    pub fn node_changed(&mut self) {
        let all: Vec<u32> = self.agents.keys().copied().collect();
        for id in all {
            if let Some(agent) = self.agents.get_mut(&id).filter(|agent| agent.node.spec.is_some()) {
                agent.node.is_due = true;
            }
            self.begin_job(id);
        }
    }

    pub fn node_retry(&mut self, id: u32) {
        if self.hold_back(id, Happening::NodeRetry(id)) {
            return;
        }
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.node.is_due = true;
        }
        self.begin_job(id);
    }

    /// Begins with what is wanted, if it has changed and nothing is being done.
    pub fn begin_job(&mut self, id: u32) {
        let backend = self.scene.backend;
        let Some(agent) = self.agents.get_mut(&id).filter(|agent| !agent.is_dead && !agent.is_stopped) else { return };
        let node = &mut agent.node;
        let (Some(spec), true, None) = (node.spec.clone(), node.is_due, &node.job) else { return };
        node.is_due = false;
        node.jobs += 1;
        let number = node.jobs;
        let (stage, takes) = match backend {
            Backend::Nftables => (Stage::Nftables, self.draw(1, 3)),
            Backend::Iptables(_) => self.run_iptables(),
        };
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.node.job = Some(Job { number, spec, stage });
        }
        self.schedule(takes, Happening::NodeStep(id, number));
    }

    /// A run of the iptables programs: whether the lock is to be had, and how long it takes.
    fn run_iptables(&mut self) -> (Stage, Duration) {
        let held_for = self.ends(Kind::LockHeld).map_or(Duration::ZERO, |end| end - self.now);
        if held_for > LOCK_WAIT {
            return (Stage::Iptables { is_locked: true }, LOCK_WAIT);
        }
        (Stage::Iptables { is_locked: false }, held_for + self.draw(5, 25))
    }

    pub fn node_step(&mut self, id: u32, number: u32) {
        if self.hold_back(id, Happening::NodeStep(id, number)) {
            return;
        }
        let Some(agent) = self.agents.get(&id).filter(|agent| !agent.is_dead) else { return };
        let Some(job) = agent.node.job.clone().filter(|job| job.number == number) else { return };
        let fails = self.is_going_on(Kind::NodeFails);
        let is_locked = job.stage == Stage::Iptables { is_locked: true };
        let is_done = !fails && !is_locked;
        if is_done {
            self.set_rules(id, &job.spec);
        }
        if !fails && job.spec != NodeCommand::TearDown {
            self.kernel.has_link = true;
            self.kernel.has_fallback = self.scene.has_fallback;
        }
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.node.job = None;
        }
        match job.spec {
            NodeCommand::Intercept(interception) => {
                self.note(|_| format!("agent {id}: the node intercepts {interception}, done {is_done}"));
                let is_whole = Interception::of(&self.spec.addresses).is_within(&interception);
                self.tell(id, settled(interception, is_done));
                let is_iptables = job.stage != Stage::Nftables;
                let is_left = is_iptables && !is_whole && !self.has_node_alone(id);
                if !is_done || is_left {
                    self.schedule(RETRY, Happening::NodeRetry(id));
                }
                self.begin_job(id);
            }
            NodeCommand::TearDown => self.tell(id, Message::TornDown),
        }
    }

    fn set_rules(&mut self, id: u32, spec: &NodeCommand) {
        let is_alone = self.has_node_alone(id);
        let interception = match spec {
            NodeCommand::Intercept(interception) => interception,
            NodeCommand::TearDown => {
                self.kernel.disown(id);
                if is_alone {
                    self.kernel.restore(&[], true);
                    self.kernel.has_link = false;
                }
                return;
            }
        };
        let is_set = self.design.is_set;
        let rules: Vec<_> = desired(&self.spec, interception).rules.into_iter().filter(is_set).collect();
        match self.scene.backend {
            Backend::Nftables => self.kernel.own(id, rules),
            Backend::Iptables(_) => self.kernel.restore(&rules, is_alone),
        }
    }
}

fn settled(interception: Interception, is_done: bool) -> Message {
    Message::NodeSettled { interception, is_done }
}
