//! `nodelocaldns explain` of the whole program: of a server that runs, over its admin socket, and of a Corefile.

mod support;

use serde_json::Value;
use std::process::{Command, Output};
use std::time::Duration;
use support::client::{ask, http, loopback};
use support::ports::free_port;
use support::processes::{kill_server, server};
use support::server::{Server, binary, reference_command, scratch, wait_until, write_corefile};
use support::upstream::{Upstream, address_rule};

const SOON: Duration = Duration::from_secs(60);

struct Scene {
    server: Server,
    upstream: Upstream,
    dns: u16,
    metrics: u16,
    label: String,
    corefile: String,
}

impl Scene {
    fn start() -> Self {
        let rules = ["a", "b", "web"].map(|name| address_rule(&format!("{name}.example."), 300, "192.0.2.1"));
        let upstream = Upstream::start(rules.into(), None);
        let (dns, metrics) = (free_port(), free_port());
        let corefile = format!(
            ".:{dns} {{
 bind 127.0.0.1
 errors
 prometheus 127.0.0.1:{}
 acl {{
  block net 10.9.0.0/16
 }}
 rewrite name b.test b.example
 cache 300
 forward . 127.0.0.1:{}
}}
consul.local:{dns} {{
 bind 127.0.0.1
 template ANY ANY {{
  rcode NXDOMAIN
 }}
}}
",
            free_port(),
            upstream.port
        );
        let folder = scratch();
        let path = write_corefile(folder.path(), &corefile);
        let label = format!("explain-{dns}");
        let mut command = reference_command(&path, metrics);
        command.args(["--workers", "2", "--admin-socket", &label]);
        let mut server = Server::spawn(command, folder);
        server.wait_ready(dns).unwrap_or_else(|error| panic!("{error}"));
        Self { server, upstream, dns, metrics, label, corefile: path.display().to_string() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(&[arguments, &["--admin-socket", &self.label]].concat())
    }

    /// What is printed, of a command that succeeds.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {text}{errors}\n{}", self.server.tail(20));
        text.into_owned()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What is counted of queries, caches and upstreams.
    fn counted(&self) -> Vec<String> {
        let (_, text) = http(&format!("{}/metrics", self.metrics)).expect("metrics are served");
        let of_queries = ["coredns_dns_", "coredns_cache_", "coredns_forward_", "coredns_acl_", "coredns_proxy_"];
        let is_counted = |line: &&str| of_queries.iter().any(|start| line.starts_with(start));
        text.lines().filter(is_counted).map(str::to_owned).collect()
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(binary()).arg("explain").args(arguments).output().expect("the program runs")
}

/// Every line is one, and nothing in it is obeyed by a terminal.
fn assert_plain(text: &str) {
    assert!(text.chars().all(|character| matches!(character, ' '..='~' | '\n')), "{text:?}");
}

