//! `rewrite [continue|stop] FIELD …`: a line, or a block that holds one rule.

use super::cname::CnameRule;
use super::edns::{EdnsOperation, EdnsOption, EdnsRule, OptionData, Variable};
use super::expansion::{Expansion, references};
use super::name_match::NameMatch;
use super::name_rule::{AnswerChange, AnswerRule, NamePosition, NameRule, Replacement};
use super::rule::{RewriteAction, RewriteRule};
use super::{KEYWORD, RewriteConfig};
use crate::chain::{BlockConfig, ParseContext, Part};
use crate::corefile::{Diagnostics, Directive, Span, Token, nearest};
use crate::go_regex::{Patterns, Regex};
use crate::message::{Class, LowerName, PrefixLimits, Rcode, RecordType};
use std::any::Any;
use std::sync::Arc;

const FIELDS: [&str; 7] = ["name", "type", "class", "edns0", "ttl", "cname", "rcode"];
const KINDS: [&str; 5] = ["exact", "prefix", "suffix", "substring", "regex"];

const USAGE: &str = "write `rewrite [continue|stop] FIELD …`, FIELD one of name, type, class, edns0, ttl, cname, rcode";
const NAME_USAGE: &str =
    "write `name [exact|prefix|suffix|substring|regex] FROM TO [answer auto|name FROM TO|value FROM TO]`";
const TTL_USAGE: &str =
    "write `ttl [exact|prefix|suffix|substring|regex] NAME SECONDS`, or a range such as 30-300, 30- or -300";
const RCODE_USAGE: &str =
    "write `rcode [exact|prefix|suffix|substring|regex] NAME FROM TO`, such as `rcode example.org SERVFAIL NOERROR`";
const CNAME_USAGE: &str = "write `cname [exact|prefix|suffix|substring|regex] FROM TO`";
const EDNS_USAGE: &str = "write `edns0 local set|append|replace CODE DATA [revert]`, `edns0 nsid set|append|replace [revert]`, \
                          `edns0 subnet set|append|replace IPV4BITS IPV6BITS [revert]`, or `unset` in place of those: `edns0 local unset CODE`";

/// Reads one `rewrite` of a server block. All of a block make one part, since their order counts.
pub(crate) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let Some(rule) = RuleReader::new(directive, context).and_then(RuleReader::rule) else { return };
    let part = block.parts.iter_mut().find_map(|part| <dyn Any>::downcast_mut::<RewriteConfig>(&mut *part.configured));
    match part.and_then(|config| Arc::get_mut(&mut config.rules)) {
        Some(rules) => rules.push(rule),
        None => {
            let configured = Box::new(RewriteConfig { rules: Arc::new(vec![rule]) });
            block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured });
        }
    }
}

/// The words of one rule, and where what is wrong with them is told.
struct RuleReader<'a> {
    keyword: Span,
    words: Vec<&'a Token>,
    diagnostics: &'a mut Diagnostics,
    patterns: &'a Patterns,
}

impl<'a> RuleReader<'a> {
    /// As in the reference a block is read if fewer than two words stand on the line, and its lines are one.
    fn new(directive: &'a Directive, context: &'a mut ParseContext<'_>) -> Option<Self> {
        let (diagnostics, patterns) = (&mut *context.diagnostics, context.patterns);
        let mut words: Vec<&Token> = directive.arguments.iter().collect();
        for line in &directive.options {
            if words.len() >= 2 && directive.arguments.len() >= 2 {
                let message = "a rule on the line of `rewrite`, and a block after it";
                diagnostics
                    .error(line.name.span, message)
                    .help("write the rule either on the line or between the braces");
                return None;
            }
            words.push(&line.name);
            words.extend(&line.arguments);
            if let Some(inner) = line.block.first() {
                let message = "a block within a rule of `rewrite`";
                diagnostics
                    .error(inner.name.span, message)
                    .help("take the inner braces away; the lines of a block are one rule");
                return None;
            }
        }
        Some(Self { keyword: directive.keyword.span, words, diagnostics, patterns })
    }

