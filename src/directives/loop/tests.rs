use super::parse;
use crate::chain::testing::{Question, build, configure};
use crate::chain::{
    BuildContext, Built, ChainUpstreams, ExchangeFn, FastPath, ForwardUpstreams, Handler, ProcessContext,
};
use crate::message::{Name, Query, Rcode, RecordType};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::time::sleep;

const UPSTREAM: &str = "127.0.0.53:53";

/// An upstream that can be switched between answering, sending what it is asked back to us, and silence.
#[derive(Default)]
struct Elsewhere {
    handler: OnceLock<Weak<dyn Handler>>,
    forwards_to_us: AtomicBool,
    is_silent: AtomicBool,
    asked: AtomicUsize,
    last: Mutex<Vec<u8>>,
}

impl Elsewhere {
    async fn ask(self: Arc<Self>, query: Vec<u8>) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        *self.last.lock() = query.clone();
        if self.forwards_to_us.load(Ordering::Relaxed) {
            let handler = self.handler.get().and_then(Weak::upgrade).unwrap();
            let answer = Question::from_wire(query).ask(&handler).await.unwrap();
            assert_eq!((answer.from, answer.response.rcode()), ("loop", Rcode::NXDOMAIN));
        }
        !self.is_silent.load(Ordering::Relaxed)
    }
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

struct Scene {
    process: ProcessContext,
    handler: Arc<dyn Handler>,
    elsewhere: Arc<Elsewhere>,
    listing: ForwardUpstreams,
    upstreams: Arc<ChainUpstreams>,
}

impl Scene {
    fn is_looping(&self) -> bool {
        self.listing.looping() == [UPSTREAM.parse().unwrap()]
    }
}

/// A chain of `loop` for the root zone with one upstream; its background runs.
fn bench(elsewhere: Elsewhere) -> Scene {
    let (block, said) = configure(parse, "loop");
    assert_eq!(said, "");
    let process = ProcessContext::new(1, 0);
    let Built { handler, background, .. } = build(&block, &process);
    let handler = handler.unwrap();
    for task in background {
        tokio::spawn(task);
    }
    let zone = Name::root();
    let servers = ["dns://127.0.0.1:53".to_owned()];
    let context = BuildContext::new(std::slice::from_ref(&zone), &servers, &process);
    let upstreams = ChainUpstreams::of(&context);
    let elsewhere = Arc::new(elsewhere);
    assert!(elsewhere.handler.set(Arc::downgrade(&handler)).is_ok());
    let listing = list(&upstreams, &elsewhere);
    Scene { process, handler, elsewhere, listing, upstreams }
}

fn list(upstreams: &Arc<ChainUpstreams>, elsewhere: &Arc<Elsewhere>) -> ForwardUpstreams {
    let listing = ForwardUpstreams::new(upstreams.clone(), Name::root());
    let elsewhere = elsewhere.clone();
    let ask: ExchangeFn = Box::new(move |query| Box::pin(elsewhere.clone().ask(query)));
    listing.set([(UPSTREAM.parse().unwrap(), ask)]);
    listing
}

