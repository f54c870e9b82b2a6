//! Samples of what the process is doing: its stack, each time it has used so much processor time (setitimer(2),
//! SIGPROF). A process in which nobody samples pays nothing for it: there is no timer, and no signal comes.
//!
//! The signal's handler runs in the middle of anything, also where the tables that lead from a function to its caller
//! are wrong, as in the C library's own unwinder. So it only notes the registers in one of a fixed number of slots, and
//! has the kernel copy the stack into a file in memory: where the stack ends the kernel finds nothing to read, and says
//! so. The frames are found later, in the copy ([`unwind`]).

#![allow(unsafe_code, reason = "a signal handler, and stacks as they are")]

mod registers;
mod unwind;

use registers::CpuRegisters;
use rustix::fs::{MemfdFlags, memfd_create};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use unwind::Unwinder;

/// Frames of a stack; what is further out is left away.
pub const DEPTH: usize = 128;

/// Octets of a stack that are copied.
const STACK: usize = 64 << 10;

/// Samples between two calls of [`Sampler::drain`]; further ones are lost. The first that is free is taken, so that no
/// more of them become resident than are used at a time.
const SLOTS: usize = 128;

const FREE: u8 = 0;
const TAKEN: u8 = 1;
const FULL: u8 = 2;

struct SampleSlot {
    state: AtomicU8,
    registers: [AtomicU64; CpuRegisters::COUNT],
    /// Octets of the stack that were copied.
    length: AtomicUsize,
}

static SLOT: [SampleSlot; SLOTS] = [const {
    SampleSlot {
        state: AtomicU8::new(FREE),
        registers: [const { AtomicU64::new(0) }; CpuRegisters::COUNT],
        length: AtomicUsize::new(0),
    }
}; SLOTS];
static IS_SAMPLING: AtomicBool = AtomicBool::new(false);
static HAS_SAMPLER: AtomicBool = AtomicBool::new(false);
static LOST: AtomicU64 = AtomicU64::new(0);
/// The copies of stacks, each at its slot's place. It stays open for good, so that no handler that is late writes to
/// another file of that number.
static COPIES: OnceLock<File> = OnceLock::new();

/// Why no samples can be taken.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says it")]
pub enum SamplingError {
    #[error("samples of this process are taken already: try again when that is over")]
    Busy,
    #[error("no file in memory can be made for the stacks: {0}")]
    Memory(#[source] io::Error),
    #[error("the signal SIGPROF cannot be handled: {0}")]
    Handler(#[source] io::Error),
    #[error(
        "the timer of processor time cannot be set: {0}; does a seccomp profile of the container refuse the system call setitimer?"
    )]
    Timer(#[source] io::Error),
}

/// Samples are taken while it is held. There is one in a process at a time.
pub struct Sampler {
    unwinder: Unwinder,
    copies: &'static File,
    /// What is read of one copy.
    stack: Vec<u8>,
}

impl Sampler {
    /// Begins: from now on there is a sample for each `period` of processor time that all threads together use, as
    /// finely as the kernel's clock ticks.
    ///
    /// # Errors
    /// Another sampler is held, or the kernel refuses.
    pub fn start(period: Duration) -> Result<Self, SamplingError> {
        if HAS_SAMPLER.swap(true, Ordering::Acquire) {
            return Err(SamplingError::Busy);
        }
        let copies =
            copies().inspect_err(|_| HAS_SAMPLER.store(false, Ordering::Release)).map_err(SamplingError::Memory)?;
        let sampler = Self { unwinder: Unwinder::new(), copies, stack: vec![0; STACK] };
        handle_signal().map_err(SamplingError::Handler)?;
        LOST.store(0, Ordering::Relaxed);
        IS_SAMPLING.store(true, Ordering::Release);
        set_timer(period).map_err(SamplingError::Timer)?;
        Ok(sampler)
    }

    /// Gives `take` each sample since the last call, as return addresses from the innermost function outwards; that of
    /// the innermost is behind what it was about to do.
    pub fn drain(&mut self, mut take: impl FnMut(&[usize])) {
        for (number, slot) in SLOT.iter().enumerate() {
            if slot.state.load(Ordering::Acquire) != FULL {
                continue;
            }
            let registers = CpuRegisters::load(&slot.registers);
            let copied = self.stack.get_mut(..slot.length.load(Ordering::Relaxed)).unwrap_or_default();
            // What cannot be read back ends the stack there.
            let length = self.copies.read_at(copied, (number * STACK) as u64).unwrap_or(0);
            slot.state.store(FREE, Ordering::Release);
            take(self.unwinder.frames(&registers, self.stack.get(..length).unwrap_or_default()));
        }
    }

