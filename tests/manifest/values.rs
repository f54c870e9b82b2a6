//! Values of the chart: what is refused, and where the others go.

use crate::objects::{Manifest, documents};
use crate::support::server::{binary, scratch};
use crate::support::tools::{checkout, everything, write};
use crate::variants::{objects, rendered_chart, template};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn a_value_that_the_chart_does_not_know_is_refused() {
    for (wrong, place) in [
        ("mode=clusterip", "/mode"),
        ("corefile.cacheSecond=3", "/corefile"),
        ("addresses.local={nowhere}", "/addresses/local"),
        ("maxsurge=1", "maxsurge"),
        ("maxSurge=0", "/maxSurge"),
        ("addresses.local={999.1.1.1}", "/addresses/local/0"),
        ("addresses.local={169.254.020.10}", "/addresses/local/0"),
        ("addresses.local={fd00:::1}", "/addresses/local/0"),
        ("addresses.cluster={169.254.20.10}", "each address once"),
        ("upstreamService.clusterIPs={10.96.0.10}", "Please give 10.96.0.10 once"),
        ("fallback=foo", "/fallback"),
        ("fallback=999.1.1.1", "/fallback"),
        ("fallback=10.96.0.10", "Please give 10.96.0.10 once"),
        ("corefile.serveStale=foo", "/corefile/serveStale"),
        ("corefile.prefetch=often", "/corefile/prefetch"),
        ("corefile.upstreams={192.0.2.1 192.0.2.2}", "/corefile/upstreams/0"),
        ("image.repository=registry.example/cache:0.2.0", "/image/repository"),
        ("image.tag=registry.example/cache:0.2.0", "/image/tag"),
        ("maxSurge=101%", "/maxSurge"),
        ("resources.limits.memory=1X", "/resources/limits/memory"),
        ("podLabels.of=two words", "/podLabels/of"),
        ("upstreamService.name=node-local-dns", "another name than node-local-dns"),
        ("upstreamService.name=kube-dns", "another name than kube-dns"),
        ("selectorLabels.k8s-app=kube-dns", "the caches would ask themselves"),
        ("selectorLabels.k8s-app=null", "/selectorLabels"),
        ("addresses.local={169.254.20.10,169.254.20.11}", "one address of each family"),
        ("clusterDNS.namespace=dns-system", "Please install this chart in the namespace of cluster DNS, dns-system"),
    ] {
        let output = template("kube-proxy", &["--set", wrong]);
        let told = everything(&output);
        assert!(!output.status.success() && told.contains(place), "{wrong}: {told}");
    }
}

#[test]
fn the_cluster_s_addresses_are_asked_for_where_no_cluster_can_be_asked() {
    let output = template("link-local", &["--set", "mode=clusterIP"]);
    let told = everything(&output);
    assert!(!output.status.success() && told.contains("Please set addresses.cluster"), "{told}");
}

