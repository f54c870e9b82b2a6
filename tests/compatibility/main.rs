//! What users and their programs rely on is what `docs/compatibility.md` promises: flags, metrics and the fields of
//! JSON output stand in lists beside this file. A change of them is seen in the list. `COMPATIBILITY=write cargo test
//! --test compatibility` writes the lists anew, and the tables of docs/flags.md and docs/metrics.md.

mod pages;
#[path = "../support/mod.rs"]
mod support;

use hickory_proto::op::Edns;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::client::{PATIENCE, ask, exchange_udp, http, loopback, query};
use support::ports::free_port;
use support::server::{Server, binary, reference_command, scratch, wait_until, write_corefile};
use support::upstream::{Upstream, address_rule};

/// Compares with the list, or writes it.
fn compare(list: &str, found: &str) {
    compare_with(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compatibility").join(list), found);
}

/// Compares with a file, or writes it.
fn compare_with(path: &Path, found: &str) {
    if std::env::var_os("COMPATIBILITY").is_some_and(|wish| wish == "write") {
        std::fs::write(path, found).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let written = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (listed, there) = (lines(&written), lines(found));
    let [gone, new] =
        [&listed - &there, &there - &listed].map(|lines| lines.into_iter().collect::<Vec<_>>().join("\n"));
    assert!(
        written == found,
        "{} is no longer what the program shows. What users rely on changes by this: see docs/compatibility.md, then \
         `COMPATIBILITY=write cargo test --test compatibility`.\n--- gone\n{gone}\n--- new\n{new}",
        path.display()
    );
}

#[test]
fn commands_and_flags_are_those_of_the_list() {
    let help = |command: &[&str]| {
        let output = Command::new(binary()).args(command).arg("--help").output().expect("the program runs");
        assert!(output.status.success(), "{command:?}");
        format!("# nodelocaldns {}\n{}\n", command.join(" "), String::from_utf8(output.stdout).expect("UTF-8"))
    };
    let commands = |help: &str| -> Vec<String> {
        let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    };
    let mut all = help(&[]);
    let names = commands(&all);
    assert!(["check", "doctor"].iter().all(|known| names.iter().any(|name| name == known)), "{names:?}");
    for name in names {
        let page = help(&[&name]);
        let nested: String = commands(&page).iter().map(|command| help(&[&name, command])).collect();
        all += &(page + &nested);
    }
    let help = all;
    compare("help.txt", &help);
    pages::compare_flags(&help);
}

#[test]
fn directives_are_those_of_the_list() {
    let output = Command::new(binary()).arg("-plugins").output().expect("the program runs");
    compare("directives.txt", &String::from_utf8(output.stdout).expect("UTF-8"));
}

/// Of each family name, type and labels, as an agent shows them that has answered, been refused and cached.
#[test]
fn metrics_are_those_of_the_list() {
    let upstream = Upstream::start(vec![address_rule("a.example.", 300, "192.0.2.1")], None);
    let (port, metrics, https) = (free_port(), free_port(), free_port());
    let corefile = format!(
        ".:{port} {{
    bind __PILLAR__LOCAL__DNS__
    errors
    log
    local
    dnstap tap.sock
    trace zipkin 127.0.0.1:9
    cache {{
        serve_stale
        prefetch 1
    }}
    loop
    reload
    acl {{
        block type TXT
    }}
    any
    dns64
    hosts {{
        192.0.2.7 host.example
        fallthrough
    }}
    rewrite name exact b.example a.example
    template IN MX {{
        rcode NXDOMAIN
    }}
    template IN SRV {{
        answer \"no record\"
    }}
    template IN TLSA {{
        answer \"{{{{ index .Match 99 }}}}\"
    }}
    forward . 127.0.0.1:{upstream}
    health 127.0.0.1:{health}
    prometheus 127.0.0.1:{prometheus}
}}
https://.:{https} {{
    bind __PILLAR__LOCAL__DNS__
    prometheus 127.0.0.1:{prometheus}
    forward . 127.0.0.1:{upstream}
}}
",
        upstream = upstream.port,
        health = free_port(),
        prometheus = free_port(),
    );
    let folder = scratch();
    let mut server = Server::spawn(reference_command(&write_corefile(folder.path(), &corefile), metrics), folder);
    server.wait_ready(port).unwrap_or_else(|e| panic!("{e}"));
    let asked = [("a.example.", "A"), ("a.example.", "A"), ("a.example.", "AAAA"), ("b.example.", "A")];
    let answered = [("host.example.", "A"), ("a.example.", "MX"), ("a.example.", "TXT"), ("a.example.", "ANY")];
    for (name, rtype) in asked.into_iter().chain(answered) {
        assert!(ask(loopback(port), name, rtype).is_some(), "{name} {rtype}:\n{}", server.tail(20));
    }
    let failing = [("a.example.", "SRV"), ("a.example.", "TLSA"), ("localhost.", "A")];
    for (name, rtype) in failing {
        assert!(ask(loopback(port), name, rtype).is_some(), "{name} {rtype}:\n{}", server.tail(20));
    }
    let mut with_do = query("a.example.", "A");
    with_do.edns.get_or_insert_with(Edns::new).set_dnssec_ok(true);
    let wire = with_do.to_vec().expect("a query of ours encodes");
    exchange_udp(loopback(port), &wire, PATIENCE).unwrap_or_else(|e| panic!("{e}:\n{}", server.tail(20)));
    // a.example. A, as RFC 8484 section 4.1 has it.
    let answer = http(&format!("{https}/dns-query?dns=AAABAAABAAAAAAAAAWEHZXhhbXBsZQAAAQAB"));
    assert!(answer.is_some_and(|(status, _)| status == 200), "{}", server.tail(20));
    let place = format!("{metrics}/metrics");
    let mut exposition = String::new();
    let is_complete =
        |text: &str| text.contains("nodelocaldns_watchdog_") && text.contains("coredns_cache_hits_total{");
    let is_there = wait_until(Duration::from_secs(10), || {
        exposition = http(&place).map(|(_, text)| text).unwrap_or_default();
        is_complete(&exposition)
    });
    assert!(is_there, "{exposition}\n{}", server.tail(20));
    let families = families(&exposition);
    let names: BTreeSet<String> =
        families.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    let unshown = &pages::names_in_source() - &names;
    assert!(unshown.is_empty(), "nothing in this test has the program show {unshown:?}");
    compare("metrics.txt", &families);
    pages::compare_metrics(&exposition);
}

