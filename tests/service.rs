//! The program as it is used: started, checked, reloaded, stopped.

mod support;

use hickory_proto::op::Message;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use support::client::{PATIENCE, ask, loopback, metric, query, read_tcp, send_tcp};
use support::daemons::{Listen, start_unbound};
use support::namespace::Namespace;
use support::ports::free_port;
use support::server::{Server, binary, reference_command, scratch, wait_until, write_corefile};
use support::steady::SteadyClient;
use support::tools::{everything, require, run, write};
use support::upstream::{Reply, Rule, Upstream, address_rule};

/// How long a changed Corefile may take to be served, where the file asks for a look every 2 s.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// How long what has become free may take to be listened on: tries come after 1, 2, 4 … seconds, and a busy machine is
/// slow to the first.
const FREE_PATIENCE: Duration = Duration::from_secs(60);

// --- started without arguments

/// The program without arguments, in a network of its own, with `resolv_conf` for /etc/resolv.conf.
struct Plain {
    namespace: Namespace,
    server: Server,
    _files: tempfile::TempDir,
}

impl Plain {
    fn start(resolv_conf: &str) -> Self {
        let files = scratch();
        let resolv = write(files.path(), "resolv.conf", resolv_conf);
        let namespace = Namespace::new(&[(&resolv, "/etc/resolv.conf")]);
        let server = Server::spawn(namespace.command(binary()), scratch());
        server.wait_output("dig ", Duration::from_secs(10));
        let plain = Self { namespace, server, _files: files };
        let ready = wait_until(Duration::from_secs(5), || plain.kdig("localhost. A +short") == "127.0.0.1\n");
        assert!(ready, "localhost. is not answered on 127.0.0.1:1053:\n{}", plain.server.tail(12));
        plain
    }
    /// What kdig prints; dig refuses to run where resolv.conf is malformed.
    fn kdig(&self, arguments: &str) -> String {
        let mut command = self.namespace.command(require("kdig"));
        command.args(["@127.0.0.1", "-p", "1053", "+timeout=3", "+retry=0"]).args(arguments.split_whitespace());
        everything(&command.output().expect("nsenter runs"))
    }
}

#[test]
fn without_arguments_it_serves_localhost_and_prints_a_dig_line_that_works() {
    let plain = Plain::start("nameserver 127.0.0.2\n");
    let output = plain.server.output();
    assert!(output.contains("127.0.0.1:1053"), "it does not say where it listens:\n{output}");
    let line = output.lines().find_map(|line| line.find("dig ").map(|start| &line[start..])).expect("a dig line");
    let mut shell = plain.namespace.command("/bin/sh");
    let answer = run(shell.arg("-c").arg(line));
    assert!(!answer.trim().is_empty() && !answer.contains("no servers could be reached"), "{line} gave:\n{answer}");
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(plain.kdig(&format!("{transport} +short localhost. A")), "127.0.0.1\n");
        assert_eq!(plain.kdig(&format!("{transport} +short localhost. AAAA")), "::1\n");
        assert_eq!(
            plain.kdig(&format!("{transport} +short below.localhost. A")),
            "127.0.0.1\n",
            "RFC 6761 section 6.3"
        );
        assert_eq!(plain.kdig(&format!("{transport} +short -x 127.0.0.1")), "localhost.\n");
        assert_eq!(plain.kdig(&format!("{transport} +short -x ::1")), "localhost.\n");
    }
    assert!(plain.kdig("localhost. MX").contains("status: NOERROR"), "no data is no error");
}

#[test]
fn without_arguments_it_asks_the_nameserver_of_resolv_conf() {
    let plain = Plain::start("nameserver 127.0.0.2\n");
    let zone = "$TTL 300\n@ SOA ns host 1 3600 600 86400 30\n@ NS ns\nns A 127.0.0.2\na A 192.0.2.1\n";
    let listen = Listen { address: "127.0.0.2", port: 53, udp: true };
    let _nameserver =
        start_unbound(listen, &[("example.test", zone)], scratch(), |program| plain.namespace.command(program));
    let answered = wait_until(Duration::from_secs(10), || plain.kdig("+short a.example.test. A") == "192.0.2.1\n");
    assert!(answered, "{}\n{}", plain.kdig("a.example.test. A"), plain.server.tail(12));
}

#[test]
fn an_unusable_resolv_conf_is_said_and_does_not_stop_it() {
    for text in ["", "search example.test\n", "nameserver not-an-address\n"] {
        let plain = Plain::start(text);
        let output = plain.server.output();
        assert!(output.contains("resolv.conf"), "with {text:?} it says nothing of resolv.conf:\n{output}");
        assert!(plain.kdig("a.example.test. A").contains("status: SERVFAIL"), "with {text:?}");
    }
}

// --- check

fn check(files: &[&Path]) -> Output {
    Command::new(binary()).arg("check").args(files).output().expect("the program runs")
}

#[test]
fn check_accepts_a_good_corefile_with_status_0() {
    let folder = scratch();
    let good =
        write(folder.path(), "good", ".:1053 {\n bind 127.0.0.1\n errors\n cache 30\n forward . 192.0.2.53\n}\n");
    let output = check(&[&good]);
    assert_eq!(output.status.code(), Some(0), "{}", everything(&output));
}