#[test]
fn values_reach_what_they_are_for() {
    let more = [
        ["--set", "image.repository=registry.example/cache"],
        ["--set", "image.digest=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"],
        ["--set", "corefile.stubZones.corp\\.example={10.0.0.53,10.0.1.53}"],
        ["--set", "corefile.upstreams={192.0.2.1,192.0.2.2}"],
        ["--set", "corefile.upstreamOptions={prefer_udp,max_fails 3}"],
        ["--set", "corefile.prefetch=3 30s 20%"],
        ["--set", "corefile.everywhere={minimal}"],
        ["--set", "extraArgs={--cache-memory,128MiB}"],
        ["--set", "metrics.serviceMonitor.enabled=true"],
        ["--set", "metrics.prometheusRule.enabled=true"],
        ["--set", "metrics.dashboard.enabled=true"],
        // A pod is found by its selector's labels, whatever else it is given.
        ["--set", "podLabels.k8s-app=mine"],
        ["--set-string", "podAnnotations.prometheus\\.io/scrape=false"],
        ["--set-json", "corefile.cacheSeconds=2592000"],
    ];
    let text = rendered_chart("kube-proxy", more.as_flattened());
    let manifest = Manifest::decode(&text).expect("objects of the API");
    let image = manifest.container().image.as_deref().unwrap_or_default();
    assert!(image.starts_with("registry.example/cache@sha256:0123"), "{image}");
    assert!(manifest.container().args.iter().flatten().any(|argument| argument == "--cache-memory"));
    let corefile = manifest.corefile();
    for line in [
        "cache 2592000 {",
        "corp.example:53 {",
        "forward . 10.0.0.53 10.0.1.53",
        "forward . 192.0.2.1 192.0.2.2 {",
        "max_fails 3",
    ] {
        assert!(corefile.lines().any(|there| there.trim() == line), "{line}:\n{corefile}");
    }
    let times = |line: &str| corefile.lines().filter(|there| there.trim() == line).count();
    assert_eq!((times("prefetch 3 30s 20%"), times("minimal")), (5, 5), "{corefile}");
    for wanted in
        ["ServiceMonitor node-local-dns", "PrometheusRule node-local-dns", "ConfigMap node-local-dns-dashboard"]
    {
        assert!(objects(&text).iter().any(|(name, _)| name == wanted), "no {wanted} in {text}");
    }
    let template = &manifest.daemon_set.spec.as_ref().expect("a specification").template;
    let metadata = template.metadata.as_ref().expect("the pod's metadata");
    assert_eq!(
        metadata.labels.as_ref().and_then(|labels| labels.get("k8s-app")).map(String::as_str),
        Some("node-local-dns")
    );
    let annotations = metadata.annotations.as_ref().expect("annotations");
    assert_eq!(annotations.get("prometheus.io/scrape").map(String::as_str), Some("false"));
    let folder = scratch();
    let path = write(folder.path(), "Corefile.base", corefile);
    let output = Command::new(binary()).args(["check", "--strict"]).arg(&path).output().expect("it runs");
    assert!(output.status.success(), "{}", everything(&output));
}

/// Paths of all values, those that hold others before these.
fn paths(values: &Value, before: &str, found: &mut Vec<String>) {
    for (key, value) in values.as_object().into_iter().flatten() {
        let path = format!("{before}{}", key.replace('.', "\\."));
        found.push(path.clone());
        paths(value, &format!("{path}."), found);
    }
}

/// `null`, as a key with nothing after it is in YAML: Helm takes the value away. Either that means nothing, or the
/// chart says which value is missing.
#[test]
fn a_value_that_is_taken_away_is_missed_by_name_or_means_nothing() {
    let text = std::fs::read_to_string(checkout("charts/nodelocaldns/values.yaml")).expect("the values");
    let values = documents(&text).expect("YAML").pop().expect("a document");
    let mut all = Vec::new();
    paths(&values, "", &mut all);
    assert!(all.len() > 60, "{all:?}");
    let objects = ["serviceMonitor", "prometheusRule", "dashboard"];
    let enabled = objects.map(|object| format!("metrics.{object}.enabled=true"));
    let (mut count, mut rendered) = ([0, 0], BTreeSet::new());
    for path in all {
        let null = format!("{path}=null");
        // Those of `metrics` mean something only where the objects are wanted. They are large.
        let wanted = if path.starts_with("metrics") { &enabled[..] } else { &[] };
        let options: Vec<&str> = wanted.iter().chain([&null]).flat_map(|value| ["--set", value]).collect();
        let output = template("kube-proxy", &options);
        let told = everything(&output);
        if output.status.success() {
            count[0] += 1;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if rendered.insert(text.clone()) {
                Manifest::decode(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
            }
        } else {
            count[1] += 1;
            let name = path.rsplit('.').next().unwrap_or(&path);
            let is_missed = told.contains(&format!("missing property '{name}'"))
                || told.contains("minProperties: got 0, want 1")
                || told.contains(&format!("Please set {path}"));
            assert!(is_missed, "{path}: {told}");
        }
    }
    assert!(count.iter().all(|count| *count > 20), "taken, refused: {count:?}");
}
