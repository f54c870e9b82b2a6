//! A folder for each Corefile keyword, and the one list that fixes their order: the reference's
//! (CoreDNS 1.14.7, core/dnsserver/zdirectives.go), and what is ours alone. Directives never import each other.

mod acl;
mod any;
pub mod bind;
mod bufsize;
pub mod cache;
pub mod cancel;
pub mod chaos;
pub mod client_subnet;
pub mod debug;
pub mod dns64;
pub mod dnstap;
pub mod errors;
pub mod fairness;
pub mod forward;
pub mod header;
pub mod health;
pub mod hosts;
pub mod https;
pub mod loadbalance;
mod local;
mod log;
mod r#loop;
mod metadata;
mod minimal;
mod multisocket;
mod nsid;
pub mod pprof;
pub mod prometheus;
pub mod ready;
pub mod reload;
pub mod rewrite;
pub mod root;
pub mod shed;
pub mod template;
pub mod timeouts;
pub mod tls;
pub mod trace;
pub mod view;
pub mod whoami;

use crate::chain::{BlockConfig, Parse};
use crate::corefile::{Directive, nearest};

/// A keyword the Corefile may hold, and all that the plan knows of it.
pub struct Keyword {
    /// As the Corefile writes it.
    pub name: &'static str,
    /// Whether it can be used here.
    pub support: Support,
    /// Stands in the chain in the reference, so `coredns_plugin_enabled` shows it; else it only sets something.
    pub is_plugin: bool,
    /// With it the reference answers classes other than IN (`EnableChaos` of its core/dnsserver).
    pub any_class: bool,
    /// What of the directive's text answers depend on: its own, or with a setting those of others. Standing behind
    /// `cache`, it has the block's cache begun anew when that changes, and so does a setting that
    /// [`Keyword::is_for_answers`].
    pub answer_source: fn(&Directive) -> String,
    /// A setting that answers depend on.
    pub is_for_answers: bool,
    /// What a setting that is heeded as a query is answered does with it, in a line; `None`: the block has it not.
    pub explain: fn(&BlockConfig) -> Option<String>,
}

/// What we can do with a keyword.
#[allow(missing_docs, reason = "the variant says what its fields are")]
pub enum Support {
    /// Built here. `parse` reads one occurrence into the block.
    Here { parse: Parse, repeats: Repeats },
    /// The reference has it, we do not: refused with those words.
    Missing {
        /// It is never to be here; else not yet.
        is_for_good: bool,
        /// What to do in its place.
        instead: &'static str,
    },
}

/// What a directive means that stands in a server block again, as in the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// It is refused.
    Never,
    /// Each counts.
    Each,
    /// The first counts, the others are not looked at.
    FirstCounts,
    /// Each is read, and where they differ the last counts.
    LastCounts,
}

impl Keyword {
    const fn here(name: &'static str, parse: Parse, is_plugin: bool) -> Self {
        Self {
            name,
            support: Support::Here { parse, repeats: Repeats::Never },
            is_plugin,
            any_class: false,
            answer_source: Directive::to_string,
            is_for_answers: false,
            explain: |_| None,
        }
    }

    /// A setting that is heeded as a query is answered, and says how.
    const fn explained_by(mut self, explain: fn(&BlockConfig) -> Option<String>) -> Self {
        self.explain = explain;
        self
    }

    /// Its answers depend on less than its whole text.
    const fn answers_by(mut self, source: fn(&Directive) -> String) -> Self {
        self.answer_source = source;
        self
    }

    /// A setting that what others answer depends on.
    const fn for_answers(mut self) -> Self {
        self.is_for_answers = true;
        self
    }

    /// Whether it belongs to the reference's build: to what cmd/node-cache/main.go of kubernetes-sigs/node-local-dns
    /// imports, and what that imports.
    pub fn is_of_reference(&self) -> bool {
        REFERENCE_BUILD.contains(&self.name)
    }

    /// May stand several times in a server block.
    const fn repeatable(self) -> Self {
        self.repeats(Repeats::Each)
    }

    const fn first_counts(self) -> Self {
        self.repeats(Repeats::FirstCounts)
    }

    const fn last_counts(self) -> Self {
        self.repeats(Repeats::LastCounts)
    }

