//! Classes of characters: `[…]`, `\d`, `\pN`, `[:alpha:]`.

use super::error::{RegexError, RegexProblem, clip};
use super::escape;
use std::collections::HashMap;
use std::fmt::Write;

/// A class that no character is in, as the crate writes it.
const NOTHING: &str = r"[^\x00-\x{10FFFF}]";
const EVERYTHING: &str = r"[\x00-\x{10FFFF}]";

/// The last character that has another case.
const LAST_CASED: u32 = 0x1_e943;
/// What a Unicode class counts for: the largest with case, `L`, has so many characters.
const FOLDABLE_OF_UNICODE: usize = 140_000;

/// A class as the crate writes it.
pub(super) struct CharacterClass {
    pub text: String,
    /// How many of its characters may have another case, apart from ASCII.
    pub foldable: usize,
}

impl CharacterClass {
    pub(super) fn ascii(text: &str) -> Self {
        Self { text: text.to_owned(), foldable: 0 }
    }
}

/// Names of Unicode classes looked up so far, in the form of the crate; `None` for those that there are not.
#[derive(Default)]
pub(super) struct UnicodeNames(HashMap<String, Option<&'static str>>);

/// The class that an escape of Perl stands for, in ASCII, as in Go.
pub(super) fn perl(kind: char) -> Option<&'static str> {
    Some(match kind {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        's' => r"[\t\n\x0C\r ]",
        'S' => r"[^\t\n\x0C\r ]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        _ => return None,
    })
}

impl UnicodeNames {
    /// Reads `\pN`, `\p{Greek}`, `\p{^Greek}`, `\PN` at the beginning of `text`: the class, and the octets it took.
    pub(super) fn read(&mut self, text: &str, at: usize) -> Result<(CharacterClass, usize), RegexError> {
        let refuse = |shown: &str| RegexError { at, problem: RegexProblem::Range(clip(shown)) };
        let mut is_negated = text.starts_with("\\P");
        let rest = text.get(2..).unwrap_or_default();
        let (mut name, taken) = match rest.chars().next() {
            None => return Err(refuse(text)),
            Some('{') => match rest.split_once('}') {
                Some((name, _)) => (name.get(1..).unwrap_or_default(), name.len() + 1),
                None => return Err(refuse(text)),
            },
            Some(letter) => (rest.get(..letter.len_utf8()).unwrap_or_default(), letter.len_utf8()),
        };
        if let Some(after) = name.strip_prefix('^') {
            is_negated = !is_negated;
            name = after;
        }
        let whole = text.get(..2 + taken).unwrap_or(text);
        let letters: String = name.chars().filter(|letter| !matches!(letter, '_' | '-' | ' ')).collect();
        if letters.is_empty() || !letters.chars().all(|letter| letter.is_ascii_alphanumeric()) {
            return Err(refuse(whole));
        }
        let letters = letters.to_ascii_lowercase();
        let negation = if is_negated { "P" } else { "p" };
        let text = match letters.as_str() {
            "any" => if is_negated { NOTHING } else { EVERYTHING }.to_owned(),
            "ascii" => if is_negated { r"[^\x00-\x7F]" } else { r"[\x00-\x7F]" }.to_owned(),
            // No text has a surrogate.
            "cs" | "surrogate" => if is_negated { EVERYTHING } else { NOTHING }.to_owned(),
            _ => {
                let kind = *self.0.entry(letters.clone()).or_insert_with(|| kind_of(&letters));
                format!("\\{negation}{{{}={letters}}}", kind.ok_or_else(|| refuse(whole))?)
            }
        };
        Ok((CharacterClass { text, foldable: FOLDABLE_OF_UNICODE }, 2 + taken))
    }
}

/// Whether a name is a general category or a script.
fn kind_of(name: &str) -> Option<&'static str> {
    ["gc", "sc"].into_iter().find(|kind| regex_syntax::parse(&format!("\\p{{{kind}={name}}}")).is_ok())
}

