//! `prometheus [ADDRESS] { runtime_metrics }`

use super::Prometheus;
use crate::chain::{BlockConfig, ParseContext, Part};
use crate::corefile::{Directive, ListenAddress, OptionLine, listen_address, value};
use std::net::{Ipv4Addr, SocketAddr};

/// `localhost:9153`, the port registered for CoreDNS exporters.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9153);

/// Reads one `prometheus` of a server block.
pub(crate) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let address = match directive.arguments.as_slice() {
        [] => Some(ListenAddress::At(DEFAULT_ADDRESS)),
        [address] => listen_address(address, context.loaders.files, context.diagnostics),
        [_, extra, ..] => {
            context
                .diagnostics
                .error(extra.span, format!("prometheus takes one address, so `{}` is too many", extra.text))
                .help("write `prometheus [ADDRESS]`, such as `prometheus :9153`");
            None
        }
    };
    for line in &directive.options {
        parse_option(line, context);
    }
    if let Some(address) = address {
        let configured = Box::new(Prometheus { address: address.address() });
        block.parts.push(Part { keyword: "prometheus", span: directive.keyword.span, configured });
    }
}

fn parse_option(line: &OptionLine, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    match line.name.text.as_str() {
        "runtime_metrics" => {
            if value::exactly::<0>(&line.name, &line.arguments, "runtime_metrics", diagnostics).is_some() {
                diagnostics
                    .warning(line.name.span, "runtime_metrics has no effect: it is about the Go runtime, which is not here")
                    .help("take the line out; process_* metrics are there without it");
            }
        }
        "tls" => diagnostics.error(line.name.span, "metrics over TLS are not served yet").help(
            "take the line out and serve metrics on an address only the scraper reaches, such as `prometheus 127.0.0.1:9153`",
        ),
        _ => value::unknown_option(line, "prometheus", &["runtime_metrics"], diagnostics),
    }
}
