//! `trace [ENDPOINT-TYPE] [ENDPOINT] { ... }`

use super::{KEYWORD, TraceConfig};
use crate::chain::{BlockConfig, ParseContext, Part};
use crate::corefile::{Diagnostics, Directive, OptionLine, Token, nearest, value};
use crate::net::tls::{ClientTls, system_roots};
use hyper::Uri;
use std::time::Duration;

const USAGE: &str = "trace [zipkin] [ENDPOINT]";
const OPTIONS: [&str; 7] = [
    "every",
    "service",
    "client_server",
    "datadog_analytics_rate",
    "zipkin_max_backlog_size",
    "zipkin_max_batch_size",
    "zipkin_max_batch_interval",
];
/// Where a Zipkin on this machine listens.
const DEFAULT_ENDPOINT: &str = "localhost:9411";
/// Spans. A query with all its handlers has ten or so, of some 300 octets each.
const MOST_SPANS: u64 = 1_000_000;
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// The collector's address.
pub(super) struct Endpoint {
    pub url: String,
    pub host: String,
    pub port: u16,
    pub path: String,
    pub tls: Option<ClientTls>,
}

/// Reads one `trace` of a server block. Of several the last counts.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let mut config = TraceConfig::default();
    for line in &directive.options {
        read_option(line, &mut config, context.diagnostics);
    }
    config.endpoint = match directive.arguments.as_slice() {
        [] => read_endpoint(&Token { text: DEFAULT_ENDPOINT.to_owned(), span: directive.keyword.span }, context),
        [endpoint] => {
            if matches!(endpoint.text.as_str(), "zipkin" | "datadog") {
                let message = format!("`{}` alone is taken for the collector's host name", endpoint.text);
                context.diagnostics.warning(endpoint.span, message).help("write `trace zipkin localhost:9411`");
            }
            read_endpoint(endpoint, context)
        }
        [kind, endpoint] if check_kind(kind, context.diagnostics) => read_endpoint(endpoint, context),
        [_, _] => None,
        [_, _, extra, ..] => {
            context
                .diagnostics
                .error(extra.span, "trace takes a type and an endpoint")
                .help(format!("write `{USAGE}`"));
            None
        }
    };
    block.parts.retain(|part| part.keyword != KEYWORD);
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(config) });
}

fn check_kind(kind: &Token, diagnostics: &mut Diagnostics) -> bool {
    match kind.text.to_lowercase().as_str() {
        "zipkin" => true,
        "datadog" => {
            diagnostics.error(kind.span, "traces are not sent to Datadog's agent in its own protocol").help(
                "send them to a collector that takes Zipkin's, such as an OpenTelemetry Collector with a zipkin receiver and a \
                 datadog exporter: `trace zipkin HOST:9411`",
            );
            false
        }
        unknown => {
            let help = match nearest(unknown, ["zipkin"]) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write `{USAGE}`; an OpenTelemetry Collector takes spans by its zipkin receiver"),
            };
            diagnostics.error(kind.span, format!("tracing endpoint type '{}' is not supported", kind.text)).help(help);
            false
        }
    }
}

/// As in CoreDNS, what has no `http` in it is a host and a port.
fn read_endpoint(token: &Token, context: &mut ParseContext<'_>) -> Option<Endpoint> {
    let text = if token.text.is_empty() { DEFAULT_ENDPOINT } else { token.text.as_str() };
    let url = if text.contains("http") { text.to_owned() } else { format!("http://{text}/api/v2/spans") };
    let uri: Option<Uri> = url.parse().ok();
    let parts =
        uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.host().filter(|host| !host.is_empty())?, uri)));
    let Some((scheme @ ("http" | "https"), host, uri)) = parts else {
        let message = format!("`{}` is no URL of a collector, so nothing is traced", token.text);
        context
            .diagnostics
            .warning(token.span, message)
            .help("such as collector.example.org:9411 or http://HOST:9411/api/v2/spans");
        return None;
    };
    let is_tls = scheme == "https";
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let tls = match is_tls {
        false => None,
        true => match ClientTls::new(system_roots(context.loaders.files), None) {
            Ok(tls) => Some(tls),
            Err(error) => {
                context.diagnostics.error(token.span, format!("TLS cannot be used: {error}"));
                return None;
            }
        },
    };
    Some(Endpoint { url, host, port, path, tls })
}

