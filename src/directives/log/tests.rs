use super::class::{LoggedClass, ResponseType};
use super::{Log, Logger, parse};
use crate::chain::testing::{PlainRecord, Sample, SharedOutput, configure};
use crate::chain::{BatchClock, BlockMetadata, LineSink, LogFormat, Observer, PacketHits, Received, Transport};
use crate::message::{Name, Query, Rcode, RecordType};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

const A: PlainRecord<'static> = (1, &[192, 0, 2, 1]);
const NS: PlainRecord<'static> = (2, &[0]);
const SOA: PlainRecord<'static> =
    (6, &[0, 0, 0, 0, 0, 7, 0, 0, 0x1c, 0x20, 0, 0, 3, 0x84, 0, 0x12, 0x75, 0, 0, 0, 0, 60]);

/// What `lines` of a block log for `samples`.
fn log(lines: &str, samples: &[Sample]) -> String {
    log_with(&BlockMetadata::default(), lines, samples)
}

/// The same in a block with this metadata.
fn log_with(metadata: &BlockMetadata, lines: &str, samples: &[Sample]) -> String {
    let (block, diagnostics) = configure(parse, lines);
    assert_eq!(diagnostics, "");
    assert_eq!(block.parts.len(), 1, "one part however many lines");
    let log = <dyn Any>::downcast_ref::<Log>(&*block.parts[0].configured).expect("a Log part");
    let output = SharedOutput::default();
    let sink = Arc::new(LineSink::to(output.clone(), 1 << 16, LogFormat::Text).unwrap());
    let logger = Logger { rules: log.rules.clone().into(), metadata: metadata.clone(), sink: sink.clone() };
    for sample in samples {
        logger.observe(&sample.exchange());
    }
    assert!(sink.flush(Duration::from_secs(30)));
    output.text()
}

fn answered(name: &str, flags: u16, rcode: Rcode, answer: &[PlainRecord<'_>], authority: &[PlainRecord<'_>]) -> Sample {
    let mut sample = Sample::new(name, RecordType::A);
    sample.answer(flags, rcode, answer, authority);
    sample
}
fn success(name: &str) -> Sample {
    answered(name, 0x8180, Rcode::NOERROR, &[A], &[])
}
fn failed(name: &str) -> Sample {
    let mut sample = Sample::new(name, RecordType::A);
    sample.fail("i/o timeout");
    sample
}

#[test]
fn the_default_is_the_common_log_format() {
    let mut sample = Sample::with_edns("A.example.", RecordType::A, Some((1232, false)));
    sample.answer(0x8180, Rcode::NOERROR, &[A], &[]);
    sample.elapsed = Duration::from_nanos(123_456);
    let length = sample.reply.len();
    let expected = format!(
        "[INFO] 127.0.0.1:5000 - 1 \"A IN a.example. udp 38 false 1232\" NOERROR qr,rd,ra {length} 0.000123456s\n"
    );
    assert_eq!(log("log", &[sample]), expected);
}

#[test]
fn a_query_nobody_answered_has_no_code_and_no_size_yet() {
    assert_eq!(
        log("log", &[failed("a.example.")]),
        "[INFO] 127.0.0.1:5000 - 1 \"A IN a.example. udp 27 false 512\" - - 0 0.0015s\n"
    );
}

#[test]
fn every_placeholder_has_its_value() {
    let mut sample = Sample::with_edns("x\\010\\@y.example.", RecordType(65400), Some((4096, true)));
    sample.peer.client = "[2001:db8::1]:4242".parse().unwrap();
    sample.peer.local = "[::ffff:10.0.0.10]:53".parse().unwrap();
    sample.udp_cap = Some(1400);
    sample.answer(0x87f0, Rcode(4), &[], &[]);
    let format = "{type}|{name}|{class}|{proto}|{size}|{remote}|{port}|{local}|{>id}|{>opcode}|{>do}|{>bufsize}|{rcode}|{rsize}|\
                  {duration}|{>rflags}|{/log/type}|{/log/class}|{/kubernetes/pod}";
    let (size, rsize) = (sample.wire.len(), sample.reply.len());
    let expected = format!(
        "[INFO] TYPE65400|x\\010\\@y.example.|IN|udp|{size}|[2001:db8::1]|4242|10.0.0.10|1|0|true|1400|NOTIMP|{rsize}|0.0015s|\
         qr,aa,tc,rd,ra,z,ad,cd|SERVERERROR|error|-\n"
    );
    assert_eq!(log(&format!("log . \"{format}\""), &[sample]), expected);
}

