//! A cell of the matrix: a node that intercepts in one way and makes Services in another, and clients of both families
//! in a pod and on the host network.

use super::Proxy;
use super::scene::{ADDRESSES, RATE, SOON, program_with};
use crate::cluster::{Agent, CLUSTER_IPS, LOCALS, METRICS, Network, rules, shell};
use crate::guest::case::note;
use crate::kube_dns::KubeDns;
use crate::load::{Load, Plan};
use crate::records::{Record, Records};
use crate::support::server::wait_until;
use crate::wire::Answer;
use std::time::{Duration, Instant};

/// Before and after what is done while clients ask.
const LEAD: Duration = Duration::from_millis(300);

/// How the program takes clients' queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interception {
    Nftables,
    /// By the variant of iptables that writes nftables.
    IptablesNft,
    /// By the variant that writes what kernels had before nftables.
    IptablesLegacy,
}

/// What makes Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    Iptables,
    Nftables,
    Ipvs,
}

/// The node.
pub struct Cell {
    pub interception: Interception,
    pub services: Services,
    pub network: Network,
    pub kube_dns: KubeDns,
    pub agent: Agent,
    /// When clients began to ask.
    asking_since: Instant,
}

impl Cell {
    /// Everything in service.
    pub fn start(interception: Interception, services: Services) -> Self {
        let network = Network::bare();
        services.install(interception);
        let kube_dns = KubeDns::start(&network.kube_dns);
        let agent = start_agent(interception, services);
        let asking_since = Instant::now();
        let cell = Self { interception, services, network, kube_dns, agent, asking_since };
        cell.await_service();
        cell
    }

    /// Starts the program again, after its end.
    pub fn start_again(&mut self) {
        self.agent = start_agent(self.interception, self.services);
        self.await_service();
    }

    /// Whether the query was for an address that is the program's.
    pub fn is_ours(&self, record: &Record) -> bool {
        self.services.ours().contains(&record.kind.address)
    }

    /// Whether the node answered all that is the program's, and KubeDNS all that is not.
    pub fn is_served(&self, records: &Records) -> bool {
        let ours = records.of(|record| self.is_ours(record));
        let others = records.of(|record| !self.is_ours(record));
        ours.from(Answer::Node) == ours.asked() && others.from(Answer::KubeDns) == others.asked()
    }

    /// Waits until all answers come from where they should.
    pub fn await_service(&self) {
        self.agent.await_interception();
        self.await_answers("not in service", |records| self.is_served(records));
    }

    /// Waits until KubeDNS answers everybody.
    pub fn await_kube_dns(&self) {
        let is_elsewhere = |records: &Records| records.from(Answer::KubeDns) == records.asked();
        self.await_answers("KubeDNS does not answer", is_elsewhere);
    }

    fn await_answers(&self, otherwise: &str, are_good: impl Fn(&Records) -> bool) {
        let mut last = Records::new(Vec::new());
        let are_there = wait_until(SOON, || {
            last = self.ask();
            are_good(&last)
        });
        assert!(are_there, "{otherwise}:\n{}\n{}\n{}", last.detail(), self.agent.watchdog.tail(30), rules());
    }

    /// What becomes of some queries for cached names.
    pub fn ask(&self) -> Records {
        let load = Load::start(&self.network, PLAN);
        std::thread::sleep(LEAD);
        load.finish()
    }

    /// The time in which records of the queries that are being asked count.
    pub fn asked_for(&self) -> Duration {
        self.asking_since.elapsed()
    }

    /// What becomes of queries for cached names before, while and after something is done, which takes as long as it is
    /// to be watched. The user sees the figures.
    pub fn ask_during(&mut self, what: &str, work: impl FnOnce(&mut Self)) -> Records {
        let overruns = self.network.overruns();
        self.asking_since = Instant::now();
        let load = Load::start(&self.network, PLAN);
        std::thread::sleep(LEAD);
        work(self);
        std::thread::sleep(LEAD);
        let mut records = load.finish();
        records.overruns = self.network.overruns() - overruns;
        note(format_args!("{what}: lost {records} at the longest"));
        records
    }

