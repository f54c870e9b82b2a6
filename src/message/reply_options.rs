//! The EDNS options of a reply (RFC 6891 section 6.1.2).

use smallvec::SmallVec;

/// Code of the option that names the server (RFC 5001 section 2.3).
pub(super) const NSID: u16 = 3;

/// Code of the option that says more about an error (RFC 8914 section 2).
const EXTENDED_ERROR: u16 = 15;

/// Octets of options that fit into the least limit of a reply, with the longest question.
const LEAST_ROOM: usize = 230;

/// Options of a reply's OPT record, in the order in which they were put there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyOptions(SmallVec<[u8; 64]>);

/// More about an error than the rcode says (RFC 8914).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    pub code: u16,
    /// For people; may be empty.
    pub text: String,
}

impl ReplyOptions {
    /// Octets of names of a server that are given: with the longest question and a client's subnet they fit into the
    /// least limit of a reply.
    pub const LONGEST_NSID: usize = 128;

    /// Names the server. What is beyond [`ReplyOptions::LONGEST_NSID`] octets is left out.
    pub fn push_nsid(&mut self, name: &[u8]) {
        let name = name.get(..Self::LONGEST_NSID).unwrap_or(name);
        self.0.extend_from_slice(&NSID.to_be_bytes());
        self.0.extend_from_slice(&(name.len() as u16).to_be_bytes());
        self.0.extend_from_slice(name);
    }

    /// Says more about an error. Of the text, what has no room in the least limit of a reply is left out.
    pub fn push_extended_error(&mut self, error: &ExtendedError) {
        let room = LEAST_ROOM.saturating_sub(self.0.len() + 6);
        let mut end = error.text.len().min(room);
        while !error.text.is_char_boundary(end) {
            end -= 1;
        }
        let text = error.text.get(..end).unwrap_or_default();
        self.0.extend_from_slice(&EXTENDED_ERROR.to_be_bytes());
        self.0.extend_from_slice(&(text.len() as u16 + 2).to_be_bytes());
        self.0.extend_from_slice(&error.code.to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
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

    #[test]
    fn the_text_of_an_extended_error_is_cut_between_characters_where_there_is_no_room() {
        let mut options = ReplyOptions::default();
        options.push_extended_error(&ExtendedError { code: 21, text: "no".to_owned() });
        assert_eq!(options.octets(), b"\0\x0f\0\x04\0\x15no");
        options.push_extended_error(&ExtendedError { code: 0, text: "\u{e9}".repeat(300) });
        assert_eq!(options.octets()[8..14], [0, 15, 0, 218, 0, 0]);
        assert_eq!(options.octets().len(), LEAST_ROOM);
    }
}
