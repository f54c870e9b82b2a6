//! The `local` directive answers names that mean this machine, or nothing, so that they never leave it (RFC 6761
//! section 6.3, RFC 6303); see README.md beside this file.

mod zones;

use crate::chain::{
    After, Answer, BlockConfig, BuildContext, BuildError, Built, Configured, Course, Explanation, Failure, FastPath,
    Following, Handler, Next, Outcome, ParseContext, Part, Request,
};
use crate::corefile::{Diagnostics, Directive, OptionLine, quote, value};
use crate::message::{Class, Query, RecordType, Response, TtlRule};
use crate::metrics::Counter;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use zones::LocalName;

const KEYWORD: &str = "local";

/// Reads one `local` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_arguments(directive, context.diagnostics);
    let mut config = LocalConfig { has_localhost_of_domain: true };
    for line in &directive.options {
        match line.name.text.as_str() {
            "localhost_prefix" => {
                if let Some(is_on) = localhost_prefix(line, context.diagnostics) {
                    config.has_localhost_of_domain = is_on;
                }
            }
            _ => value::unknown_option(line, KEYWORD, &["localhost_prefix"], context.diagnostics),
        }
    }
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(config) });
}

fn localhost_prefix(line: &OptionLine, diagnostics: &mut Diagnostics) -> Option<bool> {
    let [word] = value::exactly(&line.name, &line.arguments, "localhost_prefix on|off", diagnostics)?;
    diagnostics
        .beyond_reference(line.name.span, "CoreDNS has the option `localhost_prefix` from 1.14.7 on")
        .help("take it out before you go back to a node-cache that is older");
    match word.text.as_str() {
        "on" => Some(true),
        "off" => Some(false),
        _ => {
            diagnostics
                .error(word.span, format!("{} is neither `on` nor `off`", quote(&word.text)))
                .help("`localhost_prefix off` leaves localhost.DOMAIN to those after `local`");
            None
        }
    }
}

struct LocalConfig {
    /// `localhost.DOMAIN` is answered here.
    has_localhost_of_domain: bool,
}

impl Configured for LocalConfig {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let requests = context.process.registry.counter(
            "coredns_local_localhost_requests_total",
            "Requests for localhost.DOMAIN, which are answered with the loopback address.",
            &[],
        );
        let ready = READY.iter().map(|(name, qtype)| PreparedAnswer::new(name, *qtype)).collect::<Result<_, _>>();
        let ready = ready.map_err(|error| BuildError(format!("local: its answers cannot be composed: {error}")))?;
        let local = Local { ready, has_localhost_of_domain: self.has_localhost_of_domain, requests };
        Ok(Built { handler: Some(Arc::new(local)), ..Built::default() })
    }
}

/// Questions answered in the fast path: what a resolver asks of its own accord.
const READY: [(&[u8], RecordType); 4] = [
    (zones::LOCALHOST, RecordType::A),
    (zones::LOCALHOST, RecordType::AAAA),
    (zones::LOOPBACK_V4, RecordType::PTR),
    (zones::LOOPBACK_V6, RecordType::PTR),
];

/// An answer made in advance.
struct PreparedAnswer {
    name: &'static [u8],
    qtype: RecordType,
    response: Response,
}

impl PreparedAnswer {
    fn new(name: &'static [u8], qtype: RecordType) -> Result<Self, String> {
        let wire = Query::compose(0, name, qtype, true);
        let query = Query::read(&wire).map_err(|_| "malformed question".to_owned())?;
        let place = zones::place(&query.name).ok_or("no such zone")?;
        let response = zones::respond(place, &query, &wire).map_err(|error| error.to_string())?;
        Ok(Self { name, qtype, response })
    }
}

/// Answers names that mean this machine, or nothing at all, wherever they are asked (RFC 6761 section 6.3, RFC 6303
/// section 4).
struct Local {
    ready: Vec<PreparedAnswer>,
    has_localhost_of_domain: bool,
    requests: Counter,
}

impl Local {
    fn place(&self, query: &Query) -> Option<LocalName> {
        let place = if query.qclass == Class::IN { zones::place(&query.name) } else { None };
        place.filter(|place| self.has_localhost_of_domain || *place != LocalName::LocalhostOfDomain)
    }
    fn answer(&self, place: LocalName, request: &Request<'_>) -> Outcome {
        let response = match self.ready(request.query) {
            Some(response) => Ok(response.clone()),
            None => zones::respond(place, request.query, request.wire),
        };
        response.map(|response| Answer { response, from: KEYWORD }).map_err(|error| Failure::servfail(KEYWORD, error))
    }
    fn ready(&self, query: &Query) -> Option<&Response> {
        let asked = |ready: &&PreparedAnswer| ready.qtype == query.qtype && ready.name == query.name.as_wire();
        self.ready.iter().find(asked).map(|ready| &ready.response)
    }
}

