use super::*;

#[test]
fn an_empty_corefile_has_no_blocks() {
    for text in ["", "\n\n", "# only a comment", "\u{feff}", " \t\r\n"] {
        assert!(tree(text).is_empty(), "{text:?}");
    }
}

#[test]
fn a_block_has_keys_directives_arguments_and_options() {
    let text = ".:53 {\n  errors\n  forward . 10.0.0.1 10.0.0.2 {\n    force_tcp\n    max_fails 3\n  }\n}\n";
    assert_eq!(
        show(&tree(text)),
        "dns://.:53 [<errors>; <forward> <.> <10.0.0.1> <10.0.0.2> { <force_tcp>; <max_fails> <3> }]"
    );
}

#[test]
fn the_node_local_corefile_of_kubernetes_parses() {
    let text = "cluster.local:53 {\n    errors\n    cache {\n            success 9984 30\n            denial 9984 5\n    }\n    reload\n    loop\n    bind 169.254.20.10 10.0.0.10\n    forward . __PILLAR__CLUSTER__DNS__ {\n            force_tcp\n    }\n    prometheus :9253\n    health 169.254.20.10:8080\n    }\nin-addr.arpa:53 {\n    errors\n    cache 30\n    }\n";
    let blocks = tree(text);
    assert_eq!(blocks.len(), 2);
    assert_eq!(blocks[0].directives.len(), 8);
    assert_eq!(blocks[1].directives.len(), 2);
}

#[test]
fn a_block_without_braces_holds_the_rest_of_the_file() {
    assert_eq!(
        show(&tree(".:53\nerrors\nforward . 10.0.0.1 {\n max_fails 2\n}\nwhoami")),
        "dns://.:53 [<errors>; <forward> <.> <10.0.0.1> { <max_fails> <2> }; <whoami>]"
    );
}

#[test]
fn a_key_alone_is_a_block_without_directives() {
    assert_eq!(show(&tree("example.org")), "dns://example.org. []");
}

#[test]
fn the_brace_of_a_server_block_may_stand_on_the_next_line() {
    assert_eq!(show(&tree(".:53\n{\n whoami\n}\n")), "dns://.:53 [<whoami>]");
}

#[test]
fn blocks_may_be_written_on_one_line() {
    assert_eq!(show(&tree(". { whoami }")), "dns://. [<whoami>]");
    assert_eq!(
        show(&tree(". {\n forward . ::1 { max_fails 3 }\n}")),
        "dns://. [<forward> <.> <::1> { <max_fails> <3> }]"
    );
    assert_eq!(show(&tree("a {\n whoami\n} b {\n errors\n}")), "dns://a. [<whoami>]\ndns://b. [<errors>]");
}

#[test]
fn an_empty_option_block_is_no_options() {
    assert_eq!(show(&tree(". {\n cache {\n }\n errors { }\n}")), "dns://. [<cache>; <errors>]");
}

#[test]
fn option_blocks_nest() {
    assert_eq!(
        show(&tree(". {\n a {\n  b c {\n   d e\n  }\n  f\n }\n}")),
        "dns://. [<a> { <b> <c> { <d> <e> }; <f> }]"
    );
}

#[test]
fn keys_are_separated_by_blanks_commas_and_lines_after_commas() {
    let expected = "dns://a. dns://b.:54 dns://c. [<whoami>]";
    for keys in ["a b:54 c", "a, b:54, c", "a,b:54,c", "a,\nb:54,\n  c", "a , b:54 c", "a,\n\n# between\nb:54, c"] {
        assert_eq!(show(&tree(&format!("{keys} {{\n whoami\n}}"))), expected, "{keys}");
    }
}

#[test]
fn a_key_has_a_scheme_a_zone_and_a_port() {
    assert_eq!(show(&tree("dns://Example.ORG:1053 {\n}")), "dns://example.org.:1053 []");
    assert_eq!(show(&tree("tls://. https://a.b:8443 {\n}")), "tls://. https://a.b.:8443 []");
}

#[test]
fn a_cidr_key_is_its_reverse_zones() {
    assert_eq!(show(&tree("10.0.0.0/8:54 {\n}")), "dns://10.in-addr.arpa.:54 []");
    assert_eq!(show(&tree("10.4.0.0/15 {\n}")), "dns://4.10.in-addr.arpa. dns://5.10.in-addr.arpa. []");
    assert_eq!(show(&tree("2001:db8::/32:53 {\n}")), "dns://8.b.d.0.1.0.0.2.ip6.arpa.:53 []");
    assert_eq!(show(&tree("dns://fd00::/8 {\n}")), "dns://d.f.ip6.arpa. []");
}

#[test]
fn a_classless_delegation_is_a_name_and_no_cidr() {
    assert_eq!(show(&tree("0/25.2.0.192.in-addr.arpa {\n}")), "dns://0/25.2.0.192.in-addr.arpa. []");
}

