//! A request as the rules have rewritten it, and how its answer is rewritten back.

use super::cname::CnameRule;
use super::edns::OptionChanges;
use super::name_match::Subject;
use super::name_rule::{AnswerRule, NamePosition};
use crate::message::{Class, Edit, LowerName, Rcode, RecordType};
use smallvec::SmallVec;

/// A request as the rules have rewritten it, and what is to be done to its answer.
pub(super) struct RewrittenRequest<'r> {
    /// The client's name.
    asked: &'r LowerName,
    /// What it became, rule after rule.
    names: SmallVec<[LowerName; 1]>,
    pub qtype: RecordType,
    pub qclass: Class,
    /// EDNS options for the upstream; `None` if no rule has touched any.
    pub options: Option<Box<OptionChanges>>,
    /// In the order of the rules; they are done in the reverse of it.
    undo: SmallVec<[Undo<'r>; 4]>,
    /// A rule has matched.
    pub is_touched: bool,
}

/// What one rule wants done to the answer.
pub(super) enum Undo<'r> {
    /// `answer auto`: the name at this place among the names, and names below it, become the one before it, or the
    /// client's.
    Name(usize),
    Answer(&'r AnswerRule),
    /// TTLs are at least, and at most, so many seconds.
    Ttl(u32, u32),
    /// The first code becomes the second.
    Rcode(Rcode, Rcode),
    Cname(&'r CnameRule),
}

impl<'r> RewrittenRequest<'r> {
    pub(super) fn new(asked: &'r LowerName, qtype: RecordType, qclass: Class) -> Self {
        Self { asked, names: SmallVec::new(), qtype, qclass, options: None, undo: SmallVec::new(), is_touched: false }
    }

    /// The name as it is now.
    pub(super) fn name(&self) -> &LowerName {
        self.names.last().unwrap_or(self.asked)
    }
    /// True if it is not the client's.
    pub(super) fn is_renamed(&self) -> bool {
        self.names.last().is_some_and(|name| name != self.asked)
    }
    pub(super) fn rename(&mut self, name: LowerName, auto: bool, answers: &'r [AnswerRule]) {
        self.names.push(name);
        if auto {
            self.undo.push(Undo::Name(self.names.len() - 1));
        }
        self.undo.extend(answers.iter().map(Undo::Answer));
    }
    pub(super) fn undo(&mut self, undo: Undo<'r>) {
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

    fn changed(&self, name: &LowerName, place: NamePosition) -> Option<LowerName> {
        let mut changed: Option<LowerName> = None;
        for undo in self.undo.iter().rev() {
            let name = changed.as_ref().unwrap_or(name);
            let next = match undo {
                Undo::Name(at) => self.renamed_back(name, *at),
                Undo::Answer(rule) if rule.place == place => rule.change.apply(&Subject::new(name)),
                _ => None,
            };
            changed = next.or(changed);
        }
        changed
    }

    fn renamed_back(&self, name: &LowerName, at: usize) -> Option<LowerName> {
        let after = self.names.get(at)?;
        let before = at.checked_sub(1).map_or(Some(self.asked), |before| self.names.get(before))?;
        let is_root = after.as_wire().len() == 1;
        if is_root && name.as_wire().len() > 1 {
            return None;
        }
        name.replace_suffix(after.as_wire(), before)
    }
}

impl Edit for RewrittenRequest<'_> {
    fn owner(&mut self, name: &LowerName) -> Option<LowerName> {
        self.changed(name, NamePosition::Owner)
    }
    fn restores(&mut self, asked: &LowerName, client: &LowerName) -> bool {
        let is_of_owners = |undo: &&Undo<'_>| match undo {
            Undo::Name(_) => true,
            Undo::Answer(rule) => rule.place == NamePosition::Owner,
            Undo::Ttl(..) | Undo::Rcode(..) | Undo::Cname(_) => false,
        };
        let mut owners = self.undo.iter().filter(is_of_owners);
        let told = match (owners.next(), owners.next()) {
            (None, _) => Some(asked == client),
            (Some(Undo::Name(0)), None) if self.names.first() == Some(asked) => Some(self.asked == client),
            (Some(Undo::Answer(rule)), None) => rule.change.restores(asked, client),
            _ => None,
        };
        told.unwrap_or_else(|| self.changed(asked, NamePosition::Owner).as_ref().unwrap_or(asked) == client)
    }
    fn value(&mut self, name: &LowerName) -> Option<LowerName> {
        self.changed(name, NamePosition::Value)
    }
    fn ttl(&self, seconds: u32) -> u32 {
        self.undo.iter().rev().fold(seconds, |seconds, undo| match undo {
            Undo::Ttl(least, most) => seconds.max(*least).min(*most),
            _ => seconds,
        })
    }
    fn rcode(&self, rcode: Rcode) -> Rcode {
        self.undo.iter().rev().fold(rcode, |rcode, undo| match undo {
            Undo::Rcode(old, new) if *old == rcode => *new,
            _ => rcode,
        })
    }
}
