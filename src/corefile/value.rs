//! Typed readings of tokens. Each returns `None` after recording a diagnostic that names the token, what was expected
//! and an example.

use super::diagnostic::quote;
use super::duration::{CorefileDuration, DurationError, LONGEST, parse_duration};
use super::zone::read_zones;
use super::{Diagnostics, Directive, OptionLine, Token, nearest};
use crate::message::Name;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A whole number within `range`; `what` names it in the message (`"the port"`).
pub(crate) fn number(
    token: &Token,
    what: &str,
    range: RangeInclusive<u64>,
    diagnostics: &mut Diagnostics,
) -> Option<u64> {
    let text = token.text.as_str();
    let digits = text.strip_prefix('+').unwrap_or(text);
    let is_number = is_digits(digits.strip_prefix('-').unwrap_or(digits));
    // Digits that do not parse are more than u64 holds.
    if let Some(value) = digits.parse::<u64>().ok().filter(|value| is_number && range.contains(value)) {
        return Some(value);
    }
    let found = if is_number { "is out of range" } else { "is not a whole number" };
    let (least, most) = (*range.start(), *range.end());
    let bounds = bounds(least, most, most == u64::MAX);
    diagnostics
        .error(token.span, format!("{} {found}: {what} must be {bounds}", quote(text)))
        .help(format!("write a whole number, for example `{}`", least.max(1).min(most)));
    None
}

/// [`number`]; what is more than the range holds becomes the most, with a warning.
pub(crate) fn number_at_most(
    token: &Token,
    what: &str,
    range: RangeInclusive<u64>,
    diagnostics: &mut Diagnostics,
) -> Option<u64> {
    let digits = token.text.strip_prefix('+').unwrap_or(&token.text);
    let most = *range.end();
    if is_digits(digits) && digits.parse::<u64>().is_ok_and(|value| value > most) {
        used_instead(token, &format!("{} is more than {what} can be", quote(&token.text)), most, diagnostics);
        return Some(most);
    }
    number(token, what, range, diagnostics)
}

/// A Go duration (`1h30m`, `500ms`, `0`), within `range`. Negative ones are refused with their text.
pub(crate) fn duration(
    token: &Token,
    what: &str,
    range: RangeInclusive<Duration>,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    let read = parse_duration(&token.text);
    within(token, what, range, read, diagnostics)
}

/// [`duration`]; one outside the range becomes its nearest bound, with a warning. Zero, where it is not in the range,
/// and negative ones are refused all the same.
pub(crate) fn nearest_duration(
    token: &Token,
    what: &str,
    range: RangeInclusive<Duration>,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    match parse_duration(&token.text) {
        Ok(value) if !range.contains(&value) && !value.is_zero() => {
            let nearest = value.clamp(*range.start(), *range.end());
            let compared = if value < nearest { "less" } else { "more" };
            let message = format!("{} is {compared} than {what} can be", quote(&token.text));
            used_instead(token, &message, CorefileDuration(nearest), diagnostics);
            Some(nearest)
        }
        read => within(token, what, range, read, diagnostics),
    }
}

/// [`nearest_duration`] from zero on, where a negative one stands for zero.
pub(crate) fn duration_or_zero(
    token: &Token,
    what: &str,
    most: Duration,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    if parse_duration(&token.text) == Err(DurationError::Negative) {
        used_instead(token, &format!("{} is negative, which {what} cannot be", quote(&token.text)), "0s", diagnostics);
        return Some(Duration::ZERO);
    }
    nearest_duration(token, what, Duration::ZERO..=most, diagnostics)
}

fn used_instead(token: &Token, why: &str, instead: impl fmt::Display, diagnostics: &mut Diagnostics) {
    diagnostics
        .warning(token.span, format!("{why}: {instead} is used instead"))
        .help(format!("write `{instead}`, or what you mean"));
}

/// Seconds as a bare number, or a Go duration.
pub(crate) fn seconds_or_duration(
    token: &Token,
    what: &str,
    range: RangeInclusive<Duration>,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    let read =
        if is_digits(&token.text) { parse_duration(&format!("{}s", token.text)) } else { parse_duration(&token.text) };
    within(token, what, range, read, diagnostics)
}

