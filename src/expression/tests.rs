//! Tables of expressions: what they give, and what is refused.

use super::error::Problem;
use super::types::Element;
use super::*;
use proptest::prelude::*;
use std::borrow::Cow;

/// The query of these tests.
struct Query;

const FUNCTIONS: &[Function] = &[
    Function { name: "name", parameters: &[], returns: Type::Text, prepare: None },
    Function { name: "type", parameters: &[], returns: Type::Text, prepare: None },
    Function { name: "size", parameters: &[], returns: Type::Int, prepare: None },
    Function { name: "do", parameters: &[], returns: Type::Bool, prepare: None },
    Function { name: "fails", parameters: &[], returns: Type::Bool, prepare: None },
    Function { name: "even", parameters: &[Type::Int], returns: Type::Bool, prepare: Some(prepare_even) },
    Function { name: "anything", parameters: &[Type::Any], returns: Type::Any, prepare: None },
];

/// Knows the answer of a constant before.
fn prepare_even(arguments: &[Option<&Value<'static>>]) -> Result<Option<Prepared>, String> {
    match arguments {
        [Some(Value::Int(number))] if *number < 0 => Err("it is negative".to_owned()),
        [Some(Value::Int(number))] => Ok(Some(Arc::new(number % 2 == 0))),
        _ => Ok(None),
    }
}

impl Environment for Query {
    fn call<'v>(
        &'v self,
        function: usize,
        prepared: Option<&Prepared>,
        arguments: &[Value<'v>],
    ) -> Result<Value<'v>, EvaluationError> {
        Ok(match (FUNCTIONS[function].name, arguments) {
            ("name", _) => Value::Text(Cow::Borrowed("abc.d.example.com.")),
            ("type", _) => Value::text("AAAA"),
            ("size", _) => Value::Int(40),
            ("do", _) => Value::Bool(true),
            ("even", [Value::Int(number)]) => {
                let known = prepared.and_then(|known| known.downcast_ref::<bool>());
                Value::Bool(known.copied().unwrap_or(number % 2 == 0))
            }
            ("anything", [value]) => value.clone(),
            _ => return Err(EvaluationError::Value("no value".to_owned())),
        })
    }
}

fn parse(text: &str) -> Result<Expression, ExpressionError> {
    Expression::parse(text, FUNCTIONS, &Patterns::default())
}

/// What an expression gives, in the words of these tests; of an error what it says.
fn value(text: &str) -> String {
    fn told(value: &Value<'_>) -> String {
        match value {
            Value::Nil => "nil".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Float(number) => format!("{number:?}"),
            Value::Text(text) => format!("{text:?}"),
            Value::List(list) => format!("[{}]", list.iter().map(told).collect::<Vec<_>>().join(", ")),
        }
    }
    match parse(text) {
        Err(error) => error.to_string(),
        Ok(expression) => match expression.evaluate(&Query) {
            Ok(value) => told(&value),
            Err(error) => format!("fails: {error}"),
        },
    }
}

fn assert_values(table: &[(&str, &str)]) {
    for (text, expected) in table {
        assert_eq!(value(text), *expected, "{text}");
    }
}

