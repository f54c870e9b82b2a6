//! Scripted conversations with the built program, compared with what the reference implementation answered; each case is a test.
//! The cases are data, in cases/*.json, taken over from the recordings as they are.
//!
//! `cargo test --test conformance -- cache/` runs one family; `--include-ignored` also runs what is left out. With
//! `NODELOCALDNS_BIN=/path/to/node-cache` the same cases are held against the reference.

mod case;
mod compare;
mod run;
mod scope;
mod selftest;
#[path = "../support/mod.rs"]
mod support;

use case::Case;
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::upstream::listed_rules;

/// Cases at a time: they mostly wait, and more would make the clocks of others late.
const CASES_AT_A_TIME: usize = 4;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(CASES_AT_A_TIME);
    let (mut trials, left_out) = load();
    trials.extend(selftest::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list && !arguments.exact && !arguments.include_ignored && !left_out.is_empty() {
        println!("{}", report(&left_out));
    }
    conclusion.exit();
}

/// Every case as a test, and the names of those left out by the directive they want.
fn load() -> (Vec<Trial>, BTreeMap<&'static str, Vec<String>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases");
    let lists = Arc::new(listed_rules());
    let mut trials = Vec::new();
    let mut left_out: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for case in files(&folder).iter().flat_map(|path| read::<Vec<Case>>(path)) {
        let missing = scope::missing_directive(&case);
        if let Some(directive) = missing {
            left_out.entry(directive).or_default().push(case.name.clone());
        }
        let (name, lists) = (case.name.clone(), lists.clone());
        let trial = Trial::test(name, move || run::run(&case, &lists).map_err(Failed::from));
        trials.push(trial.with_ignored_flag(missing.is_some()));
    }
    (trials, left_out)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json") && !path.ends_with("rules.json"));
    paths.sort();
    assert!(!paths.is_empty(), "no cases in {}", folder.display());
    paths
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn report(left_out: &BTreeMap<&'static str, Vec<String>>) -> String {
    let count: usize = left_out.values().map(Vec::len).sum();
    let lines = left_out.iter().map(|(directive, cases)| format!("  `{directive}` is not built yet: {}", cases.join(", ")));
    format!("{count} cases left out:\n{}\n", lines.collect::<Vec<_>>().join("\n"))
}
