//! DNS 0x20: the letter case of a query's name as something that a forger must guess (draft-vixie-dnsext-dns0x20,
//! unbound's `use-caps-for-id`).

/// Set where the case is random. The 63 bits below it are the case of as many letters.
const IS_RANDOM: u64 = 1 << 63;

/// The letter case in which one query is sent. The default leaves names as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LetterCase(u64);

impl LetterCase {
    /// A random case for the first 63 letters. Later letters are lower case.
    pub(super) fn random() -> Self {
        Self(rand::random::<u64>() | IS_RANDOM)
    }

    pub(super) fn is_random(self) -> bool {
        self.0 & IS_RANDOM != 0
    }

    /// Writes a name (uncompressed wire form) in this case.
    pub(super) fn apply(self, name: &mut [u8]) {
        if self.is_random() {
            // Length octets are never letters: they are at most 63.
            for (letter, is_upper) in name.iter_mut().filter(|octet| octet.is_ascii_alphabetic()).zip(self.letters()) {
                *letter = if is_upper { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
            }
        }
    }

    /// True if `name` is written in this case. The default matches every name.
    pub(super) fn matches(self, name: &[u8]) -> bool {
        let mut letters = name.iter().filter(|octet| octet.is_ascii_alphabetic()).zip(self.letters());
        !self.is_random() || letters.all(|(letter, is_upper)| letter.is_ascii_uppercase() == is_upper)
    }

    fn letters(self) -> impl Iterator<Item = bool> {
        (0..u64::BITS - 1).map(move |bit| self.0 >> bit & 1 == 1).chain(std::iter::repeat(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_case_matches_only_names_written_in_it() {
        let case = LetterCase(IS_RANDOM | 0b1001);
        let mut name = *b"\x03ab1\x03c-D\0";
        case.apply(&mut name);
        assert_eq!(&name, b"\x03Ab1\x03c-D\0");
        assert!(case.matches(&name) && !case.matches(b"\x03ab1\x03c-D\0") && !case.matches(b"\x03AB1\x03c-D\0"));
    }

    #[test]
    fn the_default_case_leaves_names_as_they_are_and_matches_every_case() {
        let mut name = *b"\x03aBc\0";
        LetterCase::default().apply(&mut name);
        assert_eq!(&name, b"\x03aBc\0");
        assert!(LetterCase::default().matches(b"\x03ABC\0"));
    }

    #[test]
    fn letters_after_the_63rd_are_lower_case() {
        let mut name = [b'X'; 200];
        LetterCase(u64::MAX).apply(&mut name);
        assert!(name[..63].iter().all(u8::is_ascii_uppercase) && name[63..].iter().all(u8::is_ascii_lowercase));
        assert!(LetterCase(u64::MAX).matches(&name));
    }

    #[test]
    fn every_random_case_differs() {
        let cases: std::collections::HashSet<u64> = (0..100).map(|_| LetterCase::random().0).collect();
        assert_eq!(cases.len(), 100);
        assert!(LetterCase::random().is_random());
    }
}
