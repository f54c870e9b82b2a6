//! Parsers of flags' values. Each error says what would be right.

use super::{AdminSocket, FallbackTo, StatusUrl};
use crate::admin;
use crate::chain::Level;
use crate::corefile::{self, Diagnostics, FileId, Loader, Span, Token, value};
use crate::message::{Name, NamePattern, RecordType};
use crate::node::Backend;
use crate::plan::DEFAULT_PORT;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// IFNAMSIZ of the kernel, without the final zero.
const INTERFACE_NAME_OCTETS: usize = 15;
/// Where an agent serves its status unless another path is named.
const STATUS_PATH: &str = "/status.json";
/// Of a label (RFC 1035 section 2.3.4).
const SERVICE_NAME_OCTETS: usize = 63;

/// The values of `--interception`.
impl ValueEnum for Backend {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Nftables, Self::Iptables, Self::None]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Auto => PossibleValue::new("auto").help("nftables where the kernel has what it takes, else iptables"),
            Self::Nftables => PossibleValue::new("nftables"),
            Self::Iptables => PossibleValue::new("iptables"),
            Self::None => PossibleValue::new("none").help("no rules, as -setupiptables=false"),
        })
    }
}

/// Where an agent's status is. The path may be missing.
pub(super) fn status_url(text: &str) -> Result<StatusUrl, String> {
    let wrong = || format!("`{text}` is no such place: write http://HOST:PORT, such as http://127.0.0.1:9353");
    let url: hyper::Uri = text.parse().map_err(|_| wrong())?;
    let (Some("http"), Some(host)) = (url.scheme_str(), url.host()) else { return Err(wrong()) };
    let path = url.path_and_query().map(ToString::to_string).unwrap_or_default();
    // A query may follow no path at all.
    let path = match path.strip_prefix('/').unwrap_or(&path) {
        "" => STATUS_PATH.to_owned(),
        query if query.starts_with('?') => format!("{STATUS_PATH}{query}"),
        _ => path,
    };
    Ok(StatusUrl { host: host.trim_matches(['[', ']']).to_owned(), port: url.port_u16().unwrap_or(80), path })
}

/// Addresses of `-localip`: at least one, none twice, in their order; each can be a link's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalAddresses(pub Vec<IpAddr>);

pub(super) fn local_addresses(text: &str) -> Result<LocalAddresses, String> {
    let mut addresses = Vec::new();
    for part in text.split(',') {
        let address = part.parse::<IpAddr>().map_err(|_| {
            format!(
                "`{part}` is no IP address: write addresses with commas between them, such as 169.254.20.10,10.96.0.10"
            )
        })?;
        let address = address.to_canonical();
        if let Some(objection) = objection_to_local_address(address) {
            return Err(format!(
                "`{part}` {objection}: name the addresses of the cache, such as 169.254.20.10,10.96.0.10"
            ));
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(LocalAddresses(addresses))
}

/// Why `address` cannot be one that a link of this node carries and clients ask.
fn objection_to_local_address(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("stands for every address of the node, which cannot all be taken over")
    } else if address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast()) {
        Some("is many machines' address, not one's")
    } else if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        Some("means an address only together with the name of an interface, which no client of the cache has")
    } else {
        None
    }
}

/// A name of the DNS, absolute with or without the final dot.
pub(super) fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| error.to_string())
}

/// What an admin socket is called, or `off`.
pub(super) fn admin_socket(text: &str) -> Result<AdminSocket, String> {
    if text == "off" { Ok(AdminSocket::Off) } else { admin_label(text).map(AdminSocket::Label) }
}

/// What an admin socket is called.
pub(super) fn admin_label(text: &str) -> Result<String, String> {
    match admin::is_label(text) && text != "off" {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "expected 1 to {} letters, digits, `.`, `-`, `_` and `:`, such as 169.254.20.10",
            admin::LABEL_OCTETS
        )),
    }
}

/// What is to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevelArgument {
    Debug,
    Info,
    Warning,
    Error,
    /// As the Corefile says
    Default,
}