#[test]
fn tcp_offers_the_largest_buffer_and_unassigned_codes_are_numbers() {
    let mut sample = Sample::with_edns("a.example.", RecordType::A, Some((4096, false)));
    sample.peer.transport = Transport::Tcp;
    sample.rcode = Rcode(12);
    assert_eq!(log("log . \"{proto} {>bufsize} {rcode}\"", &[sample]), "[INFO] tcp 65535 12\n");
}

#[test]
fn a_class_whose_mnemonic_is_a_types_too_is_a_number() {
    let mut of_any_class = success("a.example.");
    let end = of_any_class.wire.len();
    of_any_class.wire[end - 2..].copy_from_slice(&[0, 255]);
    of_any_class.query = Query::read(&of_any_class.wire).unwrap();
    assert_eq!(log("log . \"{type} {class}\"", &[of_any_class]), "[INFO] A CLASS255\n");
}

#[test]
fn combined_adds_the_opcode() {
    assert!(log("log . {combined}", &[success("a.example.")]).ends_with("0.0015s \"0\"\n"));
    assert_eq!(log("log . {common}", &[success("a.example.")]), log("log", &[success("a.example.")]));
}

#[test]
fn only_names_in_scope_are_logged() {
    let samples = || ["a.example.", "EXAMPLE.", "example.org.", "notexample."].map(success);
    assert_eq!(
        log("log Example example.org \"{name}\"", &samples()),
        "[INFO] a.example.\n[INFO] example.\n[INFO] example.org.\n"
    );
    assert_eq!(log("log nothing.test", &samples()), "");
}

#[test]
fn the_first_line_whose_name_matches_decides() {
    let lines = "log a.example \"first {name}\" {\n class denial\n}\nlog example \"second {name}\"\nlog";
    let samples = [success("b.a.example."), success("b.example.")];
    assert_eq!(
        log(lines, &samples),
        "[INFO] second b.example.\n",
        "a success within the first line's name is not denied, so not logged"
    );
}

#[test]
fn classes_choose_by_the_kind_of_answer() {
    let samples = || {
        [
            success("success.test."),
            answered("delegation.test.", 0x8180, Rcode::NOERROR, &[], &[NS]),
            answered("nodata.test.", 0x8180, Rcode::NOERROR, &[], &[SOA]),
            answered("nxdomain.test.", 0x8180, Rcode::NXDOMAIN, &[], &[SOA]),
            answered("nosoa.test.", 0x8180, Rcode::NXDOMAIN, &[], &[]),
            answered("refused.test.", 0x8180, Rcode::REFUSED, &[], &[]),
            failed("failed.test."),
        ]
    };
    let logged = |class: &str| log(&format!("log . \"{{name}} {{/log/type}}\" {{\n class {class}\n}}"), &samples());
    assert_eq!(logged("success"), "[INFO] success.test. NOERROR\n[INFO] delegation.test. DELEGATION\n");
    assert_eq!(
        logged("denial"),
        "[INFO] nodata.test. NODATA\n[INFO] nxdomain.test. NXDOMAIN\n[INFO] nosoa.test. NXDOMAIN\n"
    );
    assert_eq!(logged("error"), "[INFO] refused.test. OTHERERROR\n[INFO] failed.test. OTHERERROR\n");
    assert_eq!(logged("denial\n class error").lines().count(), 5);
    assert_eq!(logged("denial all").lines().count(), 7);
}

