//! How faults come about, and how they end.

use crate::agent::Message;
use crate::faults::Kind;
use crate::world::World;
use nodelocaldns::watchdog::state::Exit;
use std::time::Duration;

impl World {
    /// A fault begins.
    pub fn begin(&mut self, kind: Kind) {
        for id in self.living() {
            match kind {
                Kind::ServerKilled | Kind::StartsFail | Kind::StartsHang | Kind::StartsSlow | Kind::ForkFails => {
                    self.end_server(id, Exit::Signal(9), Duration::ZERO);
                }
                Kind::ServerExits => self.end_server(id, Exit::Status(3), Duration::ZERO),
                Kind::ServerTalksNonsense if self.server(id).is_some() => self.tell(id, Message::ProtocolViolated),
                Kind::ServerStopped => self.stop_server(id, true),
                Kind::WatchdogStopped => self.stop_watchdog(id),
                Kind::BothStopped => {
                    self.stop_server(id, true);
                    self.stop_watchdog(id);
                }
                Kind::WatchdogKilled | Kind::BothKilled => {
                    // The kernel closes a process's files, and then kills its children.
                    let orphaned = Duration::from_micros(self.rng.u64(..self.design.orphaned.as_micros() as u64 + 1));
                    if kind == Kind::BothKilled {
                        self.end_server(id, Exit::Signal(9), Duration::ZERO);
                    }
                    self.end_watchdog(id, orphaned);
                }
                Kind::Terminated => self.tell(id, Message::Stop),
                Kind::Reload => self.tell(id, Message::Reload),
                Kind::Retry => self.tell(id, Message::Retry),
                _ => {}
            }
        }
        match kind {
            Kind::Upgraded => self.start_agent(true),
            Kind::RulesFlushed => {
                self.kernel.flush();
                self.node_changed();
            }
            Kind::LinkRemoved => {
                self.kernel.has_link = false;
                self.node_changed();
            }
            _ => {}
        }
    }

    /// A fault ends.
    pub fn relieve(&mut self, kind: Kind) {
        let living = self.living();
        match kind {
            Kind::ServerStopped | Kind::BothStopped | Kind::WatchdogStopped => {
                for id in living {
                    if kind != Kind::ServerStopped
                        && !self.is_going_on(Kind::WatchdogStopped)
                        && !self.is_going_on(Kind::BothStopped)
                    {
                        self.resume_watchdog(id);
                    }
                    if kind != Kind::WatchdogStopped {
                        self.stop_server(id, false);
                    }
                }
            }
            Kind::Deaf(..) => living.into_iter().for_each(|id| self.read(id)),
            Kind::Upgraded => {
                let newest = living.iter().max().copied();
                for id in living.into_iter().filter(|id| Some(*id) != newest) {
                    if let Some(agent) = self.agents.get_mut(&id) {
                        agent.is_leaving = true;
                    }
                    self.tell(id, Message::Stop);
                }
            }
            _ => {}
        }
    }

    fn living(&self) -> Vec<u32> {
        self.agents.values().filter(|agent| !agent.is_dead).map(|agent| agent.id).collect()
    }

    fn stop_server(&mut self, id: u32, is_stopped: bool) {
        if let Some(server) = self.server(id) {
            server.is_stopped = is_stopped;
        }
        self.read(id);
        self.drain(id);
    }

    fn stop_watchdog(&mut self, id: u32) {
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.is_stopped = true;
        }
    }

    fn resume_watchdog(&mut self, id: u32) {
        let Some(agent) = self.agents.get_mut(&id).filter(|agent| agent.is_stopped) else { return };
        agent.is_stopped = false;
        let held = std::mem::take(&mut agent.held);
        // Of several things that are ready the runtime takes any.
        let is_alarm_first = self.rng.bool();
        if is_alarm_first {
            self.tell(id, Message::Tick);
        }
        for happening in held {
            self.schedule(Duration::ZERO, happening);
        }
        self.begin_job(id);
    }
}