#[test]
fn check_tells_every_error_with_its_place_and_the_nearest_word_and_status_1() {
    let folder = scratch();
    let corefile = ".:1053 {\n bind 127.0.0.1\n cahce 30\n forward . 192.0.2.53 {\n  polcy random\n }\n}\n";
    let bad = write(folder.path(), "bad", corefile);
    let output = check(&[&bad]);
    let said = everything(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let path = bad.display();
    for part in [
        format!("{path}:3:2"),
        format!("{path}:5:3"),
        "cahce".into(),
        "cache".into(),
        "polcy".into(),
        "policy".into(),
        "^".into(),
    ] {
        assert!(said.contains(&part), "{part:?} is not in:\n{said}");
    }
}

#[test]
fn check_looks_at_every_file_and_at_imports() {
    let folder = scratch();
    let good = write(folder.path(), "good", ".:1053 {\n whoami\n}\n");
    let imported = write(folder.path(), "imported", "nonsense\n");
    let bad = write(folder.path(), "bad", &format!(".:1053 {{\n whoami\n import {}\n}}\n", imported.display()));
    let output = check(&[&good, &bad]);
    let said = everything(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("{}:1:1", imported.display())), "the imported file's place is not in:\n{said}");
    assert_eq!(check(&[&good, &good]).status.code(), Some(0));
}

#[test]
fn check_names_a_file_that_is_not_there() {
    let folder = scratch();
    let missing = folder.path().join("no-such-file");
    let output = check(&[&missing]);
    assert_eq!(output.status.code(), Some(1));
    assert!(everything(&output).contains("no-such-file"), "{}", everything(&output));
}

#[test]
fn a_directive_of_the_reference_that_is_not_built_yet_is_refused_with_those_words() {
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", ".:1053 {\n whoami\n kubernetes cluster.local\n}\n");
    let output = check(&[&corefile]);
    let said = everything(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("kubernetes") && said.contains("yet"), "{said}");
}

// --- reloaded

/// A ConfigMap as the kubelet mounts it: the file is a link through `..data`, which a rename replaces.
struct ConfigMap {
    folder: tempfile::TempDir,
    versions: u32,
}

impl ConfigMap {
    fn new(corefile: &str) -> Self {
        let mut map = Self { folder: scratch(), versions: 0 };
        map.replace(corefile);
        std::os::unix::fs::symlink("..data/Corefile", map.corefile()).expect("the scratch folder can be written");
        map
    }
    fn corefile(&self) -> PathBuf {
        self.folder.path().join("Corefile")
    }
    fn replace(&mut self, corefile: &str) {
        self.versions += 1;
        let at = |name: &str| self.folder.path().join(name);
        let version = format!("..version_{}", self.versions);
        std::fs::create_dir(at(&version)).expect("the scratch folder can be written");
        write(&at(&version), "Corefile", corefile);
        std::os::unix::fs::symlink(&version, at("..data_tmp")).expect("the scratch folder can be written");
        std::fs::rename(at("..data_tmp"), at("..data")).expect("the scratch folder can be written");
        if self.versions > 1 {
            std::fs::remove_dir_all(at(&format!("..version_{}", self.versions - 1))).expect("the old version is there");
        }
    }
}

/// Serves `corefile` as a container would, without a template to render it from.
fn serve(corefile: &Path, port: u16) -> Server {
    let mut command = Command::new(binary());
    command
        .args(["-localip", "127.0.0.1", "-setupinterface=false", "-setupiptables=false", "-skipteardown", "-conf"])
        .arg(corefile);
    command.arg("-metrics-listen-address").arg(format!("127.0.0.1:{}", free_port()));
    let mut server = Server::spawn(command, scratch());
    server.wait_ready(port).unwrap_or_else(|e| panic!("{e}"));
    // The watchdog has opened the sockets; a server that reads them comes a moment later, and says so.
    server.wait_output(concat!("nodelocaldns ", env!("CARGO_PKG_VERSION"), " serves"), RELOAD_PATIENCE);
    server
}

/// An upstream that says `address` whatever it is asked for, so that an answer tells who gave it.
fn upstream_saying(address: &str) -> Upstream {
    let address = (*address).to_owned();
    // Names are the client's own, so each query is answered by a rule for its name.
    let mut rules = vec![address_rule("steady.example.", 60, &address), address_rule("kept.example.", 60, &address)];
    rules.push(address_rule("who.example.", 0, &address));
    Upstream::start(rules, None)
}

/// Ports of one served Corefile.
struct Ports {
    dns: u16,
    metrics: u16,
}

impl Ports {
    fn new() -> Self {
        Self { dns: free_port(), metrics: free_port() }
    }
    /// who.example. is never cached, everything else is.
    fn corefile(&self, upstream: u16, reload: &str) -> String {
        self.corefile_with(&format!("forward . 127.0.0.1:{upstream}"), upstream, reload)
    }
    /// Names but who.example. are answered by `forward`.
    fn corefile_with(&self, forward: &str, who: u16, reload: &str) -> String {
        let Self { dns, metrics } = self;
        format!(
            ".:{dns} {{\n bind 127.0.0.1\n cache 300\n {reload}\n prometheus 127.0.0.1:{metrics}\n {forward}\n}}\n\
             who.example:{dns} {{\n bind 127.0.0.1\n forward . 127.0.0.1:{who}\n}}\n"
        )
    }
    fn kept(&self) -> Option<String> {
        let answer = ask(loopback(self.dns), "kept.example.", "A")?;
        answer.answers.first().map(|record| record.data.to_string())
    }
    fn who(&self) -> Option<String> {
        let answer = ask(loopback(self.dns), "who.example.", "A")?;
        answer.answers.first().map(|record| record.data.to_string())
    }
    fn wait_who(&self, address: &str, server: &Server) {
        let served = wait_until(RELOAD_PATIENCE, || self.who().as_deref() == Some(address));
        assert!(served, "the changed Corefile was not served within {RELOAD_PATIENCE:?}:\n{}", server.tail(20));
    }
}

