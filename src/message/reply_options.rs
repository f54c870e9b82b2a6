//! The EDNS options of a reply (RFC 6891 section 6.1.2).

use smallvec::SmallVec;

/// Code of the option that names the server (RFC 5001 section 2.3).
pub(super) const NSID: u16 = 3;

/// Options of a reply's OPT record, in the order in which they were put there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyOptions(SmallVec<[u8; 64]>);

impl ReplyOptions {
    /// Octets of names of a server that are given: with the longest question and a client's subnet they fit into the least limit of a reply.
    pub const LONGEST_NSID: usize = 128;

    /// Names the server. What is beyond [`ReplyOptions::LONGEST_NSID`] octets is left out.
    pub fn push_nsid(&mut self, name: &[u8]) {
        let name = name.get(..Self::LONGEST_NSID).unwrap_or(name);
        self.0.extend_from_slice(&NSID.to_be_bytes());
        self.0.extend_from_slice(&(name.len() as u16).to_be_bytes());
        self.0.extend_from_slice(name);
    }

    /// Puts a whole option, header included.
    pub(super) fn push(&mut self, option: &[u8]) {
        self.0.extend_from_slice(option);
    }

    /// All of them, as they stand in the record.
    pub(super) fn octets(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_is_cut() {
        let mut options = ReplyOptions::default();
        options.push_nsid(b"node-7");
        options.push_nsid(&[b'x'; 300]);
        assert_eq!(options.octets()[..10], *b"\0\x03\0\x06node-7");
        assert_eq!((options.octets()[10..14].to_vec(), options.octets().len()), (vec![0, 3, 0, 128], 10 + 4 + 128));
    }
}
