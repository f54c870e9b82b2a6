//! Rules of `rewrite`, and a message: rules are refused or work, and what an answer becomes is whole, within its limit
//! and the same on both paths.

use crate::nowhere::Nowhere;
use nodelocaldns::chain::{BatchClock, Loaders, Peer, ProcessContext, Received, Transport};
use nodelocaldns::corefile::parse;
use nodelocaldns::message::{
    Edit, LowerName, Name, Query, Rcode, RecordType, ReplyShape, Response, TtlRule, edit_reply,
};
use nodelocaldns::plan::{Dispatch, PacketCache, configure};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Instant;

/// The octets up to the first zero are rules, those up to the next a name that is asked for, and the rest is an
/// upstream's answer.
pub fn run(octets: &[u8]) {
    let mut parts = octets.splitn(3, |octet| *octet == 0);
    let [rules, name, answer] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let Ok(name) = Name::parse(&String::from_utf8_lossy(name)) else { return };
    let wire = Query::compose(7, name.as_wire(), RecordType::A, true);
    ask(&String::from_utf8_lossy(rules), &wire);
    change(answer, &wire);
}

/// Whatever the rules, a query that a directive behind them answers has an answer, with its own question.
fn ask(rules: &str, wire: &[u8]) {
    let text = format!(".:53 {{\nbind 127.0.0.1\n{rules}\nwhoami\n}}\n");
    let (tree, read) = parse(Path::new("Corefile"), &text, &Nowhere);
    let (config, said) = configure(&tree, 53, Loaders { files: &Nowhere, interfaces: &Nowhere });
    if read.has_errors() || said.has_errors() {
        return;
    }
    let Ok(plan) = config.build(&ProcessContext::new(1, 1 << 16)) else { return };
    for listener in plan.listeners.iter().filter(|listener| listener.address == ([127, 0, 0, 1], 53).into()) {
        let client = ([127, 0, 0, 1], 4000).into();
        let peer = Peer { client, local: listener.address, transport: Transport::Udp };
        let clock = BatchClock::start(Instant::now());
        let received = Received { wire, peer: &peer, clock: &clock };
        let mut reply = Vec::new();
        if let Dispatch::Pending(pending) = listener.dispatch(received, &mut PacketCache::default(), &mut reply) {
            let mut run = pin!(pending.run(&mut reply));
            if run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                return;
            }
        }
        if !reply.is_empty() {
            assert!(reply.len() <= 512 && reply[12..].starts_with(&wire[12..]), "the client's own question");
        }
    }
}

/// The last label of a name doubled, and all that can be changed changed.
struct Doubled;

impl Edit for Doubled {
    fn owner(&self, name: &LowerName) -> Option<LowerName> {
        LowerName::parse(&format!("x.{name}")).ok()
    }
    fn value(&self, name: &LowerName) -> Option<LowerName> {
        LowerName::parse(&format!("y.{name}")).ok()
    }
    fn ttl(&self, seconds: u32) -> u32 {
        seconds.min(7)
    }
    fn rcode(&self, rcode: Rcode) -> Rcode {
        rcode
    }
}

fn change(answer: &[u8], wire: &[u8]) {
    let (Ok(response), Ok(query)) = (Response::read(answer), Query::read(wire)) else { return };
    let edited = match response.edited(&query, wire, &Doubled) {
        Ok(edited) => edited,
        // Only what grows beyond a message.
        Err(error) => return assert!(answer.len() > 8_000, "{error}"),
    };
    let (mut slow, limit) = (Vec::new(), usize::from(u16::MAX));
    let shape = ReplyShape { ttl: TtlRule::Keep, limit, udp_size: 1232 };
    edited.write(&query, wire, shape, &mut slow);
    assert!(slow[12..].starts_with(&wire[12..]) && Response::read(&slow).is_ok());

    // The same from the reply that the rest of the chain would have written.
    let inner_name = response.question_name();
    let inner_wire = Query::compose(7, inner_name.as_wire(), response.question_type(), true);
    let Ok(inner) = Query::read(&inner_wire) else { return };
    if response.rcode().0 > 0x0f {
        return;
    }
    for limit in [limit, 512] {
        let mut fast = Vec::new();
        response.write(&inner, &inner_wire, ReplyShape { limit, ..shape }, &mut fast);
        edit_reply((&query, wire), &inner.name, &Doubled, limit, &mut fast, 0)
            .expect("a reply of our own is well-formed");
        assert!(fast.len() <= limit);
        let fast = Response::read(&fast).expect("what is changed is well-formed");
        let whole: Vec<_> = edited.records().collect();
        assert!(fast.records().count() <= whole.len());
        for (one, other) in fast.records().zip(whole) {
            assert_eq!((one.owner(), one.rtype, one.ttl), (other.owner(), other.rtype, other.ttl));
            assert_eq!(one.data().ok(), other.data().ok());
        }
    }
}
