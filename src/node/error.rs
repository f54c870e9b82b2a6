//! Errors of the node's setup, with the types under which the reference counts them.

use crate::threads::ThreadError;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Something about the node that is not as it should be.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum Error {
    /// No program of the name exists here.
    #[error(
        "cannot set iptables rules: no program {program}; install iptables in the image, or use --interception nftables"
    )]
    IptablesMissing { program: &'static str },
    /// Somebody else held the lock for too long.
    #[error(
        "{command}: another program has held the xtables lock for {waited_seconds} s; it is tried again, but find out which program \
         that is (`fuser /run/xtables.lock`)"
    )]
    IptablesLock { command: String, waited_seconds: u32 },
    /// The program did not end.
    #[error("{command} has not come to an end in {} s and was killed; it is tried again, but find out what it waits for", waited.as_secs())]
    IptablesHangs { command: String, waited: Duration },
    /// The program said no.
    #[error("{command}: {message}")]
    Iptables { command: String, message: String },
    /// The kernel lacks what the nftables backend needs.
    #[error(
        "this kernel cannot hold interception rules in an nftables table with an owner ({source}; Linux 5.12 or later can): use --interception iptables or auto"
    )]
    NftablesUnsupported { source: io::Error },
    /// The kernel has no nf_tables at all.
    #[error(
        "this kernel has no nf_tables ({source}): load the module (`modprobe nf_tables`; CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET), or have \
         the iptables programs hold the rules (--interception iptables or auto)"
    )]
    NftablesMissing { source: io::Error },
    /// Neither backend can hold the interception.
    #[error(
        "nothing here can hold the interception: there is no program {program}, and {nftables}. Install iptables in the image or mend the \
         kernel; until then queries go to cluster DNS"
    )]
    NoBackend { program: &'static str, nftables: String },
    /// The kernel lacks what the fallback needs.
    #[error(
        "this kernel cannot hold the fallback in an nftables table ({source}; Linux 5.2 or later with the module nf_tables, its chains of type nat and masquerading can)"
    )]
    FallbackUnsupported { source: io::Error },
    /// The kernel refused a change or a question.
    #[error("cannot {action} nftables table {table}: {source}{}", hint(source))]
    Nftables { action: &'static str, table: String, source: io::Error },
    /// The link is not there and could not be made.
    #[error("cannot create link {name}: {source}{}", create_hint(source))]
    LinkAdd { name: String, source: io::Error },
    /// The link or its addresses could not be looked at or changed.
    #[error("cannot {action} link {name}: {source}{}", hint(source))]
    LinkCheck { action: String, name: String, source: io::Error },
    /// A link of ours has another name, and could not be given back its own.
    #[error(
        "cannot rename link {called} back to {name}: {source}; it is used under that name all the same{}",
        rename_hint(source, called)
    )]
    LinkName { name: String, called: String, source: io::Error },
    /// IPv6 is switched off.
    #[error(
        "cannot add address {address} to link {link}: IPv6 is disabled there ({} = 1). Set it to 0 (`sysctl -w {}=0`), or leave the IPv6 \
         addresses out of -localip", sysctls.join(" = 1, "), sysctls.join("=0 ")
    )]
    Ipv6Disabled { address: IpAddr, link: String, sysctls: Vec<String> },
    /// No netlink socket.
    #[error("cannot open a netlink socket for {purpose}: {source}{}", hint(source))]
    Socket { purpose: &'static str, source: io::Error },
    /// The kernel did not say something that was asked for.
    #[error("cannot list {what}: {source}{}", listing_hint(what, source))]
    Listing { what: &'static str, source: io::Error },
    /// Packets of clients come in and do not reach the cache.
    #[error("packets of {clients} clients come in and do not arrive at the cache; the log names them")]
    PathBlocked { clients: usize },
    /// The node's firewall drops pods' packets, whatever we do.
    #[error(
        "pods' DNS packets for {address} are dropped by {by}, and no rule of ours can change that: {address} is not intercepted, cluster DNS answers \
         pods; accept UDP and TCP packets to and from {address} there, untracked ones too (`nft -a list ruleset`)"
    )]
    Filtered { address: IpAddr, by: String },
    /// The rules of legacy iptables may drop our packets, and nobody here can add to them.
    #[error(
        "legacy iptables has rules in its filter table that may drop DNS packets, and there is no program iptables-legacy here to put others before them: pods \
         may lose queries; install iptables in the image, or accept UDP and TCP packets to and from the cache's addresses there \
         (`iptables-legacy -S INPUT` on the node)"
    )]
    LegacyFilter,
    /// Nobody here can read legacy iptables.
    #[error(
        "legacy iptables has a filter table that cannot be read ({source}), and there is no program iptables-legacy here: if it drops what comes in, pods \
         may lose queries; see `iptables-legacy -S INPUT` on the node"
    )]
    LegacyUnread { source: io::Error },
    /// A look at the node took too long.
    #[error("what {task} has not come to an end in {} s", waited.as_secs())]
    TaskSlow { task: &'static str, waited: Duration },
    /// No thread for a task of ours.
    #[error("what {task} cannot be begun: {source}")]
    Thread { task: &'static str, source: ThreadError },
    /// A task of ours ended early.
    #[error("the task that {task} ended before its time: please report this")]
    TaskEnded { task: &'static str },
}

/// What [`Error::Listing`] calls nftables.
pub(super) const NFTABLES: &str = "nftables";

impl Error {
    /// Value of the label `errortype` of `coredns_nodecache_setup_errors_total`; all but `nftables`, `filter` and
    /// `path` are the reference's.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::IptablesLock { .. } => "iptables_lock",
            Self::IptablesMissing { .. }
            | Self::IptablesHangs { .. }
            | Self::NoBackend { .. }
            | Self::Iptables { .. }
            | Self::TaskEnded { .. }
            | Self::TaskSlow { .. }
            | Self::Thread { .. } => "iptables",
            Self::NftablesUnsupported { .. }
            | Self::NftablesMissing { .. }
            | Self::FallbackUnsupported { .. }
            | Self::Nftables { .. }
            | Self::Listing { .. } => "nftables",
            Self::PathBlocked { .. } => "path",
            Self::Filtered { .. } | Self::LegacyFilter | Self::LegacyUnread { .. } => "filter",
            Self::LinkAdd { .. } => "interface_add",
            Self::LinkCheck { .. } | Self::LinkName { .. } | Self::Ipv6Disabled { .. } | Self::Socket { .. } => {
                "interface_check"
            }
        }
    }

    /// Whether this is for lack of rights, so that nothing else is worth trying either.
    pub fn is_lack_of_rights(&self) -> bool {
        match self {
            Self::NftablesUnsupported { source }
            | Self::NftablesMissing { source }
            | Self::FallbackUnsupported { source }
            | Self::Nftables { source, .. }
            | Self::Listing { source, .. }
            | Self::LinkAdd { source, .. }
            | Self::LinkCheck { source, .. }
            | Self::LinkName { source, .. }
            | Self::Socket { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; the program needs the capability NET_ADMIN",
        _ => "",
    }
}

fn listing_hint(what: &str, source: &io::Error) -> &'static str {
    let is_lacking = [libc::EINVAL, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT];
    match source.raw_os_error() {
        Some(code) if is_lacking.contains(&code) && what == NFTABLES => {
            "; this kernel has no nf_tables: load the module (`modprobe nf_tables`; CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET), or iptables \
             programs are needed to see and set rules"
        }
        Some(code) if is_lacking.contains(&code) => {
            "; this kernel cannot list them: load the module (`modprobe nf_conntrack_netlink`; CONFIG_NF_CT_NETLINK)"
        }
        _ => hint(source),
    }
}

fn rename_hint(source: &io::Error, called: &str) -> String {
    match source.raw_os_error() {
        Some(libc::EBUSY) => format!(
            ". This kernel renames no link that is up: find out who renamed it, and `ip link set {called} down` has it renamed and raised again"
        ),
        _ => hint(source).to_owned(),
    }
}

fn create_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EOPNOTSUPP) => {
            "; this kernel has no dummy driver: load its module (`modprobe dummy`), or name an existing interface to carry the \
             addresses with -interfacename"
        }
        _ => hint(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_the_dummy_driver_gets_told_of_the_interface_flag() {
        let source = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        let text = Error::LinkAdd { name: "nodelocaldns".to_owned(), source }.to_string();
        assert!(
            text.contains("nodelocaldns") && text.contains("dummy driver") && text.contains("-interfacename"),
            "{text}"
        );
    }

    #[test]
    fn a_kernel_without_nf_tables_is_told_as_such_with_module_and_options() {
        let source = || io::Error::from_raw_os_error(libc::EINVAL);
        for error in [Error::NftablesMissing { source: source() }, Error::Listing { what: NFTABLES, source: source() }]
        {
            let text = error.to_string();
            assert!(
                ["no nf_tables", "modprobe nf_tables", "CONFIG_NF_TABLES_INET", "iptables"]
                    .iter()
                    .all(|word| text.contains(word)),
                "{text}"
            );
        }
        let text = Error::Listing { what: "tracked connections", source: source() }.to_string();
        assert!(text.contains("nf_conntrack_netlink") && !text.contains("nf_tables"), "{text}");
        let neither =
            Error::NoBackend { program: "iptables", nftables: Error::NftablesMissing { source: source() }.to_string() };
        assert!(
            neither.to_string().contains("no program iptables") && neither.to_string().contains("no nf_tables"),
            "{neither}"
        );
        assert_eq!(neither.error_type(), "iptables");
    }

    #[test]
    fn a_link_whose_name_cannot_be_given_back_says_what_helps() {
        let error = |code| Error::LinkName {
            name: "nodelocaldns".to_owned(),
            called: "dns0".to_owned(),
            source: io::Error::from_raw_os_error(code),
        };
        let busy = error(libc::EBUSY).to_string();
        assert!(busy.contains("dns0 back to nodelocaldns") && busy.contains("ip link set dns0 down"), "{busy}");
        assert!(error(libc::EPERM).to_string().contains("NET_ADMIN"));
    }

    #[test]
    fn ipv6_that_is_switched_off_names_every_sysctl_that_does_it() {
        let sysctls = ["all", "nodelocaldns"].map(|place| format!("net.ipv6.conf.{place}.disable_ipv6")).to_vec();
        let error =
            Error::Ipv6Disabled { address: "fd00::10".parse().unwrap(), link: "nodelocaldns".to_owned(), sysctls };
        let text = error.to_string();
        assert!(
            text.contains("`sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.nodelocaldns.disable_ipv6=0`"),
            "{text}"
        );
        assert!(!error.is_lack_of_rights());
    }

    #[test]
    fn lack_of_rights_names_the_capability() {
        let source = io::Error::from_raw_os_error(libc::EPERM);
        let error = Error::Nftables { action: "change", table: "nodelocaldns".to_owned(), source };
        assert!(error.is_lack_of_rights());
        assert!(error.to_string().contains("NET_ADMIN"), "{error}");
    }
}
