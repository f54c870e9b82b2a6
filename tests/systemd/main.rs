//! The unit of systemd/: systemd's own check finds nothing wrong with it, its command serves with the rights that it
//! leaves, and what it serves is what the manifest does.

mod boot;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;
use support::daemons::{Listen, start_unbound};
use support::namespace::Namespace;
use support::server::{Server, binary, scratch, wait_until};
use support::tools::{checkout, everything, require, run, tool, write};

/// Where the unit has the program and its files.
const PROGRAM: &str = "/usr/local/bin/nodelocaldns";
const CONFIGURATION: &str = "/etc/nodelocaldns";
const RUNTIME: &str = "/run/nodelocaldns";

/// Long for a loaded machine; what is waited for comes within a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// Stands for cluster DNS: of loopback, so that queries need no route.
const CLUSTER_DNS: &str = "127.0.0.11";

fn read(file: &str) -> String {
    let path = checkout("systemd").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The values of a setting of the unit.
fn settings<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// Files and program where the test has them.
fn relocated(text: &str, runtime: &Path) -> String {
    text.replace(PROGRAM, &binary().to_string_lossy())
        .replace(CONFIGURATION, &checkout("systemd").to_string_lossy())
        .replace(RUNTIME, &runtime.to_string_lossy())
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = scratch();
    let verify = |text: &str| {
        let unit = write(folder.path(), "nodelocaldns.service", text);
        // The manual page that it names is not installed where it is tested.
        let output = tool("systemd-analyze").args(["verify", "--man=no"]).arg(unit).output().expect("it runs");
        everything(&output)
    };
    let unit = relocated(&read("nodelocaldns.service"), Path::new(RUNTIME));
    // It reads the units that ours names too, and tells of those.
    let of_ours = |said: &str| said.lines().filter(|line| line.contains("nodelocaldns")).collect::<Vec<_>>().join("\n");
    assert_eq!(of_ours(&verify(&unit)), "");
    let wrong = verify(&unit.replace("ProtectSystem=", "ProtectSistem="));
    assert!(of_ours(&wrong).contains("ProtectSistem"), "a misspelt setting is found: {wrong}");
}

#[test]
fn the_unit_leaves_the_rights_of_the_manifest() {
    let manifest = std::fs::read_to_string(checkout("manifests/base/nodelocaldns.yaml")).expect("the manifest");
    let unit = read("nodelocaldns.service");
    let capabilities = settings(&unit, "CapabilityBoundingSet").join(" ");
    let capabilities: Vec<&str> = capabilities.split_whitespace().collect();
    assert_eq!(capabilities.len(), 5);
    for capability in capabilities {
        let name = capability.strip_prefix("CAP_").expect("a capability");
        assert!(manifest.contains(&format!("- {name}\n")), "the manifest does not give {name}");
    }
    assert_eq!(settings(&unit, "NoNewPrivileges"), ["yes"]);
}

#[test]
fn the_corefile_is_the_manifests() {
    let manifest = std::fs::read_to_string(checkout("manifests/base/nodelocaldns.yaml")).expect("the manifest");
    let (_, rest) = manifest.split_once("  Corefile: |\n").expect("the ConfigMap");
    let (wanted, _) = rest.split_once("\n---").expect("the next object");
    let words = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(words(&read("Corefile")), words(wanted));
}

/// The unit's command with its variables, as systemd replaces them: `${NAME}` within a word, `$NAME` as words.
fn command_line(unit: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let [line] = settings(unit, "ExecStart")[..] else { panic!("one ExecStart") };
    let value = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let mut words = Vec::new();
    for word in line.split_whitespace() {
        match word.strip_prefix('$').filter(|name| !name.starts_with('{')) {
            Some(name) => {
                let value = value(name).unwrap_or_else(|| panic!("{name} is not set"));
                words.extend(value.split_whitespace().map(str::to_owned));
            }
            None => {
                let replace = |word: String, (key, value): &(&str, &str)| word.replace(&format!("${{{key}}}"), value);
                words.push(environment.iter().fold(word.to_owned(), replace));
            }
        }
    }
    assert!(words.iter().all(|word| !word.contains('$')), "{words:?}");
    words
}

#[test]
fn the_units_command_serves_with_the_rights_that_it_leaves() {
    let namespace = Namespace::new(&[]);
    let ip = |arguments: &str| run(namespace.command("ip").args(arguments.split_whitespace()));
    // Where the kernel lacks the dummy driver.
    ip("link add nodelocaldns type bridge");
    ip("link set nodelocaldns up");
    let zone = format!(
        "$TTL 30\n@ SOA ns host 1 7200 900 1209600 30\n@ NS ns\nkubernetes.default.svc A 10.96.0.1\nns A {CLUSTER_DNS}\n"
    );
    let listen = Listen { address: CLUSTER_DNS, port: 53, udp: true };
    let _cluster_dns =
        start_unbound(listen, &[("cluster.local", &zone)], scratch(), |program| namespace.command(program));

    let folder = scratch();
    let unit = relocated(&read("nodelocaldns.service"), folder.path());
    let environment = read("environment");
    let lines = environment.lines().filter(|line| !line.starts_with('#'));
    let mut variables: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once('=')).collect();
    assert!(variables.iter().any(|(name, _)| *name == "KUBE_DNS_SERVICE_HOST"), "{variables:?}");
    let [first, more @ ..] = &command_line(&unit, &variables)[..] else { panic!("a command") };
    variables.iter_mut().filter(|(name, _)| *name == "KUBE_DNS_SERVICE_HOST").for_each(|(_, to)| *to = CLUSTER_DNS);
    let kept = settings(&unit, "CapabilityBoundingSet").join(" ").to_lowercase().replace(' ', ",+");
    let mut program = namespace.command(require("setpriv"));
    program.args(["--no-new-privs", "--inh-caps=-all", &format!("--bounding-set=-all,+{}", kept.replace("cap_", ""))]);
    program.arg(first).args(more).envs(variables);
    let mut server = Server::spawn(program, folder);

    let asked = "kubernetes.default.svc.cluster.local";
    let answers = |transport: &str| {
        let mut dig = namespace.command("dig");
        dig.args(["@169.254.20.10", asked, "A", transport, "+short", "+tries=1", "+timeout=2"]);
        dig.output().is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == "10.96.0.1")
    };
    let rules = || run(namespace.command("nft").args(["list", "ruleset"]));
    assert!(wait_until(PATIENCE, || answers("+notcp") && answers("+tcp")), "not served:\n{}", server.output());
    assert!(wait_until(PATIENCE, || rules().contains("notrack")), "no interception:\n{}\n{}", rules(), server.output());
    assert!(rules().contains("table inet nodelocaldns-fallback"), "{}", rules());

    // ExecReload, and the signal of a stop.
    let [reload] = settings(&unit, "ExecReload")[..] else { panic!("one ExecReload") };
    assert_eq!(reload, "/bin/kill -USR1 $MAINPID");
    server.signal(libc::SIGUSR1);
    assert!(wait_until(PATIENCE, || answers("+notcp")), "{}", server.output());
    server.signal(libc::SIGTERM);
    let ended = server.wait_exit(PATIENCE).unwrap_or_else(|| panic!("it does not end:\n{}", server.output()));
    assert!(ended.success(), "{ended}:\n{}", server.output());
    assert!(!rules().contains("notrack"), "left behind:\n{}", rules());
}
