//! What requests with a client subnet are given, and for whom their answers are kept.

use super::*;
use crate::chain::KeptSubnet;
use crate::chain::testing::responder;
use crate::message::{ClientSubnet, PrefixLimits, Rcode, Section};
use hickory_proto::rr::{RData, Record, rdata};

/// Makes its answers for whoever asks: their last octet is the third one of the subnet it was asked with, 200 without
/// one.
#[derive(Default)]
struct Tailor {
    scope: Mutex<Option<u8>>,
    rcode: Mutex<u16>,
    asked: AtomicUsize,
}

impl Handler for Tailor {
    fn keyword(&self) -> &'static str {
        "upstream"
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        rest.explain(request, explanation)
    }

    fn serve<'a>(&'a self, request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let last = request.client_subnet.map_or(200, |subnet| option_of(&subnet.asked).get(10).copied().unwrap_or(0));
        let sections = match *self.rcode.lock() {
            wire::NOERROR => Sections::answer(&[a(NAME, 60, last)]),
            wire::NXDOMAIN => Sections::authority(&[soa("example.", 60, 60)]),
            _ => Sections::default(),
        };
        let plain = response(NAME, wire::A, *self.rcode.lock(), 0, &sections);
        let response = match (request.client_subnet, *self.scope.lock()) {
            (Some(subnet), Some(scope)) => with_scope(&plain, &subnet.asked, scope),
            (Some(subnet), None) => Response::read_for(plain.wire(), &subnet.asked, true).unwrap(),
            (None, _) => plain,
        };
        Box::pin(async { Ok(Answer { response, from: "upstream" }) })
    }
}

/// The option of a subnet, from its code on.
fn option_of(subnet: &ClientSubnet) -> Vec<u8> {
    let (_, query) = query(NAME, wire::A, 0, Some(false));
    query.key(Some(subnet)).to_upstream(Some(1232))[12 + query.question_key().name.len() + 4 + 11..].to_vec()
}

/// The answer as it comes from upstream, with the option.
fn with_scope(plain: &Response, subnet: &ClientSubnet, scope: u8) -> Response {
    let mut option = option_of(subnet);
    option[7] = scope;
    let mut message = plain.wire().to_vec();
    message[11] += 1;
    message.extend([&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, option.len() as u8][..], &option].concat());
    Response::read_for(&message, subnet, false).unwrap()
}

struct Scene {
    chain: Arc<Chain>,
    upstream: Arc<Tailor>,
    process: ProcessContext,
    start: Instant,
    seconds: u64,
}

impl Scene {
    fn new(scope: Option<u8>) -> Self {
        Self::of(&any_ttl(), scope)
    }
    fn of(config: &Config, scope: Option<u8>) -> Self {
        let process = ProcessContext::new(1, 1 << 20);
        let cache = build(config, &process);
        let upstream = Arc::new(Tailor { scope: Mutex::new(scope), ..Tailor::default() });
        let chain = Arc::new(Chain { handlers: Box::new([cache, upstream.clone()]) });
        Self { chain, upstream, process, start: Instant::now(), seconds: 0 }
    }

    /// Last octet of what a client in 10.1.THIRD.FOURTH is given that tells so many bits of its address, and how many
    /// bits it is for; 0 is given for an answer without records. Without bits: a client that names no subnet.
    fn ask(&self, bits: Option<u8>, [third, fourth]: [u8; 2]) -> (u8, Option<u8>) {
        let (mut wire, _) = query(NAME, wire::A, 0, Some(false));
        if let Some(bits) = bits {
            let octets = [10, 1, third, fourth].split_at(usize::from(bits).div_ceil(8)).0.to_vec();
            let end = wire.len() - 2;
            wire.truncate(end);
            wire.extend(
                [&[0, 8 + octets.len() as u8, 0, 8, 0, 4 + octets.len() as u8, 0, 1, bits, 0][..], &octets].concat(),
            );
        }
        let Ok(query) = Query::read(&wire) else { panic!("a good query") };
        let subnet = KeptSubnet::of(&query, &wire, PrefixLimits::default()).unwrap();
        let peer = Bench::peer();
        let request = Request {
            wire: &wire,
            query: &query,
            peer: &peer,
            server_index: 0,
            zone: 0,
            udp_cap: None,
            client_subnet: subnet.as_ref(),
            nsid: None,
            options: None,
            metadata: None,
            trail: None,
            received: self.start + Duration::from_secs(self.seconds),
            purpose: Purpose::Answer,
            is_cut_later: false,
        };
        let outcome =
            futures_util::FutureExt::now_or_never(self.chain.start().run(request)).expect("it answers at once");
        let response = outcome.unwrap().response;
        let mut reply = Vec::new();
        request.write(&response, &mut reply);
        let last = ReplyFacts::read(&reply).records.first().map_or(0, |(_, last)| *last);
        let scope = bits.map(|bits| {
            let option = reply.len() - 8 - usize::from(bits).div_ceil(8);
            assert_eq!(reply[option..option + 2], [0, 8]);
            reply[option + 7]
        });
        (last, scope)
    }

