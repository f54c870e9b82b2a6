//! A Corefile's text to a plan, and messages through it.

mod clients;
mod explain;
mod explain_cases;
mod records;
mod taps;
mod views;

use super::{Dispatch, Listener, Plan, PlanConfig, configure};
use crate::chain::testing::{Nowhere, process};
use crate::chain::{
    After, Answer, BatchClock, Course, Exchange, Explanation, Failure, FastPath, FastRest, Following, Handler,
    HitCounter, Loaders, Next, Observer, Outcome, PacketHits, Peer, ProcessContext, Purpose, Received, Request,
    Transport,
};
use crate::corefile;
use crate::message::{Name, Query, Rcode, RecordType, Response};
use crate::plan::probe::ProbePath;
use crate::plan::zones::ZoneTable;
use crate::plan::{Block, PacketCache, ZoneBinding};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// The diagnostics of a Corefile.
fn refusal(text: &str) -> String {
    let (tree, mut diagnostics) = corefile::parse(Path::new("Corefile"), text, &Nowhere);
    let (_, more) = configure(&tree, 53, Loaders { files: &Nowhere, interfaces: &Nowhere });
    diagnostics.extend(more);
    diagnostics.retain(|diagnostic| diagnostic.severity != corefile::Severity::Portability);
    diagnostics.render(&tree.sources)
}

/// A configuration that has no error.
fn config(text: &str) -> PlanConfig {
    let (tree, diagnostics) = corefile::parse(Path::new("Corefile"), text, &Nowhere);
    let (config, more) = configure(&tree, 53, Loaders { files: &Nowhere, interfaces: &Nowhere });
    assert!(!diagnostics.has_errors() && !more.has_errors(), "{}", refusal(text));
    config
}

fn plan(text: &str, process: &ProcessContext) -> Plan {
    assert_eq!(refusal(text), "");
    let (tree, _) = corefile::parse(Path::new("Corefile"), text, &Nowhere);
    let (config, _) = configure(&tree, 53, Loaders { files: &Nowhere, interfaces: &Nowhere });
    config.build(process).unwrap()
}

/// A listener whose root zone has one handler.
fn listener(
    number: u64,
    handler: Arc<dyn Handler>,
    observers: Vec<Arc<dyn Observer>>,
    process: &ProcessContext,
) -> Arc<Listener> {
    listener_of(number, Box::new([handler]), observers, process)
}

/// A listener whose root zone has these handlers.
fn listener_of(
    number: u64,
    handlers: Box<[Arc<dyn Handler>]>,
    observers: Vec<Arc<dyn Observer>>,
    process: &ProcessContext,
) -> Arc<Listener> {
    let block = Arc::new(Block { observers: observers.into(), ..Block::of(handlers) });
    let mut zones = ZoneTable::default();
    zones.insert(&Name::root(), ZoneBinding { block, server: 0, zone: 0, place: None });
    Arc::new(Listener {
        number,
        clients: None,
        address: ([127, 0, 0, 1], 53).into(),
        protocol: super::ClientProtocol::Plain,
        timeouts: crate::chain::Timeouts::default(),
        zones,
        files: Arc::new([]),
        any_class: false,
        unmatched: Box::new([]),
        panics: process.panics.clone(),
        stats: process.query_stats.clone(),
        taps: process.query_taps.clone(),
        generation: None,
    })
}

fn peer() -> Peer {
    Peer { client: ([10, 0, 0, 1], 4000).into(), local: ([127, 0, 0, 1], 53).into(), transport: Transport::Udp }
}

/// The reply to a question, over both paths.
async fn ask(listener: &Arc<Listener>, wire: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (peer, clock) = (peer(), BatchClock::start(Instant::now()));
    match listener.dispatch(Received { wire, peer: &peer, clock: &clock }, &mut PacketCache::default(), &mut out) {
        Dispatch::Reply | Dispatch::PacketHit(_) | Dispatch::ReplyAndRefresh(_) | Dispatch::Silence => {}
        Dispatch::Pending(pending) => pending.run(&mut out).await,
    }
    out
}

