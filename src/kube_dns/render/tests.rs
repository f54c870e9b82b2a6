use super::{PillarValues, Rendered, ServiceAddress, render};
use crate::corefile::{self, Loader, SystemLoader};
use crate::kube_dns::config::{KubeDnsConfig, read};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// The Corefile of the reference's own manifest, its DNS domain already put in.
const MANIFEST: &str = "\
cluster.local:53 {
    errors
    cache {
            success 9984 30
            denial 9984 5
    }
    reload
    loop
    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__
    forward . __PILLAR__CLUSTER__DNS__ {
            force_tcp
    }
    prometheus :9253
    health __PILLAR__LOCAL__DNS__:8080
    }
in-addr.arpa:53 {
    errors
    cache 30
    reload
    loop
    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__
    forward . __PILLAR__CLUSTER__DNS__ {
            force_tcp
    }
    prometheus __PROMETHEUS__ENDPOINT__
    }
.:53 {
    errors
    cache 30
    reload
    loop
    bind __PILLAR__LOCAL__DNS__ __PILLAR__DNS__SERVER__
    forward . __PILLAR__UPSTREAM__SERVERS__ {
            force_tcp
    }
    prometheus __PROMETHEUS__ENDPOINT__
    }
";

struct ServiceVariables(HashMap<&'static str, &'static str>);

impl Loader for ServiceVariables {
    fn read(&self, path: &Path) -> io::Result<String> {
        let text = path.to_str().and_then(|path| self.0.get(path));
        text.map(|text| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.keys().map(PathBuf::from).filter(|path| path == pattern).collect())
    }
    fn environment(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| (*value).to_owned())
    }
}

fn world(entries: &[(&'static str, &'static str)]) -> ServiceVariables {
    ServiceVariables(entries.iter().copied().collect())
}

fn values(local: &[&str], world: &ServiceVariables) -> PillarValues {
    PillarValues {
        local_addresses: local.iter().map(|address| address.parse().unwrap()).collect(),
        port: 53,
        cluster_dns: ServiceAddress::read("kube-dns-upstream", world),
        prometheus: ":9253".to_owned(),
    }
}

fn config(stub_domains: &str, upstream_nameservers: &str) -> KubeDnsConfig {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("stubDomains"), stub_domains).unwrap();
    std::fs::write(folder.path().join("upstreamNameservers"), upstream_nameservers).unwrap();
    read(folder.path(), &SystemLoader).unwrap()
}

fn rendered(template: &str, config: &KubeDnsConfig) -> Rendered {
    let world = world(&[("KUBE_DNS_UPSTREAM_SERVICE_HOST", "10.96.0.11")]);
    render(Path::new("/Corefile.base"), template, config, &values(&["169.254.20.10", "10.96.0.10"], &world), &world)
        .unwrap()
}

fn refused(template: &str, world: &ServiceVariables) -> String {
    let values = values(&["169.254.20.10"], world);
    render(Path::new("/Corefile.base"), template, &KubeDnsConfig::default(), &values, world).unwrap_err().to_string()
}

#[test]
fn the_manifests_pillars_are_filled_in_as_the_reference_does() {
    let expected = MANIFEST
        .replace("__PILLAR__LOCAL__DNS__", "169.254.20.10 10.96.0.10")
        .replace("__PILLAR__DNS__SERVER__", "")
        .replace("__PILLAR__CLUSTER__DNS__", "10.96.0.11")
        .replace("__PILLAR__UPSTREAM__SERVERS__", "/etc/resolv.conf")
        .replace("__PROMETHEUS__ENDPOINT__", ":9253");
    let rendered = rendered(MANIFEST, &KubeDnsConfig::default());
    assert_eq!(rendered.text, expected);
    assert_eq!(
        (rendered.stub_domain_count, rendered.upstreams.as_str(), rendered.warnings.as_str()),
        (0, "/etc/resolv.conf", "")
    );
}

