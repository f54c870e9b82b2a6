//! What the whole program says of what it is asked: `/status.json` on the metrics port, and `top`.

mod support;

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::client::{ask, exchange_udp, http, loopback, metric, query};
use support::namespace::Namespace;
use support::ports::free_port;
use support::processes::ServerKiller;
use support::server::{Server, binary, reference_command, scratch, wait_until, write_corefile};
use support::upstream::{Reply, Rule, Upstream, address_rule};

const SOON: Duration = Duration::from_secs(30);

struct Scene {
    server: Server,
    _upstream: Upstream,
    dns: u16,
    metrics: u16,
}

impl Scene {
    fn start(flags: &[&str]) -> Self {
        let rule = |name: &str, reply: Reply| Rule { name: name.to_owned(), rtype: "*".to_owned(), via: None, reply };
        let slow = Reply { delay: 0.6, rcode: Some("NXDOMAIN".to_owned()), ..Reply::default() };
        let bad = Reply { rcode: Some("SERVFAIL".to_owned()), ..Reply::default() };
        let rules =
            vec![address_rule("a.example.", 300, "192.0.2.1"), rule("slow.example.", slow), rule("bad.example.", bad)];
        let upstream = Upstream::start(rules, None);
        let (dns, metrics) = (free_port(), free_port());
        let corefile = format!(
            "example.:{dns} {{\n bind 127.0.0.1\n cache 30\n prometheus 127.0.0.1:{}\n forward . 127.0.0.1:{}\n}}\n",
            free_port(),
            upstream.port
        );
        let folder = scratch();
        let path = write_corefile(folder.path(), &corefile);
        let mut command = reference_command(&path, metrics);
        // How many hits are recorded for sure depends on it: each worker counts its own.
        command.args(["--workers", "2"]).args(flags);
        let mut server = Server::spawn(command, folder);
        server.wait_ready(dns).unwrap_or_else(|error| panic!("{error}"));
        let scene = Self { server, _upstream: upstream, dns, metrics };
        let is_there = || TcpStream::connect(loopback(metrics)).is_ok();
        assert!(wait_until(SOON, is_there), "{}", scene.server.tail(20));
        scene
    }

    fn ask(&self, name: &str) {
        assert!(ask(loopback(self.dns), name, "A").is_some(), "{name}\n{}", self.server.tail(20));
    }

