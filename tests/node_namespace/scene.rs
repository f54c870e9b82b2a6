//! What the tests see and do in their namespaces.

use nodelocaldns::node::{Backend, Change, Fallback, Interception, Node, NodeSpec};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Set to the name of the test in the process that runs inside.
const INSIDE: &str = "NODELOCALDNS_TEST_INSIDE";
/// Set to the backend in a process that plays an agent.
const AGENT: &str = "NODELOCALDNS_TEST_AGENT";

/// Listening addresses of the tests.
pub const ADDRESSES: [&str; 2] = ["10.96.0.10", "fd00::10"];
/// For each address: queries in and out, replies, probes, over UDP and TCP, and the health port both ways.
pub const NOTRACK_RULES_WHEN_ON: usize = 2 * (4 * 2 + 2);
/// For each address: queries in, replies out, and both through `lo` the other way round, over UDP and TCP; the health
/// port's four.
pub const ACCEPT_RULES: usize = 2 * (4 * 2 + 4);
pub const PROBE_MARK: u32 = 0x10_0000;

pub fn spec() -> NodeSpec {
    NodeSpec {
        addresses: ADDRESSES.map(|text| text.parse().unwrap()).to_vec(),
        port: 53,
        health_port: 8080,
        interface: Some("nodelocaldns".to_owned()),
        probe_mark: PROBE_MARK,
        fallback: Fallback::default(),
    }
}

/// The interception of all addresses.
pub fn on() -> Interception {
    Interception::of(&spec().addresses)
}

/// That of none.
pub fn off() -> Interception {
    Interception::default()
}

/// Runs `body`, a closure that stands in a test, in namespaces of its own, where it is root: the test runs once more
/// there.
pub fn in_a_namespace<B: FnOnce()>(body: B) {
    let name = test_of::<B>();
    if let Ok(backend) = std::env::var(AGENT) {
        return play_agent(&backend);
    }
    if std::env::var(INSIDE).is_ok_and(|inside| inside == name) {
        run("ip link set lo up");
        kubelet();
        return body();
    }
    let lock = tempfile::NamedTempFile::new().expect("a scratch file can be made");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net"]).arg(std::env::current_exe().expect("this program has a path"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    let sbin = format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    // An ordinary user may not write the machine's lock, and nobody outside should wait for us.
    command.env(INSIDE, name).env("PATH", sbin).env("XTABLES_LOCKFILE", lock.path());
    let output =
        command.output().unwrap_or_else(|e| panic!("running {command:?}: {e}; it is in the package util-linux"));
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && told.contains("1 passed"),
        "inside the namespace (are user namespaces allowed, and nftables, iptables and iproute2 installed?):\n{told}"
    );
}

