//! A pattern of Go, written as one of the `regex` crate: flags are resolved, every character is written by its
//! number, so that nothing has
//! another meaning there.

use super::class::{self, CharacterClass, UnicodeNames};
use super::error::{GROUP_DEPTH, RegexError, RegexProblem, clip};
use super::escape;

/// Characters of all classes whose case is ignored, outside ASCII: the crate looks at each.
const FOLDED_CHARACTERS: usize = 2_000_000;
/// The largest count in `{ }`, and the largest product of those within each other.
const COUNT: u64 = 1000;

pub(super) struct Translated {
    pub pattern: String,
    /// From group 0, the whole match.
    pub names: Vec<Option<String>>,
}

/// What `(?…)` sets.
#[derive(Clone, Copy, Default)]
struct GroupFlags {
    ignores_case: bool,
    many_lines: bool,
    dot_is_any: bool,
    is_lazy: bool,
}

/// What a repetition would repeat.
#[derive(Clone, Copy)]
struct Item {
    /// Where it begins in the translated pattern.
    start: usize,
    is_repeated: bool,
    /// The product of the counts within.
    counts: u64,
}

/// A group that is open.
struct Group {
    /// Where it begins in the translated pattern.
    start: usize,
    /// Those outside it.
    flags: GroupFlags,
    /// The largest product of counts before it, in the group that it is in.
    counts: u64,
}

struct Translation<'a> {
    pattern: &'a str,
    at: usize,
    out: String,
    flags: GroupFlags,
    groups: Vec<Group>,
    last: Option<Item>,
    /// Of the items so far in this group.
    counts: u64,
    /// What was read just now is a repetition.
    repetition: Option<usize>,
    names: Vec<Option<String>>,
    unicode: UnicodeNames,
    folded_characters: usize,
}

/// Translates a pattern.
pub(super) fn translate(pattern: &str) -> Result<Translated, RegexError> {
    let mut translation = Translation {
        pattern,
        at: 0,
        out: String::with_capacity(2 * pattern.len()),
        flags: GroupFlags::default(),
        groups: Vec::new(),
        last: None,
        counts: 1,
        repetition: None,
        names: vec![None],
        unicode: UnicodeNames::default(),
        folded_characters: 0,
    };
    while translation.at < pattern.len() {
        translation.step()?;
    }
    if !translation.groups.is_empty() {
        return Err(translation.wrong(RegexProblem::MissingParenthesis));
    }
    Ok(Translated { pattern: translation.out, names: translation.names })
}

