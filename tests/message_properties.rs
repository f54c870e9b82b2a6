//! The wire layer against hickory-proto: what one writes the other reads, and no octets make either side of ours panic.

#[path = "../fuzz/bodies/client_packet.rs"]
mod client_packet;
#[path = "../fuzz/bodies/upstream_answer.rs"]
mod upstream_answer;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as HickoryQuery, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, NULL, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name as HickoryName, RData, Record as HickoryRecord, RecordType as HickoryType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use nodelocaldns::message::{Name, NameError, PrefixLimits, Query, Rcode, ReplyShape, Response, Section, TtlRule};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{FailurePersistence, FileFailurePersistence};

/// Few distinct labels, so that names share suffixes and compression has work to do.
fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::sample::select(vec![&b"a"[..], b"B", b"example", b"Example", b"cluster", b"local", b"_tcp"]).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 1..=63),
    ]
}

fn name() -> impl Strategy<Value = HickoryName> {
    vec(label(), 0..=5).prop_filter_map("at most 255 octets", |labels| HickoryName::from_labels(labels).ok()).prop_map(
        |mut name| {
            name.set_fqdn(true);
            name
        },
    )
}

fn data() -> impl Strategy<Value = RData> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| RData::A(A(octets.into()))),
        any::<[u8; 16]>().prop_map(|octets| RData::AAAA(AAAA(octets.into()))),
        name().prop_map(|target| RData::CNAME(CNAME(target))),
        name().prop_map(|target| RData::NS(NS(target))),
        (any::<u16>(), name()).prop_map(|(preference, exchange)| RData::MX(MX::new(preference, exchange))),
        (any::<[u16; 3]>(), name()).prop_map(|([a, b, c], target)| RData::SRV(SRV::new(a, b, c, target))),
        vec(vec(32..127_u8, 0..=60), 1..=3)
            .prop_map(|texts| RData::TXT(TXT::from_bytes(texts.iter().map(Vec::as_slice).collect()))),
        (name(), name(), any::<u32>(), any::<u32>()).prop_map(|(primary, mailbox, serial, minimum)| RData::SOA(
            SOA::new(primary, mailbox, serial, 1, 2, 3, minimum)
        )),
        vec(any::<u8>(), 1..=40)
            .prop_map(|octets| RData::Unknown { code: HickoryType::Unknown(65400), rdata: NULL::with(octets) }),
    ]
}

/// The data of a Client Subnet option: few networks, some of them within others, some not as they must be.
fn client_subnet() -> impl Strategy<Value = Vec<u8>> {
    let address = prop::sample::select(vec![[10, 1, 2, 3], [10, 1, 2, 0x83], [10, 1, 0x80, 0], [0, 0, 0, 0]]);
    let (family, prefix) =
        (prop::sample::select(vec![1, 1, 1, 2, 0, 3]), prop::sample::select(vec![0, 8, 23, 24, 25, 32]));
    (family, prefix, prop::sample::select(vec![0, 0, 0, 24]), address).prop_map(
        |(family, prefix, scope, address): (_, u8, _, [u8; 4])| {
            let octets = usize::from(prefix).div_ceil(8);
            let address =
                (u32::from_be_bytes(address) & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)).to_be_bytes();
            [&[0, family, prefix, scope][..], &address[..octets]].concat()
        },
    )
}

