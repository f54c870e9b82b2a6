//! Corefiles that people run, and some of our own, each with one thing that the reference takes without heeding it:
//! whatever the reference starts with, we start with. `check` finds each good, and a server serves with it, in a
//! network of its own that has the addresses it names. Beside this file, a folder for each: its Corefile and what that
//! reads; `lenient/` has the own-made ones, `beyond/` what the reference's build lacks.

#[path = "../support/mod.rs"]
mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::known;
use support::namespace::Namespace;
use support::scope::missing_directive;
use support::server::{Server, binary, scratch};
use support::tools::require;

/// Servers at a time: they mostly wait.
const AT_A_TIME: usize = 10;

/// How long a server may take to say that it serves.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// What the Corefiles take from their environment.
const ENVIRONMENT: [(&str, &str); 9] = [
    ("MY_HOST_IP", "127.0.0.1"),
    ("DOMAIN", "corp.example"),
    ("DNS_HEALTH_PORT", "8080"),
    ("DNS_PROMETHEUS_PORT", "9153"),
    ("DNS_UPSTREAM", "10.20.0.53"),
    ("DNS_CACHE_TIME", "30"),
    ("DNS_CACHE_SUCCESS", "9984"),
    ("DNS_CACHE_DENIAL", "9984"),
    ("DNS_CACHE_PREFETCH", "10"),
];

/// The name that Corefiles give for the node.
const HOSTS: &str = "127.0.0.1 localhost node.example\n::1 localhost\n";

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_A_TIME);
    for name in ["ip", "nsenter", "dig", "curl"] {
        require(name);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corefiles");
    let known = known::failures(&root.join("known_failures.json"));
    let subjects = subjects(&root);
    known::assert_names(&known, &subjects.keys().map(String::as_str).collect::<Vec<_>>());
    let mut left_out: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
    let mut trials = Vec::new();
    for (name, folder) in &subjects {
        let missing = missing_directive(texts(folder).iter().map(String::as_str));
        if let Some(directive) = missing {
            left_out.entry(directive).or_default().push(name);
        }
        let (folder, cause) = (folder.clone(), known.get(name).cloned());
        let kind = known::kind(cause.as_ref());
        let trial = Trial::test(name, move || known::judge(serve(&folder), cause.as_deref()).map_err(Failed::from));
        trials.push(trial.with_kind(kind).with_ignored_flag(missing.is_some()));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let is_shown = !arguments.list && !arguments.exact && !arguments.include_ignored;
    for (directive, names) in left_out.iter().filter(|_| is_shown) {
        println!("`{directive}` is not built yet: {}", names.join(", "));
    }
    conclusion.exit();
}

/// Folders with a Corefile, by their names below `root`.
fn subjects(root: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.join("Corefile").exists() {
            let name = folder.strip_prefix(root).expect("it is below the root").display().to_string();
            found.insert(name, folder);
        } else {
            folders.extend(entries(&folder).into_iter().filter(|path| path.is_dir()));
        }
    }
    assert!(found.len() > 100, "only {} Corefiles in {}", found.len(), root.display());
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|entry| entry.expect("the folder can be read").path()).collect()
}

/// The text of every file below `folder`.
fn texts(folder: &Path) -> Vec<String> {
    let each = entries(folder).into_iter();
    each.flat_map(|path| match path.is_dir() {
        true => texts(&path),
        false => vec![std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))],
    })
    .collect()
}

fn copy(from: &Path, to: &Path) {
    for path in entries(from) {
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            std::fs::create_dir(&target).expect("the scratch folder can be written");
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("the scratch folder can be written");
        }
    }
}

/// Checks a Corefile, starts a server with it, asks it, and sees that it stays. The error says what went wrong.
fn serve(subject: &Path) -> Result<(), String> {
    let folder = scratch();
    copy(subject, folder.path());
    let hosts = folder.path().join("hosts-of-the-node");
    std::fs::write(&hosts, HOSTS).expect("the scratch folder can be written");
    let namespace = Namespace::new(&[(&hosts, "/etc/hosts")]);
    let text = texts(subject).concat();
    namespace.add_addresses(served_addresses(&text));

    let checked = in_place(&namespace, folder.path()).args(["check", "Corefile"]).output().expect("it runs");
    if !checked.status.success() {
        return Err(format!("check ends with {}:\n{}", checked.status, String::from_utf8_lossy(&checked.stdout)));
    }
    let mut command = in_place(&namespace, folder.path());
    if text.contains("__PILLAR__") {
        command.args(["-localip", "127.0.0.1", "-basecorefile", "Corefile", "-conf", "Corefile.rendered"]);
        command.args(["-setupinterface=false", "-setupiptables=false", "-skipteardown"]);
    } else {
        command.args(["-conf", "Corefile"]);
    }
    let mut server = Server::spawn(command, folder);
    let outcome = judge(&namespace, &mut server);
    outcome.map_err(|why| format!("{why}\n--- the server's last lines\n{}", server.tail(20)))
}

