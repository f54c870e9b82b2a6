//! Real servers behind us: unbound and BIND, over UDP and TCP, and unbound over TLS and HTTPS. What comes through us is
//! what they say themselves.

mod support;

use hickory_proto::op::{Edns, Message};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use support::client::{PATIENCE, ask, exchange_tcp, exchange_udp, loopback, metric, query};
use support::daemons::{Listen, start_bind, start_unbound, start_unbound_with};
use support::ports::free_port;
use support::server::{Server, scratch, wait_until};
use support::text::format_record;
use support::tools::write;
use tempfile::TempDir;

const ZONE: &str = r#"$TTL 300
@ SOA ns.example.test. host.example.test. 7 3600 600 86400 30
@ NS ns
ns A 192.0.2.53
a A 192.0.2.1
many A 192.0.2.1
many A 192.0.2.2
many A 192.0.2.3
v6 AAAA 2001:db8::1
alias CNAME a
far CNAME alias
dangling CNAME nowhere
mail MX 10 a
_dns._udp SRV 0 100 53 ns
web HTTPS 1 . alpn=h2
*.wild A 192.0.2.9
odd TYPE65400 \# 3 010203
"#;

const REVERSE_ZONE: &str = "$TTL 300\n@ SOA ns.example.test. host.example.test. 7 3600 600 86400 30\n@ NS ns.example.test.\n1 PTR a.example.test.\n";

/// A name, a type, and the rcode it must come with.
const QUESTIONS: &[(&str, &str, &str)] = &[
    ("a.example.test.", "A", "NOERROR"),
    ("A.eXample.TEST.", "A", "NOERROR"),
    ("many.example.test.", "A", "NOERROR"),
    ("v6.example.test.", "AAAA", "NOERROR"),
    ("v6.example.test.", "A", "NOERROR"),
    ("alias.example.test.", "A", "NOERROR"),
    ("far.example.test.", "A", "NOERROR"),
    ("dangling.example.test.", "A", "NXDOMAIN"),
    ("mail.example.test.", "MX", "NOERROR"),
    ("_dns._udp.example.test.", "SRV", "NOERROR"),
    ("web.example.test.", "HTTPS", "NOERROR"),
    ("x.wild.example.test.", "A", "NOERROR"),
    ("odd.example.test.", "TYPE65400", "NOERROR"),
    ("example.test.", "SOA", "NOERROR"),
    ("example.test.", "NS", "NOERROR"),
    ("nowhere.example.test.", "A", "NXDOMAIN"),
    ("1.2.0.192.in-addr.arpa.", "PTR", "NOERROR"),
    ("big.example.test.", "TXT", "NOERROR"),
];

