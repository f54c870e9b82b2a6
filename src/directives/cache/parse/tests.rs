use super::*;
use crate::corefile::{Loader, parse};
use std::io;
use std::path::{Path, PathBuf};

/// No files and no environment.
struct Nothing;

impl Loader for Nothing {
    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn glob(&self, _pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
    fn environment(&self, _name: &str) -> Option<String> {
        None
    }
}

/// The configuration, and what is said of it.
fn read_text(lines: &str) -> (Option<Config>, String) {
    let text = format!(". {{\n{lines}\n}}\n");
    let (corefile, mut diagnostics) = parse(Path::new("Corefile"), &text, &Nothing);
    let directive = corefile.blocks.first().and_then(|block| block.directives.first()).expect("a directive");
    let config = read(directive, &mut diagnostics);
    (config, diagnostics.render(&corefile.sources))
}

fn good(lines: &str) -> Config {
    let (config, said) = read_text(lines);
    assert_eq!(said, "");
    config.expect("it caches")
}

fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().map(|text| Name::parse(text).expect("a name")).collect()
}

#[test]
fn the_defaults_are_the_references() {
    let config = good("cache");
    assert_eq!(config, Config::default());
    assert_eq!(config.capacity, [9984, 9984]);
    assert_eq!((config.lifetimes.success.longest, config.lifetimes.success.shortest), (3600, 5));
    assert_eq!((config.lifetimes.denial.longest, config.lifetimes.denial.shortest), (1800, 5));
    assert_eq!(config.lifetimes.server_error, 5);
}

#[test]
fn a_number_is_the_ttl_and_the_rest_are_zones() {
    let config = good("cache 30 Example.org 10.0.0.0/8");
    assert_eq!((config.lifetimes.success.longest, config.lifetimes.denial.longest), (30, 30));
    assert_eq!(config.zones, names(&["example.org.", "10.in-addr.arpa."]));
    assert_eq!(good("cache example.org").zones, names(&["example.org."]));
}

#[test]
fn success_and_denial_have_their_own_capacity_and_bounds() {
    let config = good("cache 30 {\n success 1 60\n denial 2500 7 1\n}");
    assert_eq!(config.capacity, [1, 2500]);
    assert_eq!((config.lifetimes.success.longest, config.lifetimes.success.shortest), (60, 5));
    assert_eq!((config.lifetimes.denial.longest, config.lifetimes.denial.shortest), (7, 1));
    assert_eq!(good("cache {\n success 10 20 0\n}").lifetimes.success.shortest, 0);
    assert_eq!(good("cache 30 {\n success 10\n}").lifetimes.success.longest, 30);
}

#[test]
fn prefetch_has_a_minute_and_ten_percent_unless_told() {
    let prefetch =
        |amount, seconds, percentage| Some(Prefetch { amount, gap: Duration::from_secs(seconds), percentage });
    assert_eq!(good("cache {\n prefetch 10\n}").prefetch, prefetch(10, 60, 10));
    assert_eq!(good("cache {\n prefetch 10 1h 25%\n}").prefetch, prefetch(10, 3600, 25));
    assert_eq!(good("cache {\n prefetch 0\n}").prefetch, None);
}

#[test]
fn serve_stale_takes_what_the_newest_coredns_takes() {
    let stale = |up_to, mode, response_ttl, recheck| {
        let failure_recheck = Duration::from_secs(recheck);
        Some(Stale { up_to, mode, response_ttl, failure_recheck, prefer_positive: false })
    };
    let verify = |millis: Option<u64>| StaleMode::Verify { timeout: millis.map(Duration::from_millis) };
    for (line, expected) in [
        ("serve_stale", stale(3600, StaleMode::Immediate, 0, 0)),
        ("serve_stale 20m", stale(1200, StaleMode::Immediate, 0, 0)),
        ("serve_stale 0", stale(0, StaleMode::Immediate, 0, 0)),
        ("serve_stale 1h Immediate 30s 10s", stale(3600, StaleMode::Immediate, 30, 10)),
        ("serve_stale 1h verify", stale(3600, verify(None), 0, 0)),
        ("serve_stale 1h VERIFY 100ms", stale(3600, verify(Some(100)), 0, 0)),
        ("serve_stale 1h verify 0 30s 5m", stale(3600, verify(None), 30, 300)),
    ] {
        assert_eq!(good(&format!("cache {{\n {line}\n}}")).stale, expected, "{line}");
    }
    for order in
        ["serve_stale\n serve_stale_policy prefer_positive", "serve_stale_policy Prefer_Positive\n serve_stale"]
    {
        let config = good(&format!("cache {{\n {order}\n}}"));
        assert!(config.stale.is_some_and(|stale| stale.prefer_positive));
    }
}

#[test]
fn servfail_disable_and_keepttl_are_read() {
    assert_eq!(good("cache {\n servfail 0\n}").lifetimes.server_error, 0);
    assert_eq!(good("cache {\n servfail 5m\n}").lifetimes.server_error, 300);
    assert!(good("cache {\n keepttl\n}").keep_ttl);
    assert_eq!(good("cache {\n disable success\n}").disabled, [names(&["."]), vec![]]);
    let config = good("cache {\n disable denial Sub.example.org example.com\n}");
    assert_eq!(config.disabled, [vec![], names(&["sub.example.org.", "example.com."])]);
}

