//! Cases that are known to fail, each with its cause, as data. Such a case must fail, so that the list is never longer
//! than the truth.

use super::server::is_reference;
use std::collections::BTreeMap;
use std::path::Path;

/// The cause by the case's name, from the JSON file at `path`. Empty when the reference is under test, for the failures
/// are ours.
pub fn failures(path: &Path) -> BTreeMap<String, String> {
    if is_reference() {
        return BTreeMap::new();
    }
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Panics if the list names a case that is not there: its name was changed, or it went.
pub fn assert_names(known: &BTreeMap<String, String>, cases: &[&str]) {
    let strays: Vec<&String> = known.keys().filter(|name| !cases.contains(&name.as_str())).collect();
    assert!(strays.is_empty(), "known_failures.json names cases that there are not: {strays:?}");
}

/// What a case's outcome comes to, when it may be known to fail.
pub fn judge(outcome: Result<(), String>, cause: Option<&str>) -> Result<(), String> {
    match (outcome, cause) {
        (outcome, None) => outcome,
        (Err(_), Some(_)) => Ok(()),
        (Ok(()), Some(cause)) => Err(format!("passes now: take its line out of known_failures.json ({cause})")),
    }
}

/// How the report calls a case.
pub fn kind(cause: Option<&String>) -> &'static str {
    if cause.is_some() { "must fail" } else { "" }
}
