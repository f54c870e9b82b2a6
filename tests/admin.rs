//! The admin socket of the whole program, and `nodelocaldns cache`, which asks there.

mod support;

use hickory_proto::rr::RData;
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use support::client::{ask, loopback, metric};
use support::ports::free_port;
use support::processes::{kill_server, server};
use support::server::{Server, binary, reference_command, scratch, wait_until, write_corefile};
use support::steady::SteadyClient;
use support::upstream::{Upstream, address_rule};

const SOON: Duration = Duration::from_secs(60);

/// Of nobody on any machine.
const STRANGER: u32 = 61054;

/// Of his.
const CONNECTIONS: usize = 5000;

/// Connections that are served at a time.
const PLACES: usize = 16;

struct Scene {
    server: Server,
    upstream: Upstream,
    dns: u16,
    metrics: u16,
    label: String,
}

impl Scene {
    fn start(flags: &[&str]) -> Self {
        let rules = ["a", "b", "x.b"].map(|name| address_rule(&format!("{name}.example."), 300, "192.0.2.1"));
        let upstream = Upstream::start(rules.into(), None);
        let (dns, metrics) = (free_port(), free_port());
        let corefile = format!(
            "example.:{dns} {{\n bind 127.0.0.1\n cache 300\n prometheus 127.0.0.1:{}\n forward . 127.0.0.1:{}\n}}\n",
            free_port(),
            upstream.port
        );
        let folder = scratch();
        let path = write_corefile(folder.path(), &corefile);
        let label = format!("test-{dns}");
        let mut command = reference_command(&path, metrics);
        command.args(["--workers", "2", "--admin-socket", &label]).args(flags);
        let mut server = Server::spawn(command, folder);
        server.wait_ready(dns).unwrap_or_else(|error| panic!("{error}"));
        Self { server, upstream, dns, metrics, label }
    }

