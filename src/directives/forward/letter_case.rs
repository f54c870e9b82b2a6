//! The case of a name's letters as something to guess: DNS 0x20 (draft-vixie-dnsext-dns0x20), unbound's `use-caps-for-id`.

/// Set where a case was drawn; the others are for as many letters.
const DRAWN: u64 = 1 << 63;

/// The case of the letters of a name, drawn for one sending of a query; by default none was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LetterCase(u64);

impl LetterCase {
    /// Unpredictable for the first 63 letters; the others are in lower case.
    pub fn draw() -> Self {
        Self(rand::random::<u64>() | DRAWN)
    }

    pub fn is_drawn(self) -> bool {
        self.0 & DRAWN != 0
    }

    /// Writes a name (wire form, not compressed) in this case; leaves it if none was drawn.
    pub fn apply(self, name: &mut [u8]) {
        if self.is_drawn() {
            // Length octets are no letters.
            for (letter, is_upper) in name.iter_mut().filter(|octet| octet.is_ascii_alphabetic()).zip(self.letters()) {
                *letter = if is_upper { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
            }
        }
    }

    /// True if a name is written in this case; any is if none was drawn.
    pub fn is_of(self, name: &[u8]) -> bool {
        let mut letters = name.iter().filter(|octet| octet.is_ascii_alphabetic()).zip(self.letters());
        !self.is_drawn() || letters.all(|(letter, is_upper)| letter.is_ascii_uppercase() == is_upper)
    }

    fn letters(self) -> impl Iterator<Item = bool> {
        (0..u64::BITS - 1).map(move |bit| self.0 >> bit & 1 == 1).chain(std::iter::repeat(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_that_of_the_name_written_in_it_and_of_no_other() {
        let case = LetterCase(DRAWN | 0b1001);
        let mut name = *b"\x03ab1\x03c-D\0";
        case.apply(&mut name);
        assert_eq!(&name, b"\x03Ab1\x03c-D\0");
        assert!(case.is_of(&name) && !case.is_of(b"\x03ab1\x03c-D\0") && !case.is_of(b"\x03AB1\x03c-D\0"));
    }

    #[test]
    fn without_a_drawn_case_names_stay_as_they_are_and_any_will_do() {
        let mut name = *b"\x03aBc\0";
        LetterCase::default().apply(&mut name);
        assert_eq!(&name, b"\x03aBc\0");
        assert!(LetterCase::default().is_of(b"\x03ABC\0"));
    }

    #[test]
    fn names_with_more_letters_than_are_drawn_go_on_in_lower_case() {
        let mut name = [b'X'; 200];
        LetterCase(u64::MAX).apply(&mut name);
        assert!(name[..63].iter().all(u8::is_ascii_uppercase) && name[63..].iter().all(u8::is_ascii_lowercase));
        assert!(LetterCase(u64::MAX).is_of(&name));
    }

    #[test]
    fn cases_are_drawn_anew() {
        let drawn: std::collections::HashSet<u64> = (0..100).map(|_| LetterCase::draw().0).collect();
        assert_eq!(drawn.len(), 100);
        assert!(LetterCase::draw().is_drawn());
    }
}