fn gauge(process: &ProcessContext) -> Option<String> {
    let series = "nodelocaldns_loop_detected{server=\"dns://127.0.0.1:53\",to=\"127.0.0.53:53\",zone=\".\"} ";
    process.registry.encode().lines().find_map(|line| line.strip_prefix(series).map(str::to_owned))
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_sends_the_probe_back_is_left_out_until_it_no_longer_does() {
    let bench = bench(Elsewhere { forwards_to_us: true.into(), ..Elsewhere::default() });
    sleep(Duration::from_secs(1)).await;
    assert!(bench.is_looping());
    assert_eq!((bench.elsewhere.asked(), gauge(&bench.process).as_deref()), (1, Some("1")));

    sleep(Duration::from_secs(60)).await;
    assert!(bench.is_looping());
    assert_eq!(bench.elsewhere.asked(), 3);

    bench.elsewhere.forwards_to_us.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(33)).await;
    assert!(!bench.is_looping());
    assert_eq!((bench.elsewhere.asked(), gauge(&bench.process).as_deref()), (4, Some("0")));

    sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.elsewhere.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_answers_is_probed_once_with_a_random_hinfo_query() {
    let bench = bench(Elsewhere::default());
    sleep(Duration::from_secs(120)).await;
    assert!(!bench.is_looping());
    assert_eq!((bench.elsewhere.asked(), gauge(&bench.process).as_deref()), (1, Some("0")));
    let Ok(query) = Query::read(&bench.elsewhere.last.lock().clone()) else { panic!("a query") };
    let name = query.name.to_name();
    assert_eq!((query.qtype, name.label_count()), (RecordType::HINFO, 2));
    assert!(name.to_string().split_terminator('.').all(|label| label.parse::<u64>().is_ok()), "{name}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_is_asked_again_for_half_a_minute() {
    let bench = bench(Elsewhere { is_silent: true.into(), ..Elsewhere::default() });
    sleep(Duration::from_secs(120)).await;
    assert!(!bench.is_looping());
    assert!((25..=35).contains(&bench.elsewhere.asked()), "{}", bench.elsewhere.asked());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_left_out_stays_so_while_it_is_silent() {
    let bench = bench(Elsewhere { forwards_to_us: true.into(), is_silent: true.into(), ..Elsewhere::default() });
    sleep(Duration::from_secs(1)).await;
    assert!(bench.is_looping());
    bench.elsewhere.forwards_to_us.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(120)).await;
    assert!(bench.is_looping());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_listed_later_is_probed_too() {
    let bench = bench(Elsewhere::default());
    sleep(Duration::from_secs(60)).await;
    let _second = list(&bench.upstreams, &bench.elsewhere);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.elsewhere.asked(), 2);
}

/// As when queries begin to be intercepted, those to an upstream among them.
#[tokio::test(start_paused = true)]
async fn an_upstream_that_was_no_loop_is_probed_again_when_the_way_to_it_is_in_doubt() {
    let bench = bench(Elsewhere::default());
    sleep(Duration::from_secs(60)).await;
    assert_eq!((bench.elsewhere.asked(), bench.is_looping()), (1, false));
    bench.elsewhere.forwards_to_us.store(true, Ordering::Relaxed);
    bench.upstreams.doubt();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((bench.elsewhere.asked(), bench.is_looping()), (2, true));
    bench.elsewhere.forwards_to_us.store(false, Ordering::Relaxed);
    bench.upstreams.doubt();
    sleep(Duration::from_secs(3)).await;
    assert_eq!((bench.elsewhere.asked(), bench.is_looping()), (3, false), "one that is left out is asked at once too");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_over_means_nothing() {
    let bench = bench(Elsewhere::default());
    sleep(Duration::from_secs(10)).await;
    let replayed = Question::from_wire(bench.elsewhere.last.lock().clone());
    assert_eq!(replayed.ask(&bench.handler).await.unwrap().from, "fixed");
    assert!(!bench.is_looping());
}

#[tokio::test(start_paused = true)]
async fn other_hinfo_queries_are_handed_on() {
    let bench = bench(Elsewhere::default());
    assert_eq!(Question::new("1.2.", RecordType::HINFO).ask(&bench.handler).await.unwrap().from, "fixed");
    assert_eq!(Question::new("1.2.", RecordType::HINFO).ask_quickly(&*bench.handler).0, FastPath::Slow);
    assert_eq!(Question::new("1.2.", RecordType::A).ask_quickly(&*bench.handler).0, FastPath::Pass);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_chain_takes_its_gauges_with_it() {
    let Scene { process, handler, listing: _listing, .. } =
        bench(Elsewhere { forwards_to_us: true.into(), ..Elsewhere::default() });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(gauge(&process).as_deref(), Some("1"));
    drop(handler);
    assert_eq!(gauge(&process), None);
}

#[test]
fn arguments_and_options_are_refused() {
    assert!(configure(parse, "loop .").1.contains("Corefile:2:"));
    assert!(configure(parse, "loop {\n a b\n}").1.contains("loop"));
}