fn question(name: &str) -> Vec<u8> {
    Query::compose(7, Name::parse(name).unwrap().as_wire(), RecordType::A, true)
}

fn rcode(reply: &[u8]) -> u16 {
    u16::from(reply[3] & 0x0f)
}

#[test]
fn a_directive_the_reference_has_and_we_do_not_is_refused_with_those_words() {
    let said = refusal(".:53 {\n  kubernetes cluster.local\n}\n");
    assert!(
        said.starts_with("Corefile:2:3: error: CoreDNS has the directive `kubernetes`, nodelocaldns does not yet"),
        "{said}"
    );
}

#[test]
fn a_directive_of_authoritative_servers_is_refused_with_what_to_do_instead() {
    for word in [
        "file",
        "auto",
        "secondary",
        "etcd",
        "route53",
        "azure",
        "clouddns",
        "nomad",
        "erratic",
        "transfer",
        "sign",
        "dnssec",
        "tsig",
        "geoip",
    ] {
        let said = refusal(&format!(".:53 {{\n  {word}\n}}\n"));
        assert!(said.contains(&format!("CoreDNS has the directive `{word}`, nodelocaldns does not\n")), "{said}");
        assert!(said.contains("forward example.org 192.0.2.53"), "{said}");
    }
    assert!(refusal(".:53 {\n  grpc . 192.0.2.1\n}\n").contains("write `forward ZONE ADDRESS...`"));
}

#[test]
fn a_misspelt_directive_names_its_nearest_neighbour() {
    let said = refusal(".:53 {\n  forwrad . 192.0.2.1\n}\n");
    assert!(said.contains("unknown directive `forwrad`") && said.contains("did you mean `forward`?"), "{said}");
}

/// A query with an OPT record that has these options.
fn question_with(name: &str, options: &[u8]) -> Vec<u8> {
    let mut wire = question(name);
    wire[11] = 1;
    wire.extend([&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, options.len() as u8], options].concat());
    wire
}

#[tokio::test]
async fn who_asks_for_the_servers_name_is_told_whoever_answers_and_nobody_else() {
    let process = process();
    let plan = plan(
        ".:53 {\n bind 127.0.0.1\n nsid node-7\n local\n whoami\n}\nexample:53 {\n bind 127.0.0.1\n whoami\n}\n",
        &process,
    );
    let listener = &plan.listeners[0];
    const ASKED: &[u8] = &[0, 3, 0, 0];
    const NAME: &[u8] = b"\0\x0a\0\x03\0\x06node-7";
    // `local` answers on the fast path, `whoami` on the slow one.
    for name in ["localhost.", "a.test."] {
        assert!(ask(listener, &question_with(name, ASKED)).await.ends_with(NAME), "{name}");
        let others = [&[0, 10, 0, 2, 7, 7][..], ASKED, &[0, 8, 0, 0]].concat();
        assert!(ask(listener, &question_with(name, &others)).await.ends_with(NAME), "{name} among others");
        for without in [question_with(name, &[]), question_with(name, &[0, 10, 0, 2, 7, 7]), question(name)] {
            assert!(!ask(listener, &without).await.windows(6).any(|octets| octets == b"node-7"), "{name}");
        }
    }
    assert!(!ask(listener, &question_with("a.example.", ASKED)).await.windows(6).any(|octets| octets == b"node-7"));
}

#[test]
fn a_directive_may_stand_once_in_a_block_unless_it_repeats() {
    let said = refusal(".:53 {\n  cache\n  whoami\n  cache 30\n}\n");
    assert!(said.starts_with("Corefile:4:3: error: `cache` stands twice") && said.contains("line 2"), "{said}");
    assert_eq!(refusal(".:53 {\n  forward a. 192.0.2.1\n  forward . 192.0.2.2\n}\n"), "");
}

