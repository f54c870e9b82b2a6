use super::parse;
use crate::chain::testing::{Question, configure};
use crate::chain::{BlockConfig, ParseContext, Peer, Transport, View};
use crate::corefile::Directive;
use crate::message::{Name, Query, RecordType};

/// Reads a view, and `metadata` as that directive does.
fn parse_both(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    match (directive.keyword.text.as_str(), directive.arguments.first()) {
        ("metadata", None) => block.metadata = Some(context.zones.to_vec()),
        ("metadata", Some(zone)) => block.metadata = Some(vec![Name::parse(&format!("{}.", zone.text)).unwrap()]),
        _ => parse(directive, block, context),
    }
}

fn view(lines: &str) -> View {
    let (block, said) = configure(parse_both, lines);
    assert_eq!(said, "", "{lines}");
    block.view.expect("it has a view")
}

fn takes(expression: &str, question: &Question) -> bool {
    view(&format!("view v {{\n expr {expression}\n}}")).filter.takes(&question.query, &question.wire, &question.peer)
}

#[test]
fn what_the_references_functions_tell_is_asked_of_the_query() {
    let mut question = Question::new("A.Example.", RecordType::AAAA);
    question.peer = Peer {
        client: "[::ffff:10.240.0.1]:40212".parse().unwrap(),
        local: "[2001:db8::1]:1053".parse().unwrap(),
        transport: Transport::Udp,
    };
    for expression in [
        "name() == 'a.example.' && type() == 'AAAA' && class() == 'IN'",
        "client_ip() == '10.240.0.1' and port() == '40212' and proto() == 'udp'",
        "server_ip() == '2001:db8::1' and server_port() == '1053'",
        "id() == 1 && opcode() == 0 && size() == 27 && bufsize() == 512 && !do()",
        "incidr(client_ip(), '10.240.0.0/16')",
        "incidr(client_ip(), '10.240.7.7/16')",
        "!incidr(client_ip(), '2001:db8::/32')",
        "incidr('2001:db8::5', '2001:db8::/32')",
        "incidr(client_ip(), join(['10.240', '0.0/16'], '.'))",
        "metadata('view/name') == ''",
        "(type() == 'A' && name() == 'example.com.') || client_ip() == '10.240.0.1'",
        "type() in ['A', 'AAAA']",
        r"name() matches '^a\\..*example\\.$' or name() matches 'a\\.example'",
    ] {
        assert!(takes(expression, &question), "{expression}");
        assert!(!takes(&format!("not ({expression})"), &question), "not {expression}");
    }
    question.peer.transport = Transport::Tcp;
    assert!(takes("proto() == 'tcp' && bufsize() == 65535", &question));
}

#[test]
fn what_an_opt_record_says_is_told() {
    let mut wire = Query::compose(7, Name::parse("a.example.").unwrap().as_wire(), RecordType(65280), true);
    wire[11] = 1;
    wire.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    let question = Question::from_wire(wire);
    assert!(takes("do() && bufsize() == 1232 && type() == 'TYPE65280' && id() == 7", &question));
}

#[test]
fn all_expressions_of_a_view_must_hold_and_one_without_a_value_does_not() {
    let question = Question::new("a.example.", RecordType::A);
    let of = |lines: &str| {
        view(&format!("view v {{\n{lines}\n}}")).filter.takes(&question.query, &question.wire, &question.peer)
    };
    assert!(of("expr type() == 'A'\n expr name() startsWith 'a.'"));
    assert!(!of("expr type() == 'A'\n expr name() startsWith 'b.'"));
    assert!(!of("expr incidr(name(), '10.0.0.0/8')"), "no address");
    assert!(!of("expr !incidr(name(), '10.0.0.0/8')"), "no address, and so not the contrary either");
    assert!(!of("expr incidr(client_ip(), name())"), "no network");
    assert!(!of("expr (do() ? 1 : 'x')"), "not a bool after all");
    assert!(of(""), "without an expression it takes every query");
}

#[test]
fn its_own_name_is_metadata_where_the_block_has_that_for_the_name() {
    let takes = |lines: &str| {
        let question = Question::new("a.example.", RecordType::A);
        view(lines).filter.takes(&question.query, &question.wire, &question.peer)
    };
    let lines = "view inner {\n expr metadata('view/name') == 'inner'\n}";
    assert!(takes(&format!("metadata\n{lines}")));
    assert!(takes(&format!("metadata example\n{lines}")));
    assert!(!takes(&format!("metadata other\n{lines}")));
    assert!(!takes(lines));
}

#[test]
fn only_what_the_packet_cache_does_not_know_depends_on_the_client() {
    let depends = |expression: &str| view(&format!("view v {{\n expr {expression}\n}}")).filter.depends_on_client();
    for expression in ["client_ip() == ''", "port() == ''", "id() == 1", "server_ip() == ''", "do() || port() == '1'"] {
        assert!(depends(expression), "{expression}");
    }
    let known = "name() == '' || type() == '' || class() == '' || proto() == '' || size() == 1 || do() || opcode() == 1 \
                 || bufsize() == 1 || server_port() == '' || metadata('a/b') == '' || incidr('10.0.0.1', '10.0.0.0/8')";
    assert!(!depends(known));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (lines, expected) in [
        ("view", "Corefile:2:1: error: `view` takes 1 argument, found 0"),
        ("view a b", "Corefile:2:8: error: `view` takes 1 argument, found 2"),
        ("view x {\n foo bar\n}", "Corefile:3:2: error: unknown option `foo` of `view`"),
        ("view x {\n expr\n}", "Corefile:3:2: error: `expr` has no expression"),
        ("view x {\n expr invalid expression\n}", "Corefile:3:7: error: the expression is wrong: `invalid` is neither"),
        (
            "view x {\n expr do() && nmae() == 'a'\n}",
            "Corefile:3:15: error: the expression is wrong: `nmae` is no function",
        ),
        ("view x {\n expr do() && (name()=='a'\n}", "Corefile:3:15: error: the expression is wrong: the end stands"),
        (
            "view x {\n expr incidr(client_ip(), '10.0.0.0/33')\n}",
            "Corefile:3:7: error: the expression is wrong: `incidr`: \
         `10.0.0.0/33` is no network",
        ),
        ("view x {\n expr incidr('10.0.0', '10.0.0.0/8')\n}", "`10.0.0` is no IP address"),
        ("view x {\n expr size()\n}", "Corefile:3:7: error: the expression is int, so no query would be taken"),
        (
            "view x {\n expr name() matches '('\n}",
            "Corefile:3:22: error: the expression is wrong: the pattern is wrong",
        ),
    ] {
        let (_, said) = configure(parse, lines);
        assert!(said.contains(expected), "{lines}\n{said}");
    }
}
