//! The kept answers of one cache: sharded, bounded exactly in entries for each kind, and in octets together with all
//! other caches of the process.
//!
//! Why not moka: ARCHITECTURE.md ("Our own cache store"). A look-up here takes one uncontended shared lock and
//! allocates nothing.

use super::entry::{Copied, Entry, Fresh, Key, Kind, Moment, Payload};
use super::shard::Shard;
use crate::chain::MemoryBudget;
use crate::message::{Class, QuestionKey, RecordType};
use foldhash::fast::RandomState;
use parking_lot::{RwLock, RwLockReadGuard};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// More would not make collisions of a node's few workers rarer by much.
const MOST_SHARDS: usize = 64;
/// With fewer entries in a shard, eviction would be close to random.
const ENTRIES_IN_A_SHARD: usize = 64;

/// What a store's clock shows when the store is made, so that answers taken over from another process can be older than
/// it: 49 days.
const HEAD_START: u64 = 1 << 32;

/// Kept answers, shared by all workers.
pub(super) struct Store<T: Payload> {
    shards: Box<[RwLock<Shard<T>>]>,
    hasher: RandomState,
    epoch: Instant,
    kinds: [Counts; 2],
    budget: Arc<MemoryBudget>,
}

/// Of one kind, over all shards.
struct Counts {
    capacity: AtomicUsize,
    /// Never above the capacity: raised before an entry is added, lowered after one is gone.
    entries: AtomicUsize,
    octets: AtomicUsize,
}

/// The queries for an answer, which prefetch counts, once another takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueryCount {
    /// Are counted from zero.
    Restarted,
    /// Are counted on from those of the former answer.
    Continued,
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Insertion {
    /// False if the answer had no room.
    pub is_kept: bool,
    pub evicted: EvictionCounts,
}

/// How many entries of each kind were evicted to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EvictionCounts([u64; 2]);

impl EvictionCounts {
    pub(super) fn of(self, kind: Kind) -> u64 {
        self.0[kind.index()]
    }
}

/// One shard, for reading. While it is held, insertions wait.
pub(super) struct View<'a, T>(RwLockReadGuard<'a, Shard<T>>);

impl<T: Payload> View<'_, T> {
    /// The entry of this kind under the whole key, however old.
    pub(super) fn find(&self, kind: Kind, key: &Key<'_>) -> Option<&Entry<T>> {
        self.0.find(kind, key)
    }
    /// The same of both kinds at once, by [`Kind::index`].
    pub(super) fn find_kinds(&self, key: &Key<'_>) -> [Option<&Entry<T>>; 2] {
        self.0.find_kinds(key)
    }
}

impl<T: Payload> Store<T> {
    /// A store for `success` and `denial` entries whose octets are taken from `budget`.
    pub(super) fn new(success: usize, denial: usize, budget: Arc<MemoryBudget>) -> Self {
        let counts = |capacity| Counts {
            capacity: AtomicUsize::new(capacity),
            entries: AtomicUsize::new(0),
            octets: AtomicUsize::new(0),
        };
        let shards = (success.max(denial) / ENTRIES_IN_A_SHARD).clamp(1, MOST_SHARDS).next_power_of_two();
        Self {
            shards: (0..shards).map(|_| RwLock::new(Shard::default())).collect(),
            hasher: RandomState::default(),
            epoch: Instant::now(),
            kinds: [counts(success), counts(denial)],
            budget,
        }
    }

    /// `now` on this store's clock.
    pub(super) fn moment(&self, now: Instant) -> Moment {
        let elapsed = now.saturating_duration_since(self.epoch);
        // Not as_millis, which is of 128 bits.
        Moment(HEAD_START + elapsed.as_secs() * 1000 + u64::from(elapsed.subsec_millis()))
    }

    /// Copies of all entries, shard by shard, the oldest of each kind first.
    pub(super) fn copies(&self) -> impl Iterator<Item = Vec<Copied<T>>>
    where
        T: Clone,
    {
        self.shards.iter().map(|shard| {
            let shard = shard.read();
            Kind::ALL.into_iter().flat_map(|kind| shard.oldest_first(kind)).map(Entry::copy).collect()
        })
    }

    /// Keeps what another process has kept, unless there is something under its key that this one has stored itself, or
    /// it has no room. True if it is kept.
    pub(super) fn adopt(&self, key: &Key<'_>, copied: Copied<T>) -> bool {
        let is_own = |entry: &Entry<T>| entry.stored().0 >= HEAD_START;
        let view = self.view(key);
        if Kind::ALL.into_iter().filter_map(|kind| view.find(kind, key)).any(is_own) {
            return false;
        }
        drop(view);
        let Copied { payload, kind, ttl, stored, is_used, .. } = copied;
        let fresh = Fresh { payload, ttl, answering: copied.answering };
        let is_kept = self.insert(key, kind, fresh, stored, QueryCount::Restarted, &|_| false).is_kept;
        if is_kept
            && is_used
            && let Some(entry) = self.view(key).find(kind, key)
        {
            entry.touch();
        }
        is_kept
    }

