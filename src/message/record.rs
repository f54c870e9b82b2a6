//! The records of a checked message, seen in place.

use super::octets::{u16_at, u32_at};
use super::{Class, Name, RecordType, WireError};

/// The three sections that hold records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Answer,
    Authority,
    Additional,
}

impl Section {
    pub(super) const ALL: [Self; 3] = [Self::Answer, Self::Authority, Self::Additional];
}

/// One record of a [`super::Response`], as offsets into its octets.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub section: Section,
    pub message: &'a [u8],
    pub owner: usize,
    pub rtype: RecordType,
    pub class: Class,
    pub ttl: u32,
    /// Offset and length.
    pub rdata: (usize, usize),
}

impl<'a> Record<'a> {
    /// The record whose owner stands at `owner` and whose fixed fields begin at `fixed`; its data lies within the message.
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
    pub fn rdata(&self) -> &'a [u8] {
        self.message.get(self.rdata.0..self.end()).unwrap_or_default()
    }
    /// MINIMUM of an SOA record (RFC 1035 section 3.3.13, RFC 2308 section 4); `None` for other types.
    pub fn soa_minimum(&self) -> Option<u32> {
        let minimum = self.rdata().last_chunk()?;
        (self.rtype == RecordType::SOA).then(|| u32::from_be_bytes(*minimum))
    }
}
