use super::*;

#[test]
fn a_snippet_is_imported_into_blocks_and_options() {
    let text = "(common) {\n errors\n cache 30\n}\n(opts) {\n max_fails 3\n}\na {\n import common\n forward . x {\n  import opts\n  expire 5s\n }\n}\nb {\n import common\n}";
    assert_eq!(
        show(&tree(text)),
        "dns://a. [<errors>; <cache> <30>; <forward> <.> <x> { <max_fails> <3>; <expire> <5s> }]\ndns://b. [<errors>; <cache> <30>]"
    );
}

#[test]
fn a_snippet_may_hold_server_blocks_keys_and_other_imports() {
    assert_eq!(show(&tree("(s) {\n a {\n  whoami\n }\n}\nimport s\n")), "dns://a. [<whoami>]");
    assert_eq!(show(&tree("(k) {\n b c\n}\na,\nimport k\n{\n whoami\n}\n")), "dns://a. dns://b. dns://c. [<whoami>]");
    assert_eq!(
        show(&tree("(x) {\n errors\n}\n(y) {\n import x\n log\n}\na {\n import y\n whoami\n}")),
        "dns://a. [<errors>; <log>; <whoami>]"
    );
}

#[test]
fn an_import_may_follow_an_opening_brace_and_stand_before_a_closing_one() {
    assert_eq!(
        show(&tree("(x) { errors }\na { import x }\nb { import x\n whoami }")),
        "dns://a. [<errors>]\ndns://b. [<errors>; <whoami>]"
    );
}

#[test]
fn an_import_gives_arguments_to_a_snippet() {
    let text = "(up) {\n forward {args[0]} {args.1}:53 {\n  max_fails {args[2]}\n }\n}\n. {\n import up . 10.0.0.1 \"3\"\n import up a \"b c\" 4\n}";
    assert_eq!(
        show(&tree(text)),
        "dns://. [<forward> <.> <10.0.0.1:53> { <max_fails> <3> }; <forward> <a> <b c:53> { <max_fails> <4> }]"
    );
}

#[test]
fn arguments_pass_through_nested_imports() {
    let text = "(a) {\n x {args[0]}\n}\n(b) {\n import a {args[1]}\n}\n. {\n import b one two\n}";
    assert_eq!(show(&tree(text)), "dns://. [<x> <two>]");
}

#[test]
fn an_argument_that_the_import_does_not_give_is_an_error() {
    let report = report("(a) {\n x {args[1]}\n}\n. {\n import a one\n}");
    assert!(report.starts_with("/etc/Corefile:2:4: error: the import gives no argument 1\n"), "{report}");
}

#[test]
fn outside_of_imports_argument_placeholders_are_plain_text() {
    assert_eq!(show(&tree(". {\n log {args[0]}\n}")), "dns://. [<log> <{args[0]}>]");
}

#[test]
fn files_are_imported_relative_to_the_file_that_imports_them() {
    let memory = Memory::with(&[
        ("/etc/sub/a", "a {\n import b\n}\n"),
        ("/etc/sub/b", "whoami\nimport ../c"),
        ("/etc/sub/../c", "errors"),
        ("/abs", "x {\n}"),
    ]);
    assert_eq!(
        show(&memory.tree("import sub/a\nimport /abs\nz {\n}")),
        "dns://a. [<whoami>; <errors>]\ndns://x. []\ndns://z. []"
    );
}

#[test]
fn tokens_of_imported_files_keep_their_places_there() {
    let memory = Memory::with(&[("/etc/a", "\n whoami x")]);
    let (corefile, _) = memory.parse(". {\n import a\n}");
    let span = corefile.blocks[0].directives[0].keyword.span;
    assert_eq!((span.line, span.column), (2, 2));
    assert_eq!(corefile.sources.files[span.file.0 as usize].0, Path::new("/etc/a"));
}

#[test]
fn the_end_of_an_imported_file_ends_the_line() {
    let memory = Memory::with(&[("/etc/a", "forward . x")]);
    assert_eq!(show(&memory.tree(". {\n import a\n whoami\n}")), "dns://. [<forward> <.> <x>; <whoami>]");
    assert_eq!(show(&memory.tree(". { import a }")), "dns://. [<forward> <.> <x>]");
}

#[test]
fn a_glob_imports_its_matches_in_order_and_may_match_nothing() {
    let memory = Memory::with(&[("/etc/d/2.conf", "b {\n}"), ("/etc/d/1.conf", "a {\n}"), ("/etc/d/x.other", "(((")]);
    assert_eq!(
        show(&memory.tree("import d/*.conf\nimport none/*.conf\nz {\n}")),
        "dns://a. []\ndns://b. []\ndns://z. []"
    );
    assert_eq!(show(&memory.tree("import d/?.conf")), "dns://a. []\ndns://b. []");
}

#[test]
fn a_folder_with_wildcard_characters_in_its_name_is_taken_literally() {
    let mut memory = Memory::with(&[("/etc/[x]/a.conf", "a {\n}"), ("/etc/x/b.conf", "b {\n}")]);
    memory.files.insert("/etc/[x]/main".into(), "import *.conf\n".into());
    let (corefile, diagnostics) = crate::corefile::parse(Path::new("/etc/[x]/main"), "import *.conf\n", &memory);
    assert!(diagnostics.is_empty());
    assert_eq!(show(&corefile.blocks), "dns://a. []");
}

