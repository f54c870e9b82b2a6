//! The functions of the language: what they take, and what they give.

mod lists;
mod numbers;
mod texts;

use super::error::EvaluationError;
use super::types::{Element, Type};
use super::value::{Budget, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Builtin {
    Len,
    Lower,
    Upper,
    Trim,
    TrimPrefix,
    TrimSuffix,
    Split,
    SplitAfter,
    Replace,
    Repeat,
    Join,
    IndexOf,
    LastIndexOf,
    HasPrefix,
    HasSuffix,
    Abs,
    Ceil,
    Floor,
    Round,
    Int,
    Float,
    String,
    Max,
    Min,
    Mean,
    First,
    Last,
    Take,
    Reverse,
    Uniq,
    Concat,
    BitAnd,
    BitOr,
    BitXor,
    BitNand,
    BitNot,
    ShiftLeft,
    ShiftRight,
    ShiftRightUnsigned,
}

/// What an argument may be.
#[derive(Clone, Copy)]
enum Parameter {
    Text,
    Int,
    Number,
    List,
    TextOrList,
    NumberOrList,
    /// What `int` and `float` make a number of, and `string` a text.
    Plain,
}

/// What a function gives.
#[derive(Clone, Copy)]
enum Returns {
    This(Type),
    /// What it takes.
    Same,
    /// A number of the kind that it takes, or of the list that it takes.
    Number,
    /// An element of the list that it takes.
    Element,
    /// A list of what all lists that it takes hold.
    Joined,
}

/// A function's name, arguments, how many of them there must be, and what it gives. What is marked as open takes any
/// number more of its last argument.
struct Signature {
    name: &'static str,
    builtin: Builtin,
    parameters: &'static [Parameter],
    required: usize,
    is_open: bool,
    returns: Returns,
}

const fn of(
    name: &'static str,
    builtin: Builtin,
    parameters: &'static [Parameter],
    required: usize,
    returns: Returns,
) -> Signature {
    Signature { name, builtin, parameters, required, is_open: false, returns }
}

const fn open(signature: Signature) -> Signature {
    Signature { is_open: true, ..signature }
}

const TEXT: Returns = Returns::This(Type::Text);
const BOOL: Returns = Returns::This(Type::Bool);
const INT: Returns = Returns::This(Type::Int);
const FLOAT: Returns = Returns::This(Type::Float);
const TEXTS: Returns = Returns::This(Type::List(Element::Text));

const SIGNATURES: &[Signature] = {
    use Parameter::{List, Number, NumberOrList, Plain, Text, TextOrList};
    const WHOLE: Parameter = Parameter::Int;
    &[
        of("len", Builtin::Len, &[TextOrList], 1, INT),
        of("lower", Builtin::Lower, &[Text], 1, TEXT),
        of("upper", Builtin::Upper, &[Text], 1, TEXT),
        of("trim", Builtin::Trim, &[Text, Text], 1, TEXT),
        of("trimPrefix", Builtin::TrimPrefix, &[Text, Text], 1, TEXT),
        of("trimSuffix", Builtin::TrimSuffix, &[Text, Text], 1, TEXT),
        of("split", Builtin::Split, &[Text, Text, WHOLE], 2, TEXTS),
        of("splitAfter", Builtin::SplitAfter, &[Text, Text, WHOLE], 2, TEXTS),
        of("replace", Builtin::Replace, &[Text, Text, Text, WHOLE], 3, TEXT),
        of("repeat", Builtin::Repeat, &[Text, WHOLE], 2, TEXT),
        of("join", Builtin::Join, &[List, Text], 1, TEXT),
        of("indexOf", Builtin::IndexOf, &[Text, Text], 2, INT),
        of("lastIndexOf", Builtin::LastIndexOf, &[Text, Text], 2, INT),
        of("hasPrefix", Builtin::HasPrefix, &[Text, Text], 2, BOOL),
        of("hasSuffix", Builtin::HasSuffix, &[Text, Text], 2, BOOL),
        of("abs", Builtin::Abs, &[Number], 1, Returns::Same),
        of("ceil", Builtin::Ceil, &[Number], 1, FLOAT),
        of("floor", Builtin::Floor, &[Number], 1, FLOAT),
        of("round", Builtin::Round, &[Number], 1, FLOAT),
        of("int", Builtin::Int, &[Plain], 1, INT),
        of("float", Builtin::Float, &[Plain], 1, FLOAT),
        of("string", Builtin::String, &[Plain], 1, TEXT),
        open(of("max", Builtin::Max, &[NumberOrList], 1, Returns::Number)),
        open(of("min", Builtin::Min, &[NumberOrList], 1, Returns::Number)),
        open(of("mean", Builtin::Mean, &[NumberOrList], 1, FLOAT)),
        of("first", Builtin::First, &[List], 1, Returns::Element),
        of("last", Builtin::Last, &[List], 1, Returns::Element),
        of("take", Builtin::Take, &[List, WHOLE], 2, Returns::Same),
        of("reverse", Builtin::Reverse, &[List], 1, Returns::Same),
        of("uniq", Builtin::Uniq, &[List], 1, Returns::Same),
        open(of("concat", Builtin::Concat, &[List], 1, Returns::Joined)),
        of("bitand", Builtin::BitAnd, &[WHOLE, WHOLE], 2, INT),
        of("bitor", Builtin::BitOr, &[WHOLE, WHOLE], 2, INT),
        of("bitxor", Builtin::BitXor, &[WHOLE, WHOLE], 2, INT),
        of("bitnand", Builtin::BitNand, &[WHOLE, WHOLE], 2, INT),
        of("bitnot", Builtin::BitNot, &[WHOLE], 1, INT),
        of("bitshl", Builtin::ShiftLeft, &[WHOLE, WHOLE], 2, INT),
        of("bitshr", Builtin::ShiftRight, &[WHOLE, WHOLE], 2, INT),
        of("bitushr", Builtin::ShiftRightUnsigned, &[WHOLE, WHOLE], 2, INT),
    ]
};

/// The functions of the language that are not here: they are about time, maps and other encodings, or sort.
pub(super) const LEFT_OUT: [&str; 20] = [
    "date",
    "duration",
    "flatten",
    "fromBase64",
    "fromJSON",
    "fromPairs",
    "get",
    "groupBy",
    "keys",
    "median",
    "now",
    "reduce",
    "sort",
    "sortBy",
    "timezone",
    "toBase64",
    "toJSON",
    "toPairs",
    "type",
    "values",
];

/// The names of all functions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SIGNATURES.iter().map(|signature| signature.name)
}

