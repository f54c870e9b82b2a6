//! A real Prometheus that scrapes a running program.

use crate::Scene;
use crate::support::client::http;
use crate::support::ports::free_port;
use crate::support::server::{Server, scratch, wait_until};
use crate::support::tools::{checkout, run, tool, write};
use serde_json::Value;
use std::time::Duration;

#[test]
fn rules_are_what_prometheus_reads() {
    run(tool("promtool").args(["check", "rules"]).arg(checkout("monitoring/rules.yaml")));
}

/// Panel and query, the dashboard's variables filled in.
fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(checkout("monitoring/dashboard.json")).expect("the dashboard is shipped");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        let queries = panel["targets"].as_array().cloned().unwrap_or_default();
        queries.into_iter().map(move |target| (title.clone(), target["expr"].as_str().expect("a query").to_owned()))
    };
    let filled_in = |(title, query): (String, String)| {
        (title, query.replace("$job", ".+").replace("$instance", ".+").replace("$__rate_interval", "10s"))
    };
    panels.iter().flat_map(of_panel).map(filled_in).collect()
}

#[test]
fn each_query_of_the_dashboard_finds_series() {
    let mut scene = Scene::new();
    let (port, folder) = (free_port(), scratch());
    let configuration = format!(
        "global: {{scrape_interval: 500ms}}\nscrape_configs:\n- job_name: node-local-dns\n  static_configs:\n  - targets: ['127.0.0.1:{}']\n",
        scene.metrics
    );
    let configuration = write(folder.path(), "prometheus.yml", &configuration);
    let mut prometheus = tool("prometheus");
    prometheus.arg(format!("--config.file={}", configuration.display()));
    prometheus.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    prometheus.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let prometheus = Server::spawn(prometheus, scratch());

    let found = |query: &str| {
        let query: String = query.bytes().map(|octet| format!("%{octet:02x}")).collect();
        let (_, text) = http(&format!("{port}/api/v1/query?query={query}"))?;
        let answer: Value = serde_json::from_str(&text).ok()?;
        let results = answer["data"]["result"].as_array().map(Vec::len);
        results.ok_or(answer["error"].to_string()).map_or_else(|error| panic!("{query}: {error}"), Some)
    };
    let all = queries();
    assert!(all.len() > 30, "{all:?}");
    let mut empty = all;
    let is_complete = wait_until(Duration::from_secs(30), || {
        scene.ask();
        empty.retain(|(_, query)| found(query).is_none_or(|results| results == 0));
        empty.is_empty()
    });
    assert!(is_complete, "nothing is found by {empty:#?}\n{}\n{}", prometheus.tail(10), scene.server.tail(10));
}

/// node-cache has no `nodelocaldns_…`, so a panel that shows both programs does without.
#[test]
fn panels_for_both_programs_ask_for_series_of_both() {
    for (title, query) in queries() {
        let is_ours = query.contains("nodelocaldns_");
        assert_eq!(title.ends_with("(nodelocaldns)"), is_ours, "{title}: {query}");
    }
}
