//! A request as the rules have rewritten it, and how its answer is rewritten back.

use super::cname::CnameRule;
use super::edns::OptionChanges;
use super::name_match::Subject;
use super::name_rule::{NamePosition, NameRule};
use crate::message::{Class, Edit, LowerName, Query, Rcode, RecordType};
use smallvec::SmallVec;

/// A request as the rules have rewritten it, and what is to be done to its answer. It is large, and stays where it is
/// made: to hand it on costs as much as a rule.
pub(super) struct RewrittenRequest<'r> {
    /// The client's.
    asked: &'r Query,
    /// As it goes on, with its last name; `None` until something of it is another.
    rewritten: Option<Query>,
    /// The names between the client's and the last one, rule after rule.
    earlier: SmallVec<[LowerName; 1]>,
    pub qtype: RecordType,
    pub qclass: Class,
    /// EDNS options for the upstream; `None` if no rule has touched any.
    pub options: Option<Box<OptionChanges>>,
    /// In the order of the rules; they are done in the reverse of it.
    undo: SmallVec<[Undo<'r>; 4]>,
    /// Whether one of them is about TTLs, or the code: most are not.
    changes_ttls: bool,
    changes_rcode: bool,
    /// A rule has matched.
    pub is_touched: bool,
    /// One has that is not about the targets of CNAME records, of which nobody knows yet.
    pub is_rewritten: bool,
}

/// What one rule wants done to the answer.
pub(super) enum Undo<'r> {
    /// `answer auto`: the name at this place among those that rules have made, and names below it, become the one
    /// before it, or the client's.
    Name(usize),
    /// What a rule says of names of the answer.
    Answers(&'r NameRule),
    /// TTLs are at least, and at most, so many seconds.
    Ttl(u32, u32),
    /// The first code becomes the second.
    Rcode(Rcode, Rcode),
    Cname(&'r CnameRule),
}

impl<'r> RewrittenRequest<'r> {
    pub(super) fn new(asked: &'r Query) -> Self {
        Self {
            asked,
            rewritten: None,
            earlier: SmallVec::new(),
            qtype: asked.qtype,
            qclass: asked.qclass,
            options: None,
            undo: SmallVec::new(),
            changes_ttls: false,
            changes_rcode: false,
            is_touched: false,
            is_rewritten: false,
        }
    }

    /// The query; once [`RewrittenRequest::write`] has written it, as it goes on.
    pub(super) fn query(&self) -> &Query {
        self.rewritten.as_ref().unwrap_or(self.asked)
    }
    /// The name as it is now.
    pub(super) fn name(&self) -> &LowerName {
        &self.query().name
    }
    /// True if it is not the client's.
    pub(super) fn is_renamed(&self) -> bool {
        self.rewritten.as_ref().is_some_and(|query| query.name != self.asked.name)
    }
    /// Does what a rule says to the name: `None` if it is not for it, an error with the text that is no name.
    #[inline]
    pub(super) fn rename(&mut self, rule: &'r NameRule) -> Option<Result<(), String>> {
        let subject = Subject::new(self.name());
        match rule.suffixes() {
            // Most rules are such ones, and the name is changed in its place.
            Some((zone, by)) => {
                if !rule.from.matches(&subject) {
                    return None;
                }
                if !self.next_name().set_suffix(zone.as_wire().len(), by) {
                    return Some(Err(self.name().text().as_str().to_owned()));
                }
            }
            None => match rule.apply(&subject)? {
                Ok(name) => *self.next_name() = name,
                Err(text) => return Some(Err(text)),
            },
        }
        if rule.auto {
            self.undo.push(Undo::Name(self.earlier.len()));
        }
        if !rule.answers.is_empty() {
            self.undo.push(Undo::Answers(rule));
        }
        Some(Ok(()))
    }
    /// The place for another name, which still holds the present one.
    fn next_name(&mut self) -> &mut LowerName {
        let asked = self.asked;
        if let Some(query) = &self.rewritten {
            self.earlier.push(query.name.clone());
        }
        &mut self.rewritten.get_or_insert_with(|| asked.clone()).name
    }
    /// Octets of the query as it goes on; `wire` is the client's.
    pub(super) fn length(&self, wire: &[u8]) -> usize {
        (wire.len() + self.name().as_wire().len()).saturating_sub(self.asked.name.as_wire().len())
    }
    /// Writes the query as it goes on, in a buffer that its octets are then a part of. `wire` is the client's. `None`
    /// if it has no room.
    #[inline]
    pub(super) fn write<'b>(&mut self, wire: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let asked = self.asked;
        let query = self.rewritten.get_or_insert_with(|| asked.clone());
        (query.qtype, query.qclass) = (self.qtype, self.qclass);
        query.write_changed(wire, buffer)
    }
    pub(super) fn undo(&mut self, undo: Undo<'r>) {
        self.changes_ttls |= matches!(undo, Undo::Ttl(..));
        self.changes_rcode |= matches!(undo, Undo::Rcode(..));
        self.undo.push(undo);
    }
    /// True if there is nothing to do to the answer but to put the client's question in.
    pub(super) fn leaves_records(&self) -> bool {
        self.undo.is_empty() && !self.is_renamed()
    }
    /// The rules for targets of CNAME records, in the order in which they are done.
    pub(super) fn cname_rules(&self) -> impl Iterator<Item = &'r CnameRule> + '_ {
        self.undo.iter().rev().filter_map(|undo| if let Undo::Cname(rule) = undo { Some(*rule) } else { None })
    }

    /// The name at a place among those that rules have made.
    fn made(&self, at: usize) -> Option<&LowerName> {
        self.earlier.get(at).or_else(|| (at == self.earlier.len()).then_some(&self.rewritten.as_ref()?.name))
    }

    fn changed(&self, name: &LowerName, place: NamePosition) -> Option<LowerName> {
        let mut changed: Option<LowerName> = None;
        for undo in self.undo.iter().rev() {
            match undo {
                Undo::Name(at) => {
                    changed = self.renamed_back(changed.as_ref().unwrap_or(name), *at).or(changed);
                }
                Undo::Answers(rule) => {
                    for answer in rule.answers.iter().rev().filter(|answer| answer.place == place) {
                        let subject = Subject::new(changed.as_ref().unwrap_or(name));
                        changed = answer.change.apply(&subject).or(changed);
                    }
                }
                Undo::Ttl(..) | Undo::Rcode(..) | Undo::Cname(_) => {}
            }
        }
        changed
    }

    fn renamed_back(&self, name: &LowerName, at: usize) -> Option<LowerName> {
        let (after, before) = (self.made(at)?, at.checked_sub(1).map_or(Some(&self.asked.name), |at| self.made(at))?);
        let is_root = after.as_wire().len() == 1;
        if is_root && name.as_wire().len() > 1 {
            return None;
        }
        name.replace_suffix(after.as_wire(), before)
    }
}

