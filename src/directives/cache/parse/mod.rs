//! `cache [TTL] [ZONES...] { ... }`, from the user's lines to a [`Config`].

use super::classify::Lifetimes;
use super::entry::{Frequency, Kind};
use crate::corefile::{Diagnostics, Directive, OptionLine, Span, Token, value};
use crate::message::Name;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What the reference's 256 shards of 39 hold.
const DEFAULT_CAPACITY: usize = 9984;
/// What the reference makes of less: four for each shard.
const LEAST_CAPACITY: usize = 1024;
/// The longest TTL (RFC 2181 section 8).
const LONGEST_TTL: u64 = i32::MAX as u64;
/// RFC 2308 section 7.1 for SERVFAIL, RFC 8767 section 5 for a failed refresh.
const FIVE_MINUTES: Duration = Duration::from_secs(300);

const OPTIONS: &[&str] =
    &["success", "denial", "prefetch", "serve_stale", "serve_stale_policy", "servfail", "disable", "keepttl"];

/// The directive as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    /// Empty: those of the server block.
    pub zones: Vec<Name>,
    pub lifetimes: Lifetimes,
    /// Entries of each [`Kind`].
    pub capacity: [usize; 2],
    pub prefetch: Option<Prefetch>,
    pub stale: Option<Stale>,
    /// Zones of which each [`Kind`] is not kept.
    pub disabled: [Vec<Name>; 2],
    pub keep_ttl: bool,
}

/// `prefetch AMOUNT [DURATION] [PERCENTAGE%]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefetch {
    /// Queries, at least 1.
    pub amount: u32,
    /// No longer pause between them.
    pub gap: Duration,
    /// Of the TTL that is left, 10 to 90.
    pub percentage: u32,
}

/// `serve_stale [DURATION] [MODE ...]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stale {
    /// Seconds after its expiry that an answer may be served.
    pub up_to: u32,
    pub mode: StaleMode,
    /// Seconds; TTL of a stale answer.
    pub response_ttl: u32,
    /// Pause after a failed refresh of an entry.
    pub failure_recheck: Duration,
    /// `serve_stale_policy prefer_positive`.
    pub prefer_positive: bool,
}

/// When the refresh of a stale answer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StaleMode {
    /// After it was served.
    Immediate,
    /// Before; it is served if that fails, or after the timeout.
    Verify { timeout: Option<Duration> },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            lifetimes: Lifetimes::default(),
            capacity: [DEFAULT_CAPACITY; 2],
            prefetch: None,
            stale: None,
            disabled: [Vec::new(), Vec::new()],
            keep_ttl: false,
        }
    }
}

/// Reads the directive. What is wrong is recorded and left at its default. `None` if zones are written and none of them
/// is one: it caches nothing.
pub(super) fn read(directive: &Directive, diagnostics: &mut Diagnostics) -> Option<Config> {
    let mut config = Config::default();
    let mut zones = directive.arguments.as_slice();
    if let [first, rest @ ..] = zones
        && is_number(first)
    {
        zones = rest;
        if let Some(ttl) = ttl(first, "the TTL of cache", 1, diagnostics) {
            config.lifetimes.success.longest = ttl;
            config.lifetimes.denial.longest = ttl;
        }
    }
    config.zones = read_zones(zones, diagnostics);
    let mut policy = None;
    for line in &directive.options {
        if let [first, ..] = line.block.as_slice() {
            diagnostics.error(first.name.span, format!("{} of cache takes no block", line.name.text));
        }
        match line.name.text.as_str() {
            "success" => read_kind(line, Kind::Success, &mut config, diagnostics),
            "denial" => read_kind(line, Kind::Denial, &mut config, diagnostics),
            "prefetch" => config.prefetch = read_prefetch(line, diagnostics),
            "serve_stale" => config.stale = read_stale(line, diagnostics),
            "serve_stale_policy" => read_policy(line, &mut policy, diagnostics),
            "servfail" => read_servfail(line, &mut config, diagnostics),
            "disable" => read_disable(line, &mut config, diagnostics),
            "keepttl" => {
                config.keep_ttl = true;
                if let [extra, ..] = line.arguments.as_slice() {
                    diagnostics.error(extra.span, "keepttl of cache takes no argument");
                }
            }
            _ => value::unknown_option(line, "cache", OPTIONS, diagnostics),
        }
    }
    match (policy, &mut config.stale) {
        (Some(_), Some(stale)) => stale.prefer_positive = true,
        (Some(span), None) if !directive.options.iter().any(|line| line.name.text == "serve_stale") => {
            diagnostics
                .error(span, "serve_stale_policy of cache has no effect without serve_stale")
                .help("add `serve_stale` above it");
        }
        _ => {}
    }
    if let Some(first) = zones.first()
        && config.zones.is_empty()
    {
        diagnostics
            .warning(first.span, "no zone is left, so nothing is cached")
            .help("write a zone, or none for those of the server block");
        return None;
    }
    Some(config)
}

