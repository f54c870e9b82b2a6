//! A node on which the program intercepts, KubeDNS beside it, and clients that ask while something goes wrong.

use crate::cluster::{Agent, CLUSTER_IPS, LOCAL, LOCALS, METRICS, Network, SOON, program, rules};
use crate::kube_dns::KubeDns;
use crate::load::{CACHED, Load, Plan};
use crate::records::Records;
use crate::support::server::wait_until;
use crate::wire::Answer;
use std::process::Command;
use std::time::Duration;

/// The addresses that are asked: all that the program serves. When it does not, kube-proxy sends queries for the
/// ClusterIPs to KubeDNS, and the fallback those for the others.
pub const ADDRESSES: &[&str] = &[LOCALS[0], LOCALS[1], CLUSTER_IPS[0], CLUSTER_IPS[1]];

/// From pods and from the host network, to each address. Of each about one connection is open at a time.
pub const KINDS_OF_CONNECTIONS: usize = 2 * ADDRESSES.len();

/// Queries a second.
pub const RATES: [u32; 2] = [2_000, 10_000];

/// Whether the whole table is measured (`make faults`), and not the quick part that `make test` has.
pub fn is_whole() -> bool {
    std::env::var_os("FAULTS").is_some_and(|value| value == "whole")
}

/// The rates that are measured with this backend. What differs between backends is the rules and not how many queries
/// there are, so iptables' second rate is for the whole table (`make faults`).
pub fn rates(backend: &str) -> impl Iterator<Item = u32> {
    let count = if is_whole() || backend == "nftables" { RATES.len() } else { 1 };
    RATES.into_iter().take(count)
}

/// Before the fault.
pub const LEAD: Duration = Duration::from_millis(300);

pub struct Scene {
    pub network: Network,
    pub kube_dns: KubeDns,
    pub agent: Agent,
    pub backend: String,
}

impl Scene {
    /// Everything in service, the names of [`CACHED`] in the cache.
    pub fn start(backend: &str) -> Self {
        Self::with(backend, &corefile("cache 3600"), program(), &[])
    }

    /// The same with a template of a Corefile, a command that becomes the program, and further flags.
    pub fn with(backend: &str, template: &str, command: Command, more: &[&str]) -> Self {
        let network = Network::new();
        let kube_dns = KubeDns::start(&network.kube_dns);
        let agent = Agent::start(command, template, backend, METRICS, &flags(more));
        let scene = Self { network, kube_dns, agent, backend: backend.to_owned() };
        scene.await_service();
        scene
    }

    /// Starts the program again, after its end.
    pub fn start_again(&mut self) {
        self.agent = Agent::start(program(), &corefile("cache 3600"), &self.backend, METRICS, &flags(&[]));
        self.await_service();
    }

    /// Waits until every client has every answer from the node's cache.
    pub fn await_service(&self) {
        self.agent.await_interception();
        let mut last = Records::new(Vec::new());
        let is_in_service = || {
            let load = Load::start(&self.network, Plan { rate: 500, ..cached(500) });
            std::thread::sleep(Duration::from_millis(40 * CACHED.len() as u64));
            last = load.finish();
            last.from(Answer::Node) == last.asked()
        };
        let is_in_service = wait_until(SOON, is_in_service);
        assert!(is_in_service, "not in service:\n{}\n{}\n{}", last.detail(), self.agent.watchdog.tail(30), rules());
    }

    /// What becomes of the queries of `plan` before, while and after `fault`, which takes as long as it is to be
    /// watched.
    pub fn ask_during(&mut self, plan: Plan, fault: impl FnOnce(&mut Self)) -> Records {
        let overruns = self.network.overruns();
        let load = Load::start(&self.network, plan);
        std::thread::sleep(LEAD);
        fault(self);
        let mut records = load.finish();
        records.overruns = self.network.overruns() - overruns;
        records
    }

    /// Fails, with everything there is to know.
    pub fn fail(&self, records: &Records, what: &str) -> ! {
        panic!("{what}: {records}\n{}\n{}", records.detail(), self.agent.watchdog.tail(40))
    }
}

/// Those of every start: the environment tells one address of the upstream Service, of one family.
fn flags<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--fallback", "10.96.0.11,fd00::11"], more].concat()
}

/// Queries for cached names alone.
pub fn cached(rate: u32) -> Plan {
    Plan { rate, addresses: ADDRESSES, fresh_every: None }
}

/// The Corefile's template with a `cache` of its own.
pub fn corefile(cache: &str) -> String {
    format!(
        ".:53 {{\n errors\n {cache}\n reload\n loop\n bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\n \
         forward . __PILLAR__CLUSTER__DNS__ {{\n  force_tcp\n }}\n prometheus :9253\n health {LOCAL}:8080\n}}\n"
    )
}