fn zones() -> [(&'static str, String); 2] {
    // 20 strings of 200 octets: too much for any UDP answer of 1232 octets.
    let big: String = (0..20).map(|n| format!("big TXT \"{n:03}{}\"\n", "x".repeat(197))).collect();
    [("example.test", format!("{ZONE}{big}")), ("2.0.192.in-addr.arpa", REVERSE_ZONE.to_owned())]
}

#[test]
fn answers_of_unbound_come_through_over_udp() {
    let upstream = unbound(true);
    compare(&upstream, &plain(&upstream, ""));
}

#[test]
fn answers_of_unbound_come_through_over_tcp_alone() {
    // It has no UDP, so that force_tcp is all that can work.
    let upstream = unbound(false);
    compare(&upstream, &plain(&upstream, "force_tcp"));
}

#[test]
fn answers_of_bind_come_through_over_udp() {
    let upstream = bind();
    compare(&upstream, &plain(&upstream, ""));
}

#[test]
fn answers_of_bind_come_through_over_tcp() {
    let upstream = bind();
    compare(&upstream, &plain(&upstream, "force_tcp"));
}

#[test]
fn answers_of_unbound_come_through_over_tls_if_it_is_who_it_should_be() {
    let upstream = unbound_over_tls(|port| format!(" tls-port: {port}\n"));
    come_through_if_it_is_who_it_should_be(&upstream, "tls", "");
}

#[test]
fn answers_of_unbound_come_through_over_https_if_it_is_who_it_should_be() {
    let upstream =
        unbound_over_tls(|port| format!(" https-port: {port}\n http-endpoint: \"/ask\"\n http-max-streams: 20\n"));
    come_through_if_it_is_who_it_should_be(&upstream, "https", "/ask");
    let get = upstream.forward("https", "/ask", "tls_servername dns.example.test\n  doh_method GET");
    compare(&upstream.daemon, &get);

    let port = free_port();
    let forward = upstream.forward("https", "/elsewhere", "tls_servername dns.example.test");
    let server = Server::start(&format!(".:{port} {{\n bind 127.0.0.1\n errors\n {forward}\n}}\n"), port);
    over_tcp(port, "a.example.test.", "A");
    assert!(wait_until(PATIENCE, || server.tail(20).contains("HTTP status 404")), "{}", server.tail(20));
}

fn come_through_if_it_is_who_it_should_be(upstream: &TlsDaemon, scheme: &str, path: &str) {
    compare(&upstream.daemon, &upstream.forward(scheme, path, "tls_servername dns.example.test"));

    let port = free_port();
    let forward = upstream.forward(scheme, path, "tls_servername other.example.test");
    let server = Server::start(&format!(".:{port} {{\n bind 127.0.0.1\n errors\n {forward}\n}}\n"), port);
    let refused = over_tcp(port, "a.example.test.", "A");
    assert_eq!(support::text::format_rcode(refused.metadata.response_code.into()), "SERVFAIL");
    let why = "x509: certificate is valid for dns.example.test, not other.example.test";
    assert!(wait_until(PATIENCE, || server.tail(20).contains(why)), "{}", server.tail(20));
}

/// A daemon that is also asked in TLS sessions.
struct TlsDaemon {
    daemon: Daemon,
    tls_port: u16,
    /// The authority that its certificate is of.
    ca: PathBuf,
    _folder: TempDir,
}

impl TlsDaemon {
    /// The directive that asks it by `scheme`.
    fn forward(&self, scheme: &str, path: &str, options: &str) -> String {
        let (port, ca) = (self.tls_port, self.ca.display());
        format!("forward . {scheme}://127.0.0.1:{port}{path} {{\n  tls {ca}\n  {options}\n }}")
    }
}

/// unbound with a certificate for `dns.example.test`, told by these lines what it speaks at a port.
fn unbound_over_tls(lines: impl Fn(u16) -> String) -> TlsDaemon {
    let (authority, shown, key) = certificates("dns.example.test");
    let folder = scratch();
    let (ca, pem) = (write(folder.path(), "ca.pem", &authority), write(folder.path(), "server.pem", &shown));
    let key = write(folder.path(), "server.key", &key);
    // The server's process has a user of its own, which may not read it: the watchdog does.
    std::fs::set_permissions(&ca, std::fs::Permissions::from_mode(0o600)).expect("the file is ours");
    let (port, tls_port) = (free_port(), free_port());
    let lines = format!(
        " interface: 127.0.0.1@{tls_port}\n tls-service-key: \"{}\"\n tls-service-pem: \"{}\"\n{}",
        key.display(),
        pem.display(),
        lines(tls_port)
    );
    let zones = zones();
    let zones: Vec<_> = zones.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let listen = Listen { address: "127.0.0.1", port, udp: false };
    let daemon = answering(port, start_unbound_with(&lines, listen, &zones, scratch(), std::process::Command::new));
    TlsDaemon { daemon, tls_port, ca, _folder: folder }
}

/// An authority's certificate, and one that it has signed for `name` with its key, in PEM.
fn certificates(name: &str) -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let made = "certificates are made";
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect(made)).expect(made);
    let key = KeyPair::generate().expect(made);
    let shown =
        CertificateParams::new([name.to_owned()]).and_then(|params| params.signed_by(&key, &authority)).expect(made);
    (authority.pem(), shown.pem(), key.serialize_pem())
}

/// The directive that asks a daemon by plain DNS.
fn plain(upstream: &Daemon, option: &str) -> String {
    format!("forward . 127.0.0.1:{} {{\n  {option}\n }}", upstream.port)
}

struct Daemon {
    port: u16,
    _process: Server,
}