const RELOAD: &str = "reload 2s 1s";

#[test]
fn a_configmaps_swap_is_served_and_no_query_is_lost() {
    let (first, second) = (upstream_saying("192.0.2.1"), upstream_saying("192.0.2.2"));
    let ports = Ports::new();
    let mut map = ConfigMap::new(&ports.corefile(first.port, RELOAD));
    let server = serve(&map.corefile(), ports.dns);
    assert_eq!(ports.who().as_deref(), Some("192.0.2.1"));
    let client = SteadyClient::start(ports.dns);
    for (upstream, address) in [(&second, "192.0.2.2"), (&first, "192.0.2.1")] {
        std::thread::sleep(Duration::from_millis(500));
        map.replace(&ports.corefile(upstream.port, RELOAD));
        ports.wait_who(address, &server);
    }
    std::thread::sleep(Duration::from_millis(500));
    client.finish();
}

/// Changes what is listened on so many times under load; what both the Corefile before and the one after serve is
/// answered all the while.
fn no_query_is_lost(first: &str, second: &str) {
    let upstream = upstream_saying("192.0.2.1");
    let (dns, other) = (free_port(), free_port());
    let text = |template: &str| {
        let text = template.replace("{dns}", &dns.to_string()).replace("{other}", &other.to_string());
        text.replace(
            "{rest}",
            &format!("cache 300\n reload\n forward . 127.0.0.1:{} {{\n  force_tcp\n }}\n", upstream.port),
        )
    };
    let folder = scratch();
    let path = write(folder.path(), "Corefile", &text(first));
    let server = serve(&path, dns);
    let client = SteadyClient::start(dns);
    for round in 0..20 {
        std::thread::sleep(Duration::from_millis(150));
        std::fs::write(&path, text(if round % 2 == 0 { second } else { first }))
            .expect("the scratch folder can be written");
        let served = || server.output().matches("the changed Corefile serves").count() > round;
        assert!(wait_until(RELOAD_PATIENCE, served), "round {round}:\n{}", server.tail(20));
    }
    let (udp, tcp) = client.hit_counter();
    assert_eq!((udp.lost, udp.failed), (0, 0), "over UDP: {udp:?}");
    assert_eq!((tcp.lost, tcp.failed), (0, 0), "over TCP: {tcp:?}");
}

#[test]
fn an_address_that_comes_and_goes_costs_the_one_that_stays_no_answer() {
    no_query_is_lost(".:{dns} {\n bind 127.0.0.1\n {rest}}\n", ".:{dns} {\n bind 127.0.0.1 127.0.0.2\n {rest}}\n");
}

#[test]
fn a_port_that_comes_and_goes_costs_the_one_that_stays_no_answer() {
    no_query_is_lost(".:{dns} {\n bind 127.0.0.1\n {rest}}\n", ".:{dns} .:{other} {\n bind 127.0.0.1\n {rest}}\n");
}

#[test]
fn an_address_that_gives_way_to_all_and_comes_back_loses_no_answer() {
    no_query_is_lost(".:{dns} {\n bind 127.0.0.1\n {rest}}\n", ".:{dns} {\n {rest}}\n");
}

#[test]
fn all_ipv4_addresses_that_give_way_to_all_and_come_back_lose_no_answer() {
    no_query_is_lost(".:{dns} {\n bind 0.0.0.0\n {rest}}\n", ".:{dns} {\n {rest}}\n");
}

#[test]
fn a_port_that_changes_answers_what_it_has_received() {
    let slow = Reply { delay: 1.0, answer: vec!["slow.example. 60 IN A 192.0.2.9".to_owned()], ..Reply::default() };
    let upstream = Upstream::start(
        vec![Rule { name: "slow.example.".to_owned(), rtype: "A".to_owned(), via: None, reply: slow }],
        None,
    );
    let (before, after) = (free_port(), free_port());
    let text = |port: u16| {
        let upstream = upstream.port;
        format!(".:{port} {{\n bind 127.0.0.1\n reload\n forward . 127.0.0.1:{upstream} {{\n  force_tcp\n }}\n}}\n")
    };
    let folder = scratch();
    let path = write(folder.path(), "Corefile", &text(before));
    let server = serve(&path, before);
    let asking: Vec<_> =
        (0..4).map(|_| std::thread::spawn(move || ask(loopback(before), "slow.example.", "A"))).collect();
    std::thread::sleep(Duration::from_millis(300));
    std::fs::write(&path, text(after)).expect("the scratch folder can be written");
    assert!(
        wait_until(RELOAD_PATIENCE, || ask(loopback(after), "slow.example.", "A").is_some()),
        "{}",
        server.tail(20)
    );
    for asking in asking {
        let answer = asking.join().expect("the client does not panic").expect("what was in flight is answered");
        assert_eq!(answer.answers.len(), 1, "{answer:?}");
    }
}

