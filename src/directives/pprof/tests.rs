use super::{Pprof, Profile, parameter, parse};
use crate::chain::testing::{build, configure, process, shared_answer};
use crate::chain::{Endpoint, HttpAnswers};
use prost::Message;
use std::any::Any;
use std::collections::HashMap;
use std::io::Read;

/// A profile as whoever reads it gets it.
pub(super) fn decode(octets: &[u8]) -> Profile {
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(octets).read_to_end(&mut message).expect("it is gzip");
    Profile::decode(&message[..]).expect("it is a profile")
}

/// The innermost function of each sample, and its values.
pub(super) fn named_values(profile: &Profile) -> Vec<(String, Vec<i64>)> {
    let locations: HashMap<u64, _> = profile.location.iter().map(|location| (location.id, location)).collect();
    let functions: HashMap<u64, _> = profile.function.iter().map(|function| (function.id, function)).collect();
    let innermost = |stack: &[u64]| {
        let function = functions[&locations[&stack[0]].line[0].function_id];
        profile.string_table[function.name as usize].clone()
    };
    profile.sample.iter().map(|sample| (innermost(&sample.location_id), sample.value.clone())).collect()
}

/// The address, and what is said of the directive.
fn configured(lines: &str) -> (Option<String>, String) {
    let (block, said) = configure(parse, lines);
    let address = block.parts.first().map(|part| {
        let pprof = <dyn Any>::downcast_ref::<Pprof>(&*part.configured).expect("a Pprof part");
        pprof.address.to_string()
    });
    (address, said)
}

#[test]
fn the_address_is_loopback_unless_written() {
    for (lines, address) in [
        ("pprof", "127.0.0.1:6053"),
        ("pprof {\n}", "127.0.0.1:6053"),
        ("pprof localhost:6060", "127.0.0.1:6060"),
        ("pprof [::1]:6060", "[::1]:6060"),
        ("pprof 127.0.0.1:9156", "127.0.0.1:9156"),
    ] {
        assert_eq!(configured(lines), (Some(address.to_owned()), String::new()), "{lines}");
    }
}

#[test]
fn an_address_that_others_reach_is_taken_with_a_warning() {
    for (lines, address) in [("pprof :6060", "[::]:6060"), ("pprof 10.9.8.7:6060", "10.9.8.7:6060")] {
        let (found, said) = configured(lines);
        assert_eq!(found.as_deref(), Some(address));
        assert!(said.contains("warning") && said.contains("localhost:6053") && said.contains("Corefile:2:7"), "{said}");
    }
}

#[test]
fn block_is_taken_and_told_to_have_no_effect() {
    for lines in ["pprof {\n block\n}", "pprof {\n block 20\n}", "pprof localhost:6060 {\n block -1\n}"] {
        let (address, said) = configured(lines);
        assert!(address.is_some() && said.contains("warning") && said.contains("no effect"), "{lines}: {said}");
    }
}

#[test]
fn what_the_reference_refuses_is_refused() {
    for lines in [
        "pprof :1234 -1",
        "pprof /foo",
        "pprof {\n a b\n}",
        "pprof {\n block 20 30\n}",
        "pprof {\n block invalid\n}",
        "pprof {\n unknown_property\n}",
    ] {
        let (_, said) = configured(lines);
        assert!(said.contains("error"), "{lines}: {said}");
    }
}

#[test]
fn all_paths_stand_at_the_address() {
    let (block, _) = configure(parse, "pprof");
    let endpoints = build(&block, &process()).endpoints;
    let paths: Vec<_> = endpoints.iter().map(|endpoint| endpoint.path).collect();
    let expected =
        ["/debug/pprof", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/profile", "/debug/pprof/heap"];
    assert_eq!(paths, expected);
    let index = String::from_utf8(shared_answer(&endpoints[1]).body).unwrap();
    for path in &expected[2..] {
        assert!(index.contains(path), "{path} in {index}");
    }
    let arguments = std::env::args().collect::<Vec<_>>().join("\0");
    assert_eq!(shared_answer(&endpoints[2]).body, arguments.into_bytes());
}

#[tokio::test]
async fn a_profile_that_would_take_too_long_is_refused_before_it_begins() {
    let (block, _) = configure(parse, "pprof");
    let endpoints = build(&block, &process()).endpoints;
    let Some(Endpoint { answers: HttpAnswers::ForEach(answer), .. }) =
        endpoints.iter().find(|endpoint| endpoint.path == "/debug/pprof/profile")
    else {
        panic!("an answer for each request");
    };
    assert_eq!(answer("seconds=61").await.status, 400);
}

#[test]
fn a_parameter_is_found_by_its_whole_name() {
    assert_eq!(parameter("seconds=5", "seconds").as_deref(), Some("5"));
    assert_eq!(parameter("a=1&seconds=5&seconds=6", "seconds").as_deref(), Some("5"));
    assert_eq!(parameter("debug", "debug").as_deref(), Some(""));
    for query in ["", "second=5", "xseconds=5", "a=seconds=5"] {
        assert_eq!(parameter(query, "seconds"), None, "{query}");
    }
}
