//! What depends on the client, silence, and lookups across blocks.

use super::*;

/// Says who asks, and that its reply may be repeated.
#[derive(Default)]
struct TellsClient {
    asked: AtomicU8,
    depends_on_client: bool,
}

impl Handler for TellsClient {
    fn keyword(&self) -> &'static str {
        "tells_client"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn depends_on_client(&self) -> bool {
        self.depends_on_client
    }
    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let is_first = request.peer.client.ip() == peer().client.ip();
        let rcode = if is_first { Rcode::NOERROR } else { Rcode::REFUSED };
        request.query.write_empty(request.wire, rcode, 1232, &crate::message::ReplyOptions::default(), reply);
        FastPath::Answered(After::CachePacket { millis: 500, note: 0 })
    }
    fn serve<'a>(&'a self, _request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async { Err(Failure::silence("tells_client")) })
    }
}

#[test]
fn where_an_answer_depends_on_the_client_no_packet_is_repeated_to_another() {
    let process = process();
    for depends_on_client in [true, false] {
        let handler = Arc::new(TellsClient { asked: AtomicU8::new(0), depends_on_client });
        let block = Block { depends_on_client: handler.depends_on_client(), ..Block::of(Box::new([handler.clone()])) };
        let block = Arc::new(block);
        let mut zones = ZoneTable::default();
        zones.insert(&Name::root(), ZoneBinding { block, server: 0, zone: 0, place: None });
        let whole = listener(77, handler.clone(), Vec::new(), &process);
        let listener = Arc::new(Listener { zones, ..Arc::into_inner(whole).unwrap() });
        let (mut packets, now) = (PacketCache::default(), Instant::now());
        let mut codes = |client: [u8; 4]| -> Vec<u16> {
            let peer = Peer { client: (client, 4000).into(), ..peer() };
            let clock = BatchClock::start(now);
            let code = |_| {
                let mut out = Vec::new();
                let wire = question("a.example.");
                _ = listener.dispatch(Received { wire: &wire, peer: &peer, clock: &clock }, &mut packets, &mut out);
                rcode(&out)
            };
            (0..5).map(code).collect()
        };
        assert_eq!(codes([10, 0, 0, 1]), [0; 5]);
        let others = codes([10, 0, 0, 2]);
        let asked = handler.asked.load(Ordering::Relaxed);
        // The packet cache does not know clients, which is why it must not be asked here.
        let expected = if depends_on_client { ([Rcode::REFUSED.0; 5], 10) } else { ([0; 5], 2) };
        assert_eq!((others.as_slice(), asked), (expected.0.as_slice(), expected.1));
    }
}

#[tokio::test]
async fn an_answer_of_acl_to_a_client_with_edns_is_whole_behind_a_rewrite() {
    let process = process();
    let text = "example:53 {\n bind 127.0.0.1\n rewrite ttl regex .* 5-30\n acl {\n block type TXT\n }\n whoami\n}\n";
    let plan = plan(text, &process);
    let mut wire = Query::compose(7, Name::parse("a.example.").unwrap().as_wire(), RecordType(16), true);
    wire[11] = 1;
    wire.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    let reply = ask(&plan.listeners[0], &wire).await;
    assert_eq!((rcode(&reply), reply[11]), (Rcode::REFUSED.0, 1));
    assert!(crate::message::Response::read(&reply).is_ok());
    assert!(reply.ends_with(&[0, 0, 0, 6, 0, 15, 0, 2, 0, 15]), "{reply:?}");
}

#[tokio::test]
async fn where_nothing_is_to_be_said_neither_path_says_anything() {
    let process = process();
    let block = "example:53 {\n bind 127.0.0.1\n acl {\n drop net 10.0.0.1\n }\n whoami\n}\n";
    let plan = plan(block, &process);
    assert_eq!(ask(&plan.listeners[0], &question("a.example.")).await, b"");
    let listener = listener(1, Arc::new(SlowSilence), Vec::new(), &process);
    assert_eq!(ask(&listener, &question("a.example.")).await, b"");
}

struct SlowSilence;

impl Handler for SlowSilence {
    fn keyword(&self) -> &'static str {
        "slow_silence"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve<'a>(&'a self, _request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async { Err(Failure::silence("slow_silence")) })
    }
}