    /// What an answer to this question is kept under.
    pub(super) fn key<'a>(&self, question: QuestionKey<'a>) -> Key<'a> {
        // All of it: what is added there is not to be forgotten here.
        let QuestionKey { name, qtype: RecordType(qtype), qclass: Class(qclass), flags } = question;
        let flags = flags.bits();
        let mut hasher = self.hasher.build_hasher();
        hasher.write(name);
        hasher.write_u64(u64::from(qtype) << 32 | u64::from(qclass) << 16 | u64::from(flags));
        Key { hash: hasher.finish(), name, qtype, qclass, flags }
    }

    fn shard_number(&self, hash: u64) -> usize {
        // The index inside a shard uses the lowest and the highest bits.
        (hash >> 32) as usize & (self.shards.len() - 1)
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard<T>> {
        &self.shards[self.shard_number(hash)]
    }

    /// The entries under `key`, without waiting; `None` while another thread writes there.
    pub(super) fn try_view(&self, key: &Key<'_>) -> Option<View<'_, T>> {
        self.shard(key.hash).try_read().map(View)
    }

    /// The entries under `key`.
    pub(super) fn view(&self, key: &Key<'_>) -> View<'_, T> {
        View(self.shard(key.hash).read())
    }

    pub(super) fn entries(&self, kind: Kind) -> usize {
        self.kinds[kind.index()].entries.load(Ordering::Relaxed)
    }

    pub(super) fn octets(&self, kind: Kind) -> usize {
        self.kinds[kind.index()].octets.load(Ordering::Relaxed)
    }

    /// Keeps `fresh`, in the place of an entry with the same kind and key if there is one. Entries that are `useless`
    /// are evicted before others. Does nothing if the answer has no room even so.
    pub(super) fn insert(
        &self,
        key: &Key<'_>,
        kind: Kind,
        fresh: Fresh<T>,
        now: Moment,
        count: QueryCount,
        useless: &dyn Fn(&Entry<T>) -> bool,
    ) -> Insertion {
        let mut evicted = EvictionCounts::default();
        let entry = Entry::new(key, kind, fresh, now);
        let octets = entry.octets();
        let has_octets = self.capacity(kind) > 0 && self.take_octets(octets, key, kind, useless, &mut evicted);
        let is_kept = has_octets && self.place(key, entry, count, useless, &mut evicted);
        if has_octets && !is_kept {
            self.give_back(kind, octets);
        }
        Insertion { is_kept, evicted }
    }

    /// Puts an entry whose octets are taken into its shard.
    fn place(
        &self,
        key: &Key<'_>,
        entry: Entry<T>,
        count: QueryCount,
        useless: &dyn Fn(&Entry<T>) -> bool,
        evicted: &mut EvictionCounts,
    ) -> bool {
        let kind = entry.kind;
        let mut entry = entry;
        // More rounds than one only if other threads fill the room as fast as this one makes it.
        for _ in 0..8 {
            let mut shard = self.shard(key.hash).write();
            if count == QueryCount::Continued
                && let Some(old) = shard.find(kind, key)
            {
                entry.frequency.inherit(&old.frequency);
            }
            entry = match shard.replace(key, entry) {
                Ok(old) => {
                    self.give_back(kind, old.octets());
                    return true;
                }
                Err(entry) => entry,
            };
            let has_room = self.reserve(kind)
                || shard.evict(kind, useless).is_some_and(|old| {
                    self.give_back(kind, old.octets());
                    evicted.0[kind.index()] += 1;
                    true
                });
            if has_room {
                let added = shard.add(entry);
                if !added {
                    self.kinds[kind.index()].entries.fetch_sub(1, Ordering::Relaxed);
                }
                return added;
            }
            drop(shard);
            if !self.evict_one(kind, key.hash, useless, evicted) {
                return false;
            }
        }
        false
    }

    /// Takes `octets` from the budget for `kind`, evicting this store's entries until they are free, but only if that
    /// can be enough.
    fn take_octets(
        &self,
        octets: usize,
        key: &Key<'_>,
        kind: Kind,
        useless: &dyn Fn(&Entry<T>) -> bool,
        evicted: &mut EvictionCounts,
    ) -> bool {
        while !self.budget.take(octets) {
            let free = self.budget.limit().saturating_sub(self.budget.used());
            let own = self.octets_of_both();
            let can_be_enough = own.saturating_add(free) >= octets;
            let evicted_one = can_be_enough
                && (self.evict_one(kind, key.hash, useless, evicted)
                    || self.evict_one(kind.other(), key.hash, useless, evicted));
            if !evicted_one {
                return false;
            }
        }
        self.kinds[kind.index()].octets.fetch_add(octets, Ordering::Relaxed);
        true
    }

    fn give_back(&self, kind: Kind, octets: usize) {
        self.kinds[kind.index()].octets.fetch_sub(octets, Ordering::Relaxed);
        self.budget.release(octets);
    }

    /// Entries of this kind that may be kept; 0: none is to be.
    pub(super) fn capacity(&self, kind: Kind) -> usize {
        self.kinds[kind.index()].capacity.load(Ordering::Relaxed)
    }

    /// Counts one entry more if the capacity allows it.
    fn reserve(&self, kind: Kind) -> bool {
        let capacity = self.capacity(kind);
        let counted = &self.kinds[kind.index()].entries;
        counted
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |entries| (entries < capacity).then_some(entries + 1))
            .is_ok()
    }

    /// Evicts one entry of `kind`, from the hash's shard or, if that has none, from the next that has. Holds one lock
    /// at a time.
    fn evict_one(
        &self,
        kind: Kind,
        hash: u64,
        useless: &dyn Fn(&Entry<T>) -> bool,
        evicted: &mut EvictionCounts,
    ) -> bool {
        let first = self.shard_number(hash);
        for offset in 0..self.shards.len() {
            let number = (first + offset) & (self.shards.len() - 1);
            let old = self.shards[number].write().evict(kind, useless);
            if let Some(old) = old {
                self.forget(&old);
                evicted.0[kind.index()] += 1;
                return true;
            }
        }
        false
    }

    fn forget(&self, old: &Entry<T>) {
        self.give_back(old.kind, old.octets());
        self.kinds[old.kind.index()].entries.fetch_sub(1, Ordering::Relaxed);
    }

    /// Removes the entry of this kind under the key.
    pub(super) fn remove(&self, kind: Kind, key: &Key<'_>) {
        let old = self.shard(key.hash).write().remove(kind, key);
        if let Some(old) = old {
            self.forget(&old);
        }
    }

    /// Gives back the memory of useless entries; how many there were.
    pub(super) fn sweep(&self, useless: &dyn Fn(&Entry<T>) -> bool) -> usize {
        let sweep = |shard: &RwLock<Shard<T>>| {
            let old = shard.write().sweep(useless);
            old.iter().for_each(|old| self.forget(old));
            old.len()
        };
        self.shards.iter().map(sweep).sum()
    }

    /// Shows every entry, shard by shard: insertions wait for the shard that is shown.
    pub(super) fn for_each(&self, mut each: impl FnMut(&Entry<T>)) {
        for shard in &self.shards {
            let shard = shard.read();
            Kind::ALL.into_iter().flat_map(|kind| shard.oldest_first(kind)).for_each(&mut each);
        }
    }

    /// If all caches together hold more than they may, evicts this one's share of what is too much.
    pub(super) fn shrink(&self, useless: &dyn Fn(&Entry<T>) -> bool) {
        let (used, limit) = (self.budget.used(), self.budget.limit());
        let own = self.octets_of_both();
        let kept = own as u128 * limit.min(used) as u128 / used.max(1) as u128;
        let mut shard = 0_u64;
        while self.octets_of_both() as u128 > kept {
            let larger =
                if self.octets(Kind::Success) >= self.octets(Kind::Denial) { Kind::Success } else { Kind::Denial };
            if !self.evict_one(larger, shard << 32, useless, &mut EvictionCounts::default()) {
                return;
            }
            shard = shard.wrapping_add(1);
        }
    }

    fn octets_of_both(&self) -> usize {
        Kind::ALL.iter().map(|kind| self.octets(*kind)).sum()
    }

    /// Sets new capacities and evicts what is above them.
    pub(super) fn resize(&self, success: usize, denial: usize) {
        for (kind, capacity) in Kind::ALL.into_iter().zip([success, denial]) {
            self.kinds[kind.index()].capacity.store(capacity, Ordering::Relaxed);
            let mut shard = 0_u64;
            while self.entries(kind) > capacity
                && self.evict_one(kind, shard << 32, &|_| false, &mut EvictionCounts::default())
            {
                shard = shard.wrapping_add(1);
            }
        }
    }
}

impl<T: Payload> Drop for Store<T> {
    fn drop(&mut self) {
        self.budget.release(self.octets_of_both());
    }
}

#[cfg(test)]
mod tests;
