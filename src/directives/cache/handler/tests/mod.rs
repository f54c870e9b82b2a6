use super::super::classify::TtlBounds;
use super::super::parse::Config;
use super::super::parse::{Prefetch, Stale, StaleMode};
use super::super::wire::{self, AA, AD, Sections, TC, a, query, record, response, soa};
use super::lookup::note_of;
use super::*;
use crate::chain::{
    After, BuildContext, Chain, Configured, Course, Explanation, Failure, Following, Peer, Request, Transport,
};
use crate::message::{Name, Rcode, TtlRule};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Gives what it is told to, then the last of it for ever.
#[derive(Default)]
struct ScriptedAnswers {
    answers: Mutex<VecDeque<Result<Response, Failure>>>,
    asked: AtomicUsize,
    transport: Mutex<Option<Transport>>,
    /// Held to let it answer; `None`: at once.
    gate: Option<tokio::sync::Semaphore>,
}

impl ScriptedAnswers {
    fn then(&self, answer: Response) {
        self.answers.lock().push_back(Ok(answer));
    }
    fn instead(&self, answer: Result<Response, Failure>) {
        *self.answers.lock() = VecDeque::from([answer]);
    }
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Handler for ScriptedAnswers {
    fn keyword(&self) -> &'static str {
        "upstream"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve<'a>(&'a self, request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            *self.transport.lock() = Some(request.peer.transport);
            if let Some(gate) = &self.gate {
                gate.acquire().await.expect("the gate stays").forget();
            }
            let mut answers = self.answers.lock();
            let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            answer.expect("it was told what to answer").map(|response| Answer { response, from: "upstream" })
        })
    }
}

/// A chain of the directive and an upstream, a clock that goes on when told to, and what the metrics say.
struct Bench {
    process: ProcessContext,
    chain: Arc<Chain>,
    cache: Arc<dyn Handler>,
    upstream: Arc<ScriptedAnswers>,
    start: Instant,
    now_millis: u64,
    /// Its clock stands still: on a machine under load the time a test takes would otherwise count as the upstream's. A
    /// test with a runtime of its own lets that one keep the time.
    stopped_clock: Option<tokio::runtime::Runtime>,
}

const SERVER: &str = "dns://127.0.0.1:53";

fn build(config: &Config, process: &ProcessContext) -> Arc<dyn Handler> {
    let zone = Name::root();
    let servers = [SERVER.to_owned()];
    let context = BuildContext::new(std::slice::from_ref(&zone), &servers, process);
    config.build(&context).expect("it builds").handler.expect("it has a handler")
}

impl Bench {
    fn new(config: &Config) -> Self {
        Self::with_upstream(config, ScriptedAnswers::default())
    }

    fn with_upstream(config: &Config, upstream: ScriptedAnswers) -> Self {
        let process = ProcessContext::new(1, 1 << 20);
        let cache = build(config, &process);
        let upstream = Arc::new(upstream);
        let handlers: [Arc<dyn Handler>; 2] = [cache.clone(), upstream.clone()];
        let chain = Arc::new(Chain { handlers: Box::new(handlers) });
        let stopped_clock = tokio::runtime::Handle::try_current().is_err().then(|| {
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
        });
        Self { process, chain, cache, upstream, start: Instant::now(), now_millis: 0, stopped_clock }
    }

    /// Puts another configuration in the place of the first, as a reload does.
    fn reload(&mut self, config: &Config) {
        self.cache = build(config, &self.process);
        let handlers: [Arc<dyn Handler>; 2] = [self.cache.clone(), self.upstream.clone()];
        self.chain = Arc::new(Chain { handlers: Box::new(handlers) });
    }

    fn wait(&mut self, millis: u64) {
        self.now_millis += millis;
    }

    fn peer() -> Peer {
        let address = "127.0.0.1:53".parse().expect("an address");
        Peer { client: address, local: address, transport: Transport::Udp }
    }

    fn request<'a>(&self, peer: &'a Peer, (wire, query): &'a (Vec<u8>, Query), purpose: Purpose) -> Request<'a> {
        let received = self.start + Duration::from_millis(self.now_millis);
        Request { purpose, ..Request::new(wire, query, peer, received) }
    }

