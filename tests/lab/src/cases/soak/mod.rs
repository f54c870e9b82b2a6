//! Hours of a node in minutes: clients as pods are, and something goes wrong every 20 s. At the end every query that
//! was lost is one that the table of faults allows, and nothing has grown or is left over.

mod clients;
mod clock;
mod faults;
mod names;
mod resources;

use crate::case::{CASE, Case};
use crate::cluster::{Agent, KUBE_DNS, LOCALS, METRICS, Network, program};
use crate::guest::case::{kernel_argument, note};
use crate::node::{Proxy, SOON, doctor, leftovers, settled};
use crate::support::client::metric;
use crate::support::upstream::Upstream;
use clients::{Asked, Clients, RATE};
use clock::Clock;
use faults::{FAULTS, Fault};
use resources::{Held, History};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The family's.
pub const CASES: &[Case] = &[
    Case {
        name: "soak/five_minutes",
        body: || soak(Duration::from_secs(300)),
        limit: Duration::from_secs(900),
        ..CASE
    },
    Case {
        name: "soak/one_minute",
        body: || soak(Duration::from_secs(60)),
        is_by_name: true,
        limit: Duration::from_secs(400),
        ..CASE
    },
    Case {
        name: "soak/an_hour",
        body: || soak(Duration::from_secs(3600)),
        is_by_name: true,
        limit: Duration::from_secs(5400),
        ..CASE
    },
];

/// From one fault to the next.
const PERIOD: Duration = Duration::from_secs(20);

/// Before a fault a query may have been sent that is still in hand.
const IN_HAND: Duration = Duration::from_secs(1);

/// The node, with everything that clients need.
pub struct Soak {
    network: Network,
    kube_dns: Vec<Upstream>,
    agent: Agent,
    clock: Clock,
    /// How many Corefiles there have been.
    corefiles: u32,
}

/// As the DaemonSet has it: cluster names and others, each with the caches' TTLs. Every number gives another one.
fn template(number: u32) -> String {
    let block = |zone: &str, cache: &str| {
        format!(
            "{zone}:53 {{\n errors\n {cache}\n reload\n loop\n bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\n \
             forward . __PILLAR__CLUSTER__DNS__ {{\n  force_tcp\n }}\n prometheus :9253\n"
        )
    };
    let cluster = block("cluster.local", "cache {\n  success 9984 30\n  denial 9984 5\n }");
    let others = block(".", &format!("cache {}", 30 + number));
    format!("{cluster} health {}:8080\n}}\n{others}}}\n", LOCALS[0])
}

impl Soak {
    fn start() -> Self {
        let network = Network::bare();
        Proxy::IptablesNft.install();
        let rules = names::rules();
        let serve = |address: &str| {
            let address = SocketAddr::new(address.parse().expect("an address"), 53);
            Upstream::serving(address, &rules, None).expect("the pod has the address and the port is free")
        };
        let kube_dns = network.kube_dns.visit(|| KUBE_DNS.map(serve).into());
        Self { network, kube_dns, agent: agent(1), clock: Clock::new(), corefiles: 1 }
    }

    fn watchdog(&self) -> i32 {
        self.agent.watchdog.pid().cast_signed()
    }

    fn start_again(&mut self) {
        self.agent = agent(self.corefiles);
    }

    fn write(&self, template: &str) {
        let path = self.agent.watchdog.folder.path().join("Corefile.base");
        std::fs::write(path, template).expect("the folder can be written");
    }

    fn set_dead(&self, is_dead: bool) {
        for upstream in &self.kube_dns {
            upstream.set_down(is_dead);
        }
    }

    /// Waits until everything is intercepted.
    fn await_interception(&self) {
        let is_on = || metric(METRICS, "nodelocaldns_watchdog_interception") == Some(1.0);
        settled("the node intercepts", is_on, || self.agent.watchdog.tail(30));
    }
}

fn agent(corefiles: u32) -> Agent {
    let flags = ["--fallback", "10.96.0.11,fd00::11"];
    Agent::start(program(), &template(corefiles), "auto", METRICS, &flags)
}

/// A fault that was, from when to when it can have cost anybody anything.
struct Struck {
    fault: Fault,
    from: Duration,
    until: Duration,
}