#[test]
fn queries_that_wait_for_an_upstream_over_tcp_survive_a_swap_and_a_drain() {
    let slow = Reply { delay: 1.0, answer: vec!["slow.example. 60 IN A 192.0.2.9".to_owned()], ..Reply::default() };
    let upstream = Upstream::start(
        vec![Rule { name: "slow.example.".to_owned(), rtype: "A".to_owned(), via: None, reply: slow }],
        None,
    );
    let port = free_port();
    let text = |option: &str| {
        let upstream = upstream.port;
        format!(
            ".:{port} {{\n bind 127.0.0.1\n reload\n forward . 127.0.0.1:{upstream} {{\n  force_tcp\n  {option}\n }}\n}}\n"
        )
    };
    for is_drain in [false, true] {
        let folder = scratch();
        let path = write(folder.path(), "Corefile", &text("expire 10s"));
        let mut server = serve(&path, port);
        let asking: Vec<_> =
            (0..8).map(|_| std::thread::spawn(move || ask(loopback(port), "slow.example.", "A"))).collect();
        std::thread::sleep(Duration::from_millis(300));
        if is_drain {
            server.signal(libc::SIGTERM);
        } else {
            std::fs::write(&path, text("expire 20s")).expect("the scratch folder can be written");
            server.wait_output("the changed Corefile serves", RELOAD_PATIENCE);
        }
        for asking in asking {
            let answer = asking.join().expect("the client does not panic").expect("what was in flight is answered");
            assert_eq!(answer.answers.len(), 1, "{answer:?}");
        }
        if is_drain {
            assert!(server.wait_exit(PATIENCE).is_some_and(|status| status.success()));
        }
    }
}

#[test]
fn a_file_written_in_place_is_served_and_the_cache_and_its_counters_live_on() {
    let (first, second) = (upstream_saying("192.0.2.1"), upstream_saying("192.0.2.2"));
    let ports = Ports::new();
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &ports.corefile(first.port, RELOAD));
    let server = serve(&corefile, ports.dns);
    assert_eq!(ports.kept().as_deref(), Some("192.0.2.1"));
    let misses = metric(ports.metrics, "coredns_cache_misses_total");
    assert!(misses >= Some(1.0));
    // The same upstream answers, though it is asked in another way.
    let forward = format!("forward . 127.0.0.1:{} {{\n  max_concurrent 1000\n }}", first.port);
    first.take_seen();
    write(folder.path(), "Corefile", &ports.corefile_with(&forward, second.port, RELOAD));
    ports.wait_who("192.0.2.2", &server);
    assert_eq!(ports.kept().as_deref(), Some("192.0.2.1"));
    assert!(!first.take_seen().contains_key("udp kept.example. A"), "it was asked again");
    assert_eq!(metric(ports.metrics, "coredns_cache_misses_total"), misses);
}

#[test]
fn a_reload_that_changes_who_answers_begins_the_cache_anew() {
    let (first, second) = (upstream_saying("192.0.2.1"), upstream_saying("192.0.2.2"));
    let ports = Ports::new();
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &ports.corefile(first.port, RELOAD));
    let server = serve(&corefile, ports.dns);
    assert_eq!(ports.kept().as_deref(), Some("192.0.2.1"));
    write(folder.path(), "Corefile", &ports.corefile(second.port, RELOAD));
    ports.wait_who("192.0.2.2", &server);
    assert_eq!(ports.kept().as_deref(), Some("192.0.2.2"));
}

#[test]
fn what_a_changed_corefile_has_that_is_not_heeded_is_told() {
    let upstream = upstream_saying("192.0.2.1");
    let ports = Ports::new();
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &ports.corefile(upstream.port, "bufsize 1000"));
    let server = serve(&corefile, ports.dns);
    write(folder.path(), "Corefile", &ports.corefile(upstream.port, "bufsize 1000\n bufsize 1200"));
    server.signal(libc::SIGUSR1);
    server.wait_output("Corefile:5:2: warning: ", RELOAD_PATIENCE);
}

#[test]
fn sigusr1_begins_the_caches_anew() {
    let upstream = upstream_saying("192.0.2.1");
    let ports = Ports::new();
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &ports.corefile(upstream.port, ""));
    let server = serve(&corefile, ports.dns);
    assert_eq!(ports.kept().as_deref(), Some("192.0.2.1"));
    upstream.take_seen();
    server.signal(libc::SIGUSR1);
    let is_asked_again = || ports.kept().is_some() && upstream.take_seen().contains_key("udp kept.example. A");
    assert!(wait_until(RELOAD_PATIENCE, is_asked_again), "the old answer is served on:\n{}", server.tail(20));
}

