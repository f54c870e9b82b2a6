//! The program started with exactly the DaemonSet's arguments, rights, environment and mounts, in the network of a node
//! that a namespace stands for. Where the kernel lacks the dummy driver the node has a bridge of that name, which the
//! program adopts.

use crate::container::Container;
use crate::objects::{KUBE_DNS, LOCAL_ADDRESS, Manifest, argument};
use crate::support::daemons::{Listen, start_unbound};
use crate::support::namespace::Namespace;
use crate::support::server::{Server, scratch, wait_until};
use crate::support::tools::{everything, run};
use crate::variants;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Long for a loaded machine; what is waited for comes within a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// The ClusterIP of kube-dns-upstream in the node's network: of loopback, so that the stand-in for KubeDNS takes its
/// queries.
const UPSTREAM: &str = "127.0.0.11";

/// A node: KubeDNS behind the ClusterIP that nothing intercepts, and the link.
struct Node {
    namespace: Namespace,
    /// What pods see of its files.
    host: TempDir,
    _kube_dns: Server,
}

impl Node {
    fn new() -> Self {
        let namespace = Namespace::new(&[]);
        let ip = |arguments: &str| run(namespace.command("ip").args(arguments.split_whitespace()));
        ip("link add nodelocaldns type bridge");
        ip("link set nodelocaldns up");
        let zone = |name: &str, address: &str| {
            format!(
                "$TTL 30\n@ SOA ns.{name}. host.{name}. 1 7200 900 1209600 30\n@ NS ns.{name}.\n*.svc A {address}\nns A {UPSTREAM}\n"
            )
        };
        let zones = [
            ("cluster.local", zone("cluster.local", "10.96.0.1")),
            ("example.test", zone("example.test", "192.0.2.7")),
        ];
        let zones = zones.each_ref().map(|(name, text)| (*name, text.as_str()));
        let listen = Listen { address: UPSTREAM, port: 53, udp: true };
        let kube_dns = start_unbound(listen, &zones, scratch(), |program| namespace.command(program));
        let node = Self { namespace, host: scratch(), _kube_dns: kube_dns };
        let answers =
            wait_until(PATIENCE, || node.resolves(UPSTREAM, "kubernetes.default.svc.cluster.local", "10.96.0.1"));
        assert!(answers, "KubeDNS does not answer");
        node
    }

    fn start(&self, manifest: &Manifest) -> Container {
        self.start_with(manifest, &[])
    }

    /// `fields` are the variables that Kubernetes fills in from the pod's fields.
    fn start_with(&self, manifest: &Manifest, fields: &[(&str, &str)]) -> Container {
        let service = [("KUBE_DNS_UPSTREAM_SERVICE_HOST", UPSTREAM), ("KUBE_DNS_UPSTREAM_SERVICE_PORT", "53")];
        let environment = [&service, fields].concat();
        Container::start(manifest, &self.namespace, &environment, &format!("nameserver {UPSTREAM}\n"), self.host.path())
    }

    /// Whether `server` gives this address, over UDP and TCP.
    fn resolves(&self, server: &str, name: &str, address: &str) -> bool {
        ["+notcp", "+tcp"].iter().all(|transport| {
            let mut dig = self.namespace.command("dig");
            dig.args([&format!("@{server}"), name, "A", transport, "+short", "+tries=1", "+timeout=2"]);
            dig.output().is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == address)
        })
    }

    /// Whether the cache answers on both its addresses, for the cluster's names and for others.
    fn is_served(&self) -> bool {
        [LOCAL_ADDRESS, KUBE_DNS].iter().all(|server| {
            self.resolves(server, "kubernetes.default.svc.cluster.local", "10.96.0.1")
                && self.resolves(server, "www.svc.example.test", "192.0.2.7")
        })
    }

    /// The answer of an HTTP server, its status line first.
    fn http(&self, host: &str, port: i32, path: &str) -> String {
        let script =
            format!("exec 3<>/dev/tcp/{host}/{port} && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3");
        everything(&self.namespace.command("bash").args(["-c", &script]).output().expect("bash runs"))
    }

    fn rules(&self) -> String {
        run(self.namespace.command("nft").args(["list", "ruleset"]))
    }

    /// Whether queries to both addresses go untracked.
    fn intercepts(&self) -> bool {
        let rules = self.rules();
        rules.contains("notrack") && [LOCAL_ADDRESS, KUBE_DNS].iter().all(|address| rules.contains(address))
    }

    fn addresses(&self) -> String {
        run(self.namespace.command("ip").args(["-o", "-4", "address", "show", "dev", "nodelocaldns"]))
    }
}

