//! One room for each Corefile keyword, and the one list that fixes their order: the reference's
//! (CoreDNS 1.14.4, core/dnsserver/zdirectives.go), and what is ours alone. Rooms never import each other.

pub mod bind;
pub mod bufsize;
pub mod cache;
pub mod debug;
pub mod errors;
pub mod fairness;
pub mod forward;
pub mod health;
pub mod local;
pub mod log;
pub mod r#loop;
pub mod metadata;
pub mod prometheus;
pub mod ready;
pub mod reload;
pub mod timeouts;
pub mod whoami;

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, nearest};

/// A keyword the Corefile may hold.
pub struct Keyword {
    pub name: &'static str,
    pub support: Support,
}

/// What we can do with a keyword.
pub enum Support {
    /// Built here. `parse` reads one occurrence into the block.
    Here { parse: fn(&Directive, &mut BlockConfig, &mut ParseContext<'_>), repeats: bool },
    /// The reference has it, we do not yet: refused with those words.
    NotYet,
}

const fn here(name: &'static str, parse: fn(&Directive, &mut BlockConfig, &mut ParseContext<'_>)) -> Keyword {
    Keyword { name, support: Support::Here { parse, repeats: false } }
}

const fn repeatable(name: &'static str, parse: fn(&Directive, &mut BlockConfig, &mut ParseContext<'_>)) -> Keyword {
    Keyword { name, support: Support::Here { parse, repeats: true } }
}

const fn not_yet(name: &'static str) -> Keyword {
    Keyword { name, support: Support::NotYet }
}

/// Whether a word is `import` or a keyword that there is, or is near enough to one to be meant.
pub fn is_keyword_or_near(word: &str) -> bool {
    word == "import" || nearest(word, ORDER.iter().map(|keyword| keyword.name)).is_some()
}

/// Every keyword in the order in which their links stand in a chain.
pub const ORDER: &[Keyword] = &[
    not_yet("root"),
    here("metadata", metadata::parse),
    not_yet("geoip"),
    not_yet("cancel"),
    not_yet("tls"),
    not_yet("proxyproto"),
    not_yet("quic"),
    not_yet("grpc_server"),
    not_yet("https"),
    not_yet("https3"),
    here("timeouts", timeouts::parse),
    // Ours.
    here("fairness", fairness::parse),
    not_yet("multisocket"),
    here("reload", reload::parse),
    not_yet("nsid"),
    here("bufsize", bufsize::parse),
    repeatable("bind", bind::parse),
    here("debug", debug::parse),
    not_yet("trace"),
    here("ready", ready::parse),
    here("health", health::parse),
    not_yet("pprof"),
    here("prometheus", prometheus::parse),
    here("errors", errors::parse),
    repeatable("log", log::parse),
    not_yet("dnstap"),
    here("local", local::parse),
    not_yet("dns64"),
    not_yet("any"),
    not_yet("chaos"),
    not_yet("loadbalance"),
    not_yet("tsig"),
    here("cache", cache::parse),
    not_yet("rewrite"),
    not_yet("acl"),
    not_yet("header"),
    not_yet("dnssec"),
    not_yet("autopath"),
    not_yet("minimal"),
    not_yet("template"),
    not_yet("transfer"),
    not_yet("hosts"),
    not_yet("route53"),
    not_yet("azure"),
    not_yet("clouddns"),
    not_yet("k8s_external"),
    not_yet("kubernetes"),
    not_yet("file"),
    not_yet("auto"),
    not_yet("secondary"),
    not_yet("etcd"),
    here("loop", r#loop::parse),
    repeatable("forward", forward::parse),
    not_yet("grpc"),
    not_yet("erratic"),
    here("whoami", whoami::parse),
    not_yet("on"),
    not_yet("sign"),
    not_yet("view"),
    not_yet("nomad"),
];