#[test]
fn what_is_wrong_is_said_where_it_stands() {
    for (lines, place, words) in [
        ("cache -5", "2:7", "TTL"),
        ("cache 0", "2:7", "TTL"),
        ("cache 99999999999999999999", "2:7", "TTL"),
        ("cache {\n no_such_option\n}", "3:2", "no_such_option"),
        ("cache {\n sucess 10\n}", "3:2", "success"),
        ("cache {\n success\n}", "3:2", "CAPACITY"),
        ("cache {\n success ten\n}", "3:10", "capacity of success"),
        ("cache {\n success -1\n}", "3:10", "capacity of success"),
        ("cache {\n success 10 0\n}", "3:13", "TTL of success"),
        ("cache {\n denial 10 20 -1\n}", "3:15", "MINTTL of denial"),
        ("cache {\n denial 10 20 5 7\n}", "3:17", "denial CAPACITY [TTL] [MINTTL]"),
        ("cache {\n prefetch\n}", "3:2", "AMOUNT"),
        ("cache {\n prefetch -1\n}", "3:11", "amount"),
        ("cache {\n prefetch 1 1x\n}", "3:13", "prefetch"),
        ("cache {\n prefetch 1 1m 10\n}", "3:16", "`10%`"),
        ("cache {\n prefetch 1 1m 9%\n}", "3:16", "`90%`"),
        ("cache {\n prefetch 1 1m %\n}", "3:16", "percentage"),
        ("cache {\n serve_stale -1s\n}", "3:14", "serve_stale"),
        ("cache {\n serve_stale 1h later\n}", "3:17", "`immediate` or `verify`"),
        ("cache {\n serve_stale 1h immediate 1500ms\n}", "3:27", "whole number"),
        ("cache {\n serve_stale 1h verify 1s 1s 6m\n}", "3:30", "failure recheck"),
        ("cache {\n serve_stale 1h immediate 1s 1s 1s\n}", "3:33", "too many"),
        ("cache {\n serve_stale_policy prefer_positive\n}", "3:2", "serve_stale"),
        ("cache {\n serve_stale\n serve_stale_policy any\n}", "4:21", "prefer_positive"),
        ("cache {\n servfail 6m\n}", "3:11", "servfail"),
        ("cache {\n servfail\n}", "3:2", "servfail DURATION"),
        ("cache {\n disable\n}", "3:2", "disable success|denial"),
        ("cache {\n disable both\n}", "3:10", "`success` or `denial`"),
        ("cache {\n keepttl 5\n}", "3:10", "keepttl"),
    ] {
        let (_, said) = read_text(lines);
        assert!(said.starts_with(&format!("Corefile:{place}: ")), "{lines} at {place}:\n{said}");
        assert!(said.contains(words), "{lines} says {words}:\n{said}");
    }
}

#[test]
fn a_capacity_of_zero_is_a_warning() {
    let (config, said) = read_text("cache {\n denial 0\n}");
    assert_eq!(config.map(|config| config.capacity), Some([9984, 0]));
    assert!(said.contains("disable denial"), "{said}");
}

#[test]
fn several_mistakes_are_said_at_once() {
    let (_, said) = read_text("cache 0 {\n success x\n nothing\n}");
    assert_eq!(said.matches("Corefile:").count(), 3, "{said}");
}

#[test]
fn what_the_reference_does_not_heed_is_a_warning_and_what_it_does_is_done() {
    for (lines, place, expected) in [
        ("cache {\n success -1\n}", "3:10", Config { capacity: [1024, 9984], ..Config::default() }),
        ("cache {\n denial 5000000000\n}", "3:9", Config { capacity: [9984, u32::MAX as usize], ..Config::default() }),
        ("cache {\n success 10 3600 5 7\n}", "3:20", Config { capacity: [10, 9984], ..Config::default() }),
        ("cache a..b example.org", "2:7", Config { zones: names(&["example.org."]), ..Config::default() }),
    ] {
        let (config, said) = read_text(lines);
        assert_eq!(config.as_ref(), Some(&expected), "{lines}");
        assert!(said.starts_with(&format!("Corefile:{place}: warning: ")), "{lines}: {said}");
    }
    let (config, said) = read_text("cache 2147483648 {\n prefetch 1 -1s\n}");
    let config = config.expect("it caches");
    assert_eq!(config.lifetimes.success.longest, i32::MAX as u32);
    assert_eq!(config.prefetch.map(|prefetch| prefetch.gap), Some(Duration::ZERO));
    assert_eq!(said.matches("warning:").count(), 2, "{said}");
}

#[test]
fn a_cache_of_malformed_zones_alone_caches_nothing() {
    let (config, said) = read_text("cache 30 a..b");
    assert_eq!(config, None);
    assert!(said.contains("nothing is cached") && !said.contains("error"), "{said}");
}