fn soak(time: Duration) {
    let seed = seed();
    note(format_args!("the seed is {seed}; LAB_SEED={seed} has the same faults in the same order"));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut soak = Soak::start();
    soak.await_interception();
    let clients = Clients::start(&soak.network, seed);
    let overruns = soak.network.overruns();
    let mut histories: [History; 2] = Default::default();
    let (mut struck, mut order) = (Vec::new(), Vec::new());
    while clients.elapsed() < time {
        if order.is_empty() {
            // Each once before one comes again.
            order = FAULTS.to_vec();
            random.shuffle(&mut order);
        }
        let Some(fault) = order.pop() else { continue };
        let next = clients.elapsed() + PERIOD;
        let from = clients.elapsed().saturating_sub(IN_HAND);
        fault.strike(&mut soak);
        soak.await_interception();
        let until = clients.elapsed() + fault.echoes();
        note(format_args!("{:4} s  {fault:?}, over after {:.1} s", from.as_secs(), (until - from).as_secs_f64()));
        struck.push(Struck { fault, from, until });
        std::thread::sleep(next.saturating_sub(clients.elapsed()));
        for (history, pid) in histories.iter_mut().zip([soak.watchdog(), soak.agent.server()]) {
            Held::by(pid).into_iter().for_each(|held| history.add(held));
        }
    }
    let asked = clients.finish();
    let overruns = soak.network.overruns() - overruns;
    account(&asked, &struck, overruns, &soak);
    for (what, history) in ["watchdog", "server"].iter().zip(&histories) {
        let (first, second) = history.halves();
        note(format_args!("{what}: at most {first} in the first half, {second} in the second"));
        assert!(history.is_flat(), "the {what} grows");
    }
    doctor(0);
    end(soak);
}

/// Every lost query is within a fault's time, and no fault has cost more than it may.
fn account(asked: &[Asked], struck: &[Struck], overruns: usize, soak: &Soak) {
    let mut lost: BTreeMap<Option<Fault>, Vec<&Asked>> = BTreeMap::new();
    for query in asked.iter().filter(|query| query.is_lost()) {
        let of = struck.iter().rev().find(|struck| (struck.from..struck.until).contains(&query.sent));
        lost.entry(of.map(|struck| struck.fault)).or_default().push(query);
    }
    let mut failures = Vec::new();
    for &fault in FAULTS {
        let times = struck.iter().filter(|struck| struck.fault == fault).count();
        let count = lost.get(&Some(fault)).map_or(0, Vec::len);
        let allowed = times * (u64::from(RATE) * 2 * fault.allowed() / 1000) as usize;
        if times > 0 {
            note(format_args!("{fault:?} {times} times: lost {count} of {allowed} that may be"));
        }
        if count > allowed + overruns {
            failures.push(format!("{fault:?}: {count} lost, {allowed} may be:{}", shown(lost.get(&Some(fault)))));
        }
    }
    let outside = lost.get(&None).map_or(0, Vec::len);
    note(format_args!(
        "{} queries, {} lost, {outside} of them when nothing was wrong; the machine dropped {overruns}",
        asked.len(),
        asked.iter().filter(|query| query.is_lost()).count()
    ));
    if outside > overruns {
        failures.push(format!("lost when nothing was wrong:{}", shown(lost.get(&None))));
    }
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), soak.agent.watchdog.tail(40));
}

/// The first of them, for a message.
fn shown(lost: Option<&Vec<&Asked>>) -> String {
    lost.into_iter().flatten().take(20).map(|query| format!("\n  {query}")).collect()
}

/// The program ends, and nothing of it is left but what stays on purpose, which `teardown` removes.
fn end(mut soak: Soak) {
    soak.agent.watchdog.signal(libc::SIGTERM);
    let status = soak.agent.watchdog.wait_exit(SOON);
    assert!(status.is_some_and(|status| status.success()), "its end: {status:?}\n{}", soak.agent.watchdog.tail(30));
    crate::node::tear_down();
    let left = leftovers();
    assert!(left.is_empty(), "left on the node: {left:#?}");
}

/// Of the kernel's command line, as the lab's user wants it, or any.
fn seed() -> u64 {
    kernel_argument("lab.seed")
        .or_else(|| std::env::var("LAB_SEED").ok())
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..))
}