#[test]
fn the_pod_serves_with_the_rights_and_mounts_it_is_given() {
    let manifest = Manifest::read();
    let node = Node::new();
    let mut pod = node.start(&manifest);
    assert!(wait_until(PATIENCE, || node.is_served()), "not served:\n{}", pod.output());
    assert!(wait_until(PATIENCE, || node.intercepts()), "no interception:\n{}\n{}", node.rules(), pod.output());

    let container = manifest.container();
    for probe in [&container.liveness_probe, &container.readiness_probe] {
        let asked = probe.as_ref().and_then(|probe| probe.http_get.as_ref()).expect("a probe over HTTP");
        let port = match asked.port {
            IntOrString::Int(port) => port,
            IntOrString::String(ref name) => panic!("{name:?} is no number"),
        };
        let answer =
            node.http(asked.host.as_deref().unwrap_or_default(), port, asked.path.as_deref().unwrap_or_default());
        assert!(answer.contains(" 200 OK"), "{answer}");
    }
    assert!(node.http("127.0.0.1", 9253, "/metrics").contains("coredns_dns_requests_total"));
    assert!(node.http("127.0.0.1", 9353, "/metrics").contains("coredns_nodecache_setup_errors_total"));

    let rendered = pod
        .read("rendered", Path::new(argument(container, "-conf")).file_name().expect("a file"))
        .expect("it is there");
    assert!(rendered.contains(&format!("forward . {UPSTREAM}")) && !rendered.contains("__"), "{rendered}");

    // capabilities(7): bits 5, 6, 7, 10 and 12, KILL, SETGID, SETUID, NET_BIND_SERVICE and NET_ADMIN.
    let status = pod.first_process_status();
    assert!(status.contains("CapBnd:\t00000000000014e0") && status.contains("NoNewPrivs:\t1"), "{status}");

    let ended = pod.stop(PATIENCE).unwrap_or_else(|| panic!("it does not end:\n{}", pod.output()));
    assert!(ended.success(), "{ended}:\n{}", pod.output());
    assert!(!node.rules().contains("notrack"), "left behind:\n{}", node.rules());
    assert!(node.rules().contains("table inet nodelocaldns-fallback"), "{}", node.rules());
    let addresses = node.addresses();
    let stay = addresses.contains(LOCAL_ADDRESS) && addresses.contains(KUBE_DNS);
    assert!(stay, "with the fallback the addresses stay, for sockets connected from them: {addresses}");
}

#[test]
fn the_pod_of_the_link_local_variant_serves_that_address_alone() {
    let manifest = variants::kustomized("link-local");
    let node = Node::new();
    let pod = node.start(&manifest);
    let served = || node.resolves(LOCAL_ADDRESS, "kubernetes.default.svc.cluster.local", "10.96.0.1");
    assert!(wait_until(PATIENCE, served), "not served:\n{}", pod.output());
    assert!(!node.addresses().contains(KUBE_DNS), "{}", node.addresses());
}

/// Without NET_ADMIN, an interface or rules of its own.
#[test]
fn the_pods_of_variants_that_intercept_nothing_serve_the_address_they_are_given() {
    for (variant, variable) in [("host", "HOST_IP"), ("cilium", "POD_IPS")] {
        let manifest = variants::kustomized(variant);
        let node = Node::new();
        let address = "192.0.2.20";
        run(node.namespace.command("ip").args(["address", "add", "192.0.2.20/32", "dev", "lo"]));
        let pod = node.start_with(&manifest, &[(variable, address)]);
        let served = || node.resolves(address, "kubernetes.default.svc.cluster.local", "10.96.0.1");
        assert!(wait_until(PATIENCE, served), "{variant}: not served:\n{}", pod.output());
        assert!(node.http(address, 8080, "/health").contains(" 200 OK"), "{variant}: {}", pod.output());
        let metrics = node.http(address, 9353, "/metrics");
        let errors = metrics.lines().filter(|line| line.starts_with("coredns_nodecache_setup_errors_total"));
        assert!(errors.clone().all(|line| line.ends_with(" 0")), "{variant}: {metrics}\n{}", pod.output());
        assert!(!node.intercepts() && !node.addresses().contains(LOCAL_ADDRESS), "{variant}");
        assert_eq!(node.rules(), "", "{variant}");
    }
}

#[test]
fn the_pod_of_a_rolling_update_takes_over_from_its_predecessor() {
    let manifest = Manifest::read();
    let node = Node::new();
    let mut old = node.start(&manifest);
    assert!(wait_until(PATIENCE, || node.is_served() && node.intercepts()), "not served:\n{}", old.output());

    let new = node.start(&manifest);
    assert!(
        wait_until(PATIENCE, || new.read("rendered", "Corefile").is_some()),
        "the new pod does not come up:\n{}",
        new.output()
    );
    let taken_over = || old.output().contains("a successor has taken over");
    assert!(wait_until(PATIENCE, taken_over), "no hand-over:\n{}\n{}", old.output(), new.output());
    assert!(new.output().contains("cached answers taken over"), "no cache:\n{}", new.output());
    assert!(node.is_served() && node.intercepts(), "with both pods:\n{}\n{}", old.output(), new.output());

    let ended = old.stop(PATIENCE).unwrap_or_else(|| panic!("it does not end:\n{}", old.output()));
    assert!(ended.success(), "{ended}:\n{}", old.output());
    assert!(
        wait_until(PATIENCE, || node.is_served() && node.intercepts()),
        "by the new pod:\n{}\n{}",
        node.rules(),
        new.output()
    );
}
