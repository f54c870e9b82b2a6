use super::super::shared::{Address, Mode};
use super::super::{TapConfig, parse};
use crate::chain::testing::{configure, configure_with};
use crate::net::tls::testing::{Authority, Files};
use std::any::Any;

/// What is wrong with a block, and its taps.
fn read(text: &str) -> (Vec<TapConfig>, String) {
    taps(configure(parse, text))
}

fn taps((block, said): (crate::chain::BlockConfig, String)) -> (Vec<TapConfig>, String) {
    let taps = block.parts.into_iter().map(|part| {
        let configured: Box<dyn Any> = part.configured;
        *configured.downcast::<TapConfig>().expect("a tap")
    });
    (taps.collect(), said)
}

#[test]
fn sockets_are_paths_or_hosts_with_a_port() {
    let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
    for (text, address) in [
        ("/tmp/dnstap.sock", Address::Unix("/tmp/dnstap.sock".into())),
        ("unix:///tmp/dnstap.sock", Address::Unix("/tmp/dnstap.sock".into())),
        ("tcp://127.0.0.1:6000", tcp("127.0.0.1", 6000)),
        ("tcp://example.com:6000/", tcp("example.com", 6000)),
        ("tcp://[2001:db8::1]:6000", tcp("2001:db8::1", 6000)),
    ] {
        let (taps, said) = read(&format!("dnstap {text}"));
        assert_eq!(said, "", "{text}");
        assert_eq!((&taps[0].endpoint.address, taps[0].is_full), (&address, false), "{text}");
    }
    for text in ["tcp://127.0.0.1", "tls://:6000", "tcp://a:99999", "tcp://a:0"] {
        let (taps, said) = read(&format!("dnstap {text}"));
        assert!(
            taps.is_empty() && said.contains("Corefile:2:8: warning: ") && said.contains("names no host"),
            "{said}"
        );
    }
    let (taps, said) = read("dnstap listen tcp://:6000 full");
    assert_eq!((said.as_str(), &taps[0].endpoint.address, taps[0].is_full), ("", &tcp("", 6000), true));
}

#[test]
fn the_defaults_are_this_hosts_name_and_this_programs() {
    let (taps, said) = read("dnstap /s");
    assert_eq!(said, "");
    let tap = &taps[0];
    assert_eq!(tap.identity, crate::chain::host_name());
    assert!(tap.version.starts_with("nodelocaldns-"), "{}", tap.version);
    assert!(tap.extra.is_none() && tap.endpoint.queue == 1);
    assert!(matches!(tap.endpoint.mode, Mode::Connect { tls: None, buffer_octets: 1_048_576 }));
}

#[test]
fn every_option_is_read_and_a_block_may_have_several_taps() {
    let text =
        "dnstap /s full 2 3 {\n identity a\n version b\n extra \"{name}: {/forward/upstream}\"\n}\ndnstap tcp://a:1";
    let (taps, said) = read(text);
    assert_eq!((said.as_str(), taps.len()), ("", 2));
    let tap = &taps[0];
    assert_eq!((tap.is_full, tap.identity.as_str(), tap.version.as_str()), (true, "a", "b"));
    assert!(tap.extra.is_some() && tap.endpoint.queue == 3);
    assert!(matches!(tap.endpoint.mode, Mode::Connect { buffer_octets: 2_097_152, .. }));
}

#[test]
fn what_is_wrong_is_told_where_it_stands() {
    for (text, place, message) in [
        ("dnstap", "2:1: error", "needs a socket"),
        ("dnstap listen", "2:1: error", "dnstap listen needs a socket"),
        ("dnstap /s full 0", "2:16: error", "between 1 and 1024"),
        ("dnstap /s full 1025", "2:16: error", "between 1 and 1024"),
        ("dnstap /s full 1 4097", "2:18: error", "between 1 and 4096"),
        ("dnstap /s full x", "2:16: error", "not a whole number"),
        ("dnstap /s ful", "2:11: warning", "did you mean `full`?"),
        ("dnstap /s full 1 1 x", "2:20: warning", "ignored"),
        ("dnstap /s {\n identity\n}", "3:2: error", "identity needs a value"),
        ("dnstap /s {\n idenity a\n}", "3:2: error", "did you mean `identity`?"),
        ("dnstap /s {\n extra {nmae}\n}", "3:8: warning", "did you mean `{name}`?"),
        ("dnstap /s {\n skipverify\n}", "3:2: warning", "no TLS"),
        ("dnstap tls://a:1 {\n tls /c /k\n}", "3:2: error", "for `dnstap listen` alone"),
        ("dnstap tls://a:1", "2:1: warning", "no certificates of authorities"),
        ("dnstap listen tls://a:1", "2:15: warning", "needs a certificate"),
        ("dnstap listen tls://a:1 {\n tls /c\n}", "3:2: error", "needs a certificate and its key"),
        ("dnstap listen tls://a:1 {\n tls /c /k\n}", "3:6: error", "/c cannot be read"),
        ("dnstap listen tcp://a:1 full 2", "2:30: warning", "ignored where dnstap listens"),
    ] {
        let (_, said) = read(text);
        assert!(said.contains(&format!("Corefile:{place}: ")) && said.contains(message), "{text}: {said}");
    }
}

#[test]
fn a_listener_for_tls_has_a_certificate_and_may_ask_for_one() {
    let authority = Authority::new("tests");
    let own = authority.sign(&["a"]);
    let files = [("/c", own.certificate.as_str()), ("/k", own.key.as_str()), ("/ca", &authority.pem())]
        .map(|(path, text)| (path.to_owned(), text.to_owned()));
    let files = Files { files: files.into(), ..Files::default() };
    let key = |options: &str| {
        let text = format!("dnstap listen tls://127.0.0.1:6000 {{\n{options}\n}}");
        let (taps, said) = taps(configure_with(&files, parse, &text));
        assert_eq!(said, "", "{options}");
        let Mode::Listen { tls: Some(tls) } = &taps[0].endpoint.mode else { panic!("{options}") };
        tls.key()
    };
    let keys = [key(" tls /c /k"), key(" tls /c /k /ca"), key(" tls /c /k /ca\n skipverify")];
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2], "each is an endpoint of its own");
    let (taps, said) = taps(configure_with(&files, parse, "dnstap tls://127.0.0.1:6000 {\n skipverify\n}"));
    assert!(said.is_empty() && matches!(&taps[0].endpoint.mode, Mode::Connect { tls: Some(_), .. }), "{said}");
}