/// Queries of different lengths among datagrams that get no answer, so that a batch's replies are not where its queries
/// are.
#[test]
fn each_of_the_replies_of_a_burst_is_counted_with_its_own_query() {
    let upstream = upstream_saying("192.0.2.1");
    let ports = Ports::new();
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &ports.corefile(upstream.port, ""));
    let server = serve(&corefile, ports.dns);
    let series = |transport: &str| {
        let zone = r#"zone=".""#;
        [
            format!(r#"coredns_dns_requests_total{{proto="{transport}",type="A",{zone}}}"#),
            format!(r#"coredns_dns_request_size_bytes_sum{{proto="{transport}",{zone}}}"#),
            format!(r#"coredns_dns_response_size_bytes_sum{{proto="{transport}",{zone}}}"#),
            format!(r#"coredns_dns_responses_total{{plugin="cache",rcode="NOERROR",{zone}}}"#),
            r#"coredns_cache_hits_total{type="success"}"#.to_owned(),
        ]
    };
    let counts = |transport| series(transport).map(|series| metric(ports.metrics, &series).unwrap_or_default());
    let socket = UdpSocket::bind(loopback(0)).expect("a socket");
    socket.connect(loopback(ports.dns)).expect("a loopback address");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
    let wires =
        ["kept.example.", "steady.example."].map(|name| query(name, "A").to_vec().expect("a query of ours encodes"));
    for wire in &wires {
        socket.send(wire).expect("the query is sent");
        socket.recv(&mut [0; 512]).expect("an answer");
    }
    let (mut stream, mut buffer) = (TcpStream::connect(loopback(ports.dns)).expect("a connection"), [0; 512]);
    for transport in ["udp", "tcp"] {
        let mut expected = counts(transport);
        for _ in 0..50 {
            for wire in [&wires[0], &wires[1], &wires[1], &wires[0]] {
                if transport == "udp" {
                    socket.send(b"no query").expect("a datagram is sent");
                    socket.send(wire).expect("the query is sent");
                } else {
                    send_tcp(&mut stream, wire).expect("the query is sent");
                }
            }
            for _ in 0..4 {
                let length = match transport {
                    "udp" => socket.recv(&mut buffer).expect("an answer"),
                    _ => read_tcp(&mut stream).expect("an answer").len(),
                };
                expected[2] += length as f64;
            }
            let asked = 2 * (wires[0].len() + wires[1].len());
            for (sum, more) in expected.iter_mut().zip([4.0, asked as f64, 0.0, 4.0, 4.0]) {
                *sum += more;
            }
        }
        // What is repeated is counted after it was sent.
        assert!(wait_until(PATIENCE, || counts(transport) == expected), "{:?}, not {expected:?}", counts(transport));
    }
    drop(server);
}

#[test]
fn a_bad_corefile_is_refused_and_the_old_one_serves_on() {
    let (first, second) = (upstream_saying("192.0.2.1"), upstream_saying("192.0.2.2"));
    let ports = Ports::new();
    let mut map = ConfigMap::new(&ports.corefile(first.port, RELOAD));
    let server = serve(&map.corefile(), ports.dns);
    let failures = || metric(ports.metrics, "coredns_reload_failed_total").unwrap_or_default();
    assert_eq!(failures(), 0.0);
    let client = SteadyClient::start(ports.dns);
    map.replace(&ports.corefile(second.port, "reload 2s 1s\n cahce 30"));
    let refused = wait_until(RELOAD_PATIENCE, || failures() >= 1.0);
    assert!(refused, "coredns_reload_failed_total stayed 0:\n{}", server.tail(20));
    let output = server.output();
    assert!(output.contains("Corefile:5:2") && output.contains("cahce"), "the error's place is not told:\n{output}");
    assert_eq!(ports.who().as_deref(), Some("192.0.2.1"), "the old plan serves on");
    map.replace(&ports.corefile(second.port, RELOAD));
    ports.wait_who("192.0.2.2", &server);
    std::thread::sleep(Duration::from_millis(500));
    client.finish();
}

#[test]
fn a_corefile_that_is_refused_for_want_of_a_file_is_served_as_soon_as_that_comes() {
    let (first, second) = (upstream_saying("192.0.2.1"), upstream_saying("192.0.2.2"));
    let ports = Ports::new();
    let mut map = ConfigMap::new(&ports.corefile(first.port, "reload 1h"));
    let server = serve(&map.corefile(), ports.dns);
    let wanted = scratch();
    let corefile = |more: &str| {
        format!(
            "{}wanted.example:{} {{\n bind 127.0.0.1\n {more}\n}}\n",
            ports.corefile(second.port, "reload 1h"),
            ports.dns
        )
    };
    let certified = rcgen::generate_simple_self_signed(["dns.example".to_owned()]).expect("a certificate is made");
    let cases = [
        ("part", "whoami\n".to_owned(), format!("import {}", wanted.path().join("part").display())),
        (
            "ca.crt",
            certified.cert.pem(),
            format!("forward . tls://127.0.0.1 {{\n  tls {}\n }}", wanted.path().join("ca.crt").display()),
        ),
        (
            "upstreams",
            "nameserver 127.0.0.1\n".to_owned(),
            format!("forward . {}", wanted.path().join("upstreams").display()),
        ),
    ];
    for (count, (name, text, more)) in (1..).zip(cases) {
        map.replace(&corefile(&more));
        let failures = || metric(ports.metrics, "coredns_reload_failed_total").unwrap_or_default();
        let refused = wait_until(RELOAD_PATIENCE, || failures() >= f64::from(count));
        assert!(refused && ports.who().as_deref() == Some("192.0.2.1"), "{name}:\n{}", server.tail(20));
        write(wanted.path(), name, &text);
        ports.wait_who("192.0.2.2", &server);
        map.replace(&ports.corefile(first.port, "reload 1h"));
        ports.wait_who("192.0.2.1", &server);
        assert_eq!(failures(), f64::from(count), "{name}");
    }
}

#[test]
fn an_emptied_corefile_is_refused_and_the_old_one_serves_on() {
    let upstream = upstream_saying("192.0.2.1");
    let ports = Ports::new();
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &ports.corefile(upstream.port, ""));
    let server = serve(&corefile, ports.dns);
    let failures = || metric(ports.metrics, "coredns_reload_failed_total").unwrap_or_default();
    let texts = ["", "# nothing\n", "(unused) {\n whoami\n}\n", "10.0.0.0/33 {\n bind 127.0.0.1\n whoami\n}\n"];
    for (number, text) in texts.into_iter().enumerate() {
        write(folder.path(), "Corefile", text);
        server.signal(libc::SIGUSR1);
        let refused = wait_until(RELOAD_PATIENCE, || failures() > number as f64);
        assert!(refused, "{text:?} was not refused:\n{}", server.tail(20));
        assert_eq!(ports.who().as_deref(), Some("192.0.2.1"), "the old plan serves on");
    }
}

#[test]
fn a_pipe_in_the_place_of_the_corefile_is_refused_and_the_old_one_serves_on() {
    let (first, second) = (upstream_saying("192.0.2.1"), upstream_saying("192.0.2.2"));
    let ports = Ports::new();
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &ports.corefile(first.port, ""));
    let server = serve(&corefile, ports.dns);
    let failures = || metric(ports.metrics, "coredns_reload_failed_total").unwrap_or_default();
    std::fs::remove_file(&corefile).expect("the Corefile is there");
    assert!(Command::new("mkfifo").arg(&corefile).status().expect("mkfifo runs").success());
    server.signal(libc::SIGUSR1);
    assert!(wait_until(RELOAD_PATIENCE, || failures() >= 1.0), "it was not refused:\n{}", server.tail(20));
    std::fs::remove_file(&corefile).expect("the pipe is there");
    write(folder.path(), "Corefile", &ports.corefile(second.port, ""));
    server.signal(libc::SIGUSR1);
    ports.wait_who("192.0.2.2", &server);
}

/// As a program that is no node's agent.
#[test]
fn a_corefile_that_goes_or_becomes_a_pipe_is_told_once_and_served_when_it_is_a_file_again() {
    let (first, second) = (upstream_saying("192.0.2.1"), upstream_saying("192.0.2.2"));
    let ports = Ports::new();
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &ports.corefile(first.port, RELOAD));
    let mut command = Command::new(binary());
    command.arg("-conf").arg(&corefile);
    let mut server = Server::spawn(command, scratch());
    server.wait_ready(ports.dns).unwrap_or_else(|e| panic!("{e}"));
    ports.wait_who("192.0.2.1", &server);
    let is_refused = |expected: f64| {
        let is_so = || metric(ports.metrics, "nodelocaldns_configuration_refused") == Some(expected);
        assert!(wait_until(RELOAD_PATIENCE, is_so), "not {expected}:\n{}", server.tail(20));
    };
    let failures = || metric(ports.metrics, "coredns_reload_failed_total").unwrap_or_default();
    is_refused(0.0);
    let aside = folder.path().join("aside");
    std::fs::rename(&corefile, &aside).expect("the Corefile is there");
    is_refused(1.0);
    // Looks go on.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(failures(), 1.0, "{}", server.tail(20));
    std::fs::rename(&aside, &corefile).expect("it is there");
    is_refused(0.0);

    std::fs::remove_file(&corefile).expect("the Corefile is there");
    assert!(Command::new("mkfifo").arg(&corefile).status().expect("mkfifo runs").success());
    is_refused(1.0);
    std::fs::remove_file(&corefile).expect("the pipe is there");
    write(folder.path(), "Corefile", &ports.corefile(second.port, RELOAD));
    ports.wait_who("192.0.2.2", &server);
    is_refused(0.0);
}

