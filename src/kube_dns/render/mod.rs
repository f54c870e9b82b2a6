//! Renders template and ConfigMap to a Corefile. Pure: what the template imports is asked of a [`Loader`].
//!
//! Every line of the template stays at its number, so that a diagnostic's line in the rendered Corefile is the
//! template's too.

use super::config::{KubeDnsConfig, Nameserver};
use crate::corefile::{self, Diagnostics, Directive, FileId, Loader, Sources, Span, nearest};
use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::net::IpAddr;
use std::path::Path;

const LOCAL_DNS: &str = "__PILLAR__LOCAL__DNS__";
const DNS_SERVER: &str = "__PILLAR__DNS__SERVER__";
const CLUSTER_DNS: &str = "__PILLAR__CLUSTER__DNS__";
const UPSTREAM_SERVERS: &str = "__PILLAR__UPSTREAM__SERVERS__";
const PROMETHEUS_ENDPOINT: &str = "__PROMETHEUS__ENDPOINT__";
const PILLARS: [&str; 5] = [LOCAL_DNS, DNS_SERVER, CLUSTER_DNS, UPSTREAM_SERVERS, PROMETHEUS_ENDPOINT];
/// A pillar of the manifest that is never filled in here.
const DNS_DOMAIN: &str = "__PILLAR__DNS__DOMAIN__";
const DOMAIN_HELP: &str = "it is replaced before the manifest is applied, by the cluster's domain: sed s/__PILLAR__DNS__DOMAIN__/cluster.local/";
/// What every pillar begins with, so that a misspelt one is found.
const PREFIXES: [&str; 2] = ["__PILLAR__", "__PROMETHEUS__"];

/// Who is asked when the ConfigMap names no upstream nameservers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The option that keeps an upstream on TCP.
const FORCE_TCP: &str = "force_tcp";
/// Seconds that a stub domain's answers are kept at most, as in the reference.
const STUB_DOMAIN_CACHE_SECONDS: u32 = 30;

/// What stands in for the pillars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PillarValues {
    /// `-localip`
    pub local_addresses: Vec<IpAddr>,
    /// `-dns.port`, the port of stub domains.
    pub port: u16,
    /// `-upstreamsvc`
    pub cluster_dns: ServiceAddress,
    /// `-prometheus-listen-address`, as written.
    pub prometheus: String,
}

/// The ClusterIP of a Service, which the kubelet puts into the environment of containers that start after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    variable: String,
    value: Option<String>,
    port: Option<u16>,
}

impl ServiceAddress {
    /// Reads `NAME_SERVICE_HOST` and `NAME_SERVICE_PORT`, with `service` in upper case and its dashes as underscores.
    pub fn read(service: &str, environment: &dyn Loader) -> Self {
        let name = service.replace('-', "_").to_ascii_uppercase();
        let variable = format!("{name}_SERVICE_HOST");
        let port = environment.environment(&format!("{name}_SERVICE_PORT")).and_then(|port| port.parse().ok());
        Self { value: environment.environment(&variable).filter(|value| !value.is_empty()), variable, port }
    }
    /// The Service's first port, if the environment tells it.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
    /// The ClusterIP.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn address(&self) -> Result<IpAddr, String> {
        let Some(value) = &self.value else {
            return Err(format!("the environment variable {} is not set", self.variable));
        };
        value
            .parse()
            .map_err(|_| format!("the environment variable {} is `{value}`, which is no IP address", self.variable))
    }
}

/// A Corefile made of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The whole Corefile.
    pub text: String,
    /// How many stub domains were added.
    pub stub_domain_count: usize,
    /// What stands for `__PILLAR__UPSTREAM__SERVERS__`.
    pub upstreams: String,
    /// What was left as it stands though the ConfigMap would have it otherwise; empty if nothing was.
    pub warnings: String,
}

