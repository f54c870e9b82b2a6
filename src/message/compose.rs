//! Writes a message anew from records that stand in another, names compressed (RFC 1035 section 4.1.4).

use super::layout;
use super::record::Record;
use super::wire_reader::Suffixes;
use super::wire_reader::{HEADER_LENGTH, MAX_MESSAGE_LENGTH};
use super::{Name, WireError, work};
use smallvec::SmallVec;
use std::collections::HashMap;

/// Offsets that a pointer's 14 bits reach.
const POINTER_REACH: usize = 0x4000;

/// A message in the making. Its header is zeros, for the caller to fill in.
pub(super) struct Composer {
    octets: Vec<u8>,
    ttl_offsets: SmallVec<[u16; 32]>,
    counts: [u16; 3],
    /// Where each name already written, and each name above it, begins. Case counts, so that names keep theirs.
    suffixes: HashMap<SmallVec<[u8; 32]>, u16, foldhash::fast::RandomState>,
}

/// A finished message.
pub(super) struct Composed {
    pub octets: Vec<u8>,
    pub ttl_offsets: SmallVec<[u16; 32]>,
    /// Records of each section.
    pub counts: [u16; 3],
}

impl Composer {
    /// A message with one question: a name in uncompressed wire form, type and class.
    pub(super) fn new(question: &[u8]) -> Self {
        let mut octets = Vec::with_capacity(512);
        octets.extend_from_slice(&[0; HEADER_LENGTH]);
        octets.extend_from_slice(question);
        let mut composer = Self { octets, ttl_offsets: SmallVec::new(), counts: [0; 3], suffixes: HashMap::default() };
        composer.point_to_question(question);
        composer
    }

    /// Lets names that are spelt as this question's end in pointers to the question, though its octets may be spelt
    /// otherwise: they will be overwritten with each client's spelling.
    pub(super) fn point_to_question(&mut self, question: &[u8]) {
        let name = question.get(..question.len().saturating_sub(4)).unwrap_or_default();
        for suffix in Suffixes(name).filter(|suffix| suffix.len() > 1) {
            let offset = HEADER_LENGTH + name.len() - suffix.len();
            self.suffixes.entry(SmallVec::from_slice(suffix)).or_insert(offset as u16);
        }
    }

    /// Appends a record, sections in order. On an error the message is as before, and nothing more should be appended.
    pub(super) fn push(&mut self, record: &Record<'_>) -> Result<(), WireError> {
        let before = self.octets.len();
        let result = self
            .encode(record)
            .and_then(|fixed| if self.octets.len() > MAX_MESSAGE_LENGTH { Err(WireError::TooLong) } else { Ok(fixed) });
        match result {
            Ok(fixed) => {
                self.ttl_offsets.push((fixed + 4) as u16);
                self.counts[record.section as usize] += 1;
                Ok(())
            }
            Err(error) => {
                self.octets.truncate(before);
                Err(error)
            }
        }
    }

    pub(super) fn finish(self) -> Composed {
        Composed { octets: self.octets, ttl_offsets: self.ttl_offsets, counts: self.counts }
    }

    /// Appends a record; gives the offset of its fixed fields.
    fn encode(&mut self, record: &Record<'_>) -> Result<usize, WireError> {
        let compress = layout::of(record.rtype, record.class).compressible;
        let (owner, _) = Name::read(record.message, record.owner)?;
        let content = record.data()?;
        self.put_name(&owner, true);
        let fixed = self.octets.len();
        self.octets.extend_from_slice(&record.rtype.0.to_be_bytes());
        self.octets.extend_from_slice(&record.class.0.to_be_bytes());
        self.octets.extend_from_slice(&record.ttl.to_be_bytes());
        self.octets.extend_from_slice(&[0, 0]);
        let data = self.octets.len();

        self.octets.extend_from_slice(content.head);
        for name in &content.names {
            self.put_name(name, compress);
        }
        self.octets.extend_from_slice(content.rest);
        let length = u16::try_from(self.octets.len() - data).map_err(|_| WireError::TooLong)?;
        self.octets[data - 2..data].copy_from_slice(&length.to_be_bytes());
        Ok(fixed)
    }

    fn put_name(&mut self, name: &Name, compress: bool) {
        for suffix in Suffixes(name.as_wire()) {
            work::count();
            let at = self.octets.len();
            if suffix.len() > 1 {
                if compress && let Some(offset) = self.suffixes.get(suffix) {
                    self.octets.extend_from_slice(&(0xc000 | offset).to_be_bytes());
                    return;
                }
                if at < POINTER_REACH {
                    self.suffixes.entry(SmallVec::from_slice(suffix)).or_insert(at as u16);
                }
            }
            let label = usize::from(suffix[0]) + 1;
            self.octets.extend_from_slice(&suffix[..label]);
        }
    }
}
