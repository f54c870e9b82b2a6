use super::*;
use crate::corefile::diagnostic::Diagnostic;
use crate::corefile::{Directive, FileId, Span, listen_address};
use proptest::prelude::*;

/// Text made of what the grammar knows, so that its corners are met.
fn corefile_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec!["{", "}", "\n", " ", "\"", "\\", "#", "\r\n", ",", "import", "(a)", "import a", "import f", "import g*", "import f x {args[0]}"]).prop_map(str::to_owned),
        2 => prop::sample::select(vec!["{$A}", "{%A%}", "{args[0]}", "{args.1}", ".:53", "a.org", "10.0.0.0/9", "2001:db8::/30", "dns://", "\u{feff}", "日本", "\t", "x{", "y}", "\\\n"]).prop_map(str::to_owned),
        1 => "\\PC{0,4}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn memory(file: &str) -> Memory {
    Memory::with(&[("/etc/f", file), ("/etc/g1", "whoami\n"), ("/etc/g2", file)]).set("A", "va lue")
}

fn assert_spans_point_inside(corefile: &Corefile, diagnostics: &Diagnostics) {
    let check = |span: Span| {
        let (_, text) = &corefile.sources.files[span.file.0 as usize];
        let line = text.split('\n').nth(span.line as usize - 1).expect("the line exists");
        assert!((span.column + span.length - 1) as usize <= line.chars().count(), "{span:?} in {line:?}");
    };
    fn check_options(options: &[OptionLine], check: &dyn Fn(Span)) {
        for option in options {
            std::iter::once(&option.name).chain(&option.arguments).for_each(|token| check(token.span));
            check_options(&option.block, check);
        }
    }
    for block in &corefile.blocks {
        block.keys.iter().for_each(|key| check(key.span));
        for directive in &block.directives {
            std::iter::once(&directive.keyword).chain(&directive.arguments).for_each(|token| check(token.span));
            check_options(&directive.options, &check);
        }
    }
    diagnostics.iter().filter_map(|diagnostic| diagnostic.span).for_each(check);
}

/// A word's text; a backslash cannot be written in quotes everywhere, so only words without need of quotes have one.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9_.:/-]{1,8}",
        "[a-z]\\\\[a-z]",
        "[a-z \\n\"{}#日é]{0,6}",
        prop::sample::select(vec!["{", "}", "import", "", " ", "{remote}"]).prop_map(str::to_owned),
    ]
}

fn made_token(text: String) -> Token {
    Token { text, span: Span { file: FileId(0), line: 1, column: 1, length: 0 } }
}

fn option_line() -> impl Strategy<Value = OptionLine> {
    let line = |block: BoxedStrategy<Vec<OptionLine>>| {
        (word(), prop::collection::vec(word(), 0..3), block).prop_map(|(name, arguments, block)| OptionLine {
            name: made_token(name),
            arguments: arguments.into_iter().map(made_token).collect(),
            block,
        })
    };
    line(Just(Vec::new()).boxed())
        .prop_recursive(3, 12, 3, move |inner| line(prop::collection::vec(inner, 0..3).boxed()))
}

fn print_word(text: &str, out: &mut String) {
    let is_plain =
        !text.is_empty() && !text.starts_with('"') && !text.contains(['#', '{', '}', ' ', '\n']) && text != "import";
    if is_plain {
        out.push_str(text);
    } else {
        *out += &format!("\"{}\"", text.replace('"', "\\\""));
    }
}

fn print_lines(lines: &[OptionLine], depth: usize, out: &mut String) {
    for line in lines {
        *out += &" ".repeat(depth);
        // A first word that looks like a key, before a block, would be taken for a server block.
        match line.name.text.contains(['.', ':', '/', '(']) {
            true => *out += &format!("\"{}\"", line.name.text.replace('"', "\\\"")),
            false => print_word(&line.name.text, out),
        }
        for argument in &line.arguments {
            out.push(' ');
            print_word(&argument.text, out);
        }
        if !line.block.is_empty() {
            out.push_str(" {\n");
            print_lines(&line.block, depth + 1, out);
            *out += &" ".repeat(depth);
            out.push('}');
        }
        out.push('\n');
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic_or_point_outside_the_source(
        text in prop_oneof![corefile_like(), any::<String>()], file in corefile_like()
    ) {
        let (corefile, diagnostics) = memory(&file).parse(&text);
        assert_spans_point_inside(&corefile, &diagnostics);
        let report = diagnostics.render(&corefile.sources);
        prop_assert_eq!(report.is_empty(), diagnostics.is_empty());
    }

    #[test]
    fn values_of_any_text_do_not_panic(text in prop_oneof!["[-+0-9.a-zµ:/\\[\\]]{0,12}", any::<String>()]) {
        use crate::corefile::value::*;
        use std::time::Duration;
        let (token, mut diagnostics) = (made_token(text), Diagnostics::default());
        let refused = [
            number(&token, "x", 0..=u64::MAX, &mut diagnostics).is_none(),
            duration(&token, "x", Duration::ZERO..=Duration::MAX, &mut diagnostics).is_none(),
            seconds_or_duration(&token, "x", Duration::ZERO..=Duration::MAX, &mut diagnostics).is_none(),
            zones(&token, &mut diagnostics).is_none(),
            listen_address(&token, &memory(""), &mut diagnostics).is_none(),
        ];
        let is_error = |diagnostic: &&Diagnostic| diagnostic.severity == Severity::Error;
        let errors = diagnostics.iter().filter(is_error).count();
        prop_assert_eq!(errors, refused.iter().filter(|refused| **refused).count());
    }

    #[test]
    fn a_printed_tree_parses_to_the_same_tree(
        blocks in prop::collection::vec((
            prop::collection::vec("[a-z]{1,5}(\\.[a-z]{1,5}){0,2}", 1..3),
            prop::option::of(any::<u16>()),
            prop::collection::vec(option_line(), 0..4),
        ), 0..4),
    ) {
        let (mut text, mut expected) = (String::new(), Vec::new());
        for (zones, port, lines) in blocks {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let keys: Vec<String> = zones.iter().map(|zone| format!("{zone}{port}")).collect();
            text += &format!("{} {{\n", keys.join(" "));
            print_lines(&lines, 1, &mut text);
            text += "}\n";
            let shown: Vec<String> = zones.iter().map(|zone| format!("dns://{zone}.{port}")).collect();
            let directives = lines
                .into_iter()
                .map(|OptionLine { name, arguments, block }| Directive { keyword: name, arguments, options: block });
            let body = show(&[ServerBlock { keys: Vec::new(), directives: directives.collect(), is_ignored: false }]);
            expected.push(shown.join(" ") + &body);
        }
        let (corefile, diagnostics) = Memory::default().parse(&text);
        prop_assert!(diagnostics.is_empty(), "{}\n{}", text, diagnostics.render(&corefile.sources));
        prop_assert_eq!(show(&corefile.blocks), expected.join("\n"), "{}", text);
    }
}