/// A client's query as octets: few questions, and anything that a client may say besides.
fn client_query() -> impl Strategy<Value = Vec<u8>> {
    let question = prop::sample::select(vec![&b"\x01a\x02bc"[..], b"\x01A\x02bC", b"\x01b\x02bc", b"\x04a\x02bc"]);
    let class_and_type = prop::sample::select(vec![[0, 1, 0, 1], [0, 28, 0, 1], [0, 1, 0, 3], [1, 0, 1, 0]]);
    let option = prop_oneof![
        2 => (prop_oneof![0..20_u16, any::<u16>()], vec(any::<u8>(), 0..9)),
        1 => (Just(8), client_subnet()),
    ];
    let options = vec(option, 0..4);
    let opt = prop::option::of((any::<u16>(), any::<[u8; 2]>(), options));
    (any::<u16>(), any::<u16>(), question, class_and_type, opt, any::<bool>(), vec(any::<u8>(), 0..5)).prop_map(
        |(id, flags, name, class_and_type, opt, has_tsig, rest)| {
            let additionals = u8::from(opt.is_some()) + u8::from(has_tsig);
            // No response, and opcode QUERY.
            let mut wire =
                [&id.to_be_bytes()[..], &(flags & 0x07ff).to_be_bytes(), &[0, 1, 0, 0, 0, 0, 0, additionals]].concat();
            wire.extend([name, &[0], &class_and_type].concat());
            if let Some((size, flags, options)) = opt {
                let option = |(code, data): &(u16, Vec<u8>)| {
                    [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
                };
                let data: Vec<u8> = options.iter().flat_map(option).collect();
                wire.extend(
                    [&[0, 0, 41][..], &size.to_be_bytes(), &[0, 0], &flags, &(data.len() as u16).to_be_bytes(), &data]
                        .concat(),
                );
            }
            if has_tsig {
                wire.extend_from_slice(b"\x01k\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x00");
            }
            [wire, rest].concat()
        },
    )
}

fn record() -> impl Strategy<Value = HickoryRecord> {
    (name(), 0..=i32::MAX as u32, data()).prop_map(|(owner, ttl, data)| HickoryRecord::from_rdata(owner, ttl, data))
}

fn edns() -> impl Strategy<Value = Option<Edns>> {
    prop::option::of((any::<u16>(), any::<bool>()).prop_map(|(size, dnssec_ok)| {
        let mut edns = Edns::new();
        edns.set_max_payload(size).set_dnssec_ok(dnssec_ok).set_version(0);
        edns
    }))
}

fn question() -> impl Strategy<Value = HickoryQuery> {
    (name(), prop::sample::select(vec![1_u16, 5, 16, 28, 33, 255, 65400]), prop::sample::select(vec![1_u16, 3, 255]))
        .prop_map(|(name, rtype, class)| {
            let mut question = HickoryQuery::query(name, rtype.into());
            question.set_query_class(DNSClass::from(class));
            question
        })
}

/// An answer as hickory-proto would send it.
fn answer() -> impl Strategy<Value = Message> {
    let sections = (vec(record(), 0..12), vec(record(), 0..4), vec(record(), 0..6));
    (any::<u16>(), any::<[bool; 6]>(), 0..24_u16, question(), sections, edns()).prop_map(
        |(
            id,
            [authoritative, truncation, rd, ra, ad, cd],
            rcode,
            question,
            (answers, authorities, additionals),
            edns,
        )| {
            let mut message = Message::new(id, MessageType::Response, OpCode::Query);
            message.metadata.authoritative = authoritative;
            message.metadata.truncation = truncation;
            message.metadata.recursion_desired = rd;
            message.metadata.recursion_available = ra;
            message.metadata.authentic_data = ad;
            message.metadata.checking_disabled = cd;
            message.metadata.response_code =
                ResponseCode::from(if edns.is_some() { (rcode >> 4) as u8 } else { 0 }, (rcode & 15) as u8);
            message.queries.push(question);
            message.answers = answers;
            message.authorities = authorities;
            message.additionals = additionals;
            message.edns = edns;
            message
        },
    )
}

/// A client's query for the question of `answer`, with its name in a case of its own.
fn query_for(answer: &Message, id: u16, flags: [bool; 3], edns: Option<Edns>) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    [message.metadata.recursion_desired, message.metadata.authentic_data, message.metadata.checking_disabled] = flags;
    let mut question = answer.queries[0].clone();
    let labels: Vec<_> = question.name().iter().map(<[u8]>::to_ascii_uppercase).collect();
    let mut name = HickoryName::from_labels(labels).unwrap();
    name.set_fqdn(true);
    question.set_name(name);
    message.queries.push(question);
    message.edns = edns;
    message.to_vec().unwrap()
}