#[tokio::test]
async fn a_rewritten_cname_target_is_asked_for_at_the_block_that_has_it() {
    let process = process();
    let text = "example:53 {\n bind 127.0.0.1\n rewrite cname exact real.test there.other\n whoami\n}\n\
                other:53 {\n bind 127.0.0.1\n whoami\n}\n";
    let plan = plan(text, &process);
    let wire = question("there.other.");
    let query = Query::read(&wire).unwrap();
    let peer = peer();
    let request = Request { server_index: 7, zone: 7, ..Request::new(&wire, &query, &peer, Instant::now()) };
    use crate::chain::Resolver;
    assert_eq!(plan.listeners[0].resolve(request).await.unwrap().from, "whoami");
    let elsewhere = question("there.nowhere.");
    let query = Query::read(&elsewhere).unwrap();
    let failure = plan.listeners[0].resolve(Request { wire: &elsewhere, query: &query, ..request }).await;
    assert_eq!(failure.map(|_| ()).unwrap_err().rcode, Rcode::REFUSED);
}

#[test]
fn clients_that_no_network_tells_apart_share_a_packet_and_others_do_not() {
    let process = process();
    let text = "example:53 {\n bind 127.0.0.1\n acl {\n block type A net 10.0.1.0/24\n allow net 10.0.0.0/16\n filter\n }\n\
                hosts {\n  192.0.2.1 a.example\n }\n}\n";
    let plan = plan(text, &process);
    let (mut packets, clock) = (PacketCache::default(), BatchClock::start(Instant::now()));
    let mut ask = |client: [u8; 4]| {
        let peer = Peer { client: (client, 4000).into(), ..peer() };
        let (wire, mut out) = (question("a.example."), Vec::new());
        let received = Received { wire: &wire, peer: &peer, clock: &clock };
        let is_packet = match plan.listeners[0].dispatch(received, &mut packets, &mut out) {
            Dispatch::PacketHit(hit) => {
                plan.listeners[0].count(hit, received, &packets, &out);
                true
            }
            _ => false,
        };
        (rcode(&out), out[7], is_packet)
    };
    let allowed = [ask([10, 0, 0, 1]), ask([10, 0, 0, 2]), ask([10, 0, 0, 3]), ask([10, 0, 2, 3])];
    assert_eq!(allowed, [(0, 1, false), (0, 1, false), (0, 1, true), (0, 1, true)]);
    assert_eq!([ask([10, 0, 1, 1]), ask([10, 0, 1, 1])], [(Rcode::REFUSED.0, 0, false); 2]);
    assert_eq!(ask([10, 1, 0, 1]), (0, 0, false));
    assert_eq!(ask([10, 0, 0, 1]), (0, 1, true));
    let text = process.registry.encode();
    // Those of the packet cache are among them.
    let line = "coredns_acl_allowed_requests_total{server=\"dns://127.0.0.1:53\",view=\"\"} 5\n";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn what_no_cache_keeps_passes_one_on_the_fast_path_and_is_counted_once() {
    let process = process();
    let text = ".:53 {\n bind 127.0.0.1\n cache\n template IN AAAA {\n  rcode NXDOMAIN\n }\n template IN A {\n  \
                answer \"a.test. 60 IN A 192.0.2.9\"\n }\n}\n";
    let plan = plan(text, &process);
    let ways = async |wire: &[u8]| {
        let replies = dispatched(&plan.listeners[0], wire, 4).await;
        replies.iter().map(|(how, reply)| (*how, rcode(reply))).collect::<Vec<_>>()
    };
    let aaaa = Query::compose(7, Name::parse("a.test.").unwrap().as_wire(), RecordType::AAAA, true);
    assert_eq!(ways(&aaaa).await, [("slow", 3), ("fast", 3), ("fast", 3), ("packet", 3)]);
    let kept = ways(&question("a.test.")).await;
    let text = process.registry.encode();
    let of = |name: &str, labels: &[&str]| -> f64 {
        let is_it = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        text.lines().find(is_it).and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    };
    // The packet's hit is not counted by `dispatched`.
    let slow = kept.iter().filter(|(how, _)| *how == "slow").count() as f64;
    assert_eq!(of("coredns_template_matches_total", &["type=\"AAAA\""]), 3.0);
    assert_eq!(of("coredns_template_matches_total", &["type=\"A\""]), slow);
    assert_eq!(of("coredns_cache_misses_total", &[]), 3.0 + slow);
}
