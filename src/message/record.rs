//! The records of a checked message, seen in place.

use super::wire_reader::{HEADER_LENGTH, u16_at, u32_at, walk_name};
use super::{Class, Name, RecordType, WireError, layout};
use smallvec::SmallVec;

/// The three sections that hold records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Of the question.
    Answer,
    /// Who is responsible.
    Authority,
    /// What may be of use.
    Additional,
}

impl Section {
    pub(super) const ALL: [Self; 3] = [Self::Answer, Self::Authority, Self::Additional];
}

/// One record of a [`super::Response`], as offsets into its octets.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Where it stands.
    pub section: Section,
    /// The whole response.
    pub message: &'a [u8],
    /// Offset of the owner's name.
    pub owner: usize,
    /// TYPE.
    pub rtype: RecordType,
    /// CLASS.
    pub class: Class,
    /// Seconds, as they stand in the response.
    pub ttl: u32,
    /// Offset and length.
    pub rdata: (usize, usize),
}

impl<'a> Record<'a> {
    /// The record whose owner stands at `owner` and whose fixed fields begin at `fixed`; its data lies within the
    /// message.
    pub(super) fn at(section: Section, message: &'a [u8], owner: usize, fixed: usize) -> Result<Self, WireError> {
        let length = usize::from(u16_at(message, fixed + 8)?);
        let record = Self {
            section,
            message,
            owner,
            rtype: RecordType(u16_at(message, fixed)?),
            class: Class(u16_at(message, fixed + 2)?),
            ttl: u32_at(message, fixed + 4)?,
            rdata: (fixed + 10, length),
        };
        if record.end() > message.len() { Err(WireError::Short(fixed + 10)) } else { Ok(record) }
    }
    /// Offset after the record.
    pub(super) fn end(&self) -> usize {
        self.rdata.0 + self.rdata.1
    }
    /// The owner's name, written out.
    pub fn owner(&self) -> Name {
        // A response's names have been followed once, when it was checked; only a record made by hand can lead nowhere.
        Name::read(self.message, self.owner).map_or_else(|_| Name::root(), |(name, _)| name)
    }
    /// True if the owner is written as a pointer to the question's name.
    pub fn points_to_question(&self) -> bool {
        self.message.get(self.owner..).is_some_and(|octets| octets.starts_with(&[0xc0, HEADER_LENGTH as u8]))
    }
    /// True if the owner is `name`, whatever the case; without writing it out.
    pub fn is_owned_by(&self, name: &Name) -> bool {
        let mut rest = name.as_wire();
        let mut is_same = true;
        let walked = walk_name(self.message, self.owner, |labels| {
            let labels = self.message.get(labels).unwrap_or_default();
            match rest.split_at_checked(labels.len()) {
                Some((head, tail)) if head.eq_ignore_ascii_case(labels) => rest = tail,
                _ => is_same = false,
            }
        });
        walked.is_ok() && is_same && rest == [0]
    }
    /// The octets of the data; names in them may be compressed.
    pub fn rdata(&self) -> &'a [u8] {
        self.message.get(self.rdata.0..self.end()).unwrap_or_default()
    }
    /// The data taken apart, names written out. Types without names, and unknown ones, are all head.
    ///
    /// # Errors
    /// Only for a record that does not stand in a [`super::Response`].
    pub fn data(&self) -> Result<Data<'a>, WireError> {
        let layout = layout::of(self.rtype, self.class);
        let message = self.message.get(..self.end()).ok_or(WireError::Short(self.rdata.0))?;
        let malformed = WireError::BadRecord(self.owner);
        let mut at = self.rdata.0 + usize::from(layout.fixed);
        for _ in 0..layout.strings {
            at += 1 + usize::from(*message.get(at).ok_or(malformed)?);
        }
        if layout.names == 0 {
            return Ok(Data { head: self.rdata(), names: SmallVec::new(), rest: &[] });
        }
        let head = message.get(self.rdata.0..at).ok_or(malformed)?;
        let mut names = SmallVec::new();
        for _ in 0..layout.names {
            let (name, after) = Name::read(message, at)?;
            names.push(name);
            at = after;
        }
        Ok(Data { head, names, rest: message.get(at..).ok_or(malformed)? })
    }
    /// MINIMUM of an SOA record (RFC 1035 section 3.3.13, RFC 2308 section 4); `None` for other types.
    pub fn soa_minimum(&self) -> Option<u32> {
        let minimum = self.rdata().last_chunk()?;
        (self.rtype == RecordType::SOA).then(|| u32::from_be_bytes(*minimum))
    }
}

/// A record's data taken apart. Equal data is equal whatever the compression, and the case, of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// What comes before the names.
    pub head: &'a [u8],
    /// For example the target of a CNAME record, or MNAME and RNAME of an SOA record.
    pub names: SmallVec<[Name; 2]>,
    /// What comes after them.
    pub rest: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_known_by_its_whole_name_compressed_or_not_in_any_case() {
        let message = [&[0; 12][..], b"\x01a\x07Example\x00", b"\xc0\x0c", b"\x01b\xc0\x0e", b"\xc0\x0e"].concat();
        let owned_by = |owner: usize, name: &str| {
            let (rtype, class) = (RecordType::A, Class::IN);
            let record =
                Record { section: Section::Answer, message: &message, owner, rtype, class, ttl: 0, rdata: (0, 0) };
            let name = Name::parse(name).unwrap();
            assert_eq!(record.is_owned_by(&name), record.owner() == name, "{name} at {owner}");
            record.is_owned_by(&name)
        };
        assert!(
            owned_by(12, "A.example.")
                && owned_by(23, "a.EXAMPLE.")
                && owned_by(25, "b.example.")
                && owned_by(29, "example.")
        );
        for (owner, name) in
            [(23, "example."), (23, "a."), (23, "."), (29, "a.example."), (25, "c.example."), (25, "ab.example.")]
        {
            assert!(!owned_by(owner, name));
        }
    }
}