    /// Fails, with everything there is to know.
    pub fn fail(&self, records: &Records, what: &str) -> ! {
        panic!("{what}: {records}\n{}\n{}", records.detail(), self.agent.watchdog.tail(40))
    }
}

/// All addresses, those that are not the program's too.
const PLAN: Plan = Plan { rate: RATE, addresses: ADDRESSES, fresh_every: None };

impl Interception {
    /// `--interception`.
    fn flag(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::IptablesNft | Self::IptablesLegacy => "iptables",
        }
    }

    /// The variant of iptables that the node's kubelet and kube-proxy use.
    fn variant(self) -> &'static str {
        if self == Self::IptablesLegacy { "legacy" } else { "nft" }
    }

    /// Takes away the rules that keep packets from being tracked, as somebody else may.
    pub fn flush(self) {
        shell(match self {
            Self::Nftables => "nft flush ruleset",
            Self::IptablesNft => "iptables-nft -t raw -F; ip6tables-nft -t raw -F",
            Self::IptablesLegacy => "iptables-legacy -t raw -F; ip6tables-legacy -t raw -F",
        });
    }
}

impl Services {
    /// The program's addresses: a ClusterIP that IPVS holds is no other's.
    pub fn ours(self) -> &'static [&'static str] {
        if self == Self::Ipvs { &LOCALS } else { ADDRESSES }
    }

    /// Makes the Services, and the rules of a kubelet, on the calling thread's network.
    pub fn install(self, interception: Interception) {
        let is_legacy = interception == Interception::IptablesLegacy;
        match self {
            // The kubelet's are among what was recorded.
            Self::Iptables if is_legacy => Proxy::IptablesLegacy.install(),
            Self::Iptables => Proxy::IptablesNft.install(),
            Self::Nftables => {
                Proxy::Nftables.install();
                if is_legacy {
                    shell("nft delete table ip filter");
                    install_kubelet_rules("legacy");
                }
            }
            Self::Ipvs => {
                shell("modprobe ip_vs");
                Proxy::Ipvs.install();
                if is_legacy {
                    shell(
                        "for program in iptables ip6tables; do
                            rule=$($program-nft -t nat -S POSTROUTING | sed -n 's/^-A //p')
                            $program-nft -t nat -D $rule
                            $program-legacy -t nat -A $rule
                        done",
                    );
                }
                install_kubelet_rules(interception.variant());
            }
        }
    }
}

/// What a kubelet has in the table `filter`, in both families; in that of IPv6 its chain is empty.
fn install_kubelet_rules(variant: &str) {
    shell(&format!(
        "for program in iptables-{variant} ip6tables-{variant}; do
            $program -N KUBE-FIREWALL
            $program -A INPUT -j KUBE-FIREWALL
            $program -A OUTPUT -j KUBE-FIREWALL
        done
        iptables-{variant} -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack \
            ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
    ));
}

/// Starts the program as docs/kubernetes.md has it beside these Services, on the calling thread's network.
pub fn start_agent(interception: Interception, services: Services) -> Agent {
    let locals = LOCALS.join(",");
    let cluster_ips = CLUSTER_IPS.join(",");
    let (bound, upstream, flags) = match services {
        Services::Ipvs => (
            "__PILLAR__LOCAL__DNS__",
            CLUSTER_IPS[0],
            // The later one counts.
            vec!["-localip", &locals, "-upstreamsvc", "kube-dns", "--fallback", &cluster_ips],
        ),
        Services::Iptables | Services::Nftables => (
            "__PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__",
            "__PILLAR__CLUSTER__DNS__",
            // The environment tells one address of the upstream Service, of one family.
            vec!["--fallback", "10.96.0.11,fd00::11"],
        ),
    };
    let template = format!(
        ".:53 {{\n errors\n cache 3600\n reload\n loop\n bind {bound}\n forward . {upstream} {{\n  force_tcp\n }}\n \
         prometheus :9253\n health {}:8080\n}}\n",
        LOCALS[0]
    );
    Agent::start(
        program_with(interception == Interception::IptablesLegacy),
        &template,
        interception.flag(),
        METRICS,
        &flags,
    )
}
