//! The chains that stand at the hooks `input` and `output`, with all that they lead to: what a firewall is made of.
//! Reading needs NET_ADMIN and changes nothing.

use super::expression::{Expression, NftVerdict, attribute, decode, decode_verdict, text, value};
use super::header::header;
use super::hooks::{BaseHook, NetfilterHook, TableFamily};
use super::message::messages;
use super::socket::NetlinkSocket;
use netlink_bindings::nftables::{
    OpGetchainDump, OpGetruleDump, OpGetsetelemDump, OpGettableDump, Request, VerdictCode,
};
use netlink_bindings::traits::NetlinkRequest;
use std::collections::{HashMap, HashSet};
use std::io;

/// Rules that are read; beyond that, nothing is known of a chain. A node with Calico and a hundred pods has a few
/// thousand, of which one takes microseconds.
const RULE_LIMIT: usize = 50_000;
/// Sets that are read.
const SET_LIMIT: usize = 4096;
/// `NFT_TABLE_F_DORMANT`, `NFT_SET_ELEM_INTERVAL_END` and `NFT_SET_ELEM_CATCHALL`
/// (include/uapi/linux/netfilter/nf_tables.h).
const DORMANT: u32 = 1;
const INTERVAL_END: u32 = 1;
const CATCH_ALL: u32 = 2;
/// `NFTA_SET_ELEM_KEY_END`, for which `netlink-bindings` has another number, and `NFTA_DATA_VALUE`.
const KEY_END: u16 = 10;
const DATA_VALUE: u16 = 1;
/// nft gives sets without a name of their own names that begin so. Those never change.
const ANONYMOUS: &str = "__";
/// Types of messages, in the numbers of nf_tables.h.
pub(in crate::node) const NEW_TABLE: u16 = 0xa00;
pub(in crate::node) const NEW_CHAIN: u16 = 0xa03;
pub(in crate::node) const NEW_RULE: u16 = 0xa06;
const NEW_ELEMENTS: u16 = 0xa0c;

/// Where a chain or a set is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainName {
    pub family: TableFamily,
    pub table: String,
    /// The chain's or the set's own.
    pub name: String,
}

impl ChainName {
    /// Something in the same table.
    pub fn beside(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }
}

/// A chain that is hooked in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    pub name: ChainName,
    pub base: BaseHook,
}

/// A rule of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainRule {
    /// By which the kernel knows it.
    pub handle: u64,
    pub expressions: Vec<Expression>,
}

/// An element of a set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetElement {
    /// None for the one that stands for all others.
    pub key: Option<Vec<u8>>,
    /// The last key of an interval, in sets of concatenated intervals.
    pub last: Option<Vec<u8>>,
    /// In sets of intervals: the first key that is none of the interval before.
    pub ends_interval: bool,
    /// What a verdict map does.
    pub verdict: Option<NftVerdict>,
}

/// What stands at the hooks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chains {
    /// At the hooks `input` and `output`, in the order in which packets meet them; none of type nat, which untracked
    /// packets pass by.
    pub bases: Vec<BaseChain>,
    /// Of the chains that could be read.
    pub rules: HashMap<ChainName, Vec<ChainRule>>,
    /// Of the sets that could be read.
    pub sets: HashMap<ChainName, Vec<SetElement>>,
    /// Tables with an owner, which only that one may change.
    pub owned_tables: HashSet<(TableFamily, String)>,
    dormant_tables: HashSet<(TableFamily, String)>,
}