/// Reads the class at the beginning of `text`, which begins with `[`: the class in the form of the crate, and the
/// octets it took.
pub(super) fn read(text: &str, at: usize, names: &mut UnicodeNames) -> Result<(CharacterClass, usize), RegexError> {
    let mut class = String::from("[");
    let mut foldable = 0_usize;
    let mut next = 1;
    if text[next..].starts_with('^') {
        class.push('^');
        next += 1;
    }
    let content = class.len();
    let missing = || RegexError { at, problem: RegexProblem::MissingBracket(clip(text)) };
    let mut is_first = true;
    loop {
        let rest = &text[next..];
        if rest.starts_with(']') && !is_first {
            break;
        }
        if rest.is_empty() {
            return Err(missing());
        }
        is_first = false;
        if let Some((named, taken)) = posix(rest, at + next)? {
            class.push_str(named);
            next += taken;
        } else if rest.starts_with("\\p") || rest.starts_with("\\P") {
            let (unicode, taken) = names.read(rest, at + next)?;
            class.push_str(&unicode.text);
            foldable = foldable.saturating_add(unicode.foldable);
            next += taken;
        } else if let Some(perl) = rest.strip_prefix('\\').and_then(|after| after.chars().next()).and_then(perl) {
            class.push_str(perl);
            next += 2;
        } else {
            let ((low, high), taken) = range(rest, at + next).map_err(|error| error.unwrap_or_else(missing))?;
            push_range(&mut class, low, high);
            foldable =
                foldable.saturating_add((high.min(LAST_CASED) as usize + 1).saturating_sub(low.max(0x80) as usize));
            next += taken;
        }
    }
    // The crate has no class without content.
    if class.len() == content {
        return Ok((CharacterClass::ascii(if content == 1 { NOTHING } else { EVERYTHING }), next + 1));
    }
    class.push(']');
    Ok((CharacterClass { text: class, foldable }, next + 1))
}

/// A character, or two with `-` between them: the first and the last, and the octets taken. `Err(None)`: the text
/// ends here.
fn range(text: &str, at: usize) -> Result<((u32, u32), usize), Option<RegexError>> {
    let (low, mut taken) = character(text, at)?;
    let mut high = low;
    if let Some(after) = text[taken..].strip_prefix('-').filter(|after| !after.is_empty() && !after.starts_with(']')) {
        let (end, more) = character(after, at + taken + 1)?;
        (high, taken) = (end, taken + 1 + more);
        if high < low {
            return Err(Some(RegexError { at, problem: RegexProblem::Range(text[..taken].to_owned()) }));
        }
    }
    Ok(((low, high), taken))
}

fn character(text: &str, at: usize) -> Result<(u32, usize), Option<RegexError>> {
    match text.chars().next() {
        None => Err(None),
        Some('\\') => escape::read(text, at).map_err(Some),
        Some(character) => Ok((u32::from(character), character.len_utf8())),
    }
}

/// Appends the characters from `low` to `high`, without surrogates.
fn push_range(class: &mut String, low: u32, high: u32) {
    const SURROGATES: (u32, u32) = (0xd800, 0xdfff);
    for (low, high) in [(low, high.min(SURROGATES.0 - 1)), (low.max(SURROGATES.1 + 1), high)] {
        if low <= high {
            _ = write!(class, "\\x{{{low:X}}}-\\x{{{high:X}}}");
        }
    }
}

/// A class of POSIX such as `[:alpha:]` or `[:^alpha:]`, if one stands at the beginning of `text`.
fn posix(text: &str, at: usize) -> Result<Option<(&'static str, usize)>, RegexError> {
    let Some(end) = text.strip_prefix("[:").and_then(|inner| inner.find(":]")) else { return Ok(None) };
    let whole = &text[..end + 4];
    let known = POSIX.iter().find(|name| **name == whole);
    match known {
        Some(name) => Ok(Some((name, whole.len()))),
        None => Err(RegexError { at, problem: RegexProblem::Range(clip(whole)) }),
    }
}

/// Go and the crate mean the same by them.
const POSIX: [&str; 28] = [
    "[:alnum:]",
    "[:^alnum:]",
    "[:alpha:]",
    "[:^alpha:]",
    "[:ascii:]",
    "[:^ascii:]",
    "[:blank:]",
    "[:^blank:]",
    "[:cntrl:]",
    "[:^cntrl:]",
    "[:digit:]",
    "[:^digit:]",
    "[:graph:]",
    "[:^graph:]",
    "[:lower:]",
    "[:^lower:]",
    "[:print:]",
    "[:^print:]",
    "[:punct:]",
    "[:^punct:]",
    "[:space:]",
    "[:^space:]",
    "[:upper:]",
    "[:^upper:]",
    "[:word:]",
    "[:^word:]",
    "[:xdigit:]",
    "[:^xdigit:]",
];
