//! The command line: the reference's flags in its spelling (one dash or two, `=` or a space), ours with two dashes, and
//! subcommands. What was written (`flags`) becomes what is meant ([`Invocation`]), which holds no combination that
//! makes no sense.

mod completions;
mod doctor;
mod flags;
mod values;

pub(crate) use completions::Shell;
pub(crate) use doctor::Doctor;

use crate::admin::{CacheRequest, ExplainRequest, FlushTarget, LogLevelRequest, QueriesRequest};
use crate::chain::LogFormat;
use crate::node::Backend;
use crate::plan::DEFAULT_PORT;
use crate::query_tap::{FilterText, TapFilter};
use crate::watchdog::StatusPage;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use flags::{AdminFlags, CacheCommand, Command, DoctorFlags, ExplainFlags, Flags, QueriesFlags, RenderFlags};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEFAULT_CONF: &str = "/etc/Corefile";
const DEFAULT_TEMPLATE: &str = "/etc/coredns/Corefile.base";
const DEFAULT_INTERFACE: &str = "nodelocaldns";
const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9353);
const DEFAULT_PROMETHEUS: &str = ":9253";
const DEFAULT_UPSTREAM_SERVICE: &str = "kube-dns";
const DEFAULT_HEALTH_PORT: u16 = 8080;
/// A bit that neither kube-proxy (0x4000, 0x8000) nor the common network plugins use.
const DEFAULT_PROBE_MARK: u32 = 0x0010_0000;
/// A bit that neither kube-proxy nor the plugin portmap (0x2000), Cilium (0x0f00, a cluster and an identity in
/// 0xffff00ff), Calico (0xffff0000) nor Istio (0x0fff) use with their defaults.
const DEFAULT_FALLBACK_MARK: u32 = 0x1000;
/// kube-proxy's: packets to drop, and to masquerade (`iptables-masquerade-bit`, if it is the default).
const KUBE_PROXY_MARKS: u32 = 0x8000 | 0x4000;

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// `check FILE…`
    Check {
        files: Vec<PathBuf>,
        /// Warnings count as errors.
        is_strict: bool,
        /// What the reference does not take is warned of.
        is_portable: bool,
    },
    /// `fmt FILE…`
    Format {
        files: Vec<PathBuf>,
        how: FormatMode,
    },
    /// `render`: print the Corefile that an agent with these flags serves.
    Render(Box<Render>),
    /// `teardown`: remove what an agent with these addresses on this interface has left.
    Teardown {
        local_addresses: Vec<IpAddr>,
        interface: String,
    },
    /// `sleep`: wait so long, and end.
    Sleep {
        time: Duration,
    },
    /// `doctor`: say whether this node's queries are intercepted.
    Doctor(Box<Doctor>),
    /// `completions SHELL`: print what completes command lines there.
    Completions(Shell),
    /// `top`: show what an agent says that it is asked.
    Top {
        how: TopMode,
        from: StatusUrl,
    },
    /// `cache`: look into a server's caches, or let answers go.
    Cache {
        /// What the server is asked.
        request: CacheRequest,
        socket: AdminTarget,
    },
    /// `explain`: say what a server would do with a question.
    Explain(Box<Explain>),
    /// `log-level`: show or set how much is logged.
    LogLevel {
        request: LogLevelRequest,
        socket: AdminTarget,
    },
    /// `queries`: show what a server is asked, as it is answered.
    Queries(Box<WatchQueries>),
    /// `-plugins`
    ListDirectives,
    /// `-version`
    Version,
    Serve(ServeOptions),
}

/// What becomes of a text that is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormatMode {
    /// It is printed.
    Print,
    /// It takes the place of the file.
    Write,
    /// Files that would change are named.
    Check,
}

/// How a command prints what it has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// How the server that is asked is found, and how its answer is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdminTarget {
    /// What its admin socket is called; `None`: the only one there is.
    pub label: Option<String>,
    pub output: OutputFormat,
}

/// Which queries are to be shown, of which server, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchQueries {
    pub request: QueriesRequest,
    /// What its admin socket is called; `None`: the only one there is.
    pub label: Option<String>,
    pub form: QueriesForm,
}

/// How queries are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QueriesForm {
    Text,
    Json,
    /// As packets, to a file, or to standard output.
    Capture(Option<PathBuf>),
}

/// What is to be explained, and how that is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explain {
    pub request: ExplainRequest,
    pub of: ExplainOf,
    pub output: OutputFormat,
}