    fn serve_fast(&self, asked: &(Vec<u8>, Query)) -> (FastPath, Vec<u8>) {
        let mut reply = Vec::new();
        let quick = self.cache.serve_fast(&self.request(&Self::peer(), asked, Purpose::Answer), &mut reply);
        (quick, reply)
    }

    fn serve(&self, asked: &(Vec<u8>, Query), purpose: Purpose) -> Outcome {
        let peer = Self::peer();
        let request = self.request(&peer, asked, purpose);
        let running = self.chain.start().run(request);
        match &self.stopped_clock {
            Some(runtime) => runtime.block_on(running),
            None => futures_util::FutureExt::now_or_never(running).expect("the upstream answers at once"),
        }
    }

    /// As the server does: the fast path, then the slow one if that says so, then a refresh if one is due. The reply,
    /// read.
    fn ask(&self, asked: &(Vec<u8>, Query)) -> ReplyFacts {
        let (quick, mut reply) = self.serve_fast(asked);
        if matches!(quick, FastPath::Slow | FastPath::Through) {
            let outcome = self.serve(asked, Purpose::Answer).expect("it is answered");
            let peer = Self::peer();
            let shape = self.request(&peer, asked, Purpose::Answer).reply(TtlRule::Keep);
            outcome.response.write(&asked.1, &asked.0, shape, &mut reply);
        }
        if quick == FastPath::Answered(After::Refresh) {
            let _ = self.serve(asked, Purpose::Refresh);
        }
        ReplyFacts::read(&reply)
    }

    fn metric(&self, line: &str) -> f64 {
        let text = self.process.registry.encode();
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {line} in\n{text}"))
    }

    fn counter(&self, name: &str) -> f64 {
        self.metric(&format!("coredns_cache_{name}{{server=\"{SERVER}\",view=\"\",zones=\".\"}}"))
    }

    /// Stale answers of a cause: how many, and their seconds since they expired in sum.
    fn stale_ages(&self, cause: &str) -> (f64, f64) {
        let series = |of| {
            let labels = format!("cause=\"{cause}\",server=\"{SERVER}\",view=\"\",zones=\".\"");
            self.metric(&format!("nodelocaldns_cache_stale_age_seconds_{of}{{{labels}}}"))
        };
        (series("count"), series("sum"))
    }

    fn of_kind(&self, name: &str, kind: &str) -> f64 {
        self.metric(&format!("{name}{{server=\"{SERVER}\",type=\"{kind}\",view=\"\",zones=\".\"}}"))
    }
}

#[test]
fn what_would_be_answered_is_shown_and_counts_as_a_hit_once_it_is_taken() {
    let mut bench = Bench::new(&Config::default());
    let show = |bench: &Bench, qtype, is_taken| {
        let mut shown = None;
        let after = bench.cache.show_fast(
            &bench.request(&Bench::peer(), &question(), Purpose::Answer),
            RecordType(qtype),
            &mut |response: &Response, ttl| {
                shown = Some((response.answer_count(), ttl));
                is_taken
            },
        );
        (after, shown)
    };
    assert_eq!(show(&bench, wire::A, true), (None, None), "nothing is kept yet");
    bench.upstream.instead(Ok(positive(60, 1)));
    bench.ask(&question());
    bench.wait(10_000);
    assert_eq!(show(&bench, wire::A, false), (None, Some((1, 50))));
    assert_eq!((bench.counter("requests_total"), show(&bench, 28, true)), (1.0, (None, None)), "of another type");
    let packet = After::CachePacket { millis: 999, note: note_of(Kind::Success) };
    assert_eq!(show(&bench, wire::A, true), (Some(packet), Some((1, 50))));
    assert_eq!(bench.of_kind("coredns_cache_hits_total", "success"), 1.0);
    bench.wait(50_000);
    assert_eq!(show(&bench, wire::A, true), (None, None), "it has expired");
}

/// What a reply says.
#[derive(Debug, PartialEq, Eq)]
struct ReplyFacts {
    rcode: Rcode,
    /// TTL and last octet of the data of each record.
    records: Vec<(u32, u8)>,
    authoritative: bool,
    authentic: bool,
}

