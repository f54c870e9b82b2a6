//! The patterns of one configuration, which are bounded together as well as each.

use super::error::{MOST_OCTETS, MOST_PATTERNS};
use super::{Regex, RegexError, RegexProblem, compile};
use std::cell::Cell;

/// Counts the patterns of one configuration.
#[derive(Debug, Default)]
pub struct Patterns {
    count: Cell<usize>,
    octets: Cell<usize>,
}

impl Patterns {
    /// Compiles one more. Once there are too many, none is compiled any longer.
    ///
    /// # Errors
    ///
    /// Those of [`compile`]; there are too many, or they are too large together.
    pub fn compile(&self, pattern: &str) -> Result<Regex, RegexError> {
        let refuse = |problem| Err(RegexError { at: 0, problem });
        if self.count.get() >= MOST_PATTERNS {
            return refuse(RegexProblem::TooMany);
        }
        if self.octets.get() > MOST_OCTETS {
            return refuse(RegexProblem::TooLargeTogether);
        }
        let regex = compile(pattern)?;
        self.count.set(self.count.get() + 1);
        self.octets.set(self.octets.get() + regex.octets());
        if self.octets.get() > MOST_OCTETS { refuse(RegexProblem::TooLargeTogether) } else { Ok(regex) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pattern_more_than_there_may_be_is_refused_and_bad_ones_do_not_count() {
        let patterns = Patterns::default();
        for number in 0..MOST_PATTERNS {
            assert!(patterns.compile(&format!("^a{number}$")).is_ok());
            assert!(patterns.compile("(").is_err());
        }
        assert_eq!(patterns.compile("a").unwrap_err().problem, RegexProblem::TooMany);
    }

    #[test]
    fn patterns_that_are_too_large_together_are_refused() {
        let patterns = Patterns::default();
        let large = r"\pL{100}";
        let octets = compile(large).unwrap().octets();
        assert!(octets > MOST_OCTETS / 100, "{octets} octets");
        let taken = (0..MOST_PATTERNS).take_while(|_| patterns.compile(large).is_ok()).count();
        assert_eq!(taken, MOST_OCTETS / octets);
        assert_eq!(patterns.compile("a").unwrap_err().problem, RegexProblem::TooLargeTogether);
    }

    #[test]
    fn a_usual_pattern_takes_little() {
        let octets = compile(r"^(.*)-([0-9]+)\.svc\.example\.org\.$").unwrap().octets();
        assert!((1_000..60_000).contains(&octets), "{octets} octets");
    }
}
