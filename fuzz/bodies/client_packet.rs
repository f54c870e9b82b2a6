//! Octets from a client: rejected with a reply that is whole, or read and answered.

use nodelocaldns::message::{Name, PrefixLimits, Query, Rcode, Rejection, ReplyShape, Response, TtlRule, work};

/// Steps that reading a query may take for any message, and for each of its octets: four records at most have a name,
/// of 127 labels and as many pointers each.
const STEPS: usize = 2048;
const STEPS_PER_OCTET: usize = 1;

/// Panics if anything the server relies on does not hold.
pub fn run(octets: &[u8]) {
    let (read, steps) = work::of(|| Query::read(octets));
    assert!(steps <= STEPS + STEPS_PER_OCTET * octets.len(), "{steps} steps for {} octets", octets.len());
    match read {
        Ok(query) => check_query(&query, octets),
        Err(rejection) => check_rejection(&rejection, octets),
    }
}

fn check_rejection(rejection: &Rejection, octets: &[u8]) {
    let mut reply = Vec::new();
    if !rejection.write(octets, &mut reply) {
        assert!(matches!(rejection, Rejection::Drop) && reply.is_empty());
        assert!(octets.len() < 12 || octets[2] & 0x80 != 0, "only a fragment or a response is dropped");
        return;
    }
    assert_eq!(reply[..2], octets[..2], "the ID comes back");
    assert_eq!(reply[2] & 0x80, 0x80, "a reply has the response bit set");
    match rejection {
        Rejection::BadVersion { .. } => assert_eq!(Response::read(&reply).unwrap().rcode(), Rcode::BADVERS),
        _ => assert_eq!(reply.len(), 12),
    }
}

fn check_query(query: &Query, octets: &[u8]) {
    let question = query.question(octets);
    assert_eq!(query.name.as_wire(), question[..question.len() - 4].to_ascii_lowercase());
    let name = Name::parse(&query.name.to_string()).unwrap();
    assert_eq!(name.as_wire(), query.name.as_wire(), "what is displayed parses back");
    assert_eq!(query.name.suffixes().count(), name.label_count() + 1);

    // Whether the block keeps client subnets, or is told of one that cannot be read, and strips them.
    let asked = query.client_subnet(octets).ok().flatten().map(|subnet| subnet.within(PrefixLimits::default()));
    for client_subnet in [None, asked.as_ref()] {
        let key = query.key(client_subnet);
        let upstream = key.to_upstream(query.edns.map(|_| 1232));
        let sent = Query::read(&upstream).unwrap();
        let sent_subnet = sent.client_subnet(&upstream).unwrap();
        let sent_key = sent.key(sent_subnet.as_ref());
        assert_eq!((sent_key, sent.edns.is_some()), (key, query.edns.is_some()));
        assert_eq!(sent_key.to_upstream(sent.edns.map(|_| 1232)), upstream, "there is nothing else in it");
    }

    for rcode in [Rcode::NOERROR, Rcode::SERVFAIL, Rcode(23)] {
        let response = Response::empty(query, octets, rcode);
        let mut reply = Vec::new();
        response.write(query, octets, ReplyShape { ttl: TtlRule::Keep, limit: 512, udp_size: 1232 }, &mut reply);
        assert_eq!((&reply[..2], &reply[12..12 + question.len()]), (&octets[..2], question));
        let answer = Response::read(&reply).unwrap();
        assert!(answer.question_matches(query.name.as_wire(), query.qtype, query.qclass));
        let expected = if rcode.0 > 15 && query.edns.is_none() { Rcode::SERVFAIL } else { rcode };
        assert_eq!(answer.rcode(), expected);
    }
}
