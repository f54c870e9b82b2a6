//! The `ready` directive serves `/ready` over HTTP: whether the directives are ready; see README.md beside this file.

use crate::chain::{
    BlockConfig, BuildContext, BuildError, Built, Configured, Endpoint, HttpAnswer, Lifecycle, ParseContext, Part,
};
use crate::corefile::{Directive, ListenAddress, Token, listen_address, nearest, value};
use std::net::SocketAddr;

const KEYWORD: &str = "ready";
const PATH: &str = "/ready";
const DEFAULT_ADDRESS: &str = ":8181";
const MONITORS: [&str; 2] = ["until-ready", "continuously"];

/// Reads one `ready` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    for line in &directive.options {
        if line.name.text != "monitor" {
            value::unknown_option(line, KEYWORD, &["monitor"], diagnostics);
            continue;
        }
        let usage = "monitor until-ready|continuously";
        let Some([monitor]) = value::exactly(&line.name, &line.arguments, usage, diagnostics) else { continue };
        if !MONITORS.contains(&monitor.text.as_str()) {
            let meant = nearest(&monitor.text, MONITORS).unwrap_or("until-ready or continuously");
            diagnostics
                .error(monitor.span, format!("monitor {:?} is not known", monitor.text))
                .help(format!("write {meant}"));
        }
    }
    let default = Token { text: DEFAULT_ADDRESS.to_owned(), span: directive.keyword.span };
    let token = match directive.arguments.as_slice() {
        [] => &default,
        [address] => address,
        [_, extra, ..] => {
            diagnostics
                .error(extra.span, "ready takes one address")
                .help("write ready [ADDRESS], such as ready 127.0.0.1:8181");
            return;
        }
    };
    let address = listen_address(token, context.loaders.files, diagnostics).and_then(ListenAddress::address);
    let Some(address) = address else { return };
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(Ready { address }) });
}

/// An HTTP path that says whether queries are served.
struct Ready {
    address: SocketAddr,
}

impl Configured for Ready {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let lifecycle = context.process.lifecycle.clone();
        let endpoints = vec![Endpoint::shared(self.address, PATH, move || state(&lifecycle))];
        Ok(Built { endpoints, ..Built::default() })
    }
}

fn state(lifecycle: &Lifecycle) -> HttpAnswer {
    let (status, body) = if lifecycle.is_stopping() {
        (503, "Shutting down")
    } else if lifecycle.is_serving() {
        (200, "OK")
    } else {
        (503, "Not serving yet")
    };
    HttpAnswer::text(status, body)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::ProcessContext;
    use crate::chain::testing::{build, configure, shared_answer};

    #[test]
    fn ready_follows_the_life_of_the_process() {
        let (block, said) = configure(parse, "ready 127.0.0.1:8091");
        assert_eq!(said, "");
        let process = ProcessContext::new(1, 0);
        let built = build(&block, &process);
        let [endpoint] = built.endpoints.as_slice() else { panic!("one endpoint") };
        assert_eq!((endpoint.address, endpoint.path), ("127.0.0.1:8091".parse().unwrap(), "/ready"));
        let state = || {
            let answer = shared_answer(endpoint);
            (answer.status, answer.body)
        };
        assert_eq!(state(), (503, "Not serving yet".into()));
        process.lifecycle.set_serving();
        assert_eq!(state(), (200, "OK".into()));
        process.lifecycle.set_stopping();
        assert_eq!(state(), (503, "Shutting down".into()));
    }

    #[test]
    fn ready_is_served_on_port_8181_of_every_address_by_default() {
        let (block, said) = configure(parse, "ready");
        assert_eq!(said, "");
        let address = build(&block, &ProcessContext::new(1, 0)).endpoints[0].address;
        assert!(address.ip().is_unspecified(), "{address}");
        assert_eq!(address.port(), 8181);
    }

    #[test]
    fn both_ways_of_monitoring_are_accepted() {
        for text in ["ready {\n monitor until-ready\n}", "ready :8091 {\n monitor continuously\n}"] {
            let (block, said) = configure(parse, text);
            assert_eq!((block.parts.len(), said.as_str()), (1, ""), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, expected) in [
            ("ready 127.0.0.1", "127.0.0.1"),
            ("ready :8181 :8182", "one address"),
            ("ready {\n monitor\n}", "monitor"),
            ("ready {\n monitor continously\n}", "write continuously"),
            ("ready {\n watch continuously\n}", "watch"),
        ] {
            let (_, said) = configure(parse, text);
            assert!(said.contains("Corefile:") && said.contains(expected), "{text}: {said}");
        }
    }
}