impl Handler for Local {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        let Some(place) = self.place(request.query) else {
            explanation.say("no name of this machine, of localhost or of loopback addresses");
            return rest.explain(request, explanation);
        };
        explanation.say(match place {
            LocalName::Localhost | LocalName::BelowLocalhost => "the name means this machine (RFC 6761 section 6.3)",
            LocalName::LocalhostOfDomain => "localhost with a domain of a search list means this machine",
            LocalName::Loopback(_) | LocalName::Apex(_) | LocalName::Reverse(_) => {
                "a reverse zone of this machine alone (RFC 6303 section 4)"
            }
        });
        explanation.end(self.answer(place, request), None)
    }

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        if self.place(request.query).is_none() {
            return FastPath::Pass;
        }
        let Some(response) = self.ready(request.query) else { return FastPath::Slow };
        response.write(request.query, request.wire, request.reply(TtlRule::Keep), reply);
        FastPath::Answered(After::Nothing)
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        let Some(place) = self.place(request.query) else { return next.run(request) };
        if matches!(place, LocalName::BelowLocalhost | LocalName::LocalhostOfDomain) {
            self.requests.increment();
            tracing::debug!(
                "local: {} {} asked by {}",
                request.query.name.to_name(),
                request.query.qtype,
                request.peer.client
            );
        }
        let outcome = self.answer(place, &request);
        Box::pin(async { outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::{Question, build, configure};
    use crate::chain::{After, FastPath, Handler, ProcessContext};
    use crate::message::{Class, Rcode, RecordType};
    use std::sync::Arc;

    fn handler(process: &ProcessContext) -> Arc<dyn Handler> {
        let (block, said) = configure(parse, "local");
        assert_eq!(said, "");
        build(&block, process).handler.unwrap()
    }

    async fn ask(name: &str, qtype: RecordType) -> (Rcode, Vec<String>) {
        let question = Question::new(name, qtype);
        let answer = question.ask(&handler(&ProcessContext::new(1, 0))).await.unwrap();
        (answer.response.rcode(), question.records(&answer))
    }

    fn soa(owner: &str) -> String {
        format!("authority {owner} 604800 IN SOA localhost. root.localhost. 1 0 0 0 604800")
    }

    #[tokio::test]
    async fn localhost_is_the_loopback_address() {
        let answer = |text: &str| (Rcode::NOERROR, vec![format!("answer {text}")]);
        assert_eq!(ask("localhost.", RecordType::A).await, answer("localhost. 604800 IN A 127.0.0.1"));
        assert_eq!(ask("localhost.", RecordType::AAAA).await, answer("localhost. 604800 IN AAAA ::1"));
        assert_eq!(ask("localhost.", RecordType::NS).await, answer("localhost. 604800 IN NS localhost."));
        assert_eq!(ask("localhost.", RecordType::SOA).await.1, [soa("localhost.").replace("authority", "answer")]);
        assert_eq!(ask("localhost.", RecordType::TXT).await, (Rcode::NOERROR, vec![soa("localhost.")]));
    }

    #[test]
    fn localhost_of_a_domain_is_left_to_others_if_it_is_switched_off() {
        let is_passed_on = |options: &str, name: &str| {
            let (block, said) = configure(parse, &format!("local {{\n {options}\n}}"));
            assert!(!said.contains(": error"), "{said}");
            let handler = build(&block, &ProcessContext::new(1, 0)).handler.unwrap();
            matches!(Question::new(name, RecordType::A).ask_quickly(&*handler).0, FastPath::Pass)
        };
        assert!(is_passed_on("localhost_prefix off", "localhost.example.org."));
        assert!(!is_passed_on("localhost_prefix off", "localhost."));
        assert!(!is_passed_on("localhost_prefix on", "localhost.example.org."));
        for text in ["localhost_prefix", "localhost_prefix maybe", "localhost_prefix on off", "prefix"] {
            assert!(configure(parse, &format!("local {{\n {text}\n}}")).1.contains("Corefile:3:"), "{text}");
        }
    }

    #[tokio::test]
    async fn names_below_localhost_are_the_loopback_address_too() {
        let answer = |text: &str| (Rcode::NOERROR, vec![format!("answer {text}")]);
        assert_eq!(ask("app.localhost.", RecordType::A).await, answer("app.localhost. 604800 IN A 127.0.0.1"));
        assert_eq!(ask("a.b.localhost.", RecordType::AAAA).await, answer("a.b.localhost. 604800 IN AAAA ::1"));
        for other in [RecordType::NS, RecordType::SOA, RecordType::ANY, RecordType(65)] {
            assert_eq!(ask("app.localhost.", other).await, (Rcode::NOERROR, vec![soa("localhost.")]), "{other}");
        }
    }

    #[tokio::test]
    async fn the_loopback_addresses_have_a_reverse() {
        let v4 = "1.0.0.127.in-addr.arpa.";
        let v6 = format!("1.{}ip6.arpa.", "0.".repeat(31));
        for name in [v4, &v6] {
            assert_eq!(
                ask(name, RecordType::PTR).await,
                (Rcode::NOERROR, vec![format!("answer {name} 604800 IN PTR localhost.")])
            );
        }
        assert_eq!(ask(v4, RecordType::A).await, (Rcode::NOERROR, vec![soa("127.in-addr.arpa.")]));
        assert_eq!(ask(&v6, RecordType::A).await, (Rcode::NOERROR, vec![soa(&v6)]));
        assert_eq!(ask(&v6, RecordType::SOA).await, (Rcode::NOERROR, vec![soa(&v6).replace("authority", "answer")]));
    }

    #[tokio::test]
    async fn the_reverse_zones_are_empty_otherwise() {
        for zone in ["0.in-addr.arpa.", "127.in-addr.arpa.", "255.in-addr.arpa."] {
            assert_eq!(ask(zone, RecordType::A).await, (Rcode::NOERROR, vec![soa(zone)]));
            assert_eq!(ask(zone, RecordType::NS).await.1, [format!("answer {zone} 604800 IN NS localhost.")]);
            assert_eq!(ask(zone, RecordType::SOA).await.1, [soa(zone).replace("authority", "answer")]);
            assert_eq!(ask(&format!("7.{zone}"), RecordType::PTR).await, (Rcode::NXDOMAIN, vec![soa(zone)]));
        }
    }

    #[tokio::test]
    async fn localhost_of_a_domain_is_answered_and_counted() {
        let process = ProcessContext::new(1, 0);
        let handler = handler(&process);
        for (qtype, expected) in [
            (RecordType::A, "answer localhost.Example.net. 604800 IN A 127.0.0.1".to_owned()),
            (RecordType::AAAA, "answer localhost.Example.net. 604800 IN AAAA ::1".to_owned()),
            (RecordType::SOA, soa("localhost.Example.net.")),
        ] {
            let question = Question::new("localhost.Example.net.", qtype);
            let answer = question.ask(&handler).await.unwrap();
            assert_eq!((answer.response.rcode(), question.records(&answer)), (Rcode::NOERROR, vec![expected]));
        }
        Question::new("localhost.", RecordType::A).ask(&handler).await.unwrap();
        assert!(process.registry.encode().contains("coredns_local_localhost_requests_total 3\n"));
    }

    #[tokio::test]
    async fn other_names_and_classes_are_handed_on() {
        for name in [
            "example.",
            "notlocalhost.",
            "x\\009localhost.",
            "a.localhosts.",
            "xlocalhost.example.",
            "128.in-addr.arpa.",
            "1.0.0.10.in-addr.arpa.",
            ".",
        ] {
            assert_eq!(ask(name, RecordType::A).await.0, Rcode::REFUSED, "{name}");
        }
        let mut wire = Question::new("localhost.", RecordType::A).wire;
        *wire.last_mut().unwrap() = Class::CH.0 as u8;
        let answer = Question::from_wire(wire).ask(&handler(&ProcessContext::new(1, 0))).await.unwrap();
        assert_eq!(answer.response.rcode(), Rcode::REFUSED);
    }

    #[test]
    fn both_paths_give_the_same_answer_in_the_clients_case() {
        let handler = handler(&ProcessContext::new(1, 0));
        for (name, qtype) in [
            ("LocalHost.", RecordType::A),
            ("localhost.", RecordType::AAAA),
            ("1.0.0.127.IN-ADDR.arpa.", RecordType::PTR),
            (&format!("1.{}ip6.arpa.", "0.".repeat(31)), RecordType::PTR),
        ] {
            let question = Question::new(name, qtype);
            let (quick, reply) = question.ask_quickly(&*handler);
            assert_eq!(quick, FastPath::Answered(After::Nothing), "{name}");
            let slow = futures_util::FutureExt::now_or_never(question.ask(&handler)).unwrap().unwrap();
            assert!(
                reply.get(12..).is_some_and(|rest| rest.starts_with(question.query.question(&question.wire))),
                "{name}"
            );
            assert_eq!(reply, question.reply(&slow), "{name}");
        }
    }

    #[test]
    fn the_fast_path_passes_what_is_not_local_and_leaves_rare_answers_to_the_slow_one() {
        let handler = handler(&ProcessContext::new(1, 0));
        for (name, qtype, expected) in [
            ("example.org.", RecordType::A, FastPath::Pass),
            ("10.in-addr.arpa.", RecordType::PTR, FastPath::Pass),
            ("localhost.", RecordType::TXT, FastPath::Slow),
            ("app.localhost.", RecordType::A, FastPath::Slow),
            ("localhost.example.org.", RecordType::A, FastPath::Slow),
        ] {
            assert_eq!(Question::new(name, qtype).ask_quickly(&*handler), (expected, Vec::new()), "{name}");
        }
    }

    #[test]
    fn arguments_and_options_are_refused() {
        assert!(configure(parse, "local host").1.contains("Corefile:2:"));
        assert!(configure(parse, "local {\n a b\n}").1.contains("local"));
    }
}
