//! What Go's text/template does with the same templates (its documentation, exec_test.go's behaviour, package fmt).

use super::error::Problem;
use super::{OUTPUT_OCTETS, Template, TemplateData, Value};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Data such as the directive `template` gives.
struct SampleData;

impl TemplateData for SampleData {
    fn kind(&self) -> &'static str {
        "the data"
    }
    fn field(&self, name: &str) -> Option<Value> {
        let map = [("0", "ab-cd."), ("1", "ab"), ("2", "cd"), ("host", "ab"), ("hex", "ff"), ("empty", "")];
        let map: BTreeMap<String, Value> =
            map.into_iter().map(|(key, text)| (key.to_owned(), Value::text(text))).collect();
        Some(match name {
            "Name" => Value::text("ab-cd.example."),
            "Type" => Value::text("TXT"),
            "Match" => Value::List(["ab-cd.", "ab", "cd"].into_iter().map(Value::text).collect()),
            "Group" => Value::Map(Arc::new(map)),
            "Question" => Value::Object(Arc::new(Self)),
            "Qtype" => Value::Uint(16),
            "Nothing" => Value::Nil,
            _ => return None,
        })
    }
    fn call(&self, name: &str, argument: &str) -> Option<Value> {
        (name == "Meta").then(|| Value::text(format!("<{argument}>")))
    }
    fn has_method(&self, name: &str) -> bool {
        name == "Meta"
    }
}

fn data() -> Value {
    Value::Object(Arc::new(SampleData))
}

fn run(text: &str) -> Result<String, String> {
    Template::parse(text).and_then(|template| template.execute(data())).map_err(|error| error.to_string())
}

