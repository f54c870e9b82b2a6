//! From registers and the copy of a stack to its frames, by the tables that panics are unwound by too (`.eh_frame`).
//! Nothing but the copy is read, so tables that are wrong lead nowhere.

use super::DEPTH;
use super::registers::CpuRegisters;
use framehop::{CacheNative, ExplicitModuleSectionInfo, Module, Unwinder as _, UnwinderNative};
use std::ffi::c_void;
use std::ops::Range;

/// The encoding of the pointer to `.eh_frame`, relative to itself and of 4 octets, that linkers write (LSB Core, "DWARF
/// Exception Header Encoding").
const RELATIVE_4: u8 = 0x1b;
/// Its place in `.eh_frame_hdr`.
const POINTER: Range<usize> = 4..8;

pub(super) struct Unwinder {
    unwinder: UnwinderNative<&'static [u8], framehop::MayAllocateDuringUnwind>,
    cache: CacheNative<framehop::MayAllocateDuringUnwind>,
    code: Vec<Range<u64>>,
    frames: Vec<usize>,
}

impl Unwinder {
    /// For the program and the libraries that are loaded now.
    pub(super) fn new() -> Self {
        let mut objects: Vec<Object> = Vec::new();
        // SAFETY: `visit` casts the pointer back to what it is, which nothing else uses meanwhile.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut objects).cast()) };
        let mut unwinder = UnwinderNative::new();
        let mut code = Vec::new();
        for object in objects {
            code.push(object.code.clone());
            let name = String::new();
            unwinder.add_module(Module::new(name, object.code, object.base, object.sections));
        }
        Self { unwinder, cache: CacheNative::new_in(), code, frames: Vec::with_capacity(DEPTH) }
    }

    /// Return addresses from the innermost function outwards. `stack` begins where the stack pointer points.
    pub(super) fn frames(&mut self, registers: &CpuRegisters, stack: &[u8]) -> &[usize] {
        let base = registers.stack_pointer() as u64;
        let mut read = |address: u64| {
            let offset = address.checked_sub(base).and_then(|offset| usize::try_from(offset).ok());
            let word = offset.and_then(|offset| stack.get(offset..)?.first_chunk());
            word.map(|word| u64::from_le_bytes(*word)).ok_or(())
        };
        self.frames.clear();
        let start = registers.program_counter();
        let mut frames = self.unwinder.iter_frames(start, registers.unwinding(), &mut self.cache, &mut read);
        while let Ok(Some(frame)) = frames.next() {
            let address = frame.address_for_lookup();
            self.frames.push(usize::try_from(address).unwrap_or_default().wrapping_add(1));
            // No table leads on from code that is in no file; what would be guessed is left away.
            if self.frames.len() == DEPTH || !self.code.iter().any(|code| code.contains(&address)) {
                break;
            }
        }
        &self.frames
    }
}

/// The program or a library.
struct Object {
    base: u64,
    code: Range<u64>,
    sections: ExplicitModuleSectionInfo<&'static [u8]>,
}

extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, objects: *mut c_void) -> i32 {
    // SAFETY: the C library passes a structure that is valid during the call, and the pointer that it was given, which
    // is to this.
    let (info, objects) = unsafe { (&*info, &mut *objects.cast::<Vec<Object>>()) };
    // SAFETY: so many headers are there, for as long as the object is loaded.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    objects.extend(object(info.dlpi_addr, headers));
    0
}

fn object(base: u64, headers: &[libc::Elf64_Phdr]) -> Option<Object> {
    let range = |header: &libc::Elf64_Phdr| header.p_vaddr..header.p_vaddr.wrapping_add(header.p_memsz);
    let loaded = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let code = loaded().find(|header| header.p_flags & libc::PF_X != 0).map(range)?;
    let index = headers.iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME).map(range)?;
    let segment = loaded().map(range).find(|segment| segment.contains(&index.start) && index.end <= segment.end)?;
    let octets = |part: &Range<u64>| {
        let (start, length) = (usize::try_from(base.wrapping_add(part.start)), usize::try_from(part.end - part.start));
        // SAFETY: the part is in a segment, which is loaded for as long as the program runs: nothing unloads libraries
        // here. Nobody writes tables.
        Some(unsafe { std::slice::from_raw_parts(start.ok()? as *const u8, length.ok()?) })
    };
    let eh_frame_hdr = octets(&index)?;
    if eh_frame_hdr.get(1) != Some(&RELATIVE_4) {
        return None;
    }
    let distance = i32::from_le_bytes(eh_frame_hdr.get(POINTER)?.try_into().ok()?);
    let start = index.start.wrapping_add(POINTER.start as u64).wrapping_add_signed(distance.into());
    // Its end is in no header; the index says where in it entries begin.
    let tables = (segment.contains(&start)).then_some(start..segment.end)?;
    let sections = ExplicitModuleSectionInfo {
        eh_frame: Some(octets(&tables)?),
        eh_frame_svma: Some(tables),
        eh_frame_hdr: Some(eh_frame_hdr),
        eh_frame_hdr_svma: Some(index),
        ..ExplicitModuleSectionInfo::default()
    };
    Some(Object { base, code: base.wrapping_add(code.start)..base.wrapping_add(code.end), sections })
}
