//! The figures of docs/scale.md are those of docs/bench.json.

use super::support::tools::checkout;
use serde_json::Value;
use std::fmt::Write as _;

/// Its tables about how cost grows, as Markdown.
fn tables(bench: &Value) -> String {
    let mut text = String::new();
    for table in bench["tables"].as_array().expect("tables") {
        let name = table["name"].as_str().expect("a name");
        let is_ours_alone = name.starts_with("scaling-");
        if !is_ours_alone && !["idle", "memory-flat"].contains(&name) {
            continue;
        }
        let about = table["about"].as_str().expect("what it is about");
        let columns: Vec<&str> = strings(&table["columns"]);
        let (first, rest) = about.split_at(1);
        let rules = " --- |".repeat(columns.len());
        write!(text, "**{}{rest}**\n\n| | {} |\n| --- |{rules}\n", first.to_uppercase(), columns.join(" | "))
            .expect("a string takes all");
        for row in table["rows"].as_array().expect("rows") {
            let label = row["label"].as_str().expect("a label");
            if is_ours_alone || label == "nodelocaldns" {
                let cells: Vec<String> = row["cells"].as_array().expect("cells").iter().map(figure).collect();
                writeln!(text, "| {label} | {} |", cells.join(" | ")).expect("a string takes all");
            }
        }
        text.push('\n');
    }
    text
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|item| item.as_str().expect("a string")).collect()
}

/// With three digits.
fn figure(value: &Value) -> String {
    match value.as_f64().expect("a figure") {
        large @ 100.0.. => format!("{large:.0}"),
        middling @ 10.0.. => format!("{middling:.1}"),
        small => format!("{small:.2}"),
    }
}

#[test]
fn scale_shows_what_the_benchmark_measured() {
    let read = |path| std::fs::read_to_string(checkout(path)).expect("a document can be read");
    let bench = serde_json::from_str(&read("docs/bench.json")).expect("JSON");
    let tables = tables(&bench);
    assert!(tables.matches("| --- |").count() >= 5, "{tables}");
    assert!(read("docs/scale.md").contains(&tables), "docs/scale.md is to have, under \"Measured\":\n\n{tables}");
}
