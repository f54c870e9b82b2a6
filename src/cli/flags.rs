//! The flags as clap reads them, before they are checked against each other.

use super::completions::Shell;
use super::{AdminSocket, FallbackTo, OutputFormat, StatusUrl, values};
use crate::chain::LogFormat;
use crate::message::{Name, RecordType};
use crate::node::Backend;
use clap::{Args, Parser, Subcommand};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// Everything is optional, so that what was given can be told from what was not; the defaults are in
/// [`super::Invocation`].
#[derive(Debug, Parser)]
#[command(
    name = "nodelocaldns",
    about = "A node-local DNS cache for Kubernetes.",
    long_about = "A node-local DNS cache for Kubernetes: a drop-in for NodeLocal DNSCache (node-cache).\n\n\
                  Without arguments it serves on 127.0.0.1:1053 from a built-in Corefile that forwards to the nameservers of \
                  /etc/resolv.conf.\nWith -localip it is a node's agent.\nFlags may be written with one dash, as node-cache does, or \
                  with two.",
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    disable_help_subcommand = true
)]
pub(super) struct Flags {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Corefile to serve; `stdin` reads it from standard input. Without it the built-in Corefile is served. With
    /// -localip: where the rendered Corefile is written [default: /etc/Corefile]
    #[arg(long, value_name = "FILE", value_parser = values::path())]
    pub conf: Option<PathBuf>,
    /// Same as -conf, which wins when both are given
    #[arg(long, value_name = "FILE", value_parser = values::path(), hide_short_help = true)]
    pub corefile: Option<PathBuf>,
    /// Port of server blocks that name none [default: 53]
    #[arg(long = "dns.port", short = 'p', alias = "p", value_name = "PORT", value_parser = values::port)]
    pub dns_port: Option<u16>,
    /// File to write the process ID to
    #[arg(long, value_name = "FILE", value_parser = values::path(), hide_short_help = true)]
    pub pidfile: Option<PathBuf>,
    /// Do not print where it listens
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean, hide_short_help = true
    )]
    pub quiet: Option<bool>,
    /// How log lines are written [default: text]
    #[arg(long, value_name = "FORM", value_enum, hide_short_help = true)]
    pub log_format: Option<LogFormat>,
    /// List the directives a Corefile may hold, and exit
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean, hide_short_help = true
    )]
    pub plugins: Option<bool>,
    /// Print the version, and exit
    #[arg(
        long, short = 'V', value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = values::boolean
    )]
    pub version: Option<bool>,
    /// Address to serve all metrics on, whatever the Corefile says [default with -localip: 0.0.0.0:9353]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = values::listen_address)]
    pub metrics_listen_address: Option<SocketAddr>,
    /// Serve a page at / and /status.json where the metrics are: who asks for what, what fails and what is slow
    /// [default: true]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean, hide_short_help = true
    )]
    pub status_page: Option<bool>,
    /// Show names and clients on it to everybody, not only to who asks from this node [default: false]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean, hide_short_help = true
    )]
    pub status_names: Option<bool>,
    /// What the admin socket is called, at which `nodelocaldns cache`, `explain`, `queries` and `log-level` ask, or
    /// `off` for none [default: the first address of -localip]
    #[arg(long, value_name = "LABEL", value_parser = values::admin_socket, hide_short_help = true)]
    pub admin_socket: Option<AdminSocket>,
    /// Worker threads; by default one for each processor this process may use
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub workers: Option<NonZeroUsize>,
    /// Memory that all caches together may take, such as 64MiB; by default a quarter of the cgroup's limit, at most
    /// 256MiB
    #[arg(long, value_name = "SIZE", value_parser = values::size, hide_short_help = true)]
    pub cache_memory: Option<usize>,
    /// Socket in a folder that both see, at which a new instance takes over the old one's sockets and cache
    #[arg(long, value_name = "PATH", value_parser = values::path())]
    pub handover: Option<PathBuf>,

    /// Comma-separated addresses of the cache on this node, IPv4 and IPv6. Makes it the node's agent, which the flags
    /// below are about
    #[arg(long, value_name = "ADDRESSES", value_parser = values::local_addresses, help_heading = NODE)]
    pub localip: Option<values::LocalAddresses>,
    /// Create the network interface, or adopt it, and give it the addresses [default: true]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean, help_heading = NODE
    )]
    pub setupinterface: Option<bool>,
    /// Name of the interface [default: nodelocaldns]
    #[arg(long, value_name = "NAME", value_parser = values::interface_name, help_heading = NODE, hide_short_help = true)]
    pub interfacename: Option<String>,
    /// Install the rules that intercept queries [default: true]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean, help_heading = NODE
    )]
    pub setupiptables: Option<bool>,
    /// What the rules are made with [default: auto]
    #[arg(long, value_name = "HOW", help_heading = NODE)]
    pub interception: Option<Backend>,
    /// How often interface and rules are checked: seconds, or a duration such as 1m [default: 60]
    #[arg(long, value_name = "INTERVAL", value_parser = values::sync_interval, help_heading = NODE, hide_short_help = true)]
    pub syncinterval: Option<Duration>,
    /// Packet mark of the watchdog's own queries [default: 0x00100000]
    #[arg(long, value_name = "MARK", value_parser = values::mark, help_heading = NODE, hide_short_help = true)]
    pub probe_mark: Option<u32>,
    /// Who answers at an address of this node alone when this program is gone: auto (the upstream service), none, or
    /// addresses of cluster DNS that are not served here, one of each family [default: auto]
    #[arg(long, value_name = "WHO", value_parser = values::fallback, help_heading = NODE)]
    pub fallback: Option<FallbackTo>,
    /// One bit of packet and connection marks for queries that go to the fallback [default: 0x1000]
    #[arg(long, value_name = "MARK", value_parser = values::mark_bit, help_heading = NODE, hide_short_help = true)]
    pub fallback_mark: Option<u32>,
    /// Port of the directive health, which the rules let through [default: 8080]
    #[arg(long, value_name = "PORT", value_parser = values::port, help_heading = NODE, hide_short_help = true)]
    pub health_port: Option<u16>,
    /// Leave interface and rules in place on exit [default: false]
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean, help_heading = NODE, hide_short_help = true
    )]
    pub skipteardown: Option<bool>,
    /// Template of the Corefile [default: /etc/coredns/Corefile.base]
    #[arg(long, value_name = "FILE", value_parser = values::path(), help_heading = NODE)]
    pub basecorefile: Option<PathBuf>,
    /// Folder the kube-dns ConfigMap is mounted on [default: /etc/kube-dns, if it is there]
    #[arg(long, value_name = "FOLDER", value_parser = values::path(), help_heading = NODE)]
    pub kubednscm: Option<PathBuf>,
    /// Service of cluster DNS; its address, from the environment, replaces __PILLAR__CLUSTER__DNS__ [default: kube-dns]
    #[arg(long, value_name = "NAME", value_parser = values::service_name, help_heading = NODE)]
    pub upstreamsvc: Option<String>,
    /// Replaces __PROMETHEUS__ENDPOINT__ [default: :9253]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = values::listen_address_text, help_heading = NODE, hide_short_help = true)]
    pub prometheus_listen_address: Option<String>,
    /// Accepted for node-cache's sake: a newly rendered Corefile is always loaded at once
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = values::boolean, help_heading = NODE, hide_short_help = true
    )]
    pub reloadwithsignal: Option<bool>,
}

