//! The pod's description → what a container runtime is told (the OCI runtime specification's `config.json`), as kubelet
//! and containerd translate it.

use super::image::ENTRY_POINT;
use super::service_links::Variable;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements, SecurityContext};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What no manifest says.
pub struct Placement<'a> {
    /// The image's root.
    pub root: &'a Path,
    /// A file or folder for each volume, by its name.
    pub volumes: &'a Path,
    /// What kubelet and the runtime make for each pod: `hosts`, `hostname`, `resolv.conf`, `termination-log`.
    pub files: &'a Path,
    pub service_links: Vec<Variable>,
    /// Below the root of cgroups.
    pub cgroup: &'a Path,
    /// `memory.oom.group`, which kubelet sets from 1.28 on unless told not to.
    pub has_oom_group: bool,
}

/// The PATH of an image that has none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `oom_score_adj` of a node-critical pod, as a guaranteed one's (kubelet's pkg/kubelet/qos).
const NODE_CRITICAL: i32 = -997;

/// The period of `cpu.max`, in microseconds.
const PERIOD: u64 = 100_000;

/// What containerd hides of /proc and /sys, and what it shows without letting it be written.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// `config.json` of a pod's only container. `seccomp` gives the default profile for capabilities.
pub fn spec(pod: &PodSpec, placement: &Placement, seccomp: impl Fn(&[String]) -> Value) -> Value {
    let [container] = pod.containers.as_slice() else { panic!("one container: {pod:?}") };
    let context = container.security_context.as_ref().expect("the container has a security context");
    assert_eq!(context.privileged, Some(false), "a privileged container is another translation");
    assert_eq!(pod.host_network, Some(true), "a pod with a network of its own is another translation");
    let capabilities = capabilities(context);
    let namespaces = ["pid", "ipc", "mount", "cgroup"].map(|kind| json!({"type": kind}));
    let mut linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": placement.cgroup,
        "resources": resources(container.resources.as_ref(), placement.has_oom_group),
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
    });
    let profile = context.seccomp_profile.as_ref().map(|profile| profile.type_.as_str());
    match profile {
        Some("RuntimeDefault") => linux["seccomp"] = seccomp(&capabilities),
        None | Some("Unconfined") => {}
        Some(other) => panic!("a seccomp profile of type {other} is another translation"),
    }
    json!({
        "ociVersion": "1.0.2",
        "process": process(pod, container, context, &capabilities, &placement.service_links),
        "root": {"path": placement.root, "readonly": context.read_only_root_filesystem == Some(true)},
        "mounts": mounts(container, placement),
        "linux": linux,
    })
}

fn process(
    pod: &PodSpec,
    container: &Container,
    context: &SecurityContext,
    capabilities: &[String],
    service_links: &[Variable],
) -> Value {
    let command = container.command.clone().unwrap_or_else(|| vec![ENTRY_POINT.to_owned()]);
    let arguments: Vec<String> = command.into_iter().chain(container.args.iter().flatten().cloned()).collect();
    let own = container.env.iter().flatten().map(|variable| {
        let value = variable.value.as_deref().expect("a variable with a value: others are another translation");
        format!("{}={value}", variable.name)
    });
    let links = service_links.iter().filter(|_| pod.enable_service_links != Some(false));
    let links = links.map(|(name, value)| format!("{name}={value}"));
    let environment: Vec<String> =
        [PATH.to_owned(), "HOSTNAME=node".to_owned()].into_iter().chain(links).chain(own).collect();
    json!({
        "cwd": "/",
        "args": arguments,
        "env": environment,
        "user": {"uid": context.run_as_user.unwrap_or(0), "gid": context.run_as_group.unwrap_or(0)},
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "noNewPrivileges": context.allow_privilege_escalation == Some(false),
        "oomScoreAdj": oom_score(pod),
    })
}

/// `CAP_…` of what is added, where all others are dropped.
fn capabilities(context: &SecurityContext) -> Vec<String> {
    let asked = context.capabilities.clone().unwrap_or_default();
    assert_eq!(asked.drop, Some(vec!["ALL".to_owned()]), "a runtime's default capabilities are another translation");
    asked.add.into_iter().flatten().map(|name| format!("CAP_{name}")).collect()
}

fn oom_score(pod: &PodSpec) -> i32 {
    let class = pod.priority_class_name.as_deref();
    assert_eq!(class, Some("system-node-critical"), "the score of other pods follows from their requests");
    NODE_CRITICAL
}

/// What becomes of requests and limits in cgroup v2. A request of memory is for the scheduler alone.
fn resources(asked: Option<&ResourceRequirements>, has_oom_group: bool) -> Value {
    let quantity = |list: Option<&std::collections::BTreeMap<String, Quantity>>, name: &str| {
        list.and_then(|list| list.get(name)).map(|quantity| thousandths(&quantity.0))
    };
    let requests = asked.and_then(|asked| asked.requests.as_ref());
    let limits = asked.and_then(|asked| asked.limits.as_ref());
    let mut cpu = Map::new();
    if let Some(request) = quantity(requests, "cpu") {
        cpu.insert("shares".to_owned(), json!((request * 1024 / 1000).max(2)));
    }
    if let Some(limit) = quantity(limits, "cpu") {
        cpu.insert("quota".to_owned(), json!(limit * PERIOD / 1000));
        cpu.insert("period".to_owned(), json!(PERIOD));
    }
    let mut resources = json!({
        "devices": [{"allow": false, "access": "rwm"}],
        "cpu": cpu,
        "unified": {"memory.oom.group": u8::from(has_oom_group).to_string()},
    });
    if let Some(limit) = quantity(limits, "memory") {
        resources["memory"] = json!({"limit": limit / 1000, "swap": limit / 1000});
    }
    resources
}