/// Why there is no Corefile.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum RenderError {
    /// Pillars without a value: rendered diagnostics that point into the template.
    #[error("{diagnostics}")]
    Unresolved { diagnostics: String },
}

/// Renders `template`, which stands in `path`:
///
/// - pillars become their values, also in comments; one without a value, outside comments, is an error;
/// - upstream nameservers of the ConfigMap are asked over UDP: `force_tcp` is taken out of every `forward` to
///   `__PILLAR__UPSTREAM__SERVERS__`, however it is laid out (it is found by the Corefile's grammar);
/// - every stub domain becomes a server block at the end, in the order of their names.
pub fn render(
    path: &Path,
    template: &str,
    config: &KubeDnsConfig,
    values: &PillarValues,
    loader: &dyn Loader,
) -> Result<Rendered, RenderError> {
    let mut diagnostics = Diagnostics::default();
    let resolved = resolve(template, values, &mut diagnostics);
    if diagnostics.has_errors() {
        let sources = Sources { files: vec![(path.to_owned(), template.into())] };
        return Err(RenderError::Unresolved { diagnostics: diagnostics.render(&sources) });
    }
    let mut warnings = String::new();
    let (upstreams, text) = if config.upstream_nameservers.is_empty() {
        (RESOLV_CONF.to_owned(), resolved)
    } else {
        (joined(&config.upstream_nameservers), without_force_tcp(path, &resolved, loader, &mut warnings))
    };
    let mut text = text.replace(UPSTREAM_SERVERS, &upstreams);
    for (domain, nameservers) in &config.stub_domains {
        text.push_str(&stub_domain_block(domain, nameservers, values));
    }
    Ok(Rendered { text, stub_domain_count: config.stub_domains.len(), upstreams, warnings })
}

fn stub_domain_block(domain: impl Display, nameservers: &[Nameserver], values: &PillarValues) -> String {
    let PillarValues { port, local_addresses, .. } = values;
    let (addresses, nameservers) = (joined(local_addresses), joined(nameservers));
    format!(
        "\n{domain}:{port} {{\n    errors\n    cache {STUB_DOMAIN_CACHE_SECONDS}\n    bind {addresses}\n    forward . {nameservers}\n}}\n"
    )
}