impl ReplyFacts {
    fn read(reply: &[u8]) -> Self {
        let response = Response::read(reply).expect("a good reply");
        let records =
            response.records().map(|record| (record.ttl, *record.rdata().last().expect("some data"))).collect();
        Self {
            rcode: response.rcode(),
            records,
            authoritative: response.is_authoritative(),
            authentic: response.wire()[3] & 0x20 != 0,
        }
    }
    fn positive(ttl: u32, last: u8) -> Self {
        Self { rcode: Rcode::NOERROR, records: vec![(ttl, last)], authoritative: false, authentic: false }
    }
    fn code(rcode: Rcode) -> Self {
        Self { rcode, records: vec![], authoritative: false, authentic: false }
    }
}

const NAME: &str = "a.example.";

fn positive(ttl: u32, last: u8) -> Response {
    response(NAME, wire::A, wire::NOERROR, 0, &Sections::answer(&[a(NAME, ttl, last)]))
}
fn code(rcode: u16) -> Response {
    response(NAME, wire::A, rcode, 0, &Sections::default())
}
fn nxdomain(ttl: u32) -> Response {
    response(NAME, wire::A, wire::NXDOMAIN, 0, &Sections::authority(&[soa("example.", ttl, ttl)]))
}
fn question() -> (Vec<u8>, Query) {
    query(NAME, wire::A, 0, None)
}

fn any_ttl() -> Config {
    let mut config = Config::default();
    config.lifetimes.success.shortest = 0;
    config.lifetimes.denial.shortest = 0;
    config
}
#[test]
fn a_kept_answer_is_served_with_the_ttl_that_is_left() {
    let mut bench = Bench::new(&any_ttl());
    bench.upstream.then(positive(60, 1));
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(60, 1));
    bench.wait(2_100);
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(58, 1));
    bench.wait(57_800);
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(1, 1));
    assert_eq!(bench.upstream.asked(), 1);
    bench.wait(100);
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(60, 1));
    assert_eq!(bench.upstream.asked(), 2);
    assert_eq!(bench.counter("requests_total"), 4.0);
    assert_eq!(bench.counter("misses_total"), 2.0);
    assert_eq!(bench.of_kind("coredns_cache_hits_total", "success"), 2.0);
    assert_eq!(bench.of_kind("coredns_cache_entries", "success"), 1.0);
    assert_eq!(bench.of_kind("coredns_cache_entries", "denial"), 0.0);
    assert!(bench.of_kind("nodelocaldns_cache_bytes", "success") > 0.0);
}

#[test]
fn a_fresh_hit_may_be_repeated_until_its_ttl_is_another_and_counts_as_a_hit_each_time() {
    let repeat = |millis| FastPath::Answered(After::CachePacket { millis, note: note_of(Kind::Success) });
    let mut bench = Bench::new(&any_ttl());
    bench.upstream.then(positive(2, 1));
    bench.ask(&question());
    assert_eq!(bench.serve_fast(&question()).0, repeat(999));
    bench.wait(700);
    assert_eq!(bench.serve_fast(&question()).0, repeat(299));
    bench.wait(299);
    assert_eq!(bench.serve_fast(&question()).0, FastPath::Answered(After::Nothing), "in its last millisecond");
    bench.wait(1);
    assert_eq!(bench.serve_fast(&question()).0, repeat(999));
    let asked = question();
    let tally =
        bench.cache.hit_counter(&bench.request(&Bench::peer(), &asked, Purpose::Answer), note_of(Kind::Success));
    tally.expect("hits are counted").count(40, 60, Duration::from_micros(9));
    assert_eq!((bench.of_kind("coredns_cache_hits_total", "success"), bench.counter("requests_total")), (5.0, 6.0));
}

#[test]
fn a_hit_is_served_by_the_fast_path_in_the_clients_spelling() {
    let bench = Bench::new(&any_ttl());
    bench.upstream.then(positive(60, 1));
    bench.ask(&question());
    let asked = query("A.eXample.", wire::A, 0, None);
    let (quick, reply) = bench.serve_fast(&asked);
    assert!(matches!(quick, FastPath::Answered(_)));
    assert_eq!(reply.get(..2), Some(&[0x12, 0x34][..]));
    assert_eq!(reply.get(12..24), asked.0.get(12..24));
}