/// Whose plan is explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExplainOf {
    /// That of a server that runs here; `None`: the only one there is.
    Server { label: Option<String> },
    /// That of a Corefile, whose server blocks that name no port have this one.
    Corefile { path: PathBuf, dns_port: u16 },
}

/// What a server's admin socket is called (`--admin-socket`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminSocket {
    /// There is none.
    Off,
    /// By the first address of `-localip`, else by the process's ID.
    Own,
    Label(String),
}

/// What `top` does with what an agent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopMode {
    /// It is shown in the terminal, and asked for again and again.
    Live,
    /// It is printed.
    Once(OutputFormat),
}

/// Where an agent's status is: `http://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusUrl {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    pub path: String,
}

/// What a Corefile is rendered with; the fields are [`Agent`]'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Render {
    pub local_addresses: Vec<IpAddr>,
    pub dns_port: u16,
    pub template: PathBuf,
    pub kube_dns: Option<PathBuf>,
    pub upstream_service: String,
    pub prometheus_listen_address: String,
}

/// How to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServeOptions {
    pub mode: Mode,
    /// Port of server blocks that name none.
    pub dns_port: u16,
    pub pidfile: Option<PathBuf>,
    pub quiet: bool,
    pub log_format: LogFormat,
    /// Where all metrics are served beside the Corefile's own addresses.
    pub metrics_listen_address: Option<SocketAddr>,
    /// What is served there beside them.
    pub status_page: StatusPage,
    pub admin_socket: AdminSocket,
    /// Worker threads; `None`: one for each processor.
    pub workers: Option<NonZeroUsize>,
    /// Socket at which one instance takes over from another.
    pub handover: Option<PathBuf>,
    /// Octets that all caches together may take; `None`: a share of the cgroup's limit.
    pub cache_memory: Option<usize>,
}

/// What is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A Corefile, and nothing of the machine is touched.
    Plain(CorefileArgument),
    /// The node's agent (`-localip`).
    Agent(Box<Agent>),
}

/// Where a Corefile comes from that is served as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CorefileArgument {
    BuiltIn,
    Stdin,
    File(PathBuf),
}

/// What the node's agent is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    /// At least one, none twice.
    pub local_addresses: Vec<IpAddr>,
    /// The interface to set up; `None`: none.
    pub interface: Option<String>,
    /// How queries are intercepted; `None`: not at all.
    pub interception: Backend,
    /// How often interface and rules are checked though nothing was noticed.
    pub sync_interval: Duration,
    /// Packet mark of probes.
    pub probe_mark: u32,
    /// Who answers at an address of this node alone when this program is gone.
    pub fallback: FallbackTo,
    /// The bit of packet and connection marks that tells a query that goes there.
    pub fallback_mark: u32,
    pub health_port: u16,
    /// Leave interface and rules in place on exit.
    pub skip_teardown: bool,
    /// Template of the Corefile.
    pub template: PathBuf,
    /// Where the rendered Corefile is written.
    pub conf: PathBuf,
    /// Folder of the kube-dns ConfigMap; `None`: the default one, if it is there.
    pub kube_dns: Option<PathBuf>,
    /// Service whose address stands for `__PILLAR__CLUSTER__DNS__`.
    pub upstream_service: String,
    /// What stands for `__PROMETHEUS__ENDPOINT__`.
    pub prometheus_listen_address: String,
}

/// Who answers at an address of this node alone when this program is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FallbackTo {
    /// The Service of `-upstreamsvc`, at the address that the environment tells.
    Upstream,
    Nowhere,
    /// Addresses that are not served here; at least one.
    Addresses {
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
    },
}

