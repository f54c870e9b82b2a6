use super::*;
use crate::corefile::nearest;

/// The first lines of the report, without the path.
fn heads(text: &str) -> Vec<String> {
    report(text).lines().filter_map(|line| line.strip_prefix("/etc/Corefile:").map(str::to_owned)).collect()
}

#[test]
fn an_error_shows_place_line_caret_and_help() {
    assert_eq!(
        report(".:99999 {\n whoami\n}\n"),
        "/etc/Corefile:1:1: error: `99999` is not a port: it must be a number between 0 and 65535\n 1 | .:99999 {\n   | ^^^^^^^\n   = help: a key is written `zone:port`, for example `.:53`\n"
    );
}

#[test]
fn all_errors_of_a_file_are_told_at_once_in_order() {
    let text = "a:x {\n import nope\n}\n}\nb. {\n {\n }\n whoami\n}\nc..d {\n}\ne:99999 {\n}\n";
    let heads = heads(text);
    let places: Vec<&str> = heads.iter().map(|head| head.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["1:1", "2:9", "4:1", "6:2", "10:1", "12:1"], "{heads:#?}");
}

#[test]
fn an_unclosed_block_points_at_its_opening() {
    assert_eq!(heads(".:53 {\n whoami\n"), ["1:6: error: this block is never closed"]);
    assert_eq!(
        heads(". {\n forward . x {\n max_fails 1\n"),
        ["1:3: error: this block is never closed", "2:14: error: this block is never closed"]
    );
    assert_eq!(heads("(a) {\n whoami\n"), ["1:5: error: this block is never closed"]);
}

#[test]
fn a_missing_brace_is_sought_where_the_indentation_does_not_fit() {
    let report = report(".:53 {\n  forward . x {\n    max_fails 3\n}\na.org {\n  whoami\n}\n");
    assert!(report.starts_with("/etc/Corefile:1:6: error: this block is never closed\n"), "{report}");
    assert!(report.contains("the one on line 4 closes `forward` of line 2, though it is indented less"), "{report}");
    assert_eq!(report.matches("error").count(), 1, "{report}");
}

#[test]
fn a_server_block_inside_another_means_a_missing_brace_before_it() {
    let (corefile, diagnostics) = Memory::default().parse(".:53 {\n  whoami\n\na.org {\n  errors\n}\n");
    let report = diagnostics.render(&corefile.sources);
    assert!(report.contains("1:6: error: this block is never closed"), "{report}");
    assert!(report.contains("put a `}` before line 4"), "{report}");
    assert_eq!(show(&corefile.blocks), "dns://.:53 [<whoami>]\ndns://a.org. [<errors>]");
}

#[test]
fn keys_on_two_lines_without_a_comma_are_explained() {
    assert!(
        report("a.org\nb.org {\n whoami\n}\n").contains("2:1: error: a server block cannot follow one without braces")
    );
}

#[test]
fn a_brace_without_a_space_before_it_is_told_and_taken_as_meant() {
    let (corefile, diagnostics) = Memory::default().parse(".:53 {\n forward . x{\n  max_fails 3}\n}\n");
    assert_eq!(show(&corefile.blocks), "dns://.:53 [<forward> <.> <x> { <max_fails> <3> }]");
    assert_eq!(diagnostics.len(), 2);
    assert!(
        diagnostics
            .render(&corefile.sources)
            .starts_with("/etc/Corefile:2:12: error: a space is missing before the brace in `x{`")
    );
}

#[test]
fn a_brace_glued_to_a_key_is_part_of_its_name_as_in_the_reference() {
    for (key, zone) in [("a.org{", "a.org{."), ("a.org:53{", "a.org:53{."), ("b a.org{", "a.org{.")] {
        let (corefile, diagnostics) =
            Memory::default().parse(&format!("{key}\n forward . x {{\n  max_fails 3\n }}\n}}\nc {{\n whoami\n}}\n"));
        let report = diagnostics.render(&corefile.sources);
        assert!(!diagnostics.has_errors() && diagnostics.len() == 1, "{report}");
        assert!(
            report.contains("the brace is read as part of the zone's name") && report.contains("put a space before it"),
            "{report}"
        );
        let zones: Vec<String> = corefile.blocks[0].keys.iter().map(|key| key.zone.to_string()).collect();
        assert_eq!((zones.last(), corefile.blocks.len()), (Some(&zone.to_owned()), 2));
    }
    let report = report(".:53{\n whoami\n}\n");
    assert!(report.contains("1:1: error: `.:53{` is not a domain name") && report.contains("`.:53 {`"), "{report}");
}