#[test]
fn sigusr1_reloads_a_corefile_that_does_not_ask_to_be_watched() {
    let (first, second) = (upstream_saying("192.0.2.1"), upstream_saying("192.0.2.2"));
    let ports = Ports::new();
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &ports.corefile(first.port, ""));
    let server = serve(&corefile, ports.dns);
    let client = SteadyClient::start(ports.dns);
    write(folder.path(), "Corefile", &ports.corefile(second.port, ""));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ports.who().as_deref(), Some("192.0.2.1"), "nobody asked for the change yet");
    server.signal(libc::SIGUSR1);
    ports.wait_who("192.0.2.2", &server);
    std::thread::sleep(Duration::from_millis(500));
    client.finish();
}

// --- addresses that cannot be listened on

/// Has a port as another program would, which shares it with nobody.
fn hold(port: u16) -> TcpListener {
    TcpListener::bind(loopback(port)).expect("the port is free")
}

/// The body that is served at `path`, if anything is.
fn get(port: u16, path: &str) -> Option<String> {
    let answer = minreq::get(format!("http://127.0.0.1:{port}{path}")).with_timeout(5).send().ok()?;
    (answer.status_code == 200).then(|| answer.as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_port_of_health_ready_or_metrics_that_another_has_costs_no_dns_and_is_served_once_it_is_free() {
    let [dns, metrics, health, ready, watchdog] = std::array::from_fn(|_| free_port());
    let held = [metrics, health, ready, watchdog].map(hold);
    let folder = scratch();
    let text = format!(
        ".:{dns} {{\n bind 127.0.0.1\n whoami\n prometheus 127.0.0.1:{metrics}\n health 127.0.0.1:{health}\n \
         ready 127.0.0.1:{ready}\n}}\n"
    );
    let corefile = write_corefile(folder.path(), &text);
    let mut server = Server::spawn(reference_command(&corefile, watchdog), folder);
    server.wait_ready(dns).unwrap_or_else(|e| panic!("{e}"));
    assert!(wait_until(PATIENCE, || ask(loopback(dns), "a.example.", "A").is_some()), "{}", server.tail(20));
    for port in [metrics, health, ready, watchdog] {
        server.wait_output(&format!("cannot listen on 127.0.0.1:{port} for HTTP"), PATIENCE);
    }
    drop(held);
    for (port, path) in [(metrics, "/metrics"), (health, "/health"), (ready, "/ready"), (watchdog, "/metrics")] {
        assert!(wait_until(FREE_PATIENCE, || get(port, path).is_some()), "{port}{path}:\n{}", server.tail(20));
        let told = server.output().matches(&format!("cannot listen on 127.0.0.1:{port} ")).count();
        assert_eq!(told, 1, "it is told once:\n{}", server.tail(20));
    }
    // One by the watchdog and three by the server at the least.
    let counted = metric(watchdog, r#"coredns_nodecache_setup_errors_total{errortype="http_listen"}"#);
    assert!(counted >= Some(4.0), "{counted:?}");
}

#[test]
fn a_changed_corefile_is_served_though_another_has_the_port_of_its_metrics() {
    let upstream = upstream_saying("192.0.2.1");
    let (before, after) = (Ports::new(), Ports::new());
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &before.corefile(upstream.port, RELOAD));
    let server = serve(&corefile, before.dns);
    let held = hold(after.metrics);
    write(folder.path(), "Corefile", &after.corefile(upstream.port, RELOAD));
    after.wait_who("192.0.2.1", &server);
    server.wait_output(&format!("cannot listen on 127.0.0.1:{} for HTTP", after.metrics), PATIENCE);
    drop(held);
    assert!(wait_until(FREE_PATIENCE, || get(after.metrics, "/metrics").is_some()), "{}", server.tail(20));
}

#[test]
fn a_changed_corefile_whose_dns_port_another_has_is_served_by_itself_once_it_is_free() {
    let (first, second) = (upstream_saying("192.0.2.1"), upstream_saying("192.0.2.2"));
    let (before, after) = (Ports::new(), Ports { metrics: free_port(), dns: free_port() });
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", &before.corefile(first.port, RELOAD));
    let server = serve(&corefile, before.dns);
    let held = UdpSocket::bind(loopback(after.dns)).expect("the port is free");
    write(folder.path(), "Corefile", &after.corefile(second.port, RELOAD));
    server.wait_output(&format!("cannot listen on 127.0.0.1:{} for DNS over UDP", after.dns), RELOAD_PATIENCE);
    assert_eq!(before.who().as_deref(), Some("192.0.2.1"), "the old plan serves on");
    assert_eq!(metric(before.metrics, "coredns_reload_failed_total"), Some(1.0));
    drop(held);
    assert!(wait_until(FREE_PATIENCE, || after.who().as_deref() == Some("192.0.2.2")), "{}", server.tail(20));
    let refusals = server.output().matches("the changed Corefile is refused").count();
    assert_eq!((refusals, metric(after.metrics, "coredns_reload_failed_total")), (1, Some(1.0)), "{}", server.tail(20));
}

#[test]
fn a_rendered_corefile_whose_dns_port_another_has_is_served_and_written_once_it_is_free() {
    let [before, after] = std::array::from_fn(|_| free_port());
    let mut server = Server::start(&format!(".:{before} {{\n bind 127.0.0.1\n whoami\n}}\n"), before);
    server.wait_ready(before).unwrap_or_else(|e| panic!("{e}"));
    let held = UdpSocket::bind(loopback(after)).expect("the port is free");
    let changed = format!(".:{after} {{\n bind 127.0.0.1\n whoami\n}}\n");
    write(server.folder.path(), "Corefile.base", &changed);
    server.wait_output(&format!("cannot listen on 127.0.0.1:{after} for DNS over UDP"), RELOAD_PATIENCE);
    assert!(ask(loopback(before), "a.example.", "A").is_some(), "the old plan serves on");
    drop(held);
    let served = wait_until(FREE_PATIENCE, || ask(loopback(after), "a.example.", "A").is_some());
    assert!(served, "{}", server.tail(20));
    let written = wait_until(PATIENCE, || std::fs::read_to_string(server.corefile()).is_ok_and(|text| text == changed));
    assert!(written, "{}", server.tail(20));
}

/// As where kubelet's probe asks an address that a link gets later.
#[test]
fn health_on_an_address_that_the_machine_does_not_have_costs_no_dns_and_is_served_once_it_has_it() {
    let namespace = Namespace::new(&[]);
    let folder = scratch();
    let corefile = write(folder.path(), "Corefile", ".:1053 {\n bind 127.0.0.1\n whoami\n health 192.0.2.1:8080\n}\n");
    let mut command = namespace.command(binary());
    command.arg("-conf").arg(corefile);
    let server = Server::spawn(command, folder);
    server.wait_output("no interface of this machine has the address 192.0.2.1", RELOAD_PATIENCE);
    let asked = || {
        let mut dig = namespace.command(require("kdig"));
        dig.args(["@127.0.0.1", "-p", "1053", "+timeout=3", "+retry=0", "+short", "a.example.", "A"]);
        everything(&dig.output().expect("nsenter runs"))
    };
    assert!(wait_until(PATIENCE, || !asked().contains("WARNING")), "{}\n{}", asked(), server.tail(20));
    run(namespace.command("ip").args(["address", "add", "192.0.2.1/32", "dev", "lo"]));
    server.wait_output("HTTP is served on every address", FREE_PATIENCE);
}

// --- stopped

#[test]
fn sigterm_answers_what_was_received_and_leaves_with_status_0() {
    let reply = Reply { answer: vec!["slow.example. 0 IN A 192.0.2.7".to_owned()], delay: 0.7, ..Reply::default() };
    let rule = Rule { name: "slow.example.".to_owned(), rtype: "A".to_owned(), via: None, reply };
    let upstream = Upstream::start(vec![rule], None);
    let port = free_port();
    let corefile = format!(".:{port} {{\n bind 127.0.0.1\n forward . 127.0.0.1:{}\n}}\n", upstream.port);
    let mut server = Server::start(&corefile, port);
    let wire = query("slow.example.", "A").to_vec().expect("a query of ours encodes");
    let udp = UdpSocket::bind(loopback(0)).expect("a socket");
    udp.connect(loopback(port)).expect("loopback");
    udp.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    udp.send(&wire).expect("loopback");
    let mut tcp = TcpStream::connect(loopback(port)).expect("it serves TCP");
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    send_tcp(&mut tcp, &wire).expect("it reads");
    let arrived = || upstream.take_seen().values().sum::<u32>() > 0;
    assert!(wait_until(PATIENCE, arrived), "no query reached the upstream");
    std::thread::sleep(Duration::from_millis(100));

    let stopped = Instant::now();
    server.signal(libc::SIGTERM);
    let mut buffer = [0; 512];
    let length =
        udp.recv(&mut buffer).unwrap_or_else(|e| panic!("the query over UDP was lost: {e}\n{}", server.tail(12)));
    let over_tcp =
        read_tcp(&mut tcp).unwrap_or_else(|e| panic!("the query over TCP was lost: {e}\n{}", server.tail(12)));
    for answer in [&buffer[..length], &over_tcp] {
        let answer = Message::from_vec(answer).expect("the answer is well-formed");
        assert_eq!(answer.answers.len(), 1, "{answer:?}");
    }
    let status = server.wait_exit(Duration::from_secs(5).saturating_sub(stopped.elapsed()));
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(0),
        "{status:?} within 5 s of SIGTERM:\n{}",
        server.tail(12)
    );
}

#[test]
fn sigterm_ends_it_though_a_client_holds_its_connection_open() {
    let port = free_port();
    let mut server = Server::start(&format!(".:{port} {{\n bind 127.0.0.1\n whoami\n}}\n"), port);
    let mut idle = TcpStream::connect(loopback(port)).expect("it serves TCP");
    idle.set_read_timeout(Some(Duration::from_secs(6))).expect("a timeout above zero");
    server.signal(libc::SIGTERM);
    let status = server.wait_exit(Duration::from_secs(5));
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(0),
        "{status:?} within 5 s of SIGTERM:\n{}",
        server.tail(12)
    );
    assert_eq!(idle.read(&mut [0; 1]).ok(), Some(0), "the connection is closed");
}

