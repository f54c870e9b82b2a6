//! Prefetch and stale answers.

use super::*;

fn stale(mode: StaleMode) -> Config {
    let stale = Stale { up_to: 3600, mode, response_ttl: 0, failure_recheck: Duration::ZERO, prefer_positive: false };
    Config { stale: Some(stale), ..any_ttl() }
}
fn change_stale(mut config: Config, change: impl FnOnce(&mut Stale)) -> Config {
    change(config.stale.as_mut().expect("a configuration with serve_stale"));
    config
}
const VERIFY: StaleMode = StaleMode::Verify { timeout: None };
const PREFETCH: Prefetch = Prefetch { amount: 2, gap: Duration::from_secs(60), percentage: 90 };

#[test]
fn popular_answers_are_fetched_before_they_expire() {
    let mut bench = Bench::new(&Config { prefetch: Some(PREFETCH), ..any_ttl() });
    bench.upstream.then(positive(2, 1));
    bench.ask(&question());
    assert_eq!(bench.serve_fast(&question()).0, FastPath::Answered(After::Nothing));
    assert_eq!(bench.serve_fast(&question()).0, FastPath::Answered(After::Refresh));
    assert_eq!(bench.serve_fast(&question()).0, FastPath::Answered(After::Nothing), "one refresh at a time");
    bench.serve(&question(), Purpose::Refresh).expect("renewed");
    bench.wait(1_200);
    bench.upstream.instead(Ok(positive(9, 77)));
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(1, 1), "the count goes on over a refresh");
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(9, 77));
    assert_eq!(bench.counter("prefetch_total"), 3.0);
    assert_eq!(bench.counter("misses_total"), 1.0);
}

#[test]
fn prefetch_waits_for_its_share_of_the_ttl() {
    let prefetch = Prefetch { amount: 1, gap: Duration::from_secs(600), percentage: 10 };
    let mut bench = Bench::new(&Config { prefetch: Some(prefetch), ..any_ttl() });
    bench.upstream.then(positive(95, 1));
    bench.ask(&question());
    bench.wait(84_000);
    assert_eq!(bench.serve_fast(&question()).0, FastPath::Answered(After::Nothing));
    bench.wait(1_000);
    assert_eq!(
        bench.serve_fast(&question()).0,
        FastPath::Answered(After::Refresh),
        "10 left of 95: a tenth, rounded up"
    );
}

#[test]
fn a_failed_prefetch_leaves_the_answer_in_place() {
    let prefetch = Prefetch { amount: 1, gap: Duration::from_secs(60), percentage: 90 };
    let mut bench = Bench::new(&Config { prefetch: Some(prefetch), ..any_ttl() });
    bench.upstream.then(nxdomain(10));
    bench.ask(&question());
    bench.wait(5_000);
    bench.upstream.instead(Ok(code(wire::SERVFAIL)));
    assert_eq!(bench.ask(&question()).rcode, Rcode::NXDOMAIN);
    assert_eq!(bench.ask(&question()).rcode, Rcode::NXDOMAIN);
    assert_eq!(bench.upstream.asked(), 3, "and it is tried again");
}

#[test]
fn stale_answer_is_served_when_the_upstream_is_down() {
    let mut bench = Bench::new(&stale(StaleMode::Immediate));
    bench.upstream.then(positive(2, 1));
    bench.ask(&question());
    bench.wait(3_000);
    bench.upstream.instead(Err(Failure::servfail("upstream", "down")));
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(0, 1));
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(0, 1));
    assert_eq!(bench.counter("served_stale_total"), 2.0);
    assert_eq!(bench.stale_ages("immediate"), (2.0, 2.0));
    assert_eq!(bench.of_kind("coredns_cache_hits_total", "success"), 2.0);
    bench.wait(3_600_000);
    assert!(bench.serve(&question(), Purpose::Answer).is_err(), "too old");
}