#[test]
fn of_a_directive_that_stands_there_again_the_first_or_the_last_counts_as_in_the_reference() {
    let reload = config(".:53 {\n  reload 5s 0s\n  reload nonsense\n  whoami\n}\n");
    assert_eq!(reload.blocks[0].config.reload.map(|reload| reload.interval.as_secs()), Some(5));
    let bufsize = config(".:53 {\n  bufsize 600\n  bufsize 700\n  whoami\n}\n");
    assert_eq!(bufsize.blocks[0].config.udp_cap, Some(600));
    let timeouts = config(".:53 {\n  timeouts {\n   read 1s\n   idle 7s\n  }\n  timeouts {\n   read 2s\n  }\n}\n");
    let timeouts = timeouts.blocks[0].config.timeouts;
    assert_eq!((timeouts.read.as_secs(), timeouts.idle.as_secs()), (2, 7));
    let said = refusal(".:53 {\n  reload\n  reload\n  debug\n  debug\n}\n");
    assert!(
        said.contains("Corefile:3:3: warning: `reload` stands twice in one server block: this one is ignored"),
        "{said}"
    );
    assert!(said.contains("Corefile:5:3: warning: `debug` stands twice") && said.contains("this one counts"), "{said}");
}

#[test]
fn the_folder_of_relative_paths_is_among_what_answers_depend_on() {
    let sources = |folder: &str, size: u16| {
        let text = format!(".:53 {{\n  root {folder}\n  bufsize {size}\n  hosts names\n}}\n");
        config(&text).blocks[0].answer_sources.clone()
    };
    assert_ne!(sources("/a", 1000), sources("/b", 1000));
    assert_eq!(sources("/a", 1000), sources("/a", 1232));
}

#[test]
fn a_block_without_a_key_serves_nothing_and_its_options_are_not_looked_at() {
    assert!(config("{\n whoami x\n}\n").serves_nothing());
    assert!(refusal("{\n whomai\n}\n").contains("did you mean `whoami`?"));
}

#[test]
fn directives_beyond_the_references_build_are_told_to_who_asks() {
    let (tree, _) = corefile::parse(Path::new("Corefile"), ".:53 {\n  ready\n  cache\n  local\n}\n", &Nowhere);
    let (_, diagnostics) = configure(&tree, 53, Loaders { files: &Nowhere, interfaces: &Nowhere });
    let lines: Vec<u32> = diagnostics.iter().filter_map(|diagnostic| Some(diagnostic.span?.line)).collect();
    assert!(!diagnostics.has_errors() && lines == [2, 4], "{diagnostics:?}");
}

#[test]
fn errors_of_all_blocks_are_told_at_once() {
    let said = refusal(".:53 {\n  cahce\n}\nexample:53 {\n  forward .\n  bufsize 1\n}\n");
    for expected in ["Corefile:2:3: ", "Corefile:5:", "Corefile:6:"] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
}

#[test]
fn a_zone_served_twice_on_an_address_is_refused() {
    let twice = |first: &str, second: &str| {
        refusal(&format!("a:53 {{\n{first}\n whoami\n}}\na:53 {{\n{second}\n whoami\n}}\n"))
    };
    for (first, second) in
        [("", ""), ("bind 127.0.0.1", "bind 127.0.0.1"), ("", "bind 127.0.0.1"), ("bind 127.0.0.1", "")]
    {
        let said = twice(first, second);
        assert!(
            said.contains("zone `a.` is already served") && said.contains("line 1 has it"),
            "{first}/{second}: {said}"
        );
    }
    assert_eq!(twice("bind 127.0.0.1", "bind 127.0.0.2"), "");
    assert_eq!(twice("bind 127.0.0.1", "bind ::1"), "");
}

#[test]
fn a_scheme_that_is_not_served_is_refused_with_what_to_do_instead() {
    for (scheme, instead) in
        [("quic", "`tls://`"), ("https3", "`https://`"), ("grpc", "`tls://`"), ("unix", "`dns://`")]
    {
        let said = refusal(&format!("{scheme}://.:853 {{\n  whoami\n}}\n"));
        let place = "Corefile:1:1: error: ";
        assert!(said.contains(&format!("{place}`{scheme}://` is not served")) && said.contains(instead), "{said}");
    }
}

