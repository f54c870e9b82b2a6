//! `acl [ZONES…] { ACTION [type QTYPE…] [net SOURCE…] }`

use super::policy::{AclAction, AclPolicy, AclRule};
use super::{AclConfig, KEYWORD};
use crate::chain::{BlockConfig, Networks, ParseContext, Part};
use crate::corefile::{Diagnostics, Directive, OptionLine, Token, nearest, value};
use crate::message::{Name, RecordType};
use std::any::Any;
use std::net::IpAddr;

const USAGE: &str =
    "write `allow|block|filter|drop [type QTYPE…] [net SOURCE…]`, such as `block type A AAAA net 10.0.0.0/8`";
const ACTIONS: [&str; 4] = ["allow", "block", "filter", "drop"];

/// Reads one `acl` of a server block. All of a block make one part, since their order counts.
pub(crate) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    let zones: Vec<Name> = match directive.arguments.as_slice() {
        [] => context.zones.to_vec(),
        written => written.iter().filter_map(|zone| value::zones(zone, diagnostics)).flatten().collect(),
    };
    if directive.options.is_empty() {
        diagnostics.warning(directive.keyword.span, "an `acl` without a policy allows everything").help(USAGE);
    }
    let policies = directive.options.iter().filter_map(|line| policy(line, diagnostics)).collect();
    let rule = AclRule { zones: zones.iter().map(Name::to_lower).collect(), policies };
    match block.parts.iter_mut().find_map(|part| <dyn Any>::downcast_mut::<AclConfig>(&mut *part.configured)) {
        Some(config) => config.rules.push(rule),
        None => {
            let configured = Box::new(AclConfig { rules: vec![rule] });
            block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured });
        }
    }
}

fn policy(line: &OptionLine, diagnostics: &mut Diagnostics) -> Option<AclPolicy> {
    let action = match line.name.text.to_ascii_lowercase().as_str() {
        "allow" => AclAction::Allow,
        "block" => AclAction::Block,
        "filter" => AclAction::Filter,
        "drop" => AclAction::Drop,
        other => {
            let message = format!("`{}` is no action of `acl`", line.name.text);
            let help = match nearest(other, ACTIONS.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => USAGE.to_owned(),
            };
            diagnostics.error(line.name.span, message).help(help);
            return None;
        }
    };
    let (mut qtypes, mut networks) = (None, None);
    let mut words = line.arguments.as_slice();
    let mut is_good = true;
    while let Some((section, rest)) = words.split_first() {
        let length = rest.iter().position(is_section).unwrap_or(rest.len());
        let (values, after) = rest.split_at(length);
        words = after;
        if !is_section(section) {
            let message = format!("`{}` where `type` or `net` is expected", section.text);
            diagnostics.error(section.span, message).help(USAGE);
            return None;
        }
        if values.is_empty() {
            diagnostics.error(section.span, format!("nothing stands after `{}`", section.text)).help(USAGE);
            is_good = false;
        }
        let is_all = values.iter().any(|value| value.text == "*");
        if section.text.eq_ignore_ascii_case("type") {
            let read: Vec<_> =
                values.iter().filter(|value| value.text != "*").map(|value| qtype(value, diagnostics)).collect();
            is_good &= read.iter().all(Option::is_some);
            qtypes.get_or_insert_with(Listed::default).add(is_all, read.into_iter().flatten());
        } else {
            let read: Vec<_> =
                values.iter().filter(|value| value.text != "*").map(|value| network(value, diagnostics)).collect();
            is_good &= read.iter().all(Option::is_some);
            networks.get_or_insert_with(Listed::default).add(is_all, read.into_iter().flatten());
        }
    }
    let qtypes = qtypes.and_then(Listed::into_list);
    let sources = networks.and_then(Listed::into_list).map(Networks::new);
    is_good.then_some(AclPolicy { action, place: line.name.span, qtypes, sources })
}

/// What sections list: all, or these.
struct Listed<T> {
    is_all: bool,
    list: Vec<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { is_all: false, list: Vec::new() }
    }
}

impl<T> Listed<T> {
    fn add(&mut self, is_all: bool, list: impl Iterator<Item = T>) {
        self.is_all |= is_all;
        self.list.extend(list);
    }
    /// `None`: all.
    fn into_list(self) -> Option<Vec<T>> {
        (!self.is_all).then_some(self.list)
    }
}

fn is_section(word: &Token) -> bool {
    word.text.eq_ignore_ascii_case("type") || word.text.eq_ignore_ascii_case("net")
}

fn qtype(word: &Token, diagnostics: &mut Diagnostics) -> Option<RecordType> {
    let found = RecordType::from_mnemonic(&word.text);
    if found.is_none() {
        diagnostics
            .error(word.span, format!("`{}` is no record type", word.text))
            .help("write types such as `A` or `AAAA`, or `*` for all");
    }
    found
}

fn network(word: &Token, diagnostics: &mut Diagnostics) -> Option<(IpAddr, u8)> {
    let (address, prefix) =
        word.text.split_once('/').map_or((word.text.as_str(), None), |(address, bits)| (address, Some(bits)));
    let found = address.parse::<IpAddr>().ok().and_then(|address| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let is_number = |bits: &&str| bits.bytes().all(|octet| octet.is_ascii_digit());
        let prefix = match prefix {
            None => most,
            Some(bits) => Some(bits).filter(is_number)?.parse().ok().filter(|prefix: &u8| *prefix <= most)?,
        };
        Some((address, prefix))
    });
    if found.is_none() {
        diagnostics
            .error(word.span, format!("`{}` is no network", word.text))
            .help("write an address, or a network such as `10.0.0.0/8` or `2001:db8::/32`, or `*` for all");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::configure;

    #[test]
    fn every_form_of_the_reference_is_taken() {
        for text in [
            "acl {\n block type A net 192.168.0.0/16\n}",
            "acl example.org 10.0.0.0/8 {\n ALLOW net 192.0.2.1 2001:db8::1 type * TYPE aaaa\n drop\n}",
            "acl {\n filter type ANY net *\n}",
        ] {
            let (block, said) = configure(parse, text);
            assert_eq!((block.parts.len(), said.as_str()), (1, ""), "{text}");
        }
        assert_eq!(configure(parse, "acl {\n block\n}\nacl {\n allow\n}").0.parts.len(), 1);
        assert!(configure(parse, "acl").1.contains("warning: an `acl` without a policy"));
    }

    #[test]
    fn what_is_malformed_is_told_with_its_place_and_the_right_form() {
        for (text, place, expected) in [
            ("acl {\n blok net *\n}", "3:2", "did you mean `block`?"),
            ("acl {\n block A\n}", "3:8", "`A` where `type` or `net`"),
            ("acl {\n block type\n}", "3:8", "nothing stands after `type`"),
            ("acl {\n block type net *\n}", "3:8", "nothing stands after `type`"),
            ("acl {\n block type FOO\n}", "3:13", "`FOO` is no record type"),
            ("acl {\n block net 10.0.0.0/33\n}", "3:12", "`10.0.0.0/33` is no network"),
            ("acl {\n block net 10.0.0/8\n}", "3:12", "is no network"),
            ("acl {\n block net ::/129 \n}", "3:12", "is no network"),
            ("acl {\n block net 10.0.0.0/+8\n}", "3:12", "is no network"),
            ("acl a..b {\n block\n}", "2:5", "a..b"),
        ] {
            let said = configure(parse, text).1;
            assert!(said.contains(&format!("Corefile:{place}: error")) && said.contains(expected), "{text}: {said}");
        }
    }
}