#[test]
fn nothing_is_written_when_nothing_is_kept() {
    let bench = Bench::new(&any_ttl());
    assert_eq!(bench.serve_fast(&question()), (FastPath::Through, vec![]));
}

#[test]
fn the_slow_path_finds_a_kept_answer_too() {
    let bench = Bench::new(&any_ttl());
    bench.upstream.then(positive(60, 1));
    bench.ask(&question());
    let outcome = bench.serve(&question(), Purpose::Answer).expect("a hit");
    assert_eq!(outcome.from, "cache");
    assert_eq!(bench.upstream.asked(), 1);
    assert_eq!(bench.of_kind("coredns_cache_hits_total", "success"), 1.0);
}

#[test]
fn do_cd_and_type_have_their_own_answers() {
    let bench = Bench::new(&any_ttl());
    bench.upstream.then(positive(60, 1));
    bench.ask(&question());
    bench.ask(&query(NAME, wire::A, 0, Some(false)));
    assert_eq!(bench.upstream.asked(), 1);
    bench.ask(&query(NAME, wire::A, 0, Some(true)));
    bench.ask(&query(NAME, wire::A, 0x0010, None));
    assert_eq!(bench.upstream.asked(), 3);
    bench.upstream.instead(Ok(response(
        NAME,
        wire::TXT,
        wire::NOERROR,
        0,
        &Sections::answer(&[record(NAME, wire::TXT, 60, b"\x01x")]),
    )));
    bench.ask(&query(NAME, wire::TXT, 0, None));
    assert_eq!(bench.upstream.asked(), 4);
}

/// What a client without RD asks.
fn non_recursive() -> (Vec<u8>, Query) {
    let (mut wire, _) = question();
    wire[2] &= !0x01;
    let query = Query::read(&wire).expect("a good query");
    (wire, query)
}

#[test]
fn what_a_query_without_rd_drew_is_given_to_no_query_with_it() {
    let referral = Sections::authority(&[record("example.", wire::NS, 60, &wire::name("ns.example."))]);
    let referral = response(NAME, wire::A, wire::NOERROR, 0, &referral);
    for drawn in [referral, code(wire::SERVFAIL), code(wire::NOERROR), nxdomain(60)] {
        let bench = Bench::new(&Config::default());
        bench.upstream.then(drawn.clone());
        bench.upstream.then(positive(60, 1));
        let reply = bench.ask(&non_recursive());
        assert_eq!(bench.ask(&question()), ReplyFacts::positive(60, 1));
        assert_eq!(bench.ask(&question()), ReplyFacts::positive(60, 1));
        assert_eq!(bench.ask(&non_recursive()).rcode, reply.rcode);
        assert_eq!(bench.upstream.asked(), 2, "each has an answer of its own");
    }
}

#[test]
fn ad_is_for_those_who_ask_for_it_and_aa_for_none() {
    let bench = Bench::new(&any_ttl());
    bench.upstream.then(response(NAME, wire::A, wire::NOERROR, AD | AA, &Sections::answer(&[a(NAME, 60, 1)])));
    let reply = bench.ask(&question());
    assert_eq!((reply.authentic, reply.authoritative), (false, true));
    let reply = bench.ask(&query(NAME, wire::A, AD, None));
    assert_eq!((reply.authentic, reply.authoritative), (true, false));
    assert_eq!(bench.upstream.asked(), 1);
}

#[test]
fn what_may_not_be_kept_is_asked_again() {
    let truncated = response(NAME, wire::A, wire::NOERROR, TC, &Sections::answer(&[a(NAME, 60, 1)]));
    let incomplete =
        response(NAME, wire::A, wire::NOERROR, 0, &Sections::answer(&[wire::cname(NAME, 60, "b.example.")]));
    for answer in [code(wire::REFUSED), code(wire::NXDOMAIN), truncated, incomplete] {
        let bench = Bench::new(&Config::default());
        bench.upstream.then(answer);
        bench.ask(&question());
        bench.ask(&question());
        assert_eq!(bench.upstream.asked(), 2);
    }
}

