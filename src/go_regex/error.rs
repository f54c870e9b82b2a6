//! What is wrong with a pattern, and where.

use std::fmt;

/// Groups within each other. The crate compiles them by recursion, and a thread has 2 MiB of stack.
pub(super) const GROUP_DEPTH: usize = 50;
/// Patterns that one configuration may have. Rules are tried one after another, so a query for which none of so many
/// is takes a tenth of a millisecond; and each thread has an automaton for each that it has used.
pub(super) const MOST_PATTERNS: usize = 1_000;
/// Octets that all of them may take, compiled. Those of two configurations are there while one takes over.
pub(super) const MOST_OCTETS: usize = 32 << 20;
/// Characters of a pattern that a message shows.
const SHOWN: usize = 32;

/// Enough of a part of a pattern to recognise it.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A pattern that Go would not take either, or that is too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexError {
    /// Octets of the pattern before what is wrong.
    pub at: usize,
    pub problem: RegexProblem,
}

/// What is wrong with a pattern. Texts are parts of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum RegexProblem {
    #[error("it has {0} octets, more than the {max} allowed; match less, or write several patterns", max = super::PATTERN_OCTETS)]
    TooLong(usize),
    #[error("it becomes too large; write smaller counts in `{{ }}`, or fewer classes such as `\\pL`")]
    TooLarge,
    #[error(
        "a Corefile may have {max} patterns, and this is one more; join several with `|`, or match without a pattern",
        max = MOST_PATTERNS
    )]
    TooMany,
    #[error(
        "the Corefile's patterns take more than {max} MiB together; write smaller counts in `{{ }}`, fewer classes such as `\\pL`, or fewer patterns",
        max = MOST_OCTETS >> 20
    )]
    TooLargeTogether,
    #[error("groups stand more than {max} deep in each other; take parentheses away", max = GROUP_DEPTH)]
    TooDeep,
    #[error(
        "`{0}` is no escape sequence; a backslash stands before a punctuation mark, or one of `A b B d D s S w W z Q x p P a f n r t v`"
    )]
    Escape(String),
    #[error("it ends in a backslash; write `\\\\` for a backslash itself")]
    TrailingBackslash,
    #[error("`{0}` is not closed: `]` is missing; write `\\[` for a bracket itself")]
    MissingBracket(String),
    #[error("a `(` is not closed; write `\\(` for a parenthesis itself")]
    MissingParenthesis,
    #[error("this `)` closes nothing; write `\\)` for a parenthesis itself")]
    UnexpectedParenthesis,
    #[error(
        "`{0}` is no range of characters; write the lower end first, a class such as `[:alpha:]`, or a Unicode class such as `\\p{{Greek}}`"
    )]
    Range(String),
    #[error("`{0}` has nothing to repeat; write `\\{0}` for the character itself")]
    NothingToRepeat(char),
    #[error("`{0}` repeats a repetition; put the inner one in parentheses")]
    RepeatedRepetition(String),
    #[error(
        "`{0}` is no count that is allowed: at most 1000, all counts within each other multiplied, and the lower one first"
    )]
    Count(String),
    #[error("`{0}` is no name of a group; write `(?P<name>…)` with letters, digits and underscores")]
    GroupName(String),
    #[error(
        "`{0}` is not supported; after `(?` stand flags of `i m s U`, `:`, or `P<name>` (there is no look-ahead or look-behind)"
    )]
    GroupKind(String),
    /// In words of the `regex` crate.
    #[error("{0}")]
    Other(String),
}

impl fmt::Display for RegexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at octet {}: {}", self.at + 1, self.problem)
    }
}

impl std::error::Error for RegexError {}
