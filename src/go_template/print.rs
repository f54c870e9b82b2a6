//! Values as text, as package fmt prints them.

use super::error::Problem;
use super::value::Value;
use std::fmt::Write;

/// What `{{ value }}` writes, of at most `room` octets.
pub(super) fn written(value: &Value, room: usize) -> Result<String, Problem> {
    match value {
        Value::Missing => Ok("<no value>".to_owned()),
        value => {
            let mut out = String::new();
            put(value, &mut out, room)
                .map_err(|why| if why == FULL { Problem::Output } else { Problem::Value(why) })?;
            Ok(out)
        }
    }
}

const FULL: &str = "it makes too much text";

/// Appends a value as `%v` has it.
pub(super) fn put(value: &Value, out: &mut String, room: usize) -> Result<(), String> {
    if out.len() > room {
        return Err(FULL.to_owned());
    }
    match value {
        Value::Missing | Value::Nil => out.push_str("<nil>"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => _ = write!(out, "{value}"),
        Value::Uint(value) => _ = write!(out, "{value}"),
        Value::Float(value) => out.push_str(&shortest(*value)),
        Value::Text(text) => {
            if text.len() > room {
                return Err(FULL.to_owned());
            }
            out.push_str(text);
        }
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                put(item, out, room)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push_str("map[");
            for (index, (key, item)) in map.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                put(item, out, room)?;
            }
            out.push(']');
        }
        Value::Object(object) => match object.text() {
            Some(text) => out.push_str(&text),
            None => return Err(format!("{} cannot be written out; name one of its fields", object.kind())),
        },
    }
    Ok(())
}

/// The values one after another: with white space between all, or between two of which neither is a text
/// (fmt.Sprintln, fmt.Sprint).
pub(super) fn joined(values: &[Value], always_apart: bool, room: usize) -> Result<String, String> {
    let mut out = String::new();
    let mut previous_is_text = true;
    for (index, value) in values.iter().enumerate() {
        let is_text = matches!(value, Value::Text(_));
        if index > 0 && (always_apart || !(is_text || previous_is_text)) {
            out.push(' ');
        }
        previous_is_text = is_text;
        put(value, &mut out, room)?;
    }
    Ok(out)
}

/// The arguments of the functions that escape.
pub(super) fn texts(values: &[Value], room: usize) -> Result<String, String> {
    joined(values, false, room)
}

/// A number with a fraction as `%v` has it: the fewest digits that mean it, with an exponent where that is below -4
/// or above 20.
pub(super) fn shortest(value: f64) -> String {
    match exponent(value) {
        Some(exponent) if !(-4..21).contains(&exponent) => with_exponent(&format!("{value:e}")),
        _ if value.is_nan() => "NaN".to_owned(),
        _ if value.is_infinite() => if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        _ => format!("{value}"),
    }
}

/// The decimal exponent of a finite number that is not zero.
pub(super) fn exponent(value: f64) -> Option<i32> {
    if value == 0.0 || !value.is_finite() {
        return None;
    }
    format!("{value:e}").split_once('e').and_then(|(_, exponent)| exponent.parse().ok())
}

/// `1.5e7` in Rust's form becomes `1.5e+07`, Go's.
pub(super) fn with_exponent(text: &str) -> String {
    let Some((digits, exponent)) = text.split_once('e') else { return text.to_owned() };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}