#[test]
fn stray_closing_braces_are_errors_but_at_the_end_and_after_a_block_without_braces() {
    assert_eq!(heads(". {\n}\n}\n"), ["3:1: warning: this brace closes nothing and is ignored"]);
    assert_eq!(heads(". {\n}\n}\na {\n}\n"), ["3:1: error: this brace closes nothing"]);
    assert_eq!(heads(".\nwhoami\n}\n"), ["3:1: warning: this brace closes a block that none opened"]);
}

#[test]
fn an_opening_brace_on_its_own_line_is_refused_for_directives() {
    let (corefile, diagnostics) = Memory::default().parse(". {\n forward . x\n {\n  max_fails 3\n }\n}");
    assert_eq!(show(&corefile.blocks), "dns://. [<forward> <.> <x> { <max_fails> <3> }]");
    assert!(diagnostics.render(&corefile.sources).contains("3:2: error: the brace that opens the block of `forward`"));
}

#[test]
fn words_after_a_closing_brace_are_refused() {
    assert_eq!(
        heads(". {\n cache {\n } errors x\n whoami\n}"),
        ["3:4: error: something follows the brace that closes a block"]
    );
}

#[test]
fn a_block_without_a_key_is_ignored_and_one_without_a_name_refused() {
    for text in ["{\n whoami\n}", "\"\" {\n whoami\n}"] {
        assert_eq!(heads(text), ["1:1: warning: a server block without a key serves nothing and is ignored"]);
        assert!(Memory::default().parse(text).0.blocks[0].is_ignored);
    }
    assert!(!tree("\"\" a {\n}")[0].is_ignored);
    assert_eq!(heads(". {\n cache {\n  {\n  }\n }\n}"), ["3:3: error: a block without a name before it"]);
}

#[test]
fn an_unclosed_quote_is_told_and_reading_goes_on_after_its_line() {
    let (corefile, diagnostics) = Memory::default().parse(". {\n log \"a b\n whoami\n}");
    assert_eq!(show(&corefile.blocks), "dns://. [<log> <a b>; <whoami>]");
    assert!(
        diagnostics
            .render(&corefile.sources)
            .starts_with("/etc/Corefile:2:6: error: this quote is never closed\n 2 |  log \"a b\n   |      ^^^^\n")
    );
}

#[test]
fn a_trailing_comma_wants_another_key() {
    assert_eq!(heads("a, {\n}"), ["1:1: error: no key follows this comma"]);
    assert_eq!(heads("a,"), ["1:1: error: no key follows this comma"]);
}

#[test]
fn keys_that_are_no_zones_are_told() {
    for (key, says) in [
        (":53", "a zone is missing before `:53`"),
        (".:", "a port is missing after the colon"),
        (".:-1", "`-1` is not a port"),
        (".:65536", "`65536` is not a port"),
        ("a..b", "is not a domain name"),
        ("dns://", "a zone is missing"),
    ] {
        let report = report(&format!("{key} {{\n}}"));
        assert!(report.starts_with("/etc/Corefile:1:1: error: ") && report.contains(says), "{key}: {report}");
    }
    assert!(report(&format!("{} {{\n}}", "a".repeat(64))).contains("is not a domain name"));
}

#[test]
fn what_is_no_scheme_port_or_cidr_belongs_to_the_name_as_in_the_reference() {
    for (key, zone, says) in [
        ("a:b", "dns://a:b.", "a port is a number"),
        ("2001:db8::1", "dns://2001:db8:.:1", "2001:db8::1/128"),
        ("10.0.0.0/33", "dns://10.0.0.0/33.", "a CIDR is"),
        ("2001:db8::/129", "dns://2001:db8::/129.", "a CIDR is"),
        ("htps://a", "dns://htps://a.", "did you mean `https://`?"),
        ("DNS://.:53", "dns://dns://.:53", "did you mean `dns://`?"),
        ("foo://a", "dns://foo://a.", "`foo` is no scheme"),
    ] {
        let (corefile, diagnostics) = Memory::default().parse(&format!("{key} {{\n}}"));
        let report = diagnostics.render(&corefile.sources);
        assert!(report.starts_with("/etc/Corefile:1:1: warning: ") && report.contains(says), "{key}: {report}");
        assert_eq!(show(&corefile.blocks), format!("{zone} []"), "{key}");
    }
}

#[test]
fn what_the_reference_does_not_take_is_told_apart() {
    assert_eq!(Memory::default().not_portable(". {\n forward . a \\\n b\n}"), [(2, 14)]);
    assert_eq!(Memory::default().not_portable("(s) {\n x {args[0]}\n}\n. {\n import s a\n}"), [(5, 11)]);
    assert!(Memory::default().not_portable("(s) {\n whoami\n}\n. {\n import s\n}").is_empty());
}

#[test]
fn an_address_as_zone_is_doubtful() {
    let (_, diagnostics) = Memory::default().parse("10.0.0.1 {\n}");
    assert!(!diagnostics.has_errors() && diagnostics.len() == 1);
}