/// As the reference tells a TTL from a zone: whatever reads as a whole number.
fn is_number(token: &Token) -> bool {
    let digits = token.text.strip_prefix(['-', '+']).unwrap_or(&token.text);
    !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit())
}

fn read_zones(tokens: &[Token], diagnostics: &mut Diagnostics) -> Vec<Name> {
    tokens.iter().flat_map(|token| value::zones_or_none(token, diagnostics)).collect()
}

fn ttl(token: &Token, what: &str, least: u64, diagnostics: &mut Diagnostics) -> Option<u32> {
    value::number_at_most(token, what, least..=LONGEST_TTL, diagnostics).and_then(|seconds| u32::try_from(seconds).ok())
}

/// Records an error unless `line` has a number of arguments within `range`.
fn has_arguments(line: &OptionLine, range: RangeInclusive<usize>, usage: &str, diagnostics: &mut Diagnostics) -> bool {
    let count = line.arguments.len();
    let span = match line.arguments.get(*range.end()) {
        Some(extra) => extra.span,
        None if range.contains(&count) => return true,
        None => line.name.span,
    };
    let what = if count < *range.start() { "too few" } else { "too many" };
    diagnostics
        .error(span, format!("{} of cache has {what} arguments", line.name.text))
        .help(format!("it is written `{usage}`"));
    false
}

fn read_kind(line: &OptionLine, kind: Kind, config: &mut Config, diagnostics: &mut Diagnostics) {
    let name = kind.label();
    let usage = format!("{name} CAPACITY [TTL] [MINTTL]");
    if !has_arguments(line, 1..=usize::MAX, &usage, diagnostics) {
        return;
    }
    value::ignored_arguments(line.arguments.get(3..).unwrap_or_default(), &usage, diagnostics);
    let mut arguments = line.arguments.iter();
    if let Some(token) = arguments.next()
        && let Some(capacity) = read_capacity(token, name, diagnostics)
    {
        config.capacity[kind.index()] = capacity;
    }
    let bounds = match kind {
        Kind::Success => &mut config.lifetimes.success,
        Kind::Denial => &mut config.lifetimes.denial,
    };
    if let Some(longest) = arguments.next().and_then(|token| ttl(token, &format!("the TTL of {name}"), 1, diagnostics))
    {
        bounds.longest = longest;
    }
    if let Some(shortest) =
        arguments.next().and_then(|token| ttl(token, &format!("the MINTTL of {name}"), 0, diagnostics))
    {
        bounds.shortest = shortest;
    }
}

fn read_capacity(token: &Token, name: &str, diagnostics: &mut Diagnostics) -> Option<usize> {
    if is_number(token) && token.text.starts_with('-') {
        diagnostics
            .warning(token.span, format!("the capacity of {name} is negative: {LEAST_CAPACITY} is used instead"))
            .help(format!("write the capacity that you mean, or `disable {name}`"));
        return Some(LEAST_CAPACITY);
    }
    let most = u64::from(u32::MAX);
    let capacity = value::number_at_most(token, &format!("the capacity of {name}"), 0..=most, diagnostics)?;
    if capacity == 0 {
        let message = format!("a capacity of 0 keeps no {name} answers; CoreDNS would keep {LEAST_CAPACITY}");
        diagnostics.warning(token.span, message).help(format!("`disable {name}` says so plainly"));
    }
    Some(usize::try_from(capacity).unwrap_or(usize::MAX))
}

fn read_prefetch(line: &OptionLine, diagnostics: &mut Diagnostics) -> Option<Prefetch> {
    if !has_arguments(line, 1..=3, "prefetch AMOUNT [DURATION] [PERCENTAGE%]", diagnostics) {
        return None;
    }
    let mut arguments = line.arguments.iter();
    let amount = value::number(arguments.next()?, "the amount of prefetch", 0..=u64::MAX, diagnostics)?;
    let gap = match arguments.next() {
        Some(token) => value::duration_or_zero(token, "the duration of prefetch", Duration::MAX, diagnostics)?,
        None => Duration::from_secs(60),
    };
    let percentage = match arguments.next() {
        Some(token) => read_percentage(token, diagnostics)?,
        None => 10,
    };
    let amount = u32::try_from(amount).unwrap_or(u32::MAX).min(Frequency::MAX);
    (amount > 0).then_some(Prefetch { amount, gap, percentage })
}

fn read_percentage(token: &Token, diagnostics: &mut Diagnostics) -> Option<u32> {
    let number = token.text.strip_suffix('%').and_then(|number| number.parse::<u32>().ok());
    let percentage = number.filter(|number| (10..=90).contains(number));
    if percentage.is_none() {
        let message = format!("`{}` is not a percentage of prefetch", token.text);
        diagnostics.error(token.span, message).help("it goes from `10%` to `90%`, with the percent sign");
    }
    percentage
}