const NODE: &str = "Node agent";

/// What to do other than serve.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read Corefiles and report everything wrong with them, without serving.
    ///
    /// Exit status 0 if all are good, else 1.
    Check {
        /// Corefiles to read
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Warnings are errors
        #[arg(long)]
        strict: bool,
        /// Warn of what node-cache does not take, for the day that you go back to it
        #[arg(long)]
        portable: bool,
    },
    /// Lay Corefiles out, and print the result.
    ///
    /// One blank between words, four for each block, comments kept. Exit status 0 if all could be, else 1.
    Fmt {
        /// Corefiles to lay out
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Write the result to the file instead
        #[arg(long, conflicts_with = "check")]
        write: bool,
        /// Name the files that are laid out otherwise, and change none. Exit status 1 if there are any
        #[arg(long)]
        check: bool,
    },
    /// Print the Corefile that an agent with these flags serves.
    ///
    /// With this environment, too, and these ConfigMap folders. Exit status 0 if it is good, else 1.
    Render(Box<RenderFlags>),
    /// Remove from this node what an agent has left, of ours or node-cache's.
    ///
    /// Interception rules, the fallback, addresses, and the interface if an agent made it. Exit status 0 if nothing of
    /// it is left, else 1.
    Teardown {
        /// Comma-separated addresses of the cache on this node, as the agent was given them
        #[arg(long, value_name = "ADDRESSES", required = true, value_parser = values::local_addresses)]
        localip: values::LocalAddresses,
        /// Interface that carries the addresses [default: nodelocaldns]
        #[arg(long, value_name = "NAME")]
        interfacename: Option<String>,
    },
    /// Wait, for a preStop hook: an image of ours has no shell that could.
    ///
    /// Touches nothing. Exit status 0.
    Sleep {
        /// How long: seconds, or a duration such as 1m30s
        #[arg(value_name = "TIME", value_parser = values::pause)]
        time: Duration,
    },
    /// Say whether this node's queries are really intercepted, and what to do if not.
    ///
    /// Changes nothing. Exit status 0 if nothing is wrong, 1 if something is, 3 if nothing wrong was seen but not
    /// everything could be looked at.
    Doctor(Box<DoctorFlags>),
    /// Print a script that has a shell complete command lines.
    ///
    /// `source <(nodelocaldns completions bash)` has it at once.
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Look into the caches of the server that runs here, or let answers go.
    ///
    /// Asks as root, or as the user who has started the server. Exit status 0 if the server has done it, else 1.
    #[command(subcommand, disable_help_subcommand = true)]
    Cache(CacheCommand),
    /// Print how much the server that runs here logs, or have it log more or less.
    ///
    /// Its watchdog too, until the program ends. Asks as root, or as the user who has started the server. Exit status 0
    /// if the server has done it, else 1.
    LogLevel {
        /// Log lines of this level, and those above
        #[arg(value_name = "LEVEL")]
        level: Option<values::LogLevelArgument>,
        #[command(flatten)]
        flags: AdminFlags,
    },
    /// Show what the server that runs here is asked, query by query, as it is answered.
    ///
    /// Asks as root, or as the user who has started the server. Ends with Ctrl-C, at the limit, or with the server.
    /// Exit status 0, or 1 if the server has ended or does not show it.
    Queries(Box<QueriesFlags>),
    /// Say what the server that runs here would do with a question, and why.
    ///
    /// Which server block takes it, and what each of its directives does. Nothing is asked, counted or cached, but with
    /// --ask. Asks as root, or as the user who has started the server. Exit status 0 if it can be said, else 1.
    Explain(Box<ExplainFlags>),
    /// Show what the node's agent is asked, in the terminal.
    ///
    /// Rates, names, clients, failures, what is slow and why; the last line names the keys. Exit status of --once: 0 if
    /// the agent says it, else 1.
    Top {
        /// Print it once, and exit
        #[arg(long)]
        once: bool,
        /// How to print; docs/status.md has the fields of json
        #[arg(long, value_name = "FORM", default_value = "text")]
        output: OutputFormat,
        /// Where the agent serves it, such as through a port-forward
        #[arg(
            long, value_name = "URL", default_value = "http://127.0.0.1:9353/status.json",
            value_parser = values::status_url
        )]
        from: StatusUrl,
    },
}

