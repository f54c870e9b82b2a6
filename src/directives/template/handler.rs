//! Asks the rules of a block one after another, and makes the answer of the first that is for the query.

use super::KEYWORD;
use super::counters::Counters;
use super::follow;
use super::rule::{Match, PrintedName, RecordTemplate, TemplateRule};
use crate::chain::{
    After, Answer, BlockMetadata, BuildContext, Course, Effect, Explanation, Failure, FastPath, Following, Handler,
    HitCounter, Lookup, Next, Outcome, Purpose, Request,
};
use crate::go_template::Value;
use crate::message::{Class, FixedAnswer, Name, Rcode, RecordType, Response, Section};
use crate::metrics::Counter;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The AA bit of a header's second word.
const AUTHORITATIVE: u16 = 0x0400;
/// What does not change until the next plan may be given again for so many milliseconds.
const PACKET_MILLIS: u16 = 60_000;
/// Between two lines about the same record that fails.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

pub(super) struct Templates {
    rules: Vec<ZoneRule>,
    counters: Counters,
    metadata: BlockMetadata,
    lookup: OnceLock<Lookup>,
}

struct ZoneRule {
    rule: Arc<TemplateRule>,
    /// The text of each zone, as metrics have it.
    zones: Vec<Arc<str>>,
    /// By server, then by zone: what counts the matches of class IN and of the rule's own type, once there was one.
    usual: Vec<OnceLock<Arc<Counter>>>,
    /// When each record last had a line in the log.
    last_warnings: Mutex<Vec<Option<Instant>>>,
}

/// The rule that a query is for.
enum Chosen<'h> {
    None,
    /// No pattern matches, and nothing is handed on.
    Refused,
    Rule {
        index: usize,
        served: &'h ZoneRule,
        zone: usize,
        pattern: Option<usize>,
    },
}

impl Templates {
    pub(super) fn new(rules: Vec<Arc<TemplateRule>>, context: &BuildContext<'_>) -> Self {
        let served = |rule: Arc<TemplateRule>| ZoneRule {
            zones: rule.zones.iter().map(|zone| zone.to_string().into()).collect(),
            usual: vec![OnceLock::new(); rule.zones.len() * context.servers.len()],
            last_warnings: Mutex::new(vec![None; rule.records.len()]),
            rule,
        };
        Self {
            rules: rules.into_iter().map(served).collect(),
            counters: Counters::new(context),
            metadata: context.metadata.clone(),
            lookup: OnceLock::new(),
        }
    }