/// Our program, in the folder and with the environment of a Corefile.
fn in_place(namespace: &Namespace, folder: &Path) -> Command {
    let mut command = namespace.command_in(folder, binary());
    command.envs(ENVIRONMENT);
    command
}

/// Addresses that `bind`, `health`, `prometheus` and `ready` name.
fn served_addresses(text: &str) -> BTreeSet<IpAddr> {
    let text =
        ENVIRONMENT.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{${name}}}"), value));
    let of_listeners = |line: &&str| {
        let keyword = line.split_whitespace().next().unwrap_or_default();
        ["bind", "health", "prometheus", "ready"].contains(&keyword)
    };
    let words = text.lines().filter(of_listeners).flat_map(str::split_whitespace);
    words.filter_map(|word| word.parse().ok().or_else(|| Some(word.parse::<SocketAddr>().ok()?.ip()))).collect()
}

fn judge(namespace: &Namespace, server: &mut Server) -> Result<(), String> {
    let says = |server: &Server| {
        server.output().lines().any(|line| line.starts_with("nodelocaldns ") && line.ends_with(" serves"))
    };
    support::server::wait_until(START_PATIENCE, || says(server) || server.exit_status().is_some());
    if !says(server) {
        return Err(format!("it does not serve; its exit status is {:?}", server.exit_status()));
    }
    let output = server.output();
    let listeners = listeners(&output);
    for (listener, protocol) in &listeners {
        let told = ask(namespace, *listener, protocol)?;
        if !told.contains("status: ") {
            return Err(format!("no answer from {listener} over {protocol}: {told}"));
        }
    }
    // Warnings go to standard error by a thread of their own.
    let says_nothing = || server.output().contains("nothing is served");
    if listeners.is_empty() && !support::server::wait_until(START_PATIENCE, says_nothing) {
        return Err("it serves nothing and does not say so".to_owned());
    }
    match server.exit_status() {
        Some(status) => Err(format!("it served, and ended with {status}")),
        None => Ok(()),
    }
}

/// One name for each address and port of the banner, in the way that it names. SERVFAIL is right where the upstreams
/// are out of reach, and REFUSED where no zone fits.
fn ask(namespace: &Namespace, listener: SocketAddr, protocol: &str) -> Result<String, String> {
    let address = if listener.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { listener.ip() };
    if protocol == "HTTP" {
        // name.example. A, in base64url.
        let query = "AAABAAABAAAAAAAABG5hbWUHZXhhbXBsZQAAAQAB";
        let mut command = namespace.command(require("curl"));
        command.args(["-sS", "-o", "/dev/null", "--max-time", "8", "-w", "status: %{http_code} %{content_type}"]);
        command.arg(format!("http://{}/dns-query?dns={query}", SocketAddr::new(address, listener.port())));
        let output = command.output().map_err(|e| e.to_string())?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_answer = told == "status: 200 application/dns-message";
        return if is_answer { Ok(told) } else { Err(format!("{listener} answers over HTTP: {told}")) };
    }
    let mut command = namespace.command(require("dig"));
    command.args([
        &format!("@{address}"),
        "-p",
        &listener.port().to_string(),
        "+time=8",
        "+tries=1",
        &format!("+{}tcp", if protocol == "TCP" { "" } else { "no" }),
        "name.example",
        "A",
    ]);
    let output = command.output().map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `  ZONE on ADDRESS (PROTOCOL)`, each address once.
fn listeners(output: &str) -> BTreeMap<SocketAddr, &str> {
    let lines = output.lines().filter_map(|line| {
        let (rest, protocol) = line.strip_prefix("  ")?.strip_suffix(')')?.rsplit_once(" (")?;
        Some((rest.rsplit_once(" on ")?.1, protocol))
    });
    lines
        .map(|(address, protocol)| {
            let whole = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
            (whole.parse().unwrap_or_else(|e| panic!("{address} in the banner: {e}")), protocol)
        })
        .collect()
}
