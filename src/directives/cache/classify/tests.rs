use super::super::wire::{self, Sections, a, cname, record, response, soa};
use super::*;
use crate::message::{hostile, work};

const NOW: u32 = 1_700_000_000;

fn class_of(qtype: u16, rcode: u16, sections: &Sections) -> ResponseClass {
    classify(&response("a.example.", qtype, rcode, 0, sections), || NOW).class
}

#[test]
fn an_answer_with_the_asked_type_is_positive() {
    let verdict = classify(
        &response("A.Example.", wire::A, wire::NOERROR, 0, &Sections::answer(&[a("a.exAMPLE.", 60, 1)])),
        || NOW,
    );
    assert_eq!(verdict, Classification { class: ResponseClass::Positive, answering: true });
}

#[test]
fn a_cname_chain_answers_only_if_it_ends_in_the_asked_type() {
    let chain = [cname("b.example.", 60, "c.example."), cname("a.example.", 60, "b.example."), a("c.example.", 60, 1)];
    assert_eq!(class_of(wire::A, wire::NOERROR, &Sections::answer(&chain)), ResponseClass::Positive);
    assert_eq!(class_of(wire::A, wire::NOERROR, &Sections::answer(&chain[..2])), ResponseClass::Incomplete);
    assert_eq!(class_of(wire::AAAA, wire::NOERROR, &Sections::answer(&chain)), ResponseClass::Incomplete);
    assert_eq!(class_of(wire::CNAME, wire::NOERROR, &Sections::answer(&chain[1..2])), ResponseClass::Positive);
    let denial = Sections { authority: vec![soa("example.", 60, 60)], ..Sections::answer(&chain[..2]) };
    assert_eq!(class_of(wire::A, wire::NOERROR, &denial), ResponseClass::NoData);
}

#[test]
fn a_chain_in_a_circle_or_with_two_targets_answers_nothing() {
    let circle = [cname("a.example.", 60, "b.example."), cname("b.example.", 60, "a.example.")];
    assert_eq!(class_of(wire::A, wire::NOERROR, &Sections::answer(&circle)), ResponseClass::Incomplete);
    let two = [cname("a.example.", 60, "b.example."), cname("a.example.", 60, "c.example."), a("b.example.", 60, 1)];
    assert_eq!(class_of(wire::A, wire::NOERROR, &Sections::answer(&two)), ResponseClass::Incomplete);
    let twice_the_same =
        [cname("a.example.", 60, "b.example."), cname("a.example.", 60, "B.example."), a("b.example.", 60, 1)];
    assert_eq!(class_of(wire::A, wire::NOERROR, &Sections::answer(&twice_the_same)), ResponseClass::Positive);
}

/// The question and so many aliases, then an address.
fn aliases(count: usize) -> Vec<Vec<u8>> {
    let name = |number: usize| if number == 0 { "a.example.".to_owned() } else { format!("{number}.example.") };
    let mut records: Vec<_> = (0..count).map(|number| cname(&name(number), 60, &name(number + 1))).collect();
    records.push(a(&name(count), 60, 1));
    records
}

#[test]
fn a_dozen_aliases_are_followed_and_an_answer_with_more_is_not_kept_whatever_else_it_says() {
    assert_eq!(class_of(wire::A, wire::NOERROR, &Sections::answer(&aliases(MAX_ALIASES))), ResponseClass::Positive);
    let longer = Sections::answer(&aliases(MAX_ALIASES + 1));
    let with_soa = Sections { authority: vec![soa("example.", 60, 60)], ..longer.clone() };
    for sections in [longer, with_soa] {
        let verdict = classify(&response("a.example.", wire::A, wire::NOERROR, 0, &sections), || NOW);
        assert_eq!(verdict, Classification { class: ResponseClass::Incomplete, answering: false });
        assert_eq!(verdict.class.kind(), None);
    }
}

#[test]
fn the_order_of_a_chain_does_not_matter() {
    let mut records = aliases(MAX_ALIASES);
    records.reverse();
    assert_eq!(class_of(wire::A, wire::NOERROR, &Sections::answer(&records)), ResponseClass::Positive);
}

#[test]
fn judging_takes_steps_in_proportion_to_an_answers_octets_whatever_it_holds() {
    for hostile::Hostile { kind, wire } in hostile::answers() {
        let Ok(response) = Response::read(&wire) else { continue };
        let (verdict, steps) = work::of(|| classify(&response, || NOW));
        assert!(steps <= 5 * wire.len(), "{kind}: {steps} steps for {} octets, {verdict:?}", wire.len());
    }
}

#[test]
fn any_is_answered_by_a_record_at_the_name() {
    let hinfo = Sections::answer(&[record("a.example.", 13, 60, b"\x07RFC8482\x00")]);
    assert_eq!(class_of(wire::ANY, wire::NOERROR, &hinfo), ResponseClass::Positive);
    let elsewhere = Sections::answer(&[a("b.example.", 60, 1)]);
    assert_eq!(class_of(wire::ANY, wire::NOERROR, &elsewhere), ResponseClass::Incomplete);
}

#[test]
fn denials_need_an_soa_record() {
    let with = Sections::authority(&[soa("example.", 60, 60)]);
    let without = Sections::default();
    assert_eq!(class_of(wire::A, wire::NXDOMAIN, &with), ResponseClass::NameError);
    assert_eq!(class_of(wire::A, wire::NXDOMAIN, &without), ResponseClass::Other);
    assert_eq!(class_of(wire::A, wire::NOERROR, &with), ResponseClass::NoData);
    assert_eq!(class_of(wire::A, wire::NOERROR, &without), ResponseClass::Positive);
    let alias = Sections { answer: vec![cname("a.example.", 60, "nx.example.")], ..with };
    assert_eq!(
        class_of(wire::A, wire::NXDOMAIN, &alias),
        ResponseClass::NameError,
        "the chain's end does not exist (RFC 2308 section 2.1)"
    );
}