impl Chains {
    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// The kernel has no nf_tables, or refuses for lack of NET_ADMIN.
    pub fn read(channel: &mut NetlinkSocket) -> io::Result<Self> {
        let mut chains = Self::default();
        channel.dump(&Request::new().op_gettable_dump(&header(0, 0)), |payload| chains.take(NEW_TABLE, payload))?;
        channel.dump(&Request::new().op_getchain_dump(&header(0, 0)), |payload| chains.take(NEW_CHAIN, payload))?;
        let mut waiting: Vec<ChainName> = chains.bases.iter().map(|chain| chain.name.clone()).collect();
        let mut seen: HashSet<ChainName> = waiting.iter().cloned().collect();
        let mut count = 0;
        while let Some(name) = waiting.pop() {
            if count > RULE_LIMIT {
                break;
            }
            let mut request = Request::new().op_getrule_dump(&header(name.family.number(), 0));
            request.encode().push_table_bytes(name.table.as_bytes()).push_chain_bytes(name.name.as_bytes());
            chains.rules.insert(name.clone(), Vec::new());
            match channel.dump(&request, |payload| chains.take(NEW_RULE, payload)) {
                Ok(()) => {}
                // It went while we read.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
            count += chains.rules.get(&name).map_or(0, Vec::len);
            for set in chains.unread_sets(&name) {
                let mut request = Request::new().op_getsetelem_dump(&header(set.family.number(), 0));
                request.encode().push_table_bytes(set.table.as_bytes()).push_set_bytes(set.name.as_bytes());
                chains.sets.insert(set.clone(), Vec::new());
                if channel.dump(&request, |payload| chains.take(NEW_ELEMENTS, payload)).is_err() {
                    chains.sets.remove(&set);
                }
            }
            let targets = chains.targets(&name);
            waiting.extend(targets.into_iter().filter(|target| seen.insert(target.clone())));
        }
        Ok(chains)
    }

    /// From the messages of a listing, in the kernel's order. A chain that is told of has all its rules in it.
    pub(in crate::node) fn listed(octets: &[u8]) -> Self {
        let mut chains = Self::default();
        for message in messages(octets) {
            chains.take(message.message_type(), message.payload());
            let (header, attributes) = OpGetchainDump::decode_reply(message.payload());
            if let (NEW_CHAIN, Ok(table), Ok(name)) =
                (message.message_type(), attributes.get_table(), attributes.get_name())
            {
                let name =
                    ChainName { family: TableFamily::of(header.nfgen_family), table: text(table), name: text(name) };
                chains.rules.entry(name).or_default();
            }
        }
        chains
    }

    /// Takes a message that says what is there.
    fn take(&mut self, kind: u16, payload: &[u8]) {
        // What is not whole is not there.
        let _taken = match kind {
            NEW_TABLE => self.take_table(payload),
            NEW_CHAIN => self.take_chain(payload),
            NEW_RULE => self.take_rule(payload),
            NEW_ELEMENTS => self.take_elements(payload),
            _ => None,
        };
    }

    fn take_table(&mut self, payload: &[u8]) -> Option<()> {
        let (header, attributes) = OpGettableDump::decode_reply(payload);
        let table = (TableFamily::of(header.nfgen_family), text(attributes.get_name().ok()?));
        if attributes.get_flags().unwrap_or_default() & DORMANT != 0 {
            self.dormant_tables.insert(table.clone());
        }
        if attributes.get_owner().is_ok() {
            self.owned_tables.insert(table);
        }
        Some(())
    }

    fn take_chain(&mut self, payload: &[u8]) -> Option<()> {
        let (header, attributes) = OpGetchainDump::decode_reply(payload);
        let family = TableFamily::of(header.nfgen_family);
        let name =
            ChainName { family, table: text(attributes.get_table().ok()?), name: text(attributes.get_name().ok()?) };
        let hook = attributes.get_hook().ok()?;
        let at = NetfilterHook::of(hook.get_num().ok()?);
        let is_of_concern = matches!(at, NetfilterHook::Input | NetfilterHook::Output)
            && family != TableFamily::Other
            && attributes.get_type().ok()?.to_bytes() != b"nat"
            && !self.dormant_tables.contains(&(family, name.table.clone()));
        if is_of_concern {
            let drops = attributes.get_policy().ok() == Some(VerdictCode::Drop as u32);
            let base = BaseHook { at, priority: hook.get_priority().ok()?, drops };
            let place = self.bases.partition_point(|chain| chain.base.priority <= base.priority);
            self.bases.insert(place, BaseChain { name, base });
        }
        Some(())
    }

    fn take_rule(&mut self, payload: &[u8]) -> Option<()> {
        let (header, attributes) = OpGetruleDump::decode_reply(payload);
        let family = TableFamily::of(header.nfgen_family);
        let name =
            ChainName { family, table: text(attributes.get_table().ok()?), name: text(attributes.get_chain().ok()?) };
        let expressions = attributes.get_expressions().map(|list| decode(&list)).unwrap_or_default();
        let handle = attributes.get_handle().unwrap_or_default();
        self.rules.entry(name).or_default().push(ChainRule { handle, expressions });
        Some(())
    }

    fn take_elements(&mut self, payload: &[u8]) -> Option<()> {
        let (header, attributes) = OpGetsetelemDump::decode_reply(payload);
        let family = TableFamily::of(header.nfgen_family);
        let name =
            ChainName { family, table: text(attributes.get_table().ok()?), name: text(attributes.get_set().ok()?) };
        let elements = self.sets.entry(name).or_default();
        for element in attributes.get_elements().ok()?.get_elem() {
            let flags = element.get_flags().ok().and_then(|flags| flags.try_into().ok()).map_or(0, u32::from_be_bytes);
            let verdict = element.get_data().ok().and_then(|data| decode_verdict(&data.get_verdict().ok()?));
            let last = attribute(element.get_buf(), KEY_END).and_then(|data| attribute(data, DATA_VALUE));
            elements.push(SetElement {
                key: element.get_key().ok().and_then(|key| value(&key)).filter(|_| flags & CATCH_ALL == 0),
                last: last.map(<[u8]>::to_vec),
                ends_interval: flags & INTERVAL_END != 0,
                verdict,
            });
        }
        Some(())
    }

    /// Sets without a name of their own that rules of `chain` look into.
    fn unread_sets(&self, chain: &ChainName) -> Vec<ChainName> {
        let looked_up = self.rules.get(chain).into_iter().flatten().flat_map(|rule| &rule.expressions);
        let names = looked_up.filter_map(|expression| match expression {
            Expression::Lookup { set, .. } if set.starts_with(ANONYMOUS) => Some(chain.beside(set)),
            _ => None,
        });
        names.filter(|set| !self.sets.contains_key(set)).take(SET_LIMIT.saturating_sub(self.sets.len())).collect()
    }

    /// Chains to which `chain` hands packets on.
    fn targets(&self, chain: &ChainName) -> Vec<ChainName> {
        let mut targets = Vec::new();
        for expression in self.rules.get(chain).into_iter().flatten().flat_map(|rule| &rule.expressions) {
            match expression {
                Expression::Decide(NftVerdict::Jump(name) | NftVerdict::Goto(name)) => targets.push(chain.beside(name)),
                Expression::Lookup { set, .. } => {
                    let elements = self.sets.get(&chain.beside(set)).into_iter().flatten();
                    targets.extend(elements.filter_map(|element| match &element.verdict {
                        Some(NftVerdict::Jump(name) | NftVerdict::Goto(name)) => Some(chain.beside(name)),
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
        targets
    }
}
