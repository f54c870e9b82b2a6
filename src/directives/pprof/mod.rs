//! The `pprof` directive serves profiles of the process over HTTP, as `go tool pprof` reads them; see README.md beside
//! this file.

mod aggregate;
mod cpu;
mod heap;
mod message;
mod parse;
mod rest;
mod symbols;
#[cfg(test)]
mod tests;

pub use message::Profile;
pub use parse::parse;

use crate::chain::{BuildContext, BuildError, Built, Configured, Endpoint, HttpAnswer};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

const KEYWORD: &str = "pprof";

/// What is served, and what of it is told on the index page.
const INDEX: &str = "\
<html><head><title>/debug/pprof/</title></head><body>
<p>Profiles of this process, as <code>go tool pprof</code> reads them:</p>
<ul>
<li><a href=\"/debug/pprof/profile\">profile</a>: what it uses its processor time for; ?seconds=N, 1 to 60, 30 if left out</li>
<li><a href=\"/debug/pprof/heap?debug=1\">heap</a>: what the allocator holds; ?debug=1 as text</li>
<li><a href=\"/debug/pprof/cmdline\">cmdline</a>: its command line, with an octet of zero between arguments</li>
</ul>
</body></html>
";

/// `pprof ADDRESS`.
#[derive(Debug, PartialEq, Eq)]
struct Pprof {
    address: SocketAddr,
}

impl Configured for Pprof {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let address = self.address;
        let index = || HttpAnswer { status: 200, content_type: "text/html; charset=utf-8", body: INDEX.into() };
        let heap = Arc::new(heap::Heap::new(context.process.cache_memory.clone()));
        let endpoints = vec![
            Endpoint::shared(address, "/debug/pprof", index),
            Endpoint::shared(address, "/debug/pprof/", index),
            Endpoint::shared(address, "/debug/pprof/cmdline", command_line),
            Endpoint::for_each(address, "/debug/pprof/profile", |query| {
                Box::pin(cpu::answer(parameter(query, "seconds")))
            }),
            Endpoint::for_each(address, "/debug/pprof/heap", move |query| {
                let is_text = parameter(query, "debug").is_some_and(|value| value != "0");
                let heap = heap.clone();
                Box::pin(async move { heap.answer(is_text).await })
            }),
        ];
        Ok(Built { endpoints, ..Built::default() })
    }
}

/// With an octet of zero between arguments, as in /proc.
fn command_line() -> HttpAnswer {
    let arguments: Vec<Vec<u8>> = std::env::args_os().map(OsStringExt::into_vec).collect();
    HttpAnswer::text(200, arguments.join(&0))
}

/// The first value of this name in a URI's query (`a=1&b=2`).
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}
