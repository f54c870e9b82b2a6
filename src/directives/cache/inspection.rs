//! What the caches of a process hold, for people who look, and what they want gone: `nodelocaldns cache`. Of another
//! thread than the workers': a shard is locked for as long as its entries are looked at, and who asks meanwhile takes
//! the slow path if it is for writing.

use super::entry::{Age, Entry, Kind};
use super::handler::Kept;
use crate::chain::{MemoryBudget, ReloadState};
use crate::message::{KeyFlags, LowerName, NamePattern, RecordType, Response};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// Octets of answers that are shown at most: a client chooses what they hold, and as text and JSON they take several
/// times as many.
const MOST_OCTETS: usize = 1 << 20;

/// Which answers are meant.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    All,
    /// Those to questions for this name, and of this type.
    Name(LowerName, Option<RecordType>),
    /// Those to questions for this name and all below it.
    Zone(LowerName),
    /// Those to questions for names like this.
    Pattern(NamePattern),
}

impl Selection {
    fn has(&self, answer: &Response) -> bool {
        let name = || answer.question_name();
        match self {
            Self::All => true,
            Self::Name(wanted, qtype) => {
                qtype.is_none_or(|qtype| answer.question_type() == qtype) && name().to_lower() == *wanted
            }
            Self::Zone(zone) => name().to_lower().is_within(zone.as_wire()),
            Self::Pattern(pattern) => pattern.has(name().as_wire()),
        }
    }
}

/// The caches of a process.
#[derive(Debug, Serialize)]
pub(crate) struct CachesReport {
    /// What all may take together, in octets.
    pub memory_limit: usize,
    /// What they take.
    pub memory_used: usize,
    pub caches: Vec<CacheReport>,
}

/// One of them.
#[derive(Debug, Serialize)]
pub(crate) struct CacheReport {
    pub servers: Vec<String>,
    pub zones: String,
    /// Of the block; empty without one.
    pub view: String,
    pub success: KindReport,
    pub denial: KindReport,
}

/// Answers of one kind.
#[derive(Debug, Serialize)]
pub(crate) struct KindReport {
    pub entries: usize,
    /// Entries that may be kept.
    pub capacity: usize,
    pub bytes: usize,
}

/// A kept answer.
#[derive(Debug, Serialize)]
pub(crate) struct AnswerReport {
    pub name: String,
    pub r#type: String,
    pub rcode: String,
    /// Seconds that it is fresh for; `None` for one that has expired and may be served stale.
    pub ttl: Option<u32>,
    /// Seconds since it was stored.
    pub age: u64,
    /// Its cache's.
    pub zones: String,
    /// Its cache's; empty without one.
    pub view: String,
    /// `denial` for one that says that there is no such record or name.
    pub kind: &'static str,
    /// `do`, `cd`, `norec`: bits of the query that tell it from others to the same question.
    pub flags: Vec<&'static str>,
    pub bytes: usize,
    /// As in a zone file; only where records are wanted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<String>,
}

/// What is kept of a selection.
#[derive(Debug, Serialize)]
pub(crate) struct AnswersReport {
    /// Answers that were selected.
    pub matched: usize,
    /// So many of them as were wanted and may be shown.
    pub answers: Vec<AnswerReport>,
}

/// What the caches hold, in numbers.
pub(crate) fn stats(reload_state: &ReloadState, budget: &MemoryBudget) -> CachesReport {
    let report = |kept: &Kept| {
        let store = &kept.store;
        let of = |kind| KindReport {
            entries: store.entries(kind),
            capacity: store.capacity(kind),
            bytes: store.octets(kind),
        };
        let identity = kept.of.clone();
        CacheReport {
            servers: identity.servers,
            zones: identity.zones,
            view: identity.view,
            success: of(Kind::Success),
            denial: of(Kind::Denial),
        }
    };
    let caches = sorted(reload_state).iter().map(|kept| report(kept)).collect();
    CachesReport { memory_limit: budget.limit(), memory_used: budget.used(), caches }
}

