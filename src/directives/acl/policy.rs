//! Which clients and questions a policy is for.

use crate::chain::Networks;
use crate::corefile::Span;
use crate::message::{LowerName, RecordType};
use std::net::IpAddr;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AclAction {
    Allow,
    /// REFUSED.
    Block,
    /// NOERROR without records.
    Filter,
    /// Nothing is said.
    Drop,
}

/// One `acl`: its zones, and its policies in order.
#[derive(Clone, Debug)]
pub(super) struct AclRule {
    pub zones: Vec<LowerName>,
    pub policies: Vec<AclPolicy>,
}

/// One line of an `acl`.
#[derive(Clone, Debug)]
pub(super) struct AclPolicy {
    pub action: AclAction,
    /// Where it stands.
    pub place: Span,
    /// `None`: all.
    pub qtypes: Option<Vec<RecordType>>,
    /// `None`: all.
    pub sources: Option<Networks>,
}

impl AclRule {
    /// The longest of the rule's zones that has the name, by its place; `None` if none has.
    pub(super) fn zone_of(&self, name: &LowerName) -> Option<usize> {
        let within = self.zones.iter().enumerate().filter(|(_, zone)| name.is_within(zone.as_wire()));
        within.max_by_key(|(_, zone)| zone.as_wire().len()).map(|(index, _)| index)
    }

    /// The first policy that is for this client and type, by its place, and what it says.
    pub(super) fn decide(&self, client: IpAddr, qtype: RecordType) -> Option<(usize, AclAction)> {
        let is_for = |(_, policy): &(usize, &AclPolicy)| {
            policy.qtypes.as_ref().is_none_or(|qtypes| qtypes.contains(&qtype))
                && policy.sources.as_ref().is_none_or(|sources| sources.contains(client))
        };
        self.policies.iter().enumerate().find(is_for).map(|(place, policy)| (place, policy.action))
    }

    /// What its policies know of clients.
    pub(super) fn networks(&self) -> impl Iterator<Item = &Networks> {
        self.policies.iter().filter_map(|policy| policy.sources.as_ref())
    }
}
