//! Go's regular expressions (RE2 syntax, as package regexp/syntax of Go 1.25 reads it with the Perl flags), for where
//! a Corefile has them.
//! They are translated into those of the `regex` crate, which matches in time linear in the text. Both search for the
//! leftmost match and
//! prefer the first alternative, so what a pattern finds is the same.
//!
//! What is matched is text: domain names in the presentation form of the reference (RFC 1035 section 5.1, fully
//! qualified, octets
//! that are not printable as `\DDD`), log messages, record data. Whether a name is in lower case is up to the
//! directive.

mod class;
mod error;
mod escape;
mod patterns;
#[cfg(test)]
mod tests;
mod translate;

pub(crate) use error::RegexError;
pub use error::RegexProblem;
pub use patterns::Patterns;

use parking_lot::Mutex;
use regex::{CaptureLocations, RegexBuilder};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use std::fmt;
use std::sync::Arc;

/// Octets a pattern may have: the reference's `maxRegexpLen` of errors, rewrite and template.
pub const PATTERN_OCTETS: usize = 10_000;
/// Octets the compiled pattern may take.
const COMPILED_OCTETS: usize = 8 << 20;
/// Octets that the automaton built while matching may take, on each thread that matches, beyond which it begins anew.
/// A usual pattern's takes a tenth.
const AUTOMATON_OCTETS: usize = 64 << 10;
/// Groups and classes within each other in the translated pattern, which has at most four for each of the pattern's
/// own.
const TRANSLATED_DEPTH: u32 = 8 * error::GROUP_DEPTH as u32;

/// As many places of groups are kept for reuse as there are likely to be workers.
const SPARE_LOCATIONS: usize = 64;

/// A compiled pattern. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Regex {
    compiled: regex::Regex,
    source: Arc<str>,
    /// The name of each group, from group 0, the whole match. Go allows what the crate does not: names that begin
    /// with a digit, and twice the same.
    names: Arc<[Option<String>]>,
    /// Places of groups, for [`Regex::with_groups`] to use again.
    spare: Arc<Mutex<Vec<CaptureLocations>>>,
    octets: usize,
}

impl Regex {
    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
    /// Octets that it takes on the heap, compiled: those of what it is made of, which it has for both directions.
    pub fn octets(&self) -> usize {
        self.octets
    }
    /// Whether it matches anywhere in `text`.
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }
    /// The groups of the leftmost match by their numbers, [`Regex::group_count`] in all: the first is the whole match.
    /// One that took no part is empty, as in Go. `None` if there is no match.
    pub fn groups<'t>(&self, text: &'t str) -> Option<Vec<&'t str>> {
        self.with_groups(text, |group| (0..self.group_count()).map(group).collect())
    }
    /// What `use_groups` makes of the leftmost match, given the text of each group by its number; empty for one that
    /// took no part, as in Go. `None` if there is no match. In the long run nothing is taken from the heap.
    pub fn with_groups<'t, T>(
        &self,
        text: &'t str,
        use_groups: impl FnOnce(&dyn Fn(usize) -> &'t str) -> T,
    ) -> Option<T> {
        // Another thread may hold the list for the time that it takes to push or pop.
        let spare = self.spare.try_lock().and_then(|mut spare| spare.pop());
        let mut locations = spare.unwrap_or_else(|| self.compiled.capture_locations());
        let found = self.compiled.captures_read(&mut locations, text);
        // The crate knows nothing of groups at the end that match no times, such as that of `a(b){0}`.
        let group =
            |index: usize| locations.get(index).and_then(|(start, end)| text.get(start..end)).unwrap_or_default();
        let used = found.map(|_| use_groups(&group));
        if let Some(mut spare) = self.spare.try_lock()
            && spare.len() < SPARE_LOCATIONS
        {
            spare.push(locations);
        }
        used
    }
    /// Groups, the whole match counted as one.
    pub fn group_count(&self) -> usize {
        self.names.len()
    }
    /// The names of the groups in order, from group 0; `None` for those without.
    pub fn group_names(&self) -> impl Iterator<Item = Option<&str>> {
        self.names.iter().map(Option::as_deref)
    }
}

impl fmt::Display for Regex {
    /// The pattern as written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// Compiles a pattern.
///
/// # Errors
///
/// The pattern is not one that Go takes, is longer than [`PATTERN_OCTETS`], or becomes too large.
pub fn compile(pattern: &str) -> Result<Regex, RegexError> {
    if pattern.len() > PATTERN_OCTETS {
        return Err(RegexError { at: PATTERN_OCTETS, problem: RegexProblem::TooLong(pattern.len()) });
    }
    let translated = translate::translate(pattern)?;
    let compiled = RegexBuilder::new(&translated.pattern)
        .size_limit(COMPILED_OCTETS)
        .dfa_size_limit(AUTOMATON_OCTETS)
        .nest_limit(TRANSLATED_DEPTH)
        .build()
        .map_err(|error| RegexError {
            at: 0,
            problem: match error {
                regex::Error::CompiledTooBig(_) => RegexProblem::TooLarge,
                other => RegexProblem::Other(other.to_string().lines().last().unwrap_or_default().to_owned()),
            },
        })?;
    let octets = octets(&translated.pattern);
    Ok(Regex { compiled, source: pattern.into(), names: translated.names.into(), spare: Arc::default(), octets })
}

/// The crate does not say how large a compiled pattern is; the most of it is an automaton for each direction, one of
/// which is built here and measured.
fn octets(translated: &str) -> usize {
    let mut compiler = thompson::Compiler::new();
    compiler.syntax(syntax::Config::new().nest_limit(TRANSLATED_DEPTH));
    compiler.configure(thompson::Config::new().nfa_size_limit(Some(COMPILED_OCTETS)));
    compiler.build(translated).map_or(COMPILED_OCTETS, |automaton| 2 * automaton.memory_usage())
}
