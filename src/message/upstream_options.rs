//! EDNS options that a directive has put into the query that goes upstream (RFC 6891 section 6.1.2).

use super::opt;

/// Options for the upstream, in the order in which they were put there. They may shape the answer, so they are part of
/// the request's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UpstreamOptions(Vec<u8>);

impl UpstreamOptions {
    /// Octets that all of them may take: what clients can put in must not make keys of any length.
    pub const MOST_OCTETS: usize = 512;

    /// Puts one there; false, and nothing is changed, if there is no room for it.
    pub fn push(&mut self, code: u16, data: &[u8]) -> bool {
        let has_room = self.0.len() + 4 + data.len() <= Self::MOST_OCTETS;
        if has_room {
            self.0.extend_from_slice(&code.to_be_bytes());
            self.0.extend_from_slice(&(data.len() as u16).to_be_bytes());
            self.0.extend_from_slice(data);
        }
        has_room
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Code and data of each.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &[u8])> {
        opt::Options(&self.0).map(|(code, option)| (code, option.get(4..).unwrap_or_default()))
    }
    /// As they stand in the OPT record.
    pub(super) fn octets(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_listed_in_order_and_what_has_no_room_is_left_out_whole() {
        let mut options = UpstreamOptions::default();
        assert!(options.is_empty() && options.push(65518, b"ab") && options.push(3, b""));
        assert!(!options.push(65517, &[0; UpstreamOptions::MOST_OCTETS]));
        assert!(options.push(65517, &[7; UpstreamOptions::MOST_OCTETS - 14]) && !options.push(65516, b""));
        assert_eq!(
            options.iter().map(|(code, data)| (code, data.len())).collect::<Vec<_>>(),
            [(65518, 2), (3, 0), (65517, 498)]
        );
        assert!(
            opt::are_well_framed(options.octets())
                && options.octets().starts_with(&[0xff, 0xee, 0, 2, b'a', b'b', 0, 3, 0, 0])
        );
    }
}