#[test]
fn tls_and_https_have_ports_of_their_own_and_the_labels_of_the_reference() {
    let process = process();
    let config = config("tls://. https://. . {\n bind 127.0.0.1\n prometheus\n whoami\n}\n");
    let plan = config.build(&process).unwrap();
    let expected = [". on 127.0.0.1:853 (TCP)", ". on 127.0.0.1:443 (HTTP)", ". on 127.0.0.1:53 (UDP and TCP)"];
    assert_eq!(plan.summary, expected);
    let servers: BTreeSet<&str> = plan.enabled.iter().map(|enabled| enabled.server.as_str()).collect();
    let expected = ["dns://127.0.0.1:53", "https://127.0.0.1:443", "tls://127.0.0.1:853"];
    assert_eq!(servers, expected.into());
}

#[test]
fn one_address_is_served_in_one_way() {
    let said = refusal("tls://a:853 {\n whoami\n}\nb:853 {\n whoami\n}\n");
    assert!(said.contains("Corefile:4:1: error: [::]:853 is served with `tls://` already"), "{said}");
    let said = refusal("tls://a:853 b:853 {\n whoami\n}\n");
    assert!(said.contains("so it cannot be with `dns://`") && said.contains("line 1 has the other"), "{said}");
    let apart = "tls://a:853 {\n bind 127.0.0.1\n whoami\n}\nb:853 {\n bind 127.0.0.2\n whoami\n}\n";
    assert!(!refusal(apart).contains("error"));
}

#[test]
fn what_only_encrypted_listeners_heed_is_told_elsewhere_and_its_lack_there() {
    let said = refusal("tls://. {\n whoami\n}\n");
    assert!(said.contains("Corefile:1:1: warning: there is no `tls`") && said.contains("DNS over TCP"), "{said}");
    let said = refusal("https://. {\n whoami\n}\n");
    assert!(said.contains("Corefile:1:1: warning: there is no `tls`") && said.contains("DNS over HTTP"), "{said}");
    let said = refusal("tls://. {\n https {\n max_connections 1\n }\n tls a b\n whoami\n}\n");
    assert!(said.contains("Corefile:2:2: warning: https is not heeded"), "{said}");
    assert!(!said.contains("there is no `tls`"), "one that cannot be read is there: {said}");
}

#[test]
fn listeners_are_the_blocks_addresses_and_ports_each_once() {
    let process = process();
    let plan = plan("a b:54 {\n bind 127.0.0.1 127.0.0.2\n whoami\n}\nc {\n whoami\n}\n", &process);
    let addresses: Vec<String> = plan.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:53", "127.0.0.1:54", "127.0.0.2:53", "127.0.0.2:54", "[::]:53"]);
    let lines = ["a. on 127.0.0.1:53", "a. on 127.0.0.2:53", "b. on 127.0.0.1:54", "b. on 127.0.0.2:54", "c. on :53"]
        .map(|line| format!("{line} (UDP and TCP)"));
    assert_eq!(plan.summary, lines);
}

#[test]
fn every_directive_that_stands_in_the_references_chain_counts_as_enabled() {
    let text = ".:53 {\n bind 127.0.0.1\n debug\n whoami\n bufsize\n log\n metadata\n prometheus\n reload\n}\n";
    let mut keywords: Vec<&str> = plan(text, &process()).enabled.iter().map(|enabled| enabled.keyword).collect();
    keywords.sort_unstable();
    assert_eq!(keywords, ["bufsize", "log", "metadata", "prometheus", "whoami"]);
}

