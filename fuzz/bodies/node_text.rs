//! Texts of the node that are not a Corefile: what other programs print, /proc, mounted files, pages. The first octet
//! says which; octets of zero part several texts.

use nodelocaldns::chain::{Interfaces, Loaders};
use nodelocaldns::corefile::{Loader, parse};
use nodelocaldns::doctor::{self, Expectation, Findings, ListeningSocket, netfilter_sockets, privileges_of};
use nodelocaldns::kube_dns::config;
use nodelocaldns::kube_dns::render::{PillarValues, ServiceAddress, render};
use nodelocaldns::message::Name;
use nodelocaldns::node::{
    Backend, Fallback, Interception, IptablesChanges, IptablesTable, Listing, NodeSpec, OptionalMatches, Rule, Survey,
    changes, desired, dropped_connections, other_agents, preceding_rules, present, script,
};
use nodelocaldns::plan::configure;
use procfs::process::{Stat, Status};
use procfs::{FromBufRead, FromBufReadSI, FromRead, LocalSystemInfo};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Panics if anything that the program relies on does not hold.
pub fn run(octets: &[u8]) {
    let Some((kind, rest)) = octets.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return check_proc(kind, rest) };
    let parts: Vec<&str> = text.split('\0').collect();
    let part = |index: usize| parts.get(index).copied();
    match kind {
        b'i' => check_listing(text),
        b'k' => check_config_map(part(0), part(1), part(2)),
        b'r' => check_resolv_conf(text),
        b'd' => check_doctor(text, part(0).unwrap_or_default(), part(1).unwrap_or_default()),
        _ => check_proc(kind, rest),
    }
}

fn spec() -> NodeSpec {
    let addresses: Vec<IpAddr> =
        ["169.254.20.10", "10.96.0.10", "fd00::10"].iter().flat_map(|text| text.parse()).collect();
    let (probe_mark, fallback) = (0x10_0000, Fallback::default());
    NodeSpec {
        addresses,
        port: 53,
        health_port: 8080,
        interface: Some("nodelocaldns".to_owned()),
        probe_mark,
        fallback,
    }
}

fn rules() -> Vec<Rule> {
    let spec = spec();
    desired(&spec, &Interception::of(&spec.addresses)).rules
}

/// What iptables programs list: what is made of it changes our own rules and nothing else.
fn check_listing(text: &str) {
    for table in IptablesTable::ALL {
        let wanted: Vec<Rule> = rules().into_iter().filter(|rule| IptablesTable::of(rule.hook) == table).collect();
        let there = present(table, text);
        for found in &there {
            assert_eq!(IptablesTable::of(found.rule.hook), table);
            assert!(text.lines().any(|line| line.starts_with("-A ") && line.ends_with(&found.text)));
        }
        for (available, is_alone) in [
            (OptionalMatches::NONE, false),
            (OptionalMatches::ALL, false),
            (OptionalMatches::NONE, true),
            (OptionalMatches::ALL, true),
        ] {
            check_script(table, &changes(&wanted, available, &there, is_alone), available);
            let none = changes(&[], available, &there, is_alone);
            assert!(none.missing.is_empty() && none.surplus.iter().all(|rule| there.contains(rule)));
        }
        for rule in &wanted {
            let first = preceding_rules(table, text, rule);
            assert!(first.iter().all(|preceding_rules| text.lines().any(|line| line == preceding_rules.line)
                && !preceding_rules.target.is_empty()));
        }
    }
}

fn check_script(table: IptablesTable, changes: &IptablesChanges, available: OptionalMatches) {
    let script = script(table, changes, available);
    let lines: Vec<&str> = script.split_terminator('\n').collect();
    let (missing, surplus) = (changes.missing.len(), changes.surplus.len());
    assert_eq!(lines.len(), 2 + missing + surplus, "{script}");
    assert!(lines[0].starts_with('*') && lines[lines.len() - 1] == "COMMIT");
    assert!(lines[1..=missing].iter().all(|line| line.starts_with("-I ")), "{script}");
    assert!(lines[1 + missing..1 + missing + surplus].iter().all(|line| line.starts_with("-D ")), "{script}");
    // As the program would list them.
    let listed: String =
        lines[1..=missing].iter().map(|line| format!("-A {}\n", line[3..].replacen(" 1 ", " ", 1))).collect();
    let read: Vec<Rule> = present(table, &listed).iter().map(|present| present.rule).collect();
    assert_eq!(read, changes.missing, "what we write is read back");
}