#[test]
fn stale_answer_is_refreshed_after_it_was_served() {
    let mut bench = Bench::new(&stale(StaleMode::Immediate));
    bench.upstream.then(positive(2, 1));
    bench.ask(&question());
    bench.wait(2_000);
    bench.upstream.instead(Ok(positive(2, 77)));
    assert_eq!(bench.serve_fast(&question()).0, FastPath::Answered(After::Refresh));
    assert_eq!(bench.serve_fast(&question()).0, FastPath::Answered(After::Nothing), "one refresh at a time");
    bench.serve(&question(), Purpose::Refresh).expect("renewed");
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(2, 77));
}

#[test]
fn the_slow_path_refreshes_a_stale_answer_by_itself() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut bench = Bench::new(&stale(StaleMode::Immediate));
        bench.upstream.then(positive(2, 1));
        bench.ask(&question());
        bench.wait(2_000);
        bench.upstream.instead(Ok(positive(2, 77)));
        bench.serve(&question(), Purpose::Answer).expect("served stale");
        while bench.upstream.asked() < 2 {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert_eq!(bench.ask(&question()), ReplyFacts::positive(2, 77));
    });
}

#[test]
fn a_failure_does_not_push_out_what_is_stale() {
    for kept in [positive(2, 1), nxdomain(2)] {
        for refusal in [code(wire::SERVFAIL), code(wire::REFUSED), response(NAME, wire::A, 0, TC, &Sections::default())]
        {
            let mut bench = Bench::new(&stale(StaleMode::Immediate));
            let rcode = kept.rcode();
            bench.upstream.then(kept.clone());
            bench.ask(&question());
            bench.wait(2_000);
            bench.upstream.instead(Ok(refusal));
            assert_eq!(bench.ask(&question()).rcode, rcode);
            let reply = bench.ask(&question());
            assert_eq!(reply.rcode, rcode);
            assert!(reply.records.iter().all(|(ttl, _)| *ttl == 0));
        }
    }
}

#[test]
fn the_ttl_of_stale_answers_is_the_configured_one() {
    for keep_ttl in [false, true] {
        let config = change_stale(stale(StaleMode::Immediate), |stale| stale.response_ttl = 30);
        let mut bench = Bench::new(&Config { keep_ttl, ..config });
        bench.upstream.then(positive(2, 1));
        bench.ask(&question());
        bench.wait(2_000);
        assert_eq!(bench.ask(&question()), ReplyFacts::positive(30, 1));
    }
}

#[test]
fn a_failed_refresh_is_not_repeated_before_the_recheck() {
    let config = change_stale(stale(StaleMode::Immediate), |stale| stale.failure_recheck = Duration::from_secs(30));
    let mut bench = Bench::new(&config);
    bench.upstream.then(positive(2, 1));
    bench.ask(&question());
    bench.wait(2_000);
    bench.upstream.instead(Ok(code(wire::SERVFAIL)));
    bench.ask(&question());
    assert_eq!(bench.upstream.asked(), 2);
    bench.wait(29_000);
    bench.ask(&question());
    assert_eq!(bench.upstream.asked(), 2);
    bench.wait(1_001);
    bench.ask(&question());
    assert_eq!(bench.upstream.asked(), 3);
}

#[test]
fn verify_asks_before_it_serves_a_stale_answer() {
    let mut bench = Bench::new(&stale(VERIFY));
    bench.upstream.then(positive(2, 1));
    bench.ask(&question());
    bench.wait(3_000);
    bench.upstream.instead(Ok(code(wire::SERVFAIL)));
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(0, 1));
    assert_eq!(bench.counter("served_stale_total"), 1.0);
    bench.upstream.instead(Ok(nxdomain(2)));
    assert_eq!(bench.ask(&question()).rcode, Rcode::NXDOMAIN);
    bench.wait(2_000);
    bench.upstream.instead(Ok(positive(2, 77)));
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(2, 77));
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(2, 77));
    assert_eq!(bench.upstream.asked(), 4);
    assert_eq!(bench.counter("served_stale_total"), 1.0);
}