impl Invocation {
    /// Reads a command line, the program's name first. The error prints itself, with what would be right; it also
    /// stands for `--help`.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut flags = Flags::try_parse_from(go_style(arguments))?;
        match flags.command.take() {
            Some(Command::Check { files, strict, portable }) => {
                return Ok(Self::Check { files, is_strict: strict, is_portable: portable });
            }
            Some(Command::Teardown { localip: values::LocalAddresses(local_addresses), interfacename }) => {
                let interface = interfacename.unwrap_or_else(|| DEFAULT_INTERFACE.to_owned());
                return Ok(Self::Teardown { local_addresses, interface });
            }
            Some(Command::Fmt { files, write, check }) => {
                let how = match (write, check) {
                    (_, true) => FormatMode::Check,
                    (true, false) => FormatMode::Write,
                    (false, false) => FormatMode::Print,
                };
                return Ok(Self::Format { files, how });
            }
            Some(Command::Render(flags)) => return Ok(Self::Render(Box::new(render(*flags)))),
            Some(Command::Completions { shell }) => return Ok(Self::Completions(shell)),
            Some(Command::Sleep { time }) => return Ok(Self::Sleep { time }),
            Some(Command::Doctor(flags)) => return Ok(Self::Doctor(Box::new(doctor(*flags)))),
            Some(Command::Top { once, output, from }) => {
                let how = top_mode(once, output);
                let how = how.map_err(|(kind, message)| Flags::command().error(kind, message))?;
                return Ok(Self::Top { how, from });
            }
            Some(Command::Cache(command)) => return Ok(cache(command)),
            Some(Command::Explain(flags)) => return Ok(Self::Explain(Box::new(explain(*flags)))),
            Some(Command::LogLevel { level, flags: AdminFlags { admin_socket: label, output } }) => {
                let request = level.map_or(LogLevelRequest::Show, |level| LogLevelRequest::Set(level.level()));
                return Ok(Self::LogLevel { request, socket: AdminTarget { label, output } });
            }
            Some(Command::Queries(flags)) => {
                let command = queries(*flags);
                let command = command.map_err(|(kind, message)| Flags::command().error(kind, message))?;
                return Ok(Self::Queries(Box::new(command)));
            }
            None => {}
        }
        if flags.version.unwrap_or(false) {
            return Ok(Self::Version);
        }
        if flags.plugins.unwrap_or(false) {
            return Ok(Self::ListDirectives);
        }
        serve_options(flags).map(Self::Serve).map_err(|(kind, message)| Flags::command().error(kind, message))
    }
}

fn render(flags: RenderFlags) -> Render {
    let values::LocalAddresses(local_addresses) = flags.localip;
    Render {
        local_addresses,
        dns_port: flags.dns_port.unwrap_or(DEFAULT_PORT),
        template: unless_empty(flags.basecorefile).unwrap_or_else(|| DEFAULT_TEMPLATE.into()),
        kube_dns: unless_empty(flags.kubednscm),
        upstream_service: flags.upstreamsvc.unwrap_or_else(|| DEFAULT_UPSTREAM_SERVICE.to_owned()),
        prometheus_listen_address: flags.prometheus_listen_address.unwrap_or_else(|| DEFAULT_PROMETHEUS.to_owned()),
    }
}

fn cache(command: CacheCommand) -> Invocation {
    let (request, flags) = match command {
        CacheCommand::Stats { flags } => (CacheRequest::Stats, flags),
        CacheCommand::List { filter, limit, flags } => (CacheRequest::List { filter, limit }, flags),
        CacheCommand::Get { name, qtype, flags } => {
            (CacheRequest::Get { name: name.to_string(), qtype: qtype.map(|qtype| qtype.0) }, flags)
        }
        CacheCommand::Flush { target, zone, flags } => {
            let target = match target {
                values::FlushArgument::All => FlushTarget::All,
                values::FlushArgument::Name(name) if zone => FlushTarget::Zone(name.to_string()),
                values::FlushArgument::Name(name) => FlushTarget::Name(name.to_string()),
            };
            (CacheRequest::Flush(target), flags)
        }
    };
    Invocation::Cache { request, socket: AdminTarget { label: flags.admin_socket, output: flags.output } }
}

fn explain(flags: ExplainFlags) -> Explain {
    let ExplainFlags { name, qtype, client, server, ask, conf, dns_port, admin } = flags;
    let request = ExplainRequest { name: name.to_string(), qtype: qtype.0, client, server, asks: ask };
    let of = match conf {
        Some(path) => ExplainOf::Corefile { path, dns_port: dns_port.unwrap_or(DEFAULT_PORT) },
        None => ExplainOf::Server { label: admin.admin_socket },
    };
    Explain { request, of, output: admin.output }
}

fn queries(flags: QueriesFlags) -> Result<WatchQueries, Objection> {
    let slower_than_us = flags.slower_than.map(|bound| u64::try_from(bound.as_micros()).unwrap_or(u64::MAX));
    let QueriesFlags { client, name, rcode, qtype, limit, output, pcap, admin_socket, .. } = flags;
    let filter = FilterText { clients: client, name, rcodes: rcode, types: qtype, slower_than_us };
    if let Err(error) = TapFilter::read(&filter) {
        return Err((ErrorKind::ValueValidation, error.to_string()));
    }
    let form = match (pcap, output) {
        (Some(path), _) => QueriesForm::Capture(Some(path).filter(|path| path != Path::new("-"))),
        (None, OutputFormat::Text) => QueriesForm::Text,
        (None, OutputFormat::Json) => QueriesForm::Json,
    };
    let request =
        QueriesRequest { filter, limit: limit.map(u64::from), has_messages: matches!(form, QueriesForm::Capture(_)) };
    Ok(WatchQueries { request, label: admin_socket, form })
}

