//! What others change in the kernel's tables, as it tells everyone who listens (NFNLGRP_NFTABLES). iptables programs of
//! the nft kind change tables there too.

use super::TABLE_NAME;
use super::encode::FAMILY;
use super::message::messages;
use crate::node::error::Error;
use netlink_bindings::nftables::{OpDelchainDo, OpDelruleDo, OpDeltableDo};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use std::io;

/// `NFNLGRP_NFTABLES` (include/uapi/linux/netfilter/nfnetlink.h).
const GROUP: u32 = 7;
/// A notification holds a rule, and rules are bounded by the size of an attribute.
const DATAGRAM_LIMIT: usize = 128 * 1024;
/// What `netlink-bindings` gives as types, in the numbers of nf_tables.h.
const NEW_TABLE: u16 = 0xa00;
const DELETE_TABLE: u16 = 0xa02;
const NEW_CHAIN: u16 = 0xa03;
const DELETE_CHAIN: u16 = 0xa05;
const NEW_RULE: u16 = 0xa06;
const DELETE_RULE: u16 = 0xa08;

/// Tables that hold nothing at the filter hooks, or, of kube-proxy's own, nothing that concerns untracked packets, and
/// change all the time.
const BUSY_TABLES: [&str; 3] = ["nat", "raw", "kube-proxy"];

/// What changes concern.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangeScope {
    /// A table of our own.
    pub own_table: bool,
    /// Chains into which we or iptables programs put rules of ours, of which some may be gone.
    pub iptables: bool,
    /// Somebody else's rules, which may drop DNS packets, or do so no more.
    pub firewall: bool,
}

impl ChangeScope {
    /// Anything may have changed.
    pub const ALL: Self = Self { own_table: true, iptables: true, firewall: true };
    const NONE: Self = Self { own_table: false, iptables: false, firewall: false };

    fn or(self, other: Self) -> Self {
        Self {
            own_table: self.own_table || other.own_table,
            iptables: self.iptables || other.iptables,
            firewall: self.firewall || other.firewall,
        }
    }
}

/// What is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnTables {
    /// Tables in family inet.
    pub tables: Vec<String>,
    /// Port IDs that our own changes carry.
    pub port_ids: Vec<u32>,
}

/// A subscription.
pub(crate) struct Events {
    socket: TokioSocket,
    datagram: Vec<u8>,
    own: OwnTables,
}

impl Events {
    /// Subscribes; `own` is what is ours.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub(crate) fn subscribe(own: OwnTables) -> Result<Self, Error> {
        let open = || -> io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            socket.socket_mut().bind_auto()?;
            socket.socket_ref().add_membership(GROUP)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| Error::Socket { purpose: "changes of nftables", source })?;
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM_LIMIT), own })
    }

    /// Waits for a change by which something of ours may be gone, or the firewall another. May be dropped while it
    /// waits without losing any.
    ///
    /// # Errors
    ///
    /// The socket is of no more use.
    pub(crate) async fn next(&mut self) -> io::Result<ChangeScope> {
        loop {
            self.datagram.clear();
            match self.socket.recv(&mut self.datagram).await {
                Ok(()) => {}
                // Changes came faster than they were read: some are lost, and any may have been ours.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.discard_pending();
                    return Ok(ChangeScope::ALL);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let change_scope = change_scope(&self.datagram, &self.own);
            if change_scope != ChangeScope::NONE {
                return Ok(change_scope);
            }
        }
    }

    /// After an overflow the kernel drops every further change, and says so no second time, until all that waits has
    /// been read (`NETLINK_S_CONGESTED` in net/netlink/af_netlink.c). Who looked at the tables before that would miss
    /// what is changed in between.
    fn discard_pending(&mut self) {
        loop {
            self.datagram.clear();
            match self.socket.socket_ref().recv(&mut self.datagram, libc::MSG_DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if ![Some(libc::ENOBUFS), Some(libc::EINTR)].contains(&error.raw_os_error()) => return,
                _ => {}
            }
        }
    }
}