#[test]
fn verify_does_not_ask_again_before_the_recheck() {
    let config = change_stale(stale(VERIFY), |stale| stale.failure_recheck = Duration::from_secs(30));
    let mut bench = Bench::new(&config);
    bench.upstream.then(positive(2, 1));
    bench.ask(&question());
    bench.wait(3_000);
    bench.upstream.instead(Err(Failure::servfail("upstream", "down")));
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(0, 1));
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(0, 1));
    assert_eq!(bench.upstream.asked(), 2);
    bench.wait(30_001);
    bench.ask(&question());
    assert_eq!(bench.upstream.asked(), 3);
    assert_eq!(bench.counter("requests_total"), 4.0);
    assert_eq!(bench.counter("served_stale_total"), 3.0);
    assert_eq!(bench.stale_ages("failure"), (3.0, 1.0 + 1.0 + 31.0));
}

#[test]
fn verify_serves_the_stale_answer_after_its_timeout_and_keeps_the_late_one() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let upstream = ScriptedAnswers { gate: Some(tokio::sync::Semaphore::new(1)), ..ScriptedAnswers::default() };
        let config = stale(StaleMode::Verify { timeout: Some(Duration::from_millis(20)) });
        let mut bench = Bench::with_upstream(&config, upstream);
        bench.upstream.then(positive(2, 1));
        bench.ask(&question());
        bench.wait(3_000);
        bench.upstream.instead(Ok(positive(60, 77)));
        let peer = Bench::peer();
        let asked = question();
        let request = bench.request(&peer, &asked, Purpose::Answer);
        let answer = bench.chain.start().run(request).await.expect("the stale answer");
        assert_eq!(answer.from, "cache");
        assert_eq!(bench.counter("served_stale_total"), 1.0);
        assert_eq!(bench.stale_ages("timeout"), (1.0, 1.0));
        bench.upstream.gate.as_ref().expect("a gate").add_permits(1);
        while !matches!(bench.serve_fast(&asked).0, FastPath::Answered(_)) {
            tokio::task::yield_now().await;
        }
        let reply = bench.ask(&asked);
        assert_eq!((reply.rcode, reply.records.first().map(|record| record.1)), (Rcode::NOERROR, Some(77)));
        assert_eq!(bench.upstream.asked(), 2);
        bench.wait(70_000);
        bench.upstream.instead(Ok(positive(60, 78)));
        bench.upstream.gate.as_ref().expect("a gate").add_permits(1);
        let request = bench.request(&peer, &asked, Purpose::Answer);
        let answer = bench.chain.start().run(request).await.expect("the new answer");
        assert_eq!(answer.from, "upstream");
    });
}

#[test]
fn prefer_positive_serves_the_last_good_answer_over_denials() {
    for refusal in [nxdomain(60), code(wire::SERVFAIL), code(wire::NOERROR), referral()] {
        for mode in [StaleMode::Immediate, VERIFY] {
            let mut bench = Bench::new(&change_stale(stale(mode), |stale| stale.prefer_positive = true));
            bench.upstream.then(positive(2, 1));
            bench.ask(&question());
            bench.wait(2_000);
            bench.upstream.instead(Ok(refusal.clone()));
            assert_eq!(bench.ask(&question()), ReplyFacts::positive(0, 1));
            assert_eq!(bench.ask(&question()), ReplyFacts::positive(0, 1));
            bench.upstream.instead(Ok(positive(60, 77)));
            bench.ask(&question());
            assert_eq!(bench.ask(&question()), ReplyFacts::positive(60, 77));
            assert_eq!(bench.of_kind("coredns_cache_entries", "denial"), 0.0);
        }
    }
}

#[test]
fn prefer_positive_ends_with_the_stale_time() {
    let mut bench = Bench::new(&change_stale(stale(VERIFY), |stale| stale.prefer_positive = true));
    bench.upstream.then(positive(2, 1));
    bench.ask(&question());
    bench.wait(3_603_000);
    bench.upstream.instead(Ok(nxdomain(60)));
    assert_eq!(bench.ask(&question()).rcode, Rcode::NXDOMAIN);
    assert_eq!(bench.ask(&question()).rcode, Rcode::NXDOMAIN);
    assert_eq!(bench.upstream.asked(), 2);
}