#[test]
fn operators_bind_and_give_what_the_language_says() {
    assert_values(&[
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 - 2 - 1", "4"),
        ("7 / 2", "3.5"),
        ("7 % 4", "3"),
        ("2 ** 3 ** 2", "512.0"),
        ("2 ^ 3", "8.0"),
        ("-2 ** 2", "-4.0"),
        ("- size()", "-40"),
        ("+5", "5"),
        ("1.5 + 1", "2.5"),
        ("0x1F + 0b11 + 0o17 + 1_000", "1049"),
        (".5 + 1e2", "100.5"),
        ("1..4", "[1, 2, 3, 4]"),
        ("2..1", "[]"),
        ("1 in 1..3", "true"),
        ("'a' + \"b\" + `c\\d`", "\"abc\\\\d\""),
        ("true || fails()", "true"),
        ("false && fails()", "false"),
        ("true and false or true", "true"),
        ("true or false and false", "true"),
        ("not true or true", "true"),
        ("!do()", "false"),
        ("1 == 1.0", "true"),
        ("'1' != '2'", "true"),
        ("nil == nil", "true"),
        ("nil ?? 'x'", "\"x\""),
        ("'a' ?? 'x'", "\"a\""),
        ("'a' < 'b'", "true"),
        ("1 < 2 <= 2 < 3", "true"),
        ("1 < 3 < 2", "false"),
        ("[1, 2] == [1, 2]", "true"),
        ("[1, 2] == [1, 3]", "false"),
        ("do() ? 'yes' : 'no'", "\"yes\""),
        ("false ? 1 : true ? 2 : 3", "2"),
        ("false ?: true", "true"),
        ("9223372036854775807 + 1", "-9223372036854775808"),
    ]);
}

#[test]
fn texts_are_asked_and_changed_as_the_language_says() {
    assert_values(&[
        ("name() == 'abc.d.example.com.'", "true"),
        ("name() matches '^abc\\\\..*\\\\.example\\\\.com\\\\.$'", "true"),
        ("name() matches `^\\d`", "false"),
        ("name() not matches 'xyz'", "true"),
        ("name() contains '.d.'", "true"),
        ("name() startsWith 'abc'", "true"),
        ("name() not startsWith 'abc'", "false"),
        ("name() endsWith \".com.\"", "true"),
        ("type() in ['A', 'AAAA']", "true"),
        ("type() not in ['A', 'AAAA']", "false"),
        ("len(name())", "18"),
        ("len('häß')", "3"),
        ("upper('aß') + lower('ÄB') + lower('plain')", "\"ASSäbplain\""),
        ("trim('  x ') + trim('--x-', '-')", "\"xx\""),
        ("trimPrefix('ab', 'a') + trimSuffix('ab', 'b')", "\"ba\""),
        ("split('a.b.c', '.')", "[\"a\", \"b\", \"c\"]"),
        ("split('a.b.c', '.', 2)", "[\"a\", \"b.c\"]"),
        ("split('abc', '')", "[\"a\", \"b\", \"c\"]"),
        ("split('', '.')", "[\"\"]"),
        ("splitAfter('a.b', '.')", "[\"a.\", \"b\"]"),
        ("replace('aXbX', 'X', '-')", "\"a-b-\""),
        ("replace('aXbX', 'X', '-', 1)", "\"a-bX\""),
        ("repeat('ab', 3)", "\"ababab\""),
        ("join(['a', 'b'], '/') + join(['c', 'd'])", "\"a/bcd\""),
        ("indexOf('abc', 'c') + lastIndexOf('aba', 'a') + indexOf('a', 'x')", "3"),
        ("hasPrefix('abc', 'ab') && hasSuffix('abc', 'bc')", "true"),
        ("'abcd'[1:3] + 'abcd'[-1:] + 'abcd'[:1] + 'ab'[5:]", "\"bcda\""),
        ("name() | split('.') | len()", "5"),
        ("split(name(), '.')[-2]", "\"com\""),
        ("split(name(), '.')[1:3]", "[\"d\", \"example\"]"),
        ("int('12') + int(3.9) + int(2)", "17"),
        ("float('1.5') + float(1)", "2.5"),
        ("string(12) + string(true) + string('x')", "\"12truex\""),
        ("'a\nb'", "at octet 1: ' is not closed; write ' after it"),
        (r"'\x41\u0042\u{43}\104\t\'\\'", "\"ABCD\\t'\\\\\""),
        ("`a``b`", "\"a`b\""),
        ("'a' /* one */ + 'b' // two", "\"ab\""),
    ]);
}

