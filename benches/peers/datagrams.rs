//! Many datagrams in one system call: recvmmsg(2) and sendmmsg(2) over IPv4. All `unsafe` code of the sockets is here.

#![allow(unsafe_code, reason = "many datagrams in one system call, which no crate offers safely")]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams in one call.
pub const BATCH: usize = 64;
/// Octets of the longest datagram that is read whole: more than a message without EDNS has (RFC 1035 section 4.2.1).
pub const LONGEST: usize = 576;

/// Datagrams to send, or received, in buffers that are used again.
pub struct Datagrams {
    frame: Box<Frame>,
    used: usize,
}

/// What one call takes; the headers point to the other fields.
struct Frame {
    headers: [libc::mmsghdr; BATCH],
    parts: [libc::iovec; BATCH],
    peers: [libc::sockaddr_in; BATCH],
    octets: [[u8; LONGEST]; BATCH],
}

impl Datagrams {
    pub fn new() -> Self {
        // SAFETY: the fields are integers, null pointers and arrays of them, for which all zeroes is valid.
        let mut frame: Box<Frame> = unsafe { Box::new(mem::zeroed()) };
        let Frame { headers, parts, peers, octets } = &mut *frame;
        for (((header, part), peer), octets) in headers.iter_mut().zip(parts).zip(peers).zip(octets) {
            *part = libc::iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: LONGEST };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = std::ptr::from_mut(peer).cast();
            header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_in>() as _;
        }
        Self { frame, used: 0 }
    }

    pub fn is_full(&self) -> bool {
        self.used == BATCH
    }

    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// The octets of a received datagram.
    pub fn octets(&self, index: usize) -> &[u8] {
        &self.frame.octets[index][..self.frame.headers[index].msg_len as usize]
    }

    /// Who sent the received datagram at `index`.
    pub fn peer(&self, index: usize) -> SocketAddrV4 {
        let peer = &self.frame.peers[index];
        SocketAddrV4::new(Ipv4Addr::from(u32::from_be(peer.sin_addr.s_addr)), u16::from_be(peer.sin_port))
    }

    /// Adds a datagram for the peer that the socket is connected to; `write` fills the buffer and returns the length.
    /// There must be room.
    pub fn push(&mut self, write: impl FnOnce(&mut [u8; LONGEST]) -> usize) {
        self.frame.parts[self.used].iov_len = write(&mut self.frame.octets[self.used]);
        self.frame.headers[self.used].msg_hdr.msg_namelen = 0;
        self.used += 1;
    }

    /// Adds a datagram for `peer`.
    pub fn push_to(&mut self, peer: SocketAddrV4, write: impl FnOnce(&mut [u8; LONGEST]) -> usize) {
        let name = &mut self.frame.peers[self.used];
        name.sin_family = libc::AF_INET as _;
        name.sin_port = peer.port().to_be();
        name.sin_addr.s_addr = u32::from(*peer.ip()).to_be();
        self.frame.parts[self.used].iov_len = write(&mut self.frame.octets[self.used]);
        self.frame.headers[self.used].msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_in>() as _;
        self.used += 1;
    }

    /// Receives what is there, at most [`BATCH`]; waits for the first one unless the socket is nonblocking or its
    /// time-out is over. Not to be mixed with sending: the buffers are received into as they were made.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for header in &mut self.frame.headers[..self.used] {
            header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_in>() as _;
        }
        let headers = self.frame.headers.as_mut_ptr();
        // SAFETY: the headers point into `self`, which outlives the call.
        let count = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers, BATCH as _, libc::MSG_WAITFORONE, std::ptr::null_mut())
        };
        self.used = 0;
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.used = count;
        Ok(count)
    }

    /// Sends all and forgets them.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.used {
            let (headers, left) = (self.frame.headers.as_mut_ptr(), self.used - sent);
            // SAFETY: the headers point into `self`, which outlives the call, and `sent` is below the number of them.
            let count = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.add(sent), left as _, 0) };
            sent += usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        }
        self.used = 0;
        Ok(())
    }
}