#[test]
fn failures_and_empty_answers_are_kept_five_seconds() {
    for answer in [code(wire::SERVFAIL), code(wire::NOTIMP), code(wire::NOERROR)] {
        let mut bench = Bench::new(&Config::default());
        let reply = ReplyFacts::code(answer.rcode());
        bench.upstream.then(answer);
        bench.ask(&question());
        bench.wait(4_900);
        assert_eq!(bench.ask(&question()), reply);
        assert_eq!(bench.upstream.asked(), 1);
        bench.wait(100);
        bench.ask(&question());
        assert_eq!(bench.upstream.asked(), 2);
    }
}

#[test]
fn a_failed_chain_is_not_kept() {
    let bench = Bench::new(&any_ttl());
    bench.upstream.instead(Err(Failure::servfail("upstream", "down")));
    assert!(bench.serve(&question(), Purpose::Answer).is_err());
    assert!(bench.serve(&question(), Purpose::Answer).is_err());
    assert_eq!(bench.upstream.asked(), 2);
}

#[test]
fn an_answer_to_another_question_is_passed_on_and_not_kept() {
    let bench = Bench::new(&any_ttl());
    bench.upstream.then(response(
        "b.example.",
        wire::A,
        wire::NOERROR,
        0,
        &Sections::answer(&[a("b.example.", 60, 1)]),
    ));
    bench.serve(&question(), Purpose::Answer).expect("passed on");
    assert_eq!(bench.counter("drops_total"), 1.0);
    assert_eq!(bench.of_kind("coredns_cache_entries", "success"), 0.0);
}

#[test]
fn keepttl_does_not_count_down() {
    let mut bench = Bench::new(&Config { keep_ttl: true, ..any_ttl() });
    bench.upstream.then(positive(60, 1));
    bench.ask(&question());
    bench.wait(30_000);
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(60, 1));
    bench.wait(30_000);
    bench.ask(&question());
    assert_eq!(bench.upstream.asked(), 2);
}

#[test]
fn a_disabled_zone_is_not_kept() {
    let zone = |text| Name::parse(text).expect("a zone");
    let mut bench = Bench::new(&Config { disabled: [vec![zone("Example.")], vec![]], ..any_ttl() });
    bench.upstream.then(positive(60, 1));
    bench.ask(&question());
    bench.ask(&question());
    assert_eq!(bench.upstream.asked(), 2);
    bench.upstream.instead(Ok(nxdomain(60)));
    bench.ask(&question());
    bench.ask(&question());
    assert_eq!(bench.upstream.asked(), 3);
    bench.reload(&Config { disabled: [vec![], vec![zone("example.")]], ..any_ttl() });
    bench.ask(&question());
    assert_eq!(bench.upstream.asked(), 4, "what was kept under another `disable` is not served");
}

#[test]
fn names_outside_the_zones_pass_by() {
    let bench = Bench::new(&Config { zones: vec![Name::parse("sub.example.").expect("a zone")], ..any_ttl() });
    bench.upstream.then(positive(60, 1));
    assert_eq!(bench.serve_fast(&question()).0, FastPath::Pass);
    bench.serve(&question(), Purpose::Answer).expect("passed on");
    bench.serve(&question(), Purpose::Answer).expect("passed on");
    assert_eq!(bench.upstream.asked(), 2);
    assert_eq!(bench.serve_fast(&query("x.sub.example.", wire::A, 0, None)).0, FastPath::Through);
}

#[test]
fn a_new_answer_takes_the_place_of_an_older_one_of_the_other_kind() {
    let mut bench = Bench::new(&any_ttl());
    bench.upstream.then(nxdomain(5));
    bench.ask(&question());
    bench.wait(5_000);
    bench.upstream.instead(Ok(positive(60, 1)));
    bench.ask(&question());
    assert_eq!(bench.of_kind("coredns_cache_entries", "denial"), 0.0);
    let _ = bench.upstream.answers.lock().pop_front();
    bench.upstream.then(nxdomain(5));
    bench.serve(&question(), Purpose::Refresh).expect("renewed");
    assert_eq!(bench.ask(&question()).rcode, Rcode::NXDOMAIN);
    bench.wait(5_000);
    assert_eq!(bench.ask(&question()).rcode, Rcode::NXDOMAIN, "the older positive answer does not come back");
}

