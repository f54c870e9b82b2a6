//! The values that templates compute with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A value of a template. Cloning is cheap.
#[derive(Clone)]
pub enum Value {
    /// What a map gives for a key that it does not have; written as `<no value>`.
    Missing,
    /// Go's `nil`.
    Nil,
    /// Go's `bool`.
    Bool(bool),
    /// Go's `int`.
    Int(i64),
    /// Go's `uint64`.
    Uint(u64),
    /// Go's `float64`.
    Float(f64),
    /// Go's `string`.
    Text(Arc<str>),
    /// Go's `[]string`.
    List(Arc<[Value]>),
    /// Its values are texts, so the empty text is what `index` gives for a key that it does not have.
    Map(Arc<BTreeMap<String, Value>>),
    /// What has fields and methods.
    Object(Arc<dyn TemplateData>),
}

/// What has fields and methods.
pub trait TemplateData: Send + Sync {
    /// What it is called in errors, such as `the data`.
    fn kind(&self) -> &'static str;
    /// The value of a field, or of a method that takes nothing.
    fn field(&self, name: &str) -> Option<Value>;
    /// The result of a method that takes one text; `None` if there is none of that name.
    fn call(&self, name: &str, argument: &str) -> Option<Value> {
        let _ = (name, argument);
        None
    }
    /// Whether [`TemplateData::call`] knows the name.
    fn has_method(&self, name: &str) -> bool {
        let _ = name;
        false
    }
    /// How it is written out; `None`: not at all.
    fn text(&self) -> Option<String> {
        None
    }
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }
    /// Go's name of its type, for `%T` and errors.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint64",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "[]string",
            Self::Map(_) => "map[string]string",
            Self::Object(_) => "struct",
        }
    }
    /// Whether `if` takes it for true: not if it is zero or empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Missing | Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Uint(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Object(_) => true,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("Missing"),
            Self::Nil => f.write_str("Nil"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(list) => f.debug_list().entries(list.iter()).finish(),
            Self::Map(map) => f.debug_map().entries(map.iter()).finish(),
            Self::Object(object) => f.write_str(object.kind()),
        }
    }
}
