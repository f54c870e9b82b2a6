//! Commands in documents are ones that the programs take: ours, kubectl and helm parse them with `--help` behind, so
//! that nothing is done, and the chart takes the values that helm is given. A cluster, and subcommands of kubectl's
//! subcommands, are beyond that.

use super::page::{Block, Page};
use super::support::server::binary;
use super::support::tools::{checkout, everything, kubernetes_tool};
use super::{documents, root};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::LazyLock;

/// The shell's: those without a language are blocks that are indented.
const LANGUAGES: &[&str] = &["", "sh", "bash", "console"];
/// What was, too.
const HISTORY: &str = "CHANGELOG.md";
/// Whose commands are looked at; scripts are too.
const PROGRAMS: &[&str] = &["nodelocaldns", "/nodelocaldns", "kubectl", "helm", "make", "cargo"];
/// Folders whose paths in commands must be there.
const FOLDERS: &[&str] = &["charts/", "config/", "manifests/", "scripts/", "tests/"];

/// Words of each command of a page, and where it stands.
fn commands(page: &Page) -> Vec<(usize, Vec<String>)> {
    static CONTINUED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\s*\\\n\s*").expect("a valid pattern"));
    let blocks = page.blocks.iter().filter(|block| LANGUAGES.contains(&block.language.as_str()));
    let mut found = Vec::new();
    for Block { line, text, .. } in blocks.chain(&page.spans) {
        for text in CONTINUED.replace_all(text, " ").lines() {
            // How something is used, not a command.
            if !text.contains(['[', '<', '…']) {
                found.extend(split(text).into_iter().filter(|words| is_known(&words[0])).map(|words| (*line, words)));
            }
        }
    }
    found
}

fn is_known(program: &str) -> bool {
    PROGRAMS.contains(&program) || program.starts_with("scripts/")
}

/// The commands of a line, as a shell splits them. What stands two columns behind is said of them, as after `#`.
fn split(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let (mut word, mut quote, mut blanks): (Option<String>, Option<char>, usize) = (None, None, 0);
    for character in line.trim().chars().chain([' ']) {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), inside) => word.get_or_insert_default().push(inside),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => {
                blanks += 1;
                commands.last_mut().expect("there is one").extend(word.take());
            }
            (None, '|' | ';' | '&') => {
                commands.last_mut().expect("there is one").extend(word.take());
                commands.push(Vec::new());
                blanks = 0;
            }
            (None, '#') if word.is_none() => break,
            (None, plain) => {
                if blanks > 1 && word.is_none() {
                    break;
                }
                blanks = 0;
                word.get_or_insert_default().push(plain);
            }
        }
    }
    let is_assignment = |word: &String| word.split_once('=').is_some_and(|(name, _)| is_in_capitals(name));
    for words in &mut commands {
        let assigned = words.iter().take_while(|word| is_assignment(word)).count();
        words.drain(..assigned);
        let end = words.iter().position(|word| word.starts_with('>')).unwrap_or(words.len());
        words.truncate(end);
    }
    commands.retain(|words| !words.is_empty());
    commands
}

