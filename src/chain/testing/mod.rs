//! What the tests of directives share: a block read from text, and a chain asked one question.

mod exchange;

pub(crate) use exchange::{PlainRecord, Sample, SharedOutput, process};

use super::{
    Answer, BlockConfig, BuildContext, Built, Chain, Course, Endpoint, Explanation, Failure, FastPath, Following,
    Handler, HttpAnswer, HttpAnswers, Interfaces, Loaders, Next, Outcome, Parse, ParseContext, Peer, ProcessContext,
    Request, Transport,
};
use crate::corefile::{self, Diagnostics, Loader};
use crate::go_regex::Patterns;
use crate::message::{Name, Query, Rcode, RecordType, Response, TtlRule};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// No files, no environment, no interfaces.
pub(crate) struct Nowhere;

impl Loader for Nowhere {
    fn read(&self, path: &Path) -> io::Result<String> {
        Err(io::Error::new(io::ErrorKind::NotFound, path.display().to_string()))
    }
    fn glob(&self, _pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
    fn environment(&self, _name: &str) -> Option<String> {
        None
    }
}

impl Interfaces for Nowhere {
    fn addresses(&self, _name: &str) -> Option<Vec<IpAddr>> {
        None
    }
}

/// Reads the directives between the braces of a block for the root zone; also what the diagnostics print.
pub(crate) fn configure(parse: Parse, directives: &str) -> (BlockConfig, String) {
    configure_on(&Nowhere, parse, directives)
}

/// As [`configure`], on a machine with these interfaces.
pub(crate) fn configure_on(interfaces: &dyn Interfaces, parse: Parse, directives: &str) -> (BlockConfig, String) {
    configure_from(Loaders { files: &Nowhere, interfaces }, parse, directives)
}

/// As [`configure`], on a machine with these files.
pub(crate) fn configure_with(files: &dyn Loader, parse: Parse, directives: &str) -> (BlockConfig, String) {
    configure_from(Loaders { files, interfaces: &Nowhere }, parse, directives)
}

fn configure_from(loaders: Loaders<'_>, parse: Parse, directives: &str) -> (BlockConfig, String) {
    let (tree, mut diagnostics) =
        corefile::parse(Path::new("Corefile"), &format!(".:53 {{\n{directives}\n}}\n"), &Nowhere);
    let (mut block, patterns) = (BlockConfig::default(), Patterns::default());
    for server_block in &tree.blocks {
        let zones: Vec<Name> = server_block.keys.iter().map(|key| key.zone.clone()).collect();
        for directive in &server_block.directives {
            let diagnostics = &mut diagnostics;
            parse(
                directive,
                &mut block,
                &mut ParseContext { diagnostics, loaders, zones: &zones, patterns: &patterns },
            );
        }
    }
    (block, print(&diagnostics, &tree.sources))
}

fn print(diagnostics: &Diagnostics, sources: &corefile::Sources) -> String {
    diagnostics.render(sources)
}

/// Builds the only part of `block` for the root zone on `dns://127.0.0.1:53`.
pub(crate) fn build(block: &BlockConfig, process: &ProcessContext) -> Built {
    let [part] = block.parts.as_slice() else { panic!("{} parts where one is tested", block.parts.len()) };
    let zone = Name::root();
    let servers = ["dns://127.0.0.1:53".to_owned()];
    let block_zones = std::slice::from_ref(&zone);
    let context = BuildContext::new(block_zones, &servers, process);
    part.configured.build(&context).expect("the part is built")
}

/// What an endpoint answers whoever asks now.
pub(crate) fn shared_answer(endpoint: &Endpoint) -> HttpAnswer {
    match &endpoint.answers {
        HttpAnswers::Shared(answer) => answer().now_or_never().expect("it waits for nobody"),
        HttpAnswers::ByPlace { here, .. } => here().now_or_never().expect("it waits for nobody"),
        HttpAnswers::Document(_) => panic!("{} has no answer that is made", endpoint.path),
        HttpAnswers::ForEach(_) => panic!("{} has an answer for each request", endpoint.path),
    }
}

/// A question and who asks it.
pub(crate) struct Question {
    pub wire: Vec<u8>,
    pub query: Query,
    pub peer: Peer,
}

impl Question {
    /// Class IN over UDP from 10.240.0.1:40212.
    pub(crate) fn new(name: &str, qtype: RecordType) -> Self {
        let name = Name::parse(name).expect("a test's name is well-formed");
        Self::from_wire(Query::compose(1, name.as_wire(), qtype, true))
    }
    pub(crate) fn from_wire(wire: Vec<u8>) -> Self {
        let Ok(query) = Query::read(&wire) else { panic!("a test's query is well-formed") };
        let peer = Peer {
            client: ([10, 240, 0, 1], 40212).into(),
            local: ([127, 0, 0, 1], 53).into(),
            transport: Transport::Udp,
        };
        Self { wire, query, peer }
    }
    pub(crate) fn request(&self) -> Request<'_> {
        Request::new(&self.wire, &self.query, &self.peer, Instant::now())
    }
    /// Asks a chain of this one handler, whose end answers REFUSED.
    pub(crate) async fn ask(&self, handler: &Arc<dyn Handler>) -> Outcome {
        let refuse = |request: &Request<'_>| Ok(Response::empty(request.query, request.wire, Rcode::REFUSED));
        let end = responder("fixed", refuse);
        Arc::new(Chain { handlers: Box::new([handler.clone(), end]) }).start().run(self.request()).await
    }
    /// Asks the handler on its fast path; the reply, if it gave one.
    pub(crate) fn ask_quickly(&self, handler: &dyn Handler) -> (FastPath, Vec<u8>) {
        let mut reply = Vec::new();
        (handler.serve_fast(&self.request(), &mut reply), reply)
    }
    /// The reply that the client gets.
    pub(crate) fn reply(&self, answer: &Answer) -> Vec<u8> {
        let mut reply = Vec::new();
        answer.response.write(&self.query, &self.wire, self.request().reply(TtlRule::Keep), &mut reply);
        reply
    }
    /// The records that the client gets as text, `section owner TTL class type data`.
    pub(crate) fn records(&self, answer: &Answer) -> Vec<String> {
        let message = Message::from_vec(&self.reply(answer)).expect("the reply decodes");
        let sections =
            [("answer", &message.answers), ("authority", &message.authorities), ("additional", &message.additionals)];
        sections
            .iter()
            .flat_map(|(section, records)| records.iter().map(move |record| format!("{section} {record}")))
            .collect()
    }
}

/// The end of a chain under test: a handler that answers each request by a function of it.
struct Responder<F> {
    keyword: &'static str,
    respond: F,
}

impl<F: Fn(&Request<'_>) -> Result<Response, Failure> + Send + Sync> Handler for Responder<F> {
    fn keyword(&self) -> &'static str {
        self.keyword
    }
    fn explain(&self, request: &Request<'_>, _rest: Following<'_>, explanation: &mut Explanation) -> Course {
        let outcome = (self.respond)(request).map(|response| Answer { response, from: self.keyword });
        explanation.end(outcome, None)
    }
    fn serve<'a>(&'a self, request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let outcome = (self.respond)(&request).map(|response| Answer { response, from: self.keyword });
        Box::pin(async move { outcome })
    }
}

/// A handler named `keyword` that gives what `respond` makes of a request.
pub(crate) fn responder(
    keyword: &'static str,
    respond: impl Fn(&Request<'_>) -> Result<Response, Failure> + Send + Sync + 'static,
) -> Arc<dyn Handler> {
    Arc::new(Responder { keyword, respond })
}
