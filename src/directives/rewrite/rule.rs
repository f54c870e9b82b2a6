//! The rules of a server block, in order.

use super::change::{RewrittenRequest, Undo};
use super::cname::CnameRule;
use super::edns::{EdnsRule, RewriteQuestion};
use super::name_match::{NameMatch, Subject};
use super::name_rule::NameRule;
use crate::chain::Request;
use crate::corefile::Span;
use crate::message::{Class, Rcode, RecordType};

/// One rule.
#[derive(Debug)]
pub(super) struct RewriteRule {
    /// Where it stands.
    pub place: Span,
    /// `continue`: the rules after this one are looked at too once it has matched.
    pub goes_on: bool,
    pub action: RewriteAction,
}

/// What a rule does.
#[derive(Debug)]
pub(super) enum RewriteAction {
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
pub(super) enum RewriteOutcome {
    /// No rule is for it.
    Untouched,
    /// It is what was made of it.
    Changed,
    /// The name that a rule has made is none.
    NoName(String),
    /// Only where a quick verdict was asked for: the slow path is to ask.
    Slow,
}

/// Looks at the rules in their order until one says stop, and makes of `change`, which is new, what they say.
/// `is_quick`: takes nothing from the heap, and leaves what needs it.
pub(super) fn judge<'r>(
    rules: &'r [RewriteRule],
    request: &Request<'_>,
    is_quick: bool,
    change: &mut RewrittenRequest<'r>,
) -> RewriteOutcome {
    for rule in rules {
        let is_match = match &rule.action {
            RewriteAction::Name(rule) => match change.rename(rule) {
                Some(Ok(())) => true,
                Some(Err(text)) => return RewriteOutcome::NoName(text),
                None => false,
            },
            RewriteAction::Type(from, to) if change.qtype == *from => {
                change.qtype = *to;
                true
            }
            RewriteAction::Class(from, to) if change.qclass == *from => {
                change.qclass = *to;
                true
            }
            RewriteAction::Type(..) | RewriteAction::Class(..) => false,
            RewriteAction::Edns(_) | RewriteAction::Cname(_) if is_quick => return RewriteOutcome::Slow,
            RewriteAction::Edns(rule) => {
                let renamed = change.is_renamed().then(|| change.name().clone());
                let asked = RewriteQuestion { renamed, qtype: change.qtype };
                rule.apply(request, &asked, change.options.get_or_insert_default())
            }
            RewriteAction::Ttl(name, least, most) if name.matches(&Subject::new(change.name())) => {
                change.undo(Undo::Ttl(*least, *most));
                true
            }
            // The upper bits of such a code stand in an OPT record.
            RewriteAction::Rcode(name, _, new)
                if is_quick && new.0 > 0x0f && name.matches(&Subject::new(change.name())) =>
            {
                return RewriteOutcome::Slow;
            }
            RewriteAction::Rcode(name, old, new) if name.matches(&Subject::new(change.name())) => {
                change.undo(Undo::Rcode(*old, *new));
                true
            }
            RewriteAction::Ttl(..) | RewriteAction::Rcode(..) => false,
            RewriteAction::Cname(rule) => {
                change.undo(Undo::Cname(rule));
                true
            }
        };
        change.is_touched |= is_match;
        change.is_rewritten |= is_match && !matches!(rule.action, RewriteAction::Cname(_));
        if is_match && !rule.goes_on {
            break;
        }
    }
    if change.is_touched { RewriteOutcome::Changed } else { RewriteOutcome::Untouched }
}