#[test]
fn snippets_are_named_once_and_have_a_block() {
    assert!(report("(a) {\n}\n(a) {\n}").contains("3:1: error: the snippet `a` is defined twice"));
    assert!(report("(a)\n").contains("1:1: error: the snippet (a) has no block"));
    assert!(report("() {\n}").contains("1:1: error: a snippet without a name"));
}

#[test]
fn blocks_nested_too_deep_are_refused() {
    let text = format!(". {{\n{}{}}}", "x {\n".repeat(50_000), "}\n".repeat(50_000));
    assert!(heads(&text).iter().any(|head| head.contains("blocks are nested more than 32 deep")));
}

#[test]
fn a_flood_of_errors_ends() {
    let count = report(&"}\n".repeat(100_000)).matches("error:").count();
    assert!(count < 1100, "{count}");
}

#[test]
fn a_flood_of_reverse_zones_ends() {
    assert!(report(&format!("{} {{\n}}", "10.0.0.0/9,".repeat(10_000))).contains("words"));
}

#[test]
fn a_huge_text_is_refused() {
    assert!(report(&"# comment\n".repeat(2_000_000)).contains("have more than 16777216 octets"));
}

#[test]
fn the_caret_stands_under_the_token_whatever_the_characters_before_it() {
    let report = report(". {\n\tx 日本 é \"y z\" {\n\t}\n}\n} 日本 }");
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines[1..3], [" 5 | } 日本 }", "   | ^"], "{report}");
    let mut diagnostics = Diagnostics::default();
    let (corefile, _) = Memory::default().parse(". {\n\tx 日本 é \"y z\"\n}");
    diagnostics.error(corefile.blocks[0].directives[0].arguments[2].span, "here");
    assert_eq!(
        diagnostics.render(&corefile.sources),
        "/etc/Corefile:2:9: error: here\n 2 | \tx 日本 é \"y z\"\n   | \t         ^^^^^\n"
    );
}

#[test]
fn a_long_line_is_cut_around_the_token() {
    let report = report(&format!(". {{\n {} \"\n}}", "word ".repeat(1000)));
    assert!(report.lines().all(|line| line.chars().count() < 200), "{report}");
    assert!(report.lines().nth(2).unwrap().trim_end().ends_with('^'), "{report}");
}

#[test]
fn control_characters_of_the_source_do_not_reach_the_terminal() {
    let report = report("\u{1b}[31m:x\u{202e} {\n}");
    assert!(!report.contains(['\u{1b}', '\u{202e}']), "{report:?}");
}

#[test]
fn the_same_error_in_a_snippet_imported_twice_is_told_once() {
    let report = report("(a) {\n x {args[0]}\n}\n. {\n import a\n import a\n}");
    assert_eq!(report.matches("error").count(), 1, "{report}");
}

#[test]
fn a_report_of_very_many_errors_ends_after_a_thousand() {
    let (corefile, mut diagnostics) = Memory::default().parse("a b");
    for number in 0..5_000 {
        diagnostics.error_without_span(format!("wrong {number}"));
    }
    let report = diagnostics.render(&corefile.sources);
    assert_eq!(report.matches("error: ").count(), 1_000);
    assert!(report.ends_with("these are the first 1000\n"), "{report}");
}

#[test]
fn errors_of_imported_files_name_that_file() {
    let memory = Memory::with(&[("/etc/a", "whoami\n}\n")]);
    let report = memory.report(". {\n import a\n}\n");
    assert!(report.contains("/etc/Corefile:3:1: warning: this brace closes nothing"), "{report}");
    let memory = Memory::with(&[("/etc/a", "forward . x {\n")]);
    assert!(memory.report(". {\n import a\n}\n").contains("error: this block is never closed"));
}

#[test]
fn what_concerns_no_place_comes_first_and_names_the_corefile() {
    let (corefile, mut diagnostics) = Memory::default().parse("}");
    diagnostics.error_without_span("nothing to serve").help("add a block");
    assert!(
        diagnostics
            .render(&corefile.sources)
            .starts_with("/etc/Corefile: error: nothing to serve\n   = help: add a block\n/etc/Corefile:1:1: warning")
    );
}

#[test]
fn the_nearest_word_is_found_only_if_it_is_near() {
    let words = ["forward", "cache", "errors", "log", "loop"];
    assert_eq!(nearest("foward", words), Some("forward"));
    assert_eq!(nearest("CACHE", words), Some("cache"));
    assert_eq!(nearest("erorrs", words), Some("errors"));
    assert_eq!(nearest("kubernetes", words), None);
    assert_eq!(nearest("x", words), None);
    assert_eq!(nearest("", words), None);
    assert_eq!(nearest(&"x".repeat(1_000_000), words), None);
}
