//! A node on which the program intercepts, with KubeDNS beside it, and clients that ask.

use super::{Proxy, leftovers};
use crate::cluster::{Agent, CLUSTER_IPS, LOCALS, METRICS, Network, program, rules};
use crate::guest::case::note;
use crate::kube_dns::KubeDns;
use crate::load::{Load, Plan};
use crate::records::Records;
use crate::support::server::{binary, wait_until};
use crate::support::tools::{run, tool};
use crate::wire::Answer;
use std::process::Command;
use std::time::Duration;

/// For what takes some seconds on an emulated machine.
pub const SOON: Duration = Duration::from_secs(60);

/// The addresses that are asked: all that the program serves.
pub const ADDRESSES: &[&str] = &[LOCALS[0], LOCALS[1], CLUSTER_IPS[0], CLUSTER_IPS[1]];

/// Queries a second that an emulated machine has time for.
pub const RATE: u32 = 200;

/// Before and after what is done while clients ask.
const LEAD: Duration = Duration::from_millis(500);

/// How a scene begins.
pub struct Start<'a> {
    pub proxy: Proxy,
    /// `--interception`.
    pub backend: &'a str,
    /// Further flags.
    pub flags: &'a [&'a str],
    /// Whether it has the capability NET_RAW, too, which iptables-legacy takes.
    pub has_net_raw: bool,
}

/// That of most cases.
pub const START: Start<'static> = Start { proxy: Proxy::IptablesNft, backend: "auto", flags: &[], has_net_raw: false };

/// The node. What is in it ends with it.
pub struct Scene {
    pub network: Network,
    #[allow(dead_code, reason = "for cases in which KubeDNS fails; its threads serve without it")]
    pub kube_dns: KubeDns,
    pub agent: Agent,
    has_net_raw: bool,
}

impl Scene {
    /// Everything in service.
    pub fn start(start: &Start) -> Self {
        let scene = Self::prepare(start);
        scene.await_service();
        scene
    }

    /// The same, as the program is started: it need not come into service.
    pub fn prepare(start: &Start) -> Self {
        Self::prepare_on(start, || {})
    }

    /// The same on a node to which something was done before.
    pub fn prepare_on(start: &Start, before: impl FnOnce()) -> Self {
        Self::prepare_with(start, before, |program| program)
    }

    /// The same with a command made of the program's, which becomes it.
    pub fn prepare_as(start: &Start, command: impl FnOnce(Command) -> Command) -> Self {
        Self::prepare_with(start, || {}, command)
    }

    fn prepare_with(start: &Start, before: impl FnOnce(), command: impl FnOnce(Command) -> Command) -> Self {
        let network = Network::bare();
        before();
        start.proxy.install();
        let kube_dns = KubeDns::start(&network.kube_dns);
        let agent = start_agent_as(start, command(program_with(start.has_net_raw)));
        Self { network, kube_dns, agent, has_net_raw: start.has_net_raw }
    }

    /// Waits until every client has every answer from the node's cache.
    pub fn await_service(&self) {
        self.agent.await_interception();
        let mut last = Records::new(Vec::new());
        let is_in_service = wait_until(SOON, || {
            last = self.ask_for(Duration::from_millis(500));
            last.from(Answer::Node) == last.asked()
        });
        assert!(is_in_service, "not in service:\n{}\n{}\n{}", last.detail(), self.agent.watchdog.tail(30), rules());
    }

    /// Ends the program as kubelet does: KubeDNS answers everybody, by way of what stays on purpose. Then removes that
    /// as `nodelocaldns teardown` does, and nothing of the program is left on the node. What it said.
    pub fn end(mut self) -> String {
        let said = self.stop();
        let records = self.ask_during("the program has ended", |_| std::thread::sleep(LEAD));
        assert_eq!(records.from(Answer::KubeDns), records.asked(), "{}\n{said}", records.detail());
        self.tear_down();
        said
    }

    /// Has the program end by itself. What it said.
    pub fn stop(&mut self) -> String {
        self.agent.watchdog.signal(libc::SIGTERM);
        let status = self.agent.watchdog.wait_exit(SOON);
        let said = self.agent.watchdog.output();
        assert!(status.is_some_and(|status| status.success()), "its end: {status:?}\n{said}");
        said
    }

    /// The program, with the rights that it has on this node.
    pub fn program(&self) -> Command {
        program_with(self.has_net_raw)
    }

    /// Runs `nodelocaldns teardown`, after which nothing of the program is left on the node.
    pub fn tear_down(&self) {
        run(self.program().args(["teardown", "-localip", &[LOCALS, CLUSTER_IPS].concat().join(",")]));
        let left = leftovers();
        assert!(left.is_empty(), "left on the node: {left:#?}\n{}", self.agent.watchdog.tail(30));
    }

    /// What becomes of the queries of pod and host network, for cached names, in a while.
    pub fn ask_for(&self, time: Duration) -> Records {
        let load = Load::start(&self.network, plan());
        std::thread::sleep(time);
        load.finish()
    }

    /// The same before, while and after something is done, which takes as long as it is to be watched. The user sees
    /// the figures.
    pub fn ask_during(&mut self, what: &str, work: impl FnOnce(&mut Self)) -> Records {
        let overruns = self.network.overruns();
        let load = Load::start(&self.network, plan());
        std::thread::sleep(LEAD);
        work(self);
        std::thread::sleep(LEAD);
        let mut records = load.finish();
        records.overruns = self.network.overruns() - overruns;
        note(format_args!("{what}: lost {records} at the longest"));
        records
    }
}

/// Waits until something is so, and fails with what else was seen.
pub fn settled(what: &str, is_so: impl FnMut() -> bool, otherwise: impl FnOnce() -> String) {
    if !wait_until(SOON, is_so) {
        panic!("{what}: not so after {} s\n{}", SOON.as_secs(), otherwise());
    }
}

/// The program as the DaemonSet starts it.
pub fn start_agent(start: &Start) -> Agent {
    start_agent_as(start, program_with(start.has_net_raw))
}

/// The same with a command that becomes the program.
fn start_agent_as(start: &Start, command: Command) -> Agent {
    let template = format!(
        ".:53 {{\n errors\n cache 3600\n reload\n loop\n bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\n \
         forward . __PILLAR__CLUSTER__DNS__ {{\n  force_tcp\n }}\n prometheus :9253\n health {}:8080\n}}\n",
        LOCALS[0]
    );
    // The environment tells one address of the upstream Service, of one family.
    let flags = [&["--fallback", "10.96.0.11,fd00::11"], start.flags].concat();
    Agent::start(command, &template, start.backend, METRICS, &flags)
}

/// The program, with the rights that docs/kubernetes.md gives it: iptables-legacy opens a raw socket.
pub fn program_with(has_net_raw: bool) -> Command {
    if !has_net_raw {
        return program();
    }
    let mut command = tool("setpriv");
    command.arg("--bounding-set=-all,+net_admin,+net_bind_service,+net_raw").arg(binary());
    command
}

fn plan() -> Plan {
    Plan { rate: RATE, addresses: ADDRESSES, fresh_every: None }
}
