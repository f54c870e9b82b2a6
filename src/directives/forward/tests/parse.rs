//! What a Corefile may have in `forward`, and the diagnostics of what it may not.

use super::super::config::{ForwardConfig, ForwardOptions};
use super::super::parse::read;
use super::super::policy::UpstreamPolicy;
use super::super::target::{Protocol, UpstreamTarget};
use crate::chain::{Interfaces, Loaders, ParseContext};
use crate::corefile::{self, Diagnostics, Loader, Severity};
use crate::message::{Name, Rcode};
use crate::net::doh::DohMethod;
use crate::net::tls::testing::Authority;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

struct Machine(&'static [(&'static str, &'static str)]);

impl Loader for Machine {
    fn read(&self, path: &Path) -> io::Result<String> {
        let found = self.0.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, content)| (*content).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn glob(&self, _pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
    fn environment(&self, _name: &str) -> Option<String> {
        None
    }
}

impl Interfaces for Machine {
    fn addresses(&self, _name: &str) -> Option<Vec<IpAddr>> {
        None
    }
}

const MACHINE: Machine = Machine(&[
    (
        "/etc/resolv.conf",
        "# two\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\noptions ndots:5\n",
    ),
    ("/etc/empty.conf", "search example.org\n"),
    ("resolv.local", "nameserver 192.0.2.7"),
    ("/sys/class/net/eth0/ifindex", "3\n"),
]);

fn read_on(machine: &Machine, line: &str) -> (Option<ForwardConfig>, Diagnostics) {
    let (tree, mut diagnostics) = corefile::parse(Path::new("Corefile"), &format!(". {{\n{line}\n}}\n"), machine);
    assert!(
        diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Portability),
        "{line}: {diagnostics:?}"
    );
    let loaders = Loaders { files: machine, interfaces: machine };
    let mut context =
        ParseContext { diagnostics: &mut diagnostics, loaders, zones: &[], patterns: &Default::default() };
    (read(&tree.blocks[0].directives[0], Some(Path::new("/root")), &mut context), diagnostics)
}

fn accepted(line: &str) -> ForwardConfig {
    let (config, diagnostics) = read_on(&MACHINE, line);
    assert!(
        diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Portability),
        "{line}: {diagnostics:?}"
    );
    config.expect("a configuration")
}

/// The first error's message and help.
fn refused(line: &str) -> String {
    let (_, diagnostics) = read_on(&MACHINE, line);
    let error = diagnostics
        .iter()
        .find(|diagnostic| diagnostic.severity == Severity::Error)
        .unwrap_or_else(|| panic!("{line} is accepted"));
    assert!(error.span.is_some());
    format!("{} / {}", error.message, error.help.as_deref().expect("help"))
}

fn option(line: &str) -> ForwardOptions {
    accepted(&format!("forward . 192.0.2.1 {{\n{line}\n}}")).options
}

fn refused_option(line: &str) -> String {
    refused(&format!("forward . 192.0.2.1 {{\n{line}\n}}"))
}

/// How an upstream is asked; nothing for plain DNS.
fn over(protocol: &Protocol) -> String {
    match protocol {
        Protocol::Dns => String::new(),
        Protocol::Tls { server_name } => format!(" tls {}", server_name.as_deref().unwrap_or("-")),
        Protocol::Https { server_name, path } => format!(" https {} {path}", server_name.as_deref().unwrap_or("-")),
    }
}

fn addresses(targets: &[UpstreamTarget]) -> Vec<String> {
    targets
        .iter()
        .map(|target| match target {
            UpstreamTarget::Address { address, protocol } => format!("{address}{}", over(protocol)),
            UpstreamTarget::File { path, addresses } => format!("{path} {addresses:?}"),
            UpstreamTarget::Host { name, port, protocol } => format!("{name} {port}{}", over(protocol)),
        })
        .collect()
}

#[test]
fn defaults_are_the_references() {
    let config = accepted("forward . 192.0.2.1");
    assert!(config.from.is_root() && config.except.is_empty());
    let options = config.options;
    assert_eq!(options, ForwardOptions::default());
    assert_eq!(options.expire, Duration::from_secs(10));
    assert_eq!(options.read_timeout, Duration::from_secs(2));
    assert_eq!(options.probe_interval, Duration::from_millis(500));
    assert_eq!((options.max_fails, options.policy, options.max_concurrent), (2, UpstreamPolicy::Random, 0));
    assert!(options.probe_recursion_desired && options.probe_name.is_root());
}

