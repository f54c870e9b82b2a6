//! Frames on their way from the workers to the writer of their endpoint. Each thread has a part of its own, so that no
//! worker waits for another. Nobody waits for room: what finds none is dropped and counted.

use crate::metrics::Counter;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use thread_local::ThreadLocal;
use tokio::sync::Notify;

/// Room that an empty part keeps, in octets.
const KEPT: usize = 64 << 10;

/// A bounded queue of whole frames.
pub(super) struct Queue {
    parts: ThreadLocal<Mutex<Vec<u8>>>,
    /// Octets of one part.
    share: usize,
    /// Somebody reads, or will: else nothing need be made for it.
    is_wanted: AtomicBool,
    /// The writer knows that there is something.
    is_told: AtomicBool,
    filled: Notify,
    half_full: Notify,
    dropped: Counter,
    /// Of those, the ones that no log line has told of.
    untold: AtomicU64,
}

impl Queue {
    /// For this many workers, which may together hold so many octets.
    pub(super) fn new(octets: usize, workers: usize, is_wanted: bool, dropped: Counter) -> Self {
        Self {
            parts: ThreadLocal::new(),
            share: octets / workers.max(1),
            is_wanted: AtomicBool::new(is_wanted),
            is_told: AtomicBool::new(false),
            filled: Notify::new(),
            half_full: Notify::new(),
            dropped,
            untold: AtomicU64::new(0),
        }
    }

    /// Whether what is pushed is read.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Sets that.
    pub(super) fn set_wanted(&self, is_wanted: bool) {
        self.is_wanted.store(is_wanted, Ordering::Relaxed);
    }

    /// Appends `count` whole frames, all or none of them.
    pub(super) fn push(&self, frames: &[u8], count: u64) {
        let mut part = self.parts.get_or_default().lock();
        let length = part.len() + frames.len();
        if length > self.share {
            drop(part);
            return self.drop_frames(count);
        }
        if part.capacity() < length {
            let room = (2 * length).clamp(KEPT.min(self.share), self.share) - part.len();
            part.reserve_exact(room);
        }
        let half = self.share / 2;
        let is_half_full = part.len() <= half && length > half;
        part.extend_from_slice(frames);
        drop(part);
        // The part's lock orders this after what the writer has said before it took the part.
        if !self.is_told.load(Ordering::Relaxed) && !self.is_told.swap(true, Ordering::AcqRel) {
            self.filled.notify_one();
        }
        if is_half_full {
            self.half_full.notify_one();
        }
    }

    /// Counts frames that nobody will get.
    pub(super) fn drop_frames(&self, count: u64) {
        self.dropped.add(count);
        self.untold.fetch_add(count, Ordering::Relaxed);
    }

    /// How many were dropped since this was asked last.
    pub(super) fn take_untold(&self) -> u64 {
        self.untold.swap(0, Ordering::Relaxed)
    }

    /// Waits until there is something. May be dropped and called again at any time.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Waits until a part is half full. May be dropped and called again at any time.
    pub(super) async fn half_full(&self) {
        self.half_full.notified().await;
    }

    /// Appends all that there is to `frames`; false if there is nothing.
    pub(super) fn take(&self, frames: &mut Vec<u8>) -> bool {
        self.is_told.store(false, Ordering::Release);
        let before = frames.len();
        for part in &self.parts {
            let mut part = part.lock();
            if frames.is_empty() && part.len() > KEPT {
                std::mem::swap(frames, &mut part);
            } else {
                frames.extend_from_slice(&part);
                part.clear();
            }
            if part.capacity() > KEPT {
                *part = Vec::new();
            }
        }
        frames.len() > before
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;
    use crate::metrics::Registry;

    fn queue(octets: usize, workers: usize) -> Queue {
        Queue::new(octets, workers, true, Registry::new(1).counter("dropped", "Dropped.", &[]))
    }

    #[test]
    fn frames_of_all_threads_are_taken_whole_and_in_the_order_of_each() {
        let queue = queue(400, 4);
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let queue = &queue;
                scope.spawn(move || (0..10).for_each(|number| queue.push(&[thread, number], 1)));
            }
        });
        let mut frames = Vec::new();
        assert!(queue.take(&mut frames) && !queue.take(&mut frames));
        for thread in 0..4 {
            let of_thread: Vec<u8> =
                frames.chunks(2).filter(|frame| frame[0] == thread).map(|frame| frame[1]).collect();
            assert_eq!(of_thread, (0..10).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_later_there_is_room_again() {
        let queue = queue(20, 2);
        (0..7).for_each(|_| queue.push(&[0; 4], 2));
        assert_eq!((queue.take_untold(), queue.take_untold(), queue.dropped.value()), (10, 0, 10));
        let mut frames = Vec::new();
        assert!(queue.take(&mut frames));
        assert_eq!(frames.len(), 8);
        queue.push(&[0; 4], 1);
        assert_eq!(queue.take_untold(), 0);
        assert!(queue.parts.iter().all(|part| part.lock().capacity() <= 20));
    }

    #[tokio::test]
    async fn the_writer_is_told_once_until_it_looks() {
        let queue = queue(100, 1);
        queue.push(&[0; 4], 1);
        queue.filled().await;
        queue.push(&[0; 4], 1);
        let is_told = || futures_util::FutureExt::now_or_never(queue.filled()).is_some();
        assert!(!is_told(), "it knows");
        queue.take(&mut Vec::new());
        queue.push(&[0; 4], 1);
        assert!(is_told());
        assert!(futures_util::FutureExt::now_or_never(queue.half_full()).is_none());
        queue.push(&[0; 60], 1);
        queue.half_full().await;
    }
}
