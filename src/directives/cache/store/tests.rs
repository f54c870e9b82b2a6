use super::super::entry::Age;
use super::*;
use crate::message::KeyFlags;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

/// A payload that knows its question, a version of the answer, and a made-up size.
#[derive(Clone, Debug, PartialEq)]
struct VersionedPayload {
    name: Vec<u8>,
    version: u64,
    size: usize,
}

impl Payload for VersionedPayload {
    fn is_for(&self, key: &Key<'_>) -> bool {
        self.name == key.name
    }
    fn heap_size(&self) -> usize {
        self.size
    }
}

fn name(number: usize) -> Vec<u8> {
    format!("name{number}").into_bytes()
}

fn asked(name: &[u8], flags: u8) -> QuestionKey<'_> {
    QuestionKey { name, qtype: RecordType::A, qclass: Class::IN, flags: KeyFlags::from_bits(flags).unwrap() }
}

fn answer(number: usize, version: u64, size: usize) -> Fresh<VersionedPayload> {
    Fresh { payload: VersionedPayload { name: name(number), version, size }, ttl: 60, answering: true }
}

fn keep(store: &Store<VersionedPayload>, kind: Kind, number: usize, version: u64, size: usize) -> EvictionCounts {
    let name = name(number);
    store
        .insert(
            &store.key(asked(&name, 0)),
            kind,
            answer(number, version, size),
            Moment(0),
            QueryCount::Restarted,
            &|_| false,
        )
        .evicted
}

fn version(store: &Store<VersionedPayload>, kind: Kind, number: usize) -> Option<u64> {
    let name = name(number);
    let key = store.key(asked(&name, 0));
    let view = store.view(&key);
    view.find(kind, &key).map(|entry| entry.payload.version)
}

fn plenty() -> Arc<MemoryBudget> {
    Arc::new(MemoryBudget::new(usize::MAX))
}

#[test]
fn a_lowered_limit_takes_its_share_of_every_cache() {
    let budget = Arc::new(MemoryBudget::new(usize::MAX));
    let stores = [Store::new(1000, 1000, budget.clone()), Store::new(1000, 1000, budget.clone())];
    for number in 0..300 {
        keep(&stores[0], Kind::Success, number, 1, 1000);
        keep(&stores[0], Kind::Denial, number, 1, 1000);
        keep(&stores[1], Kind::Success, number, 1, 1000);
    }
    let before = stores.each_ref().map(Store::octets_of_both);
    stores[0].shrink(&|_| false);
    assert_eq!(stores.each_ref().map(Store::octets_of_both), before, "nothing is too much");
    let limit = budget.used() / 3;
    budget.set_limit(limit);
    stores[0].shrink(&|_| false);
    let entry = before[1] / 300;
    let kept = stores[0].octets_of_both();
    assert!(kept <= before[0] / 3 && kept + entry > before[0] / 3, "a third of {}: {kept}", before[0]);
    // Each takes its share of what there is then, again and again.
    for _ in 0..8 {
        stores.iter().for_each(|store| store.shrink(&|_| false));
    }
    assert!(budget.used() <= limit + 2 * entry, "{} of {limit}", budget.used());
    assert!(stores.iter().all(|store| store.octets_of_both() > 0), "each keeps a share");
}

#[test]
fn a_capacity_of_one_holds_the_newest_answer() {
    let store = Store::new(1, 1, plenty());
    for number in 0..100 {
        let evicted = keep(&store, Kind::Success, number, 1, 10);
        assert_eq!(evicted.of(Kind::Success), u64::from(number > 0));
        assert_eq!(version(&store, Kind::Success, number), Some(1));
        assert_eq!(store.entries(Kind::Success), 1);
    }
    keep(&store, Kind::Denial, 5, 2, 10);
    assert_eq!(version(&store, Kind::Success, 99), Some(1), "the kinds have their own capacities");
}

