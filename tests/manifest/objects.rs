//! The manifest's text → the objects of Kubernetes' API, strictly: what the API would drop or refuse is an error here.

use crate::support::tools::{run, tool};
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

/// How kube-proxy gets packets to a ClusterIP, on which it depends what is filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeProxyMode {
    Iptables,
    Ipvs,
}

/// `manifests/nodelocaldns.yaml` after the `sed` of the installation instructions.
pub fn substituted(mode: KubeProxyMode) -> String {
    let both = format!("s/__PILLAR__LOCAL__DNS__/{LOCAL_ADDRESS}/g; s/__PILLAR__DNS__DOMAIN__/cluster.local/g");
    let script = match mode {
        KubeProxyMode::Iptables => format!("{both}; s/__PILLAR__DNS__SERVER__/{KUBE_DNS}/g"),
        KubeProxyMode::Ipvs => {
            format!("{both}; s/,__PILLAR__DNS__SERVER__//g; s/__PILLAR__CLUSTER__DNS__/{KUBE_DNS}/g")
        }
    };
    run(tool("sed").arg(script).arg(path()))
}

pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/nodelocaldns.yaml")
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
    pub fn read(mode: KubeProxyMode) -> Self {
        Self::decode(&substituted(mode)).unwrap_or_else(|e| panic!("{}: {e}", path().display()))
    }

    /// The error names each field that is unknown, misspelt or of another form than the API's.
    pub fn decode(text: &str) -> Result<Self, String> {
        let documents = yaml_serde::Deserializer::from_str(text)
            .map(|document| yaml_serde::Value::deserialize(document).and_then(yaml_serde::from_value::<Value>))
            .collect::<Result<Vec<Value>, _>>()
            .map_err(|e| e.to_string())?;
        let [service_account, upstream_service, config_map, daemon_set, metrics_service] = documents.as_slice() else {
            return Err(format!("{} documents instead of 5", documents.len()));
        };
        Ok(Self {
            service_account: decode_strictly(service_account)?,
            upstream_service: decode_strictly(upstream_service)?,
            config_map: decode_strictly(config_map)?,
            daemon_set: decode_strictly(daemon_set)?,
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

/// The value that follows `flag` among the container's arguments.
pub fn argument<'a>(container: &'a Container, flag: &str) -> &'a str {
    let arguments = container.args.as_deref().unwrap_or_default();
    let place =
        arguments.iter().position(|argument| argument == flag).unwrap_or_else(|| panic!("no {flag} in {arguments:?}"));
    arguments.get(place + 1).unwrap_or_else(|| panic!("{flag} has no value"))
}

/// The types drop what they do not know, so what was read is written again and compared.
fn decode_strictly<T: DeserializeOwned + serde::Serialize>(written: &Value) -> Result<T, String> {
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
