//! `printf`: the verbs and flags of package fmt.

use super::print::{exponent, put, shortest, with_exponent};
use super::value::Value;
use std::fmt::Write;

/// The widest field: Go has a million, which no record needs.
const WIDEST: usize = 10_000;

#[derive(Clone, Copy, Default)]
struct FormatFlags {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

struct Formatter<'a> {
    arguments: &'a [Value],
    next: usize,
    /// An index such as `[2]` was given.
    is_reordered: bool,
    room: usize,
    out: String,
}

/// Fills `layout` with the arguments, making at most `room` octets.
pub(super) fn format(layout: &str, arguments: &[Value], room: usize) -> Result<String, String> {
    let mut formatter = Formatter { arguments, next: 0, is_reordered: false, room, out: String::new() };
    let mut rest = layout;
    while let Some(percent) = rest.find('%') {
        formatter.out.push_str(&rest[..percent]);
        rest = formatter.verb(&rest[percent + 1..])?;
        if formatter.out.len() > room {
            return Err("it makes too much text".to_owned());
        }
    }
    formatter.out.push_str(rest);
    if !formatter.is_reordered && formatter.next < arguments.len() {
        formatter.extra()?;
    }
    Ok(formatter.out)
}

impl Formatter<'_> {
    /// Arguments that no verb asked for.
    fn extra(&mut self) -> Result<(), String> {
        self.out.push_str("%!(EXTRA ");
        for (index, value) in self.arguments[self.next..].iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            self.typed(value)?;
        }
        self.out.push(')');
        Ok(())
    }

    /// A value after its type, in complaints: `int=5`, or `<nil>`.
    fn typed(&mut self, value: &Value) -> Result<(), String> {
        if !matches!(value, Value::Nil | Value::Missing) {
            self.out.push_str(value.type_name());
            self.out.push('=');
        }
        put(value, &mut self.out, self.room)
    }

    /// What stands after a `%`; gives what follows the verb.
    fn verb<'l>(&mut self, mut rest: &'l str) -> Result<&'l str, String> {
        let mut flags = FormatFlags::default();
        while let Some(flag) = rest.chars().next() {
            match flag {
                '+' => flags.plus = true,
                '-' => flags.minus = true,
                '#' => flags.sharp = true,
                ' ' => flags.space = true,
                '0' => flags.zero = true,
                _ => break,
            }
            rest = &rest[1..];
        }
        rest = self.argument_index(rest);
        (flags.width, rest) = self.count(rest, &mut flags);
        if let Some(after) = rest.strip_prefix('.') {
            let mut ignored = flags;
            let after = self.argument_index(after);
            let precision;
            (precision, rest) = self.count(after, &mut ignored);
            flags.precision = Some(precision.unwrap_or(0));
        }
        rest = self.argument_index(rest);
        let Some(verb) = rest.chars().next() else {
            self.out.push_str("%!(NOVERB)");
            return Ok(rest);
        };
        let after = &rest[verb.len_utf8()..];
        if verb == '%' {
            self.out.push('%');
            return Ok(after);
        }
        match self.arguments.get(self.next) {
            None => _ = write!(self.out, "%!{verb}(MISSING)"),
            Some(value) => {
                self.next += 1;
                self.value(value, verb, flags)?;
            }
        }
        Ok(after)
    }

    /// `[n]`, if it stands here.
    fn argument_index<'l>(&mut self, rest: &'l str) -> &'l str {
        let Some((number, after)) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) else { return rest };
        match number.parse::<usize>() {
            Ok(number) if (1..=self.arguments.len()).contains(&number) => self.next = number - 1,
            // Go says BADINDEX; to point beyond the arguments makes the verb say MISSING.
            _ => self.next = self.arguments.len(),
        }
        self.is_reordered = true;
        after
    }

    /// Digits, or `*` for an argument. A negative one sets the minus flag.
    fn count<'l>(&mut self, rest: &'l str, flags: &mut FormatFlags) -> (Option<usize>, &'l str) {
        if let Some(after) = rest.strip_prefix('*') {
            let value = match self.arguments.get(self.next) {
                Some(Value::Int(value)) => Some(*value),
                Some(Value::Uint(value)) => i64::try_from(*value).ok(),
                _ => None,
            };
            self.next += 1;
            flags.minus |= value.is_some_and(|value| value < 0);
            return (
                value.and_then(|value| usize::try_from(value.unsigned_abs()).ok()).map(|value| value.min(WIDEST)),
                after,
            );
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let value = rest[..digits].parse::<usize>().ok().map(|value| value.min(WIDEST));
        (value.or((digits > 0).then_some(WIDEST)), &rest[digits..])
    }

    fn value(&mut self, value: &Value, verb: char, flags: FormatFlags) -> Result<(), String> {
        match (verb, value) {
            ('T', value) => self.pad(value.type_name(), flags),
            (_, Value::List(list)) => {
                self.out.push('[');
                for (index, item) in list.iter().enumerate() {
                    if index > 0 {
                        self.out.push(' ');
                    }
                    self.value(item, verb, flags)?;
                }
                self.out.push(']');
            }
            (_, Value::Map(map)) => {
                self.out.push_str("map[");
                for (index, (key, item)) in map.iter().enumerate() {
                    if index > 0 {
                        self.out.push(' ');
                    }
                    self.value(&Value::text(key.as_str()), verb, flags)?;
                    self.out.push(':');
                    self.value(item, verb, flags)?;
                }
                self.out.push(']');
            }
            ('v', Value::Text(text)) if flags.sharp => self.pad(&quote(text), FormatFlags { precision: None, ..flags }),
            ('v', Value::Int(_) | Value::Uint(_)) => self.value(value, 'd', flags)?,
            ('v', Value::Text(_)) => self.value(value, 's', flags)?,
            ('v', Value::Float(float)) => {
                let text = match flags.precision {
                    Some(precision) => general(*float, precision),
                    None => shortest(*float),
                };
                self.number(*float < 0.0, text.trim_start_matches('-'), flags);
            }
            ('v', other) => {
                let mut text = String::new();
                put(other, &mut text, self.room)?;
                self.pad(&text, flags);
            }
            ('s' | 'q' | 'x' | 'X', Value::Text(text)) => {
                let cut: String =
                    flags.precision.map_or_else(|| text.to_string(), |most| text.chars().take(most).collect());
                let shown = match verb {
                    's' => cut,
                    'q' if flags.sharp && !cut.contains(['`', '\n', '\r']) => format!("`{cut}`"),
                    'q' => quote(&cut),
                    _ => hexadecimal(cut.as_bytes(), verb == 'X', flags),
                };
                self.pad(&shown, flags);
            }
            ('s', Value::Object(_)) => self.value(value, 'v', flags)?,
            ('t', Value::Bool(truth)) => self.pad(if *truth { "true" } else { "false" }, flags),
            ('b' | 'd' | 'o' | 'O' | 'x' | 'X', Value::Int(number)) => {
                self.whole(*number < 0, number.unsigned_abs(), verb, flags)
            }
            ('b' | 'd' | 'o' | 'O' | 'x' | 'X', Value::Uint(number)) => self.whole(false, *number, verb, flags),
            ('c' | 'q' | 'U', Value::Int(_) | Value::Uint(_)) => {
                let number = match value {
                    Value::Int(number) => u32::try_from(*number).ok(),
                    Value::Uint(number) => u32::try_from(*number).ok(),
                    _ => None,
                };
                let character = number.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
                let text = match verb {
                    'c' => character.to_string(),
                    'q' => {
                        quote(&character.to_string()).replace("\\\"", "\"").replace('\'', "\\'").replacen('"', "'", 1)
                    }
                    _ => format!("U+{:04X}", u32::from(character)),
                };
                let text = if verb == 'q' { format!("'{}'", &text[1..text.len() - 1]) } else { text };
                self.pad(&text, flags);
            }
            ('e' | 'E' | 'f' | 'F' | 'g' | 'G', Value::Float(float)) => {
                let precision = flags.precision;
                let text = match verb {
                    'e' | 'E' => with_exponent(&format!("{:.*e}", precision.unwrap_or(6), float.abs())),
                    'f' | 'F' => format!("{:.*}", precision.unwrap_or(6), float.abs()),
                    _ => precision.map_or_else(|| shortest(float.abs()), |precision| general(float.abs(), precision)),
                };
                let text = if verb.is_ascii_uppercase() { text.to_ascii_uppercase() } else { text };
                self.number(float.is_sign_negative(), &text, flags);
            }
            (verb, other) => {
                _ = write!(self.out, "%!{verb}(");
                self.typed(other)?;
                self.out.push(')');
            }
        }
        Ok(())
    }

    fn whole(&mut self, is_negative: bool, number: u64, verb: char, flags: FormatFlags) {
        let mut digits = match verb {
            'b' => format!("{number:b}"),
            'o' | 'O' => format!("{number:o}"),
            'x' => format!("{number:x}"),
            'X' => format!("{number:X}"),
            _ => number.to_string(),
        };
        if let Some(precision) = flags.precision {
            digits = if precision == 0 && number == 0 { String::new() } else { format!("{digits:0>precision$}") };
        }
        let prefix = match verb {
            'b' if flags.sharp => "0b",
            'o' if flags.sharp => "0",
            'O' => "0o",
            'x' if flags.sharp => "0x",
            'X' if flags.sharp => "0X",
            _ => "",
        };
        // A precision says how many digits there are, so zeros do not pad.
        let flags = FormatFlags { zero: flags.zero && flags.precision.is_none(), ..flags };
        self.signed(is_negative, prefix, &digits, flags);
    }

    fn number(&mut self, is_negative: bool, digits: &str, flags: FormatFlags) {
        self.signed(is_negative, "", digits, flags);
    }

    /// A number with its sign, padded with zeros after that if asked.
    fn signed(&mut self, is_negative: bool, prefix: &str, digits: &str, flags: FormatFlags) {
        let sign = match (is_negative, flags.plus, flags.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        };
        let width = flags.width.unwrap_or(0);
        let taken = sign.len() + prefix.len();
        let digits = match flags.zero && !flags.minus && width > taken + digits.len() {
            true => format!("{digits:0>width$}", width = width - taken),
            false => digits.to_owned(),
        };
        self.pad(&format!("{sign}{prefix}{digits}"), FormatFlags { zero: false, ..flags });
    }

    fn pad(&mut self, text: &str, flags: FormatFlags) {
        let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
        let filler = if flags.zero && !flags.minus { '0' } else { ' ' };
        let fill = |out: &mut String| out.extend(std::iter::repeat_n(filler, missing));
        if !flags.minus {
            fill(&mut self.out);
        }
        self.out.push_str(text);
        if flags.minus {
            fill(&mut self.out);
        }
    }
}

