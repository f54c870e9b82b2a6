//! The ways to install: what `manifests/overlays` and the chart render, with the real kubectl and helm. Each variant is
//! an overlay and a file of values, and both render the same pods.

use crate::objects::{Manifest, decode_strictly, documents};
use crate::support::server::{binary, scratch};
use crate::support::tools::{checkout, everything, require, run, write};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use std::process::{Command, Output};

/// What the overlay `variant` renders.
pub fn kustomized(variant: &str) -> Manifest {
    Manifest::decode(&kustomize(variant)).unwrap_or_else(|e| panic!("overlay {variant}: {e}"))
}

fn kustomize(variant: &str) -> String {
    run(kubernetes_tool("kubectl").arg("kustomize").arg(checkout("manifests/overlays").join(variant)))
}

/// The chart with the values of `variant` and more options.
fn helm(action: &[&str], variant: &str, more: &[&str]) -> Output {
    let values = checkout("charts/nodelocaldns/ci").join(format!("{variant}.yaml"));
    let mut helm = kubernetes_tool("helm");
    helm.args(action).arg(checkout("charts/nodelocaldns")).arg("--values").arg(values).args(more);
    helm.output().unwrap_or_else(|e| panic!("running {helm:?}: {e}"))
}

fn template(variant: &str, more: &[&str]) -> Output {
    helm(&["template", "node-local-dns", "--namespace", "kube-system"], variant, more)
}

/// The text that the chart renders.
fn rendered_chart(variant: &str, more: &[&str]) -> String {
    let output = template(variant, more);
    assert!(output.status.success(), "{variant}: {}", everything(&output));
    String::from_utf8(output.stdout).expect("YAML is text")
}

/// That of PATH, else the one that scripts/kubernetes-tools gets.
fn kubernetes_tool(program: &str) -> Command {
    let got = checkout("target/kubernetes-tools").join(program);
    let mut tool = Command::new(if got.is_file() { got } else { require(program) });
    // Neither asks a cluster, whatever the machine is set up for.
    tool.env("KUBECONFIG", "/dev/null").env_remove("HELM_NAMESPACE");
    tool
}

/// Names of what is in a folder, without `.yaml`.
fn names(folder: &str) -> Vec<String> {
    let entries = checkout(folder).read_dir().unwrap_or_else(|e| panic!("{folder}: {e}"));
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("it can be listed").file_name().into_string().expect("names are ASCII");
        name.trim_end_matches(".yaml").to_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn variants() -> Vec<String> {
    names("manifests/overlays")
}

/// Objects by kind and name, those of Helm's own tests apart.
fn objects(text: &str) -> Vec<(String, Value)> {
    let name = |object: Value| {
        let word = |value: &Value| value.as_str().unwrap_or("").to_owned();
        (format!("{} {}", word(&object["kind"]), word(&object["metadata"]["name"])), object)
    };
    let is_hook = |object: &Value| object["metadata"]["annotations"].get("helm.sh/hook").is_some();
    let all = documents(text).unwrap_or_else(|e| panic!("{e}:\n{text}"));
    let mut objects: Vec<_> = all.into_iter().filter(|object| !is_hook(object)).map(name).collect();
    objects.sort_by(|a, b| a.0.cmp(&b.0));
    objects
}

#[test]
fn each_variant_is_there_for_kustomize_and_for_helm() {
    assert_eq!(variants(), names("charts/nodelocaldns/ci"));
    assert!(variants().len() >= 8, "{:?}", variants());
}

/// But for the labels by which Helm and the addon manager know what is theirs.
#[test]
fn chart_and_overlay_render_the_same_objects() {
    for variant in variants() {
        let (chart, overlay) = (objects(&rendered_chart(&variant, &[])), objects(&kustomize(&variant)));
        let names = |objects: &[(String, Value)]| objects.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&chart), names(&overlay), "{variant}");
        for ((name, chart), (_, overlay)) in chart.iter().zip(&overlay) {
            for key in ["apiVersion", "spec", "data"] {
                assert_eq!(
                    chart.get(key),
                    overlay.get(key),
                    "{variant}: {key} of {name}, the chart's and the overlay's"
                );
            }
            assert_eq!(chart["metadata"]["namespace"], overlay["metadata"]["namespace"], "{variant}: {name}");
        }
    }
}

#[test]
fn what_is_rendered_is_what_the_api_takes() {
    for variant in variants() {
        for text in [kustomize(&variant), rendered_chart(&variant, &[])] {
            Manifest::decode(&text).unwrap_or_else(|e| panic!("{variant}: {e}"));
            let all = documents(&text).expect("it was read before");
            for test in all.iter().filter(|object| object["kind"] == "Pod") {
                decode_strictly::<Pod>(test).unwrap_or_else(|e| panic!("{variant}: {e}"));
            }
        }
    }
}

#[test]
fn the_corefile_of_each_variant_starts_without_a_warning() {
    let folder = scratch();
    for variant in variants() {
        let corefile = write(folder.path(), "Corefile.base", kustomized(&variant).corefile());
        let output = Command::new(binary()).args(["check", "--strict"]).arg(&corefile).output().expect("it runs");
        assert!(output.status.success(), "{variant}:\n{}", everything(&output));
    }
}

#[test]
fn the_chart_passes_helm_s_linter() {
    for variant in variants() {
        let output = helm(&["lint", "--strict"], &variant, &[]);
        assert!(output.status.success(), "{variant}: {}", everything(&output));
    }
}

#[test]
fn a_value_that_the_chart_does_not_know_is_refused() {
    for (wrong, place) in [
        ("mode=clusterip", "/mode"),
        ("corefile.cacheSecond=3", "/corefile"),
        ("addresses.local={nowhere}", "/addresses/local"),
        ("maxsurge=1", "maxsurge"),
        ("maxSurge=0", "/maxSurge"),
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
