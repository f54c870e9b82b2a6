//! Domain names in uncompressed wire form (RFC 1035 section 3.1).

use super::WireError;
use smallvec::SmallVec;
use std::fmt;

/// Why a text is not a domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a label has {0} octets where at most 63 are allowed")]
    LabelTooLong(usize),
    #[error("the name has more than 255 octets")]
    TooLong,
    #[error("an empty label (two dots in a row)")]
    EmptyLabel,
    #[error("a malformed escape: \\ must be followed by three decimal digits up to 255, or one other character")]
    BadEscape,
}

/// A domain name: uncompressed wire form with its root octet, its case kept. Equality and hash ignore ASCII case.
#[derive(Clone)]
pub struct Name(SmallVec<[u8; 32]>);

impl Name {
    /// The root, `.`.
    pub fn root() -> Self {
        todo!()
    }
    /// Reads presentation form with its escapes; the final dot may be missing.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        todo!()
    }
    /// Reads a possibly compressed name at `offset` of `message`; returns it and the offset after it.
    pub fn read(message: &[u8], offset: usize) -> Result<(Self, usize), WireError> {
        todo!()
    }
    /// Wire octets, root octet included.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }
    /// The same name in lower case.
    pub fn to_lower(&self) -> LowerName {
        todo!()
    }
    /// True if this is `zone` or lies below it.
    pub fn is_within(&self, zone: &Name) -> bool {
        todo!()
    }
    /// Labels without the root.
    pub fn label_count(&self) -> usize {
        todo!()
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
        todo!()
    }
}
impl fmt::Display for Name {
    /// Presentation form, absolute (`a.example.`), with escapes as RFC 1035 section 5.1 and miekg/dns write them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
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
    octets: [u8; 255],
}

impl LowerName {
    /// Wire octets in lower case, root octet included.
    pub fn as_wire(&self) -> &[u8] {
        &self.octets[..self.length as usize]
    }
    /// This name, then each name above it, down to the root, each in wire form.
    pub fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::empty()
    }
    /// True if this is `zone` (lower-case wire form) or lies below it.
    pub fn is_within(&self, zone: &[u8]) -> bool {
        todo!()
    }
    pub fn to_name(&self) -> Name {
        todo!()
    }
}
