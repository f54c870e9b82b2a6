//! Samples, counted by their stack: a process does the same again and again.

use std::collections::HashMap;

/// Different stacks; more are counted in one number. At 128 frames of 8 octets they are 8 MiB at most.
const MOST_STACKS: usize = 8192;

/// How often each stack was seen.
#[derive(Default)]
pub(super) struct Aggregate {
    stacks: HashMap<Box<[usize]>, i64>,
    /// Samples whose stack is not kept.
    others: i64,
}

impl Aggregate {
    pub(super) fn count(&mut self, stack: &[usize]) {
        if let Some(count) = self.stacks.get_mut(stack) {
            *count += 1;
        } else if self.stacks.len() < MOST_STACKS {
            self.stacks.insert(stack.into(), 1);
        } else {
            self.others += 1;
        }
    }
    pub(super) fn stacks(&self) -> impl Iterator<Item = (&[usize], i64)> {
        self.stacks.iter().map(|(stack, count)| (&**stack, *count))
    }
    pub(super) fn others(&self) -> i64 {
        self.others
    }
}
