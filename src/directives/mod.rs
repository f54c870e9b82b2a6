//! A folder for each Corefile keyword, and the one list that fixes their order: the reference's
//! (CoreDNS 1.14.4, core/dnsserver/zdirectives.go), and what is ours alone. Directives never import each other.

pub mod bind;
pub mod bufsize;
pub mod cache;
pub mod client_subnet;
pub mod debug;
pub mod errors;
pub mod fairness;
pub mod forward;
pub mod health;
pub mod local;
pub mod log;
pub mod r#loop;
pub mod metadata;
pub mod nsid;
pub mod prometheus;
pub mod ready;
pub mod reload;
pub mod timeouts;
pub mod whoami;

use crate::chain::{BlockConfig, ParseContext};
use crate::corefile::{Directive, nearest};

/// A keyword the Corefile may hold, and all that the plan knows of it.
pub struct Keyword {
    pub name: &'static str,
    pub support: Support,
    /// Stands in the chain in the reference, so `coredns_plugin_enabled` shows it; else it only sets something.
    pub is_plugin: bool,
    /// With it the reference answers classes other than IN (`EnableChaos` of its core/dnsserver).
    pub any_class: bool,
    /// What of the directive's text its answers depend on. Standing behind `cache`, it has the block's cache begun anew when that changes.
    pub answer_source: fn(&Directive) -> String,
}

/// What we can do with a keyword.
pub enum Support {
    /// Built here. `parse` reads one occurrence into the block.
    Here { parse: Parse, repeats: bool },
    /// The reference has it, we do not yet: refused with those words.
    NotYet,
}

/// Reads one occurrence of a directive into its block, and reports everything that is wrong with it.
pub type Parse = fn(&Directive, &mut BlockConfig, &mut ParseContext<'_>);

impl Keyword {
    const fn here(name: &'static str, parse: Parse, is_plugin: bool) -> Self {
        Self {
            name,
            support: Support::Here { parse, repeats: false },
            is_plugin,
            any_class: false,
            answer_source: Directive::to_string,
        }
    }

    /// Its answers depend on less than its whole text.
    const fn answers_by(mut self, source: fn(&Directive) -> String) -> Self {
        self.answer_source = source;
        self
    }

    /// May stand several times in a server block.
    const fn repeatable(mut self) -> Self {
        if let Support::Here { repeats, .. } = &mut self.support {
            *repeats = true;
        }
        self
    }

    const fn any_class(mut self) -> Self {
        self.any_class = true;
        self
    }
}

const fn plugin(name: &'static str, parse: Parse) -> Keyword {
    Keyword::here(name, parse, true)
}

const fn setting(name: &'static str, parse: Parse) -> Keyword {
    Keyword::here(name, parse, false)
}

const fn not_yet(name: &'static str) -> Keyword {
    Keyword { name, support: Support::NotYet, is_plugin: false, any_class: false, answer_source: Directive::to_string }
}

/// Whether a word is `import` or a keyword that there is, or is near enough to one to be meant.
pub fn is_keyword_or_near(word: &str) -> bool {
    word == "import" || nearest(word, ORDER.iter().map(|keyword| keyword.name)).is_some()
}

/// Every keyword in the order in which their handlers stand in a chain.
pub const ORDER: &[Keyword] = &[
    not_yet("root"),
    plugin("metadata", metadata::parse),
    not_yet("geoip"),
    not_yet("cancel"),
    not_yet("tls"),
    not_yet("proxyproto"),
    not_yet("quic"),
    not_yet("grpc_server"),
    not_yet("https"),
    not_yet("https3"),
    setting("timeouts", timeouts::parse),
    // Ours.
    setting("fairness", fairness::parse),
    setting("client_subnet", client_subnet::parse),
    not_yet("multisocket"),
    setting("reload", reload::parse),
    plugin("nsid", nsid::parse),
    plugin("bufsize", bufsize::parse),
    setting("bind", bind::parse).repeatable(),
    setting("debug", debug::parse),
    not_yet("trace"),
    setting("ready", ready::parse),
    setting("health", health::parse),
    not_yet("pprof"),
    plugin("prometheus", prometheus::parse),
    plugin("errors", errors::parse),
    plugin("log", log::parse).repeatable(),
    not_yet("dnstap"),
    plugin("local", local::parse),
    not_yet("dns64"),
    not_yet("any"),
    not_yet("chaos").any_class(),
    not_yet("loadbalance"),
    not_yet("tsig"),
    plugin("cache", cache::parse),
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
    plugin("loop", r#loop::parse).answers_by(|_| String::new()),
    plugin("forward", forward::parse).repeatable().any_class().answers_by(forward::answer_source),
    not_yet("grpc"),
    not_yet("erratic"),
    plugin("whoami", whoami::parse),
    not_yet("on"),
    not_yet("sign"),
    not_yet("view"),
    not_yet("nomad"),
];
