//! A part of the store under one lock: an index, its entries, and for each kind the queue that says who is evicted
//! (SIEVE, Zhang et al., NSDI 2024: a hand goes from the oldest entry to the newest and evicts the first that was not
//! used since its last visit).

use super::entry::{Entry, Key, Kind, Payload};
use hashbrown::HashTable;

/// No entry.
const NONE: u32 = u32::MAX;

struct Queue {
    newest: u32,
    oldest: u32,
    hand: u32,
}

pub(super) struct Shard<T> {
    /// Places in `entries`, by hash.
    index: HashTable<u32>,
    entries: Vec<Option<Entry<T>>>,
    vacant: Vec<u32>,
    queues: [Queue; 2],
}

impl<T> Default for Shard<T> {
    fn default() -> Self {
        let queue = || Queue { newest: NONE, oldest: NONE, hand: NONE };
        Self { index: HashTable::new(), entries: Vec::new(), vacant: Vec::new(), queues: [queue(), queue()] }
    }
}

impl<T: Payload> Shard<T> {
    pub(super) fn find(&self, kind: Kind, key: &Key<'_>) -> Option<&Entry<T>> {
        self.at(self.place(kind, key)?)
    }

    /// The entries of both kinds under a key, found in one look-up.
    pub(super) fn find_kinds(&self, key: &Key<'_>) -> [Option<&Entry<T>>; 2] {
        let mut found = [None; 2];
        for entry in
            self.index.iter_hash(key.hash).filter_map(|place| self.at(*place)).filter(|entry| entry.is_for(key))
        {
            found[entry.kind.index()] = Some(entry);
        }
        found
    }

    fn place(&self, kind: Kind, key: &Key<'_>) -> Option<u32> {
        let is_it = |place: &u32| self.at(*place).is_some_and(|entry| entry.kind == kind && entry.is_for(key));
        self.index.find(key.hash, is_it).copied()
    }

    fn at(&self, place: u32) -> Option<&Entry<T>> {
        self.entries.get(place as usize)?.as_ref()
    }

    fn at_mut(&mut self, place: u32) -> Option<&mut Entry<T>> {
        self.entries.get_mut(place as usize)?.as_mut()
    }

    /// Puts `entry` in the place of the one with the same kind and key and returns that; gives `entry` back if there is
    /// none.
    pub(super) fn replace(&mut self, key: &Key<'_>, mut entry: Entry<T>) -> Result<Entry<T>, Entry<T>> {
        let Some(place) = self.place(entry.kind, key) else { return Err(entry) };
        let Some(old) = self.at_mut(place) else { return Err(entry) };
        (entry.newer, entry.older) = (old.newer, old.older);
        Ok(std::mem::replace(old, entry))
    }

    /// Adds an entry whose kind and key are not here yet, as the newest of its kind. False if this shard can hold no
    /// more.
    pub(super) fn add(&mut self, mut entry: Entry<T>) -> bool {
        let place = match self.vacant.pop() {
            Some(place) => place,
            None => match u32::try_from(self.entries.len()) {
                Ok(place) if place != NONE => {
                    self.entries.push(None);
                    place
                }
                _ => return false,
            },
        };
        let (hash, kind) = (entry.hash, entry.kind);
        let previous = self.queues[kind.index()].newest;
        (entry.older, entry.newer) = (previous, NONE);
        if let Some(slot) = self.entries.get_mut(place as usize) {
            *slot = Some(entry);
        }
        match self.at_mut(previous) {
            Some(neighbour) => neighbour.newer = place,
            None => self.queues[kind.index()].oldest = place,
        }
        self.queues[kind.index()].newest = place;
        let Self { index, entries, .. } = self;
        index.insert_unique(hash, place, |place| hash_at(entries, *place));
        true
    }

    pub(super) fn remove(&mut self, kind: Kind, key: &Key<'_>) -> Option<Entry<T>> {
        let place = self.place(kind, key)?;
        self.take(place)
    }

    /// Takes out the next entry of `kind` that is `useless`, or was not used lately.
    pub(super) fn evict(&mut self, kind: Kind, useless: impl Fn(&Entry<T>) -> bool) -> Option<Entry<T>> {
        let queue = &self.queues[kind.index()];
        let oldest = queue.oldest;
        let mut place = if queue.hand == NONE { oldest } else { queue.hand };
        loop {
            let entry = self.at(place)?;
            // Ends within two rounds: nobody else marks entries while this holds the shard alone.
            if !entry.take_visited() || useless(entry) {
                self.queues[kind.index()].hand = place;
                return self.take(place);
            }
            place = if entry.newer == NONE { oldest } else { entry.newer };
        }
    }

    /// Every entry of `kind`, the oldest first.
    pub(super) fn oldest_first(&self, kind: Kind) -> impl Iterator<Item = &Entry<T>> {
        let mut place = self.queues[kind.index()].oldest;
        std::iter::from_fn(move || {
            let entry = self.at(place)?;
            place = entry.newer;
            Some(entry)
        })
    }

    /// Takes out every useless entry.
    pub(super) fn sweep(&mut self, useless: impl Fn(&Entry<T>) -> bool) -> Vec<Entry<T>> {
        let is_useless = |place: &u32| self.at(*place).is_some_and(&useless);
        let places: Vec<u32> = (0..u32::try_from(self.entries.len()).unwrap_or(NONE)).filter(is_useless).collect();
        places.into_iter().filter_map(|place| self.take(place)).collect()
    }