impl LogLevelArgument {
    pub(super) fn level(self) -> Option<Level> {
        match self {
            Self::Debug => Some(Level::Debug),
            Self::Info => Some(Level::Info),
            Self::Warning => Some(Level::Warning),
            Self::Error => Some(Level::Error),
            Self::Default => None,
        }
    }
}

/// What `cache flush` is to let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FlushArgument {
    All,
    Name(Name),
}

pub(super) fn flush_target(text: &str) -> Result<FlushArgument, String> {
    if text == "all" { Ok(FlushArgument::All) } else { name(text).map(FlushArgument::Name) }
}

/// A pattern of names, as it is written.
pub(super) fn pattern(text: &str) -> Result<String, String> {
    NamePattern::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A mnemonic, or `TYPE` and a number (RFC 3597 section 5).
pub(super) fn record_type(text: &str) -> Result<RecordType, String> {
    RecordType::parse(text).ok_or_else(|| "expected a record type, such as AAAA or TYPE65400".to_owned())
}

/// A path, which may be empty.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// As Go's flag package reads it.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| "expected a port between 1 and 65535".to_owned())
}

/// As the directives `prometheus` and `health` read it, but for what they only warn of.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    as_in_a_corefile(text, |token, diagnostics| {
        let read = corefile::listen_address(token, &NoFiles, diagnostics)?;
        read.address().filter(|_| diagnostics.is_empty())
    })
}

/// An address at which is listened, with its port or port 53.
pub(super) fn server_address(text: &str) -> Result<SocketAddr, String> {
    let bare = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let read = text.parse().or_else(|_| bare().map(|address| SocketAddr::new(address, DEFAULT_PORT)));
    read.map_err(|_| "expected an address, or one with its port, such as 169.254.20.10:53 or [fd00::10]:53".to_owned())
}

/// As it is put into the Corefile, where it is read.
pub(super) fn listen_address_text(text: &str) -> Result<String, String> {
    as_in_a_corefile(text, |token, diagnostics| corefile::listen_address(token, &NoFiles, diagnostics))?;
    Ok(text.to_owned())
}

/// The command line is read without a look at the machine.
struct NoFiles;

impl Loader for NoFiles {
    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn glob(&self, _pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
    fn environment(&self, _name: &str) -> Option<String> {
        None
    }
}

/// Seconds, or a Go duration. The reference takes nothing but a duration, of which it reads each nanosecond as a
/// second: there 60 seconds are written `60ns`, and so they may be here.
pub(super) fn sync_interval(text: &str) -> Result<Duration, String> {
    const RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::MAX;
    let seconds = text
        .strip_suffix("ns")
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit()));
    as_in_a_corefile(seconds.unwrap_or(text), |token, diagnostics| {
        value::seconds_or_duration(token, "the interval", RANGE, diagnostics)
    })
}

/// Seconds, as sleep(1) takes them, or a Go duration.
pub(super) fn pause(text: &str) -> Result<Duration, String> {
    as_in_a_corefile(text, |token, diagnostics| {
        value::seconds_or_duration(token, "the time", Duration::ZERO..=Duration::MAX, diagnostics)
    })
}

fn as_in_a_corefile<T>(text: &str, read: impl FnOnce(&Token, &mut Diagnostics) -> Option<T>) -> Result<T, String> {
    let mut diagnostics = Diagnostics::default();
    let token = Token { text: text.to_owned(), span: Span { file: FileId(0), line: 1, column: 1, length: 0 } };
    read(&token, &mut diagnostics).ok_or_else(|| {
        let told =
            diagnostics.iter().flat_map(|diagnostic| [Some(diagnostic.message.as_str()), diagnostic.help.as_deref()]);
        told.flatten().collect::<Vec<_>>().join("; ")
    })
}

/// A name the kernel takes for an interface.
pub(super) fn interface_name(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty()
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c.is_whitespace() || c == '/' || c == ':');
    match is_name && text.len() <= INTERFACE_NAME_OCTETS {
        true => Ok(text.to_owned()),
        false => {
            Err(format!("an interface's name has 1 to {INTERFACE_NAME_OCTETS} octets without blanks, `/` and `:`"))
        }
    }
}