#[test]
fn upstreams_are_addresses_files_and_host_names() {
    let config = accepted(
        "forward example.org 192.0.2.1 192.0.2.2:5353 dns://192.0.2.3 2001:db8::1 [2001:db8::2] [2001:db8::3]:53 \
         [fe80::1%eth0]:54 fe80::2%7 /etc/resolv.conf resolv.local dns.example.net dns_2.example.net.:5300",
    );
    assert_eq!(
        addresses(&config.targets),
        [
            "192.0.2.1:53",
            "192.0.2.2:5353",
            "192.0.2.3:53",
            "[2001:db8::1]:53",
            "[2001:db8::2]:53",
            "[2001:db8::3]:53",
            "[fe80::1%3]:54",
            "[fe80::2%7]:53",
            "/etc/resolv.conf [192.0.2.1:53, [fe80::1%3]:53]",
            "resolv.local [192.0.2.7:53]",
            "dns.example.net. 53",
            "dns_2.example.net. 5300",
        ]
    );
}

#[test]
fn an_unusable_to_argument_is_an_error_with_a_hint() {
    for (to, says) in [
        ("tls://", "neither an IP address"),
        ("https://", "neither an IP address"),
        ("https:///etc/resolv.conf", "neither an IP address"),
        ("https://192.0.2.1/dns-query{?dns}", "not the path of a URL"),
        ("\"https://192.0.2.1/a#b\"", "not the path of a URL"),
        ("https://192.0.2.1/\u{1}", "not the path of a URL"),
        ("grpc://192.0.2.1", "upstreams by grpc:// are not supported"),
        ("smtp://192.0.2.1", "`smtp` is not a protocol"),
        ("192.0.2.1%eth0", "only an IPv6 address has a zone"),
        ("[fe80::1%eth9]:53", "no interface `eth9`"),
        ("300.0.2.1", "neither an IP address, a file nor a host name"),
        ("/no/such/file", "/no/such/file cannot be read"),
        ("a..b", "neither an IP address"),
        (".", "neither an IP address"),
        ("dns.example.net:dns", "neither an IP address"),
    ] {
        let message = refused(&format!("forward . {to}"));
        assert!(message.contains(says), "{to}: {message}");
    }
}

#[test]
fn a_file_without_nameservers_is_a_warning() {
    for (machine, path) in [(&MACHINE, "/etc/empty.conf"), (&Machine(&[]), "/etc/resolv.conf")] {
        let (config, diagnostics) = read_on(machine, &format!("forward . {path}"));
        assert!(!diagnostics.has_errors());
        assert_eq!(diagnostics.iter().count(), 1);
        assert_eq!(config.unwrap().targets, [UpstreamTarget::File { path: path.to_owned(), addresses: Vec::new() }]);
    }
}

#[test]
fn a_zone_and_an_upstream_are_needed_and_fifteen_are_the_most() {
    for line in ["forward", "forward ."] {
        assert!(refused(line).contains("forward needs a zone and at least one upstream"));
    }
    let many = |count: usize| (1..=count).map(|last| format!(" 192.0.2.{last}")).collect::<String>();
    assert_eq!(accepted(&format!("forward .{}", many(15))).targets.len(), 15);
    assert!(refused(&format!("forward .{}", many(16))).contains("16 upstreams where at most 15 are allowed"));
}

#[test]
fn from_may_be_a_network() {
    assert_eq!(accepted("forward 10.0.0.0/8 192.0.2.1").from, Name::parse("10.in-addr.arpa.").unwrap());
    let (config, diagnostics) = read_on(&MACHINE, "forward 10.0.0.0/9 192.0.2.1");
    assert!(!diagnostics.has_errors());
    assert!(diagnostics.iter().next().expect("a warning").message.contains("only"));
    assert!(config.is_some());
}

