//! What is written down of a case that fails: links, addresses, routes, rules and connections in each network
//! namespace, processes, and the program's logs.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is asked in each network namespace: a file's name, and the shell that fills it. A table of iptables-legacy is
/// made by being listed, and what is dumped is not to be changed.
const ASKED: &[(&str, &str)] = &[
    ("links", "ip -details -statistics link"),
    ("addresses", "ip address"),
    ("routes", "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip neighbour"),
    ("sockets", "ss -tuanp"),
    ("nft", "nft list ruleset"),
    ("iptables-nft", "iptables-nft-save -c; ip6tables-nft-save -c"),
    (
        "iptables-legacy",
        "for family in ip ip6; do for table in $(cat /proc/self/net/${family}_tables_names); do
        ${family}tables-legacy-save -c -t $table; done; done",
    ),
    ("conntrack", "cat /proc/self/net/nf_conntrack"),
    ("ipvs", "cat /proc/self/net/ip_vs; cat /proc/self/net/ip_vs_conn"),
    ("ipset", "ipset list"),
    ("snmp", "cat /proc/self/net/snmp /proc/self/net/snmp6; nstat -az"),
];

/// Writes all of it below `folder`.
pub fn dump(folder: &Path) {
    for (number, place) in namespaces().values().enumerate() {
        let below = folder.join(format!("network-{number}"));
        for (name, script) in ASKED {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", place.display())).args(["sh", "-c", script]);
            write(command, &below.join(name));
        }
    }
    let mut processes = Command::new("sh");
    processes.args(["-c", "ps; cat /proc/self/mountinfo; lsmod; cat /proc/meminfo"]);
    write(processes, &folder.join("machine"));
    // Scratch folders of the tests' support hold the programs' logs and configuration.
    let mut logs = Command::new("sh");
    let target = folder.display();
    logs.args(["-c", &format!("mkdir -p {target}/scratch && cp -r /tmp/nodelocaldns-test-* {target}/scratch/")]);
    write(logs, &folder.join("copied"));
}

/// By what identifies it a way to each network namespace that a process here is in or this one has open.
fn namespaces() -> BTreeMap<PathBuf, PathBuf> {
    let mut found = BTreeMap::new();
    let below = |folder: &str| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let own = format!("/proc/{}", std::process::id());
    let first = [PathBuf::from(&own).join("ns/net")];
    let processes = below("/proc").map(|process| process.join("ns/net"));
    for path in first.into_iter().chain(processes).chain(below(&format!("{own}/fd"))) {
        if let Ok(target) = std::fs::read_link(&path)
            && target.to_string_lossy().starts_with("net:[")
        {
            found.entry(target).or_insert(path);
        }
    }
    found
}

/// Runs a command into a file. One that fails says so there.
fn write(mut command: Command, path: &Path) {
    let run = || {
        std::fs::create_dir_all(path.parent().unwrap_or(path))?;
        let output = File::create(path)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).status()
    };
    let mut run = run;
    if let Err(error) = run() {
        println!("No dump at {}: {error}", path.display());
    }
}
