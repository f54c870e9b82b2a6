//! A small cluster on one machine: a node whose kube-proxy stands for two Services, a pod, and the pod that is KubeDNS,
//! each in a network namespace of its own. The calling process is on the node.

use crate::support::client::{exchange_tcp, metric, query, read_tcp, send_tcp};
use crate::support::overrun::udp_overruns;
use crate::support::processes::server;
pub use crate::support::processes::signal;
use crate::support::server::{Server, binary, scratch, wait_until};
use crate::support::tools::{require, run, tool, write};
use crate::support::upstream::{Reply, Rule, Upstream, address_rule};
use hickory_proto::op::Message;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Set to the name of the test in the process that runs inside.
const INSIDE: &str = "NODELOCALDNS_TEST_INSIDE";

/// For what takes a second on a machine that is not busy with other things.
pub const SOON: Duration = Duration::from_secs(20);

/// For an answer, as resolver libraries have by default. A TCP connection whose first packets are lost is there after 3
/// s.
const PATIENCE: Duration = Duration::from_secs(5);

/// The link-local address of the cache.
pub const LOCAL: &str = "169.254.20.10";
/// Addresses of the cache that mean nothing to anybody else.
pub const LOCALS: [&str; 2] = [LOCAL, "fd00:53::10"];
/// Where the watchdog's metrics are by default.
pub const METRICS: u16 = 9353;
/// ClusterIPs of KubeDNS.
pub const CLUSTER_IPS: [&str; 2] = ["10.96.0.10", "fd00::10"];
/// ClusterIPs of kube-dns-upstream, which nothing intercepts.
pub const UPSTREAM: [&str; 2] = ["10.96.0.11", "fd00::11"];
/// KubeDNS's pod.
pub const KUBE_DNS: [&str; 2] = ["10.244.2.2", "fd00:1::2"];
/// The pod that asks.
const POD: [&str; 2] = ["10.244.0.3", "fd00:1::3"];
/// The node's end of each pod's link.
const GATEWAY: [&str; 2] = ["10.244.0.1", "fd00:1::1"];

/// A name that KubeDNS knows.
pub const NAME: &str = "kubernetes.default.svc.cluster.local.";
/// Names that KubeDNS knows, for those who need one that no cache has.
pub const FRESH: [&str; 4] =
    ["one.cluster.local.", "two.cluster.local.", "three.cluster.local.", "four.cluster.local."];
/// A name that KubeDNS knows many addresses of: more than fit into a packet, and fewer than EDNS' usual 4096 octets
/// hold.
pub const LONG: &str = "long.cluster.local.";
pub const LONG_ADDRESSES: usize = 200;
pub const ADDRESS: &str = "10.96.0.1";

/// Runs `body`, the body of the test `name`, in a user and network namespace of its own, where it is root.
pub fn in_a_namespace(name: &str, body: impl FnOnce()) {
    match inside() {
        Some(inside) if inside == name => body(),
        _ => _ = run_in_a_namespace(name, name),
    }
}

/// What [`run_in_a_namespace`] called this process; none outside.
pub fn inside() -> Option<String> {
    std::env::var(INSIDE).ok()
}

