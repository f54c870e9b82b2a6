//! The thread that makes the node as wished: one wish after the other, the last one counts, failures are tried again.

use crate::agent::Message;
use crate::faults::{Backend, Kind};
use crate::world::{Happening, World};
use nodelocaldns::node::{self, desired};
use nodelocaldns::watchdog::state::Interception;
use std::time::Duration;

/// How long iptables waits for the xtables lock, and the thread after a failure.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Interception(Interception),
    Teardown,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Job {
    number: u32,
    wish: Wish,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Rules,
    /// ACCEPT rules, which go through iptables whatever holds the others.
    Filter {
        is_locked: bool,
    },
}

/// The thread.
#[derive(Debug)]
pub struct NodeThread {
    wish: Option<Wish>,
    is_due: bool,
    is_filter_due: bool,
    job: Option<Job>,
    jobs: u32,
}

impl Default for NodeThread {
    fn default() -> Self {
        Self { wish: None, is_due: false, is_filter_due: true, job: None, jobs: 0 }
    }
}

impl NodeThread {
    pub fn is_idle(&self) -> bool {
        self.job.is_none() && !self.is_due
    }
}

impl World {
    pub fn wish(&mut self, agent: u32, wish: Wish) {
        if wish == Wish::Interception(Interception::Probing) && !self.design.withdraws && self.kernel.has_link {
            return self.schedule(Duration::ZERO, Happening::Tell(agent, settled(Interception::Probing, true)));
        }
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.node.wish = Some(wish);
            agent.node.is_due = true;
        }
        self.begin_job(agent);
    }

    /// Somebody has changed the node, and the kernel tells.
    pub fn node_changed(&mut self) {
        let all: Vec<u32> = self.agents.keys().copied().collect();
        for id in all {
            if let Some(agent) = self.agents.get_mut(&id).filter(|agent| agent.node.wish.is_some()) {
                agent.node.is_due = true;
                agent.node.is_filter_due = true;
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

    /// Begins with what is wished, if there is news and nothing is being done.
    pub fn begin_job(&mut self, id: u32) {
        let backend = self.scene.backend;
        let Some(agent) = self.agents.get_mut(&id).filter(|agent| !agent.is_dead && !agent.is_stopped) else { return };
        let node = &mut agent.node;
        let (Some(wish), true, None) = (node.wish, node.is_due, node.job) else { return };
        node.is_due = false;
        node.jobs += 1;
        let number = node.jobs;
        let (stage, takes) = match backend {
            Backend::Nftables => (Stage::Rules, self.draw(1, 3)),
            Backend::Iptables { .. } => self.run_iptables(),
        };
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.node.job = Some(Job { number, wish, stage });
        }
        self.schedule(takes, Happening::NodeStep(id, number));
    }

    /// A run of the iptables programs: whether the lock is to be had, and how long it takes.
    fn run_iptables(&mut self) -> (Stage, Duration) {
        let held_for = self.ends(Kind::LockHeld).map_or(Duration::ZERO, |end| end - self.now);
        if held_for > LOCK_WAIT {
            return (Stage::Filter { is_locked: true }, LOCK_WAIT);
        }
        (Stage::Filter { is_locked: false }, held_for + self.draw(5, 25))
    }

    pub fn node_step(&mut self, id: u32, number: u32) {
        if self.hold_back(id, Happening::NodeStep(id, number)) {
            return;
        }
        let Some(agent) = self.agents.get(&id).filter(|agent| !agent.is_dead) else { return };
        let Some(job) = agent.node.job.filter(|job| job.number == number) else { return };
        let is_filter_due = agent.node.is_filter_due;
        let fails = self.is_going_on(Kind::NodeFails);
        let is_locked = job.stage == Stage::Filter { is_locked: true };
        match (self.scene.backend, job.stage) {
            (Backend::Nftables, Stage::Rules) if !fails => {
                self.set_rules(id, job.wish);
                if is_filter_due {
                    let (stage, takes) = self.run_iptables();
                    if let Some(agent) = self.agents.get_mut(&id) {
                        agent.node.is_filter_due = false;
                        agent.node.job = Some(Job { stage, ..job });
                    }
                    return self.schedule(takes, Happening::NodeStep(id, number));
                }
            }
            (Backend::Iptables { .. }, _) if !fails && !is_locked => self.set_rules(id, job.wish),
            _ => {}
        }
        if !fails && job.wish != Wish::Teardown {
            self.kernel.has_link = true;
            self.kernel.has_fallback = self.scene.has_fallback;
        }
        let is_done = match self.scene.backend {
            Backend::Nftables => !fails || job.stage != Stage::Rules,
            Backend::Iptables { .. } => !fails && !is_locked,
        };
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.node.job = None;
        }
        match job.wish {
            Wish::Interception(interception) => {
                self.note(|_| format!("agent {id}: the node is {interception:?}, done {is_done}"));
                self.tell(id, settled(interception, is_done));
                if fails || is_locked {
                    self.schedule(RETRY, Happening::NodeRetry(id));
                }
                self.begin_job(id);
            }
            Wish::Teardown => self.tell(id, Message::TornDown),
        }
    }

    fn set_rules(&mut self, id: u32, wish: Wish) {
        let is_alone = self.has_node_alone(id);
        let interception = match wish {
            Wish::Interception(Interception::On) => node::Interception::On,
            Wish::Interception(Interception::Probing) => node::Interception::Probing,
            Wish::Teardown => {
                self.kernel.disown(id);
                if is_alone {
                    self.kernel.restore(&[], true);
                    self.kernel.has_link = false;
                }
                return;
            }
        };
        let is_set = self.design.is_set;
        let rules: Vec<_> = desired(&self.wish, interception).rules.into_iter().filter(is_set).collect();
        match self.scene.backend {
            Backend::Nftables => self.kernel.own(id, rules),
            Backend::Iptables { .. } => self.kernel.restore(&rules, is_alone),
        }
    }
}

fn settled(interception: Interception, is_done: bool) -> Message {
    Message::Settled { interception, is_done }
}
