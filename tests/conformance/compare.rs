//! What an answer differs in from what a case expects.

use crate::case::Expectation;
use crate::support::text::{
    format_options, format_rcode, format_record, format_type, parse_class, parse_name, parse_rcode, parse_record,
    parse_type,
};
use hickory_proto::op::{Message, Metadata};
use hickory_proto::rr::Record;

/// Seconds that a TTL may be off, for time goes by while a case runs.
const TTL_TOLERANCE: u32 = 1;

/// An answer with its length on the wire.
pub struct Answer {
    pub message: Message,
    pub octets: usize,
}

/// One line for each difference. AA and the EDNS payload size are not compared.
pub fn differences(want: &Expectation, got: Option<&Answer>) -> Vec<String> {
    let Some(Answer { message, octets }) = got else {
        return if want.timeout { Vec::new() } else { vec![format!("no answer, want {}", describe_want(want))] };
    };
    if want.timeout {
        return vec![format!("want no answer, got {}", describe(message))];
    }
    let mut out = Vec::new();
    let rcode = u16::from(message.metadata.response_code);
    if want.rcode.as_deref().is_some_and(|text| parse_rcode(text) != rcode) {
        out.push(format!("rcode: want {}, got {}", describe_want(want), format_rcode(rcode)));
    }
    if let Some(want) = &want.flags {
        let got = flags(&message.metadata);
        let mut want: Vec<&str> = want.iter().map(String::as_str).collect();
        want.sort_unstable();
        if want != got {
            out.push(format!("flags: want {want:?}, got {got:?}"));
        }
    }
    if let Some(want) = &want.question {
        let same = want.len() == message.queries.len()
            && want.iter().zip(&message.queries).all(|(want, got)| is_question(want, got));
        if !same {
            out.push(format!("question: want {want:?}, got {:?}", questions(message)));
        }
    }
    let sections = [
        ("answer", &want.answer, &message.answers),
        ("authority", &want.authority, &message.authorities),
        ("additional", &want.additional, &message.additionals),
    ];
    for (section, want, got) in sections {
        if let Some(want) = want {
            out.extend(record_differences(section, want, got));
        }
    }
    if let Some(want) = &want.answer_starts {
        out.extend(order_difference(want, &message.answers));
    }
    if let Some(want) = &want.options {
        let mut want = want.clone();
        want.sort_unstable();
        let got = message.edns.as_ref().map(format_options);
        if Some(&want) != got.as_ref() {
            out.push(format!("EDNS options: want {want:?}, got {got:?}"));
        }
    }
    if let Some(want) = &want.edns {
        let (want, got) =
            (want.as_ref().map(|edns| edns.dnssec_ok), message.edns.as_ref().map(|edns| edns.flags().dnssec_ok));
        if want != got {
            out.push(format!("EDNS: want {}, got {}", describe_edns(want), describe_edns(got)));
        }
    }
    if want.size_at_most.is_some_and(|limit| *octets > limit) {
        out.push(format!("size: want at most {:?}, got {octets} octets", want.size_at_most));
    }
    out
}

/// Compares as sets; names without their case; a TTL of `?` is any.
fn record_differences(section: &str, want: &[String], got: &[Record]) -> Vec<String> {
    let mut left: Vec<&Record> = got.iter().collect();
    let mut out = Vec::new();
    for text in want {
        let (record, ttl) = parse_record(text);
        let same = |got: &&Record| is_record(&record, got);
        let fresh = |got: &&Record| ttl.is_none_or(|ttl| ttl.abs_diff(got.ttl) <= TTL_TOLERANCE);
        match left.iter().position(|got| same(got) && fresh(got)).or_else(|| left.iter().position(same)) {
            Some(index) => {
                let got = left.swap_remove(index);
                if !fresh(&got) {
                    out.push(format!("{section}: TTL: want {text}, got {}", format_record(got)));
                }
            }
            None => out.push(format!("{section}: missing {text}")),
        }
    }
    out.extend(left.into_iter().map(|record| format!("{section}: unexpected {}", format_record(record))));
    out
}

/// The answer must start with these records, whatever their TTLs.
fn order_difference(want: &[String], got: &[Record]) -> Option<String> {
    let same = want.iter().zip(got).all(|(want, got)| is_record(&parse_record(want).0, got));
    let told =
        || format!("the answer starts with {:?}, want {want:?}", got.iter().map(format_record).collect::<Vec<_>>());
    (!same || got.len() < want.len()).then(told)
}

/// Whether two records are the same but for their TTL; names without their case.
fn is_record(want: &Record, got: &Record) -> bool {
    got.name == want.name && got.dns_class == want.dns_class && got.data == want.data
}

/// Whether a question is the one written as `a.example. IN A`, in the same case.
fn is_question(want: &str, got: &hickory_proto::op::Query) -> bool {
    let fields: Vec<&str> = want.split(' ').collect();
    let [name, class, rtype] = fields[..] else { panic!("{want:?} is not NAME CLASS TYPE") };
    got.name().eq_case(&parse_name(name))
        && got.query_class() == parse_class(class)
        && got.query_type() == parse_type(rtype)
}

fn flags(metadata: &Metadata) -> Vec<&'static str> {
    let bits = [
        (metadata.authentic_data, "AD"),
        (metadata.checking_disabled, "CD"),
        (metadata.recursion_available, "RA"),
        (metadata.recursion_desired, "RD"),
        (metadata.truncation, "TC"),
    ];
    bits.into_iter().filter_map(|(set, name)| set.then_some(name)).collect()
}

fn questions(message: &Message) -> Vec<String> {
    let text = |query: &hickory_proto::op::Query| {
        format!("{} {} {}", query.name().to_ascii(), query.query_class(), format_type(query.query_type()))
    };
    message.queries.iter().map(text).collect()
}

fn describe(message: &Message) -> String {
    let rcode = format_rcode(u16::from(message.metadata.response_code));
    let records: Vec<String> = message.all_sections().map(format_record).collect();
    format!("{rcode} {:?} {:?} {records:?}", flags(&message.metadata), questions(message))
}

fn describe_want(want: &Expectation) -> &str {
    want.rcode.as_deref().unwrap_or("an answer")
}

fn describe_edns(edns: Option<bool>) -> &'static str {
    match edns {
        None => "no OPT record",
        Some(false) => "an OPT record with DO clear",
        Some(true) => "an OPT record with DO set",
    }
}
