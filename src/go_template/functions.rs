//! The functions that every template has (text/template/funcs.go), and `parseInt`, which the reference adds.

use super::format::format;
use super::number;
use super::print::{joined, texts};
use super::value::Value;
use std::cmp::Ordering;

macro_rules! functions {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// A function of templates.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum TemplateFunction {
            $($variant),*
        }
        pub(super) const NAMES: &[&str] = &[$($name),*];
        impl TemplateFunction {
            pub(super) fn find(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),*
                }
            }
        }
    };
}

functions! {
    And "and", Call "call", Eq "eq", Ge "ge", Gt "gt", Html "html", Index "index", Js "js", Le "le", Len "len", Lt "lt", Ne "ne", Not "not",
    Or "or", ParseInt "parseInt", Print "print", Printf "printf", Println "println", Slice "slice", UrlQuery "urlquery",
}

impl TemplateFunction {
    /// Of `and` and `or`: the truth of an argument that makes it the result.
    pub(super) fn decides_on(self) -> Option<bool> {
        match self {
            Self::And => Some(false),
            Self::Or => Some(true),
            _ => None,
        }
    }
}

/// Calls a function, which may make at most `room` octets; the error says why it failed.
pub(super) fn call(function: TemplateFunction, arguments: &[Value], room: usize) -> Result<Value, String> {
    let text = |text: String| Ok(Value::text(text));
    match function {
        TemplateFunction::And | TemplateFunction::Or | TemplateFunction::Call => {
            Err("there is no function to call".to_owned())
        }
        TemplateFunction::Not => one(arguments).map(|value| Value::Bool(!value.is_true())),
        TemplateFunction::Len => one(arguments).and_then(length),
        TemplateFunction::Index => index(arguments),
        TemplateFunction::Slice => slice(arguments),
        TemplateFunction::Print => text(joined(arguments, false, room)?),
        TemplateFunction::Println => text(joined(arguments, true, room)? + "\n"),
        TemplateFunction::Printf => match arguments {
            [Value::Text(layout), rest @ ..] => text(format(layout, rest, room)?),
            [] => Err("it needs a layout".to_owned()),
            _ => Err("its layout must be a text".to_owned()),
        },
        TemplateFunction::Html => text(escaped(&texts(arguments, room)?, html)),
        TemplateFunction::Js => text(escaped(&texts(arguments, room)?, js)),
        TemplateFunction::UrlQuery => text(url_query(&texts(arguments, room)?)),
        TemplateFunction::Eq => equal(arguments).map(Value::Bool),
        TemplateFunction::Ne => {
            two(arguments).and_then(|(left, right)| is_equal(left, right)).map(|equal| Value::Bool(!equal))
        }
        TemplateFunction::Lt => compared(arguments, |order| order == Ordering::Less),
        TemplateFunction::Le => compared(arguments, |order| order != Ordering::Greater),
        TemplateFunction::Gt => compared(arguments, |order| order == Ordering::Greater),
        TemplateFunction::Ge => compared(arguments, |order| order != Ordering::Less),
        TemplateFunction::ParseInt => parse_int(arguments),
    }
}

fn one(arguments: &[Value]) -> Result<&Value, String> {
    match arguments {
        [only] => Ok(only),
        _ => Err(format!("it takes one argument, not {}", arguments.len())),
    }
}

fn two(arguments: &[Value]) -> Result<(&Value, &Value), String> {
    match arguments {
        [left, right] => Ok((left, right)),
        _ => Err(format!("it takes two arguments, not {}", arguments.len())),
    }
}

fn length(value: &Value) -> Result<Value, String> {
    match value {
        Value::Text(text) => Ok(text.len()),
        Value::List(list) => Ok(list.len()),
        Value::Map(map) => Ok(map.len()),
        other => Err(format!("a value of type {} has no length", other.type_name())),
    }
    .map(|length| Value::Int(length as i64))
}