#[test]
fn signatures_count_only_for_who_asked_for_them() {
    const EXPIRES: u32 = 2_000_000_000;
    const BEGINS: u32 = 1_990_000_000;
    let mut rdata = vec![0, 1, 8, 2, 0, 0, 0, 60];
    rdata.extend_from_slice(&EXPIRES.to_be_bytes());
    rdata.extend_from_slice(&BEGINS.to_be_bytes());
    rdata.extend_from_slice(&[0, 1, 0, 1, 2, 3]);
    for (dnssec_ok, now, class) in [
        (true, BEGINS - 1, LoggedClass::Error),
        (true, BEGINS, LoggedClass::Success),
        (true, EXPIRES, LoggedClass::Success),
        (true, EXPIRES + 1, LoggedClass::Error),
        (false, EXPIRES + 1, LoggedClass::Success),
    ] {
        let mut sample = Sample::with_edns("a.example.", RecordType::A, Some((1232, dnssec_ok)));
        sample.answer(0x8180, Rcode::NOERROR, &[A, (46, &rdata)], &[]);
        assert_eq!(ResponseType::of(&sample.exchange(), now).class(), class, "DO {dnssec_ok} at {now}");
    }
}

#[test]
fn zone_transfers_are_meta() {
    let sample = Sample::new("example.", RecordType::AXFR);
    assert_eq!(ResponseType::of(&sample.exchange(), 0).label(), "META");
}

#[test]
fn wrong_lines_are_told_where_they_stand() {
    for (lines, position, says) in [
        ("  log {\n    class\n  }", "Corefile:3:5:", "at least one"),
        ("  log {\n    class denail\n  }", "Corefile:3:11:", "denial"),
        ("  log {\n    classes all\n  }", "Corefile:3:5:", "class"),
        ("  log a..b", "Corefile:2:7:", "a..b"),
        ("  log \"{remote}\"", "Corefile:2:7:", "log . FORMAT"),
        ("  log . \"{remotee} {name}\"", "Corefile:2:9:", "{remote}"),
    ] {
        let (_, diagnostics) = configure(parse, lines);
        assert!(diagnostics.contains(position) && diagnostics.contains(says), "{lines}\n{diagnostics}");
    }
}

#[test]
fn the_view_is_shown_where_the_block_has_metadata_for_the_name() {
    let metadata = BlockMetadata::new(&[Name::parse("example.").unwrap()], Some("inner".into()));
    let lines = "log . {name}={/view/name},{/kubernetes/pod}";
    let expected = "[INFO] a.example.=inner,-\n[INFO] a.test.=-,-\n";
    assert_eq!(log_with(&metadata, lines, &[success("a.example."), success("a.test.")]), expected);
}

#[test]
fn a_hit_of_the_packet_cache_is_logged_as_a_query_that_came_by_the_whole_chain() {
    let (block, _) = configure(parse, "log . \"{combined} {local} {/log/class}\" {\n class success\n}");
    let log = <dyn Any>::downcast_ref::<Log>(&*block.parts[0].configured).expect("a Log part");
    let output = SharedOutput::default();
    let sink = Arc::new(LineSink::to(output.clone(), 1 << 16, LogFormat::Text).unwrap());
    let logger = Logger { rules: log.rules.clone().into(), metadata: BlockMetadata::default(), sink: sink.clone() };
    let (first, mut second) = (success("a.example."), success("a.example."));
    let PacketHits::Show(prepared) = logger.packet_hits(&first.exchange()) else { panic!("it is logged") };
    second.wire[..2].copy_from_slice(&[0xab, 0xcd]);
    second.query = Query::read(&second.wire).unwrap();
    second.peer.client = ([192, 0, 100, 9], 65_535).into();
    second.elapsed = Duration::from_micros(1_200);
    logger.observe(&second.exchange());
    let clock = BatchClock::start(Instant::now());
    prepared.observe_hit(Received { wire: &second.wire, peer: &second.peer, clock: &clock }, second.elapsed);
    assert!(sink.flush(Duration::from_secs(30)));
    let text = output.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0], lines[1]);
    assert!(
        lines[0].starts_with("[INFO] 192.0.100.9:65535 - 43981 ") && lines[0].contains(" 0.0012s "),
        "{}",
        lines[0]
    );
    let denied = answered("b.example.", 0x8183, Rcode::NXDOMAIN, &[], &[SOA]);
    assert!(matches!(logger.packet_hits(&denied.exchange()), PacketHits::Ignore));
}
