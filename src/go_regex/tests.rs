//! What Go's package regexp does with the same patterns (regexp/syntax/parse.go, doc.go, and RE2's documentation of
//! its syntax).

use super::{PATTERN_OCTETS, RegexProblem, compile};
use proptest::prelude::*;

/// A pattern, a text, and what the leftmost match is.
const FOUND: &[(&str, &str, Option<&str>)] = &[
    // Literals, and what looks special but is not.
    (r"a.c", "xabcx", Some("abc")),
    (r"\Qa.c\E", "abc a.c", Some("a.c")),
    (r"\Qa.c", "abc a.c", Some("a.c")),
    (r"\Qab\E*x", "abbbx", Some("abbbx")),
    (r"\Q\E", "x", Some("")),
    (r"a\Q\E*b", "aaab", Some("aaab")),
    (r"\Q(?i)\\E", r"(?i)\", Some(r"(?i)\")),
    (r"foo{bar}", "foo{bar}", Some("foo{bar}")),
    (r"a{,5}", "a{,5}", Some("a{,5}")),
    (r"a{01}", "a{01}", Some("a{01}")),
    (r"a{1", "a{1", Some("a{1")),
    (r"{", "{", Some("{")),
    (r"}", "}", Some("}")),
    (r"]", "]", Some("]")),
    (r"a&&b~~c--d #e", "a&&b~~c--d #e", Some("a&&b~~c--d #e")),
    (r"é+", "éé", Some("éé")),
    // Escapes.
    (r"\101\060\0", "A0\0", Some("A0\0")),
    (r"\12", "\n", Some("\n")),
    (r"\08", "\08", Some("\08")),
    (r"\1234", "S4", Some("S4")),
    (r"\x41\x{42}\x{0000043}", "ABC", Some("ABC")),
    (r"\a\f\n\r\t\v", "\x07\x0c\n\r\t\x0b", Some("\x07\x0c\n\r\t\x0b")),
    (r"\.\_\-\/\ \@\%\`", "._-/ @%`", Some("._-/ @%`")),
    (r"\x{D800}|a", "a", Some("a")),
    // Only ASCII.
    (r"\d+", "٣4", Some("4")),
    (r"\w+", "éa_1é", Some("a_1")),
    (r"\s", "\u{a0}\u{b} ", Some(" ")),
    (r"\D\S\W", "é\u{a0}é", Some("é\u{a0}é")),
    (r"\bx", "éx", Some("x")),
    (r"a\Bb\Bc", "abc", Some("abc")),
    (r"\Bx", " x", None),
    (r"[\d\W]+", "a1-é", Some("1-é")),
    // Classes.
    (r"[[]", "[", Some("[")),
    (r"[]a]+", "]a", Some("]a")),
    (r"[^]a]+", "]ab\n", Some("b\n")),
    (r"[a-]+", "a-", Some("a-")),
    (r"[-a]+", "a-", Some("a-")),
    (r"[a-b-c]+", "ab-c", Some("ab-c")),
    (r"[--a]+", "-A^a", Some("-A^a")),
    (r"[a-\x{7a}]+", "az", Some("az")),
    (r"[&&a~~b\-\]^]+", "&a~b-]^", Some("&a~b-]^")),
    (r"[[:word:]]+", "-aZ_9é", Some("aZ_9")),
    (r"[[:^alpha:]x]+", "ab1x2", Some("1x2")),
    (r"[[:]+", "[:", Some("[:")),
    (r"[[:alpha]+", "[:ph", Some("[:ph")),
    (r"[^\x00-\x{10FFFF}]", "a", None),
    (r"[\x{D800}]", "a", None),
    (r"[^\x{D800}]", "a", Some("a")),
    (r"[\x{D000}-\x{E000}]", "\u{e000}", Some("\u{e000}")),
    // Unicode classes.
    (r"\pN+", "a1٣Ⅳ", Some("1٣Ⅳ")),
    (r"\PN+", "1ab2", Some("ab")),
    (r"\p{Greek}+", "aβγ", Some("βγ")),
    (r"\p{^Greek}+", "βab", Some("ab")),
    (r"\P{^Greek}+", "aβ", Some("β")),
    (r"[\p{Lu}\p{old_italic}]+", "aB𐌀", Some("B𐌀")),
    (r"\p{Letter}\p{Any}\p{ASCII}", "aé\x7f", Some("aé\x7f")),
    (r"\p{Cs}|\P{Cs}", "a", Some("a")),
    // Flags.
    (r"(?i)straße", "STRASSE STRAßE", Some("STRAßE")),
    (r"(?i)k", "\u{212a}", Some("\u{212a}")),
    (r"a(?i)b|c(?-i)d", "aB", Some("aB")),
    (r"a(?i)b|c(?-i)d", "Cd", Some("Cd")),
    (r"(?i:a)b", "Ab AB", Some("Ab")),
    (r"((?i)a)b", "Ab AB", Some("Ab")),
    (r"(?i)[^a]", "Ab", Some("b")),
    (r"(?i)[[:lower:]]", "A", Some("A")),
    (r"(?i)\w", "ſ", Some("ſ")),
    (r"(?s)a.b", "a\nb", Some("a\nb")),
    (r"a.b", "a\nb", None),
    (r"(?m)^b$", "a\nb\nc", Some("b")),
    (r"^b$", "a\nb\nc", None),
    (r"b$", "b\n", None),
    (r"(?m)\Ab\z", "a\nb\nc", None),
    (r"(?U)a+", "aa", Some("a")),
    (r"(?U)a+?", "aa", Some("aa")),
    (r"(?)a", "a", Some("a")),
    (r"(?im-s:A)", "a", Some("a")),
    // Repetitions.
    (r"a*?b", "aab", Some("aab")),
    (r"a{2}", "aaa", Some("aa")),
    (r"a{2,}", "aaa", Some("aaa")),
    (r"a{1,2}?", "aaa", Some("a")),
    (r"a{0}b", "ab", Some("b")),
    (r"(a{10}){100}", "a", None),
    (r"((a{1000}){0})b", "b", Some("b")),
    (r"(?:a{1000}b?)*", "", Some("")),
    (r"^*", "a", Some("")),
    (r"$+", "a", Some("")),
    (r"\b+a", "a", Some("a")),
    (r"()*", "a", Some("")),
    (r"a*(?i)*b", "aab", Some("aab")),
    (r"a*(?i)?b", "aab", Some("aab")),
    // The leftmost match, the first alternative.
    (r"a|ab", "ab", Some("a")),
    (r"|a", "a", Some("")),
    (r"(|a)b", "ab", Some("ab")),
];

#[test]
fn what_go_takes_finds_what_go_finds() {
    for (pattern, text, expected) in FOUND {
        let regex = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        let found = regex.groups(text).map(|groups| groups[0]);
        assert_eq!(found, *expected, "{pattern:?} in {text:?}");
        assert_eq!((regex.is_match(text), regex.as_str()), (expected.is_some(), *pattern));
    }
}

#[test]
fn what_go_refuses_is_refused_with_its_place_and_the_right_form() {
    for (pattern, at, says) in [
        (r"ab\C", 3, r"`\C` is no escape sequence"),
        (r"\E", 1, r"`\E` is no escape sequence"),
        (r"\8", 1, r"`\8` is no escape sequence"),
        (r"(a)\1", 4, r"`\1` is no escape sequence"),
        (r"\é", 1, r"`\é` is no escape sequence"),
        (r"\xg0", 1, r"`\xg0` is no escape sequence"),
        (r"\x", 1, r"`\x` is no escape sequence"),
        (r"\x{}", 1, r"`\x{}` is no escape sequence"),
        (r"\x{110000}", 1, r"`\x{110` is no escape sequence"),
        (r"\x{fffffffff}", 1, r"`\x{fff` is no escape sequence"),
        (r"[a\Q]", 3, r"`\Q` is no escape sequence"),
        (r"[\b]", 2, r"`\b` is no escape sequence"),
        (r"[a-\d]", 4, r"`\d` is no escape sequence"),
        (r"\Z", 1, r"`\Z` is no escape sequence"),
        (r"\<a\u0041", 4, r"`\u` is no escape sequence"),
        ("a\\", 2, "it ends in a backslash"),
        ("[a", 1, "`[a` is not closed"),
        ("[]", 1, "`[]` is not closed"),
        ("[", 1, "`[` is not closed"),
        ("[[:alpha:", 1, "`[[:alpha:` is not closed"),
        ("[a-", 1, "`[a-` is not closed"),
        ("[z-a]", 2, "`z-a` is no range of characters"),
        ("[[:alfa:]]", 2, "`[:alfa:]` is no range of characters"),
        (r"\pQ", 1, r"`\pQ` is no range of characters"),
        (r"\p{Alphabetic}", 1, r"`\p{Alphabetic}` is no range of characters"),
        (r"\p{gc=L}", 1, r"`\p{gc=L}` is no range of characters"),
        (r"\p{}", 1, r"`\p{}` is no range of characters"),
        (r"\p{Greek", 1, r"`\p{Greek` is no range of characters"),
        (r"a\p", 2, r"`\p` is no range of characters"),
        (r"\pé", 1, r"`\pé` is no range of characters"),
        ("(a", 3, "a `(` is not closed"),
        ("a)", 2, "this `)` closes nothing"),
        ("*a", 1, "`*` has nothing to repeat"),
        ("(+)", 2, "`+` has nothing to repeat"),
        ("a|?", 3, "`?` has nothing to repeat"),
        ("(?i)*", 5, "`*` has nothing to repeat"),
        (r"\Q\E*", 5, "`*` has nothing to repeat"),
        ("{1}", 1, "`{` has nothing to repeat"),
        ("a**", 3, "`**` repeats a repetition"),
        ("a*?{2}", 4, "`*?{2}` repeats a repetition"),
        ("a{2}{3}", 5, "`{2}{3}` repeats a repetition"),
        ("a{1001}", 2, "`{1001}` is no count"),
        ("a{99999999999999999999}", 2, "`{99999999999999999999}` is no count"),
        ("a{1001,}", 2, "`{1001,}` is no count"),
        ("a{3,2}", 2, "`{3,2}` is no count"),
        ("(a{100}b){11}", 10, "`{11}` is no count"),
        ("(?P<>a)", 1, "`(?P<>` is no name of a group"),
        ("(?P<x y>a)", 1, "`(?P<x y>` is no name of a group"),
        ("(?P<n", 1, "`(?P<n` is no name of a group"),
        ("(?<!a)", 1, "`(?<!a)` is no name of a group"),
        ("(?=a)", 1, "`(?=` is not supported"),
        ("(?x)a", 1, "`(?x` is not supported"),
        ("(?i-)a", 1, "`(?i-)` is not supported"),
        ("(?i--s)a", 1, "`(?i--` is not supported"),
        ("(?i", 1, "`(?i` is not supported"),
    ] {
        let error = compile(pattern).expect_err(pattern).to_string();
        assert!(error.starts_with(&format!("at octet {at}: {says}")), "{pattern}: {error}");
    }
}

#[test]
fn groups_have_names_as_in_go() {
    let regex = compile(r"(?P<a>x)(y)(?<1b>z)(?P<a>w)|(?P<none>v)").unwrap();
    assert_eq!(regex.group_names().collect::<Vec<_>>(), [None, Some("a"), None, Some("1b"), Some("a"), Some("none")]);
    assert_eq!(regex.group_count(), 6);
    assert_eq!(regex.groups("-xyzw-").unwrap(), ["xyzw", "x", "y", "z", "w", ""]);
}

/// Found by fuzzing: the crate leaves out groups that match no times, and those at the end were missing from `.Match`.
#[test]
fn a_group_that_matches_no_times_is_a_group_and_empty() {
    for (pattern, expected) in [
        ("x(a){0}", vec!["x", ""]),
        ("(a){0}(?P<b>x)", vec!["x", "", "x"]),
        ("(x(a){0,0})", vec!["x", "x", ""]),
        ("((a)b){0}", vec!["", "", ""]),
    ] {
        let regex = compile(pattern).unwrap();
        assert_eq!((regex.groups("x"), regex.group_count()), (Some(expected.clone()), expected.len()), "{pattern}");
    }
}

#[test]
fn sizes_are_bounded() {
    let error = compile(&"a".repeat(PATTERN_OCTETS + 1)).unwrap_err();
    assert_eq!(error.problem, RegexProblem::TooLong(PATTERN_OCTETS + 1));
    assert!(compile(&"a".repeat(PATTERN_OCTETS)).is_ok());
    assert_eq!(compile(r"(\pL{100}){10}").unwrap_err().problem, RegexProblem::TooLarge);
    // Each character of these is looked at for its other cases.
    assert!(compile(r"(?i)\pL[^\x{80}-\x{10ffff}\pN]").is_ok());
    assert_eq!(compile(&r"(?i)\pL".repeat(1400)).unwrap_err().problem, RegexProblem::TooLarge);
    assert_eq!(compile(&r"(?i)[a-\x{10ffff}]".repeat(500)).unwrap_err().problem, RegexProblem::TooLarge);
    let error = compile(&"[".repeat(PATTERN_OCTETS)).unwrap_err();
    assert_eq!(error.problem, RegexProblem::MissingBracket(format!("{}…", "[".repeat(32))));
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), "|b)*".repeat(depth));
    assert!(compile(&nested(50)).unwrap().is_match("ab"));
    assert_eq!(compile(&nested(51)).unwrap_err().problem, RegexProblem::TooDeep);
}

