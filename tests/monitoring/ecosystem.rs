//! What others have made to watch CoreDNS with works unchanged, but for what the table in `monitoring/README.md` says.

use crate::support::tools::checkout;
use serde_json::Value;
use std::collections::BTreeMap;

fn read(path: &str) -> String {
    std::fs::read_to_string(checkout(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Families of the program and their labels, which another test compares with what it shows.
fn shown() -> BTreeMap<String, Vec<String>> {
    let family = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next().expect("a line has a name").to_owned();
        (name, words.nth(1).into_iter().flat_map(|labels| labels.split(',')).map(str::to_owned).collect())
    };
    read("tests/compatibility/metrics.txt").lines().map(family).collect()
}

#[test]
fn others_find_the_series_that_they_ask_for_and_the_table_says_which_they_do_not() {
    let (shown, table) = (shown(), read("monitoring/README.md"));
    let ecosystem: Value = serde_json::from_str(&read("tests/monitoring/ecosystem.json")).expect("JSON");
    let mut asked = 0;
    for (who, of_it) in ecosystem.as_object().expect("an object").iter().filter(|(name, _)| *name != "what") {
        assert!(table.contains(who.as_str()), "monitoring/README.md does not name {who}");
        for (name, labels) in of_it["series"].as_object().expect("series") {
            let has = shown.get(name).unwrap_or_else(|| panic!("{who} asks for {name}, which nobody shows"));
            for label in labels.as_array().expect("labels").iter().filter_map(Value::as_str) {
                assert!(has.iter().any(|shown| shown == label), "{who} asks for {label} of {name}");
            }
            asked += 1;
        }
        for name in of_it["lacking"].as_object().expect("what is lacking").keys() {
            assert!(!shown.contains_key(name), "{name} is shown, so {who} does not lack it");
            assert!(table.contains(&format!("`{name}`")), "monitoring/README.md does not say that {name} is lacking");
        }
    }
    assert!(asked > 50, "{asked}");
}
