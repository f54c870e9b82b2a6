//! Reads a `forward` of the Corefile into a [`ForwardConfig`].

use super::config::{ForwardConfig, ForwardOptions};
use super::policy::UpstreamPolicy;
use super::target::{UpstreamTarget, read_target};
use super::tls_options::TlsOptions;
use crate::chain::ParseContext;
use crate::corefile::{Diagnostics, Directive, OptionLine, Token, nearest, value};
use crate::message::{Name, Rcode};
use crate::net::doh::DohMethod;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// TO arguments that one `forward` may have, as in CoreDNS.
pub(super) const MAX_TARGETS: usize = 15;
const USAGE: &str = "forward FROM TO...";

const OPTIONS: [&str; 22] = [
    "except",
    "force_tcp",
    "prefer_udp",
    "expire",
    "max_age",
    "max_idle_conns",
    "read_timeout",
    "max_fails",
    "max_connect_attempts",
    "policy",
    "health_check",
    "max_concurrent",
    "next",
    "next_on_nodata",
    "failover",
    "failfast_all_unhealthy_upstreams",
    "source_address",
    "use_caps_for_id",
    "resolver",
    "doh_method",
    "tls",
    "tls_servername",
];

/// Reads one `forward`. `None`, with diagnostics, if FROM is unusable.
/// `root` is the folder of the directive `root`.
pub(super) fn read(
    directive: &Directive,
    root: Option<&Path>,
    context: &mut ParseContext<'_>,
) -> Option<ForwardConfig> {
    // The block comes first, so that its errors are reported even if the first line has some too.
    let mut except = Vec::new();
    let mut options = ForwardOptions::default();
    for line in &directive.options {
        read_option(line, &mut options, &mut except, context.diagnostics);
    }
    let tls = TlsOptions::read(&directive.options, root, context);
    if let Some(age) = options.max_age.filter(|age| *age < options.expire)
        && let Some(line) = directive.options.iter().rev().find(|line| line.name.text == "max_age")
    {
        let message = format!("max_age ({age:?}) is less than expire ({:?})", options.expire);
        context
            .diagnostics
            .error(line.name.span, message)
            .help("a connection cannot be idle for longer than it lives: raise max_age or lower expire");
    }

    let Some((from, to)) = directive.arguments.split_first().filter(|(_, to)| !to.is_empty()) else {
        let message = format!("forward needs a zone and at least one upstream, it has {}", directive.arguments.len());
        context
            .diagnostics
            .error(directive.keyword.span, message)
            .help(format!("{USAGE}, such as `forward . 10.96.0.10` or `forward . /etc/resolv.conf`"));
        return None;
    };
    let zones = value::zones(from, context.diagnostics);
    if let Some([first, _, ..]) = zones.as_deref() {
        let message = format!("{} stands for several reverse zones; only {first} is forwarded", from.text);
        context.diagnostics.warning(from.span, message).help(
            "use a prefix that ends at an octet (a multiple of 8 bits, for IPv6 of 4), or one forward for each zone",
        );
    }
    if let Some(extra) = to.get(MAX_TARGETS) {
        let message = format!("{} upstreams where at most {MAX_TARGETS} are allowed", to.len());
        context.diagnostics.error(extra.span, message).help("remove some");
    }
    let mut targets: Vec<UpstreamTarget> = Vec::new();
    let mut plain = None;
    for token in to.iter().take(MAX_TARGETS) {
        let Some(target) = read_target(token, tls.server_name(), context) else { continue };
        if !target.is_tls() {
            plain = plain.or(Some(token));
        }
        if let (UpstreamTarget::Address { address, .. }, Some(source)) = (&target, options.source_address)
            && address.is_ipv4() != source.is_ipv4()
        {
            let message =
                format!("{address} cannot be reached from the source_address {source}: one is IPv4, the other IPv6");
            context.diagnostics.error(token.span, message).help("give both in the same family");
        }
        targets.push(target);
    }
    let has_tls = targets.iter().any(UpstreamTarget::is_tls);
    if let Some(line) = directive.options.iter().find(|line| line.name.text == "doh_method")
        && !targets.iter().any(UpstreamTarget::is_https)
    {
        context
            .diagnostics
            .warning(line.name.span, "doh_method is ignored: no upstream is asked over HTTPS")
            .help("write https:// before the addresses of those that are, or remove it");
    }
    if let (true, Some(token)) = (has_tls, plain) {
        let message = format!(
            "{} is asked by plain DNS beside others over TLS: what is asked of it can be read on the way",
            token.text
        );
        context.diagnostics.warning(token.span, message).help("write tls:// or https:// before it, if it speaks that");
    }
    let tls = tls.client(has_tls, &directive.keyword, context);
    Some(ForwardConfig { from: zones?.into_iter().next()?, except, targets, tls, options })
}

