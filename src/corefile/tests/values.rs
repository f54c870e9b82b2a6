use super::*;
use crate::corefile::value::*;
use crate::corefile::{Directive, FileId, Span, listen_address};
use std::time::Duration;

const ANY: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

fn token(text: &str) -> Token {
    Token { text: text.to_owned(), span: Span { file: FileId(0), line: 1, column: 1, length: 1 } }
}

/// What a reading gives, or the message it is refused with.
fn read<T>(reading: impl FnOnce(&mut Diagnostics) -> Option<T>) -> Result<T, String> {
    let mut diagnostics = Diagnostics::default();
    let value = reading(&mut diagnostics);
    assert_eq!(value.is_none(), diagnostics.has_errors());
    value.ok_or_else(|| {
        diagnostics
            .iter()
            .map(|diagnostic| format!("{} ({})", diagnostic.message, diagnostic.help.as_deref().unwrap_or("")))
            .collect()
    })
}

fn read_duration(text: &str) -> Result<Duration, String> {
    read(|diagnostics| duration(&token(text), "expire", ANY, diagnostics))
}

#[test]
fn durations_are_read_as_go_does() {
    for (text, nanoseconds) in [
        ("0", 0),
        ("+0", 0),
        ("5s", 5_000_000_000),
        ("1h30m", 5_400_000_000_000),
        ("1.5h", 5_400_000_000_000),
        (".5s", 500_000_000),
        ("5.s", 5_000_000_000),
        ("+5m", 300_000_000_000),
        ("500ms", 500_000_000),
        ("3us", 3_000),
        ("3\u{b5}s", 3_000),
        ("3\u{3bc}s", 3_000),
        ("1s1s", 2_000_000_000),
        ("0.000000001s", 1),
        ("0.00000000000000000000000001h", 0),
        ("2562047h", 9_223_369_200_000_000_000),
    ] {
        assert_eq!(read_duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
    }
}

#[test]
fn what_is_no_duration_is_refused_with_its_text_and_the_reason() {
    for (text, says) in [
        ("", "is not a duration"),
        ("5", "has no unit"),
        ("1h5", "has no unit"),
        ("-1s", "`-1s` is negative"),
        ("5d", "unknown unit `d`"),
        ("s", "is not a duration"),
        (".s", "is not a duration"),
        ("5 s", "unknown unit"),
        ("soon", "is not a duration"),
        ("2562048h", "too long"),
        ("99999999999999999999999999999999999999999999h", "too long"),
        ("1.999999999999999999999999999999999999999999999x", "unknown unit"),
        ("--1s", "is not a duration"),
        ("٣s", "is not a duration"),
    ] {
        let error = read_duration(text).unwrap_err();
        assert!(error.contains(says) && error.contains("expire"), "{text}: {error}");
    }
}

#[test]
fn a_duration_out_of_range_names_the_range_in_units() {
    let range = Duration::from_millis(1)..=Duration::from_secs(5400);
    let error = read(|diagnostics| duration(&token("2h"), "servfail", range.clone(), diagnostics)).unwrap_err();
    assert!(error.contains("`2h` is out of range: servfail must be between 1ms and 1h30m"), "{error}");
    let error =
        read(|diagnostics| duration(&token("1s"), "expire", Duration::from_secs(60)..=Duration::MAX, diagnostics))
            .unwrap_err();
    assert!(error.contains("at least 1m"), "{error}");
}

#[test]
fn bare_numbers_are_seconds_where_that_is_allowed() {
    let read_seconds = |text: &str| read(|diagnostics| seconds_or_duration(&token(text), "idle", ANY, diagnostics));
    assert_eq!(read_seconds("30"), Ok(Duration::from_secs(30)));
    assert_eq!(read_seconds("1m"), Ok(Duration::from_secs(60)));
    assert!(read_seconds("-5").unwrap_err().contains("`-5`"));
    assert!(read_seconds("99999999999999999999999999").unwrap_err().contains("too long"));
}

#[test]
fn numbers_are_read_within_their_range() {
    let read_number = |text: &str| read(|diagnostics| number(&token(text), "the port", 1..=65535, diagnostics));
    assert_eq!(read_number("53"), Ok(53));
    assert_eq!(read_number("+53"), Ok(53));
    for text in ["0", "65536", "-5", "99999999999999999999999999"] {
        let error = read_number(text).unwrap_err();
        assert!(error.contains(&format!("`{text}` is out of range: the port must be between 1 and 65535")), "{error}");
    }
    for text in ["", "x", "5x", "1.5", "+", "-", "٣"] {
        assert!(read_number(text).unwrap_err().contains("is not a whole number"), "{text}");
    }
}

#[test]
fn zones_are_names_or_cidrs_in_lower_case() {
    let read_zones = |text: &str| {
        read(|diagnostics| zones(&token(text), diagnostics))
            .map(|zones| zones.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(read_zones("."), Ok(vec![".".to_owned()]));
    assert_eq!(read_zones("Example.ORG"), Ok(vec!["example.org.".to_owned()]));
    assert_eq!(read_zones("10.4.0.0/15").unwrap().len(), 2);
    assert_eq!(read_zones("dns://a:53"), Ok(vec!["a.".to_owned()]));
    assert!(read_zones("a..b").unwrap_err().contains("`a..b`"));
}

#[test]
fn listen_addresses_have_a_port_and_may_lack_a_host() {
    let read_address = |text: &str| {
        let read = read(|diagnostics| listen_address(&token(text), &Memory::default(), diagnostics));
        read.map(|address| address.address().expect("it is somewhere").to_string())
    };
    for (text, address) in [
        (":9153", "[::]:9153"),
        ("127.0.0.1:9153", "127.0.0.1:9153"),
        ("[::1]:9153", "[::1]:9153"),
        ("localhost:8080", "127.0.0.1:8080"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        (":http", "[::]:80"),
        ("[1.2.3.4]:80", "1.2.3.4:80"),
    ] {
        assert_eq!(read_address(text).as_deref(), Ok(address));
    }
    for (text, says) in [
        ("", "the port is missing"),
        ("127.0.0.1", "the port is missing"),
        ("::1", "needs brackets"),
        ("[::1]", "the port is missing"),
        ("2001:db8:1:1:1:1:1:1:80", "needs brackets"),
        ("a]:80", "bracket"),
    ] {
        let error = read_address(text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
}

/// A listen address, and what is warned of.
fn read_lenient(text: &str, files: &Memory) -> (Option<String>, String) {
    let mut diagnostics = Diagnostics::default();
    let read = listen_address(&token(text), files, &mut diagnostics).expect("it is taken");
    assert!(!diagnostics.has_errors());
    let said = diagnostics.iter().map(|diagnostic| diagnostic.message.clone()).collect();
    (read.address().map(|address| address.to_string()), said)
}

#[test]
fn a_port_that_is_none_serves_nowhere_with_a_warning() {
    for text in [":99999", ":-1", ":+1", ":x", "127.0.0.1:", ":"] {
        let (address, said) = read_lenient(text, &Memory::default());
        assert!(address.is_none() && said.contains("nothing is served"), "{text}: {said}");
    }
}

#[test]
fn a_host_is_looked_up_in_etc_hosts_and_else_stands_for_all_addresses() {
    let hosts =
        "# the node\n::1 localhost node.example\n10.0.0.7\tNode.Example other # node.test\nnonsense node.test\n";
    let files = Memory::with(&[("/etc/hosts", hosts)]);
    assert_eq!(read_lenient("node.example:9253", &files), (Some("10.0.0.7:9253".to_owned()), String::new()));
    for text in ["node.test:80", "*:80", "300.1.1.1:80", "__PILLAR__LOCAL__DNS__:80"] {
        let (address, said) = read_lenient(text, &files);
        assert_eq!(address.as_deref(), Some("[::]:80"), "{text}");
        assert!(said.contains("all addresses are served instead"), "{text}: {said}");
    }
}

#[test]
fn values_beyond_their_range_become_its_bound_with_a_warning_where_that_is_asked_for() {
    let warned = |reading: &dyn Fn(&mut Diagnostics) -> Option<Duration>| {
        let mut diagnostics = Diagnostics::default();
        let value = reading(&mut diagnostics);
        (value.map(|value| value.as_millis()), diagnostics.has_errors(), diagnostics.len())
    };
    let range = Duration::from_millis(1)..=Duration::from_secs(60);
    let nearest = |text: &'static str| warned(&|found| nearest_duration(&token(text), "x", range.clone(), found));
    assert_eq!(nearest("5s"), (Some(5_000), false, 0));
    assert_eq!(nearest("2h"), (Some(60_000), false, 1));
    assert_eq!(nearest("1us"), (Some(1), false, 1));
    assert_eq!(nearest("-1s"), (None, true, 1));
    assert_eq!(nearest("0s"), (None, true, 1));
    assert_eq!(nearest("2"), (None, true, 1));
    let or_zero =
        |text: &'static str| warned(&|found| duration_or_zero(&token(text), "x", Duration::from_secs(60), found));
    assert_eq!(or_zero("-1s"), (Some(0), false, 1));
    assert_eq!(or_zero("2h"), (Some(60_000), false, 1));
    assert_eq!(or_zero("x"), (None, true, 1));
    let number = |text: &str| {
        let mut found = Diagnostics::default();
        (number_at_most(&token(text), "x", 1..=9, &mut found), found.has_errors(), found.len())
    };
    assert_eq!(number("9"), (Some(9), false, 0));
    assert_eq!(number("10"), (Some(9), false, 1));
    assert_eq!(number("0"), (None, true, 1));
    assert_eq!(number("-1"), (None, true, 1));
    assert_eq!(number(&"9".repeat(30)), (None, true, 1));
}

#[test]
fn malformed_zones_of_a_list_are_passed_over_with_a_warning() {
    let mut found = Diagnostics::default();
    assert!(zones_or_none(&token("a..b"), &mut found).is_empty());
    assert_eq!(zones_or_none(&token("10.4.0.0/15"), &mut found).len(), 2);
    assert!(!found.has_errors() && found.len() == 1, "{found:?}");
}

#[test]
fn exactly_as_many_arguments_are_taken_as_asked() {
    let (name, arguments) = (token("x"), [token("a"), token("b")]);
    let [first, second] = read(|diagnostics| exactly::<2>(&name, &arguments, "x A B", diagnostics)).unwrap();
    assert_eq!((first.text.as_str(), second.text.as_str()), ("a", "b"));
    let error = read(|diagnostics| exactly::<1>(&name, &arguments, "x A", diagnostics)).unwrap_err();
    assert_eq!(error, "`x` takes 1 argument, found 2 (write `x A`)");
}

#[test]
fn arguments_blocks_and_unknown_options_are_refused() {
    let option = OptionLine { name: token("max_fial"), arguments: Vec::new(), block: Vec::new() };
    let mut directive = Directive { keyword: token("whoami"), arguments: Vec::new(), options: Vec::new() };
    let messages = |directive: &Directive| {
        let mut diagnostics = Diagnostics::default();
        no_arguments(directive, &mut diagnostics);
        no_options(directive, &mut diagnostics);
        diagnostics.iter().map(|diagnostic| diagnostic.message.clone()).collect::<Vec<_>>()
    };
    assert!(messages(&directive).is_empty());
    directive.arguments.push(token("x"));
    directive.options.push(option.clone());
    assert_eq!(messages(&directive), ["`whoami` takes no argument", "`whoami` takes no block"]);

    let mut diagnostics = Diagnostics::default();
    unknown_option(&option, "forward", &["max_fails", "expire"], &mut diagnostics);
    let diagnostic = diagnostics.iter().next().unwrap();
    assert_eq!(diagnostic.message, "unknown option `max_fial` of `forward`");
    assert_eq!(diagnostic.help.as_deref(), Some("did you mean `max_fails`?"));
}