/// The name of a Service (RFC 1035 label, as Kubernetes asks).
pub(super) fn service_name(text: &str) -> Result<String, String> {
    let is_known = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    match !text.is_empty() && text.len() <= SERVICE_NAME_OCTETS && text.bytes().all(is_known) {
        true => Ok(text.to_owned()),
        false => {
            Err("expected the name of a Service, such as kube-dns-upstream: lower-case letters, digits and `-`"
                .to_owned())
        }
    }
}

/// A packet mark: decimal, or hexadecimal after `0x`.
pub(super) fn mark(text: &str) -> Result<u32, String> {
    let mark = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    mark.ok()
        .filter(|mark| *mark != 0)
        .ok_or_else(|| "expected a packet mark between 1 and 0xffffffff, such as 0x00100000".to_owned())
}

/// A packet mark of one bit.
pub(super) fn mark_bit(text: &str) -> Result<u32, String> {
    let mark = mark(text)?;
    if mark.is_power_of_two() { Ok(mark) } else { Err("expected a packet mark of one bit, such as 0x1000".to_owned()) }
}

/// `auto`, `none`, or addresses, at most one of each family.
pub(super) fn fallback(text: &str) -> Result<FallbackTo, String> {
    match text {
        "auto" => return Ok(FallbackTo::Upstream),
        "none" => return Ok(FallbackTo::Nowhere),
        _ => {}
    }
    let (mut ipv4, mut ipv6) = (None, None);
    for word in text.split(',') {
        let address = word.parse().map(|address: IpAddr| address.to_canonical());
        let is_repeated = match address {
            Ok(address) if address.is_unspecified() || address.is_loopback() || address.is_multicast() => {
                return Err(format!("`{word}` is no address of cluster DNS"));
            }
            Ok(IpAddr::V4(address)) => ipv4.replace(address).is_some(),
            Ok(IpAddr::V6(address)) => ipv6.replace(address).is_some(),
            Err(_) => {
                return Err(format!(
                    "`{word}` is no IP address; write auto, none, or addresses such as 10.96.0.11,fd00::11"
                ));
            }
        };
        if is_repeated {
            return Err(format!("`{word}` is a second address of its family: name one of each"));
        }
    }
    Ok(FallbackTo::Addresses { ipv4, ipv6 })
}

