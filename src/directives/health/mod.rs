//! The `health` directive serves `/health` over HTTP: whether the process lives; see README.md beside this file.

mod poll;

use crate::chain::{
    BlockConfig, BuildContext, BuildError, Built, Configured, Endpoint, HttpAnswer, ParseContext, Part,
};
use crate::corefile::{Directive, ListenAddress, Token, listen_address, value};
use std::net::SocketAddr;
use std::time::Duration;

const KEYWORD: &str = "health";
const PATH: &str = "/health";
const DEFAULT_ADDRESS: &str = ":8080";
/// Far beyond any grace period; keeps a slip of the pen from holding a node's shutdown up for days.
const LONGEST_LAMEDUCK: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads one `health` of a server block.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    for line in &directive.options {
        if line.name.text != "lameduck" {
            value::unknown_option(line, KEYWORD, &["lameduck"], diagnostics);
            continue;
        }
        let Some([duration]) = value::exactly(&line.name, &line.arguments, "lameduck DURATION", diagnostics) else {
            continue;
        };
        if let Some(lameduck) = value::duration_or_zero(duration, "the lameduck time", LONGEST_LAMEDUCK, diagnostics) {
            block.lameduck = lameduck;
        }
    }
    let default = Token { text: DEFAULT_ADDRESS.to_owned(), span: directive.keyword.span };
    let is_there = |part: &Part| part.keyword == KEYWORD;
    let token = match directive.arguments.as_slice() {
        [] if block.parts.iter().any(is_there) => return,
        [] => &default,
        [address] => address,
        [_, extra, ..] => {
            diagnostics
                .error(extra.span, "health takes one address")
                .help("write health [ADDRESS], such as health 127.0.0.1:8080");
            return;
        }
    };
    let address = listen_address(token, context.loaders.files, diagnostics).and_then(ListenAddress::address);
    let Some(address) = address else { return };
    // Written twice, the last address counts.
    block.parts.retain(|part| !is_there(part));
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(Health { address }) });
}

/// An HTTP path that answers as long as the process can answer at all.
struct Health {
    address: SocketAddr,
}

impl Configured for Health {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let mut built = Built::default();
        built.endpoints.push(Endpoint::shared(self.address, PATH, healthy));
        let series = poll::PollMetrics::new(&context.process.registry);
        built.background.push(Box::pin(poll::poll_forever(self.address, PATH, series)));
        Ok(built)
    }
}

fn healthy() -> HttpAnswer {
    HttpAnswer::text(200, "OK")
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::{build, configure, shared_answer};
    use crate::chain::{HttpAnswer, ProcessContext};
    use std::time::Duration;

    #[test]
    fn health_is_served_on_the_address_written() {
        let (block, said) = configure(parse, "health 127.0.0.1:8091");
        assert_eq!(said, "");
        let built = build(&block, &ProcessContext::new(1, 0));
        let [endpoint] = built.endpoints.as_slice() else { panic!("one endpoint") };
        assert_eq!((endpoint.address, endpoint.path), ("127.0.0.1:8091".parse().unwrap(), "/health"));
        let expected = HttpAnswer { status: 200, content_type: "text/plain; charset=utf-8", body: "OK".into() };
        assert_eq!(shared_answer(endpoint), expected);
        assert_eq!((built.background.len(), block.lameduck), (1, Duration::ZERO));
    }

    #[test]
    fn health_is_served_on_port_8080_of_every_address_by_default() {
        let (block, said) = configure(parse, "health");
        assert_eq!(said, "");
        let address = build(&block, &ProcessContext::new(1, 0)).endpoints[0].address;
        assert!(address.ip().is_unspecified(), "{address}");
        assert_eq!(address.port(), 8080);
    }

    #[test]
    fn health_stays_200_while_the_process_stops() {
        let (block, _) = configure(parse, "health :8091");
        let process = ProcessContext::new(1, 0);
        let built = build(&block, &process);
        process.lifecycle.set_stopping();
        assert_eq!(shared_answer(&built.endpoints[0]).status, 200);
    }

    #[test]
    fn lameduck_goes_to_the_block() {
        let (block, said) = configure(parse, "health :8091 {\n lameduck 5s\n}");
        assert_eq!((block.lameduck, said.as_str()), (Duration::from_secs(5), ""));
    }

    #[test]
    fn written_twice_each_setting_that_is_written_last_counts() {
        let (block, said) = configure(parse, "health :8091 {\n lameduck 5s\n}\nhealth 127.0.0.1:8092\nhealth");
        assert_eq!((block.lameduck, said.as_str()), (Duration::from_secs(5), ""));
        let built = build(&block, &ProcessContext::new(1, 0));
        assert_eq!(built.endpoints[0].address, "127.0.0.1:8092".parse().unwrap());
    }

    #[test]
    fn what_the_reference_does_not_heed_is_a_warning() {
        let (block, said) = configure(parse, "health {\n lameduck -5s\n}");
        assert_eq!((block.lameduck, block.parts.len()), (Duration::ZERO, 1));
        assert!(said.starts_with("Corefile:3:11: warning: "), "{said}");
        let (block, said) = configure(parse, "health 127.0.0.1:");
        assert_eq!(block.parts.len(), 0);
        assert!(said.starts_with("Corefile:2:8: warning: ") && said.contains("nothing is served"), "{said}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "health 127.0.0.1",
            "health :8080 :8081",
            "health {\n lameduck\n}",
            "health {\n lameduck 5\n}",
            "health {\n lamedcuk 5s\n}",
        ] {
            let (_, said) = configure(parse, text);
            assert!(said.contains("Corefile:"), "{text}: {said}");
        }
    }
}
