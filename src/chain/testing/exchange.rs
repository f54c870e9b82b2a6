//! For the tests of observers: exchanges to see, and an output to read.

use crate::chain::{Exchange, Failure, Peer, ProcessContext, Purpose, Request, Transport};
use crate::message::{Name, Query, Rcode, RecordType};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A process with a registry of one worker.
pub(crate) fn process() -> ProcessContext {
    ProcessContext::new(1, 1 << 20)
}

/// An exchange, owned. Made by [`Sample::new`] and then changed by field.
pub(crate) struct Sample {
    pub wire: Vec<u8>,
    pub query: Query,
    pub peer: Peer,
    pub server: usize,
    pub udp_cap: Option<u16>,
    pub received: Instant,
    pub reply: Vec<u8>,
    pub rcode: Rcode,
    pub answered_by: &'static str,
    pub failure: Option<Failure>,
    pub elapsed: Duration,
}

/// A record for [`Sample::reply`]: type and RDATA. Its owner is the question's name, its TTL 60.
pub(crate) type PlainRecord<'a> = (u16, &'a [u8]);

impl Sample {
    /// A query of ID 1 for a name, over UDP from 127.0.0.1:5000 to 127.0.0.1:53, answered NOERROR with nothing by
    /// `forward`.
    pub(crate) fn new(name: &str, qtype: RecordType) -> Self {
        Self::with_edns(name, qtype, None)
    }

    /// The same with an OPT record that states this UDP payload size and DO bit.
    pub(crate) fn with_edns(name: &str, qtype: RecordType, edns: Option<(u16, bool)>) -> Self {
        let mut wire = vec![0, 1, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        wire.extend_from_slice(Name::parse(name).unwrap().as_wire());
        wire.extend_from_slice(&qtype.0.to_be_bytes());
        wire.extend_from_slice(&[0, 1]);
        if let Some((udp_size, dnssec_ok)) = edns {
            wire[11] = 1;
            wire.extend_from_slice(&[0, 0, 41]);
            wire.extend_from_slice(&udp_size.to_be_bytes());
            wire.extend_from_slice(&[0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
        }
        let query = Query::read(&wire).unwrap_or_else(|_| panic!("{name} is a query"));
        let mut sample = Self {
            wire,
            query,
            peer: Peer {
                client: "127.0.0.1:5000".parse().unwrap(),
                local: "127.0.0.1:53".parse().unwrap(),
                transport: Transport::Udp,
            },
            server: 0,
            udp_cap: None,
            received: Instant::now(),
            reply: vec![],
            rcode: Rcode::NOERROR,
            answered_by: "forward",
            failure: None,
            elapsed: Duration::from_micros(1500),
        };
        sample.answer(0x8180, Rcode::NOERROR, &[], &[]);
        sample
    }

    /// Sets the reply: the second word of its header but for the rcode, the rcode, and records of the answer and
    /// authority sections.
    pub(crate) fn answer(
        &mut self,
        flags: u16,
        rcode: Rcode,
        answer: &[PlainRecord<'_>],
        authority: &[PlainRecord<'_>],
    ) {
        let question = self.query.question(&self.wire);
        let mut reply = self.wire[..2].to_vec();
        for word in [flags | rcode.0, 1, answer.len() as u16, authority.len() as u16, 0] {
            reply.extend_from_slice(&word.to_be_bytes());
        }
        reply.extend_from_slice(question);
        for (rtype, rdata) in answer.iter().chain(authority) {
            reply.extend_from_slice(&[0xc0, 12]);
            reply.extend_from_slice(&rtype.to_be_bytes());
            reply.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
            reply.extend_from_slice(&(rdata.len() as u16).to_be_bytes());
            reply.extend_from_slice(rdata);
        }
        (self.reply, self.rcode) = (reply, rcode);
    }

    /// Makes it a failure: nothing answered, and the server says SERVFAIL.
    pub(crate) fn fail(&mut self, cause: &str) {
        self.answer(0x8180, Rcode::SERVFAIL, &[], &[]);
        (self.answered_by, self.failure) = ("", Some(Failure::servfail("forward", cause)));
    }

    pub(crate) fn exchange(&self) -> Exchange<'_> {
        let request = Request {
            wire: &self.wire,
            query: &self.query,
            peer: &self.peer,
            server_index: self.server,
            zone: 0,
            udp_cap: self.udp_cap,
            client_subnet: None,
            nsid: None,
            options: None,
            metadata: None,
            trail: None,
            received: self.received,
            purpose: Purpose::Answer,
            is_cut_later: false,
        };
        Exchange {
            request,
            reply: &self.reply,
            rcode: self.rcode,
            answered_by: self.answered_by,
            failure: self.failure.as_ref(),
            elapsed: self.elapsed,
        }
    }
}

/// An output whose octets can be read while a [`super::LineSink`] writes them.
#[derive(Clone, Default)]
pub(crate) struct SharedOutput(Arc<parking_lot::Mutex<Vec<u8>>>);

impl SharedOutput {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl io::Write for SharedOutput {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