/// What of the caches is wanted.
#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Print how many answers each cache holds, how many it may, and what they take.
    Stats {
        #[command(flatten)]
        flags: AdminFlags,
    },
    /// Print the answers that are kept: what for, how long they live, what they take.
    List {
        /// Only for names like this: `*` stands for any octets, `?` for one, such as '*.internal'
        #[arg(long, value_name = "GLOB", value_parser = values::pattern)]
        filter: Option<String>,
        /// No more of them than this, 10000 at most
        #[arg(long, value_name = "N", default_value = "100")]
        limit: usize,
        #[command(flatten)]
        flags: AdminFlags,
    },
    /// Print the answers that are kept for a name, with their records. Exit status 1 if there are none.
    Get {
        /// The name
        #[arg(value_name = "NAME", value_parser = values::name)]
        name: Name,
        /// Only those of this type, such as AAAA
        #[arg(long = "type", value_name = "TYPE", value_parser = values::record_type)]
        qtype: Option<RecordType>,
        #[command(flatten)]
        flags: AdminFlags,
    },
    /// Let answers go, in all caches: the next query for one asks upstream. Is logged, and counted in
    /// nodelocaldns_cache_flushes_total.
    Flush {
        /// The name whose answers are to go, or `all` for those of all names (`all.` is a name)
        #[arg(value_name = "NAME", value_parser = values::flush_target)]
        target: values::FlushArgument,
        /// Those of all names below it too
        #[arg(long)]
        zone: bool,
        #[command(flatten)]
        flags: AdminFlags,
    },
}