    fn choose(&self, request: &Request<'_>, text: &mut PrintedName) -> Chosen<'_> {
        for (index, served) in self.rules.iter().enumerate() {
            match served.rule.look_at(request.query, text) {
                Match::Other => {}
                Match::Refused => return Chosen::Refused,
                Match::Yes { zone, pattern } => return Chosen::Rule { index, served, zone, pattern },
            }
        }
        Chosen::None
    }

    fn key(request: &Request<'_>, served: &ZoneRule, zone: usize) -> (usize, Arc<str>, &'static str, &'static str) {
        let (class, rtype) = served.rule.names(request.query);
        (request.server_index, served.zones.get(zone).cloned().unwrap_or_else(|| "".into()), class, rtype)
    }

    /// What counts the matches of such a request, if there was one before.
    fn counter(&self, request: &Request<'_>, served: &ZoneRule, zone: usize) -> Option<Arc<Counter>> {
        let (rule, query) = (&served.rule, request.query);
        let is_usual = query.qclass == Class::IN && rule.rtype != RecordType::ANY;
        let usual = served.usual.get(request.server_index * served.zones.len() + zone).filter(|_| is_usual);
        if let Some(counter) = usual.and_then(OnceLock::get) {
            return Some(counter.clone());
        }
        let counter = self.counters.known(&Self::key(request, served, zone))?;
        if let Some(usual) = usual {
            // Whoever was first has set the same.
            _ = usual.set(counter.clone());
        }
        Some(counter)
    }

    /// Makes the answer of a rule.
    async fn answer(&self, request: Request<'_>, served: &ZoneRule, zone: usize, pattern: Option<usize>) -> Outcome {
        let rule = &served.rule;
        let key = Self::key(&request, served, zone);
        self.counters.count(&key);
        if rule.rcode == Rcode::SERVFAIL {
            return Ok(bare_servfail(&request));
        }
        let data = rule.data(&request, zone, pattern, &self.metadata, &mut PrintedName::default());
        let mut made = MadeAnswer::default();
        for (index, record) in rule.records.iter().enumerate() {
            let target = made.add(record, &data, &request).map_err(|error| {
                self.counters.count_failure(&key, record, &error);
                served.tell(index, record, &error, request.received);
                Failure::servfail(KEYWORD, error)
            })?;
            if let Some(target) = target
                && let Some(lookup) = self.lookup.get()
                && let Some(found) = follow::ask(&request, &target, lookup).await
            {
                made.follow(&found);
            }
        }
        made.finish(rule, &request)
    }

    /// What [`Templates::answer`] does.
    fn explain_rule(
        &self,
        request: Request<'_>,
        served: &ZoneRule,
        zone: usize,
        pattern: Option<usize>,
        explanation: &mut Explanation,
    ) -> Course {
        let (rule, step) = (&served.rule, explanation.step());
        if rule.rcode == Rcode::SERVFAIL {
            return explanation.end(Ok(bare_servfail(&request)), None);
        }
        let data = rule.data(&request, zone, pattern, &self.metadata, &mut PrintedName::default());
        let mut made = MadeAnswer::default();
        for record in &rule.records {
            let target = match made.add(record, &data, &request) {
                Ok(target) => target,
                Err(error) => return explanation.end(Err(Failure::servfail(KEYWORD, error)), None),
            };
            let asked = target.and_then(|target| Some((follow::question(&request, &target)?, target)));
            if let (Some((asked, target)), Some(lookup)) = (asked, self.lookup.get()) {
                explanation.set_effect(Effect::Answers);
                explanation.say(format!("its answer is an alias for {target}, which is asked for in turn:"));
                let found = match lookup.explain(&asked, explanation) {
                    Course::Asks => return Course::Asks,
                    Course::Known(found) => found,
                };
                explanation.again(step);
                explanation.say(match &found {
                    Ok(_) => "adds what that is answered",
                    Err(_) => "that has no answer, so the alias is all",
                });
                if let Ok(found) = found {
                    made.follow(&found.response);
                }
            }
        }
        explanation.end(made.finish(rule, &request), None)
    }
}

fn bare_servfail(request: &Request<'_>) -> Answer {
    Answer { response: Response::empty(request.query, request.wire, Rcode::SERVFAIL), from: KEYWORD }
}

/// An answer as its records are made.
#[derive(Default)]
struct MadeAnswer {
    records: Vec<(Section, Vec<u8>)>,
    is_truncated: bool,
}

impl MadeAnswer {
    /// Adds a record. Gives the target of an alias that the client wants followed.
    fn add(
        &mut self,
        record: &RecordTemplate,
        data: &Value,
        request: &Request<'_>,
    ) -> Result<Option<Name>, super::rule::MakeError> {
        let asks_for_address = matches!(request.query.qtype, RecordType::A | RecordType::AAAA);
        let (rtype, wire) = record.make(data.clone())?;
        let target = (asks_for_address && rtype == RecordType::CNAME && record.section == Section::Answer)
            .then(|| follow::target(&wire))
            .flatten();
        self.records.push((record.section, wire));
        Ok(target)
    }

    /// Adds what was answered to the question for an alias's target.
    fn follow(&mut self, found: &Response) {
        self.is_truncated = found.is_truncated();
        self.records.extend(follow::answers(found));
    }

