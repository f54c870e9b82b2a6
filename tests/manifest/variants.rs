//! The ways to install: what `manifests/overlays` and the chart render, with the real kubectl and helm. Each variant is
//! an overlay and a file of values, and both render the same pods.

use crate::objects::{Manifest, decode_strictly, documents};
use crate::support::server::{binary, scratch};
use crate::support::tools::{checkout, everything, kubernetes_tool, run, write};
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
pub fn helm(action: &[&str], variant: &str, more: &[&str]) -> Output {
    let values = checkout("charts/nodelocaldns/ci").join(format!("{variant}.yaml"));
    let mut helm = kubernetes_tool("helm");
    helm.args(action).arg(checkout("charts/nodelocaldns")).arg("--values").arg(values).args(more);
    helm.output().unwrap_or_else(|e| panic!("running {helm:?}: {e}"))
}

pub fn template(variant: &str, more: &[&str]) -> Output {
    helm(&["template", "node-local-dns", "--namespace", "kube-system"], variant, more)
}

/// The text that the chart renders.
pub fn rendered_chart(variant: &str, more: &[&str]) -> String {
    let output = template(variant, more);
    assert!(output.status.success(), "{variant}: {}", everything(&output));
    String::from_utf8(output.stdout).expect("YAML is text")
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

pub fn variants() -> Vec<String> {
    names("manifests/overlays")
}

/// Objects by kind and name, those of Helm's own tests apart.
pub fn objects(text: &str) -> Vec<(String, Value)> {
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