fn joined(words: &[impl Display]) -> String {
    words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// A template in which something stands for each pillar, so that it can be checked before anybody knows their values.
pub struct StandIn {
    /// The whole Corefile.
    pub text: String,
    /// In the order of the text.
    replaced: Vec<Replaced>,
}

/// Columns from 1 and lengths, in characters.
struct Replaced {
    line: u32,
    template_column: u32,
    template_length: u32,
    column: u32,
    length: u32,
}

impl StandIn {
    /// Replaces the pillars of a template. Misspelt ones are told, at their places in the template.
    pub fn new(template: &str, diagnostics: &mut Diagnostics) -> Self {
        let (mut text, mut replaced) = (String::with_capacity(template.len()), Vec::new());
        for (line, number) in template.split_inclusive('\n').zip(1..) {
            let (comment_start, line_start, mut rest) = (comment_start(line), text.len(), line);
            while let Some((start, pillar)) = next_pillar(rest) {
                let (before, after) = rest.split_at(start);
                let at = line.len() - after.len();
                text.push_str(before);
                let template_column = columns(line.get(..at).unwrap_or_default()) + 1;
                let column = columns(text.get(line_start..).unwrap_or_default()) + 1;
                let span = Span { file: FileId(0), line: number, column: template_column, length: columns(pillar) };
                let value = stand_in(pillar);
                if at < comment_start {
                    tell_pillar(pillar, value, span, diagnostics);
                }
                let value = value.unwrap_or(pillar);
                text.push_str(value);
                replaced.push(Replaced {
                    line: number,
                    template_column,
                    template_length: span.length,
                    column,
                    length: columns(value),
                });
                rest = after.get(pillar.len()..).unwrap_or_default();
            }
            text.push_str(rest);
        }
        Self { text, replaced }
    }

    /// The place in the template of one in [`StandIn::text`].
    pub fn in_template(&self, span: Span) -> Span {
        let start = self.template_column(span.line, span.column, false);
        let end = self.template_column(span.line, span.column.saturating_add(span.length), true);
        Span { column: start, length: end.saturating_sub(start), ..span }
    }

    /// Of what is inside a value, the start or the end of its pillar.
    fn template_column(&self, line: u32, column: u32, is_end: bool) -> u32 {
        let from = self.replaced.partition_point(|replaced| replaced.line < line);
        let of_line = self.replaced.get(from..).unwrap_or_default().iter().take_while(|replaced| replaced.line == line);
        let before =
            of_line.take_while(|replaced| replaced.column < column || (replaced.column == column && !is_end)).last();
        let Some(replaced) = before else { return column };
        let end = replaced.column.saturating_add(replaced.length);
        let template_end = replaced.template_column.saturating_add(replaced.template_length);
        match column < end {
            true if is_end => template_end,
            true => replaced.template_column,
            false => template_end.saturating_add(column.saturating_sub(end)),
        }
    }
}

fn columns(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

/// What a pillar may turn out to be.
fn stand_in(pillar: &str) -> Option<&'static str> {
    match pillar {
        LOCAL_DNS => Some("169.254.20.10"),
        DNS_SERVER => Some(""),
        CLUSTER_DNS => Some("10.96.0.10"),
        UPSTREAM_SERVERS => Some(RESOLV_CONF),
        PROMETHEUS_ENDPOINT => Some(":9253"),
        DNS_DOMAIN => Some("cluster.local"),
        _ => None,
    }
}

fn tell_pillar(pillar: &str, value: Option<&str>, span: Span, diagnostics: &mut Diagnostics) {
    let help = match (value, pillar) {
        (Some(_), DNS_DOMAIN) => {
            diagnostics
                .warning(span, format!("{pillar} is not replaced when the Corefile is rendered"))
                .help(DOMAIN_HELP);
            return;
        }
        (Some(_), _) => return,
        (None, _) => match nearest(pillar, PILLARS) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the pillars are {}", PILLARS.join(", ")),
        },
    };
    diagnostics.error(span, format!("{pillar} is no pillar that has a value")).help(help);
}

/// Puts values in place of all pillars but that of the upstream servers.
fn resolve(template: &str, values: &PillarValues, diagnostics: &mut Diagnostics) -> String {
    let mut out = String::with_capacity(template.len());
    for (line, number) in template.split_inclusive('\n').zip(1..) {
        let comment_start = comment_start(line);
        let mut rest = line;
        while let Some((start, pillar)) = next_pillar(rest) {
            let (before, after) = rest.split_at(start);
            let at = line.len() - after.len();
            out.push_str(before);
            match value(pillar, values) {
                Ok(value) => out.push_str(&value),
                Err((message, help)) => {
                    if at < comment_start {
                        let column = line.get(..at).map_or(0, |before| before.chars().count()) + 1;
                        let to_u32 = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
                        let span = Span {
                            file: FileId(0),
                            line: number,
                            column: to_u32(column),
                            length: to_u32(pillar.len()),
                        };
                        diagnostics.error(span, message).help(help);
                    }
                    out.push_str(pillar);
                }
            }
            rest = after.get(pillar.len()..).unwrap_or_default();
        }
        out.push_str(rest);
    }
    out
}