    const fn repeats(mut self, how: Repeats) -> Self {
        if let Support::Here { repeats, .. } = &mut self.support {
            *repeats = how;
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

const fn missing(name: &'static str, is_for_good: bool, instead: &'static str) -> Keyword {
    Keyword {
        name,
        support: Support::Missing { is_for_good, instead },
        is_plugin: false,
        any_class: false,
        answer_source: Directive::to_string,
        is_for_answers: false,
        explain: |_| None,
    }
}

const fn not_yet(name: &'static str) -> Keyword {
    missing(name, false, "remove it, or forward the zones that need it to cluster DNS")
}

/// Serves zones of its own, wherever it has them from.
const fn authoritative(name: &'static str) -> Keyword {
    missing(
        name,
        true,
        "it serves a zone of its own, as an authoritative server does: let one serve that zone, and forward it there, such as \
         `forward example.org 192.0.2.53`",
    )
}

/// Changes what is said of zones, where they are served.
const fn of_zones(name: &'static str) -> Keyword {
    missing(
        name,
        true,
        "it is for zones that are served here: write it where the zone is served, and forward the zone there, such as \
         `forward example.org 192.0.2.53`",
    )
}

/// Whether a word is `import` or a keyword that there is, or is near enough to one to be meant.
pub fn is_keyword_or_near(word: &str) -> bool {
    word == "import" || nearest(word, ORDER.iter().map(|keyword| keyword.name)).is_some()
}

/// The directives of the reference's build.
const REFERENCE_BUILD: [&str; 22] = [
    "bind",
    "bufsize",
    "cache",
    "debug",
    "dns64",
    "dnstap",
    "errors",
    "forward",
    "health",
    "hosts",
    "log",
    "loadbalance",
    "loop",
    "metadata",
    "pprof",
    "prometheus",
    "reload",
    "rewrite",
    "template",
    "timeouts",
    "trace",
    "whoami",
];

/// Every keyword in the order in which their handlers stand in a chain.
pub const ORDER: &[Keyword] = &[
    setting("root", root::parse).repeatable().for_answers(),
    plugin("metadata", metadata::parse).explained_by(metadata::explain),
    of_zones("geoip"),
    plugin("cancel", cancel::parse).repeatable(),
    setting("tls", tls::parse).last_counts(),
    not_yet("proxyproto"),
    missing("quic", true, "DNS over QUIC is not served: take it out, and serve the zone over TLS with `tls://`"),
    missing("grpc_server", true, "DNS over gRPC is not served: take it out, and serve the zone over TLS with `tls://`"),
    setting("https", https::parse),
    missing("https3", true, "HTTP/3 is not served: take it out, and serve the zone over HTTP/2 with `https://`"),
    setting("timeouts", timeouts::parse).last_counts(),
    // Ours.
    setting("fairness", fairness::parse),
    setting("client_subnet", client_subnet::parse).explained_by(client_subnet::explain),
    setting("multisocket", multisocket::parse),
    setting("reload", reload::parse).first_counts(),
    plugin("nsid", nsid::parse).explained_by(nsid::explain),
    plugin("bufsize", bufsize::parse).first_counts().explained_by(bufsize::explain),
    setting("bind", bind::parse).repeatable(),
    setting("debug", debug::parse).last_counts(),
    plugin("trace", trace::parse).last_counts(),
    setting("ready", ready::parse),
    setting("health", health::parse).last_counts(),
    setting("pprof", pprof::parse),
    plugin("shed", shed::parse),
    plugin("prometheus", prometheus::parse),
    plugin("errors", errors::parse),
    plugin("log", log::parse).repeatable(),
    plugin("dnstap", dnstap::parse).repeatable(),
    plugin("local", local::parse),
    plugin("dns64", dns64::parse).repeatable(),
    plugin("any", any::parse),
    plugin("chaos", chaos::parse).any_class(),
    plugin("loadbalance", loadbalance::parse).repeatable(),
    of_zones("tsig"),
    plugin("rewrite", rewrite::parse).repeatable(),
    not_yet("autopath"),
    plugin("acl", acl::parse).repeatable(),
    plugin("cache", cache::parse),
    plugin("header", header::parse),
    of_zones("dnssec"),
    plugin("minimal", minimal::parse),
    plugin("template", template::parse).repeatable(),
    of_zones("transfer"),
    plugin("hosts", hosts::parse),
    authoritative("route53"),
    authoritative("azure"),
    authoritative("clouddns"),
    not_yet("k8s_external"),
    not_yet("kubernetes"),
    authoritative("file"),
    authoritative("auto"),
    authoritative("secondary"),
    authoritative("etcd"),
    plugin("loop", r#loop::parse).answers_by(|_| String::new()),
    plugin("forward", forward::parse).repeatable().any_class().answers_by(forward::answer_source),
    missing("grpc", true, "upstreams are asked over UDP or TCP: write `forward ZONE ADDRESS...` in its place"),
    authoritative("erratic"),
    plugin("whoami", whoami::parse).first_counts(),
    not_yet("on"),
    of_zones("sign"),
    plugin("view", view::parse),
    authoritative("nomad"),
];