#[test]
fn a_capacity_of_zero_keeps_nothing() {
    let budget = plenty();
    let store = Store::<VersionedPayload>::new(0, 1, budget.clone());
    keep(&store, Kind::Success, 1, 1, 10);
    assert_eq!(version(&store, Kind::Success, 1), None);
    assert_eq!(budget.used(), 0);
}

#[test]
fn nothing_is_evicted_before_the_store_is_full() {
    for capacity in [7, 64, 1000, 9984] {
        let store = Store::new(capacity, 1, plenty());
        for number in 0..capacity {
            assert_eq!(keep(&store, Kind::Success, number, 1, 10), EvictionCounts::default());
        }
        assert!((0..capacity).all(|number| version(&store, Kind::Success, number) == Some(1)));
        assert_eq!(keep(&store, Kind::Success, capacity, 1, 10).of(Kind::Success), 1);
        assert_eq!(store.entries(Kind::Success), capacity);
    }
}

#[test]
fn an_answer_larger_than_the_budget_evicts_nothing() {
    let budget = Arc::new(MemoryBudget::new(2000));
    let store = Store::new(100, 100, budget);
    keep(&store, Kind::Success, 1, 1, 100);
    assert_eq!(keep(&store, Kind::Success, 2, 1, 10_000), EvictionCounts::default());
    assert_eq!(version(&store, Kind::Success, 1), Some(1));
    assert_eq!(version(&store, Kind::Success, 2), None);
}

#[test]
fn octets_come_from_the_other_kind_when_the_own_has_none() {
    let budget = Arc::new(MemoryBudget::new(2000));
    let store = Store::new(100, 100, budget.clone());
    keep(&store, Kind::Denial, 1, 1, 1500);
    let evicted = keep(&store, Kind::Success, 2, 1, 1500);
    assert_eq!((evicted.of(Kind::Success), evicted.of(Kind::Denial)), (0, 1));
    assert_eq!(version(&store, Kind::Success, 2), Some(1));
    assert!(budget.used() <= 2000);
}