impl Parameter {
    fn takes(self, found: Type) -> bool {
        let may_be = |wanted: &[Type]| wanted.iter().any(|wanted| found.may_be(*wanted));
        const LIST: Type = Type::List(Element::Any);
        match self {
            Self::Text => may_be(&[Type::Text]),
            Self::Int => may_be(&[Type::Int]),
            Self::Number => may_be(&[Type::Int, Type::Float]),
            Self::List => may_be(&[LIST]),
            Self::TextOrList => may_be(&[Type::Text, LIST]),
            Self::NumberOrList => may_be(&[Type::Int, Type::Float, LIST]),
            Self::Plain => may_be(&[Type::Bool, Type::Int, Type::Float, Type::Text]),
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Int => "int",
            Self::Number => "number",
            Self::List => "array",
            Self::TextOrList => "string or array",
            Self::NumberOrList => "number or array",
            Self::Plain => "value",
        }
    }
}

impl Builtin {
    pub(super) fn named(name: &str) -> Option<Self> {
        SIGNATURES.iter().find(|signature| signature.name == name).map(|signature| signature.builtin)
    }

    /// The type of what it gives for arguments of these types.
    ///
    /// # Errors
    /// It is not called so: how it is.
    pub(super) fn result(self, arguments: &[Type]) -> Result<Type, String> {
        let Some(signature) = SIGNATURES.iter().find(|signature| signature.builtin == self) else {
            return Ok(Type::Any);
        };
        let Signature { parameters, required, is_open, returns, .. } = signature;
        let parameter = |index: usize| match parameters.get(index) {
            None if *is_open => parameters.last(),
            found => found,
        };
        let is_taken = |(index, found): (usize, &Type)| parameter(index).is_some_and(|wanted| wanted.takes(*found));
        if arguments.len() < *required || !arguments.iter().enumerate().all(is_taken) {
            return Err(signature.usage());
        }
        let first = arguments.first().copied().unwrap_or(Type::Any);
        Ok(match returns {
            Returns::This(kind) => *kind,
            Returns::Same => first,
            Returns::Number => match arguments {
                [Type::Int | Type::Float] => first,
                [Type::List(_)] => first.element(),
                _ if arguments.iter().all(|argument| *argument == first) && first.is_number() => first,
                _ => Type::Any,
            },
            Returns::Element => first.element(),
            Returns::Joined => arguments.iter().fold(first, |joined, list| joined.or(*list)),
        })
    }

    /// What it gives.
    pub(super) fn apply<'v>(self, arguments: &[Value<'v>], budget: &mut Budget) -> Result<Value<'v>, EvaluationError> {
        let Some(first) = arguments.first() else { return Ok(Value::Nil) };
        match self {
            Self::Len | Self::First | Self::Last | Self::Take | Self::Reverse | Self::Uniq | Self::Concat => {
                self.of_lists(first, arguments, budget)
            }
            Self::Max | Self::Min | Self::Mean => self.of_numbers(arguments, budget),
            Self::Abs | Self::Ceil | Self::Floor | Self::Round | Self::Int | Self::Float | Self::String => {
                self.of_one(first, budget)
            }
            Self::BitAnd
            | Self::BitOr
            | Self::BitXor
            | Self::BitNand
            | Self::BitNot
            | Self::ShiftLeft
            | Self::ShiftRight
            | Self::ShiftRightUnsigned => self.of_bits(first, arguments.get(1)),
            Self::Join => {
                let Value::List(list) = first else { return Err(self.wrong(first)) };
                let glue = arguments.get(1).map_or(Ok(""), |glue| self.text(glue))?;
                self.join(list, glue, budget)
            }
            _ => self.of_texts(first, arguments, budget),
        }
    }

    fn wrong(self, value: &Value<'_>) -> EvaluationError {
        let name = SIGNATURES.iter().find(|signature| signature.builtin == self).map_or("", |found| found.name);
        EvaluationError::Type { operation: name, found: value.kind() }
    }
}

impl Signature {
    /// How it is called: `split(string, string[, int])`.
    fn usage(&self) -> String {
        let (required, optional) = self.parameters.split_at(self.required);
        let told = |parameters: &[Parameter], glue: &str| {
            parameters.iter().map(|parameter| format!("{glue}{}", parameter.told())).collect::<Vec<_>>()
        };
        let optional: String = told(optional, ", ").iter().map(|one| format!("[{one}]")).collect();
        let more = if self.is_open { ", …" } else { "" };
        format!("{}({}{optional}{more})", self.name, told(required, "").join(", "))
    }
}
