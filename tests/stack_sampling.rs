//! Sampling interrupts a process anywhere, also in the C library's unwinder and where threads begin and end. It has a
//! process of its own, since the timer and the signal are the whole process's.

use nodelocaldns::stack_sampling::Sampler;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// With the unwinder called in the handler this ended with SIGSEGV, mostly within the first hundreds of samples.
const SAMPLES: usize = 1000;

#[test]
fn panics_and_threads_that_begin_and_end_are_sampled_unharmed() {
    let is_over = AtomicBool::new(false);
    let (mut taken, mut deepest) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Without the hook, which would print.
                assert!(catch_unwind(|| resume_unwind(Box::new(()))).is_err());
            }
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                thread::spawn(|| ()).join().expect("it does nothing");
            }
        });
        let mut sampler = Sampler::start(Duration::from_millis(1)).expect("nobody else samples");
        while taken < SAMPLES {
            thread::sleep(Duration::from_millis(20));
            sampler.drain(|frames| {
                assert!(!frames.is_empty());
                taken += 1;
                deepest = deepest.max(frames.len());
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(deepest > 5, "stacks are whole: {deepest}");
}
