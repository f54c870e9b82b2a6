//! Which lane of every counter the calling thread writes.

use std::cell::Cell;

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// Makes the calling thread the only writer of lane `index` (1 and up; 0 is shared by all other threads). Two threads in one lane
/// lose counts. A lane that a registry does not have counts as 0 there.
pub fn enter_lane(index: usize) {
    LANE.set(index);
}

/// The calling thread's lane.
#[inline]
pub fn lane() -> usize {
    LANE.get()
}
