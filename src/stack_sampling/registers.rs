//! The registers of a thread that was interrupted, as far as callers are found by them.

use std::sync::atomic::{AtomicU64, Ordering};

/// In the order of framehop's numbers on x86-64, the program counter last; on ARM64 frame pointer, link register, stack
/// pointer and program counter.
pub(super) struct CpuRegisters(pub [u64; Self::COUNT]);

#[cfg(target_arch = "x86_64")]
impl CpuRegisters {
    pub(super) const COUNT: usize = 17;
    const STACK_POINTER: usize = 7;

    pub(super) fn interrupted(context: &libc::ucontext_t) -> Self {
        let order = [
            libc::REG_RAX,
            libc::REG_RDX,
            libc::REG_RCX,
            libc::REG_RBX,
            libc::REG_RSI,
            libc::REG_RDI,
            libc::REG_RBP,
            libc::REG_RSP,
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
            libc::REG_RIP,
        ];
        let value =
            |register: i32| usize::try_from(register).ok().and_then(|place| context.uc_mcontext.gregs.get(place));
        Self(order.map(|register| value(register).map_or(0, |value| value.cast_unsigned())))
    }

    pub(super) fn unwinding(&self) -> framehop::x86_64::UnwindRegsX86_64 {
        use framehop::x86_64::Reg;
        let order = [
            Reg::RAX,
            Reg::RDX,
            Reg::RCX,
            Reg::RBX,
            Reg::RSI,
            Reg::RDI,
            Reg::RBP,
            Reg::RSP,
            Reg::R8,
            Reg::R9,
            Reg::R10,
            Reg::R11,
            Reg::R12,
            Reg::R13,
            Reg::R14,
            Reg::R15,
        ];
        let mut registers = framehop::x86_64::UnwindRegsX86_64::new(self.program_counter(), 0, 0);
        for (register, value) in order.into_iter().zip(self.0) {
            registers.set(register, value);
        }
        registers
    }
}

#[cfg(target_arch = "aarch64")]
impl CpuRegisters {
    pub(super) const COUNT: usize = 4;
    const STACK_POINTER: usize = 2;

    pub(super) fn interrupted(context: &libc::ucontext_t) -> Self {
        let machine = &context.uc_mcontext;
        Self([machine.regs[29], machine.regs[30], machine.sp, machine.pc])
    }

    pub(super) fn unwinding(&self) -> framehop::aarch64::UnwindRegsAarch64 {
        let [frame, link, stack, _] = self.0;
        framehop::aarch64::UnwindRegsAarch64::new(link, stack, frame)
    }
}

impl CpuRegisters {
    pub(super) fn program_counter(&self) -> u64 {
        self.0[Self::COUNT - 1]
    }
    /// Where the stack's words begin.
    pub(super) fn stack_pointer(&self) -> usize {
        self.0[Self::STACK_POINTER] as usize & !7
    }
    pub(super) fn load(places: &[AtomicU64; Self::COUNT]) -> Self {
        Self(std::array::from_fn(|register| places[register].load(Ordering::Relaxed)))
    }
    pub(super) fn store(&self, places: &[AtomicU64; Self::COUNT]) {
        for (place, value) in places.iter().zip(self.0) {
            place.store(value, Ordering::Relaxed);
        }
    }
}