/// Runs the test `name` in a process of its own, in a user and network namespace where it is root, which is told that
/// it is `role`. Everything it printed.
pub fn run_in_a_namespace(name: &str, role: &str) -> String {
    for program in ["ip", "nft", "iptables-nft", "iptables-legacy", "setpriv"] {
        require(program);
    }
    let lock = tempfile::NamedTempFile::new().expect("a scratch file can be made");
    let mut command = tool("unshare");
    command.args(["--user", "--map-root-user", "--net"]).arg(std::env::current_exe().expect("this program has a path"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    let path = format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    // An ordinary user may not write the machine's lock, and nobody outside should wait for us.
    command.env(INSIDE, role).env("PATH", path).env("XTABLES_LOCKFILE", lock.path());
    let told = command.output().unwrap_or_else(|e| panic!("running {command:?}: {e}"));
    let everything = crate::support::tools::everything(&told);
    assert!(
        told.status.success() && everything.contains("1 passed"),
        "inside the namespace (are user namespaces allowed, kernel.unprivileged_userns_clone?):\n{everything}"
    );
    everything
}

/// A network namespace. It ends when this is dropped and the last socket and process in it has ended.
#[derive(Clone)]
pub struct Place(Arc<File>);

impl Place {
    /// That of this process.
    pub fn here() -> Self {
        Self(File::open("/proc/self/ns/net").expect("a process can see its namespaces").into())
    }

    #[allow(unsafe_code, reason = "a crate offers it, but not safely")]
    pub fn new() -> Self {
        let opened = std::thread::spawn(|| {
            // SAFETY: the network namespace alone is unshared, no memory and no file descriptors.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root in its user namespace may make networks");
            File::open("/proc/thread-self/ns/net").expect("a thread can see its namespaces")
        });
        Self(opened.join().expect("a network namespace is made").into())
    }

    /// What `work` gives, done by a thread that is there. Sockets it opens and programs it starts stay there.
    pub fn visit<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let visit = || {
            self.enter();
            work()
        };
        std::thread::scope(|scope| scope.spawn(visit).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// A path that leads there, for `ip`'s `netns`.
    #[allow(dead_code, reason = "the lab's two nodes are connected by it")]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Takes the calling thread there for good.
    pub fn enter(&self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).expect("the namespace is ours");
    }
}

/// Over what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// The node, with this process on it, and its pods' networks.
pub struct Network {
    pub host: Place,
    pub pod: Place,
    pub kube_dns: Place,
}

impl Network {
    /// The node with a link for the program to adopt, as not every kernel has dummy links, and rules as kube-proxy's.
    pub fn new() -> Self {
        let network = Self::bare();
        shell("ip link add nodelocaldns type bridge; ip link set nodelocaldns up");
        for index in [0, 1] {
            proxy(index);
        }
        network
    }

    /// The same without that link and without Services. The uplink leads nowhere; it is a cable to nobody where the
    /// kernel has no bridges.
    pub fn bare() -> Self {
        shell(
            "ip link set lo up
            for family in ipv4 ipv6; do echo 1 >/proc/sys/net/$family/conf/all/forwarding; done
            for which in all default; do echo 0 >/proc/sys/net/ipv6/conf/$which/accept_dad; done
            ip link add uplink type bridge || {
                ip link add uplink type veth peer name switch
                ip link set switch up
            }
            ip address add 192.168.9.1/24 dev uplink
            ip address add fd00:9::1/64 dev uplink nodad
            ip link set uplink up
            ip route add default via 192.168.9.254 dev uplink
            ip -6 route add default via fd00:9::fe dev uplink",
        );
        let (pod, kube_dns) = (Place::new(), Place::new());
        attach(&pod, "pod", POD);
        attach(&kube_dns, "kubedns", KUBE_DNS);
        // As on any other node: what comes from an address that every node has cannot be answered.
        kube_dns.visit(|| LOCALS.map(|address| shell(&format!("ip route add blackhole {address}"))));
        Self { host: Place::here(), pod, kube_dns }
    }

    /// How many datagrams were lost to the machine until now, at clients, the program or KubeDNS: whoever was to read
    /// them did not get to run, and the kernel had no room left for them.
    pub fn overruns(&self) -> usize {
        [&self.host, &self.pod, &self.kube_dns].map(|place| place.visit(udp_overruns)).iter().sum()
    }
}

/// The node and its pods, one of which is KubeDNS.
pub struct Cluster {
    network: Network,
    kube_dns: Vec<Upstream>,
}

impl Cluster {
    pub fn new() -> Self {
        let network = Network::new();
        let mut rules: Vec<Rule> = FRESH.iter().chain([&NAME]).map(|name| address_rule(name, 30, ADDRESS)).collect();
        let answer = (0..LONG_ADDRESSES).map(|host| format!("{LONG} 30 IN A 10.0.0.{host}")).collect();
        rules.push(Rule { reply: Reply { answer, ..Reply::default() }, ..address_rule(LONG, 30, ADDRESS) });
        let serve = || {
            let nothing = Reply { rcode: Some("NXDOMAIN".to_owned()), ..Reply::default() };
            let serve = |address: &str| {
                let address = SocketAddr::new(address.parse().expect("an address"), 53);
                Upstream::serving(address, &rules, Some(&nothing))
                    .expect("the pod has the address and the port is free")
            };
            KUBE_DNS.map(serve).into()
        };
        let kube_dns = network.kube_dns.visit(serve);
        Self { network, kube_dns }
    }

    /// Who asks: a pod, and a program on the node's own network.
    pub fn clients(&self) -> [(&'static str, &Place); 2] {
        [("pod", &self.network.pod), ("host network", &self.network.host)]
    }

    /// The network of KubeDNS.
    pub fn kube_dns(&self) -> &Place {
        &self.network.kube_dns
    }

    /// KubeDNS answers nobody any longer.
    pub fn end_kube_dns(&mut self) {
        self.kube_dns.clear();
    }

    /// [`Network::overruns`].
    pub fn overruns(&self) -> usize {
        self.network.overruns()
    }

    /// How often KubeDNS was asked for `name` since anything was last counted, by whomever.
    pub fn kube_dns_count(&self, name: &str) -> u32 {
        self.kube_dns_count_of(&[name])
    }

    /// The same of several names together.
    pub fn kube_dns_count_of(&self, names: &[&str]) -> u32 {
        let seen = self.kube_dns.iter().flat_map(Upstream::take_seen);
        let is_meant = |question: &str| question.split(' ').nth(1).is_some_and(|name| names.contains(&name));
        seen.filter(|(question, _)| is_meant(question)).map(|(_, count)| count).sum()
    }

    /// The program, with no more rights than the DaemonSet gives it.
    pub fn program(&self) -> Command {
        program()
    }

    /// Starts the program as the DaemonSet does.
    pub fn start(&self, backend: &str, more: &[&str]) -> Agent {
        self.start_as(self.program(), backend, METRICS, more)
    }

    /// The same with the watchdog's metrics on another port, so that those of two agents can be told apart.
    pub fn start_with_metrics(&self, backend: &str, metrics: u16, more: &[&str]) -> Agent {
        self.start_as(self.program(), backend, metrics, more)
    }

    /// The same with a command that becomes the program.
    pub fn start_as(&self, command: Command, backend: &str, metrics: u16, more: &[&str]) -> Agent {
        Agent::start(command, &corefile_template(""), backend, metrics, more)
    }

    /// Asks everyone on every address over UDP and TCP. `served` are the addresses that are somebody's.
    pub fn everyone_asks(&self, served: &[&str], name: &str) -> usize {
        let mut asked = 0;
        for (who, place) in self.clients() {
            for address in served {
                for transport in [Transport::Udp, Transport::Tcp] {
                    let answer = place.visit(|| ask(address, transport, name));
                    assert_address(answer.as_ref(), &format!("{who}, {address}, {transport:?}"));
                    asked += 1;
                }
            }
        }
        asked
    }
}

/// A Corefile template as the DaemonSet has, with one more line in its block.
pub fn corefile_template(line: &str) -> String {
    format!(
        ".:53 {{\n errors\n cache 30\n reload\n loop\n bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__\n \
         forward . __PILLAR__CLUSTER__DNS__ {{\n  force_tcp\n }}\n prometheus :9253\n health {LOCAL}:8080\n {line}\n}}\n"
    )
}

/// The running program.
pub struct Agent {
    pub watchdog: Server,
    /// The port of the watchdog's metrics.
    pub metrics: u16,
}

impl Agent {
    /// Starts what `command` runs, the program or something that becomes it, as the DaemonSet does, with a Corefile
    /// template.
    pub fn start(mut command: Command, template: &str, backend: &str, metrics: u16, more: &[&str]) -> Self {
        let folder = scratch();
        let template = write(folder.path(), "Corefile.base", template);
        command.args(["-localip", &format!("{},{}", LOCALS.join(","), CLUSTER_IPS.join(","))]);
        command.arg("-conf").arg(folder.path().join("Corefile")).arg("-basecorefile").arg(template);
        command.args(["-upstreamsvc", "kube-dns-upstream", "--interception", backend]);
        command.args(["-metrics-listen-address", &format!("127.0.0.1:{metrics}")]).args(more);
        command.env("KUBE_DNS_UPSTREAM_SERVICE_HOST", UPSTREAM[0]).env("KUBE_DNS_UPSTREAM_SERVICE_PORT", "53");
        command.env("KUBE_DNS_SERVICE_HOST", CLUSTER_IPS[0]);
        Self { watchdog: Server::spawn(command, folder), metrics }
    }

    /// Waits until the program says that it intercepts.
    pub fn await_interception(&self) {
        let mut is_on = false;
        let has_ended = || !is_alive(self.watchdog.pid().cast_signed());
        wait_until(SOON, || {
            is_on = metric(self.metrics, "nodelocaldns_watchdog_interception") == Some(1.0);
            is_on || has_ended()
        });
        let state = if has_ended() { "the watchdog has ended" } else { "no interception" };
        assert!(is_on, "{state}:\n{}\n{}", self.watchdog.tail(30), rules());
    }

    /// Kills the watchdog with SIGKILL, and waits as [`Agent::await_end`].
    pub fn kill(&mut self) {
        let server = self.server();
        self.watchdog.signal(libc::SIGKILL);
        self.await_end(server);
    }

    /// Waits for the end of a watchdog that was killed, and of its server, which the kernel kills then: nftables' rules
    /// go when both have ended.
    pub fn await_end(&mut self, server: i32) {
        self.watchdog.wait_exit(SOON).expect("a killed process ends");
        assert!(wait_until(SOON, || !is_alive(server)), "the orphaned server goes on:\n{}", self.watchdog.tail(20));
    }

    /// The server's process, once there is one.
    pub fn server(&self) -> i32 {
        let mut found = None;
        let pid = self.watchdog.pid();
        let is_there = || {
            found = server(pid);
            found.is_some()
        };
        assert!(wait_until(SOON, is_there), "no server:\n{}", self.watchdog.tail(20));
        found.expect("it was found")
    }
}

/// The program, with no more rights than the DaemonSet gives it.
pub fn program() -> Command {
    let mut command = tool("setpriv");
    command.arg("--bounding-set=-all,+net_admin,+net_bind_service").arg(binary());
    command
}

/// Connects a pod's network with the node's.
fn attach(pod: &Place, name: &str, [ipv4, ipv6]: [&str; 2]) {
    let node = std::process::id();
    let [gateway_ipv4, gateway_ipv6] = GATEWAY;
    pod.visit(|| {
        shell(&format!(
            "ip link set lo up
            for which in all default; do echo 0 >/proc/sys/net/ipv6/conf/$which/accept_dad; done
            ip link add eth0 type veth peer name veth-{name} netns {node}
            ip link set eth0 up
            ip address add {ipv4}/32 dev eth0
            ip address add {ipv6}/128 dev eth0 nodad
            ip route add {gateway_ipv4} dev eth0
            ip -6 route add {gateway_ipv6} dev eth0
            ip route add default via {gateway_ipv4} dev eth0
            ip -6 route add default via {gateway_ipv6} dev eth0"
        ));
    });
    shell(&format!(
        "ip address add {gateway_ipv4}/32 dev veth-{name}
        ip address add {gateway_ipv6}/128 dev veth-{name} nodad
        ip link set veth-{name} up
        ip route add {ipv4} dev veth-{name}
        ip -6 route add {ipv6} dev veth-{name}"
    ));
}

/// The rules that kube-proxy makes for the ClusterIPs of one family, and a firewall that lets in only what conntrack
/// knows.
fn proxy(family: usize) {
    let (program, cluster_ip, pod, pods) = [
        ("iptables-nft-restore", CLUSTER_IPS[0], "10.244.2.2:53", "10.244.0.0/16"),
        ("ip6tables-nft-restore", CLUSTER_IPS[1], "[fd00:1::2]:53", "fd00:1::/64"),
    ][family];
    let mut nat = "*nat\n".to_owned();
    for chain in ["SERVICES", "SVC-DNS", "SEP-DNS", "MARK-MASQ", "POSTROUTING"] {
        nat += &format!(":KUBE-{chain} - [0:0]\n");
    }
    nat += "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n";
    for protocol in ["udp", "tcp"] {
        for service in [cluster_ip, UPSTREAM[family]] {
            nat += &format!("-A KUBE-SERVICES -d {service} -p {protocol} --dport 53 -j KUBE-SVC-DNS\n");
        }
        nat += &format!("-A KUBE-SEP-DNS -p {protocol} -j DNAT --to-destination {pod}\n");
    }
    nat += &format!("-A KUBE-SVC-DNS ! -s {pods} -j KUBE-MARK-MASQ\n-A KUBE-SVC-DNS -j KUBE-SEP-DNS\n");
    nat += "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n";
    nat += "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n-A KUBE-POSTROUTING -j MASQUERADE --random-fully\nCOMMIT\n";
    let icmp = if family == 0 { "icmp" } else { "icmpv6" };
    let filter = format!(
        "*filter\n:INPUT DROP [0:0]\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A INPUT -m conntrack --ctstate INVALID -j DROP\n-A INPUT -p {icmp} -j ACCEPT\n\
         -A INPUT -i lo -j ACCEPT\n\
         -A OUTPUT -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n"
    );
    let mut command = tool(program);
    let mut process = command.stdin(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("running {command:?}: {e}"));
    let mut input = process.stdin.take().expect("standard input is a pipe");
    input.write_all((nat + &filter).as_bytes()).expect("it reads its input");
    drop(input);
    assert!(process.wait().expect("it ends").success(), "{program} takes the rules");
}

/// Makes the firewall drop, in and out, whatever conntrack does not know, loopback's own addresses and neighbour
/// discovery aside.
pub fn drop_untracked_on_lo() {
    for (program, loopback, icmp) in [("iptables-nft", "127.0.0.1", "icmp"), ("ip6tables-nft", "::1", "icmpv6")] {
        shell(&format!(
            "{program} -D INPUT -i lo -j ACCEPT
            {program} -A INPUT -d {loopback} -j ACCEPT
            {program} -A OUTPUT -p {icmp} -j ACCEPT
            {program} -A OUTPUT -m conntrack --ctstate NEW,RELATED,ESTABLISHED -j ACCEPT
            {program} -P OUTPUT DROP"
        ));
    }
}

/// Runs lines of shell; each must succeed. What they print.
pub fn shell(script: &str) -> String {
    run(Command::new("sh").args(["-euc", script]))
}

/// A UDP socket of this thread's namespace that talks to the DNS port of `address` alone.
pub fn connected(address: &str) -> UdpSocket {
    let server = SocketAddr::new(address.parse().expect("an address"), 53);
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).expect("a socket");
    socket.connect(server).unwrap_or_else(|e| panic!("no route to {server}: {e}"));
    socket
}

/// Sends one query and waits for its answer. Nothing is sent twice.
pub fn ask_on(socket: &UdpSocket, name: &str, patience: Duration) -> Option<Message> {
    let question = query(name, "A");
    socket.send(&question.to_vec().expect("a query of ours encodes")).expect("the socket can send");
    socket.set_read_timeout(Some(patience)).expect("a timeout above zero");
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).ok()?;
        let answer = Message::from_vec(&buffer[..length]).expect("the answer is well-formed");
        if answer.metadata.id == question.metadata.id {
            return Some(answer);
        }
    }
}

