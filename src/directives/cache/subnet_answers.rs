//! Answers that upstreams made for some clients' subnets only (RFC 7871), beside the store of those for everybody and
//! off its way: bounded in octets by a share of the cache memory, and in subnets for each question.

use super::entry::Entry;
use crate::chain::MemoryBudget;
use crate::message::{ClientSubnet, Response};
use moka::Expiry;
use moka::ops::compute::Op;
use moka::sync::Cache;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of the cache memory one part in so many may be answers of this kind, those of all caches together. The rest is not
/// theirs to take.
const SHARE: usize = 8;
/// Subnets for which answers to one question are kept. A client can name any subnet it likes, so they are not told by
/// how many clients there are.
const MOST_SUBNETS: usize = 16;
/// Octets that a question takes beside its answers: its places in the map, in the queues and in the counts of what is
/// asked for.
const OVERHEAD: usize = 512;

/// The answers to a question, by subnet.
pub(super) struct SubnetAnswers {
    answers: Cache<Box<[u8]>, Arc<Answers>, foldhash::fast::RandomState>,
    budget: Arc<MemoryBudget>,
}

/// For whom an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// All clients that name a subnet within this network.
    Network(ClientSubnet),
    /// Those that ask with exactly this subnet. A client may name a short prefix, so nothing is said of the networks in
    /// it.
    Subnet(ClientSubnet),
}

impl Audience {
    fn subnet(&self) -> &ClientSubnet {
        match self {
            Self::Network(subnet) | Self::Subnet(subnet) => subnet,
        }
    }
    /// Who wants no answer made for it is only given what another of those was given (RFC 7871 section 7.3.1).
    fn has(&self, subnet: &ClientSubnet) -> bool {
        match self {
            Self::Network(network) => network.is_untailored() == subnet.is_untailored() && network.contains(subnet),
            Self::Subnet(only) => only == subnet,
        }
    }
}

/// An answer and for whom it is.
struct SubnetAnswer {
    audience: Audience,
    entry: Arc<Entry<Response>>,
}

/// All answers to one question.
struct Answers {
    /// Empty once it is out of the map, whose own garbage is collected later.
    held: Mutex<HeldAnswers>,
    lives: Duration,
    octets: usize,
}

#[derive(Default)]
struct HeldAnswers {
    list: Vec<SubnetAnswer>,
    /// Of the memory of all caches, for as long as they are held.
    _share: Option<Share>,
}

/// Octets taken from the budget.
struct Share {
    octets: usize,
    budget: Arc<MemoryBudget>,
}