    /// The one address of a name.
    fn address(&self, name: &str) -> String {
        let answer = ask(loopback(self.dns), name, "A").unwrap_or_else(|| panic!("{name}\n{}", self.server.tail(20)));
        match answer.answers.first().map(|record| &record.data) {
            Some(RData::A(address)) => address.to_string(),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.arg("cache").args(arguments).args(["--admin-socket", &self.label]);
        command.output().expect("the program runs")
    }

    /// What is printed by a command that succeeds.
    fn cache(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.run(arguments);
        let (text, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{arguments:?}: {text}{errors}\n{}", self.server.tail(20));
        text.into_owned()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.cache(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The name of its admin socket.
    fn socket(&self) -> Option<SocketAddr> {
        let list = std::fs::read_to_string("/proc/net/unix").expect("the kernel tells");
        let start = format!("@nodelocaldns/{}/", self.label);
        let name = list.split_whitespace().find(|word| word.starts_with(&start))?;
        SocketAddr::from_abstract_name(&name[1..]).ok()
    }

    fn connect(&self) -> UnixStream {
        let address = self.socket().unwrap_or_else(|| panic!("no socket\n{}", self.server.tail(20)));
        let stream = UnixStream::connect_addr(&address).expect("somebody listens");
        stream.set_read_timeout(Some(SOON)).expect("an option");
        stream
    }
}

/// All that comes before the end.
fn read(mut stream: UnixStream) -> String {
    let mut text = Vec::new();
    // Reset where the other side has not read all.
    _ = stream.read_to_end(&mut text);
    String::from_utf8(text).expect("it is text")
}

#[test]
fn what_is_cached_is_seen_and_after_a_flush_the_next_query_asks_upstream() {
    let scene = Scene::start(&[]);
    for name in ["a.example.", "b.example.", "x.b.example."] {
        // More than once within a second, so that the packet caches have it.
        (0..50).for_each(|_| assert_eq!(scene.address(name), "192.0.2.1"));
    }
    assert!(ask(loopback(scene.dns), "missing.example.", "A").is_some());
    let stats = scene.json(&["stats"]);
    let cache = &stats["caches"][0];
    assert_eq!((&cache["zones"], &cache["success"]["entries"]), (&"example.".into(), &3.into()), "{stats}");
    assert_eq!((&cache["denial"]["entries"], &cache["success"]["capacity"]), (&1.into(), &9984.into()), "{stats}");
    assert!(stats["memory_used"].as_u64() > Some(0) && stats["memory_limit"].as_u64() > Some(1 << 20), "{stats}");
    assert!(scene.cache(&["stats"]).contains("3 of 9984"));
    let list = scene.json(&["list", "--filter", "*B.example", "--limit", "1"]);
    assert_eq!((&list["matched"], list["answers"].as_array().map(Vec::len)), (&2.into(), Some(1)), "{list}");
    let listed = scene.cache(&["list"]);
    assert!(listed.starts_with("4 of 4 answers\n") && listed.contains("x.b.example."), "{listed}");
    let got = scene.cache(&["get", "A.example", "--type", "A"]);
    assert!(got.contains(" IN A 192.0.2.1"), "{got}");
    let nothing = scene.run(&["get", "a.example", "--type", "AAAA"]);
    assert_eq!((nothing.status.code(), &*nothing.stdout), (Some(1), &b"no such answer is kept\n"[..]));

    let rules = ["a", "b", "x.b"].map(|name| address_rule(&format!("{name}.example."), 300, "192.0.2.2"));
    scene.upstream.set_rules(rules.into());
    assert_eq!(scene.address("a.example."), "192.0.2.1", "it is cached");
    assert_eq!(scene.cache(&["flush", "a.example"]), "1 answers are gone\n");
    // From as many sockets, so that each worker is asked.
    (0..30).for_each(|_| assert_eq!(scene.address("a.example."), "192.0.2.2"));
    assert_eq!(scene.address("x.b.example."), "192.0.2.1", "another name stays");
    assert_eq!(scene.cache(&["flush", "b.example", "--zone"]), "2 answers are gone\n");
    (0..30).for_each(|_| assert_eq!(scene.address("x.b.example."), "192.0.2.2"));
    let flushed = scene.json(&["flush", "all"]);
    assert_eq!(flushed["flushed"], 3, "a, x.b and what is missing: {flushed}");
    assert_eq!(scene.json(&["stats"])["memory_used"], 0);
    assert_eq!(metric(scene.metrics, "nodelocaldns_cache_flushes_total"), Some(3.0));
    let output = scene.server.output();
    assert!(output.contains("has flushed answers for b.example. and all below it: 2 were kept"), "{output}");
}

#[test]
fn flushes_in_the_midst_of_queries_cost_nobody_an_answer() {
    let scene = Scene::start(&[]);
    let client = SteadyClient::start(scene.dns);
    let began = Instant::now();
    let mut flushes = 0;
    while flushes < 20 || began.elapsed() < Duration::from_secs(3) {
        let mut stream = scene.connect();
        stream.write_all(b"{\"cache\":{\"flush\":\"all\"}}\n").expect("it reads");
        let answer = read(stream);
        assert!(answer.starts_with("{\"done\":{\"flushed\":"), "{answer}");
        flushes += 1;
    }
    client.await_queries();
    client.finish();
}

#[test]
fn a_request_that_is_none_or_endless_and_readers_that_do_not_read_keep_nobody_out() {
    let scene = Scene::start(&[]);
    (0..3).for_each(|_| assert_eq!(scene.address("a.example."), "192.0.2.1"));
    let mut nonsense = scene.connect();
    nonsense.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it reads");
    assert!(read(nonsense).starts_with("{\"failed\":\"not a request"));
    let mut endless = scene.connect();
    // The server closes before it has read all of it.
    while endless.write(&[b'x'; 65536]).is_ok() {}
    assert!(read(endless).starts_with("{\"failed\":\"the request is too long"));
    // All places taken by who says nothing, who is let go after a while.
    let is_full = || {
        let _silent: Vec<UnixStream> = (0..PLACES).map(|_| scene.connect()).collect();
        read(scene.connect()).contains("others ask already")
    };
    assert!(wait_until(SOON, is_full), "{}", scene.server.tail(20));
    assert_eq!(scene.address("a.example."), "192.0.2.1");
    assert!(wait_until(SOON, || scene.run(&["stats"]).status.success()));
    // More than a socket holds.
    (0..2000).for_each(|number| _ = ask(loopback(scene.dns), &format!("n{number}.example."), "A"));
    // All who ask, and do not read.
    let deaf: Vec<UnixStream> = (0..PLACES)
        .map(|_| {
            let mut stream = scene.connect();
            stream.write_all(b"{\"cache\":{\"list\":{\"limit\":10000}}}\n").expect("it reads");
            stream
        })
        .collect();
    assert!(wait_until(SOON, || scene.run(&["stats"]).status.success()));
    drop(deaf);
}

#[test]
fn a_stranger_gets_no_word_and_thousands_of_his_connections_keep_neither_root_nor_a_pod_waiting() {
    assert!(rustix::process::geteuid().is_root(), "run as root: only root can become another user");
    let scene = Scene::start(&[]);
    let address = scene.socket().expect("it listens");
    let client = SteadyClient::start(scene.dns);
    let flood = std::thread::spawn(move || {
        let user = Uid::from_raw(STRANGER);
        set_thread_res_uid(user, user, user).expect("root may");
        let (mut open, mut words) = (VecDeque::new(), 0);
        for _ in 0..CONNECTIONS {
            let Ok(mut stream) = UnixStream::connect_addr(&address) else { continue };
            _ = stream.write_all(b"{\"cache\":\"stats\"}\n");
            open.push_back(stream);
            // More than the server has waiting for it.
            if open.len() > 100
                && let Some(mut first) = open.pop_front()
            {
                words += first.read(&mut [0; 16]).unwrap_or(0);
            }
        }
        words
    });
    client.await_queries();
    let began = Instant::now();
    // The client has 65,536 queries for so long as it takes at most.
    while !flood.is_finished() && began.elapsed() < SOON {
        scene.cache(&["stats"]);
    }
    client.finish();
    assert_eq!(flood.join().expect("it does not panic"), 0, "nothing is said to a stranger");
    let told = scene.server.output().matches(&format!("user {STRANGER} has connected to the admin socket")).count();
    assert!((1..=3).contains(&told), "once a minute:\n{}", scene.server.tail(20));
}

#[test]
fn the_log_level_is_set_in_both_processes_over_reloads_and_for_the_next_server() {
    let scene = Scene::start(&[]);
    let log_level = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("log-level").args(arguments).args(["--admin-socket", &scene.label]);
        String::from_utf8(command.output().expect("the program runs").stdout).expect("it is text")
    };
    let output = || scene.server.output();
    assert_eq!(log_level(&[]), "info, as the Corefile says\n");
    // Which holds over a reload that configures another.
    log_level(&["info"]);
    assert!(output().contains("[INFO] user 0 has said so: the log level is info\n"), "{}", output());
    log_level(&["default"]);
    assert!(output().contains("[INFO] user 0 has said so: the log level is info, the default\n"), "{}", output());
    assert_eq!(log_level(&["debug"]), "debug; by the Corefile it would be info\n");
    assert!(output().contains("[INFO] user 0 has said so: the log level is debug\n"), "{}", output());
    assert!(wait_until(SOON, || output().contains("[INFO] watchdog: the log level is debug\n")), "{}", output());
    let corefile = std::fs::read_to_string(scene.server.corefile()).expect("it is ours");
    std::fs::write(scene.server.corefile(), format!("{corefile}# changed\n")).expect("it is ours");
    scene.server.signal(libc::SIGUSR1);
    scene.server.wait_output("the changed Corefile serves", SOON);
    let json: Value = serde_json::from_str(&log_level(&["--output", "json"])).expect("it is JSON");
    assert_eq!(json, serde_json::json!({ "level": "debug", "configured": "info", "set": "debug" }));

    assert_eq!(log_level(&["warning"]), "warning; by the Corefile it would be info\n");
    scene.cache(&["flush", "all"]);
    kill_server(scene.server.pid());
    let is_told = || output().contains("[INFO] as of the server before: the log level is warning\n");
    assert!(wait_until(SOON, is_told), "{}", output());
    assert!(wait_until(SOON, || log_level(&[]) == "warning; by the Corefile it would be info\n"), "{}", output());
    assert!(!output().contains("has flushed"), "{}", output());
    assert!(!output().contains("was ended by signal"), "the watchdog says that at level info: {}", output());
    assert_eq!(log_level(&["error"]), "error; by the Corefile it would be info\n");
    assert!(output().contains("[WARNING] user 0 has said so: the log level is error\n"), "{}", output());
    assert_eq!(log_level(&["default"]), "info, as the Corefile says\n");
    scene.cache(&["flush", "all"]);
    assert!(output().contains("has flushed all answers"), "{}", output());
}

#[test]
fn each_server_has_a_socket_of_its_own_and_with_off_there_is_none() {
    let scene = Scene::start(&[]);
    let before = server(scene.server.pid()).expect("it runs");
    scene.cache(&["stats"]);
    kill_server(scene.server.pid());
    assert!(wait_until(SOON, || server(scene.server.pid()).is_some_and(|now| now != before)));
    assert!(wait_until(SOON, || scene.run(&["stats"]).status.success()), "{}", scene.server.tail(20));

    let other = Scene::start(&["--admin-socket", "off"]);
    assert!(other.socket().is_none());
    let refused = other.run(&["stats"]);
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && errors.contains("admin socket"), "{errors}");
}
