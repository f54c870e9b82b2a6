//! `manifests/base/nodelocaldns.yaml` is what the API takes, asks for no more rights than it needs, and holds together
//! with the program and with the manifest that it takes the place of.

mod container;
mod objects;
mod start;
mod upgrades;
mod values;
mod variants;

#[path = "../support/mod.rs"]
mod support;

use k8s_openapi::api::core::v1::{Probe, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nodelocaldns::corefile::{self, SystemLoader};
use objects::{KUBE_DNS, KUBE_DNS_UPSTREAM, LOCAL_ADDRESS, Manifest, argument, base};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[test]
fn the_objects_have_the_names_of_those_they_take_the_place_of() {
    let manifest = Manifest::read();
    let Manifest { service_account, upstream_service, config_map, daemon_set, metrics_service } = &manifest;
    let name = |metadata: &ObjectMeta| {
        (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
    };
    let named = |name: &str| ("kube-system".to_owned(), name.to_owned());
    assert_eq!(name(&service_account.metadata), named("node-local-dns"));
    assert_eq!(name(&upstream_service.metadata), named("kube-dns-upstream"));
    assert_eq!(name(&config_map.metadata), named("node-local-dns"));
    assert_eq!(name(&daemon_set.metadata), named("node-local-dns"));
    assert_eq!(name(&metrics_service.metadata), named("node-local-dns"));
    // `kubectl set image` and strategic merge patches go by it.
    assert_eq!(manifest.container().name, "node-cache");
}

#[test]
fn a_field_that_the_api_does_not_have_is_found() {
    let text = base();
    for (right, wrong, place) in [
        ("maxSurge:", "maxSurges:", "DaemonSet.spec.updateStrategy.rollingUpdate.maxSurges"),
        ("readOnlyRootFilesystem:", "readonlyRootFilesystem:", "securityContext.readonlyRootFilesystem"),
        ("clusterIP:", "clusterIp:", "Service.spec.clusterIp"),
    ] {
        let error = Manifest::decode(&text.replace(right, wrong)).expect_err(wrong);
        assert!(error.contains(place), "{error}");
    }
    let error = Manifest::decode(&text.replace("minReadySeconds: 10", "minReadySeconds: ten"))
        .expect_err("a word for a number");
    assert!(error.contains("DaemonSet"), "{error}");
    let twice = text.replace("hostNetwork: true", "hostNetwork: true\n      hostNetwork: false");
    assert!(Manifest::decode(&twice).is_err(), "a key written twice");
}

#[test]
fn only_the_variables_that_the_program_fills_in_are_left() {
    let manifest = Manifest::read();
    let pod = serde_json::to_string(&manifest.daemon_set).expect("it encodes");
    assert!(!pod.contains("__"), "{pod}");
    let known = ["__PILLAR__CLUSTER__DNS__", "__PILLAR__UPSTREAM__SERVERS__", "__PILLAR__LOCAL__DNS__"];
    let rest = known.iter().fold(manifest.corefile().to_owned(), |text, variable| text.replace(variable, ""));
    assert!(!rest.contains("__"), "{rest}");
    assert_eq!(argument(manifest.container(), "-localip"), format!("{LOCAL_ADDRESS},{KUBE_DNS}"));
}

#[test]
fn the_container_has_five_capabilities_and_no_other_right() {
    let manifest = Manifest::read();
    let pod = manifest.pod();
    let context = manifest.container().security_context.as_ref().expect("a security context");
    let capabilities = context.capabilities.as_ref().expect("capabilities");
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
    let added = ["NET_ADMIN", "NET_BIND_SERVICE", "KILL", "SETGID", "SETUID"].map(str::to_owned);
    assert_eq!(capabilities.add.as_deref(), Some(&added[..]));
    assert_eq!(context.privileged, Some(false));
    assert_eq!(context.allow_privilege_escalation, Some(false));
    assert_eq!(context.read_only_root_filesystem, Some(true));
    assert_eq!(context.seccomp_profile.as_ref().map(|profile| profile.type_.as_str()), Some("RuntimeDefault"));
    // Capabilities of another user would be lost when the program is started.
    assert_eq!(context.run_as_user, Some(0));
    assert_eq!((pod.host_pid, pod.host_ipc), (None, None));
    assert_eq!(pod.automount_service_account_token, Some(false));
    assert!(pod.init_containers.is_none());
}

#[test]
fn it_is_a_node_agent_that_every_node_gets() {
    let manifest = Manifest::read();
    let pod = manifest.pod();
    assert_eq!(pod.host_network, Some(true));
    // ClusterFirst would point it at itself.
    assert_eq!(pod.dns_policy.as_deref(), Some("Default"));
    assert_eq!(pod.priority_class_name.as_deref(), Some("system-node-critical"));
    let tolerated: Vec<_> = pod
        .tolerations
        .iter()
        .flatten()
        .map(|toleration| (toleration.key.as_deref(), toleration.effect.as_deref(), toleration.operator.as_deref()))
        .collect();
    assert_eq!(
        tolerated,
        [
            (Some("CriticalAddonsOnly"), None, Some("Exists")),
            (None, Some("NoExecute"), Some("Exists")),
            (None, Some("NoSchedule"), Some("Exists")),
        ]
    );
}

#[test]
fn a_new_pod_serves_before_the_old_one_ends() {
    let manifest = Manifest::read();
    let strategy =
        manifest.daemon_set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref()).expect("an update strategy");
    assert_eq!(strategy.type_.as_deref(), Some("RollingUpdate"));
    let rolling = strategy.rolling_update.as_ref().expect("its parameters");
    assert!(matches!(&rolling.max_surge, Some(IntOrString::String(share)) if share != "0%"), "{:?}", rolling.max_surge);
    // The API refuses both at once.
    assert_eq!(rolling.max_unavailable, Some(IntOrString::Int(0)));
    // In the host's network a declared port is a host port, which the surge's pod could not have beside the old one.
    assert_eq!(manifest.container().ports, None);
}

#[test]
fn every_mount_has_its_volume_and_every_volume_its_source() {
    let manifest = Manifest::read();
    let mounts = mounts(&manifest);
    let volumes: BTreeMap<&str, _> =
        manifest.pod().volumes.iter().flatten().map(|volume| (volume.name.as_str(), volume)).collect();
    let mounted: Vec<&str> = mounts.iter().map(|mount| mount.name.as_str()).collect();
    for name in volumes.keys() {
        assert!(mounted.contains(name), "volume {name} is not mounted");
    }
    for mount in &mounts {
        let volume = volumes.get(mount.name.as_str()).unwrap_or_else(|| panic!("no volume {}", mount.name));
        let path = mount.mount_path.as_str();
        match (&volume.config_map, &volume.empty_dir, &volume.host_path) {
            (Some(config_map), None, None) if path == "/etc/coredns" => {
                assert_eq!(Some(&config_map.name), manifest.config_map.metadata.name.as_ref());
                assert_eq!(config_map.optional, None);
                let items: Vec<_> =
                    config_map.items.iter().flatten().map(|item| (item.key.as_str(), item.path.as_str())).collect();
                assert_eq!(items, [("Corefile", "Corefile.base")]);
            }
            // Clusters whose KubeDNS is CoreDNS have no such ConfigMap.
            (Some(config_map), None, None) if path == "/etc/kube-dns" => {
                assert_eq!((config_map.name.as_str(), config_map.optional), ("kube-dns", Some(true)));
            }
            (None, Some(_), None) => assert_ne!(mount.read_only, Some(true)),
            (None, None, Some(host)) => {
                let shared = (path, host.path.as_str(), host.type_.as_deref().unwrap_or_default());
                let lock = ("/run/xtables.lock", "/run/xtables.lock", "FileOrCreate");
                let handover = ("/run/handover", "/run/nodelocaldns", "DirectoryOrCreate");
                assert!([lock, handover].contains(&shared), "{shared:?}");
                assert_ne!(mount.read_only, Some(true));
            }
            _ => panic!("volume {} at {path} is not one we know", mount.name),
        }
    }
}

#[test]
fn the_rendered_corefile_goes_where_the_read_only_root_lets_it() {
    let manifest = Manifest::read();
    let volumes = manifest.pod().volumes.as_deref().unwrap_or_default();
    let writable: Vec<PathBuf> = mounts(&manifest)
        .into_iter()
        .filter(|mount| volumes.iter().any(|volume| volume.name == mount.name && volume.empty_dir.is_some()))
        .map(|mount| PathBuf::from(mount.mount_path))
        .collect();
    let folder = Path::new(argument(manifest.container(), "-conf")).parent();
    assert!(writable.iter().any(|mounted| Some(mounted.as_path()) == folder), "{folder:?} is not in {writable:?}");
}

#[test]
fn the_hand_over_is_in_a_folder_of_the_host_that_the_old_and_the_new_pod_share() {
    let manifest = Manifest::read();
    let folder = Path::new(argument(manifest.container(), "--handover")).parent().expect("a folder");
    let mount =
        mounts(&manifest).into_iter().find(|mount| Path::new(&mount.mount_path) == folder).expect("it is mounted");
    let volume = manifest.pod().volumes.iter().flatten().find(|volume| volume.name == mount.name);
    assert!(volume.is_some_and(|volume| volume.host_path.is_some()), "{volume:?}");
}

fn mounts(manifest: &Manifest) -> Vec<VolumeMount> {
    manifest.container().volume_mounts.clone().unwrap_or_default()
}

#[test]
fn selectors_and_references_meet_what_they_name() {
    let manifest = Manifest::read();
    let label = |key: &str, value: &str| Some(BTreeMap::from([(key.to_owned(), value.to_owned())]));
    let spec = manifest.daemon_set.spec.as_ref().expect("a specification");
    let pod_labels = spec.template.metadata.as_ref().and_then(|metadata| metadata.labels.clone());
    assert_eq!(pod_labels, label("k8s-app", "node-local-dns"));
    assert_eq!(spec.selector.match_labels, pod_labels);
    assert_eq!(manifest.metrics_service.spec.as_ref().and_then(|spec| spec.selector.clone()), pod_labels);
    assert_eq!(manifest.pod().service_account_name, manifest.service_account.metadata.name);

    let upstream = manifest.upstream_service.spec.as_ref().expect("a specification");
    assert_eq!(upstream.selector, label("k8s-app", "kube-dns"));
    let ports: Vec<_> = upstream.ports.iter().flatten().map(|port| (port.port, port.protocol.as_deref())).collect();
    assert_eq!(ports, [(53, Some("UDP")), (53, Some("TCP"))]);
    // The program learns the Service's ClusterIP from the environment that links to Services give.
    assert_eq!(
        Some(argument(manifest.container(), "-upstreamsvc")),
        manifest.upstream_service.metadata.name.as_deref()
    );
    assert_eq!(manifest.pod().enable_service_links, Some(true));
}

#[test]
fn the_example_corefile_is_the_manifests_with_its_variables_filled_in() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/Corefile.node-local");
    let example = std::fs::read_to_string(example).expect("the example is shipped");
    assert_eq!(words(&rendered()), words(&example));
}

