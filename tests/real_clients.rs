//! Real clients in front of us: dig, kdig, dnsperf, glibc's resolver (getent), and promtool for what we export.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::client::http;
use support::daemons::{Listen, start_unbound};
use support::namespace::Namespace;
use support::ports::free_port;
use support::server::{Server, reference_command, scratch, wait_until, write_corefile};
use support::tools::{everything, require, run, tool, write};
use support::upstream::Upstream;

/// A server with a cache over a scripted upstream.
struct Service {
    port: u16,
    metrics: u16,
    watchdog_metrics: u16,
    _server: Server,
    _upstream: Upstream,
}

fn serve() -> Service {
    let upstream = Upstream::of_list("basic");
    let (port, metrics, watchdog_metrics) = (free_port(), free_port(), free_port());
    let corefile = format!(
        ".:{port} {{\n bind 127.0.0.1\n errors\n cache 300\n loop\n prometheus 127.0.0.1:{metrics}\n forward . 127.0.0.1:{}\n}}\n",
        upstream.port
    );
    let folder = scratch();
    let path = write_corefile(folder.path(), &corefile);
    let mut server = Server::spawn(reference_command(&path, watchdog_metrics), folder);
    server.wait_ready(port).unwrap_or_else(|error| panic!("{error}"));
    Service { port, metrics, watchdog_metrics, _server: server, _upstream: upstream }
}

impl Service {
    /// What dig prints; it must find nothing odd about the answer.
    fn dig(&self, arguments: &str) -> String {
        self.ask("dig", arguments)
    }
    /// The same of kdig.
    fn kdig(&self, arguments: &str) -> String {
        self.ask("kdig", arguments)
    }
    fn ask(&self, program: &str, arguments: &str) -> String {
        let mut command = tool(program);
        command.args(["@127.0.0.1", "-p", &self.port.to_string(), "+timeout=3", "+tries=1"].map(|word| {
            match (program, word) {
                ("kdig", "+tries=1") => "+retry=0",
                (_, word) => word,
            }
        }));
        let text = run(command.args(arguments.split_whitespace()));
        for complaint in
            ["WARNING", "Warning", "malformed", "mismatch", "communications error", "extra bytes", "no servers"]
        {
            assert!(!text.contains(complaint), "{program} {arguments} says {complaint:?}:\n{text}");
        }
        text
    }
}

