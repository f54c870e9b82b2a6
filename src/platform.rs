//! The few calls of the operating system and the C library that no crate offers safely. With `datagrams` and
//! `stack_sampling` this is the only file with unsafe code.

#![allow(unsafe_code, reason = "calls that no crate offers safely")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Descriptors 0 to 2 are standard input, output and error, which have other owners.
const LAST_STANDARD_DESCRIPTOR: RawFd = 2;

/// Registers a descriptor with the runtime whose context this is called in, for reading.
///
/// # Errors
/// Those of epoll_ctl(2).
pub(crate) fn register_readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the registration owns the descriptor and lends it only by shared reference, so it stays open and the
    // same.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// Takes over the one descriptor that the parent process has passed under this number. To be called at the start of the
/// process, before anything else is opened.
///
/// # Errors
/// Nothing is open under this number, it is a standard one, or this was called before.
pub(crate) fn take_inherited_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    let is_open = std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    if number <= LAST_STANDARD_DESCRIPTOR || !is_open {
        return Err(io::Error::other("no such descriptor is open"));
    }
    if IS_TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::other("the inherited descriptor was taken before"));
    }
    // SAFETY: it is open, and nothing else owns it: it was passed for this, and is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The cookie of the network namespace that a socket belongs to (SO_NETNS_COOKIE, Linux 5.14).
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn network_namespace_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(io::Error::other)?;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_NETNS_COOKIE);
    // SAFETY: `cookie` has room for `length` octets, and any octets are a valid integer.
    let outcome =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut cookie).cast(), &raw mut length) };
    if outcome == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option of a socket into `octets`, whose beginning may say what is wanted; how many octets the kernel has
/// written.
///
/// # Errors
/// Those of getsockopt(2).
pub(crate) fn read_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    octets: &mut [u8],
) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(octets.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes into `octets`, at most as many as there are, and any octets are valid.
    let outcome =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, octets.as_mut_ptr().cast(), &raw mut length) };
    if outcome == 0 { Ok(length as usize) } else { Err(io::Error::last_os_error()) }
}

/// Gives memory that is no longer used back to the kernel. The allocator would keep it for later.
pub(crate) fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and touches no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the allocator holds, in octets (mallinfo2(3)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AllocatorFigures {
    /// Given out, of what the heaps hold.
    pub in_use: usize,
    /// Of the heaps, free for the next who asks.
    pub free: usize,
    /// Of that, at the top of the main heap, which could go back to the kernel.
    pub free_at_top: usize,
    /// How many pieces are free.
    pub free_pieces: usize,
    /// What the heaps hold.
    pub heaps: usize,
    /// Given out in mappings of their own.
    pub mapped: usize,
    /// How many those are.
    pub mappings: usize,
}

/// Asks the allocator, which looks through its free pieces for it. None if it is not the GNU C library's.
pub(crate) fn allocator_figures() -> Option<AllocatorFigures> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes the allocator's own locks, and gives numbers alone.
        let info = unsafe { libc::mallinfo2() };
        Some(AllocatorFigures {
            in_use: info.uordblks,
            free: info.fordblks,
            free_at_top: info.keepcost,
            free_pieces: info.ordblks,
            heaps: info.arena,
            mapped: info.hblkhd,
            mappings: info.hblks,
        })
    }
    #[cfg(not(target_env = "gnu"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_open_descriptor_beyond_the_standard_ones_is_taken() {
        for number in [-1, 0, 1, 2, RawFd::MAX] {
            assert!(take_inherited_descriptor(number).is_err(), "{number}");
        }
    }
}
