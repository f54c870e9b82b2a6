//! Domain names in uncompressed wire form (RFC 1035 section 3.1).

use super::presentation::{INLINE, NameError, NameText};
use super::wire_reader::{HEADER_LENGTH, MAX_NAME_LENGTH, Suffixes, walk_name};
use super::{RecordType, WireError, presentation};
use smallvec::SmallVec;
use std::fmt;

/// A domain name: uncompressed wire form with its root octet, its case kept. Equality and hash ignore ASCII case.
#[derive(Clone)]
pub struct Name(SmallVec<[u8; INLINE]>);

impl Name {
    /// The root, `.`.
    pub fn root() -> Self {
        Self(SmallVec::from_slice(&[0]))
    }
    /// Reads presentation form with its escapes (RFC 1035 section 5.1); the final dot may be missing.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        presentation::parse(text).map(Self)
    }
    /// Reads a possibly compressed name at `offset` of `message`; returns it and the offset after it.
    pub fn read(message: &[u8], offset: usize) -> Result<(Self, usize), WireError> {
        let mut wire = SmallVec::new();
        let after = walk_name(message, offset, |labels| wire.extend_from_slice(&message[labels]))?;
        wire.push(0);
        Ok((Self(wire), after))
    }
    /// Wire octets, root octet included.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }
    /// True for the root, `.`.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }
    /// The same name in lower case.
    pub fn to_lower(&self) -> LowerName {
        LowerName::from_wire(&self.0)
    }
    /// True if this is `zone` or lies below it.
    pub fn is_within(&self, zone: &Name) -> bool {
        suffix_of_length(&self.0, zone.0.len()).is_some_and(|suffix| suffix.eq_ignore_ascii_case(&zone.0))
    }
    /// Labels without the root.
    pub fn label_count(&self) -> usize {
        Suffixes(&self.0).count() - 1
    }
    /// The same name as hickory-proto has it.
    pub fn to_hickory(&self) -> Result<hickory_proto::rr::Name, hickory_proto::ProtoError> {
        use hickory_proto::serialize::binary::BinDecodable;
        Ok(hickory_proto::rr::Name::from_bytes(&self.0)?)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}
impl Eq for Name {}
impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.to_lower().as_wire());
    }
}
impl fmt::Display for Name {
    /// Presentation form, absolute (`a.example.`), with escapes as RFC 1035 section 5.1 and miekg/dns write them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        presentation::write(&self.0, f)
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A lower-cased name in a fixed buffer, made in the same pass that checks the question; never on the heap.
#[derive(Clone)]
pub struct LowerName {
    length: u8,
    octets: [u8; ROOM],
}

/// Octets of a [`LowerName`]'s buffer: whole [`CHUNK`]s.
const ROOM: usize = MAX_NAME_LENGTH.next_multiple_of(CHUNK);
/// Octets that are lower-cased at a time, in one vector register.
const CHUNK: usize = 16;

impl LowerName {
    /// The root, `.`.
    pub(super) const ROOT: Self = Self { length: 1, octets: [0; ROOM] };