#[test]
fn what_a_server_would_do_is_said_and_is_what_it_does_and_nothing_is_counted() {
    let scene = Scene::start();
    let upstream = format!("127.0.0.1:{}", scene.upstream.port);
    let before = scene.counted();
    let text = scene.text(&["a.example"]);
    assert_plain(&text);
    let (first, rest) = text.split_once('\n').expect("there are lines");
    assert_eq!(first, format!("asks {upstream} over UDP ({}:10)", scene.corefile));
    let words =
        ["a.example. A, from 127.0.0.1, to 127.0.0.1:", "keeps no answer to it", "an exchange with an upstream"];
    assert!(words.iter().all(|word| rest.contains(word)), "{text}");
    assert_eq!((scene.counted(), scene.upstream.take_seen().len()), (before, 0), "to explain is not to ask");

    assert!(ask(loopback(scene.dns), "a.example.", "A").is_some());
    let before = scene.counted();
    let report = scene.json(&["A.EXAMPLE."]);
    assert!(
        report["verdict"].as_str().is_some_and(|verdict| verdict.starts_with("answered from the cache, ")),
        "{report}"
    );
    let expected = ["answered", "NOERROR", "cache"];
    assert_eq!([&report["outcome"], &report["rcode"], &report["answered_by"]], expected, "{report}");
    assert!(report["records"][0].as_str().is_some_and(|record| record.ends_with(" IN A 192.0.2.1")), "{report}");
    let reached = |keyword: &str| {
        let steps = report["steps"].as_array().into_iter().flatten();
        steps.filter(|step| step["directive"] == keyword).map(|step| step["does"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        (reached("cache"), reached("forward")),
        (vec!["answers".into()], vec!["not_reached".into()]),
        "{report}"
    );
    assert_eq!(scene.counted(), before, "nor to be a hit");

    let refused = scene.text(&["a.example", "--client", "10.9.8.7"]);
    assert!(refused.starts_with(&format!("refused by acl ({}:6)\n", scene.corefile)), "{refused}");
    let rewritten = scene.text(&["b.test"]);
    assert!(rewritten.contains("the name becomes b.example."), "{rewritten}");
    let denied = scene.json(&["web.consul.local", "--type", "SRV"]);
    assert_eq!([&denied["rcode"], &denied["block"]["zone"]], ["NXDOMAIN", "consul.local."], "{denied}");
    let mistaken = scene.text(&["web.consul.lcal"]);
    let hint = format!("no server block has consul.lcal., but there is consul.local. ({}:12)", scene.corefile);
    assert!(mistaken.contains(&hint), "{mistaken}");
}

#[test]
fn a_question_that_is_asked_shows_where_its_time_goes() {
    let scene = Scene::start();
    let upstream = format!("127.0.0.1:{}", scene.upstream.port);
    let report = scene.json(&["b.example", "--ask"]);
    let asked = &report["asked"];
    assert_eq!(
        [&asked["rcode"], &asked["answered_by"], &asked["upstream"]],
        ["NOERROR", "forward", &*upstream],
        "{report}"
    );
    assert_eq!((&asked["is_at_hand"], &asked["tries"]), (&false.into(), &1.into()), "{report}");
    let steps: Vec<&str> =
        asked["steps"].as_array().into_iter().flatten().filter_map(|step| step["what"].as_str()).collect();
    assert_eq!(steps, ["rewrite", "acl", "cache", "forward", "connect"], "{report}");
    assert!(asked["records"][0].as_str().is_some_and(|record| record.ends_with(" 192.0.2.1")), "{report}");
    // What has come of it is cached, for all workers.
    let again = scene.text(&["b.example", "--ask"]);
    assert_plain(&again);
    assert!(again.starts_with("answered from the cache, ") && again.contains("asked for real: NOERROR in "), "{again}");
    assert!(again.contains(", at hand"), "{again}");
    let missing = scene.json(&["missing.example", "--ask"]);
    assert_eq!(missing["asked"]["rcode"], "NXDOMAIN", "{missing}");
    let other = scene.run(&["b.example", "--ask", "--client", "10.0.0.1"]);
    assert_eq!(other.status.code(), Some(2), "nobody is asked in another's name");
}

#[test]
fn a_corefile_is_explained_without_a_server_and_nothing_is_sent() {
    let folder = scratch();
    let listener = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("an option");
    let upstream = listener.local_addr().expect("an address");
    let collector = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    collector.set_nonblocking(true).expect("an option");
    let collector_address = collector.local_addr().expect("an address");
    let corefile = format!(
        "view.test {{\n bind 127.0.0.1\n view \"\u{1b}[31minner\" {{\n  expr client_ip() == '10.0.0.1'\n }}\n whoami\n}}\n\
         . {{\n bind 127.0.0.1\n dnstap tcp://{collector_address}\n trace {collector_address}\n cache\n loop\n forward . {upstream}\n}}\n"
    );
    let path = write_corefile(folder.path(), &corefile);
    let path = path.to_str().expect("UTF-8");
    let text = |arguments: &[&str]| {
        let output = run(&[arguments, &["--conf", path]].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert_plain(&text);
        text
    };
    let forwarded = text(&["a.example", "--type", "AAAA"]);
    assert!(forwarded.starts_with(&format!("asks {upstream} over UDP ({path}:14)\n")), "{forwarded}");
    assert!(forwarded.contains("caches are empty"), "{forwarded}");
    let inner = text(&["a.view.test", "--client", "10.0.0.1"]);
    assert!(inner.contains("answered by whoami") && inner.contains(r"view \027[31minner"), "{inner}");
    let outer = text(&["a.view.test"]);
    assert!(outer.contains(r"the view \027[31minner of ") && outer.contains(" does not take it"), "{outer}");
    assert!(text(&["a.example", "--dns.port", "5300"]).contains("to 127.0.0.1:5300 over UDP"));
    assert!(listener.recv(&mut [0; 512]).is_err() && collector.accept().is_err(), "nothing is sent to anybody");

    for (arguments, expected) in [
        (&["a.example", "--server", "127.0.0.2"][..], "nothing is served at 127.0.0.2:53; there are: 127.0.0.1:53"),
        (&["a..example"], "invalid value"),
        (&["a.example", "--client", "nobody"], "invalid value"),
        (&["a.example", "--ask"], "cannot be used with"),
        (&["a.example", "--admin-socket", "x"], "cannot be used with"),
    ] {
        let output = run(&[arguments, &["--conf", path]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(expected), "{arguments:?}: {errors}");
    }
    for with in ["--ask", "--admin-socket=x"] {
        let output = run(&["a.example", "--dns.port", "5300", with]);
        assert_eq!(output.status.code(), Some(2), "a port is for a Corefile alone: {output:?}");
    }
    let numbered = text(&["a.example", "--type", "TYPE65535"]);
    assert!(numbered.contains("a.example. TYPE65535, from"), "{numbered}");
    std::fs::write(path, ". {\n forwrad . 192.0.2.1\n}\n").expect("it is ours");
    let bad = run(&["a.example", "--conf", path]);
    assert!(!bad.status.success() && String::from_utf8_lossy(&bad.stderr).contains("did you mean `forward`?"));
    assert!(!run(&["a.example", "--conf", "/nowhere/Corefile"]).status.success());
}

#[test]
fn names_of_any_octets_and_a_server_that_is_replaced_are_no_trouble() {
    let scene = Scene::start();
    let longest = format!("{0}.{0}.{0}.{1}", r"\255".repeat(63), r"\027".repeat(61));
    for name in [longest.as_str(), r"\000\.\\\032.example", ".", r#"\200\"\;\@.consul.lcal"#, "*.example"] {
        for qtype in ["A", "ANY", "TYPE65535", "HINFO"] {
            let text = scene.text(&[name, "--type", qtype]);
            assert_plain(&text);
            assert!(text.lines().next().is_some_and(|verdict| !verdict.is_empty()), "{text}");
        }
    }
    let before = server(scene.server.pid()).expect("it runs");
    scene.text(&["a.example"]);
    kill_server(scene.server.pid());
    assert!(wait_until(SOON, || server(scene.server.pid()).is_some_and(|now| now != before)));
    assert!(wait_until(SOON, || scene.run(&["a.example"]).status.success()), "{}", scene.server.tail(20));
}