/// Octets: a number with an optional unit `k`, `M`, `G` (powers of 1000) or `Ki`, `Mi`, `Gi` (of 1024), as Kubernetes
/// writes quantities; a final `B` may follow.
pub(super) fn size(text: &str) -> Result<usize, String> {
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

    #[test]
    fn sizes_have_the_units_of_kubernetes() {
        assert_eq!(size("64Mi"), Ok(64 << 20));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("5M"), Ok(5_000_000));
        assert_eq!(size("123"), Ok(123));
        for wrong in ["", "Mi", "5X", "-1", "99999999999999999999"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn local_addresses_may_be_of_both_families_and_the_wrong_one_is_named() {
        let read = local_addresses("169.254.20.10,fd00::10,169.254.20.10").unwrap();
        assert_eq!(read, LocalAddresses(vec!["169.254.20.10".parse().unwrap(), "fd00::10".parse().unwrap()]));
        for (text, part) in
            [("", "``"), ("10.0.0.1,", "``"), ("10.0.0.1, 10.0.0.2", "` 10.0.0.2`"), ("10.0.0.256", "`10.0.0.256`")]
        {
            assert!(local_addresses(text).unwrap_err().starts_with(part), "{text}");
        }
    }

    #[test]
    fn a_link_local_address_of_ipv6_which_no_socket_can_be_bound_to_is_no_local_address() {
        assert!(local_addresses("169.254.20.10,fe80::10").unwrap_err().starts_with("`fe80::10` means an address only"));
    }

    #[test]
    fn the_sync_interval_is_seconds_or_a_duration_or_what_the_reference_takes_for_seconds() {
        for (text, seconds) in [("60", 60), ("1m", 60), ("60ns", 60), ("1h30m", 5400), ("1s", 1)] {
            assert_eq!(sync_interval(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["0", "0s", "0ns", "500ms", "-1s", "soon", "", "ns", "1.5"] {
            assert!(sync_interval(wrong).is_err(), "{wrong}");
        }
        assert!(sync_interval("10x").unwrap_err().contains("units are"));
    }

    #[test]
    fn a_pause_is_seconds_or_a_duration() {
        for (text, seconds) in [("20", 20), ("20s", 20), ("1m30s", 90), ("0", 0)] {
            assert_eq!(pause(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(pause("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "-1s", "soon", "20 s", "1.5", "20x"] {
            assert!(pause(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn booleans_are_those_of_go() {
        for (text, expected) in [("true", Ok(true)), ("1", Ok(true)), ("F", Ok(false)), ("False", Ok(false))] {
            assert_eq!(boolean(text), expected);
        }
        assert!(boolean("yes").is_err());
    }

    #[test]
    fn names_that_the_kernel_or_kubernetes_would_refuse_are_refused() {
        assert!(interface_name("nodelocaldns").is_ok());
        for wrong in ["", ".", "..", "a b", "a/b", "a:b", "sixteen-octets-x"] {
            assert!(interface_name(wrong).is_err(), "{wrong}");
        }
        assert!(service_name("kube-dns-upstream").is_ok());
        for wrong in ["", "Kube-DNS", "kube_dns", "kube.dns", "$X"] {
            assert!(service_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_admin_socket_has_a_label_or_is_off() {
        assert_eq!(admin_socket("off"), Ok(AdminSocket::Off));
        assert_eq!(admin_socket("fd00::10"), Ok(AdminSocket::Label("fd00::10".to_owned())));
        for wrong in ["", "a/b", "a b"] {
            assert!(admin_socket(wrong).is_err(), "{wrong}");
        }
        assert!(admin_label("off").is_err(), "none is called so");
    }

    #[test]
    fn types_have_mnemonics_or_numbers_and_all_is_no_name_without_its_dot() {
        assert_eq!((record_type("aaaa"), record_type("type65400")), (Ok(RecordType::AAAA), Ok(RecordType(65400))));
        for wrong in ["", "TYPE", "TYPE65536", "nonsense", "\u{fc}\u{fc}\u{fc}"] {
            assert!(record_type(wrong).is_err(), "{wrong}");
        }
        assert_eq!(flush_target("all"), Ok(FlushArgument::All));
        assert_eq!(flush_target("all."), Ok(FlushArgument::Name(Name::parse("all.").unwrap())));
        assert!(flush_target("a..b").is_err());
    }

    #[test]
    fn marks_are_decimal_or_hexadecimal_and_not_zero() {
        assert_eq!(mark("0x00100000"), Ok(1 << 20));
        assert_eq!(mark("16"), Ok(16));
        for wrong in ["0", "0x0", "0x1ffffffff", "mark", "-1"] {
            assert!(mark(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn listen_addresses_are_read_as_in_a_corefile() {
        assert_eq!(listen_address("0.0.0.0:9353"), Ok("0.0.0.0:9353".parse().unwrap()));
        assert_eq!(listen_address(":9353"), Ok("[::]:9353".parse().unwrap()));
        assert_eq!(listen_address_text("localhost:9253"), Ok("localhost:9253".to_owned()));
        assert_eq!(server_address("169.254.20.10"), Ok("169.254.20.10:53".parse().unwrap()));
        for text in ["fd00::10", "[fd00::10]", "[fd00::10]:53"] {
            assert_eq!(server_address(text), Ok("[fd00::10]:53".parse().unwrap()), "{text}");
        }
        assert!(server_address("localhost:53").is_err() && server_address(":53").is_err());
        assert!(listen_address_text("9253").unwrap_err().contains("the port is missing"));
    }
}
