use super::super::entry::{Age, Fresh, Key};
use super::super::metrics::Labels;
use super::super::store::{QueryCount, Store};
use super::super::wire::{self, NXDOMAIN, SERVFAIL, Sections, a, response, soa};
use super::*;
use crate::chain::ProcessContext;
use crate::message::{Class, RecordType};
use proptest::prelude::*;
use std::sync::Arc;

const KEY: &str = "cache . [\"dns://127.0.0.1:53\"] .";

/// A process with one cache.
struct OneCache {
    process: ProcessContext,
    kept: Arc<Kept>,
    reading: ClockReading,
}

impl OneCache {
    fn new(capacity: [usize; 2], octets: usize) -> Self {
        let process = ProcessContext::new(1, octets);
        let make = || {
            let labels = Labels { zones: ".", view: "" };
            Kept::new(capacity, &process, &["dns://127.0.0.1:53".to_owned()], labels)
        };
        let kept = process.reload_state.adopt_or(KEY, make);
        Self { kept, process, reading: ClockReading { now: Instant::now(), uptime: Duration::from_secs(1000) } }
    }
    fn store(&self) -> &Store<Response> {
        &self.kept.store
    }
    fn later(mut self, millis: u64) -> Self {
        self.reading.now += Duration::from_millis(millis);
        self.reading.uptime += Duration::from_millis(millis);
        self
    }
    fn keep(&self, kind: Kind, flags: u8, ttl: u32, payload: Response) {
        let name = payload.question_name();
        let key = self.store().key(asked(name.as_wire(), flags));
        let fresh = Fresh { answering: classify(&payload, || 0).answering, payload, ttl };
        assert!(
            self.store()
                .insert(&key, kind, fresh, self.store().moment(self.reading.now), QueryCount::Restarted, &|_| false)
                .is_kept
        );
    }
    fn export(&self) -> Vec<u8> {
        let mut out = Vec::new();
        export(&self.process.reload_state, &mut out, self.reading, all()).unwrap();
        out
    }
    fn import(&self, octets: &[u8]) -> Result<TransferCount, TransferError> {
        import(&self.process.reload_state, &mut &octets[..], self.reading, all())
    }
    fn age(&self, kind: Kind, name: &str, flags: u8) -> Option<Age> {
        let name = wire::name(name);
        let key: Key<'_> = self.store().key(asked(&name, flags));
        let view = self.store().view(&key);
        view.find(kind, &key).map(|entry| entry.age(self.store().moment(self.reading.now), u32::MAX, 0))
    }
    fn len(&self) -> usize {
        Kind::ALL.iter().map(|kind| self.store().entries(*kind)).sum()
    }
}

fn all() -> Bounds {
    Bounds { octets: usize::MAX, until: Instant::now() + Duration::from_secs(60) }
}

fn asked(name: &[u8], flags: u8) -> QuestionKey<'_> {
    QuestionKey { name, qtype: RecordType::A, qclass: Class::IN, flags: KeyFlags::from_bits(flags).unwrap() }
}

fn answer(name: &str) -> Response {
    response(name, wire::A, 0, 0, &Sections::answer(&[a(name, 60, 1)]))
}

fn denial(name: &str, rcode: u16) -> Response {
    let authority = vec![soa("example.", 60, 30)];
    response(name, wire::A, rcode, 0, &Sections { authority, ..Sections::default() })
}

fn filled() -> OneCache {
    let old = OneCache::new([100, 100], 1 << 20);
    old.keep(Kind::Success, 0, 60, answer("one.example."));
    old.keep(Kind::Success, 3, 60, answer("one.example."));
    old.keep(Kind::Denial, 0, 30, denial("two.example.", NXDOMAIN));
    old.keep(Kind::Denial, 0, 5, denial("three.example.", SERVFAIL));
    old
}

#[test]
fn answers_go_over_with_their_age_and_flags() {
    let octets = filled().later(2_500).export();
    let new = OneCache::new([100, 100], 1 << 20).later(4_600);
    assert_eq!(new.import(&octets).unwrap(), TransferCount { kept: 4, refused: 0 });
    assert_eq!(new.age(Kind::Success, "one.example.", 0), Some(Age::Fresh(56)));
    assert_eq!(new.age(Kind::Success, "one.example.", 3), Some(Age::Fresh(56)));
    assert_eq!(new.age(Kind::Denial, "two.example.", 0), Some(Age::Fresh(26)));
    assert_eq!(new.age(Kind::Denial, "three.example.", 0), Some(Age::Fresh(1)));
    assert_eq!(new.age(Kind::Success, "two.example.", 0), None);
    let third = OneCache::new([100, 100], 1 << 20).later(4_600);
    assert_eq!(third.import(&new.export()).unwrap().kept, 4, "and on to the next");
}

#[test]
fn what_this_process_has_learnt_itself_is_kept_whatever_comes() {
    let octets = filled().export();
    let new = OneCache::new([100, 100], 1 << 20).later(10_000);
    new.keep(Kind::Success, 0, 9, answer("two.example."));
    assert_eq!(new.import(&octets).unwrap(), TransferCount { kept: 3, refused: 1 });
    assert_eq!(new.age(Kind::Denial, "two.example.", 0), None);
    assert_eq!(new.age(Kind::Success, "two.example.", 0), Some(Age::Fresh(9)));
}

#[test]
fn a_cache_that_is_not_there_any_more_takes_nothing() {
    let octets = filled().export();
    let elsewhere = ProcessContext::new(1, 1 << 20);
    let reading = ClockReading { now: Instant::now(), uptime: Duration::from_secs(1000) };
    assert_eq!(
        import(&elsewhere.reload_state, &mut &octets[..], reading, all()).unwrap(),
        TransferCount { kept: 0, refused: 4 }
    );
}