    fn status(&self) -> Value {
        let (status, text) = http(&format!("{}/status.json", self.metrics)).expect("it is served");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn top(&self, arguments: &[&str]) -> String {
        let from = format!("http://127.0.0.1:{}", self.metrics);
        printed(Command::new(binary()).args(["top", "--once", "--from", &from]).args(arguments).output())
    }
}

fn printed(output: std::io::Result<Output>) -> String {
    let output = output.expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("it is text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The row of a list in which a field has this value.
fn row<'a>(list: &'a Value, field: &str, value: &str) -> &'a Value {
    let rows = list.as_array().unwrap_or_else(|| panic!("a list: {list}"));
    rows.iter().find(|row| row[field] == value).unwrap_or_else(|| panic!("{value} in {list}"))
}

#[test]
fn who_asked_for_what_what_failed_and_what_was_slow_is_told() {
    let scene = Scene::start(&[]);
    for _ in 0..1500 {
        scene.ask("A.example.");
    }
    let missing = (0..5).map(|number| format!("n{number}.missing.example.")).collect::<Vec<_>>();
    missing.iter().for_each(|name| scene.ask(name));
    // What a terminal would obey.
    for name in ["slow.example.", "bad.example.", "elsewhere.test.", "\\027[31mred.example."] {
        scene.ask(name);
    }
    // An opcode that nobody knows, and nothing else.
    let answer = exchange_udp(loopback(scene.dns), &[0, 7, 15 << 3, 0, 0, 0, 0, 0, 0, 0, 0, 0], SOON);
    assert!(answer.is_ok_and(|answer| answer[3] & 15 == 4), "NOTIMP\n{}", scene.server.tail(20));
    let status = scene.status();
    assert_eq!((&status["version"], &status["shows_names"]), (&1.into(), &true.into()));
    let minute = &status["minute"];
    // 1,499 by two workers, of which one in 256 is recorded: each records at least one of 511.
    assert!((500..4000).contains(&minute["hits"].as_u64().expect("a number")), "{minute}");
    let often = row(&minute["names"], "name", "a.example.");
    assert!(often["count"].as_u64() > Some(300), "{often}");
    assert!(minute["misses"].as_u64() >= Some(9), "{minute}");
    assert_eq!((&minute["rejected"], &minute["malformed"]), (&2.into(), &1.into()), "{minute}");
    assert!(row(&minute["clients"], "client", "127.0.0.1")["count"].as_u64() > Some(300), "{minute}");
    assert_eq!(row(&minute["clients_and_names"], "name", "bad.example.")["client"], "127.0.0.1");
    for name in &missing {
        assert_eq!(row(&minute["nxdomain_names"], "name", name)["count"], 1);
    }
    assert_eq!(row(&minute["nxdomain_names"], "name", "\\027[31mred.example.")["count"], 1);
    let slow = row(&minute["slowest"], "name", "slow.example.");
    assert!(slow["ms"].as_f64() >= Some(600.0), "{slow}");
    assert_eq!((&slow["rcode"], &slow["answered_by"]), (&"NXDOMAIN".into(), &"forward".into()));
    assert!(slow["upstream"].as_str().is_some_and(|upstream| upstream.starts_with("127.0.0.1:")), "{slow}");
    // Sent again after a while, as it might be lost.
    assert!(slow["transport"] == "udp" && slow["tries"].as_u64() >= Some(1), "{slow}");
    let upstream = &minute["upstreams"][0];
    assert!(upstream["queries"].as_u64() >= Some(9) && upstream["longest_ms"].as_f64() >= Some(600.0), "{upstream}");
    assert!(status["upstreams"][0]["answers"].as_u64() >= Some(9), "{status}");
    let failures = &status["failures"];
    let malformed = row(failures, "rcode", "NOTIMP");
    assert!(
        malformed["type"].is_null() && malformed["name"].is_null() && malformed["reason"].is_string(),
        "{malformed}"
    );
    let refused = row(failures, "name", "elsewhere.test.");
    assert_eq!((&refused["rcode"], &refused["reason"]), (&"REFUSED".into(), &"no server block has this name".into()));
    let bad = row(failures, "name", "bad.example.");
    assert_eq!((&bad["rcode"], &bad["client"], &bad["type"]), (&"SERVFAIL".into(), &"127.0.0.1".into(), &"A".into()));
    assert!(bad["upstream"].as_str().is_some(), "{bad}");

    // What is counted since the first stretch of time has ended is told by block.
    let blocks = || scene.status()["blocks"].as_array().is_some_and(|blocks| !blocks.is_empty());
    assert!(wait_until(SOON, blocks), "{}", scene.status());
    scene.ask("elsewhere.test.");
    let status = scene.status();
    row(&status["blocks"], "zone", "example.");
    assert_eq!(status["blocks"].as_array().map(Vec::len), Some(1), "{status}");
    assert!(status["unmatched_per_second"].as_f64() > Some(0.0), "{status}");

    let text = scene.top(&[]);
    for expected in [
        "last minute",
        "a.example.",
        "127.0.0.1",
        "slow.example.",
        "no server block has this name",
        "\\027[31m",
        "rejected/s",
        "(none)",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(text.chars().all(|character| matches!(character, ' '..='~' | '\n')), "{text:?}");
    let json: Value = serde_json::from_str(&scene.top(&["--output", "json"])).expect("it is JSON");
    assert_eq!(json["version"], 1);
    row(&json["failures"], "name", "bad.example.");
}

/// The rows of a table of `top`, each in words.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let tables = text.split("\n\n").map(|table| table.lines().collect::<Vec<_>>());
    let found = tables.into_iter().find(|lines| lines.first().is_some_and(|line| line.starts_with(heading)));
    let rows = found.unwrap_or_else(|| panic!("{heading} in\n{text}"));
    rows.iter().skip(2).map(|row| row.split_whitespace().map(str::to_owned).collect()).collect()
}

/// docs/troubleshooting.md: what tells each of these causes stands in its table, first.
#[test]
fn who_floods_what_is_slow_and_what_fails_stand_first_in_their_tables() {
    let scene = Scene::start(&[]);
    let flood = UdpSocket::bind("127.0.0.9:0").expect("the loopback has this address");
    flood.set_read_timeout(Some(SOON)).expect("a time");
    for number in 0..300 {
        let wire = query(&format!("r{number}.example."), "A").to_vec().expect("it is a query");
        flood.send_to(&wire, loopback(scene.dns)).expect("it can be sent");
        flood.recv(&mut [0; 512]).unwrap_or_else(|error| panic!("{error}\n{}", scene.server.tail(20)));
    }
    for _ in 0..10 {
        scene.ask("a.example.");
        scene.ask("bad.example.");
    }
    for name in ["slow.example.", "elsewhere.test."] {
        scene.ask(name);
    }
    let text = scene.top(&[]);
    let first = |heading: &str| table(&text, heading).into_iter().next().unwrap_or_default();
    assert_eq!(first("clients, last minute"), ["127.0.0.9", "300", "0"], "{text}");
    let missing = table(&text, "names that do not exist");
    assert!(missing.len() == 10 && missing.iter().all(|row| row[0].starts_with('r') && row[1] == "1"), "{text}");
    assert_eq!(first("names that failed")[0], "bad.example.", "{text}");
    let slowest = first("slowest queries");
    assert!(slowest[0].parse::<f64>().is_ok_and(|ms| ms >= 600.0) && slowest[1] == "slow.example.", "{text}");
    assert!(slowest[5].starts_with("127.0.0.1:") && slowest[6] == "udp", "{text}");
    let failed = &table(&text, "last failures");
    assert!(failed[0].contains(&"REFUSED".to_owned()) && text.contains("no server block has this name"), "{text}");
    assert!(failed.iter().any(|row| row[1] == "bad.example." && row[4] == "SERVFAIL"), "{text}");
}

#[test]
fn who_asks_for_the_status_without_end_keeps_nobody_from_the_metrics() {
    let scene = Scene::start(&[]);
    // Much to tell, at which a status takes its time.
    let long = "x".repeat(60);
    for number in 0..700 {
        scene.ask(&format!("{number}.{long}.{long}.{long}.example."));
    }
    let is_over = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    let mut told = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        told += u32::from(http(&format!("{}/status.json", scene.metrics)).is_some());
                    }
                    told
                })
            })
            .collect();
        for scrape in 0..20 {
            let counted = metric(scene.metrics, "coredns_dns_requests_total{zone=\"example.\"}");
            is_over.fetch_or(counted.is_none(), Ordering::Relaxed);
            assert!(counted.is_some(), "scrape {scrape} has nothing of the server\n{}", scene.server.tail(20));
        }
        is_over.store(true, Ordering::Relaxed);
        asking.into_iter().map(|asking| asking.join().expect("it does not panic")).sum::<u32>()
    });
    assert!(told > 20, "{told}");
}