/// The selected answers that may still be served, `limit` of them, by their names; answers made for some clients'
/// subnets are none of them. With records if `has_records`, and then no more than [`MOST_OCTETS`].
pub(crate) fn list(
    reload_state: &ReloadState,
    now: Instant,
    selection: &Selection,
    limit: usize,
    has_records: bool,
) -> AnswersReport {
    let mut report = AnswersReport { matched: 0, answers: Vec::new() };
    let mut octets = 0;
    for kept in sorted(reload_state) {
        // What no plan serves is nobody's answer.
        let Some(inner) = kept.serving.lock().upgrade() else { continue };
        let moment = kept.store.moment(now);
        kept.store.for_each(|entry| {
            let age = inner.policy.age(entry, moment);
            if age == Age::Gone || !selection.has(&entry.payload) {
                return;
            }
            report.matched += 1;
            if report.answers.len() < limit && octets + entry.octets() <= MOST_OCTETS {
                octets += if has_records { entry.octets() } else { 0 };
                report.answers.push(answer(&kept, entry, age, moment.millis_since(entry.stored()) / 1000, has_records));
            }
        });
    }
    report.answers.sort_by(|one, other| (&one.name, &one.r#type).cmp(&(&other.name, &other.r#type)));
    report
}

/// Gives up every selected answer, in all caches, and with any selection those made for some clients' subnets. How many
/// of the former there were.
pub(crate) fn flush(reload_state: &ReloadState, selection: &Selection) -> usize {
    let flush = |(_, kept): &(String, Arc<Kept>)| {
        kept.tailored.get().inspect(|tailored| tailored.clear());
        kept.store.sweep(&|entry: &Entry<Response>| selection.has(&entry.payload))
    };
    reload_state.all::<Kept>().iter().map(flush).sum()
}

/// All caches, in the same order each time.
fn sorted(reload_state: &ReloadState) -> Vec<Arc<Kept>> {
    let mut all = reload_state.all::<Kept>();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all.into_iter().map(|(_, kept)| kept).collect()
}

fn answer(kept: &Kept, entry: &Entry<Response>, age: Age, seconds: u64, has_records: bool) -> AnswerReport {
    let response = &entry.payload;
    let ttl = match age {
        Age::Fresh(left) => Some(left),
        Age::Stale(_) | Age::Gone => None,
    };
    let key_flags = KeyFlags::from_bits(entry.flags()).unwrap_or_default();
    let records = response.records().filter(|_| has_records).map(|record| record.to_text(ttl.unwrap_or(0))).collect();
    AnswerReport {
        name: response.question_name().to_lower().to_string(),
        r#type: response.question_type().to_string(),
        rcode: response.rcode().to_string(),
        ttl,
        age: seconds,
        zones: kept.of.zones.clone(),
        view: kept.of.view.clone(),
        kind: entry.kind().label(),
        flags: key_flags.labels(),
        bytes: entry.octets(),
        records,
    }
}

#[cfg(test)]
mod tests {
    use super::super::classify::Lifetimes;
    use super::super::entry::Fresh;
    use super::super::handler::{Inner, Policy};
    use super::super::metrics::Labels;
    use super::super::parse::{Stale, StaleMode};
    use super::super::store::QueryCount;
    use super::super::wire::{self, NXDOMAIN, Sections, a, name, response, soa};
    use super::*;
    use crate::chain::ProcessContext;
    use crate::message::{Class, QuestionKey};
    use std::time::Duration;

    const SERVER: &str = "dns://127.0.0.1:53";

    /// A process with one cache, which serves.
    struct Scene {
        process: ProcessContext,
        inner: Arc<Inner>,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let process = ProcessContext::new(1, 4 << 20);
            let labels = Labels { zones: ".", view: "" };
            let make = || Kept::new([100, 50], &process, &[SERVER.to_owned()], labels);
            let kept = process.reload_state.adopt_or("cache .", make);
            let (mode, failure_recheck) = (StaleMode::Immediate, Duration::ZERO);
            let stale = Some(Stale { up_to: 100, mode, response_ttl: 30, failure_recheck, prefer_positive: false });
            let policy = Policy { lifetimes: Lifetimes::default(), prefetch: None, stale, keep_ttl: false };
            let (zones, disabled, metrics) = (None, [Box::default(), Box::default()], Box::default());
            let inner = Arc::new(Inner { zones, disabled, policy, kept: kept.clone(), metrics });
            *kept.serving.lock() = Arc::downgrade(&inner);
            let scene = Self { process, inner, now: Instant::now() };
            for (owner, last) in [("a.example.", 1), ("b.example.", 2), ("a.b.example.", 3), ("a.test.", 4)] {
                let answer = response(owner, wire::A, 0, 0, &Sections::answer(&[a(owner, 60, last)]));
                scene.keep(Kind::Success, answer, 0, 60);
            }
            let missing = response("c.example.", wire::A, NXDOMAIN, 0, &Sections::authority(&[soa("example.", 9, 9)]));
            scene.keep(Kind::Denial, missing, 1, 9);
            scene
        }

        fn keep(&self, kind: Kind, payload: Response, flags: u8, ttl: u32) {
            let (owner, qtype) = (name(&payload.question_name().to_string()), payload.question_type());
            let flags = KeyFlags::from_bits(flags).unwrap();
            let store = &self.inner.kept.store;
            let key = store.key(QuestionKey { name: &owner, qtype, qclass: Class::IN, flags });
            let fresh = Fresh { payload, ttl, answering: true };
            let insertion = store.insert(&key, kind, fresh, store.moment(self.now), QueryCount::Restarted, &|_| false);
            assert!(insertion.is_kept);
        }

        fn list(&self, seconds: u64, selection: &Selection, limit: usize) -> AnswersReport {
            list(&self.process.reload_state, self.now + Duration::from_secs(seconds), selection, limit, true)
        }

        fn names(&self, selection: &Selection) -> Vec<String> {
            self.list(0, selection, 100).answers.into_iter().map(|answer| answer.name).collect()
        }
    }

    fn lower(text: &str) -> LowerName {
        LowerName::parse(text).unwrap()
    }

    #[test]
    fn answers_are_selected_by_name_type_zone_and_pattern() {
        let scene = Scene::new();
        let all = ["a.b.example.", "a.example.", "a.test.", "b.example.", "c.example."];
        assert_eq!(scene.names(&Selection::All), all);
        assert_eq!(scene.names(&Selection::Name(lower("A.Example"), None)), ["a.example."]);
        assert_eq!(scene.names(&Selection::Name(lower("a.example"), Some(RecordType::A))), ["a.example."]);
        assert_eq!(scene.names(&Selection::Name(lower("a.example"), Some(RecordType::AAAA))), [""; 0]);
        assert_eq!(scene.names(&Selection::Zone(lower("b.example"))), ["a.b.example.", "b.example."]);
        let pattern = NamePattern::parse("A.*").unwrap();
        assert_eq!(scene.names(&Selection::Pattern(pattern)), ["a.b.example.", "a.example.", "a.test."]);
        let few = scene.list(0, &Selection::All, 2);
        assert_eq!((few.matched, few.answers.len()), (5, 2));
    }

    #[test]
    fn of_answers_with_many_records_no_more_are_shown_than_memory_is_there_for() {
        let scene = Scene::new();
        let records = vec![a("big.example.", 60, 1); 1500];
        for qtype in 1000..1050 {
            let answer = response("big.example.", qtype, 0, 0, &Sections::answer(&records));
            scene.keep(Kind::Success, answer, 0, 60);
        }
        let shown = scene.list(0, &Selection::Name(lower("big.example"), None), 100);
        let octets: usize = shown.answers.iter().map(|answer| answer.bytes).sum();
        assert_eq!(shown.matched, 50);
        assert!((MOST_OCTETS / 2..=MOST_OCTETS).contains(&octets), "{octets}");
    }

    #[test]
    fn an_answer_tells_how_long_it_lives_what_it_is_and_what_it_says() {
        let scene = Scene::new();
        let one = |seconds, name| {
            let mut answers = scene.list(seconds, &Selection::Name(lower(name), None), 9).answers;
            answers.pop()
        };
        let fresh = one(18, "a.example").unwrap();
        assert_eq!((fresh.ttl, fresh.age, fresh.kind, &*fresh.rcode), (Some(42), 18, "success", "NOERROR"));
        assert_eq!(fresh.records, ["a.example. 42 IN A 192.0.2.1"]);
        let missing = one(0, "c.example").unwrap();
        assert_eq!((missing.kind, &*missing.rcode, &*missing.flags), ("denial", "NXDOMAIN", &["do"][..]));
        assert_eq!(missing.records, ["example. 9 IN SOA ns.example. host.example. 7 7200 900 1209600 9"]);
        assert_eq!(one(60, "a.example").unwrap().ttl, None, "it is stale");
        assert!(one(160, "a.example").is_none(), "it is of no more use");
    }

    #[test]
    fn what_is_flushed_is_gone_and_all_else_is_there() {
        let scene = Scene::new();
        let flush = |selection: Selection| flush(&scene.process.reload_state, &selection);
        assert_eq!(flush(Selection::Name(lower("a.EXAMPLE."), None)), 1);
        assert_eq!(flush(Selection::Zone(lower("b.example"))), 2);
        assert_eq!(scene.names(&Selection::All), ["a.test.", "c.example."]);
        let counts = || {
            let report = stats(&scene.process.reload_state, &scene.process.cache_memory);
            (report.caches[0].success.entries, report.caches[0].denial.entries, report.memory_used)
        };
        assert_eq!((counts().0, counts().1, counts().2 > 0), (1, 1, true));
        assert_eq!(flush(Selection::All), 2);
        assert_eq!(counts(), (0, 0, 0));
    }

    #[test]
    fn caches_are_told_by_what_they_serve() {
        let scene = Scene::new();
        let report = stats(&scene.process.reload_state, &scene.process.cache_memory);
        let cache = &report.caches[0];
        assert_eq!((&*cache.servers, &*cache.zones, &*cache.view), (&[SERVER.to_owned()][..], ".", ""));
        assert_eq!((cache.success.entries, cache.success.capacity, cache.denial.capacity), (4, 100, 50));
        assert_eq!(report.memory_used, cache.success.bytes + cache.denial.bytes);
    }
}