#[test]
fn lists_numbers_and_predicates_give_what_the_language_says() {
    assert_values(&[
        ("all([1, 2], # > 0)", "true"),
        ("any(['a', 'b'], {# == 'b'})", "true"),
        ("none([1, 2], # == 3)", "true"),
        ("one([1, 2, 2], # == 2)", "false"),
        ("filter(1..5, # % 2 == 0)", "[2, 4]"),
        ("map(1..3, # * #index)", "[0, 2, 6]"),
        ("count([true, false, true])", "2"),
        ("count(1..9, # > 5)", "4"),
        ("sum([1, 2, 3]) + sum(['a', 'bc'], len(#))", "9"),
        ("find(1..5, # > 3)", "4"),
        ("find(1..5, # > 7) == nil", "true"),
        ("findIndex([5, 6], # == 6)", "1"),
        ("findLast(1..5, # < 3)", "2"),
        ("findLastIndex([1, 1], # == 1)", "1"),
        ("any(['ab', 'cd'], name() contains # || any(1..2, # == len('x')))", "true"),
        ("let n = name(); let parts = split(n, '.'); any(parts, {let p = #; p == 'd'}) and n != ''", "true"),
        ("max(1, 5, 3) + min([4, 2]) + abs(-3)", "10"),
        ("max(1, 2.5)", "2.5"),
        ("mean([1, 2])", "1.5"),
        ("ceil(1.2) + floor(1.8) + round(2.5)", "6.0"),
        ("first([1, 2]) + last([1, 2])", "3"),
        ("first(filter([1], # == 2)) == nil", "true"),
        ("take([1, 2, 3], 2)", "[1, 2]"),
        ("reverse(concat([1], [2, 3]))", "[3, 2, 1]"),
        ("uniq([1, 2, 1])", "[1, 2]"),
        ("bitand(6, 3) + bitor(4, 1) + bitxor(7, 2) + bitnand(7, 3) + bitnot(0)", "15"),
        ("bitshl(1, 4) + bitshr(-8, 1) + bitushr(8, 2)", "14"),
        ("[1, 'a', true,]", "[1, \"a\", true]"),
        ("even(4) && even(size())", "true"),
        ("anything(1) + 1", "2"),
    ]);
}

#[test]
fn what_has_no_value_fails_when_it_is_asked_for() {
    assert_values(&[
        ("fails()", "fails: no value"),
        ("1 % 0", "fails: a division by zero"),
        ("[1][1]", "fails: there is no element 1 of 1"),
        ("[1][-2]", "fails: there is no element -2 of 1"),
        ("anything('a') + 1", "fails: `+` does not go with string"),
        ("anything('a') && true", "fails: `and` does not go with string"),
        ("anything(1) matches 'a'", "fails: `matches` does not go with int"),
        ("int('x')", "fails: a text is no whole number"),
        ("repeat('a', -1)", "fails: a text repeated -1 times"),
        ("max([])", "fails: `max` or `min` of an empty array"),
        ("'ä'[:1]", "fails: a slice that splits a character"),
    ]);
}

#[test]
fn an_evaluation_is_bounded_in_steps_and_in_octets_made() {
    let steps = format!("fails: {}", EvaluationError::Steps);
    let octets = format!("fails: {}", EvaluationError::Octets);
    assert_values(&[
        ("len(1..1000000) > 0", &steps),
        ("len(0..9223372036854775807) > 0", &steps),
        ("any(1..1000, any(1..1000, # == 0))", &steps),
        ("repeat('abcdefgh', 1000000) == ''", &octets),
        ("repeat('a', 9223372036854775807) == ''", &octets),
        ("replace(repeat('a', 1000), 'a', repeat('b', 1000)) == ''", &octets),
        ("join(map(1..1000, repeat('a', 100)), 'x') == ''", &octets),
        ("len(uniq(1..1000)) > 0", &steps),
        ("len(split(repeat('a.', 15000), '.')) > 0", &steps),
        ("let a = repeat('ab', 15000); any(1..12, a matches '(a|b)*a(a|b){700}c')", &steps),
        ("trim(repeat('a', 20000), repeat('b', 20000) + 'a') == ''", "true"),
    ]);
}