#[allow(clippy::too_many_lines, reason = "one arm an option")]
fn read_option(line: &OptionLine, options: &mut ForwardOptions, except: &mut Vec<Name>, diagnostics: &mut Diagnostics) {
    if let Some(nested) = line.block.first() {
        diagnostics
            .error(nested.name.span, format!("{} takes no block", line.name.text))
            .help("remove the braces and what is in them");
    }
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    match line.name.text.as_str() {
        "except" => {
            for token in at_least_one(line, "except NAME...", diagnostics) {
                except.extend(value::zones_or_none(token, diagnostics));
            }
        }
        "force_tcp" => options.force_tcp |= flag(line, diagnostics),
        "prefer_udp" => options.prefer_udp |= flag(line, diagnostics),
        "use_caps_for_id" => {
            diagnostics
                .beyond_reference(line.name.span, "CoreDNS's forward has no option use_caps_for_id")
                .help("take it out before you go back");
            options.use_caps_for_id |= flag(line, diagnostics);
        }
        "next_on_nodata" => options.next_on_nodata |= flag(line, diagnostics),
        "failfast_all_unhealthy_upstreams" => options.failfast_all_unhealthy_upstreams |= flag(line, diagnostics),
        "expire" => set(&mut options.expire, duration(line, Duration::ZERO..=YEAR, diagnostics)),
        "max_age" => {
            if let Some(age) = duration(line, Duration::ZERO..=YEAR, diagnostics) {
                // As in CoreDNS, 0 means no limit.
                options.max_age = Some(if age.is_zero() { YEAR } else { age });
            }
        }
        "read_timeout" => {
            set(
                &mut options.read_timeout,
                duration(line, Duration::from_millis(1)..=Duration::from_secs(60), diagnostics),
            );
        }
        "max_idle_conns" => set(&mut options.max_idle_conns, count(line, diagnostics).and_then(|n| n.try_into().ok())),
        "max_fails" => set(&mut options.max_fails, count(line, diagnostics)),
        "max_connect_attempts" => set(&mut options.max_connect_attempts, count(line, diagnostics)),
        "max_concurrent" => set(&mut options.max_concurrent, count(line, diagnostics).and_then(|n| n.try_into().ok())),
        "policy" => {
            if let Some([word]) =
                value::exactly(&line.name, &line.arguments, "policy random|round_robin|sequential", diagnostics)
            {
                match UpstreamPolicy::from_word(&word.text) {
                    Some(policy) => options.policy = policy,
                    None => {
                        let help = match nearest(&word.text, UpstreamPolicy::WORDS) {
                            Some(near) => format!("did you mean `{near}`?"),
                            None => "one of random, round_robin and sequential".to_owned(),
                        };
                        diagnostics.error(word.span, format!("unknown policy `{}`", word.text)).help(help);
                    }
                }
            }
        }
        "health_check" => read_health_check(line, options, diagnostics),
        "next" => options.next.extend(rcodes(line, "next RCODE...", diagnostics).into_iter().map(|(rcode, _)| rcode)),
        "failover" => {
            for (rcode, token) in rcodes(line, "failover RCODE...", diagnostics) {
                if rcode == Rcode::NOERROR {
                    diagnostics
                        .error(token.span, "failover cannot have NOERROR: it would ask every upstream every time")
                        .help("name codes of failure, such as SERVFAIL or REFUSED");
                } else {
                    options.failover.push(rcode);
                }
            }
        }
        "source_address" => {
            if let Some([word]) = value::exactly(&line.name, &line.arguments, "source_address IP", diagnostics) {
                match word.text.parse() {
                    Ok(address) => options.source_address = Some(address),
                    Err(_) => {
                        diagnostics
                            .error(word.span, format!("source_address must be an IP address, not `{}`", word.text))
                            .help("an address of this machine, such as 192.0.2.1");
                    }
                }
            }
        }
        "doh_method" => {
            if let Some([word]) = value::exactly(&line.name, &line.arguments, "doh_method GET|POST", diagnostics) {
                match word.text.as_str() {
                    "GET" => options.doh_method = DohMethod::Get,
                    "POST" => options.doh_method = DohMethod::Post,
                    _ => {
                        let message = format!("doh_method must be GET or POST, not `{}`", word.text);
                        diagnostics.error(word.span, message).help("in capitals, as CoreDNS wants it");
                    }
                }
            }
        }
        "resolver" => {
            for token in at_least_one(line, "resolver IP[:PORT]...", diagnostics) {
                match token.text.parse::<SocketAddr>().or_else(|_| {
                    token
                        .text
                        .trim_start_matches('[')
                        .trim_end_matches(']')
                        .parse::<IpAddr>()
                        .map(|ip| SocketAddr::new(ip, 53))
                }) {
                    Ok(address) => options.resolvers.push(address),
                    Err(_) => {
                        diagnostics
                            .error(token.span, format!("resolver must be IP or IP:PORT, not `{}`", token.text))
                            .help("such as 10.0.0.1 or [2001:db8::1]:53");
                    }
                }
            }
        }
        // Of `TlsOptions`.
        "tls" | "tls_servername" => {}
        _ => value::unknown_option(line, "forward", &OPTIONS, diagnostics),
    }
}