    /// From a checked name in uncompressed wire form; what exceeds 255 octets is not taken.
    pub(super) fn from_wire(wire: &[u8]) -> Self {
        let mut name = Self::ROOT;
        name.set_wire(wire);
        name
    }
    /// [`LowerName::from_wire`] in its place: a name is large to be handed on.
    #[inline]
    pub(super) fn set_wire(&mut self, wire: &[u8]) {
        let wire = wire.get(..MAX_NAME_LENGTH).unwrap_or(wire);
        self.length = wire.len() as u8;
        self.octets[..wire.len()].copy_from_slice(wire);
        // Length octets are at most 63, below the letters, so the whole name can be lower-cased without looking at
        // labels.
        let chunks = self.octets.as_chunks_mut::<CHUNK>().0;
        chunks.iter_mut().take(wire.len().div_ceil(CHUNK)).for_each(|chunk| chunk.make_ascii_lowercase());
    }
    /// Name and type of the question of a message that has been read before; `None` if it has none, or a compressed
    /// one.
    pub(crate) fn of_question(message: &[u8]) -> Option<(&[u8], RecordType)> {
        let question = message.get(HEADER_LENGTH..)?;
        let mut end = 0;
        while let length @ 1..=63 = *question.get(end)? {
            end += 1 + usize::from(length);
        }
        let (name, rest) = question.split_at_checked(end + 1)?;
        let qtype = u16::from_be_bytes(*rest.first_chunk()?);
        (*name.last()? == 0).then_some((name, RecordType(qtype)))
    }
    /// Reads presentation form, as [`Name::parse`] does, without the heap.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        presentation::parse_into::<[u8; 256]>(text).map(|wire| Self::from_wire(&wire))
    }
    /// [`LowerName::parse`] in the place of another name, which stays if this is none.
    pub fn set_text(&mut self, text: &str) -> Result<(), NameError> {
        presentation::parse_into::<[u8; 256]>(text).map(|wire| self.set_wire(&wire))
    }
    /// Presentation form, to be searched and changed.
    pub fn text(&self) -> NameText {
        NameText::of(self.as_wire())
    }
    /// Wire octets in lower case, root octet included.
    #[inline]
    pub fn as_wire(&self) -> &[u8] {
        &self.octets[..self.length as usize]
    }
    /// This name, then each name above it, down to the root, each in wire form.
    pub fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        Suffixes(self.as_wire())
    }
    /// This name with `by` in the place of the name at its end that is `suffix` (lower-case wire form). `None` if it is
    /// not within that, or the name would be too long.
    pub fn replace_suffix(&self, suffix: &[u8], by: &Self) -> Option<Self> {
        let mut replaced = self.is_within(suffix).then(|| self.clone())?;
        replaced.set_suffix(suffix.len(), by).then_some(replaced)
    }
    /// Puts `by` in the place of its last octets, so many, which are a name that it is within. False, and it stays as
    /// it is, if it would be too long.
    #[inline]
    pub fn set_suffix(&mut self, replaced: usize, by: &Self) -> bool {
        let kept = self.as_wire().len().saturating_sub(replaced);
        let length = kept + by.as_wire().len();
        let Some(place) = self.octets.get_mut(kept..length).filter(|_| length <= MAX_NAME_LENGTH) else { return false };
        place.copy_from_slice(by.as_wire());
        self.length = length as u8;
        true
    }
    /// True if this is `zone` (lower-case wire form) or lies below it.
    pub fn is_within(&self, zone: &[u8]) -> bool {
        suffix_of_length(self.as_wire(), zone.len()) == Some(zone)
    }
    /// The same name where the case may matter.
    pub fn to_name(&self) -> Name {
        Name(SmallVec::from_slice(self.as_wire()))
    }
}