/// Pieces that patterns are made of, whole and cut.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "a",
        "é",
        ".",
        "*",
        "+",
        "?",
        "|",
        "(",
        ")",
        "[",
        "]",
        "^",
        "-",
        "{",
        "}",
        "{2}",
        "{1,3}",
        "{,",
        "\\",
        "\\d",
        "\\Q",
        "\\E",
        "\\pL",
        "\\p{",
        "Greek}",
        "[:alpha:]",
        "[^",
        "(?P<n>",
        "(?i)",
        "(?U:",
        "(?-s",
        "\\x{41}",
        "\\x",
        "\\07",
        "\\b",
        "\\B",
        "$",
        "\\z",
        ",",
        "1",
        "000",
        "&&",
        "~~",
        "\\C",
        "K",
    ]);
    prop_oneof![known.prop_map(str::to_owned), any::<char>().prop_map(String::from)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_pattern_panics_and_what_is_taken_can_match(pieces in prop::collection::vec(piece(), 0..24), text in "[a-c\\[\\]{}é0-9]{0,12}") {
        let pattern = pieces.concat();
        match compile(&pattern) {
            Ok(regex) => {
                let groups = regex.groups(&text);
                prop_assert_eq!(groups.is_some(), regex.is_match(&text));
            }
            Err(error) => {
                prop_assert!(error.at <= pattern.len() && pattern.is_char_boundary(error.at), "{:?}: {}", pattern, error);
                // All that is wrong is told in our words.
                prop_assert!(!matches!(error.problem, RegexProblem::Other(_)), "{pattern:?}: {error}");
            }
        }
    }

    #[test]
    fn a_quoted_text_matches_itself_and_nothing_else(text in "[^\\\\]{0,20}", other in ".{0,20}") {
        let regex = compile(&format!("^\\Q{text}\\E$")).unwrap();
        prop_assert!(regex.is_match(&text));
        prop_assert_eq!(regex.is_match(&other), other == text);
    }
}

#[test]
fn groups_are_given_by_number_and_one_that_took_no_part_is_empty() {
    let regex = compile("(a)|(b)(c)?").unwrap();
    let groups =
        |text: &str| regex.with_groups(text, |group| (0..5).map(|index| group(index).to_owned()).collect::<Vec<_>>());
    for _ in 0..3 {
        assert_eq!(groups("xb").unwrap(), ["b", "", "b", "", ""]);
        assert_eq!(groups("abc").unwrap(), ["a", "a", "", "", ""]);
        assert_eq!(groups("x"), None);
    }
}