    fn finish(self, rule: &TemplateRule, request: &Request<'_>) -> Outcome {
        let mut response = Response::from_wire_records(request.query, request.wire, rule.rcode, &self.records)
            .map_err(|error| Failure::servfail(KEYWORD, format!("the records do not make an answer: {error}")))?;
        response.set_flag(AUTHORITATIVE, true);
        if self.is_truncated {
            response.set_flag(0x0200, true);
        }
        if let Some(error) = &rule.extended_error {
            response.set_extended_error(error.clone());
        }
        Ok(Answer { response, from: KEYWORD })
    }
}

impl ZoneRule {
    /// Says why a record cannot be made, once a minute.
    fn tell(&self, index: usize, record: &RecordTemplate, error: &super::rule::MakeError, now: Instant) {
        let mut last_warnings = self.last_warnings.lock();
        let Some(last) = last_warnings.get_mut(index) else { return };
        if is_due(last, now) {
            tracing::warn!(
                "template: queries are answered SERVFAIL, since {} `{}` {error}",
                record.section_name(),
                record.source
            );
        }
    }
}

/// Whether a line is to be written at `now`, which is then the time of the last.
fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= BETWEEN_LINES);
    if is_due {
        *last = Some(now);
    }
    is_due
}

impl Handler for Templates {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        let (served, zone, pattern) = match self.choose(request, &mut PrintedName::default()) {
            Chosen::None => {
                explanation.say("no template is for it");
                return rest.explain(request, explanation);
            }
            Chosen::Refused => {
                explanation.say("no pattern of a template for it matches, and it does not fall through");
                let response = Response::empty(request.query, request.wire, Rcode::SERVFAIL);
                return explanation.end(Ok(Answer { response, from: KEYWORD }), None);
            }
            Chosen::Rule { served, zone, pattern, .. } => (served, zone, pattern),
        };
        let rule = &served.rule;
        explanation.set_place(rule.place);
        let of_zone = served.zones.get(zone).map_or("", |zone| zone);
        explanation.say(match pattern.and_then(|pattern| rule.patterns.get(pattern)) {
            Some(pattern) => {
                format!("this template is for it, by its zone {of_zone} and its pattern {}", pattern.as_str())
            }
            None => format!("this template is for it, by its zone {of_zone}"),
        });
        self.explain_rule(*request, served, zone, pattern, explanation)
    }

    fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> FastPath {
        match self.choose(request, &mut PrintedName::default()) {
            Chosen::None => FastPath::Pass,
            Chosen::Rule { index, served, zone, .. } if request.query.qclass == Class::IN => {
                let ready = served.rule.ready.get(zone).and_then(Option::as_ref);
                let is_wanted = |ready: &&FixedAnswer| request.purpose != Purpose::BehindCache || !ready.is_cached();
                let Some(ready) = ready.filter(is_wanted) else { return FastPath::Slow };
                let Some(counter) = self.counter(request, served, zone) else { return FastPath::Slow };
                let shape = request.reply(crate::message::TtlRule::Keep);
                if !ready.write(request.query, request.wire, shape, reply) {
                    return FastPath::Slow;
                }
                counter.increment();
                FastPath::Answered(After::CachePacket { millis: PACKET_MILLIS, note: index as u32 })
            }
            _ => FastPath::Slow,
        }
    }

    fn hit_counter(&self, request: &Request<'_>, note: u32) -> Option<Arc<dyn HitCounter>> {
        let served = self.rules.get(note as usize)?;
        let Match::Yes { zone, .. } = served.rule.look_at(request.query, &mut PrintedName::default()) else {
            return None;
        };
        self.counter(request, served, zone).map(|counter| counter as Arc<dyn HitCounter>)
    }

    fn set_lookup(&self, lookup: &Lookup) {
        // A plan is built once.
        _ = self.lookup.set(lookup.clone());
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        match self.choose(&request, &mut PrintedName::default()) {
            Chosen::None => next.run(request),
            Chosen::Refused => {
                let response = Response::empty(request.query, request.wire, Rcode::SERVFAIL);
                Box::pin(async { Ok(Answer { response, from: KEYWORD }) })
            }
            Chosen::Rule { served, zone, pattern, .. } => {
                Box::pin(async move { self.answer(request, served, zone, pattern).await })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_due;
    use std::time::{Duration, Instant};

    #[test]
    fn what_fails_all_the_time_is_told_once_a_minute() {
        let (start, mut last) = (Instant::now(), None);
        let warned_at =
            (0..200).filter(|second| is_due(&mut last, start + Duration::from_secs(*second))).collect::<Vec<_>>();
        assert_eq!(warned_at, [0, 60, 120, 180]);
    }
}