fn within(
    token: &Token,
    what: &str,
    range: RangeInclusive<Duration>,
    read: Result<Duration, DurationError>,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    let text = quote(&token.text);
    let bounds = bounds(CorefileDuration(*range.start()), CorefileDuration(*range.end()), *range.end() >= LONGEST);
    match read {
        Ok(value) if range.contains(&value) => return Some(value),
        Ok(_) => diagnostics
            .error(token.span, format!("{text} is out of range: {what} must be {bounds}"))
            .help("change it to a value in that range"),
        Err(DurationError::Negative) => {
            diagnostics
                .error(token.span, format!("{text} is negative: {what} must be {bounds}"))
                .help("take the minus sign away");
        }
        Err(DurationError::TooLong) => {
            diagnostics
                .error(token.span, format!("{text} is too long: {what} must be {bounds}"))
                .help("write a shorter duration");
        }
        Err(DurationError::NoUnit) => {
            diagnostics.error(token.span, format!("{text} has no unit: {what} must be a duration")).help(format!(
                "write a unit after each number, for example `{}s`",
                if is_digits(&token.text) { &token.text } else { "30" }
            ))
        }
        Err(DurationError::Unit(unit)) => diagnostics
            .error(token.span, format!("{text} has the unknown unit {}: {what} must be a duration", quote(&unit)))
            .help("units are ns, us, ms, s, m and h"),
        Err(DurationError::Malformed) => diagnostics
            .error(token.span, format!("{text} is not a duration: {what} must be one"))
            .help("write numbers with units, for example `30s`, `500ms` or `1h30m`"),
    }
    None
}

pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

fn bounds(least: impl fmt::Display, most: impl fmt::Display, is_open: bool) -> String {
    if is_open { format!("at least {least}") } else { format!("between {least} and {most}") }
}

/// A zone: a domain name, or a CIDR that becomes its reverse zones (several off an octet boundary, as
/// CoreDNS's plugin.Host.NormalizeExact does). In lower case; a scheme and port are dropped, the port with a warning.
pub(crate) fn zones(token: &Token, diagnostics: &mut Diagnostics) -> Option<Vec<Name>> {
    let read = read_zones(&token.text, token.span, diagnostics)?;
    if read.port.is_some() {
        diagnostics
            .warning(token.span, format!("the port of {} is ignored here", quote(&token.text)))
            .help("write the zone alone");
    }
    Some(read.zones)
}

/// [`zones`] of a list in which malformed ones are passed over, with a warning, as the reference does.
pub(crate) fn zones_or_none(token: &Token, diagnostics: &mut Diagnostics) -> Vec<Name> {
    let mut found = Diagnostics::default();
    let names = zones(token, &mut found);
    if names.is_some() {
        diagnostics.extend(found);
    } else if let Some(wrong) = found.iter().last() {
        let warning = diagnostics.warning(token.span, format!("{}: it is ignored", wrong.message));
        warning.help.clone_from(&wrong.help);
    }
    names.unwrap_or_default()
}

/// The arguments as an array if there are exactly as many as `N`; else a diagnostic that shows `usage`.
pub(crate) fn exactly<'a, const N: usize>(
    name: &'a Token,
    arguments: &'a [Token],
    usage: &str,
    diagnostics: &mut Diagnostics,
) -> Option<&'a [Token; N]> {
    if let Ok(array) = arguments.try_into() {
        return Some(array);
    }
    // What is too much is pointed at; what is missing has no place of its own.
    let span = arguments.get(N).unwrap_or(name).span;
    let plural = if N == 1 { "" } else { "s" };
    diagnostics
        .error(span, format!("{} takes {N} argument{plural}, found {}", quote(&name.text), arguments.len()))
        .help(format!("write `{usage}`"));
    None
}

/// Refuses arguments where a directive takes none.
pub(crate) fn no_arguments(directive: &Directive, diagnostics: &mut Diagnostics) {
    if let Some(argument) = directive.arguments.first() {
        let name = &directive.keyword.text;
        diagnostics
            .error(argument.span, format!("{} takes no argument", quote(name)))
            .help(format!("take away {}", quote(&argument.text)));
    }
}

/// Warns of arguments after the last that is heeded.
pub(crate) fn ignored_arguments(extra: &[Token], usage: &str, diagnostics: &mut Diagnostics) {
    if let Some(first) = extra.first() {
        diagnostics
            .warning(first.span, format!("{} and what follows on this line is ignored", quote(&first.text)))
            .help(format!("write `{usage}`"));
    }
}

/// Warns of a block where a directive takes none and the reference does not look.
pub(crate) fn ignored_options(directive: &Directive, diagnostics: &mut Diagnostics) {
    if let Some(option) = directive.options.first() {
        let name = &directive.keyword.text;
        diagnostics
            .warning(option.name.span, format!("{} takes no block: it is ignored", quote(name)))
            .help("take the braces and what is between them away");
    }
}

/// Refuses a block where a directive takes none.
pub(crate) fn no_options(directive: &Directive, diagnostics: &mut Diagnostics) {
    if let Some(option) = directive.options.first() {
        let name = &directive.keyword.text;
        diagnostics
            .error(option.name.span, format!("{} takes no block", quote(name)))
            .help("take the braces and what is between them away");
    }
}

/// Says that an option is unknown and names its nearest neighbour among `known`.
pub(crate) fn unknown_option(line: &OptionLine, directive: &str, known: &[&str], diagnostics: &mut Diagnostics) {
    let help = match nearest(&line.name.text, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("{} takes no options", quote(directive)),
        None => format!("{} knows {}", quote(directive), known.join(", ")),
    };
    diagnostics
        .error(line.name.span, format!("unknown option {} of {}", quote(&line.name.text), quote(directive)))
        .help(help);
}