/// A quantity's thousandths, of those of its forms that manifests have: `25m`, `1`, `20Mi`.
fn thousandths(quantity: &str) -> u64 {
    let digits = quantity.trim_end_matches(|character: char| !character.is_ascii_digit());
    let number: u64 = digits.parse().unwrap_or_else(|_| panic!("{quantity:?} is another form of a quantity"));
    let unit = match &quantity[digits.len()..] {
        "m" => 1,
        "" => 1000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        _ => panic!("{quantity:?} is another form of a quantity"),
    };
    number * unit
}

fn mounts(container: &Container, placement: &Placement) -> Vec<Value> {
    let new = |kind: &str, place: &str, options: &[&str]| json!({"type": kind, "source": kind, "destination": place, "options": options});
    let bound = |source: &Path, place: &str, is_read_only: bool| {
        let options = ["rbind", "rprivate", if is_read_only { "ro" } else { "rw" }];
        json!({"type": "bind", "source": source, "destination": place, "options": options})
    };
    let mut mounts = vec![
        new("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        new("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        new("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        new("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        new("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        new("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
        new("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ];
    let is_read_only = container.security_context.as_ref().and_then(|context| context.read_only_root_filesystem);
    for (file, place) in [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")] {
        mounts.push(bound(&placement.files.join(file), place, is_read_only == Some(true)));
    }
    mounts.push(bound(&placement.files.join("termination-log"), "/dev/termination-log", false));
    for mount in container.volume_mounts.iter().flatten() {
        assert!(mount.sub_path.is_none(), "a part of a volume is another translation");
        mounts.push(bound(&placement.volumes.join(&mount.name), &mount.mount_path, mount.read_only == Some(true)));
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::{Placement, spec, thousandths};
    use crate::container::manifest;
    use serde_json::{Value, json};
    use std::path::Path;

    fn made(changes: &[(&str, &str)]) -> Value {
        let placement = Placement {
            root: Path::new("/root"),
            volumes: Path::new("/volumes"),
            files: Path::new("/files"),
            service_links: vec![("KUBE_DNS_SERVICE_HOST".to_owned(), "10.96.0.10".to_owned())],
            cgroup: Path::new("/kubepods/pod/container"),
            has_oom_group: true,
        };
        spec(manifest(changes).pod(), &placement, |capabilities| json!({"for": capabilities}))
    }

    #[test]
    fn what_the_manifest_says_of_rights_is_in_the_specification() {
        let made = made(&[]);
        let capabilities = json!(["CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]);
        assert_eq!(made["linux"]["seccomp"]["for"], capabilities);
        let process = &made["process"];
        for set in ["bounding", "effective", "permitted"] {
            assert_eq!(process["capabilities"][set], capabilities);
        }
        assert_eq!(process["noNewPrivileges"], json!(true));
        assert_eq!(process["user"], json!({"uid": 0, "gid": 0}));
        assert_eq!(made["root"], json!({"path": "/root", "readonly": true}));
        let kinds: Vec<&str> =
            made["linux"]["namespaces"].as_array().unwrap().iter().filter_map(|one| one["type"].as_str()).collect();
        assert!(!kinds.contains(&"network"), "{kinds:?}");
        let arguments = process["args"].as_array().unwrap();
        assert_eq!(arguments[..3], [json!("/nodelocaldns"), json!("-localip"), json!("169.254.20.10,10.96.0.10")]);
        assert!(process["env"].as_array().unwrap().contains(&json!("KUBE_DNS_SERVICE_HOST=10.96.0.10")));
    }

    #[test]
    fn volumes_are_mounted_as_the_manifest_says() {
        let made = made(&[]);
        let mount = |place: &str| {
            let mounts = made["mounts"].as_array().unwrap();
            mounts
                .iter()
                .find(|mount| mount["destination"] == place)
                .unwrap_or_else(|| panic!("{place}: {mounts:?}"))
                .clone()
        };
        let bound = |source: &str, place: &str, mode: &str| json!({"type": "bind", "source": source, "destination": place, "options": ["rbind", "rprivate", mode]});
        assert_eq!(mount("/etc/coredns"), bound("/volumes/config-volume", "/etc/coredns", "ro"));
        assert_eq!(mount("/run/handover"), bound("/volumes/handover", "/run/handover", "rw"));
        assert_eq!(mount("/etc/resolv.conf"), bound("/files/resolv.conf", "/etc/resolv.conf", "ro"));
    }

    #[test]
    fn requests_and_limits_are_those_of_cgroups() {
        let resources = |changes| made(changes)["linux"]["resources"].clone();
        let asked = resources(&[]);
        assert_eq!((&asked["cpu"], &asked["memory"]), (&json!({"shares": 25}), &Value::Null));
        assert_eq!(asked["unified"], json!({"memory.oom.group": "1"}));
        let limited = resources(&[("requests:", "limits: {cpu: 500m, memory: 64Mi}\n            requests:")]);
        assert_eq!(limited["cpu"], json!({"shares": 25, "quota": 50_000, "period": 100_000}));
        assert_eq!(limited["memory"], json!({"limit": 64 << 20, "swap": 64 << 20}));
        assert_eq!(["1", "25m", "1Ki"].map(thousandths), [1000, 25, 1_024_000]);
    }
}
