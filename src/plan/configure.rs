//! Makes a checked configuration of a parsed Corefile. Pure but for what the directives ask of their loaders.

use super::scheme::{BlockSchemes, Scheme, Schemes};
use crate::chain::Parse;
use crate::chain::{BlockConfig, Loaders, ParseContext};
use crate::corefile::{BlockKey, Corefile, Diagnostics, Directive, ServerBlock, Span, nearest};
use crate::directives::{Keyword, ORDER, Repeats, Support};
use crate::go_regex::Patterns;
use crate::message::Name;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// A whole Corefile as configured.
pub struct PlanConfig {
    pub(super) blocks: Vec<BlockPlan>,
    /// Those that it was read from, by [`crate::corefile::FileId`].
    pub(super) files: Arc<[PathBuf]>,
}

/// One server block: its zones with their ports, the keywords it has, in the order of [`ORDER`], and its settings and
/// parts.
pub(super) struct BlockPlan {
    pub(super) zones: Vec<BlockZone>,
    pub(super) keywords: Vec<&'static Keyword>,
    /// Where the first of each stands.
    pub(super) places: Vec<Span>,
    /// See [`crate::chain::BuildContext::answer_sources`].
    pub(super) answer_sources: String,
    /// All of its zones are such as [`crate::corefile::BlockKey::is_mistaken`].
    is_mistaken: bool,
    pub(super) config: BlockConfig,
}

/// A zone of a block, and where it is served.
pub(super) struct BlockZone {
    pub(super) name: Name,
    pub(super) scheme: Scheme,
    pub(super) port: u16,
    /// Where its key stands.
    pub(super) place: Span,
}

impl PlanConfig {
    /// True if no client's query is for a zone of any server block.
    pub fn serves_nothing(&self) -> bool {
        self.blocks.iter().all(|block| block.is_mistaken)
    }

    /// Ports that are served on all addresses of the machine, sorted.
    pub fn on_all_addresses(&self) -> Vec<u16> {
        let sockets =
            self.blocks.iter().flat_map(|block| block.zones.iter().flat_map(|zone| block.sockets_on(zone.port)));
        let ports: BTreeSet<u16> =
            sockets.filter(|socket| socket.ip().is_unspecified()).map(|socket| socket.port()).collect();
        ports.into_iter().collect()
    }
}

impl BlockPlan {
    /// Name of its view; empty without one.
    pub(super) fn view_name(&self) -> &str {
        self.config.view.as_ref().map_or("", |view| &*view.name)
    }
    /// What it says of its listeners.
    fn schemes(&self, block: &ServerBlock) -> BlockSchemes<'_> {
        let keys = block.keys.iter().zip(&self.zones);
        BlockSchemes {
            keys: keys.map(|(key, zone)| (key.span, zone.scheme, self.sockets_on(zone.port))).collect(),
            names_tls: self.keywords.iter().any(|keyword| keyword.name == "tls"),
            tls: &self.config.tls,
            https: self.config.https_connections.map(|(_, span)| span),
        }
    }

    /// Where the block serves on a port; the unspecified address without `bind`.
    pub(super) fn sockets_on(&self, port: u16) -> Vec<SocketAddr> {
        self.config.listen_addresses(port).unwrap_or_else(|| vec![(Ipv6Addr::UNSPECIFIED, port).into()])
    }
}

/// Reads every directive of the tree and checks what concerns several of them. The configuration is good only if the
/// diagnostics have no error.
pub fn configure(corefile: &Corefile, default_port: u16, loaders: Loaders<'_>) -> (PlanConfig, Diagnostics) {
    let mut diagnostics = Diagnostics::default();
    let mut blocks = Vec::new();
    let (mut served, mut schemes) = (Served::default(), Schemes::default());
    let patterns = Patterns::default();
    for block in &corefile.blocks {
        if block.is_ignored {
            // The reference looks at no more of it than that there are such directives.
            block.directives.iter().for_each(|directive| _ = look_up(directive, &mut diagnostics));
            continue;
        }
        let plan = configure_block(block, default_port, loaders, &patterns, &mut diagnostics);
        served.add(block, &plan, &mut diagnostics);
        schemes.add(&plan.schemes(block), &mut diagnostics);
        blocks.push(plan);
    }
    schemes.finish(&mut diagnostics);
    check_fairness(&blocks, &mut diagnostics);
    let files = corefile.sources.files.iter().map(|(path, _)| path.clone()).collect();
    (PlanConfig { blocks, files }, diagnostics)
}