#[test]
fn the_bounds_of_the_one_that_takes_over_hold() {
    let old = OneCache::new([1000, 1000], 1 << 20);
    for number in 0..500 {
        old.keep(Kind::Success, 0, 60, answer(&format!("n{number}.example.")));
    }
    let octets = old.export();
    for (capacity, limit) in [([10, 10], 1 << 20), ([1000, 1000], 4096), ([0, 0], 1 << 20)] {
        let new = OneCache::new(capacity, limit);
        new.import(&octets).unwrap();
        assert!(new.len() <= capacity[0] && new.process.cache_memory.used() <= limit);
        assert_eq!(new.len() > 0, capacity[0] > 0);
    }
}

#[test]
fn what_is_written_is_bounded_in_octets_and_in_time() {
    let old = filled();
    for (octets, until) in [(150, Instant::now() + Duration::from_secs(60)), (usize::MAX, Instant::now())] {
        let mut out = Vec::new();
        let count = export(&old.process.reload_state, &mut out, old.reading, Bounds { octets, until }).unwrap();
        assert!(count.kept <= 2 && out.len() < 150 + 13 + 3 + KEY.len() + 1, "{count:?}, {}", out.len());
        assert_eq!(
            OneCache::new([9, 9], 1 << 20).import(&out).unwrap().kept,
            count.kept,
            "and whole as far as it goes"
        );
    }
}

#[test]
fn another_format_another_clock_and_what_is_no_cache_are_refused() {
    let new = OneCache::new([9, 9], 1 << 20);
    let octets = filled().export();
    assert!(matches!(new.import(b""), Err(TransferError::NotACache)));
    assert!(matches!(new.import(b"nope and more of it"), Err(TransferError::NotACache)));
    let mut other = octets.clone();
    other[4] = 2;
    assert!(matches!(new.import(&other), Err(TransferError::Version(2))));
    other = octets.clone();
    other[5] = 1;
    assert!(matches!(new.import(&other), Err(TransferError::Clock)));
    assert!(matches!(new.import(&octets[..octets.len() - 1]), Err(TransferError::Read(_))), "cut short");
    assert_eq!(new.len(), 4, "what stood before is kept");
}

#[test]
fn answers_that_no_cache_could_have_kept_are_refused_one_by_one() {
    let octets = filled().export();
    let first = MAGIC.len() + 1 + 8 + 3 + KEY.len();
    let changes: [(usize, u8); 6] = [
        // A denial that is none, a mark and a flag that do not exist, TTLs of 0 and beyond 2^31, an age from before all
        // clocks.
        (first + 1, DENIAL),
        (first + 1, 4),
        (first + 2, 8),
        (first + 6, 0),
        (first + 3, 0xff),
        (first + 7, 0xff),
    ];
    for (at, octet) in changes {
        let mut changed = octets.clone();
        changed[at] = octet;
        let new = OneCache::new([9, 9], 1 << 20);
        assert_eq!(new.import(&changed).unwrap(), TransferCount { kept: 3, refused: 1 }, "octet {at}");
    }
}

#[test]
fn an_extended_rcode_and_the_dnssec_bit_come_through() {
    let plain = answer("one.example.");
    let mut wire = plain.wire().to_vec();
    wire[11] = 1;
    wire.extend_from_slice(&[0, 0, 41, 4, 208, 1, 0, 0x80, 0, 0, 0]);
    let payload = Response::read(&wire).unwrap();
    let copied =
        Copied { payload, kind: Kind::Success, flags: 1, ttl: 1, answering: true, stored: Moment(0), is_used: false };
    let octets = encode(&copied, Moment(5)).unwrap();
    let read = TransferredAnswer::read(&mut &octets[1..]).unwrap();
    let response = Response::read(&read.message).unwrap();
    assert_eq!(response, copied.payload);
    assert!(response.dnssec_ok() && response.rcode().0 == 16);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn octets_however_damaged_never_cost_more_than_the_answers_in_them(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let mut octets = filled().export();
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        octets.truncate(end.index(octets.len() + 1));
        octets.extend(noise);
        let new = OneCache::new([3, 3], 2048);
        let _ = new.import(&octets);
        prop_assert!(new.len() <= 6 && new.process.cache_memory.used() <= 2048);
    }
}

#[test]
fn what_never_ends_is_read_up_to_the_bounds() {
    let octets = filled().export();
    // All but the end, and then sections without end.
    let section = [&[SECTION, 0, 3][..], b"key"].concat();
    let endless = || (&octets[..octets.len() - 1]).chain(Repeat(section.clone(), 0));
    let new = OneCache::new([100, 100], 1 << 20);
    let some = Bounds { octets: 1 << 16, ..all() };
    let outcome = import(&new.process.reload_state, &mut endless(), new.reading, some);
    assert!(matches!(outcome, Err(TransferError::TooMuch(4))), "{outcome:?}");
    let brief = Bounds { until: Instant::now() + Duration::from_millis(5), ..all() };
    let outcome = import(&new.process.reload_state, &mut endless(), new.reading, brief);
    assert!(matches!(outcome, Err(TransferError::TooMuch(_))), "{outcome:?}");
}

/// The same octets for ever, from that place on.
struct Repeat(Vec<u8>, usize);

impl Read for Repeat {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for octet in &mut *buffer {
            *octet = self.0[self.1];
            self.1 = (self.1 + 1) % self.0.len();
        }
        Ok(buffer.len())
    }
}
