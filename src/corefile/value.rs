//! Typed readings of tokens. Each returns `None` after recording a diagnostic that names the token, what was expected and an example.

use super::{Diagnostics, Directive, OptionLine, Token};
use crate::message::Name;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A whole number within `range`; `what` names it in the message (`"the port"`).
pub fn number(token: &Token, what: &str, range: RangeInclusive<u64>, diagnostics: &mut Diagnostics) -> Option<u64> {
    todo!()
}

/// A Go duration (`1h30m`, `500ms`, `0`), within `range`. Negative ones are refused with their text.
pub fn duration(token: &Token, what: &str, range: RangeInclusive<Duration>, diagnostics: &mut Diagnostics) -> Option<Duration> {
    todo!()
}

/// Seconds as a bare number, or a Go duration.
pub fn seconds_or_duration(
    token: &Token,
    what: &str,
    range: RangeInclusive<Duration>,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    todo!()
}

/// A zone: a domain name, or a CIDR that becomes its reverse zones (several off an octet boundary, as
/// CoreDNS's plugin.Host.NormalizeExact does).
pub fn zones(token: &Token, diagnostics: &mut Diagnostics) -> Option<Vec<Name>> {
    todo!()
}

/// `host:port`, `:port`, `[v6]:port` of a listener for HTTP. An empty host is the unspecified address.
pub fn listen_address(token: &Token, diagnostics: &mut Diagnostics) -> Option<std::net::SocketAddr> {
    todo!()
}

/// The arguments as an array if there are exactly as many as `N`; else a diagnostic that shows `usage`.
pub fn exactly<'a, const N: usize>(
    name: &'a Token,
    arguments: &'a [Token],
    usage: &str,
    diagnostics: &mut Diagnostics,
) -> Option<&'a [Token; N]> {
    todo!()
}

/// Refuses arguments or a block where a directive takes none.
pub fn no_arguments(directive: &Directive, diagnostics: &mut Diagnostics) {
    todo!()
}
pub fn no_options(directive: &Directive, diagnostics: &mut Diagnostics) {
    todo!()
}

/// Says that an option is unknown and names its nearest neighbour among `known`.
pub fn unknown_option(line: &OptionLine, directive: &str, known: &[&str], diagnostics: &mut Diagnostics) {
    todo!()
}
