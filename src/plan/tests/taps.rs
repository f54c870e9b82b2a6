//! What is shown of each message to who watches (`query_tap`).

use super::records::Stale;
use super::*;
use crate::query_tap::{FilterText, How, QueryReport, TapFilter, TapReader, WallClock};

fn open(process: &ProcessContext) -> TapReader {
    let filter = TapFilter::read(&FilterText::default()).unwrap();
    process.query_taps.open(filter, true).unwrap()
}

fn shown(reader: &mut TapReader) -> Vec<QueryReport> {
    let clock = WallClock::read();
    std::iter::from_fn(|| reader.next()).map(|query| QueryReport::of(&query, &clock)).collect()
}

/// Those of a worker that shows all.
fn packets() -> PacketCache {
    let packets = PacketCache::default();
    packets.set_tapped(true);
    packets
}

#[tokio::test]
async fn each_hit_is_shown_with_its_reply_and_who_gave_it_and_none_when_nobody_watches() {
    let process = process();
    let plan = plan("test:53 {\n bind 127.0.0.1\n hosts {\n  192.0.2.1 a.test\n }\n}\n", &process);
    let (mut reader, mut packets) = (open(&process), packets());
    let (peer, clock, wire) = (peer(), BatchClock::start(Instant::now()), question("a.test."));
    let mut ask = |times: usize| -> Vec<(bool, Vec<u8>)> {
        let mut one = || {
            let mut out = Vec::new();
            let received = Received { wire: &wire, peer: &peer, clock: &clock };
            match plan.listeners[0].dispatch(received, &mut packets, &mut out) {
                Dispatch::PacketHit(hit) => {
                    plan.listeners[0].count(hit, received, &packets, &out);
                    (true, out)
                }
                Dispatch::Reply => (false, out),
                _ => panic!("it is at hand"),
            }
        };
        (0..times).map(|_| one()).collect()
    };
    let replies = ask(600);
    assert!(replies.iter().filter(|(is_packet, _)| *is_packet).count() > 590);
    let queries = shown(&mut reader);
    assert_eq!(queries.len(), replies.len());
    for (query, (_, reply)) in queries.iter().zip(replies) {
        assert_eq!((query.how, &*query.answered_by, query.name.as_deref()), (How::Local, "hosts", Some("a.test.")));
        assert_eq!(query.decoded(), Some((wire.clone(), reply)));
    }
    reader.close();
    ask(600);
    assert_eq!((shown(&mut reader), reader.take_lost()), (Vec::new(), 0));
}

#[tokio::test]
async fn a_query_that_ends_in_a_panic_or_without_a_place_is_shown_once_and_a_refresh_is_not() {
    for fault in [Fault::FastPath, Fault::Serve, Fault::Future, Fault::Observer] {
        let process = process();
        let mut reader = open(&process);
        let faulty = Arc::new(Faulty(fault));
        let reply = ask(&listener(7, faulty.clone(), vec![faulty], &process), &question("a.example.")).await;
        let queries = shown(&mut reader);
        let [query] = &*queries else { panic!("{fault:?}: {queries:?}") };
        assert_eq!((query.how, query.rcode.as_deref()), (How::Rejected, Some("SERVFAIL")), "{fault:?}");
        assert_eq!(query.decoded().map(|(_, shown)| shown), Some(reply), "{fault:?}");
    }

    let process = process();
    let mut reader = open(&process);
    let listener_of_none = listener(7, Arc::new(Faulty(Fault::Future)), vec![], &process);
    let (peer, clock, wire, mut out) = (peer(), BatchClock::start(Instant::now()), question("a.example."), Vec::new());
    let received = Received { wire: &wire, peer: &peer, clock: &clock };
    match listener_of_none.dispatch(received, &mut packets(), &mut out) {
        Dispatch::Pending(pending) => pending.refuse(&mut out),
        _ => panic!("it is not at hand"),
    }
    let queries = shown(&mut reader);
    let [query] = &*queries else { panic!("{queries:?}") };
    assert_eq!((query.how, query.decoded()), (How::Rejected, Some((wire.clone(), out))));
    assert!(query.reason.as_deref().is_some_and(|reason| reason.starts_with("no place is left")), "{query:?}");

    let stale = listener(8, Arc::new(Stale), vec![], &process);
    let mut reply = Vec::new();
    match stale.dispatch(received, &mut packets(), &mut reply) {
        Dispatch::ReplyAndRefresh(pending) => pending.run(&mut Vec::new()).await,
        _ => panic!("it is to be refreshed"),
    }
    let queries = shown(&mut reader);
    let [query] = &*queries else { panic!("{queries:?}") };
    assert_eq!((&*query.answered_by, query.decoded()), ("stale", Some((wire, reply))));
}