fn configure_block(
    block: &ServerBlock,
    default_port: u16,
    loaders: Loaders<'_>,
    patterns: &Patterns,
    diagnostics: &mut Diagnostics,
) -> BlockPlan {
    let scheme = |key: &BlockKey| {
        Scheme::parse(&key.scheme).unwrap_or_else(|instead| {
            diagnostics.error(key.span, format!("`{}://` is not served", key.scheme)).help(instead);
            Scheme::Dns
        })
    };
    let schemes: Vec<Scheme> = block.keys.iter().map(scheme).collect();
    let zones: Vec<Name> = block.keys.iter().map(|key| key.zone.to_lower().to_name()).collect();
    let mut config = BlockConfig::default();
    // By place in the chain's order.
    let mut first: BTreeMap<usize, Span> = BTreeMap::new();
    let mut directives: Vec<_> = Vec::with_capacity(block.directives.len());
    for directive in &block.directives {
        directives.extend(look_up(directive, diagnostics).map(|found| (directive, found)));
    }
    // As in the reference: what one sets for another is set first, wherever it stands.
    directives.sort_by_key(|(_, (place, ..))| *place);
    for (directive, (place, parse, repeats)) in directives {
        match first.entry(place) {
            Entry::Vacant(vacant) => _ = vacant.insert(directive.keyword.span),
            Entry::Occupied(earlier) => {
                if repeats != Repeats::Each {
                    tell_repetition(directive, earlier.get().line, repeats, diagnostics);
                }
                if matches!(repeats, Repeats::Never | Repeats::FirstCounts) {
                    continue;
                }
            }
        }
        parse(directive, &mut config, &mut ParseContext { diagnostics, loaders, zones: &zones, patterns });
    }
    config.parts.sort_by_key(|part| ORDER.iter().position(|keyword| keyword.name == part.keyword));
    let keywords = first.keys().filter_map(|place| ORDER.get(*place)).collect();
    let zone = |((key, name), scheme): ((&BlockKey, Name), Scheme)| {
        let port = key.port.unwrap_or_else(|| scheme.default_port(default_port));
        BlockZone { name, scheme, port, place: key.span }
    };
    BlockPlan {
        zones: block.keys.iter().zip(zones).zip(schemes).map(zone).collect(),
        keywords,
        places: first.into_values().collect(),
        answer_sources: answer_sources(block),
        is_mistaken: block.keys.iter().all(|key| key.is_mistaken),
        config,
    }
}

/// The text of the directives that answer what the cache hands on, and of settings that they depend on, in the order of
/// the file.
fn answer_sources(block: &ServerBlock) -> String {
    let after_cache = ORDER.iter().skip_while(|keyword| keyword.name != "cache").skip(1);
    let settings = ORDER.iter().filter(|keyword| keyword.is_for_answers);
    let sources: Vec<&Keyword> = after_cache.filter(|keyword| keyword.is_plugin).chain(settings).collect();
    let text = |directive: &Directive| {
        let keyword = sources.iter().find(|keyword| keyword.name == directive.keyword.text)?;
        Some((keyword.answer_source)(directive))
    };
    block.directives.iter().filter_map(text).collect::<Vec<_>>().join("\n")
}

fn tell_repetition(directive: &Directive, first_line: u32, repeats: Repeats, diagnostics: &mut Diagnostics) {
    let span = directive.keyword.span;
    let message = format!("`{}` stands twice in one server block", directive.keyword.text);
    let diagnostic = match repeats {
        Repeats::FirstCounts => diagnostics.warning(span, format!("{message}: this one is ignored")),
        Repeats::LastCounts => diagnostics.warning(span, format!("{message}: this one counts where they differ")),
        Repeats::Never | Repeats::Each => diagnostics.error(span, message),
    };
    diagnostic.help(format!("the first one is on line {first_line}; keep one of them"));
}