/// Asks once, from this thread's namespace.
pub fn ask(address: &str, transport: Transport, name: &str) -> Option<Message> {
    match transport {
        Transport::Udp => ask_on(&connected(address), name, PATIENCE),
        Transport::Tcp => {
            let wire = query(name, "A").to_vec().expect("a query of ours encodes");
            let server = SocketAddr::new(address.parse().expect("an address"), 53);
            let answer = exchange_tcp(server, &wire, PATIENCE).ok()?;
            Some(Message::from_vec(&answer).expect("the answer is well-formed"))
        }
    }
}

/// A TCP connection of this thread's namespace to the DNS port of `address`.
pub fn connect(address: &str) -> TcpStream {
    let server = SocketAddr::new(address.parse().expect("an address"), 53);
    let stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap_or_else(|e| panic!("nobody at {server}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream
}

/// Sends one query on a connection and waits for its answer.
///
/// # Errors
///
/// The connection has ended, or there is no answer in time.
pub fn ask_on_stream(stream: &mut TcpStream, name: &str) -> io::Result<Message> {
    send_tcp(stream, &query(name, "A").to_vec().expect("a query of ours encodes"))?;
    Ok(Message::from_vec(&read_tcp(stream)?).expect("the answer is well-formed"))
}

/// The answer is what KubeDNS says of the names it knows.
pub fn assert_address(answer: Option<&Message>, what: &str) {
    let Some(answer) = answer else { panic!("{what}: no answer\n{}\n{}", rules(), connections()) };
    let addresses: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(addresses, [ADDRESS], "{what}: {answer:?}");
}

/// All rules of nftables, those that iptables-nft made among them; on a kernel without nf_tables those of
/// iptables-legacy. A legacy table is made by being listed.
pub fn rules() -> String {
    shell(
        "nft list ruleset || for family in ip ip6; do
            for table in $(cat /proc/self/net/${family}_tables_names); do ${family}tables-legacy-save -t $table; done
        done",
    )
}

/// Whether any rule of any kind keeps packets from being tracked.
pub fn leaves_untracked() -> bool {
    let by_iptables = |family: &str, kind: &str| {
        // A legacy table is made by being listed.
        let tables = std::fs::read_to_string(format!("/proc/self/net/{family}_tables_names")).unwrap_or_default();
        let is_there = kind == "nft" || tables.lines().any(|name| name == "raw");
        is_there && shell(&format!("{family}tables-{kind} -t raw -S")).to_lowercase().contains("notrack")
    };
    let families = ["ip", "ip6"];
    rules().contains("notrack")
        || families.iter().any(|family| by_iptables(family, "nft") || by_iptables(family, "legacy"))
}

/// Rules that accept queries and answers in the filter table.
pub fn accept_rules() -> usize {
    let listing = shell("iptables-nft -S && ip6tables-nft -S");
    listing.lines().filter(|line| line.contains("NodeLocal DNS Cache: allow DNS traffic")).count()
}

/// The addresses on the link, without those that the kernel gives by itself.
pub fn addresses() -> BTreeSet<String> {
    let listing = shell("ip -oneline address show dev nodelocaldns");
    let words = listing.lines().filter_map(|line| line.split_whitespace().nth(3));
    let addresses =
        words.filter_map(|address| address.split('/').next()).filter(|address| !address.starts_with("fe80"));
    addresses.map(str::to_owned).collect()
}

/// What conntrack knows of port 53 on the node: both directions of each connection, without its state and age.
pub fn tracked_dns() -> BTreeSet<String> {
    let listing = connections();
    let lines =
        listing.lines().filter(|line| line.split_whitespace().any(|word| word == "dport=53" || word == "sport=53"));
    let ends = ["src=", "dst=", "sport=", "dport="];
    let tuple = |line: &str| {
        let words = line.split_whitespace().enumerate();
        let kept = words.filter(|(index, word)| *index == 2 || ends.iter().any(|end| word.starts_with(end)));
        kept.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    };
    lines.map(tuple).collect()
}

fn connections() -> String {
    std::fs::read_to_string("/proc/self/net/nf_conntrack").expect("connections can be listed")
}

/// Whether the process has not ended; one that only waits to be reaped has. While a thread is left its sockets are
/// open, though its first thread may be a zombie already.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_running = stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'));
    is_running || std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1)
}

/// Ends a process with SIGKILL.
pub fn kill(pid: i32) {
    signal(pid, libc::SIGKILL);
}
