//! The worker slot of a thread: which cell of every counter it writes.

use std::cell::Cell;

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// Makes the calling thread the only writer of slot `index` (1 and up; 0 is shared by all other threads). Two threads
/// in one slot lose counts. A slot that a registry does not have counts as 0 there.
pub fn enter_worker_slot(index: usize) {
    SLOT.set(index);
}

/// The calling thread's slot.
#[inline]
pub(crate) fn slot() -> usize {
    SLOT.get()
}