#[test]
fn quotes_keep_blanks_line_breaks_braces_and_keywords() {
    assert_eq!(
        show(&tree(". {\n log \"a b\" \"\" \"{\" \"}\" \"import\"\n x \"one\ntwo\" after\n y\n}")),
        "dns://. [<log> <a b> <> <{> <}> <import>; <x> <one\ntwo> <after>; <y>]"
    );
}

#[test]
fn only_a_quote_can_be_escaped_and_only_in_quotes() {
    assert_eq!(
        show(&tree(r#"whoami "a\"b\n\\" c\d"#)),
        "dns://whoami. dns://a\"b\\n\\\\. dns://cd. []".replace("a\"b\\n\\\\.", &key_text(r#"a"b\n\\"#))
    );
    assert_eq!(
        show(&tree(". {\n x \"a\\\"b\" \"\\d+\\.\" \"\\\\\" a\\b\n}")),
        r#"dns://. [<x> <a"b> <\d+\.> <\\> <a\b>]"#
    );
}

fn key_text(zone: &str) -> String {
    crate::message::Name::parse(zone).unwrap().to_string()
}

#[test]
fn a_quote_inside_a_word_is_a_character_and_after_a_quoted_word_begins_another() {
    assert_eq!(show(&tree(". {\n x a\"b \"c\"d \"e\"\"f\"\n}")), "dns://. [<x> <a\"b> <c> <d> <e> <f>]");
}

#[test]
fn comments_begin_at_a_word_and_end_with_the_line() {
    assert_eq!(
        show(&tree("# head { }\n. { # {\n# whole line \"\n whoami #x\n x \"#\" y # z\n} #end\n")),
        "dns://. [<whoami>; <x> <#> <y>]"
    );
}

#[test]
fn a_hash_inside_a_word_cuts_the_word_as_in_the_reference_and_warns() {
    let (corefile, diagnostics) = Memory::default().parse(". {\n forward . 10.0.0.1#x 10.0.0.2\n}");
    assert_eq!(show(&corefile.blocks), "dns://. [<forward> <.> <10.0.0.1> <10.0.0.2>]");
    assert!(!diagnostics.has_errors());
    assert!(diagnostics.render(&corefile.sources).starts_with("/etc/Corefile:2:20: warning: `#` inside a word"));
}

#[test]
fn a_backslash_at_the_end_continues_the_line() {
    for text in
        [". {\n forward . a \\\n   b\n}", ". {\n forward . a\\\n   b\n}", ". {\r\n forward . \\\r\n a b\r\n}\r\n"]
    {
        assert_eq!(show(&tree(text)), "dns://. [<forward> <.> <a> <b>]", "{text:?}");
    }
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_do_not_matter() {
    assert_eq!(
        show(&tree("\u{feff}.:53 {\r\n  cache 30\r\n  whoami # x\r\n}\r\n")),
        "dns://.:53 [<cache> <30>; <whoami>]"
    );
}

#[test]
fn words_with_braces_in_them_are_words() {
    assert_eq!(show(&tree(". {\n log . {remote} {{ .Name }}\n}")), "dns://. [<log> <.> <{remote}> <{{> <.Name> <}}>]");
}

#[test]
fn environment_variables_are_replaced_everywhere_and_stay_one_word() {
    let memory = Memory::default().set("ZONE", "cluster.local").set("PORT", "1053").set("TWO", "a b");
    let blocks = memory.tree("{$ZONE}:{%PORT%} {\n {$TWO} \"{$TWO}\" x{$ZONE}y\n}");
    assert_eq!(show(&blocks), "dns://cluster.local.:1053 [<a b> <a b> <xcluster.localy>]");
}

#[test]
fn an_unset_variable_is_nothing_and_warned_of_once() {
    let (corefile, diagnostics) = Memory::default().parse(". {\n x a{$NONE}b {$NONE}\n}");
    assert_eq!(show(&corefile.blocks), "dns://. [<x> <ab> <>]");
    assert_eq!(diagnostics.len(), 1);
    assert!(!diagnostics.has_errors());
}

#[test]
fn spans_count_lines_and_columns_in_characters_from_one() {
    let (corefile, _) = Memory::default().parse("\u{feff}.:53 {\n\tlög \"ä ö\" x\r\n}");
    let directive = &corefile.blocks[0].directives[0];
    let place = |token: &Token| (token.span.line, token.span.column, token.span.length);
    assert_eq!(place(&directive.keyword), (2, 2, 3));
    assert_eq!(place(&directive.arguments[0]), (2, 6, 5));
    assert_eq!(place(&directive.arguments[1]), (2, 12, 1));
    assert_eq!(corefile.blocks[0].keys[0].span.length, 4);
}

#[test]
fn each_of_several_keys_in_a_word_has_its_own_place() {
    let blocks = tree("a.org,b.org {\n}");
    let columns: Vec<_> = blocks[0].keys.iter().map(|key| (key.span.column, key.span.length)).collect();
    assert_eq!(columns, [(1, 5), (7, 5)]);
}