/// A place in something that has `length` of them; the end counts where `with_end`.
fn place(value: &Value, length: usize, with_end: bool) -> Result<usize, String> {
    let place = match value {
        Value::Int(place) => usize::try_from(*place).ok(),
        Value::Uint(place) => usize::try_from(*place).ok(),
        other => return Err(format!("it cannot index with a value of type {}", other.type_name())),
    };
    let number = || joined(std::slice::from_ref(value), false, 32).unwrap_or_default();
    place
        .filter(|place| *place < length || with_end && *place == length)
        .ok_or_else(|| format!("the index {} is out of range", number()))
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let Some((item, places)) = arguments.split_first() else { return Err("it takes at least one argument".to_owned()) };
    let mut item = item.clone();
    for key in places {
        item = match &item {
            Value::List(list) => list[place(key, list.len(), false)?].clone(),
            Value::Text(text) => Value::Uint(text.as_bytes()[place(key, text.len(), false)?].into()),
            Value::Map(map) => match key {
                Value::Text(key) => map.get(&**key).cloned().unwrap_or_else(|| Value::text("")),
                other => return Err(format!("the key must be a text, not of type {}", other.type_name())),
            },
            other => return Err(format!("a value of type {} has no index", other.type_name())),
        };
    }
    Ok(item)
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let Some((item, places)) = arguments.split_first() else { return Err("it takes at least one argument".to_owned()) };
    let length = match item {
        Value::Text(_) if places.len() > 2 => return Err("a text takes at most two places".to_owned()),
        Value::Text(text) => text.len(),
        Value::List(list) if places.len() <= 3 => list.len(),
        Value::List(_) => return Err("a list takes at most three places".to_owned()),
        other => return Err(format!("a value of type {} cannot be cut", other.type_name())),
    };
    let mut ends = [0, length, length];
    for (end, value) in ends.iter_mut().zip(places) {
        *end = place(value, length, true)?;
    }
    let [start, end, most] = ends;
    if start > end || end > most {
        return Err(format!("the places {start} and {end} are in the wrong order"));
    }
    Ok(match item {
        Value::List(list) => Value::List(list[start..end].into()),
        Value::Text(text) => Value::text(String::from_utf8_lossy(&text.as_bytes()[start..end])),
        _ => Value::Missing,
    })
}

fn equal(arguments: &[Value]) -> Result<bool, String> {
    let [first, others @ ..] = arguments else { return Err("it takes at least two arguments".to_owned()) };
    if others.is_empty() {
        return Err("it takes at least two arguments".to_owned());
    }
    for other in others {
        if is_equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_equal(left: &Value, right: &Value) -> Result<bool, String> {
    Ok(match (left, right) {
        (Value::Missing | Value::Nil, Value::Missing | Value::Nil) => true,
        (Value::Missing | Value::Nil, _) | (_, Value::Missing | Value::Nil) => false,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        _ => order(left, right)?.is_some_and(Ordering::is_eq),
    })
}

/// How two values compare; `None` where one is no number.
fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, String> {
    Ok(match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Uint(left), Value::Uint(right)) => Some(left.cmp(right)),
        (Value::Int(left), Value::Uint(right)) => Some(i128::from(*left).cmp(&i128::from(*right))),
        (Value::Uint(left), Value::Int(right)) => Some(i128::from(*left).cmp(&i128::from(*right))),
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
        (Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        _ => {
            return Err(format!(
                "values of the types {} and {} cannot be compared",
                left.type_name(),
                right.type_name()
            ));
        }
    })
}

fn compared(arguments: &[Value], is_so: impl FnOnce(Ordering) -> bool) -> Result<Value, String> {
    let (left, right) = two(arguments)?;
    Ok(Value::Bool(order(left, right)?.is_some_and(is_so)))
}

/// `parseInt TEXT BASE BITS`: strconv.ParseUint.
fn parse_int(arguments: &[Value]) -> Result<Value, String> {
    let [text, base, bits] = arguments else {
        return Err(format!("it takes three arguments, not {}", arguments.len()));
    };
    let (Value::Text(text), Value::Int(base), Value::Int(bits)) = (text, base, bits) else {
        return Err("it takes a text, a base and a number of bits".to_owned());
    };
    let base = u32::try_from(*base)
        .ok()
        .filter(|base| *base == 0 || (2..=36).contains(base))
        .ok_or("its base is 0, or from 2 to 36")?;
    let bits = u32::try_from(*bits).ok().filter(|bits| *bits <= 64).ok_or("it has from 0 to 64 bits")?;
    let shown = super::lexer::clip(text);
    let value = number::unsigned(text, base)
        .ok_or_else(|| format!("`{shown}` is no whole number of base {base}, or too large"))?;
    let most = if bits == 0 { u64::MAX } else { u64::MAX >> (64 - bits) };
    if value > most { Err(format!("`{shown}` has more than {bits} bits")) } else { Ok(Value::Uint(value)) }
}

fn escaped(text: &str, escape: fn(char, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|character| escape(character, &mut out));
    out
}

fn html(character: char, out: &mut String) {
    match character {
        '\0' => out.push('\u{fffd}'),
        '"' => out.push_str("&#34;"),
        '\'' => out.push_str("&#39;"),
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        other => out.push(other),
    }
}

fn js(character: char, out: &mut String) {
    match character {
        '\\' => out.push_str("\\\\"),
        '\'' => out.push_str("\\'"),
        '"' => out.push_str("\\\""),
        '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(character))),
        control if control < ' ' => out.push_str(&format!("\\u{:04X}", u32::from(control))),
        other => out.push(other),
    }
}

fn url_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(octet)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{octet:02X}")),
        }
    }
    out
}