// --- waits

/// As a preStop hook runs it, beside the container's own process.
#[test]
fn sleep_ends_with_status_0_after_the_time_and_says_nothing() {
    let started = Instant::now();
    let output = Command::new(binary()).args(["sleep", "300ms"]).output().expect("the program runs");
    assert_eq!((output.status.code(), everything(&output).as_str()), (Some(0), ""));
    assert!(started.elapsed() >= Duration::from_millis(300), "no sooner than asked for");
}

// --- refused

#[test]
fn an_unknown_flag_is_named() {
    let output = Command::new(binary()).arg("--no-such-flag").output().expect("the program runs");
    assert!(!output.status.success());
    assert!(everything(&output).contains("no-such-flag"), "{}", everything(&output));
}

#[test]
fn a_missing_corefile_is_named() {
    let output = Command::new(binary()).args(["-conf", "/no/such/Corefile"]).output().expect("the program runs");
    assert!(!output.status.success());
    assert!(everything(&output).contains("/no/such/Corefile"), "{}", everything(&output));
}

#[test]
fn a_corefile_from_standard_input_without_end_is_refused_beyond_16_mib() {
    let endless = std::fs::File::open("/dev/zero").expect("every machine has it");
    let output = Command::new(binary()).args(["-conf", "stdin"]).stdin(endless).output().expect("the program runs");
    let told = everything(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot read the Corefile from standard input: it has more than 16777216 octets"), "{told}");
}