/// Equal, and mostly one and the same.
fn is_same(one: &LowerName, other: &LowerName) -> bool {
    std::ptr::eq(one, other) || one == other
}

impl Edit for RewrittenRequest<'_> {
    fn owner(&self, name: &LowerName) -> Option<LowerName> {
        self.changed(name, NamePosition::Owner)
    }
    fn restores(&self, asked: &LowerName, client: &LowerName) -> bool {
        // One name was made of the client's, and the rule that has made it says how it is made back.
        let mut of_names = self.undo.iter().filter(|undo| matches!(undo, Undo::Name(_) | Undo::Answers(_)));
        let is_made_back = match (of_names.next(), of_names.next()) {
            (None, _) => return asked == client,
            (Some(Undo::Name(0)), None) => true,
            (Some(Undo::Answers(rule)), None) => rule.restores_owner,
            _ => false,
        };
        if is_made_back && self.earlier.is_empty() && is_same(asked, self.name()) {
            return is_same(client, &self.asked.name);
        }
        self.changed(asked, NamePosition::Owner).as_ref().unwrap_or(asked) == client
    }
    fn value(&self, name: &LowerName) -> Option<LowerName> {
        self.changed(name, NamePosition::Value)
    }
    fn keeps_ttls(&self) -> bool {
        !self.changes_ttls
    }
    fn ttl(&self, seconds: u32) -> u32 {
        self.undo.iter().rev().fold(seconds, |seconds, undo| match undo {
            Undo::Ttl(least, most) => seconds.max(*least).min(*most),
            _ => seconds,
        })
    }
    fn rcode(&self, rcode: Rcode) -> Rcode {
        if !self.changes_rcode {
            return rcode;
        }
        self.undo.iter().rev().fold(rcode, |rcode, undo| match undo {
            Undo::Rcode(old, new) if *old == rcode => *new,
            _ => rcode,
        })
    }
}