#[test]
fn what_is_no_expression_is_refused_with_its_place() {
    assert_values(&[
        ("", "at octet 1: the end stands where a value should"),
        (
            "invalid expression",
            "at octet 1: `invalid` is neither a function nor declared by `let`; texts stand in quotes",
        ),
        ("1 +", "at octet 4: the end stands where a value should"),
        ("1 2", "at octet 3: `2` stands where an operator or the end should"),
        ("(1", "at octet 3: the end stands where `)` should"),
        ("'a", "at octet 1: ' is not closed; write ' after it"),
        ("`a", "at octet 1: ` is not closed; write ` after it"),
        (r"'\q'", r"at octet 2: a backslash in a text begins no escape sequence; write \\ for the backslash itself"),
        ("1 /* x", "at octet 3: a comment is not closed; write */ after it"),
        ("1 ~ 2", "at octet 3: '~' means nothing here"),
        ("0x", "at octet 1: `0x` is no number that there is"),
        ("9223372036854775808", "at octet 1: `9223372036854775808` is no number that there is"),
        ("12ab", "at octet 1: `12ab` is no number that there is"),
        ("nmae() == ''", "at octet 1: `nmae` is no function; did you mean `name`?"),
        ("name == 'x'", "at octet 1: `name` is a function; write `name(…)`"),
        ("type in ['A']", "at octet 1: `type` is a function; write `type(…)`"),
        ("name(1) == 'x'", "at octet 1: `name` is called as `name()`"),
        ("split('a')", "at octet 1: `split` is called as `split(string, string[, int])`"),
        ("len(1)", "at octet 1: `len` is called as `len(string or array)`"),
        ("even('a')", "at octet 1: `even` is called as `even(int)`"),
        ("even(-2)", "at octet 1: `even`: it is negative"),
        ("1 == 'a'", "at octet 3: `==` does not go with int and string"),
        ("not name() == 'a'", "at octet 5: what stands after `not` is string and must be bool"),
        ("name() and true", "at octet 8: `and` does not go with string and bool"),
        ("type() in 'AAAA'", "at octet 8: `in` does not go with string and string"),
        ("1 in ['a']", "at octet 3: `in` does not go with int and array of string"),
        (
            "name() matches type()",
            "at octet 16: what stands after `matches` must be a text in quotes, since patterns are \
         compiled once",
        ),
        ("size() ? 1 : 2", "at octet 1: what stands before `?` is int and must be bool"),
        ("[1]['a']", "at octet 5: an index is string and must be int"),
        ("name()[0]", "at octet 1: what has an index is string and must be an array"),
        ("{a: 1}", "at octet 1: a map of the language expr cannot be used here"),
        ("name().x", "at octet 7: a field of the language expr cannot be used here"),
        ("now() == 1", "at octet 1: `now` of the language expr cannot be used here"),
        ("b'x' == 1", "at octet 1: a text of octets of the language expr cannot be used here"),
        ("let len = 1; len", "at octet 5: `len` is declared already; take another name"),
        ("# == 1", "at octet 1: '#' means nothing here"),
        ("any([1], #)", "at octet 1: what the predicate says is int and must be bool"),
        ("any(1, true)", "at octet 5: what a predicate is asked about is int and must be an array"),
        ("sum(['a'])", "at octet 1: what is summed is string and must be a number"),
        ("true not or false", "at octet 6: `not` stands where an operator or the end should"),
    ]);
    assert!(value("name() matches '('").starts_with("at octet 16: the pattern is wrong: "));
    assert!(value("any([1])").contains("`any(array, predicate)`"));
}

