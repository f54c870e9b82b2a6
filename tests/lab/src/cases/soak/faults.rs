//! What goes wrong, one thing at a time, and how much of it clients may notice (docs/faults.md).

use super::clock::suspend_machine;
use super::{Soak, template};
use crate::cluster::{is_alive, kill, shell, signal};
use crate::node::{SOON, settled};
use crate::support::client::metric;
use std::time::Duration;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    ServerKilled,
    ServerStopped,
    WatchdogKilled,
    BothKilled,
    WatchdogStopped,
    BothStopped,
    Terminated,
    Reloaded,
    BadCorefile,
    RulesFlushed,
    LinkDeleted,
    UpstreamDead,
    ClockAhead,
    ClockBehind,
    MachineSuspended,
}

/// All of them.
pub const FAULTS: &[Fault] = &[
    Fault::ServerKilled,
    Fault::ServerStopped,
    Fault::WatchdogKilled,
    Fault::BothKilled,
    Fault::WatchdogStopped,
    Fault::BothStopped,
    Fault::Terminated,
    Fault::Reloaded,
    Fault::BadCorefile,
    Fault::RulesFlushed,
    Fault::LinkDeleted,
    Fault::UpstreamDead,
    Fault::ClockAhead,
    Fault::ClockBehind,
    Fault::MachineSuspended,
];

impl Fault {
    /// For how long, in all, everybody may go without answers, in milliseconds: what the table of docs/faults.md
    /// has, and as much again as an emulated machine is slower. Nothing where the table has nothing.
    pub fn allowed(self) -> u64 {
        match self {
            Self::Reloaded | Self::BadCorefile | Self::ClockAhead | Self::ClockBehind => 0,
            // What was in hand; a connection that was open.
            Self::ServerKilled | Self::ServerStopped | Self::WatchdogStopped | Self::MachineSuspended => 200,
            Self::Terminated | Self::RulesFlushed => 200,
            Self::WatchdogKilled | Self::BothKilled | Self::LinkDeleted => 500,
            // No probe is sent for 2 s until the kernel keeps queries away.
            Self::BothStopped => 3_000,
            // What no cache has.
            Self::UpstreamDead => 9_000,
        }
    }

    /// How long clients may still notice it once the program intercepts again.
    pub fn echoes(self) -> Duration {
        match self {
            // An exchange that has begun goes on for 5 s, and its failure is kept for 5 s.
            Self::UpstreamDead => Duration::from_secs(10),
            // A client may still be left to KubeDNS, and its answers be on the way.
            _ => Duration::from_secs(3),
        }
    }

    /// Does it, and what an operator, kubelet or the machine does after it.
    pub fn strike(self, soak: &mut Soak) {
        match self {
            Self::ServerKilled => kill(soak.agent.server()),
            Self::ServerStopped => {
                let server = soak.agent.server();
                signal(server, libc::SIGSTOP);
                settled("a server that hangs is replaced", || !is_alive(server), || soak.agent.watchdog.tail(30));
            }
            Self::WatchdogKilled => {
                soak.agent.kill();
                soak.start_again();
            }
            Self::BothKilled => {
                let server = soak.agent.server();
                soak.agent.watchdog.signal(libc::SIGKILL);
                kill(server);
                soak.agent.await_end(server);
                soak.start_again();
            }
            Self::WatchdogStopped => stop_for(&[soak.watchdog()], Duration::from_secs(1)),
            Self::BothStopped => stop_for(&[soak.watchdog(), soak.agent.server()], Duration::from_secs(4)),
            Self::Terminated => {
                soak.agent.watchdog.signal(libc::SIGTERM);
                let status = soak.agent.watchdog.wait_exit(SOON);
                assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", soak.agent.watchdog.tail(30));
                soak.start_again();
            }
            Self::Reloaded => {
                let said = || soak.agent.watchdog.output().matches("the changed Corefile serves").count();
                let before = said();
                soak.corefiles += 1;
                soak.write(&template(soak.corefiles));
                settled("it is reloaded", || said() > before, || soak.agent.watchdog.tail(30));
            }
            Self::BadCorefile => {
                let failed = || metric(9253, "coredns_reload_failed_total").unwrap_or_default();
                let before = failed();
                soak.write("no Corefile {");
                settled("it is refused", || failed() > before, || soak.agent.watchdog.tail(30));
                soak.write(&template(soak.corefiles));
            }
            // KubeDNS's Services stay, since what is measured is this program.
            Self::RulesFlushed => {
                _ = shell(
                    "iptables-nft -t raw -F; ip6tables-nft -t raw -F
                nft delete table inet nodelocaldns-fallback",
                )
            }
            Self::LinkDeleted => _ = shell("ip link delete nodelocaldns"),
            Self::UpstreamDead => {
                soak.set_dead(true);
                std::thread::sleep(Duration::from_secs(5));
                soak.set_dead(false);
            }
            Self::ClockAhead => soak.clock.jump(24 * 3600, Duration::from_secs(4)),
            Self::ClockBehind => soak.clock.jump(-3600, Duration::from_secs(4)),
            Self::MachineSuspended => suspend_machine(Duration::from_secs(3)),
        }
    }
}

fn stop_for(pids: &[i32], time: Duration) {
    for pid in pids {
        signal(*pid, libc::SIGSTOP);
    }
    std::thread::sleep(time);
    // A server that was killed meanwhile is not there.
    for pid in pids.iter().filter(|pid| is_alive(**pid)) {
        signal(*pid, libc::SIGCONT);
    }
}
