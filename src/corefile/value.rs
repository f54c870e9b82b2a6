//! Typed readings of tokens. Each returns `None` after recording a diagnostic that names the token, what was expected and an example.

use super::diagnostic::quote;
use super::duration::{CorefileDuration, DurationError, LONGEST, parse_duration};
use super::zone::read_zones;
use super::{Diagnostics, Directive, OptionLine, Token, nearest};
use crate::message::Name;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A whole number within `range`; `what` names it in the message (`"the port"`).
pub fn number(token: &Token, what: &str, range: RangeInclusive<u64>, diagnostics: &mut Diagnostics) -> Option<u64> {
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

/// A Go duration (`1h30m`, `500ms`, `0`), within `range`. Negative ones are refused with their text.
pub fn duration(token: &Token, what: &str, range: RangeInclusive<Duration>, diagnostics: &mut Diagnostics) -> Option<Duration> {
    let read = parse_duration(&token.text);
    within(token, what, range, read, diagnostics)
}

/// Seconds as a bare number, or a Go duration.
pub fn seconds_or_duration(
    token: &Token,
    what: &str,
    range: RangeInclusive<Duration>,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    let read = if is_digits(&token.text) { parse_duration(&format!("{}s", token.text)) } else { parse_duration(&token.text) };
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

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

fn bounds(least: impl fmt::Display, most: impl fmt::Display, is_open: bool) -> String {
    if is_open { format!("at least {least}") } else { format!("between {least} and {most}") }
}

/// A zone: a domain name, or a CIDR that becomes its reverse zones (several off an octet boundary, as
/// CoreDNS's plugin.Host.NormalizeExact does). In lower case; a scheme and port are dropped, the port with a warning.
pub fn zones(token: &Token, diagnostics: &mut Diagnostics) -> Option<Vec<Name>> {
    let read = read_zones(&token.text, token.span, diagnostics)?;
    if read.port.is_some() {
        diagnostics
            .warning(token.span, format!("the port of {} is ignored here", quote(&token.text)))
            .help("write the zone alone");
    }
    Some(read.zones)
}

/// `host:port`, `:port`, `[v6]:port` of a listener for HTTP. The host is an IP address or `localhost` (127.0.0.1). An empty
/// host is the unspecified IPv6 address: as with Go's listeners it stands for all addresses of both families.
pub fn listen_address(token: &Token, diagnostics: &mut Diagnostics) -> Option<SocketAddr> {
    const EXAMPLES: &str = "write an address and a port: `127.0.0.1:9153`, `[::1]:9153`, or `:9153` for all addresses";
    let text = token.text.as_str();
    let mut refuse = |why: String| {
        diagnostics.error(token.span, format!("{} is not a listen address: {why}", quote(text))).help(EXAMPLES);
        None
    };
    let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.ends_with(']') && text.parse::<Ipv6Addr>().is_err()) else {
        return refuse("the port is missing".to_owned());
    };
    let Some(port) = port.parse::<u16>().ok().filter(|_| is_digits(port)) else {
        return refuse(format!("the port {} is not a number between 0 and 65535", quote(port)));
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = match (host, bracketed) {
        ("", _) => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        ("localhost", _) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        (_, Some(host)) => host.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        (_, None) if host.parse::<Ipv6Addr>().is_ok() => return refuse("an IPv6 address needs brackets".to_owned()),
        (_, None) => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    match address {
        Some(address) => Some(SocketAddr::new(address, port)),
        None => refuse(format!("{} is no IP address", quote(host))),
    }
}

/// The arguments as an array if there are exactly as many as `N`; else a diagnostic that shows `usage`.
pub fn exactly<'a, const N: usize>(
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
pub fn no_arguments(directive: &Directive, diagnostics: &mut Diagnostics) {
    if let Some(argument) = directive.arguments.first() {
        let name = &directive.keyword.text;
        diagnostics
            .error(argument.span, format!("{} takes no argument", quote(name)))
            .help(format!("take away {}", quote(&argument.text)));
    }
}

/// Refuses a block where a directive takes none.
pub fn no_options(directive: &Directive, diagnostics: &mut Diagnostics) {
    if let Some(option) = directive.options.first() {
        let name = &directive.keyword.text;
        diagnostics
            .error(option.name.span, format!("{} takes no block", quote(name)))
            .help("take the braces and what is between them away");
    }
}

/// Says that an option is unknown and names its nearest neighbour among `known`.
pub fn unknown_option(line: &OptionLine, directive: &str, known: &[&str], diagnostics: &mut Diagnostics) {
    let help = match nearest(&line.name.text, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("{} takes no options", quote(directive)),
        None => format!("{} knows {}", quote(directive), known.join(", ")),
    };
    diagnostics.error(line.name.span, format!("unknown option {} of {}", quote(&line.name.text), quote(directive))).help(help);
}