fn referral() -> Response {
    let ns = record("example.", wire::NS, 60, &wire::name("ns.example."));
    response(NAME, wire::A, wire::NOERROR, 0, &Sections::authority(&[ns]))
}

#[test]
fn a_contradicted_answer_is_not_served_though_the_new_one_is_not_kept() {
    let config = Config { disabled: [vec![], vec![Name::root()]], ..stale(StaleMode::Immediate) };
    let mut bench = Bench::new(&config);
    bench.upstream.then(positive(2, 1));
    bench.ask(&question());
    bench.wait(2_000);
    bench.upstream.instead(Ok(nxdomain(60)));
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(0, 1));
    assert_eq!(bench.ask(&question()).rcode, Rcode::NXDOMAIN);
}

/// What comes over UDP in place of an answer that only TCP can carry.
fn truncated() -> Response {
    response(NAME, wire::A, wire::NOERROR, TC, &Sections::default())
}

/// Aliases without the records that they lead to.
fn unfinished() -> Response {
    let alias = record(NAME, wire::CNAME, 60, &wire::name("elsewhere.example."));
    response(NAME, wire::A, wire::NOERROR, 0, &Sections::answer(&[alias]))
}

#[test]
fn an_answer_that_outgrew_udp_is_renewed_over_tcp() {
    for mode in [StaleMode::Immediate, VERIFY] {
        let mut bench = Bench::new(&stale(mode));
        bench.upstream.then(positive(2, 1));
        bench.ask(&question());
        bench.wait(2_000);
        bench.upstream.instead(Ok(truncated()));
        bench.upstream.then(positive(60, 77));
        bench.ask(&question());
        assert_eq!((bench.upstream.asked(), *bench.upstream.transport.lock()), (3, Some(Transport::Tcp)));
        assert_eq!(bench.ask(&question()), ReplyFacts::positive(60, 77), "{mode:?}");
        assert_eq!(bench.upstream.asked(), 3);
    }
}

#[test]
fn a_popular_answer_that_outgrew_udp_is_prefetched_over_tcp() {
    let bench = Bench::new(&Config { prefetch: Some(PREFETCH), ..any_ttl() });
    bench.upstream.then(positive(2, 1));
    bench.ask(&question());
    bench.upstream.instead(Ok(truncated()));
    bench.upstream.then(positive(60, 77));
    bench.ask(&question());
    bench.ask(&question());
    assert_eq!(bench.ask(&question()), ReplyFacts::positive(60, 77));
}

#[test]
fn what_did_not_get_to_the_end_does_not_take_the_place_of_an_answer() {
    for new in [unfinished(), referral()] {
        for mode in [StaleMode::Immediate, VERIFY] {
            let mut bench = Bench::new(&stale(mode));
            bench.upstream.then(positive(2, 1));
            bench.ask(&question());
            bench.wait(2_000);
            bench.upstream.instead(Ok(new.clone()));
            assert_eq!(bench.ask(&question()), ReplyFacts::positive(0, 1), "{mode:?}");
            assert_eq!(bench.ask(&question()), ReplyFacts::positive(0, 1), "{mode:?}");
        }
        let mut bench = Bench::new(&Config { prefetch: Some(PREFETCH), ..any_ttl() });
        bench.upstream.then(positive(60, 1));
        bench.ask(&question());
        bench.wait(50_000);
        bench.upstream.instead(Ok(new));
        bench.ask(&question());
        bench.ask(&question());
        assert_eq!((bench.ask(&question()), bench.upstream.asked()), (ReplyFacts::positive(10, 1), 3));
    }
}

#[test]
fn a_failure_is_not_served_stale() {
    for failure in [code(wire::SERVFAIL), code(wire::NOTIMP)] {
        for mode in [StaleMode::Immediate, VERIFY] {
            let mut bench = Bench::new(&stale(mode));
            bench.upstream.then(failure.clone());
            bench.ask(&question());
            bench.wait(300_000);
            bench.upstream.instead(Ok(positive(60, 77)));
            assert_eq!(bench.ask(&question()), ReplyFacts::positive(60, 77), "{mode:?}");
        }
    }
}