#[test]
fn ipv6_addresses_are_filled_in_too() {
    let world = world(&[("KUBE_DNS_UPSTREAM_SERVICE_HOST", "2001:db8::1")]);
    let values = values(&["fe80:169:254::1", "fd00:1:2:3::5"], &world);
    let template = "bind __PILLAR__LOCAL__DNS__\nforward . __PILLAR__CLUSTER__DNS__\n";
    let rendered = render(Path::new("b"), template, &KubeDnsConfig::default(), &values, &world).unwrap();
    assert_eq!(rendered.text, "bind fe80:169:254::1 fd00:1:2:3::5\nforward . 2001:db8::1\n");
}

#[test]
fn stub_domains_are_appended_as_blocks_in_the_order_of_their_names() {
    let config = config(r#"{"widget.local": ["2.2.2.2:10053", "3.3.3.3"], "acme.local": ["1.1.1.1"]}"#, "[]");
    let rendered = rendered(".:53 {\n    whoami\n}\n", &config);
    let expected = "\
.:53 {
    whoami
}

acme.local:53 {
    errors
    cache 30
    bind 169.254.20.10 10.96.0.10
    forward . 1.1.1.1
}

widget.local:53 {
    errors
    cache 30
    bind 169.254.20.10 10.96.0.10
    forward . 2.2.2.2:10053 3.3.3.3
}
";
    assert_eq!(rendered.text, expected);
    assert_eq!(rendered.stub_domain_count, 2);
}

#[test]
fn the_same_input_gives_the_same_text() {
    let text = r#"{"b": ["1.1.1.1"], "a": ["1.1.1.1"], "d": ["1.1.1.1"], "c": ["1.1.1.1"]}"#;
    let first = rendered(MANIFEST, &config(text, "[]"));
    assert!((0..20).all(|_| rendered(MANIFEST, &config(text, "[]")) == first));
}

/// Options of the directives `forward` of a rendered Corefile: their arguments with the names of their options.
fn forwards(text: &str) -> Vec<(String, Vec<String>)> {
    let (tree, diagnostics) = corefile::parse(Path::new("Corefile"), text, &world(&[]));
    assert_eq!(diagnostics.render(&tree.sources), "", "{text}");
    let directives =
        tree.blocks.iter().flat_map(|block| &block.directives).filter(|directive| directive.keyword.text == "forward");
    let read = directives.map(|directive| {
        let arguments: Vec<&str> = directive.arguments.iter().map(|argument| argument.text.as_str()).collect();
        (arguments.join(" "), directive.options.iter().map(|option| option.name.text.clone()).collect())
    });
    read.collect()
}

