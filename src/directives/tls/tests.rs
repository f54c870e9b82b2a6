use super::parse;
use crate::chain::testing::configure_with;
use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::Directive;
use crate::net::tls::testing::{Authority, Files};

/// A machine with a certificate, its key, the authority of clients, and some that do not fit.
fn machine() -> Files {
    let authority = Authority::new("authority");
    let (one, other) = (authority.sign(&["dns.example"]), authority.sign(&["dns.example"]));
    let files = [
        ("/tls/tls.crt", one.certificate),
        ("/tls/tls.key", one.key),
        ("/tls/other.key", other.key),
        ("/tls/ca.crt", authority.pem()),
        ("/tls/text", "no PEM\n".to_owned()),
    ];
    Files { files: files.map(|(path, text)| (path.to_owned(), text)).into(), ..Files::default() }
}

fn read(text: &str) -> (BlockConfig, String) {
    configure_with(&machine(), parse, text)
}

#[test]
fn certificate_and_key_are_read_and_clients_are_asked_as_told() {
    let (plain, said) = read("tls /tls/tls.crt /tls/tls.key");
    assert!(plain.tls.is_some() && said.is_empty(), "{said}");
    for auth in ["nocert", "request", "require", "verify_if_given", "require_and_verify"] {
        let (block, said) = read(&format!("tls /tls/tls.crt /tls/tls.key /tls/ca.crt {{\n client_auth {auth}\n}}"));
        assert!(block.tls.is_some() && said.is_empty(), "{auth}: {said}");
    }
}

#[test]
fn paths_are_below_the_root_of_the_block() {
    let parse_below = |directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>| {
        block.root = Some("/tls".into());
        parse(directive, block, context);
    };
    let (block, said) = configure_with(&machine(), parse_below, "tls tls.crt tls.key");
    assert!(block.tls.is_some(), "{said}");
}

#[test]
fn files_that_cannot_be_used_are_refused_where_they_are_named() {
    for (text, place, said) in [
        ("tls /absent /tls/tls.key", "Corefile:2:5: error", "the file /absent cannot be read"),
        ("tls /tls/tls.crt /absent", "Corefile:2:18: error", "the file /absent cannot be read"),
        ("tls /tls/text /tls/tls.key", "Corefile:2:5: error", "has no certificate"),
        ("tls /tls/tls.crt /tls/text", "Corefile:2:18: error", "has no private key"),
        ("tls /tls/tls.crt /tls/other.key", "Corefile:2:5: error", "cannot be shown with the key of /tls/other.key"),
        ("tls /tls/tls.crt /tls/tls.key /tls/text", "Corefile:2:31: error", "has no certificate"),
    ] {
        let (block, diagnostics) = read(text);
        assert!(
            diagnostics.contains(place) && diagnostics.contains(said) && block.tls.is_none(),
            "{text}: {diagnostics}"
        );
    }
}

#[test]
fn arguments_and_options_that_there_are_not_are_refused() {
    let good = "tls /tls/tls.crt /tls/tls.key";
    for (text, place, said) in [
        ("tls".to_owned(), "Corefile:2:1", "ACME"),
        ("tls {\n acme dns.example.org\n}".to_owned(), "Corefile:2:1", "ACME"),
        ("tls /tls/tls.crt".to_owned(), "Corefile:2:5", "two or three files"),
        (format!("{good} a b"), "Corefile:2:33", "two or three files"),
        (format!("{good} {{\n client_auth maybe\n}}"), "Corefile:3:14", "unknown authentication type `maybe`"),
        (format!("{good} {{\n client_auth\n}}"), "Corefile:3:2", "client_auth"),
        (format!("{good} {{\n clientauth require\n}}"), "Corefile:3:2", "client_auth"),
    ] {
        let (block, diagnostics) = read(&text);
        assert!(
            diagnostics.contains(place) && diagnostics.contains("error") && diagnostics.contains(said),
            "{text}: {diagnostics}"
        );
        assert!(block.tls.is_none(), "{text}");
    }
}

#[test]
fn what_is_not_heeded_is_told() {
    let (block, diagnostics) = read("tls /tls/tls.crt /tls/tls.key {\n keylog /tmp/keys\n}");
    assert!(
        block.tls.is_some() && diagnostics.contains("Corefile:3:2: warning: keylog is not heeded"),
        "{diagnostics}"
    );
    let (block, diagnostics) = read("tls /tls/tls.crt /tls/tls.key {\n client_auth require_and_verify\n}");
    assert!(
        block.tls.is_some() && diagnostics.contains("warning: this machine has no certificates of authorities"),
        "{diagnostics}"
    );
}