/// The directive's place in [`ORDER`], how it is read, and what it means when it stands there again.
fn look_up(directive: &Directive, diagnostics: &mut Diagnostics) -> Option<(usize, Parse, Repeats)> {
    let word = directive.keyword.text.as_str();
    let Some((place, keyword)) = ORDER.iter().enumerate().find(|(_, keyword)| keyword.name == word) else {
        let known = ORDER.iter().filter(|keyword| matches!(keyword.support, Support::Here { .. }));
        let help = match nearest(word, known.map(|keyword| keyword.name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "docs/directives.md lists the directives that nodelocaldns has".to_owned(),
        };
        diagnostics.error(directive.keyword.span, format!("unknown directive `{word}`")).help(help);
        return None;
    };
    if !keyword.is_of_reference() {
        diagnostics
            .beyond_reference(
                directive.keyword.span,
                format!("node-cache's build does not have the directive `{word}`"),
            )
            .help("take it out before you go back to node-cache, which refuses it");
    }
    match keyword.support {
        Support::Here { parse, repeats } => Some((place, parse, repeats)),
        Support::Missing { is_for_good, instead } => {
            let yet = if is_for_good { "" } else { " yet" };
            diagnostics
                .error(
                    directive.keyword.span,
                    format!("CoreDNS has the directive `{word}`, nodelocaldns does not{yet}"),
                )
                .help(instead);
            None
        }
    }
}

/// What clients take places in is the whole process's, so blocks that say who gives way say the same.
fn check_fairness(blocks: &[BlockPlan], diagnostics: &mut Diagnostics) {
    let mut said = blocks.iter().filter_map(|block| block.config.fairness);
    let Some((first, at)) = said.next() else { return };
    for (_, span) in said.filter(|(fairness, _)| *fairness != first) {
        diagnostics
            .error(span, "`fairness` is for the whole process, and another server block says otherwise")
            .help(format!("line {} has the other; write it in one block, or the same in both", at.line));
    }
}

/// Which zones are served where, to find those that two blocks claim.
#[derive(Default)]
struct Served(HashMap<(Name, u16), Vec<(SocketAddr, Span)>>);

impl Served {
    /// As in the reference, blocks with a view may share a zone and an address, with each other and with one block
    /// without a view.
    fn add(&mut self, block: &ServerBlock, plan: &BlockPlan, diagnostics: &mut Diagnostics) {
        for (key, BlockZone { name: zone, port, .. }) in block.keys.iter().zip(&plan.zones) {
            let sockets = plan.sockets_on(*port);
            let taken = self.0.entry((zone.clone(), *port)).or_default();
            let clash = sockets.iter().find_map(|socket| {
                let (other, earlier) = taken.iter().find(|(other, _)| overlap(socket, other))?;
                Some((*socket, *other, *earlier))
            });
            match clash {
                Some((socket, other, earlier)) if plan.config.view.is_some() && socket == other => {
                    let message = format!("no query for `{zone}` on {socket} comes to this block");
                    diagnostics.warning(key.span, message).help(format!(
                        "line {} has the zone, without a view, and blocks are asked in their order: write it last",
                        earlier.line
                    ));
                }
                Some((socket, _, earlier)) => {
                    diagnostics.error(key.span, format!("zone `{zone}` is already served on {socket}")).help(format!(
                        "line {} has it; join the blocks, or `bind` them to different addresses",
                        earlier.line
                    ));
                }
                None if plan.config.view.is_some() => {}
                None => taken.extend(sockets.into_iter().map(|socket| (socket, key.span))),
            }
        }
    }
}

/// One address, or the unspecified one of the same family; `::` takes IPv4 too.
fn overlap(a: &SocketAddr, b: &SocketAddr) -> bool {
    let covers =
        |wide: &SocketAddr, narrow: &SocketAddr| wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    a == b || covers(a, b) || covers(b, a)
}