#[test]
fn while_no_server_runs_the_page_says_so_and_then_it_is_told_again() {
    let scene = Scene::start(&[]);
    let asked = || http(&format!("{}/status.json", scene.metrics)).expect("it is served");
    let killer = ServerKiller::start(scene.server.pid());
    let mut last = asked();
    let is_gone = || {
        last = asked();
        last.0 == 503
    };
    assert!(wait_until(SOON, is_gone), "{}", scene.server.tail(20));
    assert!(last.1.contains("is not running. Its watchdog starts it again"), "{last:?}");
    let from = format!("http://127.0.0.1:{}", scene.metrics);
    let output = Command::new(binary()).args(["top", "--once", "--from", &from]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("/status.json answers 503: no status: "), "{said}");
    drop(killer);
    assert!(wait_until(SOON, || asked().0 == 200), "{}", scene.server.tail(20));
}

#[test]
fn who_asks_for_the_status_under_a_strangers_name_is_not_told() {
    let scene = Scene::start(&[]);
    let asked = |request: &str| {
        let mut stream = TcpStream::connect(loopback(scene.metrics)).expect("it is served");
        stream.set_read_timeout(Some(SOON)).expect("a time");
        stream.write_all(request.as_bytes()).expect("it can be asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it ends");
        answer.split(' ').nth(1).map(str::to_owned).unwrap_or_else(|| panic!("{answer}"))
    };
    let end = "Connection: close\r\n\r\n";
    for (request, expected) in [
        ("GET /status.json HTTP/1.1\r\nHost: evil.example:9353\r\n", "421"),
        ("GET /status.json HTTP/1.1\r\nHost: 127.0.0.1:9353\r\nHost: evil.example\r\n", "421"),
        ("GET http://evil.example/status.json HTTP/1.1\r\nHost: 127.0.0.1\r\n", "421"),
        ("GET /status.json HTTP/1.1\r\n", "421"),
        ("GET /status.json HTTP/1.0\r\n", "200"),
        ("GET /status.json HTTP/1.1\r\nHost: [::1]:9353\r\n", "200"),
        ("GET /status.json HTTP/1.1\r\nHost: localhost:8001\r\n", "200"),
        ("GET /metrics HTTP/1.1\r\nHost: nodelocaldns.kube-system:9353\r\n", "200"),
    ] {
        assert_eq!(asked(&format!("{request}{end}")), expected, "{request}");
    }
    // By a name that leads there, which is asked for by its address.
    let from = format!("http://localhost:{}", scene.metrics);
    printed(Command::new(binary()).args(["top", "--once", "--from", &from]).output());
}

