//! Scripted conversations with the built program, compared with what the reference implementation answered; each case
//! is a test. The cases are data, in cases/*.json, taken over from the recordings as they are.
//!
//! `cargo test --test conformance -- cache/` runs one family; `--include-ignored` also runs what is left out. With
//! `NODELOCALDNS_BIN=/path/to/node-cache` the same cases are held against the reference. Cases that known_failures.json
//! names must fail: a defect that is mended takes its line along.

mod case;
mod compare;
mod run;
mod selftest;
#[path = "../support/mod.rs"]
mod support;

use case::Case;
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::known;
use support::scope::missing_directive;
use support::upstream::listed_rules;

/// Cases at a time: they mostly wait, and more would make the clocks of others late.
const CASES_AT_A_TIME: usize = 4;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(CASES_AT_A_TIME);
    let (mut trials, left_out) = load(&known::failures(&folder().join("../known_failures.json")));
    trials.extend(selftest::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list && !arguments.exact && !arguments.include_ignored && !left_out.is_empty() {
        println!("{}", report(&left_out));
    }
    conclusion.exit();
}

/// Every case as a test, and the names of those left out by what they want: a directive, or an address.
fn load(known: &BTreeMap<String, String>) -> (Vec<Trial>, BTreeMap<String, Vec<String>>) {
    let lists = Arc::new(listed_rules());
    let mut trials = Vec::new();
    let mut left_out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let cases: Vec<Case> = files(&folder()).iter().flat_map(|path| read::<Vec<Case>>(path)).collect();
    let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    known::assert_names(known, &names);
    for case in cases {
        let missing = want_of(&case);
        if let Some(want) = &missing {
            left_out.entry(want.clone()).or_default().push(case.name.clone());
        }
        let (name, lists, cause) = (case.name.clone(), lists.clone(), known.get(&case.name).cloned());
        let kind = known::kind(cause.as_ref());
        let trial =
            Trial::test(name, move || known::judge(run::run(&case, &lists), cause.as_deref()).map_err(Failed::from));
        trials.push(trial.with_ignored_flag(missing.is_some()).with_kind(kind));
    }
    (trials, left_out)
}

/// What a case needs and is not there.
fn want_of(case: &Case) -> Option<String> {
    let directive = || missing_directive(case.texts()).map(|directive| format!("`{directive}` is not built yet"));
    directive().or_else(|| Some(format!("this machine has no {}", case.address_out_of_reach()?)))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases")
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

fn report(left_out: &BTreeMap<String, Vec<String>>) -> String {
    let count: usize = left_out.values().map(Vec::len).sum();
    let lines = left_out.iter().map(|(want, cases)| format!("  {want}: {}", cases.join(", ")));
    format!("{count} cases left out:\n{}\n", lines.collect::<Vec<_>>().join("\n"))
}