impl PartialEq for LowerName {
    fn eq(&self, other: &Self) -> bool {
        self.as_wire() == other.as_wire()
    }
}
impl Eq for LowerName {}
impl fmt::Display for LowerName {
    /// As [`Name`] is displayed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        presentation::write(self.as_wire(), f)
    }
}
impl fmt::Debug for LowerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The name of `length` octets at the end of `name`, if a label begins there.
fn suffix_of_length(name: &[u8], length: usize) -> Option<&[u8]> {
    Suffixes(name).find(|suffix| suffix.len() <= length).filter(|suffix| suffix.len() == length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn names_that_differ_in_case_are_equal_and_hash_alike() {
        let names = HashSet::from([name("A.Example."), name("a.eXAMPLE"), name("b.example.")]);
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn a_name_is_within_itself_its_ancestors_and_the_root_only() {
        let host = name("a.Example.org.");
        for zone in ["a.example.org.", "example.ORG", "org.", "."] {
            assert!(host.is_within(&name(zone)), "{zone}");
            assert!(host.to_lower().is_within(name(zone).to_lower().as_wire()), "{zone}");
        }
        for zone in ["b.example.org.", "ample.org.", "x.a.example.org.", "g."] {
            assert!(!host.is_within(&name(zone)), "{zone}");
            assert!(!host.to_lower().is_within(name(zone).to_lower().as_wire()), "{zone}");
        }
    }

    #[test]
    fn the_end_of_a_name_is_replaced_where_it_fits() {
        let replaced = |text: &str, suffix: &str, by: &str| {
            let name = name(text).to_lower();
            Some(
                name.replace_suffix(Name::parse(suffix).unwrap().to_lower().as_wire(), &LowerName::parse(by).unwrap())?
                    .to_string(),
            )
        };
        assert_eq!(replaced("a.b.corp.", "corp.", "example.org.").as_deref(), Some("a.b.example.org."));
        assert_eq!(replaced("corp.", "corp.", ".").as_deref(), Some("."));
        assert_eq!(replaced("a.b.", ".", "c.").as_deref(), Some("a.b.c."));
        assert_eq!(replaced("acorp.", "corp.", "example."), None);
        let long = format!("{0}.{0}.{0}.b.", "x".repeat(63));
        let ended = |by: usize| replaced(&long, "b.", &format!("{}.", "y".repeat(by)));
        assert_eq!((ended(61).map(|name| name.len()), ended(62)), (Some(254), None));
    }

    #[test]
    fn an_octet_that_looks_like_a_length_does_not_begin_a_label() {
        assert!(!name(r"x\003org.").is_within(&name("org.")));
        assert!(!name(r"x\003org.").to_lower().is_within(b"\x03org\x00"));
    }

    #[test]
    fn suffixes_go_from_the_name_up_to_the_root() {
        let lower = name("A.Bc.").to_lower();
        assert_eq!(lower.suffixes().collect::<Vec<_>>(), [&b"\x01a\x02bc\x00"[..], b"\x02bc\x00", b"\x00"]);
        assert_eq!(Name::root().to_lower().suffixes().collect::<Vec<_>>(), [b"\x00"]);
    }

    #[test]
    fn labels_are_counted_without_the_root() {
        assert_eq!(Name::root().label_count(), 0);
        assert_eq!(name("a.b.c").label_count(), 3);
    }

    #[test]
    fn a_compressed_name_is_read_whole_with_its_case() {
        let message = [&[0; 12][..], b"\x07Example\x03org\x00\x01A\xc0\x0c"].concat();
        let (read, after) = Name::read(&message, 25).unwrap();
        assert_eq!((read.to_string(), after), ("A.Example.org.".to_owned(), 29));
    }

    #[test]
    fn a_name_becomes_the_same_name_of_hickory() {
        let same = name(r"a\.b.example.").to_hickory().unwrap();
        assert_eq!(same.iter().collect::<Vec<_>>(), [&b"a.b"[..], b"example"]);
        assert!(same.is_fqdn());
    }

    #[test]
    fn the_longest_name_lower_cases_whole() {
        let text = format!("{0}.{0}.{0}.{1}.", "X".repeat(63), "Y".repeat(61));
        let longest = name(&text);
        assert_eq!(longest.as_wire().len(), 255);
        assert_eq!(longest.to_lower().to_string(), text.to_lowercase());
    }

    #[test]
    fn a_name_in_the_place_of_another_is_lower_cased_to_its_last_octet_and_no_more_of_the_other_is_left() {
        for length in 1..=63 {
            let mut place = name(&"Z".repeat(63)).to_lower();
            let text = "X".repeat(length);
            place.set_wire(name(&text).as_wire());
            assert_eq!(place, name(&text.to_lowercase()).to_lower());
            assert_eq!(place.as_wire().len(), length + 2);
        }
    }

    #[test]
    fn what_would_be_too_long_with_another_end_stays_as_it_is() {
        let long = name(&format!("{0}.{0}.{0}.b.", "x".repeat(63))).to_lower();
        let end = |octets: usize| name(&"y".repeat(octets)).to_lower();
        let mut changed = long.clone();
        assert!(!changed.set_suffix(3, &end(62)) && changed == long);
        assert!(changed.set_suffix(3, &end(61)) && changed.as_wire().len() == 255);
        assert!(changed.to_string().ends_with("yy."));
    }
}