#[test]
fn custom_upstreams_are_asked_over_udp_and_cluster_dns_still_over_tcp() {
    let rendered = rendered(MANIFEST, &config("{}", r#"["2.2.2.2:10053", "3.3.3.3"]"#));
    let tcp = || vec!["force_tcp".to_owned()];
    let expected = [(". 10.96.0.11", tcp()), (". 10.96.0.11", tcp()), (". 2.2.2.2:10053 3.3.3.3", vec![])];
    assert_eq!(forwards(&rendered.text), expected.map(|(arguments, options)| (arguments.to_owned(), options)));
    assert_eq!(rendered.upstreams, "2.2.2.2:10053 3.3.3.3");
}

#[test]
fn force_tcp_goes_however_the_block_is_laid_out() {
    let config = config("{}", r#"["2.2.2.2"]"#);
    for (layout, left) in [
        ("{\n            force_tcp\n    }", &[][..]),
        ("{\n\tforce_tcp\n\t}", &[]),
        ("{\r\n force_tcp\r\n}", &[]),
        ("{ force_tcp }", &[]),
        ("{ # a comment {\n force_tcp # over TCP\n }", &[]),
        ("{\n  max_concurrent 1000\n  force_tcp\n  policy random\n }", &["max_concurrent", "policy"]),
        ("", &[]),
    ] {
        let template = format!(".:53 {{\n forward . __PILLAR__UPSTREAM__SERVERS__ {layout}\n whoami\n}}\n");
        let rendered = rendered(&template, &config);
        let left = left.iter().map(|option| (*option).to_owned()).collect();
        assert_eq!(forwards(&rendered.text), [(". 2.2.2.2".to_owned(), left)], "{layout}");
        assert_eq!(rendered.text.lines().count(), template.lines().count(), "lines stay where they are: {layout}");
        assert_eq!(rendered.warnings, "");
    }
}

#[test]
fn force_tcp_of_a_snippet_goes_and_that_of_an_imported_file_is_told() {
    let config = config("{}", r#"["2.2.2.2"]"#);
    let template = "(up) {\n forward . __PILLAR__UPSTREAM__SERVERS__ {\n  force_tcp\n }\n}\na.example {\n import up\n}\nb.example {\n import up\n}\n";
    let forwards = forwards(&rendered(template, &config).text);
    assert_eq!(forwards, [(". 2.2.2.2".to_owned(), vec![]), (". 2.2.2.2".to_owned(), vec![])]);

    let world = world(&[("/tcp", "force_tcp\n")]);
    let template = ".:53 {\n forward . __PILLAR__UPSTREAM__SERVERS__ {\n  import /tcp\n }\n}\n";
    let rendered =
        render(Path::new("/Corefile.base"), template, &config, &values(&["127.0.0.1"], &world), &world).unwrap();
    assert!(rendered.warnings.contains("/tcp:1") && rendered.warnings.contains("force_tcp"), "{:?}", rendered.warnings);
}

#[test]
fn an_unresolved_pillar_is_named_with_its_place_and_what_gives_it() {
    let said = refused(".:53 {\n    forward . __PILLAR__CLUSTER__DNS__\n}\n", &world(&[]));
    for part in
        ["/Corefile.base:2:15", "__PILLAR__CLUSTER__DNS__", "KUBE_DNS_UPSTREAM_SERVICE_HOST is not set", "-upstreamsvc"]
    {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    let said = refused("forward . __PILLAR__CLUSTER__DNS__", &world(&[("KUBE_DNS_UPSTREAM_SERVICE_HOST", "None")]));
    assert!(said.contains("KUBE_DNS_UPSTREAM_SERVICE_HOST is `None`"), "{said}");
}

#[test]
fn unknown_pillars_are_told_all_at_once_with_the_nearest_known() {
    let said = refused("__PILLAR__DNS__DOMAIN__:53 {\n bind __PILLAR__LOCAL_DNS__\n}\n", &world(&[]));
    assert!(said.contains(":1:1: error: __PILLAR__DNS__DOMAIN__ has no value"), "{said}");
    assert!(said.contains("before the manifest is applied"), "{said}");
    assert!(
        said.contains(":2:7: error: __PILLAR__LOCAL_DNS__") && said.contains("did you mean `__PILLAR__LOCAL__DNS__`"),
        "{said}"
    );
}

#[test]
fn a_pillar_in_a_comment_needs_no_value() {
    let template = "# __PILLAR__DNS__DOMAIN__\n.:53 { # __PILLAR__CLUSTER__DNS__\n whoami \"#\" # __PILLAR__X__\n}\n";
    let none = world(&[]);
    let rendered =
        render(Path::new("b"), template, &KubeDnsConfig::default(), &values(&["127.0.0.1"], &none), &none).unwrap();
    assert_eq!(rendered.text, template);
    assert!(refused("whoami \"# __PILLAR__X__\"", &none).contains("__PILLAR__X__"));
}

#[test]
fn a_service_is_looked_up_as_the_kubelet_names_it() {
    let world = world(&[("KUBE_DNS_SERVICE_HOST", "10.0.0.10"), ("EMPTY_SERVICE_HOST", "")]);
    assert_eq!(ServiceAddress::read("kube-dns", &world).address(), Ok("10.0.0.10".parse().unwrap()));
    assert!(ServiceAddress::read("empty", &world).address().unwrap_err().contains("EMPTY_SERVICE_HOST is not set"));
}
