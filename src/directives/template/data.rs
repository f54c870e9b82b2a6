//! What templates are given: the fields of the reference's `templateData`, and of the message that it holds.

use crate::chain::{BlockMetadata, Request, Spans};
use crate::go_regex::Regex;
use crate::go_template::{TemplateData, Value};
use crate::message::{Class, Edns, Header, LowerName, Name, RecordType};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The fields and methods there are.
pub(super) const FIELDS: [&str; 11] =
    ["Class", "Group", "Match", "Message", "Meta", "Name", "Question", "Regex", "Remote", "Type", "Zone"];

/// The name of a class; empty for one that has none, as in the reference.
pub(super) fn class_name(class: Class) -> &'static str {
    match class.0 {
        1 => "IN",
        2 => "CS",
        3 => "CH",
        4 => "HS",
        254 => "NONE",
        255 => "ANY",
        _ => "",
    }
}

/// The name of a type; empty for one that has none, as in the reference.
pub(super) fn type_name(rtype: RecordType) -> &'static str {
    rtype.mnemonic().unwrap_or_default()
}

/// A query as templates see it.
pub(super) struct QueryData {
    zone: String,
    name: String,
    class: &'static str,
    rtype: &'static str,
    regex: String,
    matches: Vec<Value>,
    groups: BTreeMap<String, Value>,
    remote: Option<IpAddr>,
    question: QuestionData,
    header: Header,
    edns: Option<Edns>,
    length: usize,
    metadata: BlockMetadata,
    /// What labels are looked up for.
    asked: LowerName,
}

#[derive(Clone)]
struct QuestionData {
    /// As the client spelt it.
    name: String,
    rtype: RecordType,
    class: Class,
}

impl QueryData {
    /// Of a query in `zone`, whose name `text` the pattern matches.
    pub(super) fn new(
        request: &Request<'_>,
        (class, rtype): (&'static str, &'static str),
        zone: String,
        (pattern, text): (Option<&Regex>, &str),
        metadata: &BlockMetadata,
    ) -> Self {
        let query = request.query;
        let spelt = Name::read(request.wire, 12).map_or_else(|_| text.to_owned(), |(name, _)| name.to_string());
        let (matches, groups) = groups(pattern, text);
        Self {
            zone,
            name: text.to_owned(),
            class,
            rtype,
            regex: pattern.map_or(".*", Regex::as_str).to_owned(),
            matches,
            groups,
            remote: Some(request.peer.client.ip().to_canonical()),
            question: QuestionData { name: spelt, rtype: query.qtype, class: query.qclass },
            header: query.header,
            edns: query.edns,
            length: request.wire.len(),
            metadata: metadata.clone(),
            asked: query.name.clone(),
        }
    }

    /// Of all queries in a zone: for templates that look at nothing else.
    pub(super) fn of_zone(zone: String, class: &'static str, rtype: &'static str) -> Self {
        let question = QuestionData { name: ".".to_owned(), rtype: RecordType::ANY, class: Class::IN };
        Self {
            zone,
            name: ".".to_owned(),
            class,
            rtype,
            regex: ".*".to_owned(),
            matches: Vec::new(),
            groups: BTreeMap::new(),
            remote: None,
            question,
            header: Header { id: 0, flags: 0 },
            edns: None,
            length: 0,
            metadata: BlockMetadata::default(),
            asked: Name::root().to_lower(),
        }
    }
}

/// `.Match` and `.Group`: a group's value stands under its number and its name; the last of equal names counts.
fn groups(pattern: Option<&Regex>, text: &str) -> (Vec<Value>, BTreeMap<String, Value>) {
    let Some(pattern) = pattern else {
        // As `.*` has it.
        return (vec![Value::text(text)], BTreeMap::from([("0".to_owned(), Value::text(text))]));
    };
    let Some(groups) = pattern.groups(text) else { return (Vec::new(), BTreeMap::new()) };
    let values: Vec<Value> = groups.into_iter().map(Value::text).collect();
    let numbered = values.iter().enumerate().map(|(index, value)| (index.to_string(), value.clone()));
    let named = pattern.group_names().zip(&values).filter_map(|(name, value)| Some((name?.to_owned(), value.clone())));
    let groups = numbered.chain(named).collect();
    (values, groups)
}

