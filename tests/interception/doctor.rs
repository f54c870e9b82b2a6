//! What `nodelocaldns doctor` says of this node in health, and when one thing after another is broken.

use crate::SERVED;
use crate::cluster::{Agent, CLUSTER_IPS, Cluster, LOCAL, LOCALS, SOON, connected, in_a_namespace, shell, signal};
use crate::support::server::{binary, wait_until};
use crate::support::tools::{everything, tool};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The default of `--probe-mark`.
const PROBE_MARK: u32 = 0x10_0000;

/// In the order in which they are told.
const CHECKS: [&str; 15] = [
    "agent",
    "link",
    "addresses",
    "rules",
    "rule_order",
    "filter",
    "sockets",
    "queries",
    "name",
    "pod_path",
    "kube_proxy",
    "fallback",
    "connections",
    "metrics",
    "health",
];

/// What `doctor --output json` said.
struct Said {
    status: i32,
    json: Value,
}

impl Said {
    /// Runs it with these arguments more.
    fn by(mut command: Command, arguments: &[&str]) -> Self {
        let output =
            command.arg("doctor").args(["--output", "json"]).args(arguments).output().expect("the program runs");
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", everything(&output)));
        Self { status: output.status.code().expect("it ends by itself"), json }
    }

    fn check(&self, name: &str) -> &Value {
        let checks = self.json["checks"].as_array().expect("checks are an array");
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no check {name}: {self}"))
    }

    fn names_with(&self, verdict: &str) -> Vec<&str> {
        let checks = self.json["checks"].as_array().expect("checks are an array").iter();
        checks.filter(|check| check["verdict"] == verdict).filter_map(|check| check["name"].as_str()).collect()
    }

    /// The check is a problem, says `seen` and has advice with `advice` in it.
    #[track_caller]
    fn complains(&self, name: &str, seen: &str, advice: &str) {
        let check = self.check(name);
        assert_eq!((self.status, &self.json["verdict"]), (1, &"problem".into()), "{self}");
        assert_eq!(check["verdict"], "problem", "{name}: {self}");
        assert!(check["seen"].to_string().contains(seen), "{name}, {seen:?}: {self}");
        assert!(check["advice"].to_string().contains(advice), "{name}, {advice:?}: {self}");
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.json)
    }
}

/// With the rights of the agent's container.
fn doctor(cluster: &Cluster, arguments: &[&str]) -> Said {
    Said::by(cluster.program(), arguments)
}

/// Nobody mends what is broken from here on.
fn stop(pid: u32) {
    signal(pid.cast_signed(), libc::SIGSTOP);
    let is_stopped = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "));
    assert!(wait_until(SOON, is_stopped), "{pid} does not stop");
}

/// Probes in place of a watchdog's that is stopped: without any, an address is intercepted for a second or two.
struct Lease(Arc<AtomicBool>);

