//! The messages of a profile as pprof reads it (profile.proto of github.com/google/pprof), as far as they are used
//! here, and how they are put together. A text is named by its place in the profile's table of texts.

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use std::collections::HashMap;
use std::io::Write;

/// A whole profile.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs, reason = "fields of profile.proto, which explains them")]
pub struct Profile {
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// The first is empty.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// Nanoseconds since the Unix epoch.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    pub period: i64,
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
}

/// What a number means, and its unit.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ValueType {
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// A stack and its numbers, one for each type.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    /// From the innermost outwards.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
}

/// A part of a file in memory.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Mapping {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// So that its names are not looked for on the machine where the profile is read.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
}

/// A place in the code.
#[derive(Clone, PartialEq, Message)]
pub struct Location {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// Several if functions were inlined, the innermost first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// A line of a function.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Line {
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function. There is no name of the system's beside its own: where the two are the same, pprof takes what is between
/// `<` and `>` out of both.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Function {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(int64, tag = "2")]
    pub name: i64,
    #[prost(int64, tag = "4")]
    pub filename: i64,
}

/// A profile that is being put together.
pub(super) struct ProfileBuilder {
    pub profile: Profile,
    texts: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
}

impl ProfileBuilder {
    /// Of numbers of these types, each with its unit.
    pub(super) fn new(types: &[(&str, &str)]) -> Self {
        let mut builder = Self { profile: Profile::default(), texts: HashMap::new(), functions: HashMap::new() };
        builder.text("");
        builder.profile.sample_type = types.iter().map(|(name, unit)| builder.value_type(name, unit)).collect();
        builder
    }

    /// The number of a text.
    pub(super) fn text(&mut self, text: &str) -> i64 {
        if let Some(number) = self.texts.get(text) {
            return *number;
        }
        let number = i64::try_from(self.texts.len()).unwrap_or(i64::MAX);
        self.texts.insert(text.to_owned(), number);
        self.profile.string_table.push(text.to_owned());
        number
    }

    /// The text of this number.
    pub(super) fn text_at(&self, number: i64) -> &str {
        usize::try_from(number).ok().and_then(|number| self.profile.string_table.get(number)).map_or("", String::as_str)
    }

    pub(super) fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType { r#type: self.text(name), unit: self.text(unit) }
    }

    /// A line of the function of this name in this file; zero and an empty name if they are not known.
    pub(super) fn line(&mut self, name: &str, file: &str, line: u32) -> Line {
        let (name, filename) = (self.text(name), self.text(file));
        let next = self.functions.len() as u64 + 1;
        let function_id = *self.functions.entry((name, filename)).or_insert(next);
        if function_id == next {
            self.profile.function.push(Function { id: next, name, filename });
        }
        Line { function_id, line: line.into() }
    }

    /// The number of a new place in the code, at an address or, with zero, at none.
    pub(super) fn location(&mut self, address: u64, mapping_id: u64, line: Vec<Line>) -> u64 {
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location { id, mapping_id, address, line });
        id
    }

    /// So much of each type at this stack, from the innermost outwards.
    pub(super) fn sample<N: Copy>(&mut self, stack: &[u64], values: &[N])
    where
        i64: TryFrom<N>,
    {
        let value = values.iter().map(|value| i64::try_from(*value).unwrap_or(i64::MAX)).collect();
        self.profile.sample.push(Sample { location_id: stack.to_vec(), value });
    }

    pub(super) fn comment(&mut self, text: &str) {
        let number = self.text(text);
        self.profile.comment.push(number);
    }

    /// In gzip (RFC 1952), as it is passed on.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        // Neither fails: memory takes everything.
        _ = encoder.write_all(&self.profile.encode_to_vec());
        encoder.finish().unwrap_or_default()
    }
}