fn read_option(line: &OptionLine, config: &mut TraceConfig, diagnostics: &mut Diagnostics) {
    let number = |what: &str, most: u64, diagnostics: &mut Diagnostics| {
        let [token] = value::exactly(&line.name, &line.arguments, &format!("{} NUMBER", line.name.text), diagnostics)?;
        value::number_at_most(token, what, 0..=most, diagnostics)
    };
    match line.name.text.as_str() {
        "every" => {
            if let Some(every) = number("the number of queries of which one is traced", u64::MAX, diagnostics) {
                config.every = every;
            }
        }
        "service" => {
            if let Some([name]) = value::exactly(&line.name, &line.arguments, "service NAME", diagnostics) {
                config.service.clone_from(&name.text);
            }
        }
        "client_server" => read_client_server(line, diagnostics),
        "datadog_analytics_rate" => {
            let rate = line.arguments.first().map(|token| (token, token.text.parse::<f64>()));
            match rate {
                Some((token, Err(_))) => {
                    diagnostics
                        .error(token.span, format!("`{}` is not a number", token.text))
                        .help("take the line away: it is for Datadog alone");
                }
                Some((token, Ok(rate))) if !(0.0..=1.0).contains(&rate) => {
                    diagnostics
                        .error(token.span, format!("datadog analytics rate must be between 0 and 1, not {rate}"))
                        .help("take the line away: it is for Datadog alone");
                }
                _ => {
                    diagnostics
                        .warning(line.name.span, "datadog_analytics_rate is ignored: it is for Datadog alone")
                        .help("take the line away");
                }
            }
        }
        // As in the reference, 0 is the default.
        "zipkin_max_backlog_size" => {
            let spans = number("the number of spans that wait", MOST_SPANS, diagnostics);
            set(&mut config.backlog, spans.filter(|spans| *spans > 0).map(|spans| spans as usize));
        }
        "zipkin_max_batch_size" => {
            let spans = number("the number of spans of a batch", MOST_SPANS, diagnostics);
            set(&mut config.batch, spans.filter(|spans| *spans > 0).map(|spans| spans as usize));
        }
        "zipkin_max_batch_interval" => {
            let usage = "zipkin_max_batch_interval DURATION";
            if let Some([token]) = value::exactly(&line.name, &line.arguments, usage, diagnostics) {
                let range = Duration::ZERO..=LONGEST_INTERVAL;
                let interval = value::nearest_duration(token, "the interval of batches", range, diagnostics);
                set(&mut config.interval, interval.filter(|interval| !interval.is_zero()));
            }
        }
        _ => value::unknown_option(line, KEYWORD, &OPTIONS, diagnostics),
    }
}

/// It would have the span of a client that sends one be ours too; DNS over UDP and TCP carries none.
fn read_client_server(line: &OptionLine, diagnostics: &mut Diagnostics) {
    // Go's strconv.ParseBool.
    const WORDS: [&str; 12] = ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];
    match line.arguments.as_slice() {
        [] => {}
        [word] if WORDS.contains(&word.text.as_str()) => {}
        [word] => {
            diagnostics
                .error(word.span, format!("`{}` is neither true nor false", word.text))
                .help("write `client_server`, or `client_server false`");
        }
        [_, extra, ..] => {
            diagnostics.error(extra.span, "client_server takes one argument").help("write `client_server`");
        }
    }
}

fn set<T>(option: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *option = value;
    }
}
