//! What is left out of the tests of whole Corefiles: those that have a directive that is not built yet. Read off the
//! program's own list, so that what needs a directive is tested from the day it is there.

use nodelocaldns::directives::{Keyword, ORDER, Support};

/// The first directive of these Corefiles, or of files that one imports, that is refused as "not yet"; `None`: all are
/// built.
pub fn missing_directive<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    texts.into_iter().flat_map(directives).find_map(|word| {
        let refused = |keyword: &&Keyword| keyword.name == word && matches!(keyword.support, Support::Missing { .. });
        ORDER.iter().find(refused).map(|keyword| keyword.name)
    })
}

/// First words of the lines directly inside a block. The brace of a block may be glued to its last zone.
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
                glued if depth == 0 && glued.ends_with('{') => depth = 1,
                _ => {}
            }
        }
    }
    out
}