/// `NAME TYPE LABELS` of each family, sorted.
fn families(exposition: &str) -> String {
    let mut families: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
    for line in exposition.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name).or_default().0 = kind;
        } else if let Some((series, rest)) = line.split_once('{') {
            let of_histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|end| series.strip_suffix(end));
            let name = of_histogram.filter(|name| families.contains_key(name)).unwrap_or(series);
            let (labels, _) = rest.rsplit_once('}').expect("labels end");
            let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name);
            families.entry(name).or_default().1.extend(names.filter(|name| *name != "le"));
        }
    }
    let line = |(name, (kind, labels)): (&&str, &(&str, BTreeSet<&str>))| {
        let labels: Vec<&str> = labels.iter().copied().collect();
        format!("{name} {kind} {}\n", labels.join(","))
    };
    families.iter().map(line).collect::<String>().replace(" \n", "\n")
}

#[test]
fn families_are_read_with_their_labels() {
    let text = "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"a,b=c\"} 2\na{z=\"\"} 1\n# TYPE h histogram\n\
                h_bucket{le=\"1\",s=\"x\"} 1\nh_sum{s=\"x\"} 1\n# TYPE g gauge\ng 1\n";
    assert_eq!(families(text), "a counter x,y,z\ng gauge\nh histogram s\n");
}

/// The fields, whatever is wrong with the machine that the test runs on.
#[test]
fn fields_of_the_doctor_s_json_are_those_of_the_list() {
    let output = Command::new(binary())
        .args(["doctor", "--output", "json", "-localip", "127.0.0.1"])
        .output()
        .expect("the program runs");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut fields = BTreeSet::new();
    collect(&report, "", &mut fields);
    let names = report["checks"].as_array().into_iter().flatten().filter_map(|check| check["name"].as_str());
    let checks: Vec<String> = names.map(|name| format!("check {name}\n")).collect();
    let fields: String = fields.iter().map(|field| format!("field {field}\n")).collect();
    compare("doctor.txt", &(fields + &checks.concat()));
}

/// The fields of what a server says of questions that are answered and forwarded, and are asked.
#[test]
fn fields_of_the_json_of_explain_are_those_of_the_list() {
    let upstream = Upstream::start(vec![address_rule("a.example.", 300, "192.0.2.1")], None);
    let (port, metrics) = (free_port(), free_port());
    let corefile = format!(
        ".:{port} {{\n bind 127.0.0.1\n cache\n forward . 127.0.0.1:{}\n}}\n\
         consul.local:{port} {{\n bind 127.0.0.1\n whoami\n}}\n",
        upstream.port
    );
    let folder = scratch();
    let path = write_corefile(folder.path(), &corefile);
    let mut command = reference_command(&path, metrics);
    let label = format!("fields-{port}");
    command.args(["--admin-socket", &label]);
    let mut server = Server::spawn(command, folder);
    server.wait_ready(port).unwrap_or_else(|e| panic!("{e}"));
    let mut fields = BTreeSet::new();
    let of_server = ["--admin-socket", &*label];
    let asked = ["a.example", "a.example", "x.consul.lcal"].map(|name| [&[name, "--ask"][..], &of_server].concat());
    let of_file = vec!["a.example", "--conf", path.to_str().expect("UTF-8")];
    for arguments in asked.into_iter().chain([of_file]) {
        let output = Command::new(binary()).arg("explain").args(&arguments).args(["--output", "json"]).output();
        let output = output.expect("the program runs");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        collect(&report, "", &mut fields);
    }
    compare("explain.txt", &fields.iter().map(|field| format!("field {field}\n")).collect::<String>());
}

/// Paths of all fields below `value`, and what type each has.
fn collect(value: &Value, path: &str, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| collect(value, &format!("{path}.{name}"), fields))
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, &format!("{path}[]"), fields)),
        Value::String(_) => drop(fields.insert(format!("{path} string"))),
        Value::Bool(_) => drop(fields.insert(format!("{path} boolean"))),
        Value::Number(_) => drop(fields.insert(format!("{path} number"))),
        Value::Null => {}
    }
}

#[test]
fn the_lists_are_the_files_of_this_folder() {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compatibility");
    let entries = folder.read_dir().expect("it can be listed");
    let name =
        |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name().into_string().expect("ASCII");
    let names: BTreeSet<String> = entries.map(name).collect();
    let wanted = [
        "directives.txt",
        "doctor.txt",
        "explain.txt",
        "help.txt",
        "kubernetes.txt",
        "main.rs",
        "metrics.txt",
        "pages.rs",
    ];
    assert_eq!(names, wanted.map(str::to_owned).into());
}
