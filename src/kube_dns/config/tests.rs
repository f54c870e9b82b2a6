use super::{KubeDnsConfig, read};
use crate::corefile::SystemLoader;
use std::path::Path;

fn configured(files: &[(&str, &str)]) -> Result<KubeDnsConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    read(folder.path(), &SystemLoader)
        .map_err(|errors| errors.to_string().replace(&folder.path().display().to_string(), "DIR"))
}

fn stub_domains(json: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    let shown = |config: KubeDnsConfig| {
        let shown =
            |(domain, servers): (_, Vec<_>)| (format!("{domain}"), servers.iter().map(ToString::to_string).collect());
        config.stub_domains.into_iter().map(shown).collect()
    };
    configured(&[("stubDomains", json)]).map(shown)
}

fn upstreams(json: &str) -> Result<Vec<String>, String> {
    configured(&[("upstreamNameservers", json)])
        .map(|config| config.upstream_nameservers.iter().map(ToString::to_string).collect())
}

#[test]
fn stub_domains_come_sorted_with_their_nameservers() {
    let read = stub_domains(
        r#"{"widget.local": ["[2001:db8:2:2:2::2]:10053", "2001:db8:3:3:3::3"], "acme.local": ["1.2.3.4:32564", "1.2.3.4:53"]}"#,
    );
    let expected = [
        ("acme.local", ["1.2.3.4:32564", "1.2.3.4"]),
        ("widget.local", ["[2001:db8:2:2:2::2]:10053", "2001:db8:3:3:3::3"]),
    ];
    assert_eq!(
        read,
        Ok(expected.map(|(domain, servers)| (domain.to_owned(), servers.map(str::to_owned).to_vec())).to_vec())
    );
}

#[test]
fn up_to_three_upstream_nameservers_are_read_in_their_order() {
    assert_eq!(
        upstreams(r#"["8.8.8.8", "1.2.3.4:5353", "2001:db8::1"]"#),
        Ok(vec!["8.8.8.8".into(), "1.2.3.4:5353".into(), "2001:db8::1".into()])
    );
    assert_eq!(upstreams("[]"), Ok(vec![]));
    assert!(
        upstreams(r#"["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"]"#).unwrap_err().contains("4 upstream nameservers")
    );
}

#[test]
fn what_is_not_there_asks_for_nothing_and_other_files_are_ignored() {
    assert_eq!(configured(&[]), Ok(KubeDnsConfig::default()));
    assert_eq!(configured(&[("federations", "not json"), (".hidden", "\u{1}")]), Ok(KubeDnsConfig::default()));
    assert_eq!(configured(&[("stubDomains", "null"), ("upstreamNameservers", "null")]), Ok(KubeDnsConfig::default()));
}

#[test]
fn every_error_names_file_key_and_what_would_be_right() {
    let said = configured(&[
        (
            "stubDomains",
            r#"{"Acme.local": ["1.2.3.4"], "foo": ["ns.foo.com", "1.2.3.4:65564"], "bar": [], "a_b": ["10.0.0.1"]}"#,
        ),
        ("upstreamNameservers", r#"["1.1.1.1:abc", "dns.example"]"#),
    ]);
    let said = said.unwrap_err();
    for expected in [
        "DIR/stubDomains: `Acme.local` is no domain name: write it in lower case",
        "DIR/stubDomains: `ns.foo.com` of the stub domain `foo` is no nameserver: it has no IP address; write an IP address",
        "DIR/stubDomains: `1.2.3.4:65564` of the stub domain `foo` is no nameserver: its port is not a number between 1 and 65535",
        "DIR/stubDomains: the stub domain `bar` has no nameserver; list at least one",
        "DIR/stubDomains: `a_b` is no domain name: only letters, digits",
        "DIR/upstreamNameservers: `1.1.1.1:abc` is no nameserver: its port",
        "DIR/upstreamNameservers: `dns.example` is no nameserver",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in:\n{said}");
    }
}

#[test]
fn a_value_that_is_no_such_json_is_refused_with_an_example() {
    for wrong in ["", "{", "[]", r#"{"foo": "1.2.3.4"}"#, r#"{"foo": ["1.2.3.4"]} {}"#, r#"{"foo": [1]}"#] {
        let said = stub_domains(wrong).unwrap_err();
        assert!(
            said.starts_with("DIR/stubDomains of") && said.contains(r#"{"example.org": ["10.0.0.53"]}"#),
            "{wrong}: {said}"
        );
    }
    for wrong in ["1.2.3.4", "{}", r#""1.2.3.4""#] {
        assert!(upstreams(wrong).unwrap_err().starts_with("DIR/upstreamNameservers of"), "{wrong}");
    }
}

#[test]
fn domains_and_nameservers_are_as_strict_as_the_reference() {
    let long_label = "a".repeat(64);
    let long_name = vec!["a".repeat(60); 5].join(".");
    for domain in
        ["", "$$$$", ".", "foo.", ".foo", "a..b", "-foo", "foo-", "foo bar", "f\u{fc}r", &long_label, &long_name]
    {
        let json = serde_json::json!({ domain: ["1.2.3.4"] }).to_string();
        assert!(stub_domains(&json).unwrap_err().contains("is no domain name"), "{domain}");
    }
    for domain in ["a", "foo.com", "8.8.in-addr.arpa", "x--y.example"] {
        assert!(stub_domains(&serde_json::json!({ domain: ["1.2.3.4"] }).to_string()).is_ok(), "{domain}");
    }
    for server in [
        "$$$$",
        "",
        "1.2.3",
        "1.2.3.4:",
        "1.2.3.4:0",
        ":53",
        "[::1]",
        "::1:xyz",
        "tls://1.1.1.1",
        "fe80::1%eth0",
        "/etc/resolv.conf",
    ] {
        let json = serde_json::json!([server]).to_string();
        assert!(upstreams(&json).unwrap_err().contains("is no nameserver"), "{server}");
        assert!(stub_domains(&serde_json::json!({ "foo": [server] }).to_string()).is_err(), "{server}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_an_error_that_names_the_flag() {
    let said = read(Path::new("/no/such/folder"), &SystemLoader).unwrap_err().to_string();
    assert!(said.contains("/no/such/folder") && said.contains("-kubednscm"), "{said}");
}