fn doctor(flags: DoctorFlags) -> Doctor {
    Doctor {
        local_addresses: flags.localip.map(|values::LocalAddresses(addresses)| addresses),
        interface: flags.interfacename,
        dns_port: flags.dns_port,
        interception: flags.interception,
        probe_mark: flags.probe_mark,
        health_port: flags.health_port,
        metrics_listen_address: flags.metrics_listen_address,
        name: flags.name,
        output: flags.output,
    }
}

type Objection = (ErrorKind, String);

fn top_mode(is_once: bool, output: OutputFormat) -> Result<TopMode, Objection> {
    match (is_once, output) {
        (true, output) => Ok(TopMode::Once(output)),
        (false, OutputFormat::Text) => Ok(TopMode::Live),
        (false, OutputFormat::Json) => {
            let message =
                "--output json prints what there is now, and the view in the terminal has no such form: add --once";
            Err((ErrorKind::MissingRequiredArgument, message.to_owned()))
        }
    }
}

fn serve_options(flags: Flags) -> Result<ServeOptions, Objection> {
    let default_metrics = flags.localip.as_ref().map(|_| DEFAULT_METRICS);
    Ok(ServeOptions {
        dns_port: flags.dns_port.unwrap_or(DEFAULT_PORT),
        pidfile: unless_empty(flags.pidfile.clone()),
        quiet: flags.quiet.unwrap_or(false),
        log_format: flags.log_format.unwrap_or_default(),
        metrics_listen_address: flags.metrics_listen_address.or(default_metrics),
        status_page: match (flags.status_page, flags.status_names) {
            (Some(false), _) => StatusPage::Off,
            (_, Some(true)) => StatusPage::NamesEverywhere,
            _ => StatusPage::NamesHere,
        },
        admin_socket: flags.admin_socket.clone().unwrap_or(AdminSocket::Own),
        workers: flags.workers,
        cache_memory: flags.cache_memory,
        handover: unless_empty(flags.handover.clone()),
        mode: mode(flags)?,
    })
}

fn mode(flags: Flags) -> Result<Mode, Objection> {
    let given = unless_empty(flags.conf.clone()).or_else(|| unless_empty(flags.corefile.clone()));
    let Some(values::LocalAddresses(local_addresses)) = flags.localip.clone() else {
        let names = agent_flags(&flags);
        if let Some(first) = names.first() {
            let message = format!(
                "{first} is for the node's agent, which needs the addresses to serve: add -localip, such as \
                 -localip 169.254.20.10,10.96.0.10"
            );
            return Err((ErrorKind::MissingRequiredArgument, message));
        }
        return Ok(Mode::Plain(match given {
            Some(path) if path == Path::new("stdin") => CorefileArgument::Stdin,
            Some(path) => CorefileArgument::File(path),
            None => CorefileArgument::BuiltIn,
        }));
    };
    if given.as_deref() == Some(Path::new("stdin")) {
        let message =
            "with -localip, -conf names the file that the rendered Corefile is written to; it cannot be stdin"
                .to_owned();
        return Err((ErrorKind::ArgumentConflict, message));
    }
    let interception = interception(&flags)?;
    Ok(Mode::Agent(Box::new(Agent {
        fallback: fallback(&flags, &local_addresses, interception)?,
        fallback_mark: fallback_mark(&flags)?,
        local_addresses,
        interception,
        interface: flags
            .setupinterface
            .unwrap_or(true)
            .then(|| flags.interfacename.unwrap_or_else(|| DEFAULT_INTERFACE.to_owned())),
        sync_interval: flags.syncinterval.unwrap_or(DEFAULT_SYNC_INTERVAL),
        probe_mark: flags.probe_mark.unwrap_or(DEFAULT_PROBE_MARK),
        health_port: flags.health_port.unwrap_or(DEFAULT_HEALTH_PORT),
        skip_teardown: flags.skipteardown.unwrap_or(false),
        template: unless_empty(flags.basecorefile).unwrap_or_else(|| DEFAULT_TEMPLATE.into()),
        conf: given.unwrap_or_else(|| DEFAULT_CONF.into()),
        kube_dns: unless_empty(flags.kubednscm),
        upstream_service: flags.upstreamsvc.unwrap_or_else(|| DEFAULT_UPSTREAM_SERVICE.to_owned()),
        prometheus_listen_address: flags.prometheus_listen_address.unwrap_or_else(|| DEFAULT_PROMETHEUS.to_owned()),
    })))
}

