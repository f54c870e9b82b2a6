//! Memory for counters: chunks of cells, a copy of each chunk for every worker slot. A series takes the same cells in
//! all slots. That makes a count 8 octets a slot, and yet no two slots ever share a cache line.

use super::slot;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Cells of a chunk; what one series needs must fit.
pub(super) const CHUNK_CELLS: usize = 64;

/// One slot's cells of a chunk. 128 octets, since processors fetch cache lines in pairs.
#[repr(align(128))]
struct SlotCells([AtomicU64; CHUNK_CELLS]);

/// Consecutive cells of a chunk, in every slot. The chunk lives as long as any of its series.
#[derive(Clone)]
pub(super) struct Cells {
    slots: Arc<[SlotCells]>,
    first: usize,
}

impl Cells {
    /// Adds to the `index`th cell in the caller's slot. A worker is the only writer of its slot, so it needs no locked
    /// instruction.
    #[inline]
    pub(super) fn add(&self, index: usize, n: u64) {
        let (cells, is_sole_writer) = self.own();
        add(self.cell(cells, index), is_sole_writer, n);
    }
    /// Adds 1 to the `index`th cell, and `value` to the `sum`th, which holds the bits of an f64, in the caller's slot.
    #[inline]
    pub(super) fn observe(&self, index: usize, sum: usize, value: f64) {
        let (cells, is_sole_writer) = self.own();
        add(self.cell(cells, index), is_sole_writer, 1);
        let raised = |bits| (f64::from_bits(bits) + value).to_bits();
        let cell = self.cell(cells, sum);
        if is_sole_writer {
            cell.store(raised(cell.load(Ordering::Relaxed)), Ordering::Relaxed);
        } else {
            cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| Some(raised(bits))).ok();
        }
    }
    /// The caller's slot, and whether it is its only writer.
    #[inline]
    fn own(&self) -> (&SlotCells, bool) {
        let slot = slot();
        match self.slots.get(slot) {
            Some(cells) if slot != 0 => (cells, true),
            _ => (&self.slots[0], false),
        }
    }
    /// The `index`th cell in a slot. It is there: the remainder only tells the compiler so, who need not check then.
    #[inline]
    fn cell<'a>(&self, cells: &'a SlotCells, index: usize) -> &'a AtomicU64 {
        debug_assert!(self.first + index < CHUNK_CELLS);
        &cells.0[(self.first + index) % CHUNK_CELLS]
    }
    /// The sum of the `index`th cell over all slots.
    pub(super) fn total(&self, index: usize) -> u64 {
        self.every(index).fold(0, u64::wrapping_add)
    }
    /// The same for a cell with the bits of an f64.
    pub(super) fn total_f64(&self, index: usize) -> f64 {
        self.every(index).map(f64::from_bits).sum()
    }
    fn every(&self, index: usize) -> impl Iterator<Item = u64> {
        self.slots.iter().map(move |cells| self.cell(cells, index).load(Ordering::Relaxed))
    }
}

#[inline]
fn add(cell: &AtomicU64, is_sole_writer: bool, n: u64) {
    if is_sole_writer {
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    } else {
        cell.fetch_add(n, Ordering::Relaxed);
    }
}

/// Hands out cells. Those of series that were dropped are not handed out again, since somebody may still hold and write
/// them; their memory is freed with their chunk.
pub(super) struct Arena {
    slots: usize,
    chunk: Arc<[SlotCells]>,
    used: usize,
}

impl Arena {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: slots.max(1), chunk: Arc::default(), used: CHUNK_CELLS }
    }
    /// `count` new cells at zero.
    pub(super) fn take(&mut self, count: usize) -> Cells {
        assert!(
            count <= CHUNK_CELLS,
            "a series of {count} cells is more than the {CHUNK_CELLS} of a chunk: use fewer buckets"
        );
        if self.used + count > CHUNK_CELLS {
            self.chunk = (0..self.slots).map(|_| SlotCells([const { AtomicU64::new(0) }; CHUNK_CELLS])).collect();
            self.used = 0;
        }
        let first = self.used;
        self.used += count;
        Cells { slots: self.chunk.clone(), first }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, CHUNK_CELLS};
    use crate::metrics::enter_worker_slot;
    use std::thread;

    #[test]
    fn each_worker_writes_only_its_own_cache_lines() {
        let mut arena = Arena::new(3);
        let (first, second) = (arena.take(1), arena.take(1));
        thread::scope(|scope| {
            for slot in 0..3 {
                let second = &second;
                scope.spawn(move || {
                    enter_worker_slot(slot);
                    second.add(0, 10_u64.pow(slot as u32));
                });
            }
        });
        assert_eq!(second.every(0).collect::<Vec<_>>(), [1, 10, 100]);
        assert_eq!(first.every(0).collect::<Vec<_>>(), [0, 0, 0]);
        let addresses: Vec<_> = first.slots.iter().map(|cells| std::ptr::from_ref(cells).addr()).collect();
        assert!(addresses.iter().all(|address| address % 128 == 0), "{addresses:x?}");
    }

    #[test]
    fn threads_without_a_slot_of_their_own_lose_no_count() {
        let cells = Arena::new(2).take(2);
        thread::scope(|scope| {
            for slot in [0, 0, 7, 1] {
                let cells = &cells;
                scope.spawn(move || {
                    enter_worker_slot(slot);
                    for _ in 0..1000 {
                        cells.observe(0, 1, 0.5);
                    }
                });
            }
        });
        assert_eq!(cells.total(0), 4000);
        assert_eq!(cells.total_f64(1), 2000.0);
    }

    #[test]
    fn a_series_never_spans_chunks_and_chunks_are_used_up() {
        let mut arena = Arena::new(1);
        let taken: Vec<_> = (0..4).map(|_| arena.take(18)).collect();
        assert_eq!(taken.iter().map(|cells| cells.first).collect::<Vec<_>>(), [0, 18, 36, 0]);
        assert_eq!(arena.take(CHUNK_CELLS - 18).first, 18);
        assert_eq!(arena.take(CHUNK_CELLS).first, 0);
    }
}