#[test]
fn two_stores_share_one_budget_and_give_it_back_when_dropped() {
    let budget = Arc::new(MemoryBudget::new(4000));
    let one = Store::new(100, 100, budget.clone());
    let two = Store::new(100, 100, budget.clone());
    keep(&one, Kind::Success, 1, 1, 3500);
    keep(&two, Kind::Success, 1, 1, 3500);
    assert_eq!(version(&two, Kind::Success, 1), None, "another store's entries are not evicted");
    drop(one);
    assert_eq!(budget.used(), 0);
    keep(&two, Kind::Success, 1, 1, 3500);
    assert_eq!(version(&two, Kind::Success, 1), Some(1));
    drop(two);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_smaller_capacity_evicts_and_a_larger_one_is_used() {
    let store = Store::new(1000, 10, plenty());
    (0..1000).for_each(|number| _ = keep(&store, Kind::Success, number, 1, 10));
    store.resize(100, 10);
    assert_eq!(store.entries(Kind::Success), 100);
    assert_eq!((0..1000).filter(|number| version(&store, Kind::Success, *number).is_some()).count(), 100);
    store.resize(200, 10);
    (0..1000).for_each(|number| _ = keep(&store, Kind::Success, number, 2, 10));
    assert_eq!(store.entries(Kind::Success), 200);
}

#[test]
fn a_sweep_gives_back_what_is_useless() {
    let budget = plenty();
    let store = Store::new(100, 100, budget.clone());
    (0..50).for_each(|number| _ = keep(&store, Kind::Success, number, number as u64, 10));
    store.sweep(&|entry| entry.payload.version < 20);
    assert_eq!(store.entries(Kind::Success), 30);
    assert_eq!(budget.used(), store.octets(Kind::Success));
    assert_eq!(version(&store, Kind::Success, 19), None);
    assert_eq!(version(&store, Kind::Success, 20), Some(20));
}

#[test]
fn a_refreshed_entry_inherits_its_frequency() {
    let store = Store::new(10, 10, plenty());
    let name = name(1);
    let key = store.key(asked(&name, 0));
    let gap = std::time::Duration::from_secs(60);
    let count = || store.view(&key).find(Kind::Success, &key).map(|entry| entry.frequency.count(Moment(1), gap));
    store.insert(&key, Kind::Success, answer(1, 1, 1), Moment(0), QueryCount::Restarted, &|_| false);
    assert_eq!((count(), count()), (Some(1), Some(2)));
    store.insert(&key, Kind::Success, answer(1, 2, 1), Moment(0), QueryCount::Continued, &|_| false);
    assert_eq!(count(), Some(3));
    store.insert(&key, Kind::Success, answer(1, 3, 1), Moment(0), QueryCount::Restarted, &|_| false);
    assert_eq!(count(), Some(1));
}

#[test]
fn a_shard_being_written_is_not_waited_for() {
    let store = Store::<VersionedPayload>::new(10, 10, plenty());
    let name = name(1);
    let key = store.key(asked(&name, 0));
    let writing = store.shard(key.hash).write();
    assert!(store.try_view(&key).is_none());
    drop(writing);
    assert!(store.try_view(&key).is_some());
}

#[derive(Clone, Debug)]
enum StoreStep {
    Keep { kind: Kind, number: usize, size: usize },
    Ask { kind: Kind, number: usize },
    Remove { kind: Kind, number: usize },
    Resize { success: usize, denial: usize },
    Wait { millis: u64 },
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<StoreStep>> {
    let kind = || prop_oneof![Just(Kind::Success), Just(Kind::Denial)];
    let number = || 0_usize..40;
    let step = prop_oneof![
        6 => (kind(), number(), 0_usize..2000).prop_map(|(kind, number, size)| StoreStep::Keep { kind, number, size }),
        6 => (kind(), number()).prop_map(|(kind, number)| StoreStep::Ask { kind, number }),
        1 => (kind(), number()).prop_map(|(kind, number)| StoreStep::Remove { kind, number }),
        1 => (0_usize..30, 0_usize..30).prop_map(|(success, denial)| StoreStep::Resize { success, denial }),
        2 => (0_u64..30_000).prop_map(|millis| StoreStep::Wait { millis }),
        1 => Just(StoreStep::Sweep),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    /// Against a map of what was kept last: the bounds hold after every step, and what is found is the last answer kept
    /// under that very key; without eviction pressure it is found.
    #[test]
    fn the_store_agrees_with_a_map(
        success in 0_usize..30, denial in 0_usize..30, limit in 0_usize..40_000, steps in steps()
    ) {
        const TTL_MILLIS: u64 = 60_000;
        let budget = Arc::new(MemoryBudget::new(limit));
        let store = Store::new(success, denial, budget.clone());
        let mut capacity = [success, denial];
        let mut last: HashMap<(Kind, usize), (u64, u64)> = HashMap::new();
        let mut now = 0_u64;
        let mut version_kept = 0_u64;
        for step in steps {
            let useless = |entry: &Entry<VersionedPayload>| entry.age(Moment(now), u32::MAX, 0) == Age::Gone;
            match step {
                StoreStep::Keep { kind, number, size } => {
                    version_kept += 1;
                    let name = name(number);
                    let key = store.key(asked(&name, 0));
                    let had = [store.entries(Kind::Success), store.entries(Kind::Denial)];
                    let free = limit - budget.used();
                    let replaced = version(&store, kind, number).is_some();
                    let fresh = answer(number, version_kept, size);
                    let octets = Entry::new(&key, kind, fresh.clone(), Moment(now)).octets();
                    let insertion = store.insert(&key, kind, fresh, Moment(now), QueryCount::Restarted, &useless);
                    prop_assert_eq!(insertion.is_kept, version(&store, kind, number) == Some(version_kept));
                    last.insert((kind, number), (version_kept, now));
                    let has_room = octets <= free && (replaced || had[kind.index()] < capacity[kind.index()]);
                    if capacity[kind.index()] > 0 && has_room {
                        prop_assert_eq!(insertion, Insertion { is_kept: true, evicted: EvictionCounts::default() });
                    }
                    if !insertion.is_kept {
                        // Not kept for lack of room: an older answer may be there, so forget what the model knew of its
                        // version.
                        match version(&store, kind, number) {
                            Some(older) => _ = last.insert((kind, number), (older, u64::MAX)),
                            None => _ = last.remove(&(kind, number)),
                        }
                    }
                }
                StoreStep::Ask { kind, number } => {
                    let name = name(number);
                    let key = store.key(asked(&name, 0));
                    let view = store.view(&key);
                    if let Some(entry) = view.find(kind, &key) {
                        entry.touch();
                        let (version, stored) = last.get(&(kind, number)).copied().expect("only what was kept is found");
                        prop_assert_eq!(entry.payload.version, version);
                        prop_assert_eq!(&entry.payload.name, &name);
                        if stored != u64::MAX {
                            let left = (stored + TTL_MILLIS).saturating_sub(now).div_ceil(1000);
                            let expected = if left == 0 { Age::Gone } else { Age::Fresh(left as u32) };
                            prop_assert_eq!(entry.age(Moment(now), u32::MAX, 0), expected);
                        }
                    }
                    let foreign = store.key(asked(&name, 1));
                    prop_assert!(store.view(&foreign).find(kind, &foreign).is_none());
                }
                StoreStep::Remove { kind, number } => {
                    let name = name(number);
                    store.remove(kind, &store.key(asked(&name, 0)));
                    prop_assert_eq!(version(&store, kind, number), None);
                }
                StoreStep::Resize { success, denial } => {
                    store.resize(success, denial);
                    capacity = [success, denial];
                }
                StoreStep::Wait { millis } => now += millis,
                StoreStep::Sweep => _ = store.sweep(&useless),
            }
            for kind in Kind::ALL {
                let found = (0..40).filter(|number| version(&store, kind, *number).is_some()).count();
                prop_assert_eq!(store.entries(kind), found);
                prop_assert!(found <= capacity[kind.index()]);
            }
            prop_assert_eq!(budget.used(), store.octets(Kind::Success) + store.octets(Kind::Denial));
            prop_assert!(budget.used() <= limit);
        }
        drop(store);
        prop_assert_eq!(budget.used(), 0);
    }
}

#[test]
fn threads_that_read_and_write_at_once_see_whole_answers_within_the_bounds() {
    const CAPACITY: usize = 300;
    const LIMIT: usize = 60_000;
    let budget = Arc::new(MemoryBudget::new(LIMIT));
    let store = Store::<VersionedPayload>::new(CAPACITY, CAPACITY, budget.clone());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(writer);
                    for version in 0..20_000 {
                        let kind = Kind::ALL[random.usize(0..2)];
                        let number = random.usize(0..1000);
                        match random.u8(0..50) {
                            0 => store.remove(kind, &store.key(asked(&name(number), 0))),
                            1 => _ = store.sweep(&|entry| entry.payload.size < 5),
                            _ => _ = keep(store, kind, number, version, random.usize(0..400)),
                        }
                    }
                })
            })
            .collect();
        for reader in 0..2 {
            let (store, done, budget) = (&store, &done, &budget);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(100 + reader);
                while !done.load(Ordering::Relaxed) {
                    let name = name(random.usize(0..1000));
                    let key = store.key(asked(&name, 0));
                    for kind in Kind::ALL {
                        assert!(store.entries(kind) <= CAPACITY);
                        if let Some(view) = store.try_view(&key)
                            && let Some(entry) = view.find(kind, &key)
                        {
                            entry.touch();
                            assert_eq!(entry.payload.name, name);
                        }
                    }
                    assert!(budget.used() <= LIMIT);
                }
            });
        }
        writers.into_iter().for_each(|writer| writer.join().expect("no writer fails"));
        done.store(true, Ordering::Relaxed);
    });
    let found = |kind| (0..1000).filter(|number| version(&store, kind, *number).is_some()).count();
    for kind in Kind::ALL {
        assert_eq!(store.entries(kind), found(kind));
    }
    assert_eq!(budget.used(), store.octets(Kind::Success) + store.octets(Kind::Denial));
}