fn assert_holds(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn dig_gets_answers_over_udp_and_tcp() {
    let service = serve();
    for transport in ["+notcp", "+tcp"] {
        let answer = service.dig(&format!("{transport} a.example. A"));
        assert_holds(&answer, &["status: NOERROR", "rd ra;", "192.0.2.1", "a.example."]);
        let denial = service.dig(&format!("{transport} nx.example. A"));
        assert_holds(&denial, &["status: NXDOMAIN", "SOA", "ns.example. host.example."]);
        let unknown = service.dig(&format!("{transport} unknown.example. TYPE65400"));
        assert_holds(&unknown, &["status: NOERROR", "\\# 3 010203"]);
    }
    assert_holds(&service.dig("+noedns a.example. A"), &["status: NOERROR", "ADDITIONAL: 0"]);
    assert_holds(&service.dig("+dnssec a.example. A"), &["EDNS: version: 0, flags: do"]);
    assert_holds(&service.dig("-x 192.0.2.1"), &["PTR", "a.example."]);
    assert_holds(&service.dig("+edns=1 +noednsnegotiation +norecurse a.example. A"), &["status: BADVERS"]);
}

#[test]
fn dig_is_sent_to_tcp_by_an_answer_too_long_for_udp() {
    let service = serve();
    let answer = service.dig("+bufsize=512 big.example. TXT");
    assert_holds(&answer, &["Truncated, retrying in TCP mode", "status: NOERROR", "\"000xxx"]);
    for offer in ["512", "65535"] {
        let cut = service.dig(&format!("+bufsize={offer} +ignore big.example. TXT"));
        assert_holds(&cut, &["tc rd ra;", "status: NOERROR"]);
    }
}

#[test]
fn kdig_gets_several_answers_on_one_connection() {
    let service = serve();
    let answers =
        service.kdig("+tcp +keepopen a.example. A v6.example. AAAA nx.example. A a.example. A txt.example. TXT");
    assert_eq!(answers.matches("status: NOERROR").count(), 4, "{answers}");
    assert_eq!(answers.matches("status: NXDOMAIN").count(), 1, "{answers}");
    assert_holds(&answers, &["192.0.2.1", "2001:db8::1", "\"hello world\" \"second\"", "(TCP)"]);
}

#[test]
fn kdig_options_are_honoured() {
    let service = serve();
    assert_holds(&service.kdig("+dnssec a.example. A"), &["EDNS PSEUDOSECTION", "flags: do", "192.0.2.1"]);
    assert_holds(&service.kdig("+bufsize=4096 big.example. TXT"), &["status: NOERROR", "\"000xxx"]);
    let with_cookie = service.kdig("+cookie=0011223344556677 a.example. A");
    assert_holds(&with_cookie, &["status: NOERROR", "192.0.2.1"]);
    assert!(!with_cookie.contains("COOKIE"), "a cookie of nobody's:\n{with_cookie}");
    assert_holds(&service.kdig("+noedns a.example. A"), &["status: NOERROR", "192.0.2.1"]);
}

#[test]
fn dnsperf_loses_nothing_over_udp() {
    let service = serve();
    let report = dnsperf(&service, &["-m", "udp", "-c", "4", "-q", "50"]);
    assert_holds(&report, &["Queries lost:         0 "]);
}

#[test]
fn dnsperf_loses_nothing_over_tcp() {
    let service = serve();
    let report = dnsperf(&service, &["-m", "tcp", "-c", "8", "-q", "50"]);
    assert_holds(&report, &["Queries lost:         0 "]);
}

/// A short run over hits, misses and denials; its report.
fn dnsperf(service: &Service, arguments: &[&str]) -> String {
    let folder = scratch();
    let queries = "a.example. A\nv6.example. AAAA\nmulti.example. A\nnx.example. A\ntxt.example. TXT\nalias.example. A\nmedium.example. A\n";
    let queries = write(folder.path(), "queries", queries);
    let mut command = tool("dnsperf");
    command
        .args(["-s", "127.0.0.1", "-p", &service.port.to_string(), "-l", "2", "-Q", "5000", "-e", "-d"])
        .arg(queries);
    let report = run(command.args(arguments));
    let sent = report.lines().find_map(|line| line.trim().strip_prefix("Queries sent:")).map(str::trim);
    assert!(
        sent.is_some_and(|sent| sent.parse::<u32>().is_ok_and(|sent| sent > 1000)),
        "too few queries to tell anything:\n{report}"
    );
    report
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let service = serve();
    for arguments in [
        "a.example. A",
        "a.example. A",
        "nx.example. A",
        "fail.example. A",
        "+tcp a.example. AAAA",
        "+dnssec a.example. A",
    ] {
        service.dig(arguments);
    }
    // Both ports have both processes' metrics, as the reference's one registry is on both.
    let mut families = Vec::new();
    for port in [service.metrics, service.watchdog_metrics] {
        let mut exposition = String::new();
        // A scrape for which the other process has no time has its own metrics alone.
        wait_until(Duration::from_secs(30), || {
            let (status, text) = http(&format!("{port}/metrics")).expect("/metrics answers");
            assert_eq!(status, 200);
            exposition = text;
            ["coredns_dns_requests_total", "nodelocaldns_watchdog_interception"]
                .iter()
                .all(|family| exposition.contains(&format!("# TYPE {family} ")))
        });
        let named = OF_DASHBOARDS.map(|family| format!("# TYPE {family} "));
        assert_holds(&exposition, &named.each_ref().map(String::as_str));
        let folder = scratch();
        let file = write(folder.path(), "metrics", &exposition);
        let mut command = tool("promtool");
        command.args(["check", "metrics"]).stdin(Stdio::from(std::fs::File::open(file).expect("it was just written")));
        let output = command.output().expect("promtool runs");
        assert!(
            output.status.success() && everything(&output).is_empty(),
            "promtool check metrics:\n{}",
            everything(&output)
        );
        let heads = exposition.lines().filter(|line| line.starts_with("# TYPE ")).map(str::to_owned);
        families.push(heads.collect::<Vec<String>>());
    }
    assert_eq!(families[0], families[1], "the same families on both");
}

/// What dashboards and alerts for node-local-dns and CoreDNS name, on either port, of the directives in [`serve`].
const OF_DASHBOARDS: [&str; 22] = [
    "coredns_build_info",
    "coredns_cache_entries",
    "coredns_cache_hits_total",
    "coredns_cache_misses_total",
    "coredns_cache_requests_total",
    "coredns_dns_do_requests_total",
    "coredns_dns_request_duration_seconds",
    "coredns_dns_request_size_bytes",
    "coredns_dns_requests_total",
    "coredns_dns_response_size_bytes",
    "coredns_dns_responses_total",
    "coredns_forward_healthcheck_broken_total",
    "coredns_forward_max_concurrent_rejects_total",
    "coredns_nodecache_setup_errors_total",
    "coredns_panics_total",
    "coredns_plugin_enabled",
    "coredns_proxy_request_duration_seconds",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

const CLUSTER_ZONE: &str = "$TTL 30
@ SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
@ NS ns.dns
ns.dns A 127.0.0.1
kubernetes.default.svc A 10.96.0.1
web.default.svc A 10.96.0.20
web.default.svc AAAA fd00::20
";
const REVERSE_ZONE: &str = "$TTL 30
@ SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5
@ NS ns.dns.cluster.local.
1.0.96 PTR kubernetes.default.svc.cluster.local.
";
const OUTSIDE_ZONE: &str = "$TTL 30
@ SOA ns.example.test. host.example.test. 1 7200 1800 86400 5
@ NS ns
ns A 127.0.0.1
www CNAME a
a A 192.0.2.1
";

#[test]
fn a_pods_resolver_resolves_through_us() {
    let pod = Pod::new();
    // RES_OPTIONS adds to the options of resolv.conf: what pods have, what `dnsConfig` may add, and each way glibc can
    // ask.
    for options in [
        "ndots:5",
        "ndots:5 edns0 trust-ad",
        "ndots:5 use-vc",
        "ndots:5 single-request",
        "ndots:5 single-request-reopen",
    ] {
        let getent = |arguments: &str| pod.getent(options, arguments);
        assert_holds(&getent("ahostsv4 kubernetes").expect("found"), &["10.96.0.1"]);
        assert_holds(&getent("ahosts web").expect("found"), &["10.96.0.20", "fd00::20"]);
        assert_holds(&getent("ahostsv6 web.default.svc").expect("found"), &["fd00::20"]);
        assert_holds(&getent("hosts 10.96.0.1").expect("found"), &["kubernetes.default.svc.cluster.local"]);
        assert_holds(&getent("ahosts www.example.test").expect("found"), &["192.0.2.1", "a.example.test"]);
        assert_eq!(getent("ahosts missing"), None, "with {options}");
        assert_eq!(getent("ahostsv6 kubernetes").filter(|text| !text.contains("::ffff:")), None, "with {options}");
    }
}

/// A network of its own where resolv.conf names us, as in a pod, and unbound is cluster DNS.
struct Pod {
    namespace: Namespace,
    _server: Server,
    _cluster_dns: Server,
    _files: tempfile::TempDir,
}

impl Pod {
    fn new() -> Self {
        let files = scratch();
        let search = "default.svc.cluster.local svc.cluster.local cluster.local";
        let resolv = write(files.path(), "resolv.conf", &format!("nameserver 127.0.0.1\nsearch {search}\n"));
        let nsswitch = write(files.path(), "nsswitch.conf", "hosts: dns\n");
        let namespace = Namespace::new(&[(&resolv, "/etc/resolv.conf"), (&nsswitch, "/etc/nsswitch.conf")]);
        let inside = |program: &Path| namespace.command(program);
        let zones =
            [("cluster.local", CLUSTER_ZONE), ("10.in-addr.arpa", REVERSE_ZONE), ("example.test", OUTSIDE_ZONE)];
        let cluster_dns =
            start_unbound(Listen { address: "127.0.0.1", port: 5300, udp: true }, &zones, scratch(), |program| {
                inside(&program)
            });
        let folder = scratch();
        let corefile = ".:53 {\n bind 127.0.0.1\n errors\n cache 30\n forward . 127.0.0.1:5300\n}\n";
        let command = within(&namespace, &reference_command(&write_corefile(folder.path(), corefile), 9353));
        let server = Server::spawn(command, folder);
        let pod = Self { namespace, _server: server, _cluster_dns: cluster_dns, _files: files };
        let ready = wait_until(Duration::from_secs(10), || pod.getent("ndots:5", "ahostsv4 kubernetes").is_some());
        assert!(ready, "no answer in the pod:\n{}\n{}", pod._server.tail(12), pod._cluster_dns.tail(12));
        pod
    }

    /// What getent prints; `None` when it finds nothing.
    fn getent(&self, options: &str, arguments: &str) -> Option<String> {
        let mut command = self.namespace.command(require("getent"));
        let output =
            command.args(arguments.split_whitespace()).env("RES_OPTIONS", options).output().expect("nsenter runs");
        match output.status.code() {
            Some(0) => Some(everything(&output)),
            Some(2) => None,
            _ => panic!("getent {arguments} with {options}: {}:\n{}", output.status, everything(&output)),
        }
    }
}

/// The same command, inside.
fn within(namespace: &Namespace, command: &Command) -> Command {
    let mut inside = namespace.command(Path::new(command.get_program()));
    inside.args(command.get_args());
    inside
}