    fn rule(mut self) -> Option<RewriteRule> {
        let mut words = std::mem::take(&mut self.words).into_iter().peekable();
        let mode = words.peek().map(|word| word.text.to_ascii_lowercase());
        let goes_on = mode.as_deref() == Some("continue");
        if goes_on || mode.as_deref() == Some("stop") {
            words.next();
        }
        let Some(field) = words.next() else { return self.wrong(self.keyword, "a `rewrite` without a rule", USAGE) };
        let words: Vec<&Token> = words.collect();
        let name = field.text.to_ascii_lowercase();
        let action = match name.as_str() {
            "name" => self.name(field, &words),
            "type" => self.record_types(field, &words),
            "class" => self.classes(field, &words),
            "edns0" => self.edns(field, &words),
            "ttl" => self.ttl(field, &words),
            "rcode" => self.rcode(field, &words),
            "cname" => self.cname(field, &words),
            "answer" => self.wrong(field.span, "`answer` without a `name` rule before it", NAME_USAGE),
            other => {
                let message = format!("`{}` is no field that `rewrite` knows", field.text);
                match nearest(other, FIELDS.iter().copied()) {
                    Some(near) => self.wrong(field.span, message, &format!("did you mean `{near}`?")),
                    None => self.wrong(field.span, message, USAGE),
                }
            }
        }?;
        Some(RewriteRule { place: self.keyword, goes_on, action })
    }

    /// Records an error; gives `None` for the caller to give back.
    fn wrong<T>(&mut self, span: Span, message: impl Into<String>, help: &str) -> Option<T> {
        self.diagnostics.error(span, message).help(help);
        None
    }

    fn warn(&mut self, span: Span, message: impl Into<String>, help: &str) {
        self.diagnostics.warning(span, message).help(help);
    }

    fn count<T>(&mut self, field: &Token, words: &[&Token], wanted: &str, usage: &str) -> Option<T> {
        let message = format!("`{}` takes {wanted} words here, found {}", field.text, words.len());
        self.wrong(words.last().map_or(field.span, |word| word.span), message, usage)
    }