fn read_health_check(line: &OptionLine, options: &mut ForwardOptions, diagnostics: &mut Diagnostics) {
    const USAGE: &str = "health_check DURATION [no_rec] [domain FQDN]";
    let Some((interval, mut rest)) = line.arguments.split_first() else {
        diagnostics.error(line.name.span, "health_check needs a duration").help(USAGE);
        return;
    };
    let range = Duration::ZERO..=Duration::from_secs(24 * 3600);
    set(
        &mut options.probe_interval,
        value::nearest_duration(interval, "the interval of health checks", range, diagnostics),
    );
    options.probe_name = Name::root();
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        match (word.text.as_str(), after) {
            ("no_rec", _) => options.probe_recursion_desired = false,
            ("domain", [name, after @ ..]) => {
                rest = after;
                match Name::parse(&name.text) {
                    Ok(parsed) => options.probe_name = parsed.to_lower().to_name(),
                    Err(error) => {
                        diagnostics
                            .error(
                                name.span,
                                format!("the domain of health_check, `{}`, is not a domain name: {error}", name.text),
                            )
                            .help("such as `domain example.org`");
                    }
                }
            }
            ("domain", []) => {
                diagnostics.error(word.span, "domain needs a name").help(USAGE);
            }
            (unknown, _) => {
                let help = nearest(unknown, ["no_rec", "domain"])
                    .map_or_else(|| USAGE.to_owned(), |near| format!("did you mean `{near}`?"));
                diagnostics.error(word.span, format!("health_check has no option `{unknown}`")).help(help);
            }
        }
    }
}

fn set<T>(option: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *option = value;
    }
}

/// An option without arguments.
fn flag(line: &OptionLine, diagnostics: &mut Diagnostics) -> bool {
    let usage = line.name.text.clone();
    value::exactly::<0>(&line.name, &line.arguments, &usage, diagnostics).is_some()
}

/// The arguments of an option that needs at least one.
fn at_least_one<'a>(line: &'a OptionLine, usage: &str, diagnostics: &mut Diagnostics) -> &'a [Token] {
    if line.arguments.is_empty() {
        diagnostics.error(line.name.span, format!("{} needs at least one argument", line.name.text)).help(usage);
    }
    &line.arguments
}

fn duration(
    line: &OptionLine,
    range: std::ops::RangeInclusive<Duration>,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    let [token] = value::exactly(&line.name, &line.arguments, &format!("{} DURATION", line.name.text), diagnostics)?;
    value::nearest_duration(token, &line.name.text, range, diagnostics)
}

/// An option with one whole number, of which 32 bits are used.
fn count(line: &OptionLine, diagnostics: &mut Diagnostics) -> Option<u32> {
    let [token] = value::exactly(&line.name, &line.arguments, &format!("{} NUMBER", line.name.text), diagnostics)?;
    value::number_at_most(token, &line.name.text, 0..=u64::from(u32::MAX), diagnostics)?.try_into().ok()
}

fn rcodes<'a>(line: &'a OptionLine, usage: &str, diagnostics: &mut Diagnostics) -> Vec<(Rcode, &'a Token)> {
    let mut found = Vec::new();
    for token in at_least_one(line, usage, diagnostics) {
        match Rcode::from_mnemonic(&token.text) {
            Some(rcode) => found.push((rcode, token)),
            None => {
                let help = match nearest(
                    &token.text.to_uppercase(),
                    ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"],
                ) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "such as NXDOMAIN, SERVFAIL or REFUSED".to_owned(),
                };
                diagnostics.error(token.span, format!("`{}` is not a response code", token.text)).help(help);
            }
        }
    }
    found
}
