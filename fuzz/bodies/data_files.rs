//! Files that directives read again while they serve. The first octet says which: `h`, a hosts file after a line with a
//! name that is looked up in it; `w`, weights of `loadbalance`; `a`, a reply, whose addresses are put into order.

use nodelocaldns::directives::{hosts, loadbalance};
use nodelocaldns::message::{Name, RecordType, Response};

/// Panics if a file costs more than it has octets, or if a reply says anything else once it is put into order.
pub fn run(octets: &[u8]) {
    match octets.split_first() {
        Some((b'h', rest)) => hosts_file(&String::from_utf8_lossy(rest)),
        Some((b'w', rest)) => _ = loadbalance::read_weights(&String::from_utf8_lossy(rest)),
        Some((b'a', rest)) => reply(rest),
        _ => {}
    }
}

fn hosts_file(text: &str) {
    let (name, text) = text.split_once('\n').unwrap_or(("", text));
    let Ok(name) = Name::parse(name) else { return };
    let (addresses, names, is_there) = hosts::read_and_look_up(text, &name.to_lower());
    assert!(is_there || addresses == 0, "what has an address is there");
    assert!(addresses + names <= text.len(), "no more is found than is written");
}

fn reply(octets: &[u8]) {
    let mut arranged = octets.to_vec();
    loadbalance::shuffle_reply(&mut arranged);
    assert!(arranged.len() <= octets.len(), "it fits as it did");
    let (Ok(before), Ok(after)) = (Response::read(octets), Response::read(&arranged)) else { return };
    // A name that borrows the octets of an address may become another; of a reply without such the records are the
    // same.
    let records = |response: &Response| {
        let mut records: Vec<_> =
            response.records().map(|record| (record.section as u8, record.rtype, record.rdata().len())).collect();
        records.sort_unstable();
        records.retain(|(_, rtype, _)| matches!(*rtype, RecordType::A | RecordType::AAAA));
        records
    };
    assert_eq!(records(&before), records(&after));
}
