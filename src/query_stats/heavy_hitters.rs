//! The keys of a stream that come most often, in a bounded number of octets.
//!
//! Space-Saving (Metwally et al. 2005): a key that is not kept may have come as often as the floor says, so a new one
//! begins there, and what it may have too much is known. Instead of the smallest key for each new one, the smaller half
//! goes when there is no room (Anderson et al. 2017), which costs a look-up for most keys and orders nothing.
//!
//! # What it may get wrong
//! With `W` the weight of all that came and `k` the keys that fit, for each key:
//! - `count - error` ≤ what came ≤ `count`, and a key that is not kept came `floor` times at most;
//! - `floor` ≤ 2 `W` / `k`: each time that keys go, at least `k` / 2 had so much more than the floor as it rises.
//!
//! So a key with more than 2 `W` / `k` is always there. Bounds and floors of merged sketches add up.
//!
//! No crate fits: `topk` (filtered Space-Saving) wants an owned key for each event and bounds keys, not octets;
//! `heavykeeper` cannot merge; those of larger collections say nothing of their errors.

use foldhash::fast::RandomState;
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

/// What a key takes beside its octets: its entry in a table that is half full, and the allocator's share.
const OVERHEAD: usize = 96;

/// Keys that a table has room for from the first one on: it grows less often then, each time at the cost of all keys.
const FIRST: usize = 112;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub keys: usize,
    pub octets: usize,
}

impl Room {
    /// How many keys of this length fit.
    #[cfg(test)]
    pub(crate) fn keys_of(&self, length: usize) -> usize {
        self.keys.min(self.octets / (length + OVERHEAD))
    }
}

/// How often a key came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// At most so often.
    pub count: u64,
    /// Of which so many may be others'.
    pub error: u64,
}

/// The keys that come most often.
#[derive(Clone, Debug)]
pub(crate) struct HeavyHitters {
    room: Room,
    kept: HashMap<Box<[u8]>, Count, RandomState>,
    octets: usize,
    floor: u64,
}

impl HeavyHitters {
    /// With nothing in it, which takes no memory.
    pub(crate) fn new(room: Room) -> Self {
        Self { room, kept: HashMap::default(), octets: 0, floor: 0 }
    }

    /// The key came so many times more.
    #[inline]
    pub(crate) fn add(&mut self, key: &[u8], times: u64) {
        match self.kept.get_mut(key) {
            Some(count) => count.count += times,
            None => self.add_new(key, times),
        }
    }

    #[cold]
    fn add_new(&mut self, key: &[u8], times: u64) {
        if self.kept.len() >= self.room.keys || self.octets + key.len() + OVERHEAD > self.room.octets {
            self.shrink(Room { keys: self.room.keys / 2, octets: self.room.octets / 2 });
        }
        if self.kept.capacity() == 0 {
            self.kept.reserve(self.room.keys.min(FIRST));
        }
        self.insert(key, Count { count: self.floor + times, error: self.floor });
    }

    fn insert(&mut self, key: &[u8], count: Count) {
        self.octets += key.len() + OVERHEAD;
        self.kept.insert(key.into(), count);
    }