    fn asked(&self) -> usize {
        self.upstream.asked.load(Ordering::Relaxed)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

#[test]
fn an_answer_made_for_a_network_is_for_all_in_it_and_for_nobody_else() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let scene = Scene::new(Some(20));
    assert_eq!(scene.ask(Some(24), [0x11, 0]), (0x11, Some(20)));
    assert_eq!(scene.ask(Some(24), [0x1f, 0]), (0x11, Some(20)), "10.1.31.0 is in 10.1.16.0/20");
    assert_eq!(scene.ask(Some(32), [0x12, 7]), (0x11, Some(20)), "it tells more than it has to");
    assert_eq!(scene.asked(), 1);
    assert_eq!(scene.ask(Some(24), [0x21, 0]), (0x21, Some(20)), "10.1.33.0 is not");
    assert_eq!(scene.ask(Some(16), [0, 0]), (0, Some(20)), "10.1.0.0/16 is more than 10.1.16.0/20");
    assert_eq!(scene.ask(None, [0, 0]), (200, None));
    assert_eq!(scene.ask(Some(0), [0, 0]), (0, Some(0)));
    assert_eq!(scene.asked(), 5);
    assert_eq!(scene.ask(Some(24), [0x11, 0]).0, 0x11);
    assert_eq!(scene.ask(None, [0, 0]).0, 200);
    assert_eq!(scene.asked(), 5);
    let text = scene.process.registry.encode();
    let counted = |name: &str, value: u32| {
        text.lines().any(|line| line.starts_with(name) && line.ends_with(&format!(" {value}")))
    };
    assert!(counted("coredns_cache_misses_total", 5) && counted("coredns_cache_requests_total", 9), "{text}");
}

#[test]
fn what_is_for_everybody_is_kept_once_and_given_to_all() {
    let runtime = runtime();
    let _entered = runtime.enter();
    // Said so, or not said at all by an upstream that cannot be another.
    for scope in [Some(0), None] {
        let scene = Scene::new(scope);
        assert_eq!(scene.ask(Some(24), [5, 0]), (5, Some(0)));
        assert_eq!(
            (scene.ask(Some(24), [6, 0]), scene.ask(None, [0, 0]), scene.ask(Some(0), [0, 0])),
            ((5, Some(0)), (5, None), (5, Some(0)))
        );
        assert_eq!(scene.asked(), 1);
    }
}

#[test]
fn what_was_drawn_without_a_subnet_is_given_to_nobody_who_names_one_and_what_was_drawn_with_none_to_its_like() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let scene = Scene::new(Some(0));
    assert_eq!(scene.ask(None, [0, 0]), (200, None));
    assert_eq!(scene.ask(Some(0), [0, 0]), (0, Some(0)));
    assert_eq!(scene.ask(Some(24), [5, 0]), (5, Some(0)));
    assert_eq!(scene.asked(), 3);
    assert_eq!((scene.ask(Some(0), [0, 0]).0, scene.asked()), (0, 3));
}

#[test]
fn a_failure_is_kept_for_the_subnet_that_drew_it() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let scene = Scene::new(None);
    *scene.upstream.rcode.lock() = wire::SERVFAIL;
    scene.ask(Some(24), [5, 0]);
    scene.ask(Some(24), [5, 0]);
    assert_eq!(scene.asked(), 1);
    *scene.upstream.rcode.lock() = wire::NOERROR;
    assert_eq!((scene.ask(None, [0, 0]).0, scene.ask(Some(24), [6, 0]).0, scene.asked()), (200, 6, 3));
}