impl Lease {
    fn keep() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = is_over.clone();
        std::thread::spawn(move || {
            let sockets = SERVED.map(|address| {
                let socket = connected(address);
                socket2::SockRef::from(&socket).set_mark(PROBE_MARK).expect("root in its namespaces may mark");
                socket
            });
            while !told.load(Ordering::Relaxed) {
                for socket in &sockets {
                    // What becomes of it is no matter.
                    _ = socket.send(b"a packet with the mark");
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self(is_over)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn server(agent: &Agent) -> u32 {
    agent.server().try_into().expect("a process ID")
}

#[test]
fn doctor_finds_nothing_wrong_with_a_healthy_agent_with_nftables() {
    in_a_namespace("doctor::doctor_finds_nothing_wrong_with_a_healthy_agent_with_nftables", || {
        finds_nothing_wrong("nftables")
    });
}

#[test]
fn doctor_finds_nothing_wrong_with_a_healthy_agent_with_iptables() {
    in_a_namespace("doctor::doctor_finds_nothing_wrong_with_a_healthy_agent_with_iptables", || {
        finds_nothing_wrong("iptables")
    });
}

fn finds_nothing_wrong(backend: &str) {
    let cluster = Cluster::new();
    let agent = cluster.start(backend, &[]);
    agent.await_interception();
    // What to look at is read from the agent's command line. A busy machine may have the interception withdrawn for a
    // moment.
    let mut said = doctor(&cluster, &[]);
    wait_until(SOON, || {
        if said.status != 0 {
            said = doctor(&cluster, &[]);
        }
        said.status == 0
    });
    assert_eq!(said.status, 0, "{said}\n{}", agent.watchdog.tail(20));
    assert_eq!(
        (&said.json["intercepted"], said.names_with("problem"), said.names_with("unknown")),
        (&true.into(), vec![], vec![])
    );
    assert_eq!(said.names_with("warning"), Vec::<&str>::new(), "{said}");
    let names: Vec<&Value> =
        said.json["checks"].as_array().expect("an array").iter().map(|check| &check["name"]).collect();
    assert_eq!(names, CHECKS);
    assert!(said.check("addresses")["seen"].to_string().contains(LOCAL), "{said}");
    assert!(said.check("kube_proxy")["seen"].to_string().contains("iptables"), "{said}");
    let fallback = format!("cluster DNS (10.96.0.11) answers at {LOCAL}");
    assert!(said.check("fallback")["seen"].to_string().contains(&fallback), "{said}");
    if backend == "nftables" {
        let owner = format!("belongs to process {}", agent.watchdog.pid());
        assert!(said.check("rules")["seen"].to_string().contains(&owner), "{said}");
    }

    let output = cluster.program().arg("doctor").output().expect("the program runs");
    let text = everything(&output);
    assert!(output.status.success() && text.contains("Queries are intercepted"), "{text}");
}

#[test]
fn doctor_names_what_is_broken_on_the_node_and_says_what_to_do() {
    in_a_namespace("doctor::doctor_names_what_is_broken_on_the_node_and_says_what_to_do", || {
        let cluster = Cluster::new();
        let agent = cluster.start("iptables", &[]);
        agent.await_interception();
        stop(agent.watchdog.pid());
        let _lease = Lease::keep();
        let said = doctor(&cluster, &[]);
        said.complains("agent", "is stopped", "kill -CONT");
        // Who is stopped does not answer for its metrics either.
        assert_eq!(said.names_with("problem"), ["agent", "metrics"], "{said}");
        assert_eq!(said.json["intercepted"], true, "its server serves on: {said}");

        shell("ip link set nodelocaldns down");
        doctor(&cluster, &[]).complains("link", "is down", "the agent mends");
        shell("ip link set nodelocaldns up");
        for address in SERVED {
            shell(&format!("ip address replace {address} dev nodelocaldns nodad"));
        }

        shell(&format!("ip address del {LOCAL}/32 dev nodelocaldns"));
        let said = doctor(&cluster, &[]);
        said.complains("addresses", &format!("{LOCAL} not on nodelocaldns"), "the agent mends");
        shell(&format!("ip address add {LOCAL}/32 dev nodelocaldns"));

        let kept = shell("iptables-nft-save -t filter");
        shell("iptables-nft -F INPUT");
        doctor(&cluster, &[]).complains("filter", "the policy of nftables chain ip filter INPUT drops", "iptables-nft");
        shell(&format!("iptables-nft-restore <<'END'\n{kept}\nEND"));

        // At an address that was put back the lease begins anew.
        let mut said = doctor(&cluster, &[]);
        wait_until(SOON, || {
            said = doctor(&cluster, &[]);
            said.names_with("problem") == ["agent", "metrics"]
        });
        assert_eq!(said.names_with("problem"), ["agent", "metrics"], "everything is whole again: {said}");

        let kept = shell("nft list table inet nodelocaldns-fallback");
        for break_it in
            ["delete table inet nodelocaldns-fallback", "flush chain inet nodelocaldns-fallback answer-input"]
        {
            shell(&format!("nft {break_it}"));
            let check = doctor(&cluster, &[]).check("fallback").clone();
            assert!(
                check["verdict"] == "warning"
                    && check["seen"].to_string().contains(&format!("nobody answers at {LOCAL}")),
                "{check}"
            );
            shell(&format!(
                "nft -f - <<'END'\ntable inet nodelocaldns-fallback\ndelete table inet nodelocaldns-fallback\n{kept}\nEND"
            ));
            assert_eq!(doctor(&cluster, &[]).check("fallback")["verdict"], "ok");
        }

        shell("iptables-nft -t raw -I PREROUTING -p udp --dport 53 -j ACCEPT");
        doctor(&cluster, &[]).complains("rule_order", "lets packets past our rules", "after ours");
        shell("iptables-nft -t raw -D PREROUTING 1");

        shell("iptables-nft -t raw -F");
        let said = doctor(&cluster, &[]);
        said.complains("rules", "rules are missing", "the agent puts them back");
        said.complains("queries", &format!("{} over udp: answered by somebody else", CLUSTER_IPS[0]), "see `rules`");
        said.complains("pod_path", CLUSTER_IPS[0], "rules");
        assert_eq!(said.json["intercepted"], false, "{said}");
        assert!(
            said.check("connections")["seen"].to_string().contains("10.244.2.2:53"),
            "KubeDNS's pod answers: {said}"
        );
    });
}

#[test]
fn doctor_names_a_server_that_is_ill_and_one_that_is_somebody_elses() {
    in_a_namespace("doctor::doctor_names_a_server_that_is_ill_and_one_that_is_somebody_elses", || {
        let cluster = Cluster::new();
        let mut agent = cluster.start("nftables", &[]);
        agent.await_interception();
        stop(agent.watchdog.pid());

        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("the option is there");
        let address: SocketAddr = format!("{LOCAL}:53").parse().expect("an address");
        socket.bind(&address.into()).expect("two may share an address");
        let said = Said::by(Command::new(binary()), &[]);
        said.complains("sockets", &format!("(process {})", std::process::id()), "not listen there");
        // From the agent's container other programs' descriptors cannot be seen, only that there is one more socket.
        let said = doctor(&cluster, &[]);
        assert!(["problem", "unknown"].map(Value::from).contains(&said.check("sockets")["verdict"]), "{said}");
        assert!(said.check("sockets")["seen"].to_string().contains("cannot be seen"), "{said}");
        drop(socket);

        stop(server(&agent));
        let said = doctor(&cluster, &[]);
        said.complains("agent", "answers nobody", "kill -CONT");
        said.complains("queries", "no answer", "our server does not answer");
        assert_eq!(said.json["intercepted"], false, "{said}");

        // With the watchdog the table goes, and the server.
        let localip = SERVED.join(",");
        agent.watchdog.signal(libc::SIGKILL);
        agent.watchdog.wait_exit(SOON).expect("a killed process ends");
        let has_none = || doctor(&cluster, &["-localip", &localip]).check("agent")["verdict"] == "problem";
        assert!(wait_until(SOON, has_none), "{}", doctor(&cluster, &["-localip", &localip]));
        let said = doctor(&cluster, &["-localip", &localip]);
        said.complains("agent", "none runs", "kubectl get pods");
        said.complains("rules", "rules are missing", "start the agent");
        said.complains("sockets", "nobody listens", "the agent starts a server");
        // Where there is a fallback, cluster DNS answers; there is none for the other address that is the agent's
        // alone.
        said.complains("queries", &format!("{LOCAL} over udp: answered by somebody else"), "see `rules`");
        said.complains("queries", &format!("{} over udp: nobody listens", LOCALS[1]), "start the agent");
        assert_eq!(said.check("fallback")["verdict"], "ok", "{said}");
        assert_eq!(said.json["intercepted"], false, "{said}");

        let output = cluster.program().arg("doctor").output().expect("the program runs");
        assert_eq!(output.status.code(), Some(2), "whose addresses? {}", everything(&output));
        assert!(everything(&output).contains("-localip"), "{}", everything(&output));
    });
}

#[test]
fn doctor_without_rights_says_what_it_could_not_see() {
    in_a_namespace("doctor::doctor_without_rights_says_what_it_could_not_see", || {
        let cluster = Cluster::new();
        let agent = cluster.start("nftables", &[]);
        agent.await_interception();
        let without_rights = || {
            let mut command = tool("setpriv");
            command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(binary());
            Said::by(command, &[])
        };
        let mut said = without_rights();
        wait_until(SOON, || {
            if said.status != 3 {
                said = without_rights();
            }
            said.status == 3
        });
        assert_eq!((said.status, said.names_with("problem")), (3, vec![]), "{said}");
        assert_eq!((&said.json["verdict"], &said.json["intercepted"]), (&"unknown".into(), &Value::Null), "{said}");
        for name in ["rules", "rule_order", "pod_path", "connections"] {
            assert_eq!(said.check(name)["verdict"], "unknown", "{name}: {said}");
        }
        assert!(said.check("rules")["seen"].to_string().contains("NET_ADMIN"), "{said}");
        for name in ["agent", "link", "addresses", "sockets", "queries", "name", "health"] {
            assert_eq!(said.check(name)["verdict"], "ok", "{name}: {said}");
        }
    });
}