#[test]
fn every_option_is_read() {
    let config = accepted(
        "forward . 192.0.2.1 {
            except a.example 10.0.0.0/8
            except b.example
            force_tcp
            prefer_udp
            expire 20s
            max_age 1m
            max_idle_conns 4
            read_timeout 5s
            max_fails 0
            max_connect_attempts 3
            policy round_robin
            health_check 200ms no_rec domain Probe.example.
            max_concurrent 1000
            next NXDOMAIN refused
            next_on_nodata
            failover SERVFAIL
            failfast_all_unhealthy_upstreams
            source_address 192.0.2.200
            use_caps_for_id
            resolver 192.0.2.10 192.0.2.11:5353 2001:db8::1 [2001:db8::2]:54
        }",
    );
    assert_eq!(config.except, ["a.example.", "10.in-addr.arpa.", "b.example."].map(|name| Name::parse(name).unwrap()));
    assert_eq!(
        config.options,
        ForwardOptions {
            force_tcp: true,
            prefer_udp: true,
            expire: Duration::from_secs(20),
            max_age: Some(Duration::from_secs(60)),
            max_idle_conns: 4,
            read_timeout: Duration::from_secs(5),
            max_fails: 0,
            max_connect_attempts: 3,
            policy: UpstreamPolicy::RoundRobin,
            probe_interval: Duration::from_millis(200),
            probe_recursion_desired: false,
            probe_name: Name::parse("probe.example.").unwrap(),
            max_concurrent: 1000,
            next: vec![Rcode::NXDOMAIN, Rcode::REFUSED],
            next_on_nodata: true,
            failover: vec![Rcode::SERVFAIL],
            failfast_all_unhealthy_upstreams: true,
            doh_method: DohMethod::Post,
            source_address: Some("192.0.2.200".parse().unwrap()),
            use_caps_for_id: true,
            resolvers: ["192.0.2.10:53", "192.0.2.11:5353", "[2001:db8::1]:53", "[2001:db8::2]:54"]
                .map(|address| address.parse().unwrap())
                .to_vec(),
        }
    );
    assert_eq!(option("policy sequential").policy, UpstreamPolicy::Sequential);
}

#[test]
fn a_wrong_option_is_an_error_that_names_it() {
    for (line, says) in [
        ("no_such_option", "no_such_option"),
        ("force_tpc", "force_tcp"),
        ("tls /no/cert /no/key", "the file /no/cert cannot be read"),
        ("tls /etc/resolv.conf", "/etc/resolv.conf has no certificate"),
        ("tls a b c d", "tls takes at most three files"),
        ("tls_servername", "tls_servername"),
        ("tls_servername a b", "tls_servername"),
        ("policy fastest", "unknown policy `fastest`"),
        ("policy randon", "did you mean `random`?"),
        ("policy", "policy"),
        ("expire -1s", "-1s"),
        ("expire soon", "soon"),
        ("read_timeout 0s", "0s"),
        ("max_fails many", "many"),
        ("max_fails -1", "-1"),
        ("max_concurrent", "max_concurrent"),
        ("max_idle_conns 1 2", "max_idle_conns"),
        ("force_tcp yes", "force_tcp"),
        ("except", "except needs at least one argument"),
        ("next", "next needs at least one argument"),
        ("next NXDOMIAN", "did you mean `NXDOMAIN`?"),
        ("failover NOERROR", "failover cannot have NOERROR"),
        ("health_check", "health_check needs a duration"),
        ("health_check 1s norec", "did you mean `no_rec`?"),
        ("health_check 1s domain", "domain needs a name"),
        ("health_check 1s domain a..b", "a..b"),
        ("source_address eth0", "source_address must be an IP address"),
        ("source_address 2001:db8::1", "one is IPv4, the other IPv6"),
        ("resolver dns.example", "resolver must be IP or IP:PORT"),
        ("max_age 5s", "max_age (5s) is less than expire (10s)"),
        ("force_tcp {\nx\n}", "force_tcp takes no block"),
    ] {
        let message = refused_option(line);
        assert!(message.contains(says), "{line}: {message}");
    }
}

/// What is read, and the only thing that is warned of.
fn warned(line: &str) -> (ForwardConfig, String) {
    let (config, diagnostics) = read_on(&MACHINE, line);
    assert!(!diagnostics.has_errors(), "{line}: {diagnostics:?}");
    let said: Vec<&str> = diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
    (config.expect("it is taken"), said.join("\n"))
}