#[test]
fn no_text_is_too_deep_or_too_long_to_be_refused() {
    for (open, close) in [
        ("(", ")"),
        ("!", ""),
        ("-", ""),
        ("[", "]"),
        ("1 + (", ")"),
        ("1 ** ", ""),
        ("true ? 1 : ", ""),
        ("len([", "])"),
        ("any([1], ", ")"),
        ("let a = 1; ", ""),
        ("1 < ", ""),
        ("[0][", "]"),
    ] {
        let text = format!("{}1{}", open.repeat(3000 / open.len()), close.repeat(3000 / open.len()));
        let problem = parse(&text).unwrap_err().problem;
        assert!(matches!(problem, Problem::TooDeep | Problem::Redeclared(_) | Problem::WrongType { .. }), "{problem}");
    }
    let sum = parse(&vec!["1"; 100].join(" + ")).unwrap_err();
    assert_eq!(sum.problem, Problem::TooDeep, "a chain of operators is as deep as it is long");
    let alternatives = vec!["name() == 'x'"; 900].join(" or ");
    assert_eq!(value(&alternatives), "false", "but alternatives stand side by side");
    let long = " ".repeat(EXPRESSION_OCTETS + 1);
    assert_eq!(parse(&long).unwrap_err().problem, Problem::TooLong(long.len()));
}

#[test]
fn who_reads_an_expression_knows_its_type_and_what_it_calls() {
    let kind = |text: &str| parse(text).unwrap().kind();
    assert_eq!(kind("name() == 'a'"), Type::Bool);
    assert_eq!(kind("size()"), Type::Int);
    assert_eq!(kind("size() / 2"), Type::Float);
    assert_eq!(kind("do() ? 1 : 'a'"), Type::Any);
    assert_eq!(kind("['a', 'b']"), Type::List(Element::Text));
    assert_eq!(kind("[1, 'b']"), Type::List(Element::Any));
    assert_eq!(kind("anything(1) && true"), Type::Bool);
    let expression = parse("type() == 'A' ? name() == 'x' : false").unwrap();
    let called: Vec<&str> =
        FUNCTIONS.iter().enumerate().filter(|(place, _)| expression.calls(*place)).map(|(_, f)| f.name).collect();
    assert_eq!(called, ["name", "type"]);
}

/// Texts that are often expressions.
fn some_expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "2.5",
        "'a'",
        "true",
        "nil",
        "name()",
        "size()",
        "do()",
        "[1, 2]",
        "[]",
        "anything(1)",
        "#",
        "'.'",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 3, |inner| {
        let operator = prop::sample::select(vec![
            "==", "!=", "<", "<=", ">", "+", "-", "*", "/", "%", "**", "and", "or", "in", "contains", "..", "??",
            "not in",
        ]);
        let function =
            prop::sample::select(vec!["len", "split", "any", "map", "max", "join", "repeat", "first", "sum"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(left, how, right)| format!("{left} {how} {right}")),
            (function, inner.clone(), inner.clone()).prop_map(|(name, one, two)| format!("{name}({one}, {two})")),
            (inner.clone(), inner.clone()).prop_map(|(one, two)| format!("({one})[{two}:]")),
            (inner.clone(), inner.clone(), inner).prop_map(|(one, two, three)| format!("{one} ? {two} : {three}")),
        ]
    })
}

/// Texts of the characters that expressions have.
const SOME_WORDS: &str = "[-a-z0-9'\"`#(){}\\[\\]?:.,;|<>=!&+*/% \\\\]{0,60}";

proptest! {
    #[test]
    fn nothing_that_is_written_panics(text in prop_oneof![some_expression(), "\\PC{0,60}", SOME_WORDS]) {
        match parse(&text) {
            Ok(expression) => {
                if let Ok(value) = expression.evaluate(&Query) {
                    let kind = expression.kind();
                    prop_assert!(value.is_of(kind), "{text} is {value:?}, said to be {kind}");
                }
            }
            Err(error) => prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at), "{text}: {error}"),
        }
    }
}