/// What the changes in `datagram`, a notification of the kernel's, concern that others have made. Pure.
pub(crate) fn change_scope(datagram: &[u8], own: &OwnTables) -> ChangeScope {
    let others = messages(datagram).filter(|message| !own.port_ids.contains(&message.port_number()));
    let each = others.filter_map(|message| {
        let payload = message.payload();
        let kind = message.message_type();
        let (header, table, chain) = match kind {
            NEW_TABLE | DELETE_TABLE => {
                let (header, attributes) = OpDeltableDo::decode_request(payload);
                (header, attributes.get_name().ok()?, None)
            }
            NEW_CHAIN | DELETE_CHAIN => {
                let (header, attributes) = OpDelchainDo::decode_request(payload);
                (header, attributes.get_table().ok()?, attributes.get_name().ok())
            }
            NEW_RULE | DELETE_RULE => {
                let (header, attributes) = OpDelruleDo::decode_request(payload);
                (header, attributes.get_table().ok()?, attributes.get_chain().ok())
            }
            _ => return None,
        };
        let table = table.to_str().ok()?;
        let is_inet = header.nfgen_family == FAMILY;
        let is_iptables = [libc::NFPROTO_IPV4 as u8, libc::NFPROTO_IPV6 as u8].contains(&header.nfgen_family);
        if is_inet && own.tables.iter().any(|own| own == table) {
            return Some(ChangeScope { own_table: true, ..ChangeScope::NONE });
        }
        let is_removal = matches!(kind, DELETE_TABLE | DELETE_CHAIN | DELETE_RULE);
        let holds_ours = chain.is_none_or(|chain| match (table, chain.to_bytes()) {
            ("raw", chain) => chain == b"PREROUTING" || chain == b"OUTPUT",
            ("filter", chain) => chain == b"INPUT" || chain == b"OUTPUT",
            _ => false,
        });
        if is_removal && is_iptables && ["raw", "filter"].contains(&table) && holds_ours {
            return Some(ChangeScope { iptables: true, ..ChangeScope::NONE });
        }
        // Another agent's table has an owner, and lets everything in.
        let is_firewall = (is_inet || is_iptables) && !BUSY_TABLES.contains(&table) && !table.starts_with(TABLE_NAME);
        Some(ChangeScope { firewall: is_firewall, ..ChangeScope::NONE })
    });
    each.fold(ChangeScope::NONE, ChangeScope::or)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::nftables::encode::delete;
    use crate::node::nftables::header::header;
    use netlink_bindings::nftables::Chained;

    const OWN_TABLE: ChangeScope = ChangeScope { own_table: true, ..ChangeScope::NONE };
    const IPTABLES: ChangeScope = ChangeScope { iptables: true, ..ChangeScope::NONE };
    const FIREWALL: ChangeScope = ChangeScope { firewall: true, ..ChangeScope::NONE };

    fn rule_gone(family: u8, table: &str, chain: &str) -> Vec<u8> {
        let mut batch = Chained::new(1);
        let mut request = batch.request().op_delrule_do(&header(family, 0));
        request.encode().push_table_bytes(table.as_bytes()).push_chain_bytes(chain.as_bytes());
        drop(request);
        batch.finalize().into_chained().into_buf()
    }

    fn own(table: &str, port_id: u32) -> OwnTables {
        OwnTables { tables: vec![table.to_owned()], port_ids: vec![port_id] }
    }

    #[test]
    fn a_rule_gone_from_a_chain_of_ours_is_noticed() {
        assert_eq!(change_scope(&rule_gone(2, "raw", "PREROUTING"), &OwnTables::default()), IPTABLES);
        assert_eq!(change_scope(&rule_gone(10, "filter", "INPUT"), &OwnTables::default()), IPTABLES);
    }

    #[test]
    fn what_kube_proxy_does_to_services_is_nothing_to_look_at() {
        for (family, table, chain) in
            [(2, "nat", "OUTPUT"), (2, "nat", "KUBE-SERVICES"), (2, "kube-proxy", "services"), (2, "raw", "X")]
        {
            assert_eq!(
                change_scope(&rule_gone(family, table, chain), &OwnTables::default()),
                ChangeScope::NONE,
                "{table} {chain}"
            );
        }
        assert_eq!(
            change_scope(&rule_gone(7, "raw", "PREROUTING"), &OwnTables::default()),
            ChangeScope::NONE,
            "a bridge's table"
        );
    }

    #[test]
    fn what_others_do_to_a_firewall_is_noticed() {
        for (family, table, chain) in
            [(1, "firewalld", "filter_INPUT"), (2, "filter", "KUBE-FORWARD"), (10, "mangle", "INPUT")]
        {
            assert_eq!(
                change_scope(&rule_gone(family, table, chain), &OwnTables::default()),
                FIREWALL,
                "{table} {chain}"
            );
        }
        assert_eq!(
            change_scope(&rule_gone(1, "nodelocaldns-4711", "prerouting"), &OwnTables::default()),
            ChangeScope::NONE,
            "another agent's"
        );
    }

    #[test]
    fn our_own_table_counts_when_the_change_is_not_ours() {
        let octets = delete("nodelocaldns", 1).octets;
        assert_eq!(change_scope(&octets, &own("nodelocaldns", 77)), OWN_TABLE);
        assert_eq!(
            change_scope(&octets, &own("nodelocaldns", 0)),
            ChangeScope::NONE,
            "messages that we build carry port ID 0"
        );
        assert_eq!(change_scope(&octets, &own("nodelocaldns-77", 77)), ChangeScope::NONE);
        assert_eq!(
            change_scope(&rule_gone(2, "filter", "INPUT"), &own("nodelocaldns", 0)),
            ChangeScope::NONE,
            "what we take away ourselves"
        );
    }

    #[test]
    fn who_takes_away_everything_takes_away_everything_of_ours_whatever_comes_first() {
        let (table, rule) = (delete("nodelocaldns-fallback", 1).octets, rule_gone(2, "raw", "PREROUTING"));
        let wall = delete("firewalld", 1).octets;
        let own = OwnTables {
            tables: vec!["nodelocaldns".to_owned(), "nodelocaldns-fallback".to_owned()],
            port_ids: vec![1, 2],
        };
        for octets in [[table.clone(), rule.clone(), wall.clone()].concat(), [wall, rule, table].concat()] {
            assert_eq!(change_scope(&octets, &own), ChangeScope::ALL);
        }
    }

    #[test]
    fn octets_that_are_no_message_are_passed_over() {
        let whole = rule_gone(2, "raw", "PREROUTING");
        for length in 0..whole.len() {
            let _nothing_panics = change_scope(&whole[..length], &OwnTables::default());
        }
        for index in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut octets = whole.clone();
                octets[index] = value;
                let _nothing_panics = change_scope(&octets, &own("raw", 1));
            }
        }
    }
}
