//! A template of Go and, after an octet of zero, a name: refused with a place in the template, or run within its
//! bounds, with the same result each time.

use nodelocaldns::go_template::{OUTPUT_OCTETS, Template, TemplateData, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Fields such as the directive gives.
struct Fields(String);

impl TemplateData for Fields {
    fn kind(&self) -> &'static str {
        "the data"
    }
    fn field(&self, name: &str) -> Option<Value> {
        let parts = || self.0.split('.').map(Value::text);
        Some(match name {
            "Name" | "Zone" | "Class" | "Type" => Value::text(self.0.as_str()),
            "Match" => Value::List(parts().collect()),
            "Group" => {
                let numbered = parts().enumerate().map(|(index, part)| (index.to_string(), part));
                Value::Map(Arc::new(numbered.collect::<BTreeMap<_, _>>()))
            }
            "Question" => Value::Object(Arc::new(Self(self.0.clone()))),
            "Qtype" => Value::Uint(self.0.len() as u64),
            "Nothing" => Value::Nil,
            _ => return None,
        })
    }
    fn call(&self, name: &str, argument: &str) -> Option<Value> {
        (name == "Meta").then(|| Value::text(argument))
    }
    fn has_method(&self, name: &str) -> bool {
        name == "Meta"
    }
}

/// Panics if a template does what it must not.
pub fn run(octets: &[u8]) {
    let Ok(input) = std::str::from_utf8(octets) else { return };
    let (text, name) = input.split_once('\0').unwrap_or((input, "ip-10-0-0-1.example."));
    let name: String = name.chars().take(1004).collect();
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(error) => {
            assert!(error.at <= text.len() && text.is_char_boundary(error.at), "{error}");
            return;
        }
    };
    assert!(template.root_fields().all(|(at, _)| at < text.len()));
    let run = || template.execute(Value::Object(Arc::new(Fields(name.clone()))));
    let made = run();
    assert_eq!(made, run());
    match made {
        Ok(made) => {
            assert!(made.len() <= OUTPUT_OCTETS);
            if template.depends_on_none_but(&[]) {
                assert_eq!(Ok(made), template.execute(Value::Missing));
            }
        }
        Err(error) => assert!(error.at <= text.len(), "{error}"),
    }
}