#[tokio::test]
async fn a_name_without_a_block_is_refused_and_counted_as_dropped() {
    let process = process();
    let plan = plan("example:53 {\n bind 127.0.0.1\n prometheus\n whoami\n}\n", &process);
    let listener = &plan.listeners[0];
    assert_eq!(rcode(&ask(listener, &question("a.example.")).await), 0);
    assert_eq!(rcode(&ask(listener, &question("other.test.")).await), Rcode::REFUSED.0);
    let text = process.registry.encode();
    assert!(text.contains(r#"rcode="REFUSED",server="dns://127.0.0.1:53",view="",zone="dropped"} 1"#), "{text}");
}

#[tokio::test]
async fn a_class_other_than_in_is_refused_unless_a_forward_could_know_it() {
    let mut chaos = question("version.bind.");
    let last = chaos.len() - 1;
    chaos[last] = 3;
    let process = process();
    let plan = plan(
        ".:53 {\n bind 127.0.0.1\n whoami\n}\n.:54 {\n bind 127.0.0.1\n whoami\n forward x. 192.0.2.1\n}\n",
        &process,
    );
    assert_eq!(rcode(&ask(&plan.listeners[0], &chaos).await), Rcode::REFUSED.0);
    // Not the forward's zone, so whoami answers, as in the reference.
    assert_eq!(rcode(&ask(&plan.listeners[1], &chaos).await), Rcode::NOERROR.0);
}

#[tokio::test]
async fn a_probe_is_answered_with_the_generation_before_any_zone() {
    for path in [ProbePath::Fast, ProbePath::Slow] {
        let probe_of = |generation| async move {
            let process = ProcessContext { generation, ..process() };
            let plan = plan("example:53 {\n bind 127.0.0.1\n whoami\n}\n", &process);
            ask(&plan.listeners[0], &super::probe::question(77, path)).await
        };
        assert_eq!(super::probe::read_answer(77, path, &probe_of(Some(u64::MAX)).await), Some(u64::MAX));
        assert_eq!(super::probe::read_answer(78, path, &probe_of(Some(5)).await), None, "another message's ID");
        let unguarded = probe_of(None).await;
        assert_eq!((rcode(&unguarded), super::probe::read_answer(77, path, &unguarded)), (Rcode::REFUSED.0, None));
    }
}

#[tokio::test]
async fn a_probe_of_the_slow_path_takes_it_and_is_answered_though_no_place_is_left() {
    let process = ProcessContext { generation: Some(9), ..process() };
    let plan = plan("example:53 {\n bind 127.0.0.1\n whoami\n}\n", &process);
    let wire = super::probe::question(7, ProbePath::Slow);
    let clock = BatchClock::start(Instant::now());
    let received = Received { wire: &wire, peer: &peer(), clock: &clock };
    let mut reply = Vec::new();
    let dispatch = plan.listeners[0].dispatch(received, &mut PacketCache::default(), &mut reply);
    let Dispatch::Pending(pending) = dispatch else { panic!("it takes the fast path") };
    pending.refuse(&mut reply);
    assert_eq!(super::probe::read_answer(7, ProbePath::Slow, &reply), Some(9));
}

#[tokio::test]
async fn what_is_no_query_gets_silence_or_formerr() {
    let process = process();
    let plan = plan(".:53 {\n bind 127.0.0.1\n whoami\n}\n", &process);
    let listener = &plan.listeners[0];
    assert_eq!(ask(listener, b"").await, b"");
    let mut response = question("a.");
    response[2] |= 0x80;
    assert_eq!(ask(listener, &response).await, b"");
    let mut two = question("a.");
    two[5] = 2;
    assert_eq!(rcode(&ask(listener, &two).await), Rcode::FORMERR.0);
}

/// Where a query's way ends in a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    FastPath,
    /// Before the handler has made its future.
    Serve,
    Future,
    Observer,
}

struct Faulty(Fault);

impl Handler for Faulty {
    fn keyword(&self) -> &'static str {
        "faulty"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve_fast(&self, _request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        if self.0 == Fault::FastPath {
            reply.extend_from_slice(b"half a reply");
            panic!("as the test asked");
        }
        FastPath::Slow
    }
    fn serve<'a>(&'a self, _request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        match self.0 {
            Fault::Observer => Box::pin(async { Err(Failure::servfail("faulty", "no answer")) }),
            Fault::Future => Box::pin(async { panic!("as the test asked") }),
            Fault::Serve | Fault::FastPath => panic!("as the test asked"),
        }
    }
}