fn interception(flags: &Flags) -> Result<Backend, Objection> {
    let conflict = |message: &str| Err((ErrorKind::ArgumentConflict, message.to_owned()));
    match (flags.setupiptables, flags.interception) {
        (Some(true), Some(Backend::None)) => {
            conflict("-setupiptables=true asks for rules, --interception none for none: take one of them away")
        }
        (Some(false), Some(Backend::Auto | Backend::Nftables | Backend::Iptables)) => {
            conflict("-setupiptables=false asks for no rules, --interception for some: take one of them away")
        }
        (Some(false), _) => Ok(Backend::None),
        (_, given) => Ok(given.unwrap_or(Backend::Auto)),
    }
}

fn fallback(flags: &Flags, local: &[IpAddr], interception: Backend) -> Result<FallbackTo, Objection> {
    let fallback = flags.fallback.unwrap_or(FallbackTo::Upstream);
    let FallbackTo::Addresses { ipv4, ipv6 } = fallback else { return Ok(fallback) };
    let conflict = |message: String| Err((ErrorKind::ArgumentConflict, message));
    let named = ipv4.map(IpAddr::from).into_iter().chain(ipv6.map(IpAddr::from));
    if let Some(own) = named.into_iter().find(|address| local.iter().any(|local| local.to_canonical() == *address)) {
        return conflict(format!(
            "--fallback {own} is an address of -localip, which nobody answers when this program is gone: name one of cluster DNS that is not \
             served here, such as the ClusterIP of kube-dns-upstream"
        ));
    }
    if interception.is_none() {
        return conflict(
            "--fallback needs interception rules, which let queries come here while this program serves: take it away, or \
             --interception none (-setupiptables=false)"
                .to_owned(),
        );
    }
    Ok(fallback)
}

fn fallback_mark(flags: &Flags) -> Result<u32, Objection> {
    let mark = flags.fallback_mark.unwrap_or(DEFAULT_FALLBACK_MARK);
    if flags.fallback == Some(FallbackTo::Nowhere) {
        return Ok(mark);
    }
    let probe_mark = flags.probe_mark.unwrap_or(DEFAULT_PROBE_MARK);
    for (other, whose) in [(probe_mark, "--probe-mark"), (KUBE_PROXY_MARKS, "kube-proxy")] {
        if mark & other != 0 {
            let message = format!("--fallback-mark {mark:#x} is a bit of {whose} ({other:#x}): choose another");
            return Err((ErrorKind::ArgumentConflict, message));
        }
    }
    Ok(mark)
}

/// The flags given that mean nothing without `-localip`. Those that ask for nothing are let pass.
fn agent_flags(flags: &Flags) -> Vec<&'static str> {
    let asks = |flag: Option<bool>| flag == Some(true);
    let given = [
        ("-setupinterface", asks(flags.setupinterface)),
        ("-interfacename", flags.interfacename.is_some()),
        ("-setupiptables", asks(flags.setupiptables)),
        ("--interception", flags.interception.is_some_and(|how| how != Backend::None)),
        ("-syncinterval", flags.syncinterval.is_some()),
        ("--probe-mark", flags.probe_mark.is_some()),
        ("--fallback", flags.fallback.is_some_and(|to| to != FallbackTo::Nowhere)),
        ("--fallback-mark", flags.fallback_mark.is_some()),
        ("-health-port", flags.health_port.is_some()),
        ("-skipteardown", asks(flags.skipteardown)),
        ("-basecorefile", flags.basecorefile.is_some()),
        ("-kubednscm", flags.kubednscm.is_some()),
        ("-upstreamsvc", flags.upstreamsvc.is_some()),
        ("-prometheus-listen-address", flags.prometheus_listen_address.is_some()),
        ("-reloadwithsignal", asks(flags.reloadwithsignal)),
    ];
    given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect()
}

/// An empty path is none, as in the reference.
fn unless_empty(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// Go programs take `-flag` as well as `--flag`; clap wants two dashes for a long name.
fn go_style(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut out: Vec<OsString> = arguments.next().into_iter().collect();
    for argument in arguments {
        let text = argument.to_str().unwrap_or_default();
        let name = text.strip_prefix('-').unwrap_or_default();
        let is_single_dash = name.len() > 1 && name.starts_with(|first: char| first.is_ascii_alphabetic());
        out.push(if is_single_dash { format!("-{text}").into() } else { argument });
    }
    out
}

#[cfg(test)]
mod manual;
#[cfg(test)]
mod tests;
