//! `template CLASS TYPE [ZONES...] { match…; answer…; additional…; authority…; rcode…; ederror…; fallthrough…;
//! upstream }`

use super::data::FIELDS;
use super::rule::{MakeError, RecordTemplate, TemplateRule};
use super::{KEYWORD, TemplateHandler, data::QueryData};
use crate::chain::{BlockConfig, ParseContext, Part};
use crate::corefile::{Diagnostics, Directive, OptionLine, Severity, Token, nearest, value};
use crate::go_regex::{Patterns, Regex};
use crate::go_template::{self, Value};
use crate::message::{Class, ExtendedError, LowerName, Name, Rcode, RecordType, Section};
use std::any::Any;
use std::sync::Arc;

const USAGE: &str = "write `template CLASS TYPE [ZONES...] { … }`, such as `template IN AAAA . { rcode NOERROR }`";
const OPTIONS: [&str; 8] =
    ["match", "answer", "additional", "authority", "rcode", "ederror", "fallthrough", "upstream"];

/// Reads one `template` of a server block. All of a block make one part.
pub(crate) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let Some(mut rule) = parse_rule(directive, context) else { return };
    rule.prepare();
    match block.parts.iter_mut().find_map(|part| <dyn Any>::downcast_mut::<TemplateHandler>(&mut *part.configured)) {
        Some(template) => template.rules.push(Arc::new(rule)),
        None => {
            let configured = Box::new(TemplateHandler { rules: vec![Arc::new(rule)] });
            block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured });
        }
    }
}

fn parse_rule(directive: &Directive, context: &mut ParseContext<'_>) -> Option<TemplateRule> {
    let diagnostics = &mut *context.diagnostics;
    let [class, rtype, zones @ ..] = directive.arguments.as_slice() else {
        diagnostics.error(directive.keyword.span, "template needs a class and a type").help(USAGE);
        return None;
    };
    let class = parse_class(class, diagnostics);
    let rtype = parse_type(rtype, diagnostics);
    let zones = match zones {
        [] => context.zones.iter().map(Name::to_lower).collect(),
        zones => parse_zones(zones, diagnostics),
    };
    let mut rule = TemplateRule {
        place: directive.keyword.span,
        class: class?,
        rtype: rtype?,
        zones,
        patterns: Vec::new(),
        rcode: Rcode::NOERROR,
        records: Vec::new(),
        extended_error: None,
        falls_through: Vec::new(),
        ready: Vec::new(),
    };
    for line in &directive.options {
        match line.name.text.as_str() {
            "match" => rule.patterns.extend(parse_patterns(line, context.patterns, diagnostics)),
            "answer" => rule.records.extend(parse_records(line, Section::Answer, &rule, diagnostics)),
            "additional" => rule.records.extend(parse_records(line, Section::Additional, &rule, diagnostics)),
            "authority" => rule.records.extend(parse_records(line, Section::Authority, &rule, diagnostics)),
            "rcode" => rule.rcode = parse_rcode(line, diagnostics).unwrap_or(rule.rcode),
            "ederror" => rule.extended_error = parse_extended_error(line, diagnostics).map(Arc::new),
            "fallthrough" if line.arguments.is_empty() => rule.falls_through = vec![Name::root().to_lower()],
            "fallthrough" => rule.falls_through = parse_zones(&line.arguments, diagnostics),
            "upstream" => {
                diagnostics
                    .warning(
                        line.name.span,
                        "upstream has no effect: targets of CNAME records are asked of this server anyway",
                    )
                    .help("take the line away");
            }
            "var" | "expr" => {
                diagnostics
                    .error(
                        line.name.span,
                        format!("`{}` came to the reference after 1.14.7, and is not known here", line.name.text),
                    )
                    .help("write the condition into `match`, or into the template with `if`");
            }
            _ => value::unknown_option(line, KEYWORD, &OPTIONS, diagnostics),
        }
    }
    // The order of sections counts for what is made first: answers, then additional records, then authorities.
    rule.records.sort_by_key(|record| match record.section {
        Section::Answer => 0,
        Section::Additional => 1,
        Section::Authority => 2,
    });
    let says_what = |line: &OptionLine| {
        matches!(line.name.text.as_str(), "answer" | "additional" | "authority" | "rcode" | "ederror")
    };
    if !directive.options.iter().any(says_what) {
        let span = directive.keyword.span;
        diagnostics
            .warning(
                span,
                "this template answers every query that it is for with no records: it has neither `answer` nor `rcode`",
            )
            .help("write `rcode NOERROR` if that is what you want, or an `answer`");
    }
    Some(rule)
}

fn parse_class(token: &Token, diagnostics: &mut Diagnostics) -> Option<Class> {
    let class = Class::from_mnemonic(&token.text);
    match class.filter(|class| class.to_string() == token.text) {
        Some(class) => Some(class),
        None => {
            let help = class.map_or_else(
                || "classes are IN, CS, CH, HS, NONE and ANY".to_owned(),
                |class| format!("write `{class}`"),
            );
            diagnostics.error(token.span, format!("`{}` is no class", token.text)).help(help);
            None
        }
    }
}

fn parse_type(token: &Token, diagnostics: &mut Diagnostics) -> Option<RecordType> {
    let rtype = RecordType::from_mnemonic(&token.text);
    match rtype.filter(|rtype| rtype.to_string() == token.text) {
        Some(rtype) => Some(rtype),
        None => {
            let help = rtype.map_or_else(
                || "write the type's name in capitals, such as `A`, `AAAA`, `PTR`, or `ANY` for all".to_owned(),
                |rtype| format!("write `{rtype}`"),
            );
            diagnostics.error(token.span, format!("`{}` is no record type", token.text)).help(help);
            None
        }
    }
}