#[test]
fn probes_and_scrapes_go_where_the_corefile_serves() {
    let manifest = Manifest::read();
    let text = rendered();
    let (tree, diagnostics) = corefile::parse(Path::new("Corefile"), &text, &SystemLoader);
    assert_eq!(diagnostics.render(&tree.sources), "");
    let addresses = |keyword: &str| {
        let directives = tree.blocks.iter().flat_map(|block| &block.directives).filter(|d| d.keyword.text == keyword);
        let mut addresses: Vec<String> =
            directives.flat_map(|d| &d.arguments).map(|argument| argument.text.to_string()).collect();
        addresses.dedup();
        addresses
    };
    let container = manifest.container();
    for probe in [&container.liveness_probe, &container.readiness_probe] {
        let Some(Probe { http_get: Some(asked), .. }) = probe else { panic!("a probe over HTTP") };
        let IntOrString::Int(port) = asked.port else { panic!("the port by its number, since none is declared") };
        let host = asked.host.as_deref().expect("the host, since the pod's own address is the node's");
        assert_eq!(addresses("health"), [format!("{host}:{port}")]);
        assert_eq!(asked.path.as_deref(), Some("/health"));
    }

    let pod =
        manifest.daemon_set.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref()).expect("the pod's metadata");
    for metadata in [pod, &manifest.metrics_service.metadata] {
        let annotations = metadata.annotations.as_ref().expect("annotations");
        let port = annotations.get("prometheus.io/port").expect("a port");
        assert_eq!(addresses("prometheus"), [format!(":{port}")]);
        assert_eq!(annotations.get("prometheus.io/scrape").map(String::as_str), Some("true"));
    }
    let service = manifest.metrics_service.spec.as_ref().expect("a specification");
    assert_eq!(service.cluster_ip.as_deref(), Some("None"));
    let ports: Vec<_> = service.ports.iter().flatten().map(|port| format!(":{}", port.port)).collect();
    assert_eq!(ports, addresses("prometheus"));
}

#[test]
fn the_image_is_of_this_version() {
    let manifest = Manifest::read();
    let image = manifest.container().image.as_deref().expect("an image");
    assert_eq!(image.rsplit_once(':').map(|(_, tag)| tag), Some(env!("CARGO_PKG_VERSION")), "{image}");
}

/// The ConfigMap's Corefile with the variables filled in that the program fills in.
fn rendered() -> String {
    let text = Manifest::read().corefile().replace("__PILLAR__LOCAL__DNS__", &format!("{LOCAL_ADDRESS} {KUBE_DNS}"));
    text.replace("__PILLAR__CLUSTER__DNS__", KUBE_DNS_UPSTREAM)
        .replace("__PILLAR__UPSTREAM__SERVERS__", "/etc/resolv.conf")
}

/// The lines without comments and indentation.
fn words(corefile: &str) -> Vec<&str> {
    corefile.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}