#[test]
fn a_good_answer_goes_before_a_kept_servfail() {
    let upstream = ScriptedAnswers { gate: Some(tokio::sync::Semaphore::new(0)), ..ScriptedAnswers::default() };
    let bench = Bench::with_upstream(&any_ttl(), upstream);
    let (peer, asked) = (Bench::peer(), question());
    let request = bench.request(&peer, &asked, Purpose::Answer);
    // Two misses at once: one gets the answer, then the other a failure.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    bench.upstream.then(positive(60, 1));
    bench.upstream.then(code(wire::SERVFAIL));
    runtime.block_on(async {
        let open = async { bench.upstream.gate.as_ref().expect("a gate").add_permits(2) };
        let both =
            futures_util::future::join3(bench.chain.start().run(request), bench.chain.start().run(request), open);
        let (one, other, ()) = both.await;
        assert_eq!(one.expect("answered").response.rcode(), Rcode::NOERROR);
        assert_eq!(other.expect("answered").response.rcode(), Rcode::SERVFAIL);
    });
    assert_eq!(bench.of_kind("coredns_cache_entries", "denial"), 1.0);
    assert_eq!(bench.of_kind("coredns_cache_entries", "success"), 1.0);
    assert_eq!(bench.ask(&asked).rcode, Rcode::NOERROR);
}

#[test]
fn a_reload_keeps_the_answers_and_a_lower_cap_holds_for_them() {
    let mut bench = Bench::new(&any_ttl());
    bench.upstream.then(positive(60, 1));
    bench.ask(&question());
    let mut config = any_ttl();
    config.lifetimes.success = TtlBounds { longest: 10, shortest: 0 };
    bench.reload(&config);
    bench.wait(4_000);
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(6, 1));
    assert_eq!(bench.upstream.asked(), 1);
    assert_eq!(bench.of_kind("coredns_cache_hits_total", "success"), 1.0);
    assert_eq!(bench.of_kind("coredns_cache_entries", "success"), 1.0);
    bench.wait(6_000);
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(10, 1));
    assert_eq!(bench.upstream.asked(), 2);
}

#[test]
fn evictions_are_counted() {
    let bench = Bench::new(&Config { capacity: [1, 1], ..any_ttl() });
    for name in ["a.example.", "b.example.", "c.example."] {
        bench.upstream.instead(Ok(response(name, wire::A, wire::NOERROR, 0, &Sections::answer(&[a(name, 60, 1)]))));
        bench.ask(&query(name, wire::A, 0, None));
    }
    assert_eq!(bench.of_kind("coredns_cache_evictions_total", "success"), 2.0);
    assert_eq!(bench.of_kind("coredns_cache_evictions_total", "denial"), 0.0);
    assert_eq!(bench.of_kind("coredns_cache_entries", "success"), 1.0);
}

#[test]
fn gauges_go_with_the_store() {
    let mut bench = Bench::new(&any_ttl());
    bench.upstream.then(positive(60, 1));
    bench.ask(&question());
    assert_eq!(bench.of_kind("coredns_cache_entries", "success"), 1.0);
    bench.reload(&Config { disabled: [vec![], vec![Name::root()]], ..any_ttl() });
    assert_eq!(bench.of_kind("coredns_cache_entries", "success"), 0.0);
    assert_eq!(bench.process.cache_memory.used(), 0);
}

#[test]
fn every_record_gets_the_entrys_ttl() {
    let bench = Bench::new(&any_ttl());
    let sections = Sections {
        authority: vec![a("example.", 20, 2)],
        additional: vec![a("c.example.", 40, 3)],
        ..Sections::answer(&[a(NAME, 300, 1)])
    };
    bench.upstream.then(response(NAME, wire::A, wire::NOERROR, 0, &sections));
    for _ in 0..2 {
        let reply = bench.ask(&question());
        assert_eq!(reply.records, vec![(20, 1), (20, 2), (20, 3)]);
    }
}

mod refreshes;
mod subnets;
