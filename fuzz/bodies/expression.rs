//! An expression and, after an octet of zero, a name: refused with a place in the expression, or evaluated within its
//! bounds, with the same value each time and of the type that was known before.

use nodelocaldns::expression::{Environment, EvaluationError, Expression, Function, Prepared, Type, Value};
use nodelocaldns::go_regex::Patterns;

const FUNCTIONS: &[Function] = &[
    Function { name: "name", parameters: &[], returns: Type::Text, prepare: None },
    Function { name: "type", parameters: &[], returns: Type::Text, prepare: None },
    Function { name: "size", parameters: &[], returns: Type::Int, prepare: None },
    Function { name: "do", parameters: &[], returns: Type::Bool, prepare: None },
    Function { name: "metadata", parameters: &[Type::Text], returns: Type::Text, prepare: None },
    Function { name: "anything", parameters: &[Type::Any], returns: Type::Any, prepare: None },
];

/// A query for a name.
struct Query(String);

impl Environment for Query {
    fn call<'v>(
        &'v self,
        function: usize,
        _prepared: Option<&Prepared>,
        arguments: &[Value<'v>],
    ) -> Result<Value<'v>, EvaluationError> {
        Ok(match (FUNCTIONS[function].name, arguments) {
            ("name", _) => Value::text(self.0.as_str()),
            ("type", _) => Value::text("AAAA"),
            ("size", _) => Value::Int(i64::try_from(self.0.len()).unwrap_or_default()),
            ("do", _) => Value::Bool(self.0.len().is_multiple_of(2)),
            ("metadata", [Value::Text(label)]) => Value::text(label.chars().rev().collect::<String>()),
            ("anything", [value]) => value.clone(),
            _ => return Err(EvaluationError::Value("no value for that".to_owned())),
        })
    }
}

/// Panics if an expression does what it must not.
pub fn run(octets: &[u8]) {
    let Ok(input) = std::str::from_utf8(octets) else { return };
    let (text, name) = input.split_once('\0').unwrap_or((input, "a.b.example."));
    let query = Query(name.chars().take(1004).collect());
    let expression = match Expression::parse(text, FUNCTIONS, &Patterns::default()) {
        Ok(expression) => expression,
        Err(error) => {
            assert!(error.at <= text.len() && text.is_char_boundary(error.at), "{error}");
            return;
        }
    };
    let value = expression.evaluate(&query);
    // Floating point numbers that are none are not equal to themselves.
    assert_eq!(format!("{value:?}"), format!("{:?}", expression.evaluate(&query)));
    let Ok(value) = value else { return };
    let kind = expression.kind();
    assert!(value.is_of(kind), "{value:?} is said to be {kind}");
}
