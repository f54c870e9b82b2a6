//! The message header (RFC 1035 section 4.1.1; AD and CD: RFC 4035 section 3).

/// The response bit of the header's second word.
pub(super) const QR: u16 = 0x8000;
/// The opcode's bits.
pub(super) const OPCODE: u16 = 0x7800;
pub(super) const AA: u16 = 0x0400;
pub(super) const TC: u16 = 0x0200;
pub(super) const RA: u16 = 0x0080;
pub(super) const RD: u16 = 0x0100;
pub(super) const AD: u16 = 0x0020;
pub(super) const CD: u16 = 0x0010;

/// The header (RFC 1035 section 4.1.1): `flags` is the second 16-bit word as it stood on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: u16,
    pub flags: u16,
}

impl Header {
    pub fn is_response(self) -> bool {
        self.flags & QR != 0
    }
    pub fn opcode(self) -> u8 {
        (self.flags >> 11) as u8 & 0x0f
    }
    pub fn recursion_desired(self) -> bool {
        self.flags & RD != 0
    }
    pub fn authentic_data(self) -> bool {
        self.flags & AD != 0
    }
    pub fn checking_disabled(self) -> bool {
        self.flags & CD != 0
    }
}