impl Observer for Faulty {
    fn explain(&self, _request: &Request<'_>) -> String {
        "sees it".to_owned()
    }

    fn observe(&self, _exchange: &Exchange<'_>) {
        assert_ne!(self.0, Fault::Observer, "as the test asked");
    }
}

#[derive(Default)]
struct Seen(Mutex<Vec<(Rcode, bool)>>);

impl Observer for Seen {
    fn explain(&self, _request: &Request<'_>) -> String {
        "sees it".to_owned()
    }

    fn observe(&self, exchange: &Exchange<'_>) {
        self.0.lock().push((exchange.rcode, exchange.failure.is_some()));
    }
}

#[tokio::test]
async fn a_panic_costs_its_query_a_servfail_and_is_counted() {
    for fault in [Fault::FastPath, Fault::Serve, Fault::Future, Fault::Observer] {
        let process = process();
        let seen = Arc::new(Seen::default());
        let faulty = Arc::new(Faulty(fault));
        let listener = listener(7, faulty.clone(), vec![seen.clone(), faulty], &process);
        let reply = ask(&listener, &question("a.example.")).await;
        assert_eq!((rcode(&reply), &reply[..2]), (Rcode::SERVFAIL.0, &[0, 7][..]), "{fault:?}");
        assert_eq!((process.panics.value(), reply.len()), (1, question("a.example.").len()), "{fault:?}");
        let expected = if fault == Fault::FastPath { vec![] } else { vec![(Rcode::SERVFAIL, true)] };
        assert_eq!(*seen.0.lock(), expected);
    }
}

/// Answers with how often it was asked, and has hits of the packet cache counted.
#[derive(Default)]
struct Cacheable {
    asked: AtomicU8,
    counted: Arc<Counted>,
}

/// Octets of request and reply of what was counted.
#[derive(Default)]
struct Counted {
    sizes: Mutex<Vec<(usize, usize)>>,
    panics: bool,
}

impl HitCounter for Counted {
    fn count(&self, request: usize, reply: usize, _elapsed: Duration) {
        assert!(!self.panics, "as the test asked");
        self.sizes.lock().push((request, reply));
    }
}

impl Handler for Cacheable {
    fn keyword(&self) -> &'static str {
        "cacheable"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        reply.extend_from_slice(&request.wire[..12]);
        reply.push(asked);
        FastPath::Answered(After::CachePacket { millis: 500, note: 3 })
    }
    fn hit_counter(&self, request: &Request<'_>, note: u32) -> Option<Arc<dyn HitCounter>> {
        assert_eq!((request.query.name.to_string().as_str(), note), ("a.example.", 3));
        Some(self.counted.clone())
    }
    fn serve<'a>(&'a self, _request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        panic!("it is always answered at once")
    }
}

/// Has the packet hits of what it has observed counted, or ignores them.
struct CountsHits(Option<Arc<Counted>>);

impl Observer for CountsHits {
    fn explain(&self, _request: &Request<'_>) -> String {
        "sees it".to_owned()
    }