#[test]
fn what_go_makes_is_made() {
    for (template, expected) in [
        ("plain } text", "plain } text"),
        ("{{ .Name }}|{{.Name}}", "ab-cd.example.|ab-cd.example."),
        ("a {{- 1 -}} b", "a1b"),
        ("a \n{{- /* comment */ -}}\n b", "ab"),
        ("{{/* a {{ comment }} */}}x", "x"),
        ("{{ \"{{\" }}", "{{"),
        // Constants.
        ("{{ 1 }} {{ -1 }} {{ +1 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 017 }} {{ 1_000 }}", "1 -1 1 31 5 15 15 1000"),
        ("{{ 1.5 }} {{ 1e3 }} {{ 1e21 }} {{ .5 }} {{ 1.0 }} {{ -1e-7 }}", "1.5 1000 1e+21 0.5 1 -1e-07"),
        ("{{ 'a' }} {{ '\\n' }} {{ '\\x41' }} {{ 'é' }}", "97 10 65 233"),
        ("{{ \"a\\tb\\x41\\101\\u00e9\\\"\" }}{{ `a\\t\"` }}", "a\tbAA\u{e9}\"a\\t\""),
        ("{{ true }} {{ false }}", "true false"),
        // Fields, methods, chains.
        ("{{ .Group.host }} {{ .Question.Name }} {{ .Question.Question.Qtype }}", "ab ab-cd.example. 16"),
        ("x{{ .Group.none }}x{{ .Group.none.more }}x", "x<no value>x<no value>x"),
        ("{{ .Meta \"a/b\" }} {{ \"c\" | .Meta }} {{ .Question.Meta \"d\" }} {{ $.Meta \"e\" }}", "<a/b> <c> <d> <e>"),
        ("{{ (index .Match 1) }} {{ (.Question).Name }} {{ (print \"a\" 1 2) | len }}", "ab ab-cd.example. 4"),
        ("{{ .Match }} {{ .Group }}", "[ab-cd. ab cd] map[0:ab-cd. 1:ab 2:cd empty: hex:ff host:ab]"),
        ("{{ .Nothing }}", "<nil>"),
        // Variables.
        ("{{ $n := len .Match }}{{ $n }}{{ $n = 7 }}{{ $n }}", "37"),
        ("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}", "21"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ $g := .Group }}{{ $g.host }} {{ $.Name }}", "ab ab-cd.example."),
        // Blocks.
        ("{{ if .Group.none }}a{{ else if eq .Type \"TXT\" }}b{{ else }}c{{ end }}", "b"),
        ("{{ if 0 }}a{{ end }}{{ if \"\" }}b{{ end }}{{ if .Nothing }}c{{ end }}{{ if . }}d{{ end }}", "d"),
        (
            "{{ with .Group.host }}{{ . }}{{ $.Type }}{{ end }}{{ with .Group.empty }}x{{ else }}none{{ end }}",
            "abTXTnone",
        ),
        ("{{ with 0 }}a{{ else with 5 }}{{ . }}{{ else }}c{{ end }}", "5"),
        ("{{ with $x := 3 }}{{ $x }}{{ . }}{{ end }}", "33"),
        ("{{ range .Match }}<{{ . }}>{{ end }}", "<ab-cd.><ab><cd>"),
        ("{{ range $i, $m := .Match }} {{ $i }}={{ $m }}{{ end }}", " 0=ab-cd. 1=ab 2=cd"),
        ("{{ range $m := .Match }}{{ $m }}{{ end }}", "ab-cd.abcd"),
        ("{{ range $k, $v := .Group }}{{ $k }}{{ end }}", "012emptyhexhost"),
        (
            "{{ range .Group.none }}x{{ else }}none{{ end }}{{ range slice .Match 0 0 }}x{{ else }}empty{{ end }}",
            "noneempty",
        ),
        (
            "{{ range 3 }}{{ . }}{{ end }}{{ range $i := 2 }}{{ $i }}{{ end }}{{ range 0 }}x{{ else }}-{{ end }}",
            "01201-",
        ),
        (
            "{{ range 9 }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ if ge . 3 }}{{ break }}{{ end }}{{ . }}{{ end }}",
            "02",
        ),
        ("{{ range 2 }}{{ range 3 }}{{ if . }}{{ break }}{{ end }}x{{ end }}y{{ end }}", "xyxy"),
        ("{{ $s := \"\" }}{{ range 3 }}{{ $s = print $s . }}{{ end }}{{ $s }}", "012"),
        ("{{ define \"a\" }}<{{ . }}>{{ end }}{{ template \"a\" 1 }}{{ template \"a\" .Type }}", "<1><TXT>"),
        ("{{ template \"a\" }}{{ define \"a\" }}{{ . }}{{ end }}", "<no value>"),
        ("{{ block \"b\" 5 }}[{{ . }}{{ $ }}]{{ end }}", "[55]"),
        // Functions.
        ("{{ and 1 0 2 }} {{ and 1 2 }} {{ or 0 \"\" 3 }} {{ or 0 \"\" }}|{{ not 0 }}", "0 2 3 |true"),
        ("{{ and false (index .Match 9) }} {{ or true (index .Match 9) }}", "false true"),
        ("{{ 1 | and 0 }} {{ 1 | or 0 }}", "0 1"),
        (
            "{{ index .Match 0 }} {{ index .Group \"2\" }} x{{ index .Group \"nope\" }}x {{ index \"abc\" 1 }}",
            "ab-cd. cd xx 98",
        ),
        ("{{ slice \"abcdef\" 2 }} {{ slice \"abcdef\" 1 3 }} {{ slice .Match 1 }}", "cdef bc [ab cd]"),
        ("{{ len \"é\" }} {{ len .Match }} {{ len .Group }}", "2 3 6"),
        ("{{ print 1 2 \"x\" 3 4 \"y\" \"z\" }}|{{ println 1 \"x\" }}|", "1 2x3 4yz|1 x\n|"),
        (
            "{{ html \"<a href='x'>&\\\"\" }} {{ js \"it's <b>\" }} {{ urlquery \"a b&c=é\" }}",
            "&lt;a href=&#39;x&#39;&gt;&amp;&#34; it\\'s \\u003Cb\\u003E a+b%26c%3D%C3%A9",
        ),
        (
            "{{ eq 1 1 }} {{ eq 1 2 3 1 }} {{ ne \"a\" \"b\" }} {{ lt 1 2 }} {{ le 2 2 }} {{ gt \"b\" \"a\" }} {{ ge 1.5 2.5 }}",
            "true true true true true true false",
        ),
        (
            "{{ eq .Qtype 16 }} {{ lt -1 .Qtype }} {{ eq .Group.none \"x\" }} {{ eq .Nothing nil }} {{ ne .Nothing nil }}",
            "true true false true false",
        ),
        (
            "{{ parseInt .Group.hex 16 8 }} {{ parseInt \"0x10\" 0 64 }} {{ parseInt \"17\" 8 0 }} {{ \"z\" | printf \"%s\" | len }}",
            "255 16 15 1",
        ),
        ("{{ 8 | parseInt \"7\" 10 }}", "7"),
    ] {
        assert_eq!(run(template).as_deref(), Ok(expected), "{template}");
    }
}