impl TemplateData for QueryData {
    fn kind(&self) -> &'static str {
        "the data of a query"
    }
    fn field(&self, name: &str) -> Option<Value> {
        Some(match name {
            "Class" => Value::text(self.class),
            "Group" => Value::Map(Arc::new(self.groups.clone())),
            "Match" => Value::List(self.matches.clone().into()),
            "Message" => Value::Object(Arc::new(MessageData {
                header: self.header,
                edns: self.edns,
                question: self.question.clone(),
                length: self.length,
            })),
            "Name" => Value::text(self.name.as_str()),
            "Question" => Value::Object(Arc::new(self.question.clone())),
            "Regex" => Value::text(self.regex.as_str()),
            "Remote" => Value::text(self.remote.map(|remote| remote.to_string()).unwrap_or_default()),
            "Type" => Value::text(self.rtype),
            "Zone" => Value::text(self.zone.as_str()),
            _ => return None,
        })
    }
    /// What nobody has set is the empty text, as in the reference.
    fn call(&self, name: &str, argument: &str) -> Option<Value> {
        let of_block = || self.metadata.get(argument, &self.asked).unwrap_or_default().to_owned();
        self.has_method(name).then(|| Value::text(Spans::label(argument).unwrap_or_else(of_block)))
    }
    fn has_method(&self, name: &str) -> bool {
        name == "Meta"
    }
}

impl TemplateData for QuestionData {
    fn kind(&self) -> &'static str {
        "the question"
    }
    fn field(&self, name: &str) -> Option<Value> {
        Some(match name {
            "Name" => Value::text(self.name.as_str()),
            "Qtype" => Value::Uint(self.rtype.0.into()),
            "Qclass" => Value::Uint(self.class.0.into()),
            "String" => Value::text(self.text()?),
            _ => return None,
        })
    }
    fn text(&self) -> Option<String> {
        Some(format!(";{}\t{}\t {}", self.name, self.class, self.rtype))
    }
}

/// The query's message.
struct MessageData {
    header: Header,
    edns: Option<Edns>,
    question: QuestionData,
    length: usize,
}

impl TemplateData for MessageData {
    fn kind(&self) -> &'static str {
        "the message"
    }
    fn field(&self, name: &str) -> Option<Value> {
        let flag = |bit: u16| Value::Bool(self.header.flags & bit != 0);
        Some(match name {
            "Id" => Value::Uint(self.header.id.into()),
            "Response" => flag(0x8000),
            "Opcode" => Value::Int(self.header.opcode().into()),
            "Authoritative" => flag(0x0400),
            "Truncated" => flag(0x0200),
            "RecursionDesired" => flag(0x0100),
            "RecursionAvailable" => flag(0x0080),
            "Zero" => flag(0x0040),
            "AuthenticatedData" => flag(0x0020),
            "CheckingDisabled" => flag(0x0010),
            "Rcode" => Value::Int((self.header.flags & 0x000f).into()),
            "Compress" => Value::Bool(false),
            "Question" => Value::List([Value::Object(Arc::new(self.question.clone()))].into()),
            "Answer" | "Ns" | "Extra" => Value::List([].into()),
            "Len" => Value::Int(i64::try_from(self.length).unwrap_or_default()),
            "IsEdns0" => self.edns.map_or(Value::Nil, |edns| Value::Object(Arc::new(edns))),
            _ => return None,
        })
    }
}

impl TemplateData for Edns {
    fn kind(&self) -> &'static str {
        "the OPT record"
    }
    fn field(&self, name: &str) -> Option<Value> {
        Some(match name {
            "UDPSize" => Value::Uint(self.udp_size.into()),
            "Do" => Value::Bool(self.dnssec_ok),
            "Version" => Value::Uint(self.version.into()),
            _ => return None,
        })
    }
}