/// Zones; one that is no name is in no query either, so the reference starts with it, and it is only told.
fn parse_zones(tokens: &[Token], diagnostics: &mut Diagnostics) -> Vec<LowerName> {
    let mut zones = Vec::new();
    for token in tokens {
        let mut found = Diagnostics::default();
        zones.extend(value::zones(token, &mut found).unwrap_or_default().iter().map(Name::to_lower));
        for diagnostic in found.iter() {
            let mut diagnostic = diagnostic.clone();
            if diagnostic.severity == Severity::Error {
                diagnostic.severity = Severity::Warning;
                diagnostic.message.push_str("; no query is for it");
            }
            diagnostics.push(diagnostic);
        }
    }
    zones
}

fn parse_patterns(line: &OptionLine, patterns: &Patterns, diagnostics: &mut Diagnostics) -> Vec<Regex> {
    if line.arguments.is_empty() {
        diagnostics
            .error(line.name.span, "match needs at least one regular expression")
            .help("write `match REGEX...`, such as `match \"^ip-([0-9]+)[.]example[.]$\"`");
    }
    let compiled = line.arguments.iter().filter_map(|token| match patterns.compile(&token.text) {
        Ok(regex) => Some(regex),
        Err(error) => {
            diagnostics
                .error(token.span, format!("this is no regular expression, {error}"))
                .help("write it as for RE2; names are matched in lower case and with their final dot");
            None
        }
    });
    compiled.collect()
}

fn parse_records(
    line: &OptionLine,
    section: Section,
    rule: &TemplateRule,
    diagnostics: &mut Diagnostics,
) -> Vec<RecordTemplate> {
    if line.arguments.is_empty() {
        let name = &line.name.text;
        diagnostics
            .error(line.name.span, format!("{name} needs at least one record"))
            .help(format!("write `{name} \"{{{{ .Name }}}} 60 IN A 192.0.2.1\"`"));
    }
    line.arguments.iter().filter_map(|token| parse_record(token, section, rule, diagnostics)).collect()
}

fn parse_record(
    token: &Token,
    section: Section,
    rule: &TemplateRule,
    diagnostics: &mut Diagnostics,
) -> Option<RecordTemplate> {
    let template = match go_template::Template::parse(&token.text) {
        Ok(template) => template,
        Err(error) => {
            diagnostics
                .error(token.span, format!("this is no template, {error}"))
                .help("write a record with Go's text/template, such as \"{{ .Name }} 60 IN A 192.0.2.1\"");
            return None;
        }
    };
    let mut has_unknown = false;
    for (at, field) in template.root_fields().filter(|(_, field)| !FIELDS.contains(field)) {
        has_unknown = true;
        let help = match nearest(field, FIELDS) {
            Some(near) => format!("did you mean `.{near}`?"),
            None => format!("there are .{}", FIELDS.join(", .")),
        };
        let message = format!("there is no field `.{field}` (octet {}), so its queries are answered SERVFAIL", at + 1);
        diagnostics.warning(token.span, message).help(help);
    }
    let record = RecordTemplate { section, source: token.text.clone(), template };
    if !has_unknown && record.template.depends_on_none_but(&["Zone"]) {
        warn_of_failure(token, &record, rule, diagnostics);
    }
    Some(record)
}

/// What is the same for every query is tried: if it fails, it fails for all.
fn warn_of_failure(token: &Token, record: &RecordTemplate, rule: &TemplateRule, diagnostics: &mut Diagnostics) {
    let Some(zone) = rule.zones.first() else { return };
    let data = QueryData::of_zone(zone.to_string(), "IN", "A");
    let Err(error) = record.make(Value::Object(Arc::new(data))) else { return };
    let help = match error {
        MakeError::Template(_) => "mend the template; what it is given is in the directive's README",
        MakeError::Record { .. } => "write `NAME TTL CLASS TYPE DATA`, such as \"{{ .Name }} 60 IN A 192.0.2.1\"",
    };
    diagnostics.warning(token.span, format!("its queries are answered SERVFAIL: {error}")).help(help);
}

fn parse_rcode(line: &OptionLine, diagnostics: &mut Diagnostics) -> Option<Rcode> {
    let [token] = value::exactly(&line.name, &line.arguments, "rcode NXDOMAIN", diagnostics)?;
    let rcode = Rcode::from_mnemonic(&token.text);
    match rcode.filter(|_| token.text == token.text.to_ascii_uppercase()) {
        Some(rcode) => Some(rcode),
        None => {
            let help = rcode.map_or_else(
                || "write `NOERROR`, `NXDOMAIN`, `REFUSED`, `SERVFAIL` or another code by its name".to_owned(),
                |rcode| format!("write `{rcode}`"),
            );
            diagnostics.error(token.span, format!("`{}` is no response code", token.text)).help(help);
            None
        }
    }
}

fn parse_extended_error(line: &OptionLine, diagnostics: &mut Diagnostics) -> Option<ExtendedError> {
    const USAGE: &str = "write `ederror CODE [REASON]`, such as `ederror 15 \"blocked\"`; RFC 8914 has the codes";
    let (code, text) = match line.arguments.as_slice() {
        [code] => (code, ""),
        [code, text] => (code, text.text.as_str()),
        [] => {
            diagnostics.error(line.name.span, "ederror needs a code").help(USAGE);
            return None;
        }
        [_, _, extra, ..] => {
            diagnostics.error(extra.span, "ederror takes a code and one text").help(USAGE);
            return None;
        }
    };
    let code = value::number(code, "the code of an extended error", 0..=u64::from(u16::MAX), diagnostics)?;
    Some(ExtendedError { code: u16::try_from(code).unwrap_or(u16::MAX), text: text.to_owned() })
}