#[test]
fn who_names_a_short_prefix_speaks_for_no_network_in_it() {
    let runtime = runtime();
    let _entered = runtime.enter();
    // An upstream to which 8 bits are too few to choose by, and one that fails.
    for rcode in [wire::NOERROR, wire::SERVFAIL] {
        let scene = Scene::new(Some(24));
        *scene.upstream.rcode.lock() = rcode;
        scene.ask(Some(8), [0, 0]);
        scene.ask(Some(8), [0, 0]);
        assert_eq!(scene.asked(), 1, "it is kept for its like");
        *scene.upstream.rcode.lock() = wire::NOERROR;
        assert_eq!((scene.ask(Some(24), [5, 0]), scene.asked()), ((5, Some(24)), 2), "{rcode}");
    }
}

#[test]
fn a_cache_without_room_for_denials_keeps_none_for_a_subnet() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut config = any_ttl();
    config.capacity[1] = 0;
    let scene = Scene::of(&config, Some(24));
    *scene.upstream.rcode.lock() = wire::NXDOMAIN;
    scene.ask(Some(24), [5, 0]);
    scene.ask(Some(24), [5, 0]);
    assert_eq!(scene.asked(), 2);
}

#[test]
fn a_tailored_answer_is_given_for_as_long_as_it_lives_and_no_longer() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut scene = Scene::new(Some(24));
    scene.ask(Some(24), [5, 0]);
    *scene.upstream.rcode.lock() = wire::NXDOMAIN;
    scene.seconds = 59;
    assert_eq!((scene.ask(Some(24), [5, 0]).0, scene.asked()), (5, 1));
    scene.seconds = 60;
    // The end of the SOA record of a denial.
    assert_eq!((scene.ask(Some(24), [5, 0]).0, scene.asked()), (60, 2));
    assert_eq!((scene.ask(Some(24), [5, 0]).0, scene.asked()), (60, 2), "the newest word holds");
}

#[test]
fn one_client_with_any_number_of_subnets_takes_nothing_from_what_is_kept_for_all() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let scene = Scene::new(Some(24));
    scene.ask(None, [0, 0]);
    for third in 0..=255 {
        scene.ask(Some(24), [third, 0]);
    }
    assert_eq!(scene.asked(), 257);
    assert_eq!((scene.ask(None, [0, 0]).0, scene.asked()), (200, 257));
    let text = scene.process.registry.encode();
    assert!(
        text.lines()
            .any(|line| line.starts_with("coredns_cache_entries") && line.contains("success") && line.ends_with(" 1"))
    );
}

#[test]
fn an_answer_to_a_question_with_options_for_the_upstream_is_for_those_with_the_same_options() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let process = ProcessContext::new(1, 1 << 20);
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = asked.clone();
    // The address's last octet is the number of the question.
    let numbers = responder("numbers", move |request| {
        let last = counts.fetch_add(1, Ordering::Relaxed) as u8;
        let address = RData::A(rdata::A::new(192, 0, 2, last));
        let name = request.query.name.to_name().to_hickory().unwrap();
        let records = [(Section::Answer, Record::from_rdata(name, 60, address))];
        Ok(Response::from_records(request.query, request.wire, Rcode::NOERROR, &records).unwrap())
    });
    let chain = Arc::new(Chain { handlers: Box::new([build(&any_ttl(), &process), numbers]) });
    let (wire, query) = query(NAME, wire::A, 0, Some(false));
    let (peer, received) = (Bench::peer(), Instant::now());
    let ask = |data: Option<&[u8]>| {
        let options = data.map(|data| {
            let mut options = crate::message::UpstreamOptions::default();
            assert!(options.push(65518, data));
            options
        });
        let (server, zone, udp_cap, client_subnet, nsid, purpose) = (0, 0, None, None, None, Purpose::Answer);
        let options = options.as_ref();
        let request = Request {
            wire: &wire,
            query: &query,
            peer: &peer,
            server_index: server,
            zone,
            udp_cap,
            client_subnet,
            nsid,
            options,
            metadata: None,
            trail: None,
            received,
            purpose,
            is_cut_later: false,
        };
        let outcome = futures_util::FutureExt::now_or_never(chain.start().run(request)).expect("it answers at once");
        let response = outcome.unwrap().response;
        response.records().next().map(|record| record.rdata()[3])
    };
    assert_eq!((ask(Some(b"a")), ask(Some(b"b")), ask(None)), (Some(0), Some(1), Some(2)));
    assert_eq!((ask(Some(b"a")), ask(Some(b"b")), ask(None)), (Some(0), Some(1), Some(2)));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}