fn read_stale(line: &OptionLine, diagnostics: &mut Diagnostics) -> Option<Stale> {
    const USAGE: &str = "serve_stale [DURATION] [immediate [RESPONSE_TTL [FAILURE_RECHECK]] | verify [VERIFY_TIMEOUT [RESPONSE_TTL [FAILURE_RECHECK]]]]";
    let is_verify = line.arguments.get(1).is_some_and(|mode| mode.text.eq_ignore_ascii_case("verify"));
    if !has_arguments(line, 0..=(if is_verify { 5 } else { 4 }), USAGE, diagnostics) {
        return None;
    }
    let mut arguments = line.arguments.iter();
    let up_to = match arguments.next() {
        Some(token) => {
            value::duration(token, "the duration of serve_stale", Duration::ZERO..=Duration::MAX, diagnostics)?
        }
        None => Duration::from_secs(3600),
    };
    if let Some(mode) = arguments.next()
        && !is_verify
        && !mode.text.eq_ignore_ascii_case("immediate")
    {
        let message = format!("`{}` is not a refresh mode of serve_stale", mode.text);
        diagnostics.error(mode.span, message).help(format!("it is `immediate` or `verify`: `{USAGE}`"));
        return None;
    }
    let mode = if is_verify {
        let timeout = match arguments.next() {
            Some(token) => value::duration(
                token,
                "the verify timeout of serve_stale",
                Duration::ZERO..=Duration::MAX,
                diagnostics,
            )?,
            None => Duration::ZERO,
        };
        StaleMode::Verify { timeout: (!timeout.is_zero()).then_some(timeout) }
    } else {
        StaleMode::Immediate
    };
    let response_ttl = match arguments.next() {
        Some(token) => read_response_ttl(token, diagnostics)?,
        None => 0,
    };
    let failure_recheck = match arguments.next() {
        Some(token) => {
            value::duration(token, "the failure recheck of serve_stale", Duration::ZERO..=FIVE_MINUTES, diagnostics)?
        }
        None => Duration::ZERO,
    };
    let up_to = u32::try_from(up_to.as_secs()).unwrap_or(u32::MAX);
    Some(Stale { up_to, mode, response_ttl, failure_recheck, prefer_positive: false })
}

fn read_response_ttl(token: &Token, diagnostics: &mut Diagnostics) -> Option<u32> {
    let ttl = value::duration(
        token,
        "the response TTL of serve_stale",
        Duration::ZERO..=Duration::from_secs(LONGEST_TTL),
        diagnostics,
    )?;
    if ttl.subsec_nanos() != 0 {
        let message = format!("the response TTL of serve_stale is not a whole number of seconds: `{}`", token.text);
        diagnostics.error(token.span, message).help("for example `30s`");
        return None;
    }
    u32::try_from(ttl.as_secs()).ok()
}

fn read_policy(line: &OptionLine, policy: &mut Option<Span>, diagnostics: &mut Diagnostics) {
    if policy.replace(line.name.span).is_some() {
        diagnostics.error(line.name.span, "serve_stale_policy of cache is given twice");
    }
    if has_arguments(line, 1..=1, "serve_stale_policy prefer_positive", diagnostics)
        && let [argument] = line.arguments.as_slice()
        && !argument.text.eq_ignore_ascii_case("prefer_positive")
    {
        let message = format!("`{}` is not a policy of serve_stale_policy", argument.text);
        diagnostics.error(argument.span, message).help("the only one is `prefer_positive`");
    }
}

fn read_servfail(line: &OptionLine, config: &mut Config, diagnostics: &mut Diagnostics) {
    if has_arguments(line, 1..=1, "servfail DURATION", diagnostics)
        && let [argument] = line.arguments.as_slice()
        && let Some(duration) =
            value::duration(argument, "the duration of servfail", Duration::ZERO..=FIVE_MINUTES, diagnostics)
    {
        config.lifetimes.server_error = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
    }
}

fn read_disable(line: &OptionLine, config: &mut Config, diagnostics: &mut Diagnostics) {
    if !has_arguments(line, 1..=usize::MAX, "disable success|denial [ZONES...]", diagnostics) {
        return;
    }
    let [which, zones @ ..] = line.arguments.as_slice() else { return };
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.label() == which.text) else {
        let message = format!("`{}` is not a cache that disable knows", which.text);
        diagnostics.error(which.span, message).help("it is `success` or `denial`");
        return;
    };
    config.disabled[kind.index()] = if zones.is_empty() { vec![Name::root()] } else { read_zones(zones, diagnostics) };
}

#[cfg(test)]
mod tests;