#[test]
fn nothing_of_what_an_agent_says_reaches_the_terminal_as_it_is() {
    let hostile = "\u{9b}31m\u{1b}[2J\u{7f}\u{202e}";
    let report =
        serde_json::json!({ "version": 1, "shows_names": true, "failures": [{ "name": hostile, "time_ms": 1 }] });
    // Characters that JSON need not escape stand there as they are.
    let page = report.to_string();
    assert!(page.contains('\u{9b}') && page.contains('\u{7f}'), "{page}");
    for (status, body, code) in [("200 OK", page.as_str(), 0), ("500 Oh", hostile, 1), ("200 OK", "[\"\u{9b}31m\"]", 1)]
    {
        for output in ["text", "json"] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
            let from = format!("http://{}", listener.local_addr().expect("it has an address"));
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let serving = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("somebody comes");
                _ = stream.read(&mut [0; 4096]).expect("it asks");
                stream.write_all(answer.as_bytes()).expect("it is there");
            });
            let printed = Command::new(binary()).args(["top", "--once", "--output", output, "--from", &from]).output();
            let printed = printed.expect("the program runs");
            serving.join().expect("it is asked");
            assert_eq!(printed.status.code(), Some(code), "{printed:?}");
            for text in [printed.stdout, printed.stderr].map(|text| String::from_utf8(text).expect("it is text")) {
                assert!(text.chars().all(|character| matches!(character, ' '..='~' | '\n')), "{text:?}");
            }
        }
    }
}

#[test]
fn who_asks_from_elsewhere_sees_no_names_unless_all_may() {
    let folder = scratch();
    let resolver = folder.path().join("resolv.conf");
    std::fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n").expect("it can be written");
    for (flags, is_shown) in [(&[][..], false), (&["--status-names"], true)] {
        let namespace = Namespace::new(&[(&resolver, "/etc/resolv.conf")]);
        let folder = scratch();
        // Nobody is there, so each query fails.
        let path = write_corefile(folder.path(), ".:53 {\n bind 127.0.0.1\n forward . 127.0.0.1:9\n}\n");
        let mut command = namespace.command(binary());
        command
            .args(["-localip", "127.0.0.1", "-conf"])
            .arg(&path)
            .arg("-basecorefile")
            .arg(path.with_extension("base"));
        command.args(["-setupinterface=false", "-setupiptables=false", "-skipteardown"]).args(flags);
        let server = Server::spawn(command, folder);
        server.wait_output(". on 127.0.0.1:53", SOON);
        let top = |from: &str| namespace.command(binary()).args(["top", "--once", "--from", from]).output();
        let is_there = || top("http://127.0.0.1:9353").is_ok_and(|output| output.status.success());
        assert!(wait_until(SOON, is_there), "{}", server.tail(20));
        _ = namespace.command("getent").args(["ahosts", "pod.example."]).output().expect("getent runs");
        let here = printed(top("http://127.0.0.1:9353"));
        assert!(here.contains("pod.example.") && here.contains("SERVFAIL"), "{here}");
        // From its own address, which is not loopback's.
        let elsewhere = printed(top("http://10.244.0.5:9353"));
        assert!(elsewhere.contains("SERVFAIL"), "{elsewhere}");
        assert_eq!(elsewhere.contains("pod.example."), is_shown, "{elsewhere}");
        assert_eq!(elsewhere.contains("--status-names"), !is_shown, "{elsewhere}");
    }
}

#[test]
fn the_page_can_be_switched_off_and_top_says_so() {
    let scene = Scene::start(&["--status-page=false"]);
    assert_eq!(http(&format!("{}/status.json", scene.metrics)).map(|(status, _)| status), Some(404));
    assert_eq!(http(&format!("{}/metrics", scene.metrics)).map(|(status, _)| status), Some(200));
    let from = format!("http://127.0.0.1:{}", scene.metrics);
    let output = Command::new(binary()).args(["top", "--once", "--from", &from]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("--status-page=false"), "{said}");
}
