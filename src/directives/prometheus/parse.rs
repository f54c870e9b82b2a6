//! `prometheus [ADDRESS] { tls FILE; runtime_metrics }`

use super::Prometheus;
use super::web_config::WebConfig;
use crate::chain::{BlockConfig, ParseContext, Part};
use crate::corefile::{Directive, ListenAddress, OptionLine, listen_address, value};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

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
    let mut web = None;
    for line in &directive.options {
        match line.name.text.as_str() {
            "tls" if web.is_some() => {
                context
                    .diagnostics
                    .error(line.name.span, "tls stands twice in one `prometheus`")
                    .help("keep one of them");
            }
            "tls" => web = Some(read_tls(line, context)),
            _ => parse_option(line, context),
        }
    }
    if let Some(address) = address {
        let tls = web.flatten().and_then(|web| web.tls);
        let configured = Box::new(Prometheus { address: address.address(), tls });
        block.parts.push(Part { keyword: "prometheus", span: directive.keyword.span, configured });
    }
}

fn parse_option(line: &OptionLine, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    match line.name.text.as_str() {
        "runtime_metrics" => {
            if value::exactly::<0>(&line.name, &line.arguments, "runtime_metrics", diagnostics).is_some() {
                diagnostics
                    .warning(
                        line.name.span,
                        "runtime_metrics has no effect: it is about the Go runtime, which is not here",
                    )
                    .help("take the line out; process_* metrics are there without it");
            }
        }
        _ => value::unknown_option(line, "prometheus", &["runtime_metrics", "tls"], diagnostics),
    }
}

/// Reads the web configuration that `tls` names. `None` after an error.
fn read_tls(line: &OptionLine, context: &mut ParseContext<'_>) -> Option<WebConfig> {
    let diagnostics = &mut *context.diagnostics;
    let [file] = value::exactly(&line.name, &line.arguments, "tls FILE", diagnostics)?;
    match WebConfig::read(Path::new(&file.text), context.loaders.files) {
        Ok(config) => {
            for key in &config.ignored {
                diagnostics.warning(file.span, format!("`{key}` of {} is not heeded", file.text)).help("take it out");
            }
            Some(config)
        }
        Err(error) => {
            let diagnostic = match error.is_absence() {
                true => diagnostics.absent_file(file.span, error.to_string()),
                false => diagnostics.error(file.span, error.to_string()),
            };
            diagnostic
                .help("the file is a web configuration of Prometheus' exporter-toolkit, with `tls_server_config`");
            None
        }
    }
}