/// What stands for something else.
fn is_in_capitals(word: &str) -> bool {
    word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// What is wrong with a command.
fn refusal(words: &[String], targets: &BTreeSet<String>) -> Option<String> {
    if let Some(absent) = words.iter().find(|word| is_path(word) && !root().join(word).exists()) {
        return Some(format!("there is no {absent}"));
    }
    let (program, arguments) = words.split_first().expect("a command has a program");
    match program.as_str() {
        "make" => {
            let mut named = arguments.iter().filter(|word| !word.contains('='));
            named.find(|target| !targets.contains(*target)).map(|target| format!("the Makefile has no {target}"))
        }
        "cargo" => {
            let test = arguments.iter().skip_while(|word| *word != "--test").nth(1)?;
            let places = [format!("tests/{test}.rs"), format!("tests/{test}/main.rs")];
            let is_there = places.iter().any(|place| checkout(place).is_file());
            (!is_there).then(|| format!("there is no test {test}"))
        }
        "kubectl" | "helm" => {
            let end = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
            let within = arguments.get(end + 1..).filter(|words| words.first().is_some_and(|word| is_known(word)));
            parse(&mut kubernetes_tool(program), &arguments[..end])
                .or_else(|| render(arguments))
                .or_else(|| within.and_then(|words| refusal(words, targets)))
        }
        "nodelocaldns" | "/nodelocaldns" => {
            let example = |word: &String| match word.as_str() {
                "ADDRESSES" => "169.254.20.10".to_owned(),
                "TIME" => "30s".to_owned(),
                other => other.to_owned(),
            };
            parse(&mut Command::new(binary()), &arguments.iter().map(example).collect::<Vec<_>>())
        }
        _ => None,
    }
}

fn is_path(word: &str) -> bool {
    FOLDERS.iter().any(|folder| word.starts_with(folder)) && !word.chars().any(|c| c.is_ascii_uppercase())
}

/// What a program says against its arguments.
fn parse(program: &mut Command, arguments: &[String]) -> Option<String> {
    let output = program.args(arguments).arg("--help").current_dir(root()).output();
    let output = output.unwrap_or_else(|e| panic!("running {program:?}: {e}"));
    (!output.status.success()).then(|| everything(&output).lines().next().unwrap_or_default().to_owned())
}

/// What the chart says against the values of a command that installs it.
fn render(arguments: &[String]) -> Option<String> {
    const CHART: &str = "charts/nodelocaldns";
    let words = arguments.iter().filter(|word| *word != "--install").skip(1);
    let words: Vec<String> = words.map(|word| word.replace("RELEASE", "node-local-dns")).collect();
    if !words.iter().any(|word| word == CHART) || !["upgrade", "install", "template"].contains(&arguments[0].as_str()) {
        return None;
    }
    let mut helm = kubernetes_tool("helm");
    // No cluster is asked for that.
    helm.arg("template").args(["--set", "addresses.cluster={10.96.0.10}"]).args(&words).current_dir(root());
    let output = helm.output().unwrap_or_else(|e| panic!("running {helm:?}: {e}"));
    (!output.status.success()).then(|| everything(&output))
}

fn make_targets() -> BTreeSet<String> {
    let makefile = std::fs::read_to_string(checkout("Makefile")).expect("the Makefile can be read");
    let rule = Regex::new(r"(?m)^([a-z-]+):").expect("a valid pattern");
    rule.captures_iter(&makefile).map(|found| found[1].to_owned()).collect()
}

#[test]
fn commands_are_ones_that_the_programs_take() {
    let targets = make_targets();
    let mut judged: BTreeMap<Vec<String>, Option<String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (document, page) in documents().into_iter().filter(|(document, _)| *document != *HISTORY) {
        for (line, words) in commands(&page) {
            let refusal = judged.entry(words.clone()).or_insert_with(|| refusal(&words, &targets));
            if let Some(why) = refusal {
                wrong.push(format!("{}:{line}: `{}`: {why}", document.display(), words.join(" ")));
            }
        }
    }
    assert!(judged.len() > 60, "only these commands were found: {:#?}", judged.into_keys().collect::<Vec<_>>());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_are_split_as_a_shell_does() {
    let words = |line| split(line).into_iter().map(|words| words.join("|")).collect::<Vec<_>>();
    assert_eq!(words("A_B=1 make test     what it is; more"), ["make|test"]);
    assert_eq!(
        words("helm x --set 'a b=\"c\"' | kubectl apply -f - > y # z"),
        ["helm|x|--set|a b=\"c\"", "kubectl|apply|-f|-"]
    );
    assert_eq!(words("nodelocaldns check x; nodelocaldns fmt x"), ["nodelocaldns|check|x", "nodelocaldns|fmt|x"]);
    let page =
        Page::read("`nodelocaldns check` and `nodelocaldns [X]`\n\n    make a \\\n        b\n\n```rust\nmake c\n```\n");
    let found: Vec<String> = commands(&page).into_iter().map(|(_, words)| words.join(" ")).collect();
    assert_eq!(found, ["make a b", "nodelocaldns check"]);
}

#[test]
fn commands_that_no_program_takes_are_found() {
    let judge = |line: &str| refusal(&split(line)[0], &BTreeSet::from(["docs".to_owned()]));
    for good in [
        "make docs A=b",
        "cargo test --test service",
        "nodelocaldns teardown -localip ADDRESSES",
        "kubectl exec -n kube-system POD -- /nodelocaldns doctor --output json",
        "helm upgrade --install a charts/nodelocaldns -n kube-system --set maxSurge=1",
    ] {
        assert_eq!(judge(good), None, "{good}");
    }
    for bad in [
        "make absent",
        "cargo test --test absent",
        "nodelocaldns chek Corefile",
        "nodelocaldns check --stric Corefile",
        "kubectl get pods --absent",
        "kubectl exec POD -- /nodelocaldns docter",
        "helm upgrade a charts/absent",
        "helm upgrade a charts/nodelocaldns --absent",
        "helm upgrade --install a charts/nodelocaldns -n kube-system --set maxSurges=1",
        "scripts/absent",
    ] {
        assert!(judge(bad).is_some(), "{bad}");
    }
}