#[test]
fn printf_prints_as_package_fmt() {
    for (arguments, expected) in [
        (r#""%s%03d" .Type 7"#, "TXT007"),
        (r#""%d %5d %-5d| %+d % d" 1 2 3 4 5"#, "1     2 3    | +4  5"),
        (r#""%x %X %#x %o %#o %O %b %08b" 255 255 255 8 8 8 5 5"#, "ff FF 0xff 10 010 0o10 101 00000101"),
        (r#""%x % x %#x %X" "hi" "hi" "hi" "hi""#, "6869 68 69 0x6869 6869"),
        (r#""%q %q %#q %c %U" "a\"b" 'x' "raw" 'é' 'é'"#, r#""a\"b" 'x' `raw` é U+00E9"#),
        (r#""%5s|%-5s|%.2s|%05s" "ab" "ab" "abc" "ab""#, "   ab|ab   |ab|000ab"),
        (
            r#""%f %.2f %8.3f %e %g %v %06.1f" 1.5 1.005 3.14159 1500.0 1e21 0.1 -2.55"#,
            "1.500000 1.00    3.142 1.500000e+03 1e+21 0.1 -002.5",
        ),
        (r#""%.3g %.3g" 1234.5 0.00012345"#, "1.23e+03 0.000123"),
        (r#""%t %v %T %T %T %T" true false 1 "s" 1.5 .Match"#, "true false int string float64 []string"),
        (
            r#""%v %s %q %d" .Match .Match .Match .Match"#,
            r#"[ab-cd. ab cd] [ab-cd. ab cd] ["ab-cd." "ab" "cd"] [%!d(string=ab-cd.) %!d(string=ab) %!d(string=cd)]"#,
        ),
        (r#""%d %s %z" "hi" 5 1"#, "%!d(string=hi) %!s(int=5) %!z(int=1)"),
        (r#""%s %s" "a""#, "a %!s(MISSING)"),
        (r#""%s" "a" 2 "b""#, "a%!(EXTRA int=2, string=b)"),
        (r#""%" 1"#, "%!(NOVERB)%!(EXTRA int=1)"),
        (r#""100%%""#, "100%"),
        (r#""%[2]s %[1]s" "a" "b""#, "b a"),
        (r#""%*d|%-*d|%.*f" 4 1 4 1 2 1.239"#, "   1|1   |1.24"),
        (r#""%s %v" nil .Group.none"#, "%!s(<nil>) <nil>"),
        (r#""%.3d|%5.3d" 7 7"#, "007|  007"),
        (r#""%v" .Group"#, "map[0:ab-cd. 1:ab 2:cd empty: hex:ff host:ab]"),
    ] {
        assert_eq!(run(&format!("{{{{ printf {arguments} }}}}")).as_deref(), Ok(expected), "{arguments}");
    }
}

#[test]
fn what_go_cannot_read_is_refused_with_its_place() {
    for (template, at, says) in [
        ("a {{ .Name", 3, "`{{` is not closed; write `}}` after it"),
        ("{{ /* c */ }}", 4, "`/` stands where"),
        ("{{/* c }}", 1, "`/*` is not closed"),
        ("{{/* c */ }}", 10, "`{{` is not closed"),
        ("{{ }}", 4, "`}}` stands where a value should"),
        ("{{ . .Name }}", 6, "an argument stands where"),
        ("{{ nope }}", 4, "`nope` is no function; there are and, call, eq"),
        ("{{ nope.Name }}", 4, "`nope` is no function"),
        ("{{ $x }}", 4, "the variable `$x` is not declared here; write `{{ $x := … }}`"),
        ("{{ $x = 1 }}", 4, "the variable `$x`"),
        ("{{ if 1 }}{{ $x := 1 }}{{ end }}{{ $x }}", 36, "the variable `$x`"),
        ("{{ $x, $y := 1 }}", 6, "`,` stands where `:=`; two variables"),
        ("{{ range $i, $x }}{{ end }}", 17, "`}}` stands where `:=`"),
        ("{{ if }}a{{ end }}", 7, "`}}` stands where a value"),
        ("{{ if 1 }}a", 12, "`if, with, range, define or block` is not closed; write `{{ end }}`"),
        ("a{{ end }}", 2, "`end` stands where something to end"),
        ("{{ else }}", 1, "`else` stands where"),
        ("{{ if 1 }}{{ else }}{{ else }}{{ end }}", 29, "`{{ end }}`"),
        ("{{ break }}", 4, "`break` stands where `range` around it"),
        ("{{ range 1 }}{{ define \"x\" }}{{ break }}{{ end }}{{ end }}", 33, "`break`"),
        ("{{ \"a }}", 4, "\"a }} is no text in quotes"),
        ("{{ \"\\q\" }}", 4, "is no text in quotes"),
        ("{{ `a }}", 4, "is no text in quotes"),
        ("{{ 'ab' }}", 4, "is no text in quotes"),
        ("{{ 1x }}", 4, "`1x` is no number"),
        ("{{ 99999999999999999999 }}", 4, "`99999999999999999999` is no number"),
        ("{{ 08 }}", 4, "`08` is no number"),
        ("{{ print\"x\" }}", 9, "`\"` stands where white space after a word"),
        ("{{ (1 }}", 7, "`(` is not closed"),
        ("{{ 1) }}", 5, "`)` stands where"),
        ("{{ nil }}", 4, "`nil` stands where a value"),
        ("{{ nil | print }}", 4, "`nil`"),
        ("{{ 1 | 2 }}", 8, "a value stands where a function or method after `|`"),
        ("{{ 1 | }}", 8, "`}}` stands where a value"),
        ("{{ template x }}", 13, "`x` stands where the name of a template"),
        ("{{ define \"a\" }}x{{ end }}{{ define \"a\" }}y{{ end }}", 30, "the template `a` is defined twice"),
        ("{{ 1 & 2 }}", 6, "`&` stands where"),
        ("{{ \"x\".Name }}", 7, "`.Name` stands where"),
    ] {
        let error = Template::parse(template).map(|_| ()).expect_err(template).to_string();
        assert!(error.starts_with(&format!("at octet {at}: ")) && error.contains(says), "{template}: {error}");
    }
}

#[test]
fn what_fails_while_running_in_go_fails_here_with_its_place() {
    for (template, at, says) in [
        ("{{ index .Match 5 }}", 4, "index: the index 5 is out of range"),
        ("{{ index .Match -1 }}", 4, "index: the index -1 is out of range"),
        ("{{ index .Match \"x\" }}", 4, "index: it cannot index with a value of type string"),
        ("{{ index .Group 1 }}", 4, "index: the key must be a text"),
        ("{{ index nil 1 }}", 4, "index: a value of type <nil> has no index"),
        ("a{{ .Nope }}", 5, "there is no field or method `Nope` in the data"),
        ("{{ .Name.Length }}", 4, "there is no field or method `Length` in string"),
        ("{{ .Nothing.X }}", 4, "X: there is nothing"),
        ("{{ .Name 1 }}", 4, "Name: it takes no arguments"),
        ("{{ .Meta }}", 4, "Meta: it takes one argument"),
        ("{{ .Meta 1 }}", 4, "Meta: its argument must be a text"),
        ("{{ parseInt .Name 10 8 }}", 4, "parseInt: `ab-cd.example.` is no whole number of base 10"),
        ("{{ parseInt \"256\" 10 8 }}", 4, "parseInt: `256` has more than 8 bits"),
        ("{{ parseInt \"1\" 99 8 }}", 4, "parseInt: its base"),
        ("{{ parseInt .Group.none 10 8 }}", 4, "parseInt: it takes a text"),
        ("{{ parseInt \"1\" }}", 4, "parseInt: it takes three arguments, not 1"),
        ("{{ parseInt \"+1\" 10 8 }}", 4, "parseInt: `+1` is no whole number"),
        ("{{ lt 1 \"a\" }}", 4, "lt: values of the types int and string cannot be compared"),
        ("{{ lt true false }}", 4, "lt: values"),
        ("{{ eq 1 1.0 }}", 4, "eq: values"),
        ("{{ eq .Match .Match }}", 4, "eq: values"),
        ("{{ eq 1 }}", 4, "eq: it takes at least two arguments"),
        ("{{ and }}", 4, "and: it needs at least one argument"),
        ("{{ len 1 }}", 4, "len: a value of type int has no length"),
        ("{{ slice .Name 3 2 }}", 4, "slice: the places 3 and 2"),
        ("{{ slice .Name 99 }}", 4, "slice: the index 99"),
        ("{{ slice .Name 1 2 3 }}", 4, "slice: a text takes at most two places"),
        ("{{ range .Name }}{{ end }}", 10, "there is nothing to range over in a string"),
        ("{{ range true }}{{ end }}", 10, "there is nothing to range over in a bool"),
        ("{{ range $i, $x := 3 }}{{ end }}", 20, "a number has no second value"),
        ("{{ printf 1 }}", 4, "printf: its layout must be a text"),
        ("{{ call .Name }}", 4, "call: there is no function"),
        ("{{ template \"x\" }}", 4, "no template is called `x`"),
        ("{{ . }}", 4, "the data cannot be written out"),
    ] {
        let error = run(template).expect_err(template);
        assert!(error.starts_with(&format!("at octet {at}: ")) && error.contains(says), "{template}: {error}");
    }
}

#[test]
fn a_run_is_bounded_in_steps_octets_and_depth() {
    let problem =
        |template: &str| Template::parse(template).unwrap().execute(data()).map(|text| text.len()).unwrap_err().problem;
    assert_eq!(problem("{{ range 1000000000 }}{{ end }}"), Problem::Steps);
    assert_eq!(problem("{{ range 9999 }}{{ range 9999 }}{{ end }}{{ end }}"), Problem::Steps);
    assert_eq!(problem("{{ define \"x\" }}{{ template \"x\" . }}{{ end }}{{ template \"x\" . }}"), Problem::TooDeep);
    assert_eq!(problem(&format!("{{{{ range 200 }}}}{}{{{{ end }}}}", "x".repeat(1000))), Problem::Output);
    assert_eq!(
        problem("{{ $x := .Name }}{{ range 99 }}{{ $x = print $x $x }}{{ end }}").to_string(),
        "print: it makes too much text"
    );
    assert!(problem("{{ printf \"%9999d%9999d%9999d%9999d%9999d%9999d%9999d%9999d%9999d%9999d%9999d%9999d%9999d%9999d\" 1 1 1 1 1 1 1 1 1 1 1 1 1 1 }}")
        .to_string().contains("too much text"));
    let blocks = format!("{}{{{{ template \"x\" }}}}{}", "{{ if 1 }}".repeat(15), "{{ end }}".repeat(15));
    assert_eq!(
        problem(&format!("{{{{ define \"x\" }}}}{blocks}{{{{ end }}}}{{{{ template \"x\" }}}}")),
        Problem::TooDeep
    );
    let deep = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(run(&format!("{{{{ {} }}}}", deep(30))).as_deref(), Ok("1"));
    assert_eq!(
        Template::parse(&format!("{{{{ {} }}}}", deep(1000))).map(|_| ()).unwrap_err().problem,
        Problem::TooDeep
    );
    let blocks = |depth: usize| format!("{}{}", "{{ if 1 }}".repeat(depth), "{{ end }}".repeat(depth));
    assert_eq!(Template::parse(&blocks(1000)).map(|_| ()).unwrap_err().problem, Problem::TooDeep);
    let chain = format!("{{{{ if 0 }}}}{}{{{{ end }}}}", "{{ else if 0 }}".repeat(1000));
    assert_eq!(Template::parse(&chain).map(|_| ()).unwrap_err().problem, Problem::TooDeep);
    let long = "x".repeat(super::TEMPLATE_OCTETS + 1);
    assert_eq!(Template::parse(&long).map(|_| ()).unwrap_err().problem, Problem::TooLong(long.len()));
}

#[test]
fn what_depends_on_the_data_is_known_before_it_runs() {
    for (template, is_constant, is_of_zone) in [
        ("x 60 IN A 192.0.2.1", true, true),
        ("{{ printf \"%d\" 7 }}{{ range $i, $x := 3 }}{{ end }}", true, true),
        ("{{ $x := 1 }}{{ $x }}", true, true),
        ("{{ .Zone }}{{ $.Zone }}", false, true),
        ("{{ .Zone }}{{ .Name }}", false, false),
        ("{{ . }}", false, false),
        ("{{ $ }}", false, false),
        ("{{ with .Zone }}{{ . }}{{ end }}", false, false),
        ("{{ define \"x\" }}{{ .Zone }}{{ end }}", false, false),
    ] {
        let parsed = Template::parse(template).unwrap();
        assert_eq!(
            (parsed.depends_on_none_but(&[]), parsed.depends_on_none_but(&["Zone"])),
            (is_constant, is_of_zone),
            "{template}"
        );
    }
    let template = "{{ .A.B }}{{ if .C }}{{ print .D (.E) }}{{ end }}{{ with .F }}{{ .no }}{{ $.G }}{{ else }}{{ .H }}{{ end }}\
                    {{ define \"x\" }}{{ .no }}{{ $.no }}{{ end }}{{ $x := . }}{{ $x.no }}";
    let template = Template::parse(template).unwrap();
    assert_eq!(template.root_fields().map(|(_, name)| name).collect::<String>(), "ACDEFGH");
    assert_eq!(template.root_fields().next(), Some((3, "A")));
}

/// Pieces that templates are made of, whole and cut.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "{{",
        "}}",
        "{{-",
        " -}}",
        " ",
        ".",
        ".Name",
        ".Group",
        ".none",
        ".Match",
        "$",
        "$x",
        ":=",
        "=",
        ",",
        "|",
        "(",
        ")",
        "if",
        "else",
        "end",
        "range",
        "with",
        "define",
        "block",
        "template",
        "break",
        "continue",
        "\"x\"",
        "\"%5d %v\"",
        "`",
        "'",
        "'a'",
        "1",
        "0x",
        "-1",
        "1.5",
        "99999",
        "1e9",
        "nil",
        "true",
        "len",
        "index",
        "slice",
        "print",
        "printf",
        "eq",
        "lt",
        "and",
        "or",
        "not",
        "parseInt",
        "html",
        "call",
        "{{ end }}",
        "{{ range .Match }}",
        "{{ if .Name }}",
        "{{ $x := 1 }}",
        "{{ range $i, $m := 9999 }}",
        "/*",
        "*/",
        "text",
        "\n",
        "é",
    ]);
    prop_oneof![8 => known.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_template_panics_or_exceeds_its_bounds(pieces in prop::collection::vec(piece(), 0..30)) {
        let text = pieces.concat();
        let error = match Template::parse(&text) {
            Ok(template) => match template.execute(data()) {
                Ok(made) => {
                    prop_assert!(made.len() <= OUTPUT_OCTETS);
                    return Ok(());
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at), "{:?}: {}", text, error);
    }

    #[test]
    fn one_action_of_any_words_does_not_panic(pieces in prop::collection::vec(piece(), 0..8)) {
        let text = format!("{{{{ {} }}}}", pieces.join(" "));
        if let Ok(template) = Template::parse(&text) {
            _ = template.execute(data());
        }
    }
}
