//! Which cases are left out: those whose Corefile has a directive that is not built yet. Read off the program's own list, so that
//! a directive's cases run from the day it is there.

use crate::case::Case;
use nodelocaldns::directives::{ORDER, Support};

/// The first directive of the case's Corefiles that is refused as "not yet"; `None`: the case runs.
pub fn missing_directive(case: &Case) -> Option<&'static str> {
    let texts = std::iter::once(&case.corefile).chain(case.files.values());
    texts.flat_map(|text| directives(text)).find_map(|word| {
        let refused = |keyword: &&nodelocaldns::directives::Keyword| {
            keyword.name == word && matches!(keyword.support, Support::Missing { .. })
        };
        ORDER.iter().find(refused).map(|keyword| keyword.name)
    })
}

/// First words of the lines directly inside a block.
fn directives(corefile: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    let mut out = Vec::new();
    for line in corefile.lines() {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        out.extend(words.first().copied().filter(|word| depth == 1 && *word != "}"));
        for word in words {
            match word {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    out
}