    /// Samples for which there was no slot.
    pub fn lost(&self) -> u64 {
        LOST.load(Ordering::Relaxed)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // Stopping it needs nothing that starting it did not. A handler that still runs writes into its slot and its
        // place of the file, which are there.
        _ = set_timer(Duration::ZERO);
        IS_SAMPLING.store(false, Ordering::Release);
        self.drain(|_| {});
        // At worst it keeps its memory until the next one.
        _ = self.copies.set_len(0);
        HAS_SAMPLER.store(false, Ordering::Release);
    }
}

fn copies() -> io::Result<&'static File> {
    if let Some(copies) = COPIES.get() {
        return Ok(copies);
    }
    let copies = memfd_create("stacks", MemfdFlags::CLOEXEC)?;
    Ok(COPIES.get_or_init(|| File::from(copies)))
}

/// It stays for good: without it a signal that still waits when the timer is stopped would end the process.
fn handle_signal() -> io::Result<()> {
    static OUTCOME: OnceLock<Result<(), i32>> = OnceLock::new();
    let install = || {
        // SAFETY: all zeros is a valid sigaction, whose fields are set below.
        let mut action: libc::sigaction = unsafe { zeroed() };
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) = on_signal;
        action.sa_sigaction = handler as usize;
        // On the thread's own stack: the other one is for the overflow of that. Calls that can be begun again are.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // SAFETY: the handler lives as long as the program, has the signature that SA_SIGINFO asks for, and keeps to
        // what may be done in one.
        let outcome = unsafe { libc::sigaction(libc::SIGPROF, &raw const action, null_mut()) };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or_default()) }
    };
    OUTCOME.get_or_init(install).map_err(io::Error::from_raw_os_error)
}

/// Zero stops it.
fn set_timer(period: Duration) -> io::Result<()> {
    let seconds = libc::time_t::try_from(period.as_secs()).map_err(io::Error::other)?;
    let interval = libc::timeval { tv_sec: seconds, tv_usec: libc::suseconds_t::from(period.subsec_micros()) };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the kernel reads one structure, and is not asked for the old one.
    let outcome = unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, null_mut()) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_signal(_signal: i32, _info: *mut libc::siginfo_t, context: *mut c_void) {
    if !IS_SAMPLING.load(Ordering::Acquire) {
        return;
    }
    // SAFETY: it points to this thread's own errno, which whoever was interrupted may be about to read.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: with SA_SIGINFO the kernel passes a ucontext_t.
    record(&CpuRegisters::interrupted(unsafe { &*context.cast::<libc::ucontext_t>() }));
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

fn record(registers: &CpuRegisters) {
    let is_taken =
        |slot: &SampleSlot| slot.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok();
    let (Some((number, slot)), Some(copies)) = (SLOT.iter().enumerate().find(|(_, slot)| is_taken(slot)), COPIES.get())
    else {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    };
    registers.store(&slot.registers);
    let length = copy(registers.stack_pointer(), copies, number * STACK);
    slot.length.store(length, Ordering::Relaxed);
    slot.state.store(FULL, Ordering::Release);
}

/// Writes what can be read of [`STACK`] octets from an address on into a file, at a place; how many there were.
fn copy(address: usize, file: &File, place: usize) -> usize {
    // SAFETY: the kernel reads, as far as there is something to be read, and writes to a file that nobody has mapped.
    let written =
        unsafe { libc::syscall(libc::SYS_pwrite64, file.as_raw_fd(), address as *const c_void, STACK, place) };
    usize::try_from(written).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{STACK, copy};
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_can_be_read_is_copied_up_to_where_nothing_is() {
        let file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        let here: Vec<u8> = (0..STACK + 1).map(|octet| octet as u8).collect();
        assert_eq!(copy(here.as_ptr() as usize, &file, 100), STACK);
        let mut copied = vec![0; STACK];
        file.read_exact_at(&mut copied, 100).unwrap();
        assert!(copied == here[..STACK]);
        for nowhere in [0, 8, usize::MAX & !7] {
            assert_eq!(copy(nowhere, &file, 0), 0, "{nowhere:#x}");
        }
        // One page of two.
        let maps = procfs::process::Process::myself().unwrap().maps().unwrap().0;
        let stack =
            maps.iter().find(|map| map.pathname == procfs::process::MMapPath::Stack).expect("the first thread's stack");
        let end = usize::try_from(stack.address.1).unwrap();
        assert_eq!(copy(end - 4096, &file, 0), 4096);
    }
}