#[test]
fn a_pattern_that_could_take_for_ever_is_refused() {
    for pattern in ["*/*", "??", "[a]"] {
        assert!(report(&format!("import {pattern}")).contains("is not simple enough"), "{pattern}");
    }
}

#[test]
fn a_file_imported_twice_is_one_source() {
    let memory = Memory::with(&[("/etc/a", "whoami")]);
    let (corefile, diagnostics) = memory.parse("x {\n import a\n}\ny {\n import a\n import ./a\n}");
    assert!(diagnostics.is_empty());
    assert_eq!(corefile.sources.files.len(), 2);
}

#[test]
fn a_snippet_goes_before_a_file_of_the_same_name_and_serves_later_files() {
    let memory = Memory::with(&[("/etc/a", "wrong"), ("/etc/b", "import a"), ("/etc/c", "(d) {\n log\n}")]);
    assert_eq!(
        show(&memory.tree("(a) {\n right\n}\nimport c\n. {\n import b\n import d\n}")),
        "dns://. [<right>; <log>]"
    );
}

#[test]
fn the_name_of_an_import_may_come_from_the_environment() {
    let memory = Memory::with(&[("/etc/a", "whoami")]).set("FILE", "a");
    assert_eq!(show(&memory.tree(". {\n import {$FILE}\n}")), "dns://. [<whoami>]");
}

#[test]
fn a_missing_file_is_named_and_reading_goes_on() {
    let (corefile, diagnostics) = Memory::default().parse("import no-such-file\n. {\n import other-file\n whoami\n}");
    let report = diagnostics.render(&corefile.sources);
    assert!(report.contains("/etc/Corefile:1:8: error: no snippet or file to import: `no-such-file`"), "{report}");
    assert!(report.contains("there is no file `/etc/no-such-file`"), "{report}");
    assert!(report.contains("/etc/Corefile:3:9: error: no snippet or file to import: `other-file`"), "{report}");
    assert_eq!(show(&corefile.blocks), "dns://. [<whoami>]");
}

#[test]
fn a_misspelt_or_misplaced_snippet_is_recognised() {
    assert!(report("(common) {\n}\n. {\n import comon\n}").contains("did you mean the snippet `common`?"));
    assert!(report(". {\n import later\n}\n(later) {\n}").contains("move it above this line"));
}

#[test]
fn an_import_cycle_of_snippets_or_files_is_refused_with_its_steps() {
    assert!(report("(a) {\n import a\n}\n. {\n import a\n}").contains("(a) -> (a)"));
    let memory = Memory::with(&[("/etc/x", "import y"), ("/etc/y", "whoami\nimport x"), ("/etc/z", "import Corefile")]);
    let text = ". {\n import x\n}";
    let report = memory.report(text);
    assert!(report.starts_with("/etc/y:2:8: error: `x` imports itself"), "{report}");
    assert!(report.contains("/etc/x -> /etc/y -> /etc/x"), "{report}");
    let mut memory = memory;
    memory.files.insert("/etc/Corefile".into(), "import z".into());
    assert!(memory.report("import z").contains("/etc/Corefile -> /etc/z -> /etc/Corefile"));
}

#[test]
fn files_matched_by_one_glob_may_import_each_other() {
    let memory = Memory::with(&[("/etc/d/a", "import b"), ("/etc/d/b", "whoami")]);
    assert_eq!(show(&memory.tree(". {\n import d/*\n}")), "dns://. [<whoami>; <whoami>]");
}

#[test]
fn snippets_that_grow_exponentially_are_stopped() {
    let mut text = "(s0) {\n word\n}\n".to_owned();
    for level in 1..40 {
        text += &format!("(s{level}) {{\n import s{}\n import s{}\n}}\n", level - 1, level - 1);
    }
    let report = report(&format!("{text}. {{\n import s39\n}}"));
    assert!(report.contains("imports were followed"), "{report}");
    assert_eq!(report.matches("error").count(), 1, "{report}");
}

#[test]
fn imports_nested_too_deep_are_refused() {
    let mut text = "(s0) {\n word\n}\n".to_owned();
    for level in 1..=60 {
        text += &format!("(s{level}) {{\n import s{}\n}}\n", level - 1);
    }
    assert!(report(&format!("{text}. {{\n import s60\n}}")).contains("nested more than 50 deep"));
    assert!(report(&format!("{text}. {{\n import s49\n}}")).is_empty());
}

#[test]
fn a_large_snippet_imported_often_is_stopped_by_the_bound_of_words() {
    let text = format!("(s) {{\n{}\n}}\n. {{\n{}}}", " word word word\n".repeat(1000), " import s\n".repeat(1000));
    assert!(report(&text).contains("more than 250000 words"));
}

#[test]
fn an_import_without_a_name_or_with_a_block_is_refused() {
    assert!(report("import").contains("1:1: error: `import` names nothing"));
    assert!(report(". {\n import \"\"\n}").contains("`import` names nothing"));
    assert!(report("(a) {\n}\n. {\n import a {\n x\n }\n whoami\n}").contains("4:11: error: `import` takes no block"));
}

#[test]
fn an_argument_for_what_takes_none_is_refused_as_the_reference_does() {
    let report = report("(a) {\n errors\n}\n(b) {\n log\n}\n. {\n import a b\n}");
    assert!(report.starts_with("/etc/Corefile:8:11: error: `a` takes no argument\n"), "{report}");
}
