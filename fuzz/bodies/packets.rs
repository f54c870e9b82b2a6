//! Packets between watchdog and server, and between one watchdog and the next; what a server asks of the
//! configuration's files, and what has been read for it; and answers to the watchdog's probe. The first octet says
//! which.

use nodelocaldns::app::files::{FileReply, FileRequest, HostSnapshot, SnapshotRecorder};
use nodelocaldns::app::host::ConfigurationSource;
use nodelocaldns::chain::Loaders;
use nodelocaldns::corefile::parse;
use nodelocaldns::message::{Name, Query};
use nodelocaldns::plan::configure;
use nodelocaldns::plan::probe::{self, ProbePath};
use nodelocaldns::watchdog::control::{Instruction, MAX_MESSAGE, Message, MessageError, ServerReport, decode, encode};
use nodelocaldns::watchdog::handover::{PredecessorMessage, SuccessorMessage};
use std::fmt::Debug;
use std::path::Path;

/// Panics if anything that either process relies on does not hold.
pub fn run(octets: &[u8]) {
    let Some((kind, packet)) = octets.split_first() else { return };
    match kind {
        b'r' => check_message::<ServerReport>(packet),
        b'i' => check_message::<Instruction>(packet),
        b'q' => check_message::<SuccessorMessage>(packet),
        b'o' => check_message::<PredecessorMessage>(packet),
        b'a' => check_message::<FileRequest>(packet),
        b'y' => check_message::<FileReply>(packet),
        b'f' => check_record(packet),
        b'p' => check_probe(packet),
        _ => {}
    }
}

/// A message that is understood can be said, unless it is too long for any packet, and is then understood as the same.
fn check_message<M: Message + PartialEq + Debug>(packet: &[u8]) {
    let Ok(message) = decode::<M>(packet) else { return };
    match encode(&message) {
        Ok(next_message) => {
            assert!(next_message.len() <= MAX_MESSAGE);
            assert_eq!(decode::<M>(&next_message).expect("what we say is a message"), message.shortened());
        }
        Err(MessageError::TooLong(length)) => {
            assert!(length > MAX_MESSAGE && packet.len() > MAX_MESSAGE / 8, "{message:?}")
        }
        Err(error) => panic!("{error}"),
    }
}

/// What has been read can be passed on again and then answers as before, as does what is noted of it while a Corefile
/// is loaded from it.
fn check_record(octets: &[u8]) {
    let Ok(record) = serde_json::from_slice::<HostSnapshot>(octets) else { return };
    let said = serde_json::to_vec(&record).expect("a record can be passed on");
    assert_eq!(serde_json::from_slice::<HostSnapshot>(&said).expect("what we say is a record"), record);
    assert!(record.covers(&record));
    let recorder = SnapshotRecorder::new(&record, HostSnapshot::default());
    let told = load(&recorder);
    let mut noted = recorder.finish();
    noted.read_data(&record);
    assert!(told == load(&record), "noting it changes nothing");
    assert!(told == load(&noted), "what was noted is all that is asked");
}

/// What is told of the Corefile that a machine has.
fn load(machine: &dyn ConfigurationSource) -> String {
    let path = Path::new("Corefile");
    let text = match machine.text(path) {
        Ok(text) => text,
        Err(error) => return error.to_string(),
    };
    let (corefile, mut diagnostics) = parse(path, &text, machine);
    let (_, more) = configure(&corefile, 53, Loaders { files: machine, interfaces: machine });
    diagnostics.extend(more);
    diagnostics.render(&corefile.sources)
}

/// Only an answer with the probe's ID and question tells a generation.
fn check_probe(packet: &[u8]) {
    let id = packet.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    for (path, name) in [(ProbePath::Fast, "probe.nodelocaldns."), (ProbePath::Slow, "slow.probe.nodelocaldns.")] {
        if let Some(generation) = probe::read_answer(id, path, packet) {
            assert_eq!(probe::read_answer(id ^ 1, path, packet), None);
            let (question, name) = (probe::question(id, path), Name::parse(name).expect("a good name"));
            let query = Query::read(&question).expect("our own query");
            assert_eq!((query.name.as_wire(), probe::path(&query)), (name.as_wire(), Some(path)));
            assert!(probe::answer(&query, &question, generation).is_some());
        }
    }
}