    /// Adds what another one has seen.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (key, own) in &mut self.kept {
            let theirs = other.kept.get(key).copied();
            let theirs = theirs.unwrap_or(Count { count: other.floor, error: other.floor });
            own.count += theirs.count;
            own.error += theirs.error;
        }
        for (key, theirs) in &other.kept {
            if !self.kept.contains_key(key) {
                let Count { count, error } = *theirs;
                self.insert(key, Count { count: count + self.floor, error: error + self.floor });
            }
        }
        self.floor += other.floor;
        self.shrink(self.room);
    }

    /// From now on no more is kept than this.
    pub(crate) fn set_room(&mut self, room: Room) {
        self.room = room;
        self.shrink(room);
        self.kept.shrink_to_fit();
    }

    /// Lets the smallest go until no more is left than this.
    fn shrink(&mut self, room: Room) {
        if self.kept.len() <= room.keys && self.octets <= room.octets {
            return;
        }
        // The longer go first among those that came as often.
        let rank = |key: &[u8], count: &Count| (count.count, Reverse(key.len()));
        let mut ranks: Vec<_> = self.kept.iter().map(|(key, count)| rank(key, count)).collect();
        ranks.sort_unstable_by(|one, other| other.cmp(one));
        let mut octets = 0;
        let goes = ranks.iter().enumerate().position(|(index, (_, Reverse(length)))| {
            octets += length + OVERHEAD;
            index >= room.keys || octets > room.octets
        });
        let Some((goes, limit)) = goes.and_then(|goes| Some((goes, *ranks.get(goes)?))) else { return };
        let mut of_limit = ranks.iter().take(goes).filter(|rank| **rank == limit).count();
        self.kept.retain(|key, count| match rank(key, count).cmp(&limit) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => of_limit.checked_sub(1).map(|left| of_limit = left).is_some(),
        });
        self.octets = self.kept.keys().map(|key| key.len() + OVERHEAD).sum();
        self.floor = self.floor.max(limit.0);
    }

    /// The largest, that first.
    pub(crate) fn top(&self, most: usize) -> Vec<(&[u8], Count)> {
        let mut all: Vec<_> = self.kept.iter().map(|(key, count)| (&**key, *count)).collect();
        all.sort_unstable_by(|(key, one), (other_key, other)| other.count.cmp(&one.count).then(key.cmp(other_key)));
        all.truncate(most);
        all
    }

    /// What a key that is not kept may have come.
    #[cfg(test)]
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Octets of memory.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        // A table of hashbrown's: slots for eight sevenths of its capacity, an entry and an octet each; 16 octets are
        // what glibc rounds a key up by and writes before it.
        let table = self.kept.capacity() * 8 / 7 * (size_of::<(Box<[u8]>, Count)>() + 1);
        table + self.kept.keys().map(|key| key.len() + 16).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { keys: 512, octets: 64 << 10 };

    fn key(number: usize) -> [u8; 8] {
        (number as u64).to_be_bytes()
    }

    /// A million keys by Zipf's law over so many names, drawn with a seed.
    fn zipf(names: usize, seed: u64) -> Vec<usize> {
        let mut sums = Vec::with_capacity(names);
        let mut sum = 0.0;
        for rank in 1..=names {
            sum += 1.0 / rank as f64;
            sums.push(sum);
        }
        let mut random = fastrand::Rng::with_seed(seed);
        (0..1_000_000).map(|_| sums.partition_point(|below| *below < random.f64() * sum)).collect()
    }

    fn exact(stream: &[usize]) -> HashMap<usize, u64> {
        let mut counts = HashMap::new();
        stream.iter().for_each(|key| *counts.entry(*key).or_default() += 1);
        counts
    }

    /// That what is promised holds, and each key with a hundredth of all is among the first hundred within `percent`.
    fn assert_right(sketch: &HeavyHitters, stream: &[usize], percent: u64) {
        let exact = exact(stream);
        for (name, came) in &exact {
            match sketch.kept.get(&key(*name)[..]) {
                Some(kept) => assert!(kept.count - kept.error <= *came && *came <= kept.count, "{came}: {kept:?}"),
                None => assert!(*came <= sketch.floor(), "{came} is more than {}", sketch.floor()),
            }
        }
        let top = sketch.top(100);
        let heavy = exact.iter().filter(|(_, came)| **came * 100 >= stream.len() as u64);
        for (name, came) in heavy {
            let (_, kept) = top.iter().find(|(known, _)| **known == key(*name)).expect("it is among the first");
            assert!(kept.count - came <= came * percent / 100, "{came}: {kept:?}");
        }
    }

    #[test]
    fn counts_are_within_their_bounds_and_what_comes_often_is_right() {
        for names in [300, 10_000, 1_000_000] {
            let stream = zipf(names, 7);
            let mut sketch = HeavyHitters::new(ROOM);
            stream.iter().for_each(|name| sketch.add(&key(*name), 1));
            assert_right(&sketch, &stream, 1);
            assert!(sketch.floor() <= 2 * stream.len() as u64 / ROOM.keys_of(8) as u64, "{}", sketch.floor());
        }
    }

    #[test]
    fn one_that_is_merged_of_many_is_right_too() {
        let stream = zipf(100_000, 8);
        let mut sum = HeavyHitters::new(ROOM);
        for part in stream.chunks(stream.len() / 60 + 1) {
            let mut sketch = HeavyHitters::new(ROOM);
            part.iter().for_each(|name| sketch.add(&key(*name), 1));
            sketch.set_room(Room { keys: 128, octets: 12 << 10 });
            sum.merge(&sketch);
        }
        assert_right(&sum, &stream, 10);
    }

    #[test]
    fn long_keys_of_which_none_comes_again_take_bounded_memory_and_hide_nobody() {
        let mut sketch = HeavyHitters::new(ROOM);
        let mut longest = [7; 255];
        for number in 0..100_000_usize {
            longest[..8].copy_from_slice(&key(number));
            sketch.add(&longest, 1);
            if number.is_multiple_of(50) {
                sketch.add(b"often", 1);
            }
        }
        assert!(sketch.memory() <= ROOM.octets, "{}", sketch.memory());
        assert_eq!(sketch.top(1)[0], (&b"often"[..], Count { count: 2000, error: 0 }));
        assert!(sketch.floor() <= 2 * 102_000 / ROOM.keys_of(255) as u64);
    }

    #[test]
    fn the_largest_come_first_and_in_the_same_order_each_time() {
        let mut sketch = HeavyHitters::new(Room { keys: 4, octets: 1000 });
        for (key, times) in [("a", 1), ("b", 3), ("c", 3), ("d", 2)] {
            sketch.add(key.as_bytes(), times);
        }
        let names = |sketch: &HeavyHitters| {
            let names = sketch.top(10).iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
            let names: Vec<String> = names;
            names.concat()
        };
        assert_eq!(names(&sketch), "bcda");
        // Half goes, and the new one may have come as often as what went.
        sketch.add(b"e", 1);
        assert_eq!(names(&sketch), "bce");
        assert_eq!((sketch.top(3)[2].1, sketch.floor()), (Count { count: 3, error: 2 }, 2));
    }
}