    fn kind(&mut self, word: &Token, usage: &str) -> Option<&'static str> {
        let kind = KINDS.into_iter().find(|kind| kind.eq_ignore_ascii_case(&word.text));
        if kind.is_none() {
            let message = format!("`{}` is no way to match a name", word.text);
            let help = match nearest(&word.text, KINDS.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => usage.to_owned(),
            };
            return self.wrong(word.span, message, &help);
        }
        kind
    }

    fn regex(&mut self, word: &Token) -> Option<Regex> {
        match self.patterns.compile(&word.text) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let message = format!("`{}` is no regular expression: {error}", word.text);
                self.wrong(word.span, message, "write one in Go's syntax (RE2), such as `(.*)\\.example\\.org`")
            }
        }
    }

    /// How a name is matched; `text` is what is written, in lower case and with its final dot.
    fn name_match(&mut self, kind: &str, word: &Token, text: &str) -> Option<NameMatch> {
        Some(match kind {
            "exact" => {
                if LowerName::parse(text).is_err() {
                    self.warn(
                        word.span,
                        format!("`{}` is no domain name, so no name is it", word.text),
                        "write a name",
                    );
                }
                NameMatch::exact(text)
            }
            "prefix" => NameMatch::Prefix(text.to_owned()),
            "suffix" => NameMatch::suffix(text),
            "substring" => NameMatch::Substring(text.to_owned()),
            _ => NameMatch::Regex(self.regex(word)?),
        })
    }

    /// The replacement for a pattern's match. As in the reference, more different groups than the pattern has are
    /// refused, and one beyond them is text.
    fn expansion(&mut self, word: &Token, regex: &Regex) -> Option<Expansion> {
        let text = absolute(&word.text);
        let (used, groups) = (references(&text), regex.group_count());
        if used.len() > groups - 1 {
            let message = format!("`{}` has more groups than the {} of `{}`", word.text, groups - 1, regex.as_str());
            return self.wrong(word.span, message, "put parentheses around what `{1}`, `{2}`, … stand for");
        }
        if let Some(beyond) = used.iter().find(|number| **number >= groups) {
            let message = format!("`{{{beyond}}}` is text, for `{}` has {} groups", regex.as_str(), groups - 1);
            self.warn(word.span, message, "number the groups from 1 by their opening parentheses");
        }
        Some(Expansion::read(&text, groups))
    }

    fn name(&mut self, field: &Token, words: &[&Token]) -> Option<RewriteAction> {
        let (kind, from, to, answers) = match words {
            [from, to] => ("exact", *from, *to, &[][..]),
            [kind, from, to, answers @ ..] => (self.kind(kind, NAME_USAGE)?, *from, *to, answers),
            _ => return self.count(field, words, "two or more", NAME_USAGE),
        };
        let (auto, mut answers) = self.answers(answers)?;
        let (from_text, to_text) = (absolute(&from.text), absolute(&to.text));
        let matcher = self.name_match(kind, from, &from_text)?;
        let replacement = match &matcher {
            NameMatch::Regex(regex) => Replacement::Expansion(self.expansion(to, regex)?),
            NameMatch::Exact(_) => {
                Replacement::Whole(LowerName::parse(&to_text).map(Box::new).map_err(|_| to_text.clone()))
            }
            from => replacement_of(from, &to_text),
        };
        if matches!(&replacement, Replacement::Whole(Err(_))) {
            let message = format!("`{}` is no domain name: what this rule is for is answered SERVFAIL", to.text);
            self.warn(to.span, message, "write a name");
        }
        if kind == "suffix" && auto {
            let back = |place| {
                let from = NameMatch::suffix(&to_text);
                let to = replacement_of(&from, &from_text);
                AnswerRule { place, change: AnswerChange::Suffix(from, to) }
            };
            answers.splice(0..0, [back(NamePosition::Owner), back(NamePosition::Value)]);
        }
        let owners = answers.iter().filter(|answer| answer.place == NamePosition::Owner).count();
        let restores_owner = kind == "suffix" && auto && owners == 1 && {
            // Text in the place of text may begin within a label, and end elsewhere on the way back.
            matches!((&matcher, &replacement), (NameMatch::Below(_), Replacement::Above(_)))
        };
        let auto = kind == "exact" || auto && kind != "suffix";
        Some(RewriteAction::Name(NameRule { from: matcher, to: replacement, auto, answers, restores_owner }))
    }

    /// `answer auto`, `answer name FROM TO`, `answer value FROM TO`; `answer` may be left out from the second on.
    fn answers(&mut self, words: &[&Token]) -> Option<(bool, Vec<AnswerRule>)> {
        let (mut auto, mut rules, mut explicit) = (false, Vec::new(), None);
        let mut words = words.iter().copied().peekable();
        let mut is_first = true;
        while let Some(word) = words.next() {
            let kind = match word.text.as_str() {
                "answer" => match words.next() {
                    Some(kind) => kind,
                    None => return self.wrong(word.span, "`answer` without what is to be done", NAME_USAGE),
                },
                _ if is_first => {
                    return self.wrong(word.span, format!("`{}` stands after the rule", word.text), NAME_USAGE);
                }
                _ => word,
            };
            is_first = false;
            let place = match kind.text.as_str() {
                "auto" => {
                    auto = true;
                    continue;
                }
                "name" => NamePosition::Owner,
                "value" => NamePosition::Value,
                other => return self.wrong(kind.span, format!("`answer` knows no `{other}`"), NAME_USAGE),
            };
            let (Some(from), Some(to)) = (words.next(), words.next()) else {
                return self.wrong(
                    kind.span,
                    format!("`answer {}` takes a pattern and a replacement", kind.text),
                    NAME_USAGE,
                );
            };
            if from.text == "auto" && to.text == "answer" {
                let message = "`answer name auto answer` changes names that match `auto` to `answer`";
                self.warn(from.span, message, "`answer auto` writes all names back");
            }
            let regex = self.regex(from)?;
            let expansion = self.expansion(to, &regex)?;
            if place == NamePosition::Owner {
                explicit = Some(kind.span);
            }
            rules.push(AnswerRule { place, change: AnswerChange::Regex(regex, expansion) });
        }
        match explicit {
            Some(span) if auto => {
                self.wrong(span, "`answer auto` and `answer name` in one rule", "keep one of the two")
            }
            _ => Some((auto, rules)),
        }
    }

    fn record_types(&mut self, field: &Token, words: &[&Token]) -> Option<RewriteAction> {
        const USAGE: &str = "write `type FROM TO`, such as `type ANY HINFO`";
        let [from, to] = words else { return self.count(field, words, "two", USAGE) };
        let mut read = |word: &Token| match RecordType::from_mnemonic(&word.text) {
            Some(rtype) => Some(rtype),
            None => self.wrong(word.span, format!("`{}` is no record type", word.text), USAGE),
        };
        let (from, to) = (read(from), read(to));
        Some(RewriteAction::Type(from?, to?))
    }

    fn classes(&mut self, field: &Token, words: &[&Token]) -> Option<RewriteAction> {
        const USAGE: &str = "write `class FROM TO`, such as `class CH IN`";
        let [from, to] = words else { return self.count(field, words, "two", USAGE) };
        let mut read = |word: &Token| match Class::from_mnemonic(&word.text) {
            Some(class) => Some(class),
            None => self.wrong(word.span, format!("`{}` is no class", word.text), USAGE),
        };
        let (from, to) = (read(from), read(to));
        Some(RewriteAction::Class(from?, to?))
    }

    fn ttl(&mut self, field: &Token, words: &[&Token]) -> Option<RewriteAction> {
        let (kind, name, ttl) = match words {
            [name, ttl] => ("exact", *name, *ttl),
            [kind, name, ttl] => (self.kind(kind, TTL_USAGE)?, *name, *ttl),
            _ => return self.count(field, words, "two or three", TTL_USAGE),
        };
        let Some((least, most)) = ttl_range(&ttl.text) else {
            return self.wrong(ttl.span, format!("`{}` is neither seconds nor a range of them", ttl.text), TTL_USAGE);
        };
        let matcher = self.name_match(kind, name, &absolute(&name.text))?;
        Some(RewriteAction::Ttl(matcher, least, most))
    }

    fn rcode(&mut self, field: &Token, words: &[&Token]) -> Option<RewriteAction> {
        let (kind, name, old, new) = match words {
            [name, old, new] => ("exact", *name, *old, *new),
            [kind, name, old, new] => (self.kind(kind, RCODE_USAGE)?, *name, *old, *new),
            _ => return self.count(field, words, "three or four", RCODE_USAGE),
        };
        let mut read = |word: &Token| {
            let number = word.text.parse::<u16>().ok().filter(|number| *number <= 23 && !word.text.starts_with('+'));
            match number.map(Rcode).or_else(|| Rcode::from_mnemonic(&word.text)) {
                Some(rcode) => Some(rcode),
                None => self.wrong(word.span, format!("`{}` is no response code", word.text), RCODE_USAGE),
            }
        };
        let (old, new) = (read(old), read(new));
        let matcher = self.name_match(kind, name, &absolute(&name.text))?;
        Some(RewriteAction::Rcode(matcher, old?, new?))
    }

    fn cname(&mut self, field: &Token, words: &[&Token]) -> Option<RewriteAction> {
        let (kind, from, to) = match words {
            [from, to] => ("exact", *from, *to),
            [kind, from, to] => (self.kind(kind, CNAME_USAGE)?, *from, *to),
            _ => return self.count(field, words, "two or three", CNAME_USAGE),
        };
        let (from_text, to_text) = match kind {
            "exact" => (absolute(&from.text), absolute(&to.text)),
            // Those are texts, and no dot is added to them.
            _ => (from.text.to_ascii_lowercase(), to.text.to_ascii_lowercase()),
        };
        if kind == "suffix" && !from_text.ends_with('.') {
            let message = format!("no target ends in `{}`, for the text of a name ends in a dot", from.text);
            self.warn(from.span, message, "write the final dot");
        }
        let matcher = match kind {
            "suffix" if !from_text.ends_with('.') => NameMatch::Suffix(from_text),
            // The reference writes the pattern in lower case.
            "regex" => {
                let pattern = Token { text: format!("(?i){}", from.text), span: from.span };
                NameMatch::Regex(self.regex(&pattern)?)
            }
            kind => self.name_match(kind, from, &from_text)?,
        };
        let to = match &matcher {
            NameMatch::Regex(regex) => Replacement::Expansion(Expansion::read(&to_text, regex.group_count())),
            NameMatch::Exact(_) => {
                Replacement::Whole(LowerName::parse(&to_text).map(Box::new).map_err(|_| to_text.clone()))
            }
            _ => Replacement::Text(to_text),
        };
        Some(RewriteAction::Cname(CnameRule(NameRule {
            from: matcher,
            to,
            auto: false,
            answers: Vec::new(),
            restores_owner: false,
        })))
    }

    fn edns(&mut self, field: &Token, words: &[&Token]) -> Option<RewriteAction> {
        let [option, operation, rest @ ..] = words else { return self.count(field, words, "two or more", EDNS_USAGE) };
        let operation = match operation.text.to_ascii_lowercase().as_str() {
            "set" => EdnsOperation::Set,
            "append" => EdnsOperation::Append,
            "replace" => EdnsOperation::Replace,
            "unset" => EdnsOperation::Unset,
            _ => {
                let message = format!("`edns0` knows no `{}`", operation.text);
                return self.wrong(operation.span, message, EDNS_USAGE);
            }
        };
        // Nothing that a rule puts there comes back to the client, so `revert` is always so.
        let rest = match rest {
            [rest @ .., last] if last.text == "revert" && operation != EdnsOperation::Unset => rest,
            rest => rest,
        };
        let kind = option.text.to_ascii_lowercase();
        let option = match (kind.as_str(), rest) {
            ("local", [code]) if operation == EdnsOperation::Unset => {
                EdnsOption::Local(self.code(code)?, OptionData::Octets(Vec::new()))
            }
            ("local", [code, data]) if operation != EdnsOperation::Unset => {
                EdnsOption::Local(self.code(code)?, self.data(data)?)
            }
            ("nsid", []) => EdnsOption::Nsid,
            ("subnet", []) if operation == EdnsOperation::Unset => {
                EdnsOption::Subnet(PrefixLimits { ipv4: 0, ipv6: 0 })
            }
            ("subnet", [ipv4, ipv6]) if operation != EdnsOperation::Unset => {
                let (ipv4, ipv6) = (self.bits(ipv4, 32), self.bits(ipv6, 128));
                EdnsOption::Subnet(PrefixLimits { ipv4: ipv4?, ipv6: ipv6? })
            }
            ("local" | "nsid" | "subnet", _) => return self.count(option, rest, "another number of", EDNS_USAGE),
            _ => return self.wrong(option.span, format!("`edns0` knows no option `{}`", option.text), EDNS_USAGE),
        };
        Some(RewriteAction::Edns(EdnsRule { operation, option }))
    }

    fn code(&mut self, word: &Token) -> Option<u16> {
        match go_number(&word.text) {
            Some(code) => Some(code),
            None => self.wrong(word.span, format!("`{}` is no option code, 0 to 65535", word.text), EDNS_USAGE),
        }
    }

    fn bits(&mut self, word: &Token, most: u8) -> Option<u8> {
        match go_number(&word.text).and_then(|bits| u8::try_from(bits).ok()).filter(|bits| *bits <= most) {
            Some(bits) => Some(bits),
            None => self.wrong(word.span, format!("`{}` is no number of bits, 0 to {most}", word.text), EDNS_USAGE),
        }
    }

    fn data(&mut self, word: &Token) -> Option<OptionData> {
        let text = word.text.as_str();
        let octets = if let Some(variable) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            const VARIABLES: &str =
                "{qname}, {qtype}, {client_ip}, {client_port}, {protocol}, {server_ip}, {server_port}";
            return match Variable::named(variable) {
                Some(Variable::Metadata) => {
                    let message = format!("no directive before `rewrite` gives `{text}`, so the rule does nothing");
                    self.warn(word.span, message, &format!("variables that there are: {VARIABLES}"));
                    Some(OptionData::Variable(Variable::Metadata))
                }
                Some(variable) => Some(OptionData::Variable(variable)),
                None => {
                    self.wrong(word.span, format!("`{text}` is no variable"), &format!("variables are {VARIABLES}"))
                }
            };
        } else if let Some(digits) = text.strip_prefix("0x") {
            match hex(digits) {
                Some(octets) => octets,
                None => {
                    let message = format!("`{text}` is no even number of hexadecimal digits");
                    return self.wrong(word.span, message, "write two digits for an octet, such as `0x61626364`");
                }
            }
        } else {
            text.as_bytes().to_vec()
        };
        let most = crate::message::UpstreamOptions::MOST_OCTETS - 4;
        if octets.len() > most {
            return self.wrong(word.span, format!("{} octets of data, more than {most}", octets.len()), "write less");
        }
        Some(OptionData::Octets(octets))
    }
}