#[test]
fn what_is_no_port_is_an_upstream_out_of_reach_with_a_warning() {
    for to in [
        "192.0.2.1:0",
        "192.0.2.1:99999",
        "192.0.2.1:",
        "192.0.2.1:-1",
        "192.0.2.1:x",
        "[2001:db8::1]:x",
        "dns://192.0.2.1:x",
        "tls://192.0.2.1:x",
    ] {
        let (config, said) = warned(&format!("forward . {to}"));
        assert!(said.contains("never reached"), "{to}: {said}");
        let [UpstreamTarget::Address { address, .. }] = config.targets.as_slice() else { panic!("{to}") };
        assert_eq!(address.port(), 0, "{to}");
    }
    let (config, said) = warned("forward . 192.0.2.1:domain");
    assert_eq!((addresses(&config.targets), said.as_str()), (vec!["192.0.2.1:53".to_owned()], ""));
}

#[test]
fn what_is_more_than_can_be_becomes_the_most_with_a_warning() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let options = |line: &str| {
        let (config, said) = warned(&format!("forward . 192.0.2.1 {{\n{line}\n}}"));
        assert!(said.contains("is used instead"), "{line}: {said}");
        config.options
    };
    assert_eq!(options("expire 99999h").expire, 365 * DAY);
    assert_eq!(options("health_check 9999h").probe_interval, DAY);
    assert_eq!(options("max_concurrent 99999999999999").max_concurrent, u32::MAX as usize);
    assert_eq!(options("read_timeout 10us").read_timeout, Duration::from_millis(1));
    let (config, said) = warned("forward . 192.0.2.1 {\nexcept a..b example.org\n}");
    assert!(said.contains("it is ignored") && config.except.len() == 1, "{said}");
}

#[test]
fn all_errors_are_reported_at_once() {
    let (_, diagnostics) = read_on(&MACHINE, "forward . grpc://192.0.2.1 192.0.2.1:0 {\npolicy fastest\nexpire x\n}");
    assert_eq!(diagnostics.iter().count(), 4, "{diagnostics:?}");
}

#[test]
fn upstreams_over_tls_have_a_port_and_a_name_of_their_own() {
    let (config, _) = warned(
        "forward . tls://192.0.2.1 tls://192.0.2.2:8853 tls://192.0.2.3%a.example tls://192.0.2.4%b.example:8853 \
         tls://2001:db8::1 tls://[2001:db8::2]:8853 tls://2001:db8::3%c.example tls://[2001:db8::4%d.example]:8853 \
         tls://[2001:db8::5%e.example] tls://[fe80::1%eth0%f.example]:853 tls://dns.example tls://dns.example%g.example:8853",
    );
    assert_eq!(
        addresses(&config.targets),
        [
            "192.0.2.1:853 tls -",
            "192.0.2.2:8853 tls -",
            "192.0.2.3:853 tls a.example",
            "192.0.2.4:8853 tls b.example",
            "[2001:db8::1]:853 tls -",
            "[2001:db8::2]:8853 tls -",
            "[2001:db8::3]:853 tls c.example",
            "[2001:db8::4]:8853 tls d.example",
            "[2001:db8::5]:853 tls e.example",
            "[fe80::1%3]:853 tls f.example",
            "dns.example. 853 tls -",
            "dns.example. 8853 tls g.example",
        ]
    );
    let (config, _) = warned("forward . tls://192.0.2.1 tls://[2001:db8::1]:8853 {\ntls_servername dns.example\n}");
    assert_eq!(addresses(&config.targets), ["192.0.2.1:853 tls dns.example", "[2001:db8::1]:8853 tls dns.example"]);
    let (config, _) = warned("forward . tls://192.0.2.1 {\ntls_servername \"\"\n}");
    assert_eq!(addresses(&config.targets), ["192.0.2.1:853 tls -"]);
    let message = refused("forward . tls://192.0.2.1%a.example {\ntls_servername b.example\n}");
    assert!(message.contains("`a.example`") && message.contains("`b.example`"), "{message}");
}