/// The test in which a closure of this type stands, as the test harness calls it.
fn test_of<C>() -> &'static str {
    let path = std::any::type_name::<C>().split_once("::").map_or("", |(_program, path)| path);
    path.strip_suffix("::{{closure}}").expect("a closure in a test")
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs a line of shell to the end and returns what it printed; it must succeed.
pub fn run(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn succeeds(line: &str) -> bool {
    Command::new("sh").args(["-c", line]).output().unwrap().status.success()
}

/// The chains that a kubelet makes in iptables-nft's filter table: without any, there is no INPUT that could drop
/// something.
pub fn kubelet() {
    for program in ["iptables-nft", "ip6tables-nft"] {
        run(&format!(
            "{program} -N KUBE-FIREWALL && {program} -A INPUT -j KUBE-FIREWALL && {program} -A OUTPUT -j KUBE-FIREWALL"
        ));
    }
}

/// A link for the program to adopt: not every kernel has the dummy driver.
pub fn bridge(name: &str) {
    run(&format!("ip link add {name} type bridge && ip link set {name} up"));
}

pub fn link_exists(name: &str) -> bool {
    succeeds(&format!("ip link show {name}"))
}

/// Addresses with their prefixes, without those that the kernel gives by itself.
pub fn addresses_on(name: &str) -> Vec<String> {
    let listing = run(&format!("ip -oneline address show dev {name}"));
    let words = listing.lines().filter_map(|line| line.split_whitespace().nth(3));
    let mut addresses: Vec<String> = words.filter(|address| !address.starts_with("fe80")).map(str::to_owned).collect();
    addresses.sort();
    addresses
}

/// The table of ours and its rules.
pub fn owned_rules() -> String {
    run("nft list table inet nodelocaldns")
}

/// The tables whose names start with `prefix`, one a line.
pub fn nft_tables(prefix: &str) -> String {
    let tables = run("nft list tables inet");
    tables.lines().filter(|line| line.contains(&format!("inet {prefix}"))).map(|line| format!("{line}\n")).collect()
}

/// NOTRACK rules of iptables, of either kind.
pub fn notrack_rules() -> usize {
    ["nft", "legacy"].map(|kind| raw_rules_of(kind).len()).iter().sum()
}

/// The rules in the raw tables of one kind, IPv4 and IPv6.
pub fn raw_rules_of(kind: &str) -> Vec<String> {
    rules_of(kind, "raw")
}

/// ACCEPT rules of ours, IPv4 and IPv6, of either kind.
pub fn accept_rules() -> usize {
    let rules = ["nft", "legacy"].map(|kind| rules_of(kind, "filter")).concat();
    rules.iter().filter(|rule| rule.contains("NodeLocal DNS Cache: allow DNS traffic")).count()
}

fn rules_of(kind: &str, table: &str) -> Vec<String> {
    let mut rules = Vec::new();
    for family in ["ip", "ip6"] {
        // A legacy table is made by being listed.
        let tables = std::fs::read_to_string(format!("/proc/self/net/{family}_tables_names")).unwrap_or_default();
        if kind == "nft" || tables.lines().any(|name| name == table) {
            let listing = run(&format!("{family}tables-{kind} -t {table} -S"));
            rules.extend(listing.lines().filter(|line| line.starts_with("-A")).map(str::to_owned));
        }
    }
    rules
}

/// Waits for changes of rules and mends them until `is_whole`, long before the interval is over.
pub async fn mended(node: &mut Node, interception: &Interception, is_whole: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_whole() {
        let change =
            tokio::time::timeout(Duration::from_secs(10), node.changed()).await.expect("the change is noticed");
        assert_eq!(change, Change::Rules);
        node.ensure(interception).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(10), "not mended in time");
    }
}

/// An agent in a process of its own, with the interception on.
pub struct Agent {
    process: Child,
    input: Option<ChildStdin>,
    _output: BufReader<ChildStdout>,
}

impl Agent {
    pub fn start(backend: &str) -> Self {
        let name = std::env::var(INSIDE).unwrap();
        // With no more rights than the manifest gives.
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-all,+net_admin,+net_bind_service").arg(std::env::current_exe().unwrap());
        command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(AGENT, backend);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        assert!(
            output.by_ref().lines().any(|line| line.unwrap().contains("the agent is ready")),
            "the agent ended early"
        );
        let input = process.stdin.take();
        Self { process, input, _output: output }
    }

    /// SIGKILL, and what the kernel does about it.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Lets it tear down and end.
    pub fn stop(mut self) {
        drop(self.input.take());
        assert!(self.process.wait().unwrap().success());
    }
}

fn play_agent(backend: &str) {
    let backend = if backend == "nftables" { Backend::Nftables } else { Backend::Iptables };
    runtime().block_on(async {
        let has_link = link_exists("nodelocaldns");
        let spec = if has_link { spec() } else { NodeSpec { interface: None, ..spec() } };
        let mut node = Node::open(spec, backend, Duration::from_secs(60)).await.unwrap();
        node.ensure_link().await.unwrap();
        node.ensure(&on()).await.unwrap();
        let mut output = std::io::stdout();
        writeln!(output, "the agent is ready").unwrap();
        output.flush().unwrap();
        // Ends when the test drops its end.
        let _nothing_comes = std::io::stdin().lines().next();
        let errors: Vec<String> = node.teardown().await.iter().map(ToString::to_string).collect();
        assert_eq!(errors, Vec::<String>::new());
    });
}