/// A question, and whose plan is looked at.
#[derive(Debug, Args)]
pub(super) struct ExplainFlags {
    /// The name that is asked for
    #[arg(value_name = "NAME", value_parser = values::name)]
    pub name: Name,
    /// The type that is asked for, such as AAAA
    #[arg(long = "type", value_name = "TYPE", default_value = "A", value_parser = values::record_type)]
    pub qtype: RecordType,
    /// Who asks, such as a pod's address [default: this machine]
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<IpAddr>,
    /// Which listen address is asked [default: the first that has a server block for the name]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = values::server_address)]
    pub server: Option<SocketAddr>,
    /// Ask for real too, as this machine, and show where the time goes. The query is counted and logged as any other
    #[arg(long, conflicts_with_all = ["client", "conf", "dns_port"])]
    pub ask: bool,
    /// Look at this Corefile instead of a server: as if it had just begun to serve, with empty caches
    #[arg(long, value_name = "FILE", value_parser = values::path(), conflicts_with = "admin_socket")]
    pub conf: Option<PathBuf>,
    /// Port of its server blocks that name none [default: 53]
    #[arg(
        long = "dns.port", short = 'p', alias = "p", value_name = "PORT", value_parser = values::port,
        requires = "conf", conflicts_with = "admin_socket"
    )]
    pub dns_port: Option<u16>,
    #[command(flatten)]
    pub admin: AdminFlags,
}

/// Which queries are shown, and how. Each flag given narrows the choice.
#[derive(Debug, Args)]
pub(super) struct QueriesFlags {
    /// Only those of these clients: addresses or prefixes, such as 10.244.1.7 or 10.244.0.0/16
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub client: Vec<String>,
    /// Only for names like this: `*` stands for any octets, `?` for one, such as '*.internal'
    #[arg(long, value_name = "GLOB", value_parser = values::pattern)]
    pub name: Option<String>,
    /// Only those answered with these codes, such as NXDOMAIN,SERVFAIL
    #[arg(long, value_name = "RCODES", value_delimiter = ',')]
    pub rcode: Vec<String>,
    /// Only those for these types, such as AAAA
    #[arg(long = "type", value_name = "TYPES", value_delimiter = ',')]
    pub qtype: Vec<String>,
    /// Only those that took longer: seconds, or a duration such as 50ms
    #[arg(long, value_name = "TIME", value_parser = values::pause)]
    pub slower_than: Option<Duration>,
    /// End after so many
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZeroU64>,
    /// How to print; docs/queries.md has the fields of json
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub output: OutputFormat,
    /// Write queries and replies as packets instead, for Wireshark and tcpdump, to a file or, with `-`, to standard
    /// output
    #[arg(long, value_name = "FILE", conflicts_with = "output", value_parser = values::path())]
    pub pcap: Option<PathBuf>,
    /// What the server's admin socket is called, where there are several
    #[arg(long, value_name = "LABEL", value_parser = values::admin_label)]
    pub admin_socket: Option<String>,
}