    fn observe(&self, _exchange: &Exchange<'_>) {}
    fn packet_hits(&self, exchange: &Exchange<'_>) -> PacketHits {
        assert_eq!((exchange.answered_by, exchange.reply.len()), ("cacheable", 13));
        self.0.clone().map_or(PacketHits::Ignore, |counted| PacketHits::Count(counted))
    }
}

/// The replies to queries with these IDs that come at once: ID, and how often the handler had been asked by then.
fn replies(listener: &Arc<Listener>, packets: &mut PacketCache, now: Instant, ids: &[u16]) -> Vec<(u16, u8)> {
    let reply = |id: &u16| {
        let mut out = Vec::new();
        let wire = Query::compose(*id, Name::parse("a.example.").unwrap().as_wire(), RecordType::A, true);
        let (peer, clock) = (peer(), BatchClock::start(now));
        let received = Received { wire: &wire, peer: &peer, clock: &clock };
        match listener.dispatch(received, packets, &mut out) {
            Dispatch::Reply => {}
            Dispatch::PacketHit(hit) => listener.count(hit, received, packets, &out),
            _ => panic!("{id} is not answered at once"),
        }
        (u16::from_be_bytes([out[0], out[1]]), out[12])
    };
    ids.iter().map(reply).collect()
}

#[test]
fn a_cached_packet_is_sent_under_the_requests_id_and_counted_while_it_is_right() {
    let (process, seen, handler) = (process(), Arc::new(Seen::default()), Arc::new(Cacheable::default()));
    let counted = Arc::new(Counted::default());
    let counting = [None, Some(counted.clone())].map(|counted| Arc::new(CountsHits(counted)) as Arc<dyn Observer>);
    let first = listener(1, handler.clone(), counting.into_iter().chain([seen.clone() as _]).collect(), &process);
    let (mut packets, now) = (PacketCache::default(), Instant::now());
    assert_eq!(replies(&first, &mut packets, now, &[10, 11, 12, 13]), [(10, 1), (11, 2), (12, 2), (13, 2)]);
    for counted in [&counted, &handler.counted] {
        assert_eq!(*counted.sizes.lock(), [(question("a.example.").len(), 13); 2]);
    }
    assert_eq!(*seen.0.lock(), [(Rcode::NOERROR, false); 4]);
    let later = now + Duration::from_millis(500);
    assert_eq!(replies(&first, &mut packets, later, &[14, 15, 16]), [(14, 3), (15, 3), (16, 3)]);
    // Another plan has taken over.
    let second = listener(2, Arc::new(Cacheable::default()), vec![], &process);
    assert_eq!(replies(&second, &mut packets, later, &[17, 18, 19]), [(17, 1), (18, 2), (19, 2)]);
    assert_eq!(process.panics.value(), 0);
}

#[test]
fn a_panic_while_a_packet_hit_is_counted_costs_no_answer() {
    let counted = Arc::new(Counted { panics: true, ..Counted::default() });
    let (process, handler) = (process(), Arc::new(Cacheable { counted, ..Cacheable::default() }));
    let listener = listener(1, handler, vec![], &process);
    let (mut packets, now) = (PacketCache::default(), Instant::now());
    replies(&listener, &mut packets, now, &[10, 11]);
    assert_eq!(replies(&listener, &mut packets, now, &[12]), [(12, 2)]);
    assert_eq!(process.panics.value(), 1);
}

/// How so many of the same question, all received at one time, are answered, and the replies.
async fn dispatched(listener: &Arc<Listener>, wire: &[u8], times: usize) -> Vec<(&'static str, Vec<u8>)> {
    let (peer, clock, mut packets) = (peer(), BatchClock::start(Instant::now()), PacketCache::default());
    let mut all = Vec::new();
    for _ in 0..times {
        let mut out = Vec::new();
        let how = match listener.dispatch(Received { wire, peer: &peer, clock: &clock }, &mut packets, &mut out) {
            Dispatch::Reply => "fast",
            Dispatch::PacketHit(_) => "packet",
            Dispatch::Pending(pending) => {
                pending.run(&mut out).await;
                "slow"
            }
            Dispatch::ReplyAndRefresh(_) | Dispatch::Silence => "other",
        };
        all.push((how, out));
    }
    all
}

#[tokio::test]
async fn every_reply_is_put_into_order_those_of_the_packet_cache_included() {
    let block = " hosts {\n  192.0.2.1 a.test\n  192.0.2.2 a.test\n  192.0.2.3 a.test\n }\n";
    let plan = plan(&format!("a.test:53 {{\n loadbalance\n{block}}}\ntest:53 {{\n{block}}}\n"), &process());
    let orders = |replies: &[(&str, Vec<u8>)]| {
        let last = |reply: &Vec<u8>| [33, 17, 1].map(|from_end| reply[reply.len() - from_end]);
        replies.iter().filter(|(how, _)| *how == "packet").map(|(_, reply)| last(reply)).collect::<BTreeSet<_>>()
    };
    let arranged = dispatched(&plan.listeners[0], &question("a.test."), 300).await;
    assert!(arranged.iter().filter(|(how, _)| *how == "packet").count() > 290);
    assert_eq!(orders(&arranged).len(), 6);
    let mut upper = question("a.test.");
    upper[13] = b'A';
    assert_eq!(orders(&dispatched(&plan.listeners[0], &upper, 300).await).len(), 6);
}

#[tokio::test]
async fn a_reply_that_dns64_makes_is_as_fast_as_one_that_it_hands_on() {
    let text = ".:53 {\n dns64 {\n  allow_ipv4\n }\n hosts {\n  192.0.2.1 four.test\n  2001:db8::6 six.test\n }\n}\n";
    let plan = plan(text, &process());
    let aaaa = |name: &str| Query::compose(7, Name::parse(name).unwrap().as_wire(), RecordType::AAAA, true);
    let ways = |replies: Vec<(&'static str, Vec<u8>)>| {
        replies.into_iter().map(|(how, reply)| (how, reply[reply.len() - 16..].to_vec())).collect::<Vec<_>>()
    };
    let six = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x06".to_vec();
    let expected = ["fast", "fast", "packet", "packet"].map(|how| (how, six.clone()));
    assert_eq!(ways(dispatched(&plan.listeners[0], &aaaa("six.test."), 4).await), expected);
    let translated = b"\0\x64\xff\x9b\0\0\0\0\0\0\0\0\xc0\0\x02\x01".to_vec();
    let expected = ["fast", "fast", "packet", "packet"].map(|how| (how, translated.clone()));
    assert_eq!(ways(dispatched(&plan.listeners[0], &aaaa("four.test."), 4).await), expected);
    let four = dispatched(&plan.listeners[0], &question("four.test."), 3).await;
    assert_eq!(four.iter().map(|(how, _)| *how).collect::<Vec<_>>(), ["fast", "fast", "packet"]);
}

/// Takes no reply of the handlers behind it.
struct Rejects;

impl Handler for Rejects {
    fn keyword(&self) -> &'static str {
        "rejects"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve_fast(&self, _request: &Request<'_>, _reply: &mut Vec<u8>) -> FastPath {
        FastPath::Through
    }
    fn serve_fast_through(&self, request: &Request<'_>, rest: FastRest<'_>, reply: &mut Vec<u8>) -> (FastPath, usize) {
        let (said, place) = rest.run(request, reply);
        assert_eq!(said, FastPath::Answered(After::Refresh));
        reply.clear();
        (FastPath::SlowAndRefresh, place)
    }
    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        next.run(request)
    }
}

