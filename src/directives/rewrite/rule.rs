//! The rules of a server block, in order.

use super::change::{Change, Undo};
use super::cname::CnameRule;
use super::edns::{Asked, EdnsRule};
use super::name_match::{NameMatch, Subject};
use super::name_rule::NameRule;
use crate::chain::Request;
use crate::message::{Class, Rcode, RecordType};

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    /// `continue`: the rules after this one are looked at too once it has matched.
    pub goes_on: bool,
    pub action: Action,
}

/// What a rule does.
#[derive(Debug)]
pub(super) enum Action {
    Name(NameRule),
    /// The first type becomes the second.
    Type(RecordType, RecordType),
    Class(Class, Class),
    Edns(EdnsRule),
    /// TTLs of the answer are at least, and at most, so many seconds.
    Ttl(NameMatch, u32, u32),
    /// The first code of the answer becomes the second.
    Rcode(NameMatch, Rcode, Rcode),
    Cname(CnameRule),
}

/// What the rules say of a request.
#[allow(clippy::large_enum_variant, reason = "a hit of the cache passes through it, and takes nothing from the heap")]
pub(super) enum Verdict<'r> {
    /// No rule is for it.
    Untouched,
    Changed(Change<'r>),
    /// The name that a rule has made is none.
    NoName(String),
    /// Only where a quick verdict was asked for: the slow path is to ask.
    Slow,
}

/// Looks at the rules in their order until one says stop. `is_quick`: takes nothing from the heap, and leaves what
/// needs it.
pub(super) fn judge<'r>(rules: &'r [Rule], request: &Request<'_>, is_quick: bool) -> Verdict<'r> {
    let query = request.query;
    let mut change = Change::new(&query.name, query.qtype, query.qclass);
    for rule in rules {
        let is_match = match &rule.action {
            Action::Name(rule) => match rule.apply(&Subject::new(change.name())) {
                Some(Ok(name)) => {
                    change.rename(name, rule.auto, &rule.answers);
                    true
                }
                Some(Err(text)) => return Verdict::NoName(text),
                None => false,
            },
            Action::Type(from, to) if change.qtype == *from => {
                change.qtype = *to;
                true
            }
            Action::Class(from, to) if change.qclass == *from => {
                change.qclass = *to;
                true
            }
            Action::Type(..) | Action::Class(..) => false,
            Action::Edns(_) | Action::Cname(_) if is_quick => return Verdict::Slow,
            Action::Edns(rule) => {
                let renamed = change.is_renamed().then(|| change.name().clone());
                let asked = Asked { renamed, qtype: change.qtype };
                rule.apply(request, &asked, change.options.get_or_insert_default())
            }
            Action::Ttl(name, least, most) if name.matches(&Subject::new(change.name())) => {
                change.undo(Undo::Ttl(*least, *most));
                true
            }
            // The upper bits of such a code stand in an OPT record.
            Action::Rcode(name, _, new) if is_quick && new.0 > 0x0f && name.matches(&Subject::new(change.name())) => {
                return Verdict::Slow;
            }
            Action::Rcode(name, old, new) if name.matches(&Subject::new(change.name())) => {
                change.undo(Undo::Rcode(*old, *new));
                true
            }
            Action::Ttl(..) | Action::Rcode(..) => false,
            Action::Cname(rule) => {
                change.undo(Undo::Cname(rule));
                true
            }
        };
        change.is_touched |= is_match;
        if is_match && !rule.goes_on {
            break;
        }
    }
    if change.is_touched { Verdict::Changed(change) } else { Verdict::Untouched }
}
