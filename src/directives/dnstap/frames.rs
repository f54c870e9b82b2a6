//! Frame Streams, in which dnstap messages travel (fstrm's control.h): what the two ends say before the first message
//! and after the last. Pure.

use super::message::FRAME_HEADER;

/// What the frames hold.
pub(super) const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

/// Octets of the longest control frame (FSTRM_CONTROL_FRAME_LENGTH_MAX).
const LONGEST_CONTROL: usize = 512;
/// Octets before a control frame's type: a length of zero, and its own length.
pub(super) const CONTROL_HEADER: usize = 8;

/// Control frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Accept = 1,
    Start = 2,
    Stop = 3,
    Ready = 4,
    Finish = 5,
}

/// Why what the other end says is no Frame Stream of dnstap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("what it says is no Frame Stream: is it a reader of dnstap?")]
    NoControlFrame,
    #[error("it says control frame {0} where {1:?} is due")]
    Unexpected(u32, Control),
    #[error("it takes no messages of the type protobuf:dnstap.Dnstap")]
    OtherContent,
}

impl Control {
    /// The frame; READY, ACCEPT and START with the content type.
    pub(super) fn frame(self) -> Vec<u8> {
        let mut body = (self as u32).to_be_bytes().to_vec();
        if matches!(self, Self::Ready | Self::Accept | Self::Start) {
            body.extend_from_slice(&CONTENT_TYPE_FIELD.to_be_bytes());
            body.extend_from_slice(&(CONTENT_TYPE.len() as u32).to_be_bytes());
            body.extend_from_slice(CONTENT_TYPE);
        }
        [&[0; FRAME_HEADER], &(body.len() as u32).to_be_bytes()[..], &body].concat()
    }

    /// Octets after these first ones of a control frame.
    ///
    /// # Errors
    /// They are of none.
    pub(super) fn length(header: [u8; CONTROL_HEADER]) -> Result<usize, FrameError> {
        let [escape, length] = [&header[..4], &header[4..]].map(|octets| word(octets).unwrap_or_default());
        let length = length as usize;
        if escape != 0 || !(4..=LONGEST_CONTROL).contains(&length) {
            return Err(FrameError::NoControlFrame);
        }
        Ok(length)
    }

    /// Whether `body` is this frame's, after its header. Of ACCEPT: that it has our content type, or none.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(self, body: &[u8]) -> Result<(), FrameError> {
        let kind = word(body).ok_or(FrameError::NoControlFrame)?;
        if kind != self as u32 {
            return Err(FrameError::Unexpected(kind, self));
        }
        let (mut fields, mut is_first, mut is_ours) = (body.get(4..).unwrap_or_default(), true, false);
        while !fields.is_empty() {
            let (field, length) = (word(fields), fields.get(4..).and_then(word));
            let value = length.and_then(|length| fields.get(8..8_usize.checked_add(length as usize)?));
            let (Some(CONTENT_TYPE_FIELD), Some(value)) = (field, value) else {
                return Err(FrameError::NoControlFrame);
            };
            (is_first, is_ours) = (false, is_ours || value == CONTENT_TYPE);
            fields = fields.get(8 + value.len()..).unwrap_or_default();
        }
        if is_first || is_ours { Ok(()) } else { Err(FrameError::OtherContent) }
    }
}

/// FSTRM_CONTROL_FIELD_CONTENT_TYPE.
const CONTENT_TYPE_FIELD: u32 = 1;

fn word(octets: &[u8]) -> Option<u32> {
    octets.first_chunk().map(|octets| u32::from_be_bytes(*octets))
}

/// Where the first frame begins of which not all octets are among the first `written`.
pub(super) fn first_unwritten(frames: &[u8], written: usize) -> usize {
    let mut start = 0;
    while let Some(length) = frames.get(start..).and_then(word) {
        let end = start + FRAME_HEADER + length as usize;
        if end > written {
            break;
        }
        start = end;
    }
    start
}

/// How many frames there are.
pub(super) fn count(frames: &[u8]) -> u64 {
    let (mut start, mut count) = (0, 0);
    while let Some(length) = frames.get(start..).and_then(word) {
        start += FRAME_HEADER + length as usize;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(control: Control, frame: &[u8]) -> Result<(), FrameError> {
        let (header, body) = frame.split_at(CONTROL_HEADER);
        assert_eq!(Control::length(header.try_into().unwrap())?, body.len());
        control.check(body)
    }

    #[test]
    fn what_one_end_says_the_other_understands() {
        for control in [Control::Accept, Control::Start, Control::Stop, Control::Ready, Control::Finish] {
            assert_eq!(checked(control, &control.frame()), Ok(()));
        }
        // As fstrm writes it.
        let stop = [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3];
        assert_eq!(Control::Stop.frame(), stop);
        assert_eq!(checked(Control::Finish, &stop), Err(FrameError::Unexpected(3, Control::Finish)));
    }

    #[test]
    fn a_reader_of_something_else_is_told_from_one_of_dnstap() {
        let accept = |types: &[&[u8]]| {
            let mut body = 1_u32.to_be_bytes().to_vec();
            for text in types {
                body.extend_from_slice(&[[0, 0, 0, 1], (text.len() as u32).to_be_bytes()].concat());
                body.extend_from_slice(text);
            }
            Control::Accept.check(&body)
        };
        assert_eq!(accept(&[]), Ok(()));
        assert_eq!(accept(&[b"other", CONTENT_TYPE]), Ok(()));
        assert_eq!(accept(&[b"other"]), Err(FrameError::OtherContent));
        assert_eq!(
            Control::Accept.check(&[0, 0, 0, 1, 0, 0, 0, 1, 255, 255, 255, 255]),
            Err(FrameError::NoControlFrame)
        );
        assert_eq!(Control::Accept.check(&[0, 0]), Err(FrameError::NoControlFrame));
        for header in [*b"GET / HT", [0, 0, 0, 0, 0, 0, 0, 3], [0, 0, 0, 0, 255, 255, 255, 255]] {
            assert_eq!(Control::length(header), Err(FrameError::NoControlFrame));
        }
    }

    #[test]
    fn a_frame_that_was_cut_is_written_again_from_its_beginning() {
        let frames = [0, 0, 0, 1, 7, 0, 0, 0, 2, 8, 9];
        let starts: Vec<usize> = (0..=frames.len()).map(|written| first_unwritten(&frames, written)).collect();
        assert_eq!(starts, [0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 5, 11]);
        assert_eq!((count(&frames), count(&[])), (2, 0));
    }
}
