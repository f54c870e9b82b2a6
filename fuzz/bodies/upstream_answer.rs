//! Octets from an upstream: refused, or an answer whose copies for clients are whole and say the same.

use nodelocaldns::directives::cache::classify;
use nodelocaldns::message::{Data, Name, Query, Record, ReplyShape, Response, TtlRule, work};

/// Steps that an answer may take to be read, judged, or written for a client, for any message and for each of its
/// octets.
const STEPS: usize = 8192;
const STEPS_PER_OCTET: usize = 8;

/// A record as a client sees it: section, owner, type, class, TTL, data.
type Seen<'a> = (u8, Name, u16, u16, u32, Data<'a>);

/// What `task` gives, if that takes no more steps than a message of so many octets may cost.
fn within_bounds<T>(octets: usize, task: impl FnOnce() -> T) -> T {
    let (done, steps) = work::of(task);
    assert!(steps <= STEPS + STEPS_PER_OCTET * octets, "{steps} steps for {octets} octets");
    done
}

/// Panics if anything the server relies on does not hold.
pub fn run(octets: &[u8]) {
    let Ok(mut response) = within_bounds(octets.len(), || Response::read(octets)) else { return };
    within_bounds(octets.len(), || classify(&response, || 0));
    let again = Response::read(response.wire()).expect("what was accepted is accepted again");
    assert!(seen(&again) == seen(&response), "and says the same");
    assert_eq!(again.wire()[2..12], response.wire()[2..12]);
    assert!(response.records().all(|record| record.ttl <= i32::MAX as u32));
    let _ = response.to_message();

    let name = response.question_name();
    let stored = seen(&response);
    let (answers, authorities) = (response.answer_count(), response.authority_count());
    assert_eq!(stored.iter().filter(|record| record.0 == 0).count(), answers);
    assert_eq!(stored.iter().filter(|record| record.0 == 1).count(), authorities);
    for asked in [name.as_wire(), b"\x05Other\x00", b"\x00"] {
        for opt in [false, true] {
            for limit in [512, 1232, 65_535] {
                check_copy(&response, asked, opt, limit, &stored);
            }
        }
    }
    let unset = response.clone();
    response.set_ttls(7);
    for (set, unset) in seen(&response).into_iter().zip(seen(&unset)) {
        let (section, owner, rtype, class, _, data) = unset;
        assert_eq!(set, (section, owner, rtype, class, 7, data), "setting TTLs changes nothing else");
    }
}

fn check_copy(response: &Response, asked: &[u8], opt: bool, limit: usize, stored: &[Seen<'_>]) {
    let mut wire = Query::compose(0xabcd, asked, response.question_type(), true);
    if opt {
        wire[11] = 1;
        wire.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    }
    let Ok(query) = Query::read(&wire) else { panic!("our own query is well-formed") };
    let mut reply = Vec::new();
    let shape = ReplyShape { ttl: TtlRule::Set(3), limit, udp_size: 1232 };
    within_bounds(response.wire().len(), || response.write(&query, &wire, shape, &mut reply));
    assert!(reply.len() <= limit);
    assert_eq!((&reply[..2], &reply[12..query.question_end.into()]), (&[0xab, 0xcd][..], query.question(&wire)));
    let copy = Response::read(&reply).expect("a copy is a whole message");
    assert_eq!(copy.dnssec_ok(), opt);
    let copied = seen(&copy);
    assert!(copied.len() == stored.len() || copy.is_truncated(), "records are only missing with TC set");
    for (copied, stored) in copied.iter().zip(stored) {
        let (section, owner, rtype, class, _, data) = stored;
        assert!(*copied == (*section, owner.clone(), *rtype, *class, 3, data.clone()), "{copied:?} was {stored:?}");
    }
}

fn seen(response: &Response) -> Vec<Seen<'_>> {
    response.records().map(see).collect()
}

fn see(record: Record<'_>) -> Seen<'_> {
    let data = record.data().expect("checked data");
    (record.section as u8, record.owner(), record.rtype.0, record.class.0, record.ttl, data)
}
