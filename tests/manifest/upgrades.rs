//! What a cluster does not let be changed: names, which make an object another one, and the fields that the API refuses
//! to change. An upgrade between our own versions changes none of them, nor one from deliveryhero's chart.

use crate::support::tools::checkout;
use crate::variants::{objects, rendered_chart, variants};
use serde_json::Value;
use std::fmt::Write as _;

/// Fields of an object that cannot be changed, by their paths in it; and, of a DaemonSet, those by which an old and a
/// new pod meet: the name of the container, which patches go by, and the node's folders, where the hand-over is.
const FIXED: &[(&str, &[&str])] = &[
    ("DaemonSet", &["/spec/selector", "/spec/template/spec/containers/0/name", "/spec/template/spec/hostNetwork"]),
    ("Service", &["/spec/clusterIP", "/spec/clusterIPs", "/spec/ipFamilyPolicy", "/spec/selector"]),
    ("ConfigMap", &["/immutable"]),
    ("CiliumLocalRedirectPolicy", &["/spec/redirectFrontend", "/spec/redirectBackend"]),
];

/// Each object, below it what is fixed.
fn fixed(objects: &[(String, Value)]) -> String {
    let mut text = String::new();
    for (name, object) in objects {
        writeln!(text, "  {name} in {}", object["metadata"]["namespace"].as_str().unwrap_or("no namespace"))
            .expect("a string takes all");
        let kind = name.split(' ').next();
        let fields = FIXED.iter().filter(|(of, _)| Some(*of) == kind).flat_map(|(_, fields)| *fields);
        for (field, value) in fields.filter_map(|field| Some((field, object.pointer(field)?))) {
            writeln!(text, "    {field} {value}").expect("a string takes all");
        }
        let volumes = object.pointer("/spec/template/spec/volumes").and_then(Value::as_array);
        for path in volumes.into_iter().flatten().filter_map(|volume| volume.pointer("/hostPath/path")) {
            writeln!(text, "    the node's {path}").expect("a string takes all");
        }
    }
    text
}

const ALL: [&str; 6] = [
    "--set",
    "metrics.serviceMonitor.enabled=true",
    "--set",
    "metrics.prometheusRule.enabled=true",
    "--set",
    "metrics.dashboard.enabled=true",
];

/// `COMPATIBILITY=write cargo test --test manifest` writes the list anew: an upgrade from the version before then fails
/// where the cluster refuses the change, and must be told in CHANGELOG.md.
#[test]
fn what_an_upgrade_cannot_change_is_that_of_the_list() {
    let found: String = variants()
        .iter()
        .map(|variant| format!("{variant}\n{}", fixed(&objects(&rendered_chart(variant, &ALL)))))
        .collect();
    let path = checkout("tests/compatibility/kubernetes.txt");
    if std::env::var_os("COMPATIBILITY").is_some_and(|wish| wish == "write") {
        std::fs::write(&path, &found).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let listed = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(listed == found, "{} is no longer what the chart renders, which is:\n{found}", path.display());
    assert!(found.contains("/spec/selector {\"matchLabels\":"), "{found}");
}

/// The chart's README says with which values: what deliveryhero's chart 2.9.2 calls its objects and selects them by.
#[test]
fn an_upgrade_from_deliveryhero_s_chart_keeps_names_and_selectors() {
    let readme = std::fs::read_to_string(checkout("charts/nodelocaldns/README.md")).expect("the chart's README");
    let command = readme.split("    helm upgrade RELEASE ").nth(1).expect("the command");
    let command = command.split("\n\n").next().expect("it ends");
    for (release, name) in [("node-local-dns", "node-local-dns"), ("dns", "dns-node-local-dns")] {
        let values: Vec<String> = command
            .split("--set ")
            .skip(1)
            .map(|value| value.trim_matches([' ', '\\', '\n', '\'']))
            // The name is the release's if that has node-local-dns in it.
            .map(|value| match value.split_once('=').expect("a value") {
                ("nameOverride", _) => format!("nameOverride={name}"),
                ("upstreamService.name", _) => format!("upstreamService.name={name}-upstream"),
                _ => value.replace("RELEASE", release),
            })
            .collect();
        assert!(values.len() >= 6, "{values:?}");
        let options: Vec<&str> = values.iter().flat_map(|value| ["--set", value]).collect();
        let rendered = objects(&rendered_chart("kube-proxy", &options));
        let object = |wanted: &str| {
            let found = rendered.iter().find(|(name, _)| name == wanted);
            &found.unwrap_or_else(|| panic!("no {wanted} in {:?}", rendered.iter().map(|(name, _)| name))).1
        };
        let labels =
            serde_json::json!({"app.kubernetes.io/name": "node-local-dns", "app.kubernetes.io/instance": release});
        assert_eq!(object(&format!("DaemonSet {name}"))["spec"]["selector"]["matchLabels"], labels);
        let metrics = &object(&format!("Service {name}"))["spec"];
        assert_eq!((&metrics["clusterIP"], &metrics["selector"]), (&"None".into(), &labels));
        let upstream = &object(&format!("Service {name}-upstream"))["spec"];
        assert_eq!(upstream["selector"], serde_json::json!({"k8s-app": "kube-dns"}));
        assert_eq!(upstream.get("clusterIP"), None);
        object(&format!("ConfigMap {name}"));
        object(&format!("ServiceAccount {name}"));
    }
}