/// `%g` with a precision: so many digits in all.
fn general(value: f64, precision: usize) -> String {
    let precision = precision.max(1);
    let rounded = format!("{:.*e}", precision - 1, value);
    let magnitude = rounded.parse::<f64>().ok().and_then(exponent).unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if magnitude < -4 || magnitude >= precision as i32 {
        let (digits, exponent) = rounded.split_once('e').unwrap_or((&rounded, "0"));
        return with_exponent(&format!("{}e{exponent}", trim(digits)));
    }
    trim(&format!("{:.*}", (precision as i32 - 1 - magnitude).max(0) as usize, value))
}

fn hexadecimal(octets: &[u8], is_upper: bool, flags: FormatFlags) -> String {
    let mut out = String::with_capacity(2 * octets.len());
    for (index, octet) in octets.iter().enumerate() {
        if flags.space && index > 0 {
            out.push(' ');
        }
        if flags.sharp && (index == 0 || flags.space) {
            out.push_str(if is_upper { "0X" } else { "0x" });
        }
        _ = if is_upper { write!(out, "{octet:02X}") } else { write!(out, "{octet:02x}") };
    }
    out
}

/// A text in double quotes with Go's escapes (strconv.Quote).
fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            control if control < ' ' || control == '\u{7f}' => _ = write!(out, "\\x{:02x}", u32::from(control)),
            hidden if hidden.is_control() => _ = write!(out, "\\u{:04x}", u32::from(hidden)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
