//! Writes what a team watches the caches with, from the tables in `alerts.rs` and `dashboard.rs`:
//! `monitoring/rules.yaml` for Prometheus, `monitoring/dashboard.json` for Grafana, and the chart's copies.
//!
//! `cargo run --package nodelocaldns-monitoring`, after a change of the tables. `tests` compares.

mod alerts;
mod dashboard;

use alerts::{ALERTS, RECORDINGS};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;

/// What leaves our caches alone of all that is scraped, under whatever names of jobs: cluster DNS and node-cache have
/// no such series.
pub const OURS: &str = "and on (job, instance) nodelocaldns_watchdog_interception_wanted";

const RUNBOOKS: &str = "https://github.com/nodelocaldns/nodelocaldns/blob/main/docs/runbooks";

fn main() -> Result<()> {
    for (path, text) in files()? {
        let path = checkout().join(path);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn checkout() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Path below the checkout, and text.
fn files() -> Result<Vec<(&'static str, String)>> {
    let rules = yaml_serde::to_string(&rules())?;
    let dashboard = format!("{:#}\n", dashboard::dashboard());
    let note = "# Written by `cargo run --package nodelocaldns-monitoring` from monitoring/src/alerts.rs.\n";
    Ok(vec![
        ("monitoring/rules.yaml", format!("{note}{rules}")),
        ("monitoring/dashboard.json", dashboard.clone()),
        ("charts/nodelocaldns/files/rules.yaml", rules),
        ("charts/nodelocaldns/files/dashboard.json", dashboard),
    ])
}

/// Groups of rules as Prometheus reads them.
fn rules() -> Value {
    let select = |expression: &str| expression.replace("OURS", OURS);
    let recordings = RECORDINGS.iter().map(|(name, expression)| json!({"record": name, "expr": select(expression)}));
    let alerts = ALERTS.iter().map(|alert| {
        json!({
            "alert": alert.name,
            "expr": select(alert.expression),
            "for": alert.holds_for,
            "labels": {"severity": alert.severity.label()},
            "annotations": {
                "summary": alert.summary,
                "runbook_url": format!("{RUNBOOKS}/{}.md", alert.name),
            },
        })
    });
    json!({"groups": [
        {"name": "nodelocaldns-recordings", "rules": recordings.collect::<Vec<_>>()},
        {"name": "nodelocaldns-alerts", "rules": alerts.collect::<Vec<_>>()},
    ]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_up_to_date() {
        for (path, text) in files().unwrap() {
            let written = std::fs::read_to_string(checkout().join(path)).unwrap_or_default();
            assert!(written == text, "{path} is old: cargo run --package nodelocaldns-monitoring");
        }
    }

    #[test]
    fn each_alert_has_a_runbook_and_each_runbook_an_alert() {
        let folder = checkout().join("docs/runbooks");
        let mut pages: Vec<String> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        pages.sort();
        let mut wanted: Vec<String> = ALERTS.iter().map(|alert| format!("{}.md", alert.name)).collect();
        wanted.push("README.md".to_owned());
        wanted.sort();
        assert_eq!(pages, wanted);
    }

    #[test]
    fn panels_do_not_overlap_and_have_each_a_number() {
        let dashboard = dashboard::dashboard();
        let panels = dashboard["panels"].as_array().unwrap();
        let mut taken = std::collections::HashSet::new();
        let mut numbers = std::collections::HashSet::new();
        for panel in panels {
            assert!(numbers.insert(panel["id"].as_u64().unwrap()));
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(cell.0 < 24 && taken.insert(cell), "{}", panel["title"]);
            }
        }
    }
}