/// Has a stale answer, and notes what it is asked for.
#[derive(Default)]
struct StaleHandler(Mutex<Vec<Purpose>>);

impl Handler for StaleHandler {
    fn keyword(&self) -> &'static str {
        "stale"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve_fast(&self, _request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        reply.extend_from_slice(b"stale");
        FastPath::Answered(After::Refresh)
    }
    fn serve<'a>(&'a self, request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        self.0.lock().push(request.purpose);
        let response = Response::empty(request.query, request.wire, Rcode::NOERROR);
        Box::pin(async move { Ok(Answer { response, from: "stale" }) })
    }
}

#[tokio::test]
async fn a_stale_reply_that_is_not_taken_is_refreshed_all_the_same() {
    let process = process();
    let stale = Arc::new(StaleHandler::default());
    let listener = listener_of(1, Box::new([Arc::new(Rejects), stale.clone()]), vec![], &process);
    let reply = ask(&listener, &question("a.example.")).await;
    assert_eq!((rcode(&reply), reply.len()), (0, 27), "nothing is left of what was not taken");
    while stale.0.lock().len() < 2 {
        tokio::task::yield_now().await;
    }
    let mut purposes = stale.0.lock().clone();
    purposes.sort_by_key(|purpose| *purpose == Purpose::Refresh);
    assert_eq!(purposes, [Purpose::Answer, Purpose::Refresh]);
}