impl Translation<'_> {
    fn rest(&self) -> &str {
        self.pattern.get(self.at..).unwrap_or_default()
    }
    fn wrong(&self, problem: RegexProblem) -> RegexError {
        RegexError { at: self.at, problem }
    }

    fn step(&mut self) -> Result<(), RegexError> {
        let before = self.repetition.take();
        let Some(first) = self.rest().chars().next() else { return Ok(()) };
        match first {
            '(' if self.rest().starts_with("(?") => self.special_group()?,
            '(' => {
                self.open("(", self.flags)?;
                self.names.push(None);
                self.at += 1;
            }
            ')' => self.close()?,
            '|' => {
                self.out.push('|');
                self.last = None;
                self.at += 1;
            }
            '^' => self.push_item(if self.flags.many_lines { "(?m:^)" } else { r"\A" }, 1),
            '$' => self.push_item(if self.flags.many_lines { "(?m:$)" } else { r"\z" }, 1),
            '.' => self.push_item(if self.flags.dot_is_any { "(?s:.)" } else { r"[^\n]" }, 1),
            '[' => {
                let rest = self.pattern.get(self.at..).unwrap_or_default();
                let (class, taken) = class::read(rest, self.at, &mut self.unicode)?;
                self.push_class(&class, taken)?;
            }
            '*' | '+' | '?' => self.repeat(before, &first.to_string(), 1, 1)?,
            '{' => match read_counts(self.rest()) {
                Some((counts, taken)) => self.counted(before, counts, taken)?,
                None => self.push_character('{'.into(), 1),
            },
            '\\' => self.escape()?,
            _ => self.push_character(first.into(), first.len_utf8()),
        }
        Ok(())
    }

    fn push_item(&mut self, text: &str, taken: usize) {
        self.last = Some(Item { start: self.out.len(), is_repeated: false, counts: 1 });
        self.out.push_str(text);
        self.at += taken;
    }

    /// A class that stands for one character, with the case flag.
    fn push_class(&mut self, class: &CharacterClass, taken: usize) -> Result<(), RegexError> {
        if !self.flags.ignores_case {
            self.push_item(&class.text, taken);
            return Ok(());
        }
        self.folded_characters = self.folded_characters.saturating_add(class.foldable);
        if self.folded_characters > FOLDED_CHARACTERS {
            return Err(self.wrong(RegexProblem::TooLarge));
        }
        self.push_item(&format!("(?i:{})", class.text), taken);
        Ok(())
    }

    fn push_character(&mut self, value: u32, taken: usize) {
        match char::from_u32(value) {
            Some(plain) if plain.is_ascii_digit() || (plain.is_ascii_alphabetic() && !self.flags.ignores_case) => {
                self.push_item(plain.encode_utf8(&mut [0; 4]), taken);
            }
            Some(_) if self.flags.ignores_case => self.push_item(&format!("(?i:\\x{{{value:X}}})"), taken),
            Some(_) => self.push_item(&format!("\\x{{{value:X}}}"), taken),
            // A surrogate, which no text has.
            None => self.push_item(r"[^\x00-\x{10FFFF}]", taken),
        }
    }

    fn escape(&mut self) -> Result<(), RegexError> {
        let pattern = self.pattern;
        let rest = pattern.get(self.at..).unwrap_or_default();
        let kind = rest.chars().nth(1);
        match kind {
            Some('A') => self.push_item(r"\A", 2),
            Some('z') => self.push_item(r"\z", 2),
            Some('b') => self.push_item(r"(?-u:\b)", 2),
            Some('B') => self.push_item(r"(?-u:\B)", 2),
            Some('Q') => {
                let quoted = rest.get(2..).unwrap_or_default();
                let (literal, closing) = quoted.split_once("\\E").map_or((quoted, 0), |(literal, _)| (literal, 2));
                for character in literal.chars() {
                    self.push_character(character.into(), 0);
                }
                self.at += 2 + literal.len() + closing;
            }
            Some('p' | 'P') => {
                let (class, taken) = self.unicode.read(rest, self.at)?;
                self.push_class(&class, taken)?;
            }
            _ => match kind.and_then(class::perl) {
                Some(text) => self.push_class(&CharacterClass::ascii(text), 2)?,
                None => {
                    let (value, taken) = escape::read(rest, self.at)?;
                    self.push_character(value, taken);
                }
            },
        }
        Ok(())
    }

    fn open(&mut self, opening: &str, flags: GroupFlags) -> Result<(), RegexError> {
        if self.groups.len() == GROUP_DEPTH {
            return Err(self.wrong(RegexProblem::TooDeep));
        }
        self.groups.push(Group { start: self.out.len(), flags: self.flags, counts: self.counts });
        self.out.push_str(opening);
        self.flags = flags;
        (self.last, self.counts) = (None, 1);
        Ok(())
    }

    fn close(&mut self) -> Result<(), RegexError> {
        let Some(group) = self.groups.pop() else { return Err(self.wrong(RegexProblem::UnexpectedParenthesis)) };
        self.out.push(')');
        self.flags = group.flags;
        self.last = Some(Item { start: group.start, is_repeated: false, counts: self.counts });
        self.counts = group.counts.max(self.counts);
        self.at += 1;
        Ok(())
    }

    /// `(?P<name>`, `(?<name>`, `(?flags:` or `(?flags)`.
    fn special_group(&mut self) -> Result<(), RegexError> {
        let rest = self.pattern.get(self.at..).unwrap_or_default();
        if let Some(named) = rest.strip_prefix("(?P<").or_else(|| rest.strip_prefix("(?<")) {
            let opening = rest.len() - named.len();
            let Some((name, _)) = named.split_once('>') else {
                return Err(self.wrong(RegexProblem::GroupName(clip(rest))));
            };
            let is_name = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_');
            if !is_name {
                return Err(self.wrong(RegexProblem::GroupName(clip(&rest[..opening + name.len() + 1]))));
            }
            self.open("(", self.flags)?;
            self.names.push(Some(name.to_owned()));
            self.at += opening + name.len() + 1;
            return Ok(());
        }
        let (mut flags, mut is_set, mut has_flag) = (self.flags, true, false);
        for (index, character) in rest.char_indices().skip(2) {
            match character {
                'i' => flags.ignores_case = is_set,
                'm' => flags.many_lines = is_set,
                's' => flags.dot_is_any = is_set,
                'U' => flags.is_lazy = is_set,
                '-' if is_set => {
                    (is_set, has_flag) = (false, false);
                    continue;
                }
                ':' | ')' if is_set || has_flag => {
                    match character {
                        ':' => self.open("(?:", flags)?,
                        _ => self.flags = flags,
                    }
                    self.at += index + 1;
                    return Ok(());
                }
                _ => return Err(self.wrong(RegexProblem::GroupKind(clip(&rest[..index + character.len_utf8()])))),
            }
            has_flag = true;
        }
        Err(self.wrong(RegexProblem::GroupKind(clip(rest))))
    }

    fn counted(&mut self, before: Option<usize>, counts: Repetition, taken: usize) -> Result<(), RegexError> {
        let Repetition { least, most } = counts;
        let inner = self.last.map_or(1, |item| item.counts);
        let largest = most.unwrap_or(least);
        // Where nothing is left over, Go does not look at what is within.
        let product = if most == Some(0) { 1 } else { largest.max(1).saturating_mul(inner) };
        if least.max(largest) > COUNT || largest < least || (largest >= 2 && product > COUNT) {
            let text = self.rest().get(..taken).unwrap_or_default();
            return Err(self.wrong(RegexProblem::Count(clip(text))));
        }
        let text = most.map_or_else(|| format!("{{{least},}}"), |most| format!("{{{least},{most}}}"));
        self.repeat(before, &text, taken, product)
    }

    /// Repeats the last item; `before` is where the repetition began that ends here, if one does.
    fn repeat(&mut self, before: Option<usize>, operator: &str, taken: usize, product: u64) -> Result<(), RegexError> {
        let start = self.at;
        let Some(item) = self.last else {
            let first = self.rest().chars().next().unwrap_or_default();
            return Err(self.wrong(RegexProblem::NothingToRepeat(first)));
        };
        let is_question = self.rest().get(taken..).is_some_and(|after| after.starts_with('?'));
        let end = start + taken + usize::from(is_question);
        if let Some(before) = before {
            let text = self.pattern.get(before..end).unwrap_or_default();
            return Err(self.wrong(RegexProblem::RepeatedRepetition(clip(text))));
        }
        // A flag group may stand between the two, which would be read as one here.
        if item.is_repeated {
            self.out.insert_str(item.start, "(?:");
            self.out.push(')');
        }
        self.out.push_str(operator);
        if is_question != self.flags.is_lazy {
            self.out.push('?');
        }
        let counts = product.max(item.counts);
        self.counts = self.counts.max(counts);
        self.last = Some(Item { start: item.start, is_repeated: true, counts });
        self.repetition = Some(start);
        self.at = end;
        Ok(())
    }
}

/// How often an item is repeated. A number that is too large for any count is as `u64::MAX`.
struct Repetition {
    least: u64,
    /// `None`: without end.
    most: Option<u64>,
}

/// `{n}`, `{n,}` or `{n,m}` at the beginning of `text`, and the octets it takes; anything else is a brace.
fn read_counts(text: &str) -> Option<(Repetition, usize)> {
    let inner = text.strip_prefix('{')?;
    let inner = &inner[..inner.bytes().take_while(|octet| octet.is_ascii_digit() || *octet == b',').count()];
    if !text[1 + inner.len()..].starts_with('}') {
        return None;
    }
    let counts = match inner.split_once(',') {
        None => {
            let count = read_count(inner)?;
            Repetition { least: count, most: Some(count) }
        }
        Some((least, "")) => Repetition { least: read_count(least)?, most: None },
        Some((least, most)) => Repetition { least: read_count(least)?, most: Some(read_count(most)?) },
    };
    Some((counts, inner.len() + 2))
}

/// Digits without a leading zero.
fn read_count(text: &str) -> Option<u64> {
    let is_number =
        !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}
