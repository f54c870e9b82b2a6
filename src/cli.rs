//! The command line: the reference's flags in its spelling (one dash or two, `=` or a space), ours with two dashes, and subcommands.

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// What the user asks for.
#[derive(Debug, Parser)]
#[command(
    name = "nodelocaldns",
    version,
    about = "A node-local DNS cache for Kubernetes.",
    long_about = "A node-local DNS cache for Kubernetes: a drop-in for NodeLocal DNSCache (node-cache).\n\n\
                  Without arguments it serves on 127.0.0.1:1053 from a built-in Corefile that forwards to the nameservers of \
                  /etc/resolv.conf.\nFlags may be written with one dash, as node-cache does, or with two.",
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: ServeOptions,
}

/// What to do other than serve.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read Corefiles and report everything wrong with them, without serving. Exit status 0 if all are good, else 1.
    Check {
        /// Corefiles to read
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// How to serve.
#[derive(Debug, Args)]
pub struct ServeOptions {
    /// Corefile to serve; `stdin` reads it from standard input. Without it the built-in Corefile is served
    #[arg(long, value_name = "FILE")]
    pub conf: Option<PathBuf>,
    /// Same as --conf, which wins when both are given
    #[arg(long, value_name = "FILE")]
    pub corefile: Option<PathBuf>,
    /// Port of server blocks that name none
    #[arg(long = "dns.port", short = 'p', value_name = "PORT", default_value_t = crate::plan::DEFAULT_PORT)]
    pub dns_port: u16,
    /// File to write the process ID to
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Do not print where it listens
    #[arg(long)]
    pub quiet: bool,
    /// List the directives a Corefile may hold, and exit
    #[arg(long)]
    pub plugins: bool,
    /// Worker threads; by default one for each processor this process may use
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZeroUsize>,
    /// Memory that all caches together may take, such as 64MiB; by default a quarter of the cgroup's limit, at most 256MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub cache_memory: Option<usize>,
    #[command(flatten)]
    pub node: NodeOptions,
}

/// The reference's flags that concern the node. Taken so that its command lines work; what they ask for comes with the node agent.
#[derive(Debug, Args)]
pub struct NodeOptions {
    /// Comma-separated addresses that the Corefile's `bind` lines name
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub localip: Vec<std::net::IpAddr>,
    /// Set up the network interface
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub setupinterface: bool,
    /// Set up the interception rules
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub setupiptables: bool,
    /// Template of the Corefile; served itself when --conf does not exist
    #[arg(long, value_name = "FILE")]
    pub basecorefile: Option<PathBuf>,
    /// Address to serve the node agent's metrics on
    #[arg(long, value_name = "ADDRESS", value_parser = parse_listen_address)]
    pub metrics_listen_address: Option<SocketAddr>,
    /// Leave interface and rules in place on exit
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub skipteardown: bool,
}

/// Go programs take `-flag` as well as `--flag`; clap wants two dashes for a long name.
pub fn go_style(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
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

/// `HOST:PORT` with an IP address as host; an empty host is every address.
fn parse_listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse().map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:9353 or :9353".to_owned())
}

/// Octets: a number with an optional unit `k`, `M`, `G` (powers of 1000) or `Ki`, `Mi`, `Gi` (of 1024), as Kubernetes writes quantities; a final
/// `B` may follow.
fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim_end_matches('B') {
        "" => 1,
        "k" | "K" => 1000,
        "M" => 1000 * 1000,
        "G" => 1000 * 1000 * 1000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(format!("unknown unit `{unit}`: use Ki, Mi, Gi, k, M or G")),
    };
    number
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "expected a size such as 64Mi or 100000000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        let arguments = std::iter::once("nodelocaldns").chain(arguments.iter().copied()).map(OsString::from);
        Cli::try_parse_from(go_style(arguments))
    }

    #[test]
    fn the_declaration_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_may_have_one_dash_or_two_and_a_space_or_an_equals_sign() {
        for arguments in [&["-conf", "a"][..], &["--conf", "a"], &["-conf=a"], &["--conf=a"]] {
            assert_eq!(parse(arguments).unwrap().serve.conf, Some(PathBuf::from("a")), "{arguments:?}");
        }
    }

    #[test]
    fn the_last_of_a_repeated_flag_counts_as_with_the_reference() {
        let cli =
            parse(&["-conf", "a", "-conf=b", "-dns.port=1", "-dns.port", "2", "-skipteardown", "-skipteardown=false"]).unwrap();
        assert_eq!((cli.serve.conf, cli.serve.dns_port, cli.serve.node.skipteardown), (Some(PathBuf::from("b")), 2, false));
    }

    #[test]
    fn a_boolean_takes_its_value_after_an_equals_sign_only() {
        assert!(parse(&["-setupinterface"]).unwrap().serve.node.setupinterface);
        assert!(parse(&["-setupinterface=true", "-quiet"]).unwrap().serve.node.setupinterface);
        assert!(!parse(&["-setupinterface=false"]).unwrap().serve.node.setupinterface);
        assert!(parse(&["-setupinterface", "false"]).is_err());
    }

    #[test]
    fn the_reference_command_line_is_understood() {
        let cli = parse(&[
            "-localip",
            "169.254.20.10,10.96.0.10",
            "-conf",
            "/etc/Corefile",
            "-metrics-listen-address",
            ":9353",
            "-skipteardown",
            "-dns.port=5353",
        ])
        .unwrap();
        assert_eq!(cli.serve.node.localip.len(), 2);
        assert_eq!(cli.serve.dns_port, 5353);
        assert_eq!(cli.serve.node.metrics_listen_address, Some("0.0.0.0:9353".parse().unwrap()));
    }

    #[test]
    fn check_wants_at_least_one_file() {
        assert!(parse(&["check"]).is_err());
        let Some(Command::Check { files }) = parse(&["check", "a", "b"]).unwrap().command else { panic!("not a check") };
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn sizes_have_the_units_of_kubernetes() {
        assert_eq!(parse_size("64Mi"), Ok(64 << 20));
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("5M"), Ok(5_000_000));
        assert_eq!(parse_size("123"), Ok(123));
        for wrong in ["", "Mi", "5X", "-1", "99999999999999999999"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