/// Machine without files and links.
struct Nothing<'a> {
    resolv_conf: &'a str,
}

impl Loader for Nothing<'_> {
    fn read(&self, path: &Path) -> io::Result<String> {
        if path == Path::new("/etc/resolv.conf") {
            Ok(self.resolv_conf.to_owned())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
    fn glob(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
    fn environment(&self, name: &str) -> Option<String> {
        (name == "KUBE_DNS_UPSTREAM_SERVICE_HOST").then(|| "10.96.0.11".to_owned())
    }
}

impl Interfaces for Nothing<'_> {
    fn addresses(&self, _: &str) -> Option<Vec<IpAddr>> {
        None
    }
    fn index(&self, _: &str) -> Option<u32> {
        None
    }
}

/// The Corefile is sound, whatever is wrong elsewhere.
fn assert_sound(corefile: &str, machine: &Nothing<'_>) {
    let (tree, mut diagnostics) = parse(Path::new("Corefile"), corefile, machine);
    diagnostics.extend(configure(&tree, 53, Loaders { files: machine, interfaces: machine }).1);
    assert!(!diagnostics.has_errors(), "{}", diagnostics.render(&tree.sources));
}

const TEMPLATE: &str = "cluster.local:53 {\n bind __PILLAR__LOCAL__DNS__\n forward . __PILLAR__CLUSTER__DNS__ {\n force_tcp\n }\n}\n\
    .:53 {\n bind __PILLAR__LOCAL__DNS__\n forward . __PILLAR__UPSTREAM__SERVERS__\n}\n";

/// A ConfigMap that is not refused makes a sound Corefile of a sound template, and any template keeps its lines.
fn check_config_map(stub_domains: Option<&str>, upstreams: Option<&str>, template: Option<&str>) {
    let mut errors = Vec::new();
    let config = config::parse(Path::new("/etc/kube-dns"), stub_domains, upstreams, &mut errors);
    errors.iter().for_each(|error| assert!(!error.to_string().is_empty()));
    if !errors.is_empty() {
        return;
    }
    assert!(config.upstream_nameservers.len() <= 3);
    assert!(config.stub_domains.iter().all(|(domain, servers)| domain.to_string().len() <= 253 && !servers.is_empty()));
    let machine = Nothing { resolv_conf: "nameserver 192.0.2.53\n" };
    let values = PillarValues {
        local_addresses: spec().addresses,
        port: 53,
        cluster_dns: ServiceAddress::read("kube-dns-upstream", &machine),
        prometheus: ":9253".to_owned(),
    };
    let rendered = render(Path::new("base"), TEMPLATE, &config, &values, &machine).expect("every pillar has a value");
    assert_eq!(rendered.stub_domain_count, config.stub_domains.len());
    // Domains of the template may be stub domains too, which a Corefile may not have twice.
    let repeats = config.stub_domains.keys().any(|domain| domain.to_string() == "cluster.local");
    if !repeats {
        assert_sound(&rendered.text, &machine);
    }
    let Some(template) = template else { return };
    if let Ok(rendered) = render(Path::new("base"), template, &config, &values, &machine) {
        assert!(
            rendered.text.matches('\n').count() >= template.matches('\n').count(),
            "every line stays at its number"
        );
    }
}

/// Nothing that stands in a resolv.conf makes a Corefile that names it wrong.
fn check_resolv_conf(text: &str) {
    assert_sound(".:53 {\n forward . /etc/resolv.conf\n}\n", &Nothing { resolv_conf: text });
}

/// /proc/PID/stat behind the process's name.
const STAT_AFTER_NAME: &[u8] =
    b") S 1 7 7 0 -1 4194304 94 0 0 0 0 0 0 0 20 0 1 0 999 1 1 18446744073709551615 1 1 1 0 0 0 0 0 0 0 0 0 17 0 0 0 \
    0 0 0 1 1 1 1 1 1 1 0\n";

/// Files of /proc, as octets: what they say of a process, the process may have written itself.
fn check_proc(kind: &u8, octets: &[u8]) {
    match kind {
        // A process chooses its name, of 15 octets at most, and the kernel writes the rest.
        b's' => {
            let name = octets.get(..octets.len().min(15)).unwrap_or_default();
            let stat = [b"7 (", name, STAT_AFTER_NAME].concat();
            assert!(Stat::from_read(&stat[..]).is_ok_and(|stat| stat.ppid == 1), "{}", String::from_utf8_lossy(&stat));
        }
        b'S' => _ = Status::from_buf_read(octets),
        b'u' => {
            if let Ok(sockets) = procfs::net::UdpNetEntries::from_buf_read(octets, &LocalSystemInfo) {
                assert!(sockets.0.len() <= lines(octets));
            }
        }
        b't' => {
            if let Ok(sockets) = procfs::net::TcpNetEntries::from_buf_read(octets, &LocalSystemInfo) {
                assert!(sockets.0.len() <= lines(octets));
            }
        }
        b'n' => {
            let text = String::from_utf8_lossy(octets);
            assert!(netfilter_sockets(&text).len() <= lines(octets));
            let (all, others) = (other_agents(&text, None), other_agents(&text, Some("nodelocaldns-agent/01")));
            assert!(others <= all && all <= lines(octets));
            _ = dropped_connections(&text);
            _ = privileges_of(0, u64::MAX, &text);
        }
        _ => {}
    }
}

fn lines(octets: &[u8]) -> usize {
    octets.split(|octet| *octet == b'\n').count()
}

/// Whatever a page, a listing or a name of a process holds, the doctor says something of every check, and nothing that
/// steers a terminal.
fn check_doctor(text: &str, page: &str, program: &str) {
    let spec = spec();
    let address = SocketAddr::new(spec.addresses[0], 53);
    let name = Name::parse("kubernetes.default.svc.cluster.local.").expect("a good name");
    let expected = Expectation { spec, backend: Backend::Auto, metrics_address: Some(address), name };
    let listing = |table| Listing { program: "iptables", is_ipv6: false, table, text: text.to_owned() };
    let holders = vec![doctor::SocketHolder { pid: 7, program: program.to_owned() }];
    let agent = doctor::AgentProcess {
        pid: 8,
        program: program.to_owned(),
        arguments: vec![text.to_owned()],
        is_stopped: false,
        is_server: false,
        port_ids: vec![],
    };
    let findings = Findings {
        agents: vec![agent],
        elsewhere: vec![],
        privileges: privileges_of(0, 0, page),
        node: Survey {
            link: Ok(None),
            ipv6_disabled_by: vec![],
            ipvs_link: None,
            has_cilium: false,
            nftables: Ok(Default::default()),
            firewall: Ok(Default::default()),
            iptables: Ok(IptablesTable::ALL.map(listing).to_vec()),
            legacy_tables: vec![],
            legacy_filter: Ok(()),
            has_legacy_kubernetes_chains: None,
            blocked_clients: vec![],
            connections: Ok(vec![]),
            connection_table: None,
            has_agent: true,
        },
        listeners: Ok(vec![ListeningSocket { transport: nodelocaldns::chain::Transport::Udp, address, holders }]),
        test_queries: vec![],
        health: vec![(address, Ok((500, page.to_owned()))), (address, Err(page.to_owned()))],
        metrics: Some((address, Ok((200, page.to_owned())))),
    };
    let diagnosis = doctor::diagnose(&expected, &findings);
    assert!(diagnosis.checks.iter().all(|check| !check.seen.is_empty()));
    let told = diagnosis.to_string();
    assert!(told.chars().all(|character| !character.is_control() || character == '\n'), "{told:?}");
}