fn unbound(udp: bool) -> Daemon {
    let port = free_port();
    let zones = zones();
    let zones: Vec<_> = zones.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let listen = Listen { address: "127.0.0.1", port, udp };
    answering(port, start_unbound(listen, &zones, scratch(), std::process::Command::new))
}

fn bind() -> Daemon {
    let port = free_port();
    let zones = zones();
    let zones: Vec<_> = zones.iter().map(|(name, text)| (*name, text.as_str())).collect();
    answering(port, start_bind(Listen { address: "127.0.0.1", port, udp: true }, &zones, scratch()))
}

/// The daemon, once it answers from its zones.
fn answering(port: u16, mut process: Server) -> Daemon {
    process.wait_ready(port).unwrap_or_else(|e| panic!("the upstream {e}"));
    let loaded = wait_until(Duration::from_secs(10), || over_tcp(port, "a.example.test.", "A").answers.len() == 1);
    assert!(loaded, "the upstream does not answer from its zone:\n{}", process.tail(20));
    Daemon { port, _process: process }
}

/// Asks the daemon and us the same, and us again for the cache's answer.
fn compare(upstream: &Daemon, forward: &str) {
    let (port, metrics) = (free_port(), free_port());
    let corefile =
        format!(".:{port} {{\n bind 127.0.0.1\n cache 300\n prometheus 127.0.0.1:{metrics}\n {forward}\n}}\n");
    let _server = Server::start(&corefile, port);
    for (name, rtype, rcode) in QUESTIONS {
        let direct = over_tcp(upstream.port, name, rtype);
        assert_eq!(
            support::text::format_rcode(direct.metadata.response_code.into()),
            *rcode,
            "{name} {rtype}: the upstream itself"
        );
        for turn in ["first", "cached"] {
            let ours = over_tcp(port, name, rtype);
            assert_eq!(facts(&ours), facts(&direct), "{name} {rtype}: the {turn} answer");
        }
    }
    let hits = metric(metrics, "coredns_cache_hits_total").unwrap_or_default();
    assert!(hits >= QUESTIONS.len() as f64, "only {hits} answers came from the cache");
    check_sizes(port);
    check_dnssec_ok(port);
}

/// A long answer: cut with TC over UDP, whole over TCP.
fn check_sizes(port: u16) {
    let cut = ask(loopback(port), "big.example.test.", "TXT").expect("an answer over UDP");
    assert!(cut.metadata.truncation, "4,000 octets over UDP without EDNS must be cut");
    let whole = over_tcp(port, "big.example.test.", "TXT");
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 20);
}

/// DO goes through and comes back, over UDP.
fn check_dnssec_ok(port: u16) {
    let mut message = query("a.example.test.", "A");
    let mut edns = Edns::new();
    edns.set_max_payload(1232).set_dnssec_ok(true);
    message.set_edns(edns);
    let wire = message.to_vec().expect("a query of ours encodes");
    let octets = exchange_udp(loopback(port), &wire, PATIENCE).expect("an answer over UDP");
    let answer = Message::from_vec(&octets).expect("the answer is well-formed");
    assert!(answer.edns.expect("an OPT record").flags().dnssec_ok, "DO was set");
    assert_eq!(answer.answers.len(), 1);
}

fn over_tcp(port: u16, name: &str, rtype: &str) -> Message {
    let wire = query(name, rtype).to_vec().expect("a query of ours encodes");
    let octets =
        exchange_tcp(loopback(port), &wire, PATIENCE).unwrap_or_else(|e| panic!("{name} {rtype} at port {port}: {e}"));
    Message::from_vec(&octets).expect("the answer is well-formed")
}

/// What must be the same: rcode and records but their TTLs and order, in the sections that mean something to a client.
fn facts(message: &Message) -> (u16, Vec<String>, Vec<String>) {
    let lines = |section: &[hickory_proto::rr::Record]| {
        let mut lines: Vec<String> = section
            .iter()
            .map(|record| {
                let mut record = record.clone();
                record.ttl = 0;
                format_record(&record).to_lowercase()
            })
            .collect();
        lines.sort();
        lines
    };
    (message.metadata.response_code.into(), lines(&message.answers), lines(&message.authorities))
}