    fn take(&mut self, place: u32) -> Option<Entry<T>> {
        let entry = self.entries.get_mut(place as usize)?.take()?;
        if let Ok(found) = self.index.find_entry(entry.hash, |at| *at == place) {
            found.remove();
        }
        self.vacant.push(place);
        let kind = entry.kind.index();
        match self.at_mut(entry.newer) {
            Some(neighbour) => neighbour.older = entry.older,
            None => self.queues[kind].newest = entry.older,
        }
        match self.at_mut(entry.older) {
            Some(neighbour) => neighbour.newer = entry.newer,
            None => self.queues[kind].oldest = entry.newer,
        }
        if self.queues[kind].hand == place {
            self.queues[kind].hand = entry.newer;
        }
        Some(entry)
    }
}

fn hash_at<T>(entries: &[Option<Entry<T>>], place: u32) -> u64 {
    entries.get(place as usize).and_then(Option::as_ref).map_or(0, |entry| entry.hash)
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Fresh, Moment};
    use super::*;

    struct Number(u64);
    impl Payload for Number {
        fn is_for(&self, key: &Key<'_>) -> bool {
            self.0 == u64::from(key.qtype)
        }
        fn heap_size(&self) -> usize {
            0
        }
    }

    /// All keys share one hash, so that only their comparison tells them apart.
    fn key(number: u16) -> Key<'static> {
        Key { hash: 7, name: &[0], qtype: number, qclass: 1, flags: 0 }
    }
    fn entry(kind: Kind, number: u16) -> Entry<Number> {
        Entry::new(&key(number), kind, Fresh { payload: Number(u64::from(number)), ttl: 1, answering: true }, Moment(0))
    }
    fn evicted(shard: &mut Shard<Number>, kind: Kind) -> Option<u64> {
        shard.evict(kind, |_| false).map(|entry| entry.payload.0)
    }

    #[test]
    fn keys_with_one_hash_and_kinds_of_one_key_are_told_apart() {
        let mut shard = Shard::default();
        assert!(shard.add(entry(Kind::Success, 1)));
        assert!(shard.add(entry(Kind::Success, 2)));
        assert!(shard.add(entry(Kind::Denial, 1)));
        assert_eq!(shard.find(Kind::Success, &key(2)).map(|entry| entry.payload.0), Some(2));
        assert!(shard.find(Kind::Denial, &key(2)).is_none());
        assert!(shard.remove(Kind::Denial, &key(1)).is_some());
        assert!(shard.find(Kind::Denial, &key(1)).is_none());
        assert!(shard.find(Kind::Success, &key(1)).is_some());
        let with_flags = Key { flags: 1, ..key(1) };
        assert!(shard.find(Kind::Success, &with_flags).is_none());
    }

    #[test]
    fn unused_entries_go_oldest_first_and_used_ones_stay_for_a_round() {
        let mut shard = Shard::default();
        for number in 1..=4 {
            assert!(shard.add(entry(Kind::Success, number)));
        }
        shard.find(Kind::Success, &key(1)).expect("just added").touch();
        assert_eq!(evicted(&mut shard, Kind::Success), Some(2));
        assert!(shard.add(entry(Kind::Success, 5)));
        assert_eq!(evicted(&mut shard, Kind::Success), Some(3), "the hand goes on from where it stood");
        assert_eq!(evicted(&mut shard, Kind::Success), Some(4));
        assert_eq!(evicted(&mut shard, Kind::Success), Some(5));
        assert_eq!(evicted(&mut shard, Kind::Success), Some(1));
        assert_eq!(evicted(&mut shard, Kind::Success), None);
    }

    #[test]
    fn eviction_ends_when_every_entry_was_used() {
        let mut shard = Shard::default();
        for number in 1..=3 {
            let entry = entry(Kind::Denial, number);
            entry.touch();
            assert!(shard.add(entry));
        }
        assert_eq!(evicted(&mut shard, Kind::Denial), Some(1));
    }

    #[test]
    fn a_useless_entry_goes_though_it_was_used() {
        let mut shard = Shard::default();
        for number in 1..=2 {
            let entry = entry(Kind::Success, number);
            entry.touch();
            assert!(shard.add(entry));
        }
        assert_eq!(shard.evict(Kind::Success, |entry| entry.payload.0 == 2).map(|entry| entry.payload.0), Some(2));
    }

    #[test]
    fn removing_the_entry_under_the_hand_moves_the_hand_on() {
        let mut shard = Shard::default();
        for number in 1..=3 {
            assert!(shard.add(entry(Kind::Success, number)));
        }
        assert_eq!(evicted(&mut shard, Kind::Success), Some(1));
        assert!(shard.remove(Kind::Success, &key(2)).is_some());
        assert_eq!(evicted(&mut shard, Kind::Success), Some(3));
        assert_eq!(evicted(&mut shard, Kind::Success), None);
    }

    #[test]
    fn a_replaced_entry_keeps_its_place() {
        let mut shard = Shard::default();
        for number in 1..=3 {
            assert!(shard.add(entry(Kind::Success, number)));
        }
        assert!(shard.replace(&key(2), entry(Kind::Success, 2)).is_ok());
        assert!(shard.replace(&key(9), entry(Kind::Success, 9)).is_err());
        assert_eq!(evicted(&mut shard, Kind::Success), Some(1));
        assert_eq!(evicted(&mut shard, Kind::Success), Some(2));
        assert_eq!(shard.sweep(|_| true).len(), 1);
        assert!(shard.index.is_empty());
        assert!(shard.add(entry(Kind::Success, 4)));
        assert_eq!(shard.entries.len(), 3, "vacant places are used again");
    }
}
