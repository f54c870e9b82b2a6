//! What every row has: the upstream's stand-in, the program that forwards to it, and a polite client beside the attack.

use crate::outcome::Outcome;
use crate::polite::{Polite, ask_once};
use crate::support::tools::run;
use crate::target::{Program, Target};
use crate::upstream::{Script, Upstream, honest};
use crate::wire::{A, query, rcode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the program serves; there is no other program in the namespace.
pub const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
/// The same by IPv6.
pub const SERVER_IPV6: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::new(0xfd00, 0x53, 0, 0, 0, 0, 0, 1)), 53);
/// Everybody's upstream.
pub const UPSTREAM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), 5400);
/// The upstream of `evil.example`.
pub const EVIL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66)), 5401);
/// The program's HTTP ports on 127.0.0.1.
pub const METRICS: u16 = 9253;
pub const HEALTH: u16 = 8080;

/// The polite client asks for so long before the attack.
pub const LEAD: Duration = Duration::from_millis(500);
/// Memory goes back within this time after an attack.
const GOES_BACK: Duration = Duration::from_secs(10);
/// Octets that it may have after an attack beyond what it had before.
pub const MAY_STAY: u64 = 24 << 20;

/// True when whole attacks are made (`make attacks`), not the short ones of CI.
pub fn is_whole() -> bool {
    std::env::var_os("ATTACKS").is_some_and(|value| value == "whole")
}

/// How long an attack goes on.
pub fn duration() -> Duration {
    if is_whole() { Duration::from_secs(5) } else { Duration::from_millis(1_500) }
}

/// What of `count` things (queries a second, connections) a short attack has.
pub fn strength(count: u32) -> u32 {
    if is_whole() { count } else { count.div_ceil(10) }
}

/// What a row's program is started with.
pub struct Setup {
    /// Further keys of the root block.
    pub keys: String,
    /// Further lines of the root block.
    pub directives: String,
    /// Options of its `forward`.
    pub forward: String,
    /// The `forward` options and the upstream of `evil.example`, if there is one.
    pub evil: Option<(String, Option<Script>)>,
    pub upstream: Script,
    pub server: SocketAddr,
    /// Makes the command that runs the program.
    pub around: Box<dyn FnOnce(Command) -> Command>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            keys: String::new(),
            directives: String::new(),
            forward: String::new(),
            evil: None,
            upstream: honest(),
            server: SERVER,
            around: Box::new(|command| command),
        }
    }
}

impl Setup {
    /// With an upstream of `evil.example` that follows `script`.
    pub fn with_evil(options: &str, script: Script) -> Self {
        Self { evil: Some((options.to_owned(), Some(script))), ..Self::default() }
    }
}

pub struct Scene {
    pub target: Target,
    pub upstream: Upstream,
    pub evil: Option<Upstream>,
    pub server: SocketAddr,
    /// Octets of memory before the attack.
    before: u64,
}

impl Scene {
    /// Everything serves, the polite client's names are cached.
    pub fn start(program: Program, setup: Setup) -> Self {
        shell(
            "ip link set lo up
            ip address add fd00:53::1/128 dev lo nodad
            for network in fd00:66::/32 fd00:67::/32 fd00:99::/32; do ip -6 route add local $network dev lo; done
            echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind",
        );
        raise_the_limit_of_files();
        let upstream = Upstream::start(UPSTREAM, setup.upstream);
        let bind = "bind 127.0.0.1 fd00:53::1\n errors\n cache 3600";
        let mut corefile = format!(
            ".:53 {} {{\n {bind}\n forward . {UPSTREAM} {{\n {}\n }}\n prometheus 127.0.0.1:{METRICS}\n health 127.0.0.1:{HEALTH}\n loop\n {}\n}}\n",
            setup.keys, setup.forward, setup.directives
        );
        let mut evil = None;
        if let Some((options, script)) = setup.evil {
            corefile += &format!("evil.example:53 {{\n {bind}\n forward . {EVIL} {{\n {options}\n }}\n}}\n");
            evil = script.map(|script| Upstream::start(EVIL, script));
        }
        let target = Target::start(program, &corefile, setup.server, setup.around);
        Polite::warm(setup.server);
        let before = target.memory();
        Self { target, upstream, evil, server: setup.server, before }
    }

    /// What a polite client loses while `attack` goes on.
    pub fn attack<T: Send>(&self, attack: impl FnOnce(&Self) -> T + Send) -> (Outcome, T) {
        let full = crate::sockets::found_full(self.server.port());
        let polite = Polite::start(self.server);
        std::thread::sleep(LEAD);
        let (started, used) = (Instant::now(), self.target.processor_time());
        // On a thread of its own, since attackers make their threads less important.
        let told = std::thread::scope(|scope| {
            scope.spawn(|| attack(self)).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let processor = (self.target.processor_time() - used) / started.elapsed().as_secs_f64();
        std::thread::sleep(LEAD);
        let [udp, tcp] = polite.finish();
        let full = crate::sockets::found_full(self.server.port()).since(&full);
        let mut outcome = Outcome::new(&self.target, [udp, tcp], full, self.before, processor);
        outcome.hold_unless_starved(
            is_answered(self.server),
            "a name that nobody has asked for is answered after the attack",
        );
        (outcome, told)
    }

    /// Sees what memory remains after the attack.
    pub fn see_memory(&self, outcome: &mut Outcome) {
        if is_whole() {
            crate::support::server::wait_until(GOES_BACK, || self.target.memory() <= self.before + MAY_STAY / 2);
        }
        outcome.after = self.target.memory();
    }

    /// [`Scene::see_memory`], which must be near what it was.
    pub fn memory_goes_back(&self, outcome: &mut Outcome) {
        self.see_memory(outcome);
        let is_back = !is_whole() || outcome.after <= self.before + MAY_STAY;
        outcome.hold(is_back, "memory goes back after the attack");
    }
}

fn is_answered(server: SocketAddr) -> bool {
    let asked =
        |number: usize| ask_once(server, &query(&format!("after{number}.polite.example"), A), Duration::from_secs(3));
    (0..3).any(|number| asked(number).is_some_and(|answer| rcode(&answer) == Some(0)))
}

/// A thousand clients have as many sockets.
fn raise_the_limit_of_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .expect("a limit can be raised to its maximum");
}

/// How many descriptors this process may still open, up to `wanted`.
pub fn affordable(wanted: u32) -> usize {
    let soft = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(u64::from(wanted).min(soft.saturating_sub(600))).expect("a small number")
}

/// Gives the calling thread less of the processors than the program and the polite client have, for good: an attacking
/// pod has its share of them, and no machine for tests has as many as a node. What it did in spite of that stands in
/// the table.
pub fn be_a_pod() {
    _ = rustix::process::nice(10);
}

pub fn shell(script: &str) {
    run(Command::new("sh").args(["-e", "-c", script]));
}