fn without_compression(message: &Message) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut encoder = BinEncoder::new(&mut octets);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    message.emit(&mut encoder).unwrap();
    octets
}

fn all_records(message: &Message) -> Vec<HickoryRecord> {
    message.all_sections().cloned().collect()
}

const WHOLE: ReplyShape = ReplyShape { ttl: TtlRule::Keep, limit: 65_535, udp_size: 1232 };

fn write(response: &Response, wire: &[u8], reply: ReplyShape) -> Vec<u8> {
    let query = Query::read(wire).unwrap();
    let mut out = Vec::new();
    response.write(&query, wire, reply, &mut out);
    out
}

/// By itself proptest keeps no seeds of what stands in `tests/`.
fn kept_seeds() -> Option<Box<dyn FailurePersistence>> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/message_properties.txt");
    Some(Box::new(FileFailurePersistence::Direct(file)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: kept_seeds(), ..ProptestConfig::default() })]

    #[test]
    fn a_copy_says_what_the_upstream_said(
        upstream in answer(), uncompressed in any::<bool>(), id in any::<u16>(), flags in any::<[bool; 3]>(),
        client_edns in edns()
    ) {
        let octets = if uncompressed { without_compression(&upstream) } else { upstream.to_vec().unwrap() };
        let response = Response::read(&octets).unwrap();
        let wire = query_for(&upstream, id, flags, client_edns.clone());
        let reply = write(&response, &wire, WHOLE);
        let copy = Message::from_vec(&reply).unwrap();
        let asked = Message::from_vec(&wire).unwrap();

        prop_assert_eq!(&copy.answers, &upstream.answers);
        prop_assert_eq!(&copy.authorities, &upstream.authorities);
        prop_assert_eq!(&copy.additionals, &upstream.additionals);
        prop_assert!(copy.queries[0].name().eq_case(asked.queries[0].name()), "the question is spelt as the client spelt it");
        prop_assert_eq!(copy.queries[0].query_type(), upstream.queries[0].query_type());
        let [rd, ad, _] = flags;
        let dnssec_ok = client_edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        prop_assert_eq!((copy.metadata.id, copy.metadata.recursion_desired), (id, rd));
        prop_assert_eq!(copy.metadata.checking_disabled, upstream.metadata.checking_disabled);
        prop_assert_eq!(copy.metadata.authentic_data, upstream.metadata.authentic_data && (ad || dnssec_ok));
        prop_assert_eq!(copy.metadata.authoritative, upstream.metadata.authoritative);
        prop_assert_eq!(copy.metadata.recursion_available, upstream.metadata.recursion_available);
        prop_assert_eq!(copy.metadata.truncation, upstream.metadata.truncation);
        let rcode = u16::from(upstream.metadata.response_code);
        let expected = if rcode > 15 && client_edns.is_none() { Rcode::SERVFAIL.0 } else { rcode };
        prop_assert_eq!(u16::from(copy.metadata.response_code), expected);
        prop_assert_eq!(copy.edns.is_some(), client_edns.is_some());
        if let Some(edns) = &copy.edns {
            prop_assert_eq!((edns.max_payload(), edns.flags().dnssec_ok, edns.version()), (1232, dnssec_ok, 0));
        }
        prop_assert!(reply.len() <= octets.len() + 11, "a copy is no longer than what came but for OPT");
    }

    #[test]
    fn a_cut_copy_keeps_the_limit_and_the_first_records(
        upstream in answer(), client_edns in edns(), limit in 512..1400_usize
    ) {
        let response = Response::read(&upstream.to_vec().unwrap()).unwrap();
        let wire = query_for(&upstream, 1, [true; 3], client_edns);
        let reply = write(&response, &wire, ReplyShape { limit, ..WHOLE });
        prop_assert!(reply.len() <= limit);
        let whole = write(&response, &wire, WHOLE);
        if whole.len() <= limit {
            prop_assert_eq!(reply, whole);
        } else {
            let copy = Message::from_vec(&reply).unwrap();
            prop_assert!(copy.metadata.truncation);
            let (kept, all) = (all_records(&copy), all_records(&upstream));
            prop_assert!(kept.len() < all.len());
            prop_assert_eq!(&kept[..], &all[..kept.len()]);
        }
    }

    #[test]
    fn a_rule_sets_every_ttl_and_nothing_else(upstream in answer(), seconds in any::<u32>()) {
        let mut response = Response::read(&upstream.to_vec().unwrap()).unwrap();
        let wire = query_for(&upstream, 1, [true; 3], Some(Edns::new()));
        let shape = ReplyShape { ttl: TtlRule::Set(seconds), ..WHOLE };
        let set = Message::from_vec(&write(&response, &wire, shape)).unwrap();
        let mut expected = all_records(&upstream);
        expected.iter_mut().for_each(|record| record.ttl = seconds);
        prop_assert_eq!(all_records(&set), expected);
        response.set_ttls(seconds);
        prop_assert_eq!(all_records(&Message::from_vec(&write(&response, &wire, WHOLE)).unwrap()), all_records(&set));
    }

    #[test]
    fn records_are_listed_as_hickory_decodes_them(upstream in answer()) {
        let response = Response::read(&upstream.to_vec().unwrap()).unwrap();
        let theirs = [
            (Section::Answer, &upstream.answers), (Section::Authority, &upstream.authorities),
            (Section::Additional, &upstream.additionals),
        ];
        let theirs = theirs
            .into_iter()
            .flat_map(|(section, records)| records.iter().map(move |record| (section, record)))
            .collect::<Vec<_>>();
        prop_assert_eq!(response.records().count(), theirs.len());
        for (ours, (section, theirs)) in response.records().zip(theirs) {
            prop_assert_eq!((ours.section, ours.ttl, ours.rtype.0), (section, theirs.ttl, theirs.record_type().into()));
            prop_assert_eq!(&ours.owner().to_hickory().unwrap(), &theirs.name);
            let minimum = if let RData::SOA(soa) = &theirs.data { Some(soa.minimum) } else { None };
            prop_assert_eq!(ours.soa_minimum(), minimum);
        }
    }

    #[test]
    fn an_answer_goes_through_hickory_and_back(upstream in answer()) {
        let response = Response::read(&upstream.to_vec().unwrap()).unwrap();
        let message = response.to_message().unwrap();
        let again = Response::from_message(&message).unwrap();
        prop_assert_eq!(again.rcode(), response.rcode());
        prop_assert_eq!(again.to_message().unwrap(), message);
    }

    #[test]
    fn a_query_is_read_as_hickory_wrote_it(
        question in question(), id in any::<u16>(), flags in any::<[bool; 3]>(), client_edns in edns()
    ) {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        let header = &mut message.metadata;
        [header.recursion_desired, header.authentic_data, header.checking_disabled] = flags;
        message.queries.push(question.clone());
        message.edns = client_edns.clone();
        let wire = message.to_vec().unwrap();
        let query = Query::read(&wire).unwrap();
        prop_assert_eq!(query.header.id, id);
        prop_assert_eq!(
            [query.header.recursion_desired(), query.header.authentic_data(), query.header.checking_disabled()],
            flags
        );
        prop_assert_eq!(&query.name.to_name().to_hickory().unwrap(), &question.name().to_lowercase());
        prop_assert_eq!((query.qtype.0, query.qclass.0), (question.query_type().into(), question.query_class().into()));
        prop_assert_eq!(
            query.edns.map(|edns| (edns.udp_size, edns.dnssec_ok)),
            client_edns.map(|edns| (edns.max_payload(), edns.flags().dnssec_ok))
        );
        let upstream = Message::from_vec(&query.key(None).to_upstream(query.edns.map(|_| 1232))).unwrap();
        prop_assert_eq!(&upstream.queries, &message.queries);
        prop_assert_eq!(upstream.edns.is_some(), message.edns.is_some());
    }

    #[test]
    fn two_queries_with_the_same_key_draw_the_same_answer_and_two_with_different_keys_are_asked_apart(
        wires in vec(client_query(), 24), limits in prop::option::of((0..=32_u8, 0..=128_u8))
    ) {
        let queries: Vec<_> = wires.iter().map(|wire| Query::read(wire).unwrap()).collect();
        // In a block that keeps client subnets, or in another; one that is malformed is answered FORMERR there.
        let subnet_of = |(query, wire): (&Query, &Vec<u8>)| {
            let (ipv4, ipv6) = limits?;
            Some(query.client_subnet(wire).ok()??.within(PrefixLimits { ipv4, ipv6 }))
        };
        let subnets: Vec<_> = queries.iter().zip(&wires).map(subnet_of).collect();
        let keys: Vec<_> = queries.iter().zip(&subnets).map(|(query, subnet)| query.key(subnet.as_ref())).collect();
        for (index, one) in keys.iter().enumerate() {
            for other in &keys[index..] {
                let is_same = one == other;
                prop_assert_eq!(one.octets() == other.octets(), is_same);
                prop_assert_eq!(one.octets().starts_with(&other.octets()), is_same);
                // An upstream sees nothing else of either.
                prop_assert_eq!(one.to_upstream(Some(1232)) == other.to_upstream(Some(1232)), is_same);
                prop_assert!(!is_same || one.to_upstream(None) == other.to_upstream(None));
            }
        }
    }

    #[test]
    fn a_displayed_name_parses_back(octets in vec(label(), 0..=5)) {
        let mut wire: Vec<u8> = Vec::new();
        for label in &octets {
            wire.push(label.len() as u8);
            wire.extend_from_slice(label);
        }
        wire.push(0);
        prop_assume!(wire.len() <= 255);
        let (name, after) = Name::read(&wire, 0).unwrap();
        prop_assert_eq!((name.as_wire(), after), (&wire[..], wire.len()));
        let text = name.to_string();
        prop_assert!(text.is_ascii() && text.ends_with('.'));
        let parsed = Name::parse(&text).unwrap();
        prop_assert_eq!(parsed.as_wire(), &wire[..]);
    }

    #[test]
    fn any_text_is_a_name_or_refused(text in ".{0,300}") {
        match Name::parse(&text) {
            Ok(name) => prop_assert_eq!(Name::parse(&name.to_string()), Ok(name)),
            Err(NameError::LabelTooLong(length)) => prop_assert!(length > 63),
            Err(_) => (),
        }
    }

    #[test]
    fn random_octets_never_panic(octets in vec(any::<u8>(), 0..600)) {
        client_packet::run(&octets);
        upstream_answer::run(&octets);
    }

    #[test]
    fn random_octets_behind_a_plausible_header_never_panic(
        flags in any::<u16>(), counts in any::<[u8; 3]>(),
        octets in vec(prop_oneof![Just(0), Just(0xc0), Just(12), 1..64_u8, any::<u8>()], 0..300)
    ) {
        let [answers, authorities, additionals] = counts.map(|count| count % 4);
        let [high, low] = (flags & !0x7800).to_be_bytes();
        let wire = [&[0, 1, high, low, 0, 1, 0, answers, 0, authorities, 0, additionals][..], &octets].concat();
        client_packet::run(&wire);
        upstream_answer::run(&wire);
    }

    #[test]
    fn mutated_messages_never_panic(
        upstream in answer(), client_edns in edns(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), end in any::<prop::sample::Index>(),
        cut in any::<bool>()
    ) {
        for octets in [upstream.to_vec().unwrap(), query_for(&upstream, 1, [true; 3], client_edns)] {
            let mut octets = octets;
            for (index, value) in &changes {
                let index = index.index(octets.len());
                octets[index] = *value;
            }
            if cut {
                octets.truncate(end.index(octets.len()));
            }
            client_packet::run(&octets);
            upstream_answer::run(&octets);
        }
    }
}
