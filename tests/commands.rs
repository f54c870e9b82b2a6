//! The commands that look at configuration and serve nothing: `check` with its flags, `render`, `fmt`.

#[path = "support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Output};
use support::server::{binary, scratch};
use support::tools::{everything, write};

const BASE: &str = ".:53 {\n  bind __PILLAR__LOCAL__DNS__\n  forward . __PILLAR__CLUSTER__DNS__\n  prometheus __PROMETHEUS__ENDPOINT__\n}\n";

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).env_remove("KUBE_DNS_SERVICE_HOST");
    command.env("KUBE_DNS_UPSTREAM_SERVICE_HOST", "10.96.0.11").output().expect("the program runs")
}

fn status(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn warnings_fail_a_strict_check_and_what_is_ours_alone_a_portable_one() {
    let folder = scratch();
    write(folder.path(), "doubtful", ".:53 {\n  bind 127.0.0.1\n  reload\n  reload\n}\n");
    write(folder.path(), "ours", ".:53 {\n  bind 127.0.0.1\n  ready 127.0.0.1:8181\n}\n");
    assert_eq!(status(&run(folder.path(), &["check", "doubtful", "ours"])), Some(0));
    let strict = run(folder.path(), &["check", "--strict", "doubtful"]);
    assert_eq!(status(&strict), Some(1));
    assert!(everything(&strict).contains("doubtful:4:3: warning: `reload` stands twice"), "{}", everything(&strict));
    assert_eq!(status(&run(folder.path(), &["check", "--strict", "ours"])), Some(0));
    let portable = run(folder.path(), &["check", "--portable", "ours"]);
    assert_eq!(status(&portable), Some(0));
    assert!(everything(&portable).contains("ours:3:3: warning: node-cache's build"), "{}", everything(&portable));
    assert_eq!(status(&run(folder.path(), &["check", "--portable", "--strict", "ours"])), Some(1));
}

#[test]
fn a_template_and_a_manifest_are_checked_as_they_are() {
    let folder = scratch();
    write(folder.path(), "Corefile.base", BASE);
    let indented: String = BASE.lines().map(|line| format!("    {line}\n")).collect();
    let manifest = format!("apiVersion: v1\nkind: ConfigMap\ndata:\n  Corefile: |\n{indented}---\nkind: Service\n");
    write(folder.path(), "good.yaml", &manifest);
    write(folder.path(), "bad.yaml", &manifest.replace("bind", "bnid"));
    let good = run(folder.path(), &["check", "Corefile.base", "good.yaml"]);
    assert_eq!(status(&good), Some(0), "{}", everything(&good));
    let bad = run(folder.path(), &["check", "bad.yaml"]);
    assert_eq!(status(&bad), Some(1));
    assert!(everything(&bad).starts_with("bad.yaml:6:7: error: unknown directive `bnid`"), "{}", everything(&bad));
}

#[test]
fn render_prints_what_an_agent_would_serve() {
    let folder = scratch();
    write(folder.path(), "Corefile.base", BASE);
    std::fs::create_dir(folder.path().join("kube-dns")).expect("the scratch folder can be written");
    write(&folder.path().join("kube-dns"), "stubDomains", "{\"corp.example\": [\"192.0.2.53\"]}");
    let flags = ["render", "-localip", "169.254.20.10", "-basecorefile", "Corefile.base", "-kubednscm", "kube-dns"];
    let unknown = run(folder.path(), &flags);
    assert_eq!(status(&unknown), Some(1));
    assert!(
        unknown.stdout.is_empty() && everything(&unknown).contains("KUBE_DNS_SERVICE_HOST"),
        "{}",
        everything(&unknown)
    );
    let flags =
        [flags.as_slice(), &["-upstreamsvc", "kube-dns-upstream", "-prometheus-listen-address", "127.0.0.1:9253"]]
            .concat();
    let rendered = run(folder.path(), &flags);
    assert_eq!(status(&rendered), Some(0), "{}", everything(&rendered));
    let text = String::from_utf8_lossy(&rendered.stdout).into_owned();
    assert!(
        text.starts_with(".:53 {\n  bind 169.254.20.10\n  forward . 10.96.0.11\n  prometheus 127.0.0.1:9253\n}\n"),
        "{text}"
    );
    assert!(text.contains("corp.example:53 {") && text.contains("forward . 192.0.2.53"), "{text}");
    write(folder.path(), "Corefile.base", "bad {\n  nonsense\n}\n");
    let refused = run(folder.path(), &flags);
    assert_eq!(status(&refused), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Corefile.base:2:3: error: unknown directive"));
}

#[test]
fn fmt_prints_writes_or_checks() {
    let (folder, laid_out) = (scratch(), ".:53 {\n    whoami # me\n}\n");
    write(folder.path(), "a", ".:53   {\nwhoami  # me\n }\n");
    write(folder.path(), "b", laid_out);
    write(folder.path(), "open", ".:53 {\n log \"x\n}\n");
    write(folder.path(), "m.yaml", "apiVersion: v1\n");
    let printed = run(folder.path(), &["fmt", "a"]);
    assert_eq!((status(&printed), printed.stdout.as_slice()), (Some(0), laid_out.as_bytes()));
    let checked = run(folder.path(), &["fmt", "--check", "a", "b"]);
    assert_eq!((status(&checked), checked.stdout.as_slice()), (Some(1), b"a\n".as_slice()));
    let refused = run(folder.path(), &["fmt", "--write", "open", "m.yaml", "a"]);
    assert_eq!(status(&refused), Some(1));
    let said = everything(&refused);
    assert!(said.contains("open: the quote on line 2") && said.contains("m.yaml: it is a manifest"), "{said}");
    assert_eq!(std::fs::read_to_string(folder.path().join("a")).expect("it is there"), laid_out);
    assert_eq!(status(&run(folder.path(), &["fmt", "--check", "a", "b"])), Some(0));
}
