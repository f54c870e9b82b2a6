//! The manifest's text → the objects of Kubernetes' API, strictly: what the API would drop or refuse is an error here.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, Service, ServiceAccount};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The example cluster of config/Corefile.node-local.
pub const LOCAL_ADDRESS: &str = "169.254.20.10";
pub const KUBE_DNS: &str = "10.96.0.10";
pub const KUBE_DNS_UPSTREAM: &str = "10.96.0.11";

/// `manifests/base/nodelocaldns.yaml`, for kube-proxy in iptables or nftables mode.
pub fn base() -> String {
    let path = path();
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/base/nodelocaldns.yaml")
}

/// The objects of the manifest.
#[derive(Debug)]
pub struct Manifest {
    pub service_account: ServiceAccount,
    pub upstream_service: Service,
    pub config_map: ConfigMap,
    pub daemon_set: DaemonSet,
    pub metrics_service: Service,
}

impl Manifest {
    /// Those of the base.
    pub fn read() -> Self {
        Self::decode(&base()).unwrap_or_else(|e| panic!("{}: {e}", path().display()))
    }

    /// The error names each field that is unknown, misspelt or of another form than the API's.
    pub fn decode(text: &str) -> Result<Self, String> {
        let documents = documents(text)?;
        let of_kind = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind);
        let only = |kind| {
            let mut found = of_kind(kind);
            match (found.next(), found.next()) {
                (Some(document), None) => Ok(document),
                _ => Err(format!("{} objects of kind {kind} instead of 1", of_kind(kind).count())),
            }
        };
        let is_upstream = |service: &&Value| service["metadata"]["name"] == "kube-dns-upstream";
        let upstream_service = of_kind("Service").find(is_upstream).ok_or("no Service for misses")?;
        let metrics_service =
            of_kind("Service").find(|service| !is_upstream(service)).ok_or("no Service for metrics")?;
        Ok(Self {
            service_account: decode_strictly(only("ServiceAccount")?)?,
            upstream_service: decode_strictly(upstream_service)?,
            config_map: decode_strictly(
                of_kind("ConfigMap").find(|map| map["data"].get("Corefile").is_some()).ok_or("no Corefile")?,
            )?,
            daemon_set: decode_strictly(only("DaemonSet")?)?,
            metrics_service: decode_strictly(metrics_service)?,
        })
    }

    pub fn pod(&self) -> &PodSpec {
        self.daemon_set
            .spec
            .as_ref()
            .and_then(|spec| spec.template.spec.as_ref())
            .expect("the DaemonSet has a pod template")
    }

    pub fn container(&self) -> &Container {
        let [container] = self.pod().containers.as_slice() else { panic!("one container") };
        container
    }

    pub fn corefile(&self) -> &str {
        self.config_map.data.as_ref().and_then(|data| data.get("Corefile")).expect("the ConfigMap has a Corefile")
    }
}

/// The documents of a YAML file, without those that are empty.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    let read = |document| yaml_serde::Value::deserialize(document).and_then(yaml_serde::from_value::<Value>);
    let documents: Result<Vec<Value>, _> = yaml_serde::Deserializer::from_str(text).map(read).collect();
    Ok(documents.map_err(|e| e.to_string())?.into_iter().filter(|document| !document.is_null()).collect())
}

/// The value that follows `flag` among the container's arguments.
pub fn argument<'a>(container: &'a Container, flag: &str) -> &'a str {
    let arguments = container.args.as_deref().unwrap_or_default();
    let place =
        arguments.iter().position(|argument| argument == flag).unwrap_or_else(|| panic!("no {flag} in {arguments:?}"));
    arguments.get(place + 1).unwrap_or_else(|| panic!("{flag} has no value"))
}

/// An object of the API. The types drop what they do not know, so what was read is written again and compared.
pub fn decode_strictly<T: DeserializeOwned + serde::Serialize>(written: &Value) -> Result<T, String> {
    let name = written.get("kind").and_then(Value::as_str).unwrap_or("an object without kind");
    let object: T = serde_json::from_value(written.clone()).map_err(|e| format!("{name}: {e}"))?;
    let read = serde_json::to_value(&object).map_err(|e| format!("{name}: {e}"))?;
    let mut differences = Vec::new();
    compare(name, written, &read, &mut differences);
    if differences.is_empty() { Ok(object) } else { Err(differences.join("\n")) }
}

fn compare(place: &str, written: &Value, read: &Value, differences: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                match read.get(key) {
                    Some(other) => compare(&format!("{place}.{key}"), value, other, differences),
                    None => differences.push(format!("{place}.{key} is not a field of the API")),
                }
            }
            let added = read.keys().filter(|key| !written.contains_key(*key));
            differences.extend(added.map(|key| format!("{place}.{key} must be written out")));
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            for (index, (value, other)) in written.iter().zip(read).enumerate() {
                compare(&format!("{place}[{index}]"), value, other, differences);
            }
        }
        _ if written == read => {}
        _ => differences.push(format!("{place} is {written} in the file, {read} in the API")),
    }
}
