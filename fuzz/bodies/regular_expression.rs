//! A regular expression of Go and, after an octet of zero, a text: refused with a place in the pattern, or it matches
//! within the time that both allow.

use nodelocaldns::go_regex::compile;

/// Octets of a domain name's text, and of patterns: the work is at most their product, and 20 s are the fuzzer's limit.
const TEXT: usize = 1004;
const PATTERN: usize = 2000;

/// Panics if a pattern does what it must not.
pub fn run(octets: &[u8]) {
    let Ok(input) = std::str::from_utf8(octets) else { return };
    let (pattern, text) = input.split_once('\0').unwrap_or((input, "www.example.org."));
    if pattern.len() > PATTERN {
        return;
    }
    let text: String = text.chars().take(TEXT / 4).collect();
    match compile(pattern) {
        Ok(regex) => {
            let groups = regex.groups(&text);
            assert_eq!(groups.is_some(), regex.is_match(&text));
            assert!(groups.is_none_or(|groups| groups.len() == regex.group_count()));
            assert_eq!(regex.group_names().count(), regex.group_count());
        }
        Err(error) => {
            assert!(error.at <= pattern.len() && pattern.is_char_boundary(error.at), "{error}");
            assert!(!matches!(error.problem, nodelocaldns::go_regex::RegexProblem::Other(_)), "{error}");
            assert!(error.to_string().len() < 500);
        }
    }
}