/// The replacement for what this matches, on labels where both are whole ones.
fn replacement_of(from: &NameMatch, text: &str) -> Replacement {
    let whole = text.strip_prefix('.').and_then(|name| LowerName::parse(name).ok());
    match (from, whole) {
        (NameMatch::Below(_), Some(name)) => Replacement::Above(Box::new(name)),
        _ => Replacement::Text(text.to_owned()),
    }
}

/// In lower case and with its final dot (the reference's `plugin.Name.Normalize`).
fn absolute(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let escapes =
        lower.strip_suffix('.').map_or(0, |text| text.bytes().rev().take_while(|octet| *octet == b'\\').count());
    if lower.ends_with('.') && escapes.is_multiple_of(2) { lower } else { lower + "." }
}

/// `30`, `30-300`, `30-` or `-300`, in seconds.
fn ttl_range(text: &str) -> Option<(u32, u32)> {
    let seconds = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|octet| octet.is_ascii_digit()));
    let Some((least, most)) = text.split_once('-') else { return seconds(text).map(|seconds| (seconds, seconds)) };
    let range = match (least, most) {
        ("", "") => return None,
        ("", most) => (0, seconds(most)?),
        (least, "") => (seconds(least)?, i32::MAX as u32),
        (least, most) => (seconds(least)?, seconds(most)?),
    };
    (range.0 <= range.1).then_some(range)
}

/// A number of 16 bits as Go's `strconv.ParseUint` reads it with base 0: `65518`, `0xffee`, `0o17`, `017`, `0b11`.
fn go_number(text: &str) -> Option<u16> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    u16::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let octet = |pair: &[u8]| {
        let digit = |index: usize| char::from(*pair.get(index)?).to_digit(16);
        Some((digit(0)? * 16 + digit(1)?) as u8)
    };
    pairs.map(octet).collect()
}
