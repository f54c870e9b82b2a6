//! One `template`: for which queries it is, and what it answers.

use super::data::{QueryData, class_name, type_name};
use super::record::{self, RecordError};
use crate::chain::{BlockMetadata, Request};
use crate::corefile::Span;
use crate::go_regex::Regex;
use crate::go_template::{Template, TemplateError, Value};
use crate::message::{self, Class, ExtendedError, FixedAnswer, LowerName, Query, Rcode, RecordType, Section};
use std::sync::Arc;

/// A `template` of a server block.
pub(super) struct TemplateRule {
    /// Where it stands.
    pub place: Span,
    pub class: Class,
    pub rtype: RecordType,
    /// Zones whose names it is for.
    pub zones: Vec<LowerName>,
    /// The first that matches counts; without any, every name does.
    pub patterns: Vec<Regex>,
    pub rcode: Rcode,
    pub records: Vec<RecordTemplate>,
    pub extended_error: Option<Arc<ExtendedError>>,
    /// Zones whose names are handed on where no pattern matches.
    pub falls_through: Vec<LowerName>,
    /// What it answers in each of its zones, where that is the same for all queries of class IN that it is for.
    pub ready: Vec<Option<FixedAnswer>>,
}

/// The text of a record, to be filled in.
pub(super) struct RecordTemplate {
    pub section: Section,
    /// As written.
    pub source: String,
    pub template: Template,
}

/// Why a record could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    #[error("the template fails {0}")]
    Template(#[from] TemplateError),
    #[error("`{text}` is no record: {error}")]
    Record { text: String, error: RecordError },
}

impl RecordTemplate {
    /// The record in wire form, and its type.
    pub(super) fn make(&self, data: Value) -> Result<(RecordType, Vec<u8>), MakeError> {
        let text = self.template.execute(data)?;
        record::read(&text).map_err(|error| MakeError::Record { text: text.chars().take(80).collect(), error })
    }
    /// The name of its section in metrics.
    pub(super) fn section_name(&self) -> &'static str {
        match self.section {
            Section::Answer => "answer",
            Section::Authority => "authority",
            Section::Additional => "additional",
        }
    }
}

/// What a rule has to say of a query.
pub(super) enum Match {
    /// It is not for it.
    Other,
    /// It is, and no pattern matches.
    Refused,
    /// It answers: the zone that is nearest to the name, and the pattern that matched.
    Yes { zone: usize, pattern: Option<usize> },
}

impl TemplateRule {
    /// Looks at a query, whose name's text is written when a pattern first needs it.
    pub(super) fn look_at(&self, query: &Query, text: &mut PrintedName) -> Match {
        let is_class = self.class == Class::ANY || query.qclass == Class::ANY || self.class == query.qclass;
        let is_type = self.rtype == RecordType::ANY || query.qtype == RecordType::ANY || self.rtype == query.qtype;
        if !is_class || !is_type {
            return Match::Other;
        }
        let Some(zone) = nearest(&self.zones, &query.name) else { return Match::Other };
        if self.patterns.is_empty() {
            return Match::Yes { zone, pattern: None };
        }
        let text = text.of(&query.name);
        match self.patterns.iter().position(|pattern| pattern.is_match(text)) {
            Some(pattern) => Match::Yes { zone, pattern: Some(pattern) },
            None if nearest(&self.falls_through, &query.name).is_some() => Match::Other,
            None => Match::Refused,
        }
    }

    /// The class and type of a query as the data and the metrics have them: a query for any gets the rule's.
    pub(super) fn names(&self, query: &Query) -> (&'static str, &'static str) {
        let class = if query.qclass == Class::ANY { self.class } else { query.qclass };
        let rtype = if query.qtype == RecordType::ANY { self.rtype } else { query.qtype };
        (class_name(class), type_name(rtype))
    }

    /// Makes all records for a query.
    pub(super) fn data(
        &self,
        request: &Request<'_>,
        zone: usize,
        pattern: Option<usize>,
        metadata: &BlockMetadata,
        text: &mut PrintedName,
    ) -> Value {
        let (class, rtype) = self.names(request.query);
        let zone = self.zones.get(zone).map(LowerName::to_string).unwrap_or_default();
        let pattern = pattern.and_then(|pattern| self.patterns.get(pattern));
        let name = text.of(&request.query.name);
        Value::Object(Arc::new(QueryData::new(request, (class, rtype), zone, (pattern, name), metadata)))
    }

    /// Prepares what is the same for all queries of class IN. A zone whose answer fails, or depends on more, is left
    /// out.
    pub(super) fn prepare(&mut self) {
        let ready = self.zones.iter().map(|zone| self.fixed(zone)).collect();
        self.ready = ready;
    }

    fn fixed(&self, zone: &LowerName) -> Option<FixedAnswer> {
        let mut fields = vec!["Zone"];
        if matches!(self.class, Class::IN | Class::ANY) {
            fields.push("Class");
        }
        if self.rtype != RecordType::ANY {
            fields.push("Type");
        }
        if !self.records.iter().all(|record| record.template.depends_on_none_but(&fields))
            || self.rcode == Rcode::SERVFAIL
        {
            return None;
        }
        let mut records = Vec::with_capacity(self.records.len());
        for record in &self.records {
            let data = QueryData::of_zone(zone.to_string(), class_name(Class::IN), type_name(self.rtype));
            let (rtype, wire) = record.make(Value::Object(Arc::new(data))).ok()?;
            // Its target is asked for.
            if record.section == Section::Answer && rtype == RecordType::CNAME {
                return None;
            }
            records.push((record.section, wire));
        }
        FixedAnswer::new(self.rcode, &records, self.extended_error.as_deref())
    }
}

/// The zone with the most labels of those that a name lies in.
fn nearest(zones: &[LowerName], name: &LowerName) -> Option<usize> {
    let within = zones.iter().enumerate().filter(|(_, zone)| name.is_within(zone.as_wire()));
    within.max_by_key(|(_, zone)| zone.as_wire().len()).map(|(index, _)| index)
}

/// A name's text, written once.
#[derive(Default)]
pub(super) struct PrintedName(Option<message::NameText>);

impl PrintedName {
    /// The text of this name, which must be the same each time.
    pub(super) fn of(&mut self, name: &LowerName) -> &str {
        self.0.get_or_insert_with(|| name.text()).as_str()
    }
}