impl Share {
    fn take(octets: usize, budget: &Arc<MemoryBudget>) -> Option<Self> {
        budget.take_part(octets, SHARE).then(|| Self { octets, budget: budget.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.release_part(self.octets);
    }
}

/// Removes what nobody will be given any more; look-ups go by the age of each answer.
struct Lives;

impl Expiry<Box<[u8]>, Arc<Answers>> for Lives {
    fn expire_after_create(&self, _: &Box<[u8]>, answers: &Arc<Answers>, _: Instant) -> Option<Duration> {
        Some(answers.lives)
    }
    fn expire_after_update(
        &self,
        _: &Box<[u8]>,
        answers: &Arc<Answers>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(answers.lives)
    }
}

impl Answers {
    fn take(&self) -> HeldAnswers {
        std::mem::take(&mut self.held.lock())
    }
}

impl SubnetAnswers {
    /// Takes its octets from `budget`, at most a share of it together with all others.
    pub(super) fn new(budget: Arc<MemoryBudget>) -> Self {
        let answers = Cache::builder()
            .max_capacity((budget.largest_limit() / SHARE) as u64)
            .weigher(|_, answers: &Arc<Answers>| u32::try_from(answers.octets).unwrap_or(u32::MAX))
            .expire_after(Lives)
            .eviction_listener(|_, answers, _| drop(answers.take()))
            .build_with_hasher(foldhash::fast::RandomState::default());
        Self { answers, budget }
    }

    /// The answer for the smallest network that has all of `subnet` in it. `question` is
    /// [`crate::message::QuestionKey::octets`].
    pub(super) fn find(
        &self,
        question: &[u8],
        subnet: &ClientSubnet,
        is_usable: impl Fn(&Entry<Response>) -> bool,
    ) -> Option<Arc<Entry<Response>>> {
        let answers = self.answers.get(question)?;
        let held = answers.held.lock();
        let fitting = held.list.iter().filter(|answer| answer.audience.has(subnet) && is_usable(&answer.entry));
        fitting.max_by_key(|answer| answer.audience.subnet().prefix()).map(|answer| answer.entry.clone())
    }

    /// Keeps an answer that lives for so many seconds, if there is room; else all that is kept for the question goes.
    /// It takes the place of one for the same subnet. With too many for the question the oldest goes, and before it
    /// what is no longer of use.
    pub(super) fn keep(
        &self,
        question: &[u8],
        audience: Audience,
        entry: Entry<Response>,
        ttl: u32,
        is_usable: impl Fn(&Entry<Response>) -> bool,
    ) {
        self.answers.entry(question.into()).and_compute_with(|present| {
            let (mut list, mut lives) = (Vec::new(), Duration::from_secs(ttl.into()));
            if let Some(present) = present {
                let former = present.into_value();
                lives = lives.max(former.lives);
                list = former.take().list;
                list.retain(|answer: &SubnetAnswer| {
                    answer.audience.subnet() != audience.subnet() && is_usable(&answer.entry)
                });
            }
            if list.len() >= MOST_SUBNETS
                && let Some((oldest, _)) = list.iter().enumerate().min_by_key(|(_, answer)| answer.entry.stored())
            {
                list.swap_remove(oldest);
            }
            list.push(SubnetAnswer { audience, entry: Arc::new(entry) });
            let answers: usize = list.iter().map(|answer| size_of::<SubnetAnswer>() + answer.entry.octets()).sum();
            let octets = OVERHEAD + question.len() + answers;
            match Share::take(octets, &self.budget) {
                Some(share) => {
                    let held = Mutex::new(HeldAnswers { list, _share: Some(share) });
                    Op::Put(Arc::new(Answers { held, lives, octets }))
                }
                // Memory is scarce, and they are the first to go.
                None => Op::Remove,
            }
        });
        // What is over the bound goes at once, not when there is time.
        self.answers.run_pending_tasks();
    }

    /// Gives back the memory of what has expired.
    pub(super) fn sweep(&self) {
        self.answers.run_pending_tasks();
    }

    /// Gives everything up.
    pub(super) fn clear(&self) {
        self.answers.invalidate_all();
        self.answers.run_pending_tasks();
    }

    /// Octets that the answers take.
    #[cfg(test)]
    pub(super) fn octets(&self) -> u64 {
        self.answers.weighted_size()
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Fresh, Key, Kind, Moment};
    use super::super::wire::{self, Sections, a};
    use super::*;
    use crate::message::{PrefixLimits, Query};

    const QUESTION: &[u8] = b"question";
    const ALL: PrefixLimits = PrefixLimits { ipv4: 32, ipv6: 128 };

    /// An IPv4 subnet of this many bits.
    fn subnet(prefix: u8, address: [u8; 4]) -> ClientSubnet {
        let octets = &address[..usize::from(prefix).div_ceil(8)];
        let (mut wire, _) = wire::query("a.example.", wire::A, 0, Some(false));
        let end = wire.len() - 2;
        wire.truncate(end);
        wire.extend([&[0, 8 + octets.len() as u8, 0, 8, 0, 4 + octets.len() as u8, 0, 1, prefix, 0], octets].concat());
        let Ok(query) = Query::read(&wire) else { panic!("a query") };
        query.client_subnet(&wire).unwrap().unwrap().within(ALL)
    }

    /// An answer with this last octet, stored at a time.
    fn entry(last: u8, stored: u64) -> Entry<Response> {
        let payload = wire::response("a.example.", wire::A, 0, 0, &Sections::answer(&[a("a.example.", 60, last)]));
        let key = Key { hash: 0, name: b"", qtype: 1, qclass: 1, flags: 0 };
        Entry::new(&key, Kind::Success, Fresh { payload, ttl: 60, answering: true }, Moment(stored))
    }

    fn found(tailored: &SubnetAnswers, subnet: &ClientSubnet) -> Option<u8> {
        let entry = tailored.find(QUESTION, subnet, |_| true)?;
        entry.payload.records().next().and_then(|record| record.rdata().last().copied())
    }

    fn keep(tailored: &SubnetAnswers, subnet: ClientSubnet, last: u8, stored: u64) {
        tailored.keep(QUESTION, Audience::Network(subnet), entry(last, stored), 60, |_| true);
    }

    fn roomy() -> (SubnetAnswers, Arc<MemoryBudget>) {
        let budget = Arc::new(MemoryBudget::new(1 << 20));
        (SubnetAnswers::new(budget.clone()), budget)
    }

    #[test]
    fn the_smallest_network_around_a_subnet_answers_it_and_none_within_it_or_beside_it_does() {
        let (tailored, _) = roomy();
        keep(&tailored, subnet(16, [10, 1, 0, 0]), 16, 0);
        keep(&tailored, subnet(24, [10, 1, 2, 0]), 24, 0);
        let answer = |prefix, address| found(&tailored, &subnet(prefix, address));
        assert_eq!((answer(24, [10, 1, 2, 0]), answer(32, [10, 1, 2, 9])), (Some(24), Some(24)));
        assert_eq!((answer(24, [10, 1, 3, 0]), answer(23, [10, 1, 2, 0])), (Some(16), Some(16)));
        assert_eq!(
            (answer(24, [10, 2, 2, 0]), answer(15, [10, 0, 0, 0]), answer(8, [10, 0, 0, 0])),
            (None, None, None)
        );
        assert!(tailored.find(b"another", &subnet(24, [10, 1, 2, 0]), |_| true).is_none());
        assert!(tailored.find(QUESTION, &subnet(24, [10, 1, 2, 0]), |_| false).is_none());
    }

    #[test]
    fn what_is_for_one_subnet_alone_is_given_to_no_network_in_it() {
        let (tailored, _) = roomy();
        tailored.keep(QUESTION, Audience::Subnet(subnet(8, [10, 0, 0, 0])), entry(8, 0), 60, |_| true);
        let answer = |prefix, address| found(&tailored, &subnet(prefix, address));
        assert_eq!(
            (answer(8, [10, 0, 0, 0]), answer(24, [10, 1, 2, 0]), answer(7, [10, 0, 0, 0])),
            (Some(8), None, None)
        );
    }

    #[test]
    fn who_wants_no_answer_made_for_it_shares_with_its_like_alone() {
        let (tailored, _) = roomy();
        keep(&tailored, ClientSubnet::UNTAILORED, 1, 0);
        assert_eq!(found(&tailored, &subnet(24, [10, 1, 2, 0])), None);
        assert_eq!(found(&tailored, &subnet(0, [0; 4])), Some(1));
    }

    #[test]
    fn of_too_many_subnets_for_one_question_the_oldest_goes() {
        let (tailored, budget) = roomy();
        for third in 0..100 {
            keep(&tailored, subnet(24, [10, 1, third, 0]), third, third.into());
        }
        let kept: Vec<u8> =
            (0..100).filter(|third| found(&tailored, &subnet(24, [10, 1, *third, 0])).is_some()).collect();
        assert_eq!(kept, (84..100).collect::<Vec<u8>>());
        // One that is there is put in its own place.
        keep(&tailored, subnet(24, [10, 1, 90, 0]), 7, 200);
        assert_eq!(
            (found(&tailored, &subnet(24, [10, 1, 90, 0])), found(&tailored, &subnet(24, [10, 1, 84, 0]))),
            (Some(7), Some(84))
        );
        assert!(budget.used() as u64 == tailored.octets() && budget.used() < 20_000, "{}", budget.used());
    }

    #[test]
    fn answers_of_10_000_subnets_and_names_stay_within_their_share_and_give_it_back() {
        let (tailored, budget) = roomy();
        for index in 0..10_000_u32 {
            let [_, second, third, fourth] = index.to_be_bytes();
            let question = [second, third, fourth & 0xfc];
            let audience = Audience::Network(subnet(32, [10, second, third, fourth]));
            tailored.keep(&question, audience, entry(1, 0), 60, |_| true);
            if index % 100 == 0 {
                assert!(tailored.octets() <= (1 << 20) / 8, "{index}: {} octets", tailored.octets());
            }
        }
        assert!(tailored.octets() > (1 << 20) / 16, "the share is used: {}", tailored.octets());
        assert!(budget.used() as u64 == tailored.octets(), "{} octets are taken", budget.used());
        tailored.clear();
        assert_eq!((tailored.octets(), budget.used()), (0, 0));
    }

    #[test]
    fn nothing_is_kept_where_the_memory_of_all_caches_is_taken() {
        let (tailored, budget) = roomy();
        assert!(budget.take(budget.limit() - 100));
        keep(&tailored, subnet(24, [10, 1, 2, 0]), 1, 0);
        assert_eq!((found(&tailored, &subnet(24, [10, 1, 2, 0])), budget.used()), (None, budget.limit() - 100));
        budget.release(10_000);
        keep(&tailored, subnet(24, [10, 1, 2, 0]), 1, 0);
        assert_eq!(found(&tailored, &subnet(24, [10, 1, 2, 0])), Some(1));
        assert!(budget.take(budget.limit() - budget.used()));
        keep(&tailored, subnet(24, [10, 1, 3, 0]), 2, 0);
        assert_eq!(
            (tailored.octets(), budget.used() < budget.limit()),
            (0, true),
            "what is kept gives way to the rest"
        );
    }
}