/// Which server is asked, and how its answer is printed.
#[derive(Debug, Args)]
pub(super) struct AdminFlags {
    /// What the server's admin socket is called, where there are several
    #[arg(long, value_name = "LABEL", value_parser = values::admin_label)]
    pub admin_socket: Option<String>,
    /// How to print
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub output: OutputFormat,
}

/// Those of the agent that its Corefile depends on.
#[derive(Debug, Args)]
pub(super) struct RenderFlags {
    /// Comma-separated addresses of the cache on this node
    #[arg(long, value_name = "ADDRESSES", required = true, value_parser = values::local_addresses)]
    pub localip: values::LocalAddresses,
    /// Port of stub domains, and of server blocks that name none [default: 53]
    #[arg(long = "dns.port", short = 'p', alias = "p", value_name = "PORT", value_parser = values::port)]
    pub dns_port: Option<u16>,
    /// Template of the Corefile [default: /etc/coredns/Corefile.base]
    #[arg(long, value_name = "FILE", value_parser = values::path())]
    pub basecorefile: Option<PathBuf>,
    /// Folder the kube-dns ConfigMap is mounted on [default: /etc/kube-dns, if it is there]
    #[arg(long, value_name = "FOLDER", value_parser = values::path())]
    pub kubednscm: Option<PathBuf>,
    /// Service of cluster DNS; its address, from the environment, replaces __PILLAR__CLUSTER__DNS__ [default: kube-dns]
    #[arg(long, value_name = "NAME", value_parser = values::service_name)]
    pub upstreamsvc: Option<String>,
    /// Replaces __PROMETHEUS__ENDPOINT__ [default: :9253]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = values::listen_address_text)]
    pub prometheus_listen_address: Option<String>,
}

/// What is not given is what the running agent was told, where one is seen, else the agent's default.
#[derive(Debug, Args)]
pub(super) struct DoctorFlags {
    /// Comma-separated addresses of the cache on this node
    #[arg(long, value_name = "ADDRESSES", value_parser = values::local_addresses)]
    pub localip: Option<values::LocalAddresses>,
    /// Interface that carries the addresses
    #[arg(long, value_name = "NAME", value_parser = values::interface_name)]
    pub interfacename: Option<String>,
    /// DNS port
    #[arg(long = "dns.port", short = 'p', alias = "p", value_name = "PORT", value_parser = values::port)]
    pub dns_port: Option<u16>,
    /// What the rules are made with
    #[arg(long, value_name = "HOW")]
    pub interception: Option<Backend>,
    /// Packet mark of the watchdog's own queries
    #[arg(long, value_name = "MARK", value_parser = values::mark)]
    pub probe_mark: Option<u32>,
    /// Port of the directive health
    #[arg(long, value_name = "PORT", value_parser = values::port)]
    pub health_port: Option<u16>,
    /// Where the agent serves its metrics
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = values::listen_address)]
    pub metrics_listen_address: Option<SocketAddr>,
    /// An ordinary name to ask for, beside the question that only our server can answer
    #[arg(
        long, value_name = "NAME", default_value = "kubernetes.default.svc.cluster.local.",
        value_parser = values::name
    )]
    pub name: Name,
    /// How to print; src/doctor/README.md has the fields of json
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub output: OutputFormat,
}