#[test]
fn a_referral_is_a_delegation() {
    let referral = Sections::authority(&[record("example.", wire::NS, 3600, &wire::name("ns.example."))]);
    assert_eq!(class_of(wire::A, wire::NOERROR, &referral), ResponseClass::Referral);
}

#[test]
fn other_codes_and_transfers_are_not_kept() {
    for (rcode, class) in [
        (wire::SERVFAIL, ResponseClass::ServerError),
        (wire::NOTIMP, ResponseClass::ServerError),
        (wire::REFUSED, ResponseClass::Other),
        (1, ResponseClass::Other),
    ] {
        assert_eq!(class_of(wire::A, rcode, &Sections::default()), class);
    }
    assert_eq!(class_of(252, wire::NOERROR, &Sections::answer(&[soa("a.example.", 60, 60)])), ResponseClass::Other);
    assert_eq!(ResponseClass::Other.kind(), None);
    assert_eq!(ResponseClass::Incomplete.kind(), None);
}

#[test]
fn a_signature_out_of_its_time_matters_with_do() {
    let signature = |inception: u32, expiration: u32| {
        let fixed =
            [&[0, 1, 8, 2][..], &60_u32.to_be_bytes(), &expiration.to_be_bytes(), &inception.to_be_bytes(), &[0, 1]]
                .concat();
        record("a.example.", wire::RRSIG, 60, &[fixed, wire::name("example."), vec![1, 2, 3]].concat())
    };
    let judged = |signature: Vec<u8>, dnssec_ok: bool| {
        let sections = Sections {
            additional: vec![wire::opt(dnssec_ok)],
            ..Sections::answer(&[a("a.example.", 60, 1), signature])
        };
        class_of(wire::A, wire::NOERROR, &sections)
    };
    assert_eq!(judged(signature(NOW - 10, NOW + 10), true), ResponseClass::Positive);
    assert_eq!(judged(signature(NOW, NOW), true), ResponseClass::Positive);
    assert_eq!(judged(signature(NOW - 10, NOW - 1), true), ResponseClass::Other);
    assert_eq!(judged(signature(NOW + 1, NOW + 10), true), ResponseClass::Other);
    assert_eq!(judged(signature(NOW - 10, NOW - 1), false), ResponseClass::Positive);
    assert_eq!(
        judged(signature(NOW - 10, NOW.wrapping_add(0x7fff_ffff)), true),
        ResponseClass::Positive,
        "serial numbers wrap"
    );
}

fn life(class: ResponseClass, lifetimes: &Lifetimes, sections: &Sections) -> u32 {
    lifetimes.of(class, &response("a.example.", wire::A, wire::NOERROR, 0, sections))
}

#[test]
fn an_answer_lives_as_long_as_its_smallest_ttl_within_the_bounds() {
    let defaults = Lifetimes::default();
    let with = |ttl| Sections::answer(&[a("a.example.", 300, 1), a("a.example.", ttl, 2)]);
    assert_eq!(life(ResponseClass::Positive, &defaults, &with(60)), 60);
    assert_eq!(life(ResponseClass::Positive, &defaults, &with(900)), 300);
    assert_eq!(life(ResponseClass::Positive, &defaults, &with(0)), 5);
    let long = Sections::answer(&[a("a.example.", 86_400, 1)]);
    assert_eq!(life(ResponseClass::Positive, &defaults, &long), 3600);
    let additional = Sections { additional: vec![a("b.example.", 7, 1)], ..with(60) };
    assert_eq!(life(ResponseClass::Positive, &defaults, &additional), 7);
    let contradicting = Lifetimes { success: TtlBounds { longest: 2, shortest: 10 }, ..defaults };
    assert_eq!(life(ResponseClass::Positive, &contradicting, &long), 2, "the longest wins, as in the reference");
    let no_minimum = Lifetimes { success: TtlBounds { longest: 300, shortest: 0 }, ..defaults };
    assert_eq!(life(ResponseClass::Positive, &no_minimum, &with(0)), 0);
}

#[test]
fn a_denial_lives_as_long_as_its_soa_says() {
    let defaults = Lifetimes::default();
    assert_eq!(life(ResponseClass::NameError, &defaults, &Sections::authority(&[soa("example.", 60, 300)])), 60);
    assert_eq!(
        life(ResponseClass::NoData, &defaults, &Sections::authority(&[soa("example.", 3600, 30)])),
        30,
        "RFC 2308 section 5"
    );
    assert_eq!(life(ResponseClass::NameError, &defaults, &Sections::authority(&[soa("example.", 9999, 9999)])), 1800);
}

#[test]
fn what_has_no_ttl_to_go_by_lives_five_seconds() {
    let defaults = Lifetimes::default();
    assert_eq!(life(ResponseClass::Positive, &defaults, &Sections::default()), 5);
    let referral = Sections::authority(&[record("example.", wire::NS, 3600, &wire::name("ns.example."))]);
    assert_eq!(life(ResponseClass::Referral, &defaults, &referral), 5);
    assert_eq!(life(ResponseClass::ServerError, &defaults, &Sections::default()), 5);
    let none = Lifetimes { server_error: 0, ..defaults };
    assert_eq!(life(ResponseClass::ServerError, &none, &Sections::default()), 0);
}