#[test]
fn upstreams_over_https_have_a_port_a_name_and_a_path() {
    let (config, _) = warned(
        "forward . https://192.0.2.1 https://192.0.2.2:8443/ask https://192.0.2.3%a.example https://[2001:db8::1] \
         https://[2001:db8::2%b.example]:8443/a/b?c=d https://dns.example https://dns.example:8443/",
    );
    assert_eq!(
        addresses(&config.targets),
        [
            "192.0.2.1:443 https - /dns-query",
            "192.0.2.2:8443 https - /ask",
            "192.0.2.3:443 https a.example /dns-query",
            "[2001:db8::1]:443 https - /dns-query",
            "[2001:db8::2]:8443 https b.example /a/b?c=d",
            "dns.example. 443 https - /dns-query",
            "dns.example. 8443 https - /",
        ]
    );
    assert_eq!(config.options.doh_method, DohMethod::Post);
    let (config, _) = warned("forward . https://192.0.2.1 {\ntls_servername dns.example\ndoh_method GET\n}");
    assert_eq!(addresses(&config.targets), ["192.0.2.1:443 https dns.example /dns-query"]);
    assert_eq!(config.options.doh_method, DohMethod::Get);
    for (line, says) in [("doh_method", "doh_method"), ("doh_method get", "must be GET or POST, not `get`")] {
        let message = refused(&format!("forward . https://192.0.2.1 {{\n{line}\n}}"));
        assert!(message.contains(says), "{line}: {message}");
    }
    let (_, said) = warned("forward . 192.0.2.1 {\ndoh_method GET\n}");
    assert!(said.contains("doh_method is ignored"), "{said}");
    let (_, said) = warned("forward . https://resolv.local");
    assert!(said.contains("https:// before a file is ignored"), "{said}");
}

#[test]
fn what_the_reference_takes_otherwise_of_https_is_named() {
    for (to, says) in [
        ("https://192.0.2.1/dns-query", "CoreDNS takes no path"),
        ("https://192.0.2.1%dns.example", "CoreDNS does not heed the server name"),
    ] {
        let (_, diagnostics) = read_on(&MACHINE, &format!("forward . {to}"));
        let diagnostic = diagnostics.iter().find(|diagnostic| diagnostic.severity == Severity::Portability);
        assert!(diagnostic.is_some_and(|diagnostic| diagnostic.message.contains(says)), "{to}: {diagnostics:?}");
    }
}

#[test]
fn what_is_not_heeded_of_tls_is_a_warning() {
    let (config, said) = warned("forward . 192.0.2.1 {\ntls\ntls_servername dns.example\n}");
    assert!(config.tls.is_none());
    assert!(said.contains("tls is ignored") && said.contains("tls_servername is ignored"), "{said}");
    let (config, said) = warned("forward . 192.0.2.1 tls://192.0.2.2 192.0.2.3");
    assert!(config.tls.is_some());
    assert!(said.contains("192.0.2.1 is asked by plain DNS beside others over TLS"), "{said}");
    let (config, said) = warned("forward . tls:///etc/resolv.conf");
    assert_eq!(addresses(&config.targets), ["/etc/resolv.conf [192.0.2.1:53, [fe80::1%3]:53]"]);
    assert!(said.contains("tls:// before a file is ignored"), "{said}");
    for line in ["forward . tls://192.0.2.1 {\ntls_servername no_*\n}", "forward . tls://192.0.2.1%no_*"] {
        let (_, said) = warned(line);
        assert!(said.contains("`no_*` is neither a host name"), "{line}: {said}");
    }
}

#[test]
fn a_machine_without_certificates_of_authorities_is_a_warning_unless_they_are_named() {
    let (_, said) = warned("forward . tls://192.0.2.1");
    assert!(said.contains("this machine has no certificates of authorities"), "{said}");
    let authority = Authority::new("authority");
    let shown = authority.sign(&["client.example"]);
    let files = [
        ("/etc/ssl/cert.pem", authority.pem()),
        ("/ca", authority.pem()),
        ("/root/cert", shown.certificate),
        ("/key", shown.key),
    ];
    let files: Vec<(&'static str, &'static str)> = files.map(|(path, text)| (path, &*text.leak())).into();
    let machine = Machine(files.leak());
    let empty = Machine(&[]);
    for options in ["", "tls", "tls /ca", "tls cert /key", "tls cert /key /ca", "tls /absent\ntls /ca"] {
        let line = format!("forward . tls://192.0.2.1 {{\n{options}\n}}");
        let (config, diagnostics) = read_on(&machine, &line);
        // Each file that is named must be there, also where a later line counts.
        assert_eq!(diagnostics.iter().count(), usize::from(options.contains("/absent")), "{line}: {diagnostics:?}");
        assert_eq!(config.unwrap().tls.is_some(), !options.contains("/absent"), "{line}");
        let (_, diagnostics) = read_on(&empty, &line);
        assert!(diagnostics.iter().next().is_some_and(|diagnostic| diagnostic.span.is_some()), "{line}");
    }
}