/// The value of a pillar, or what is wrong with it and what to do.
fn value(pillar: &str, values: &PillarValues) -> Result<String, (String, String)> {
    match pillar {
        LOCAL_DNS => Ok(joined(&values.local_addresses)),
        // The manifest's installer gives it a value where it is wanted; -localip has all addresses already.
        DNS_SERVER => Ok(String::new()),
        CLUSTER_DNS => values.cluster_dns.address().map(|address| address.to_string()).map_err(|why| {
            let help =
                "-upstreamsvc names the Service of cluster DNS; it must exist, in the pod's namespace, before the pod starts";
            (format!("{pillar} has no value: {why}"), help.to_owned())
        }),
        UPSTREAM_SERVERS => Ok(pillar.to_owned()),
        PROMETHEUS_ENDPOINT => Ok(values.prometheus.clone()),
        DNS_DOMAIN => Err((format!("{pillar} has no value"), DOMAIN_HELP.to_owned())),
        _ => {
            let help = match nearest(pillar, PILLARS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the pillars are {}", PILLARS.join(", ")),
            };
            Err((format!("{pillar} is no pillar that has a value"), help))
        }
    }
}

/// The next pillar and its place in `text`. A known one ends where its name ends, any other where the word does.
fn next_pillar(text: &str) -> Option<(usize, &str)> {
    let start = PREFIXES.iter().filter_map(|prefix| text.find(prefix)).min()?;
    let here = text.get(start..)?;
    let is_part = |octet: u8| octet.is_ascii_uppercase() || octet.is_ascii_digit() || octet == b'_';
    let known = PILLARS.iter().find(|pillar| here.starts_with(**pillar)).map(|pillar| pillar.len());
    let length = known.unwrap_or_else(|| here.bytes().position(|octet| !is_part(octet)).unwrap_or(here.len()));
    Some((start, here.get(..length)?))
}

/// Where the comment of a line begins; its length if it has none.
fn comment_start(line: &str) -> usize {
    let (mut is_quoted, mut before) = (false, ' ');
    for (index, character) in line.char_indices() {
        match character {
            '"' if before != '\\' => is_quoted = !is_quoted,
            '#' if !is_quoted && before.is_whitespace() => return index,
            _ => {}
        }
        before = character;
    }
    line.len()
}

/// The text without the option `force_tcp` of every `forward` that names the upstream servers' pillar.
fn without_force_tcp(path: &Path, text: &str, loader: &dyn Loader, warnings: &mut String) -> String {
    // Whatever else is wrong with the text is told when the rendered Corefile is read.
    let (tree, _) = corefile::parse(path, text, loader);
    let names_pillar = |directive: &&Directive| {
        directive.keyword.text == "forward"
            && directive.arguments.iter().any(|argument| argument.text.contains(UPSTREAM_SERVERS))
    };
    let directives = tree.blocks.iter().flat_map(|block| &block.directives).filter(names_pillar);
    let options = directives.flat_map(|directive| &directive.options).filter(|option| option.name.text == FORCE_TCP);
    // A snippet's lines are found once for every import of it.
    let spans: BTreeSet<(u32, u32, u32)> =
        options.map(|option| (option.name.span.file.0, option.name.span.line, option.name.span.column)).collect();
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    for (file, number, column) in spans {
        if file == 0 && cut(&mut lines, number, column).is_some() {
            continue;
        }
        let place = tree.sources.files.get(file as usize).map_or(path, |(path, _)| path);
        // Writing to a String cannot fail.
        let _ = writeln!(
            warnings,
            "{}:{number}: the ConfigMap's upstream nameservers are asked over TCP, since {FORCE_TCP} stands in another file than the \
             template; take it away there",
            place.display()
        );
    }
    lines.concat()
}

/// Takes `force_tcp` out of a line, at a column in characters.
fn cut(lines: &mut [String], number: u32, column: u32) -> Option<()> {
    let line = lines.get_mut((number as usize).checked_sub(1)?)?;
    let (start, _) = line.char_indices().nth((column as usize).checked_sub(1)?)?;
    if !line.get(start..)?.starts_with(FORCE_TCP) {
        return None;
    }
    line.replace_range(start..start + FORCE_TCP.len(), "");
    if line.trim().is_empty() {
        *line = line.trim_start_matches([' ', '\t']).to_owned();
    }
    Some(())
}

#[cfg(test)]
mod tests;
