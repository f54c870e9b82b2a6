//! What is asked: endless sequences of queries, the same in every run.

use crate::message::{A, AAAA, Expected, query};
use crate::zone::expected;
use std::collections::VecDeque;

/// A query and what must come back.
pub struct Question {
    pub octets: Vec<u8>,
    pub expected: Expected,
}

impl Question {
    /// Its ID is set when it is sent.
    pub fn new(name: &str, rtype: u16) -> Self {
        let octets = query(0, name, rtype);
        let expected = expected(&octets);
        Self { octets, expected }
    }
}

impl Clone for Question {
    fn clone(&self) -> Self {
        Self { octets: self.octets.clone(), expected: self.expected }
    }

    /// Into the buffer that is there.
    fn clone_from(&mut self, other: &Self) {
        self.octets.clone_from(&other.octets);
        self.expected = other.expected;
    }
}

/// An endless sequence of queries. Cheap, since it runs on the generator's time.
pub trait Questions {
    /// Writes the next query to `out`, whose buffer is used again.
    fn next(&mut self, out: &mut Question);
}

/// A fixed set of names, each as often as Zipf's law has it: the n-th most popular 1/n as often as the first.
pub struct Popular {
    questions: Vec<Question>,
    order: Vec<u32>,
    at: usize,
}

/// Draws prepared beforehand.
const DRAWS: usize = 1 << 20;

impl Popular {
    pub fn new(questions: Vec<Question>) -> Self {
        let zipf = Zipf::new(questions.len());
        Self::drawn(questions, |random| zipf.draw(random))
    }

    /// Each as often as any other, in no order.
    pub fn equally(questions: Vec<Question>) -> Self {
        let count = questions.len();
        Self::drawn(questions, |random| random.usize(..count))
    }

    fn drawn(questions: Vec<Question>, draw: impl Fn(&mut fastrand::Rng) -> usize) -> Self {
        let mut random = fastrand::Rng::with_seed(5);
        let order = (0..DRAWS).map(|_| u32::try_from(draw(&mut random)).expect("below 2³² questions")).collect();
        Self { questions, order, at: 0 }
    }
}

impl Questions for Popular {
    fn next(&mut self, out: &mut Question) {
        self.at = (self.at + 1) % DRAWS;
        out.clone_from(&self.questions[self.order[self.at] as usize]);
    }
}

/// Each of a set of names in turn, round and round.
pub struct InTurn {
    questions: Vec<Question>,
    at: usize,
}

impl InTurn {
    pub fn new(questions: Vec<Question>) -> Self {
        Self { questions, at: 0 }
    }
}

impl Questions for InTurn {
    fn next(&mut self, out: &mut Question) {
        self.at = (self.at + 1) % self.questions.len();
        out.clone_from(&self.questions[self.at]);
    }
}

/// A name that was never asked before, each time.
pub struct Distinct {
    question: Question,
    number: u32,
}

/// Digits of the number in a distinct name's first label.
const DIGITS: usize = 8;

impl Distinct {
    /// `prefix` and a number make the first label of names below `zone`; `first` keeps sequences apart.
    pub fn new(prefix: &str, zone: &str, first: u32) -> Self {
        assert_eq!(prefix.len(), 2, "the number stands after the header, the label's length, and two octets");
        Self { question: Question::new(&format!("{prefix}{:0DIGITS$x}.{zone}", 0), A), number: first }
    }
}

impl Questions for Distinct {
    fn next(&mut self, out: &mut Question) {
        self.number = self.number.wrapping_add(1);
        for (place, octet) in self.question.octets[15..15 + DIGITS].iter_mut().enumerate() {
            *octet = b"0123456789abcdef"[(self.number >> (4 * place) & 0xf) as usize];
        }
        out.clone_from(&self.question);
    }
}

/// Draws indices by Zipf's law with exponent 1.
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(count: usize) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=count)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        Self { cumulative }
    }

    fn draw(&self, random: &mut fastrand::Rng) -> usize {
        let point = random.f64() * self.cumulative.last().copied().unwrap_or(0.0);
        self.cumulative.partition_point(|sum| *sum < point).min(self.cumulative.len() - 1)
    }
}

/// What pods of a node ask: their C library tries the search path of Kubernetes' resolv.conf first (ndots:5;
/// NAMESPACE.svc.cluster.local, svc.cluster.local, cluster.local), and asks for A and AAAA at every step.
pub struct ClusterMix {
    random: fastrand::Rng,
    services: Zipf,
    sites: Zipf,
    namespaces: Zipf,
    new_sites: u32,
    left: VecDeque<Question>,
}

const SERVICES: usize = 200;
const SITES: usize = 300;
const NAMESPACES: usize = 10;

impl ClusterMix {
    pub fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let new_sites = u32::try_from(seed << 20 & 0xffff_ffff).unwrap_or(0);
        let (services, sites, namespaces) = (Zipf::new(SERVICES), Zipf::new(SITES), Zipf::new(NAMESPACES));
        Self { random, services, sites, namespaces, new_sites, left: VecDeque::new() }
    }

    /// One lookup of a pod, as the queries that it takes.
    fn look_up(&mut self) {
        let namespace = self.namespaces.draw(&mut self.random);
        let steps = match self.random.u32(..100) {
            // A service of the same namespace.
            0..40 => vec![format!("svc-{}.ns-{namespace}.svc.cluster.local", self.services.draw(&mut self.random))],
            // One of another, as SERVICE.NAMESPACE: the first step of the path fails.
            40..65 => {
                let service = self.services.draw(&mut self.random);
                let name = format!("svc-{service}.ns-{}", service % NAMESPACES);
                vec![format!("{name}.ns-{namespace}.svc.cluster.local"), format!("{name}.svc.cluster.local")]
            }
            // A site outside: the whole path fails.
            draw => {
                let site = if draw < 98 {
                    format!("api-{}.test-site.com", self.sites.draw(&mut self.random))
                } else {
                    // Names made for one request only, as content networks and object stores have them.
                    self.new_sites = self.new_sites.wrapping_add(1);
                    format!("one-{:x}.test-site.com", self.new_sites)
                };
                vec![
                    format!("{site}.ns-{namespace}.svc.cluster.local"),
                    format!("{site}.svc.cluster.local"),
                    format!("{site}.cluster.local"),
                    site,
                ]
            }
        };
        for name in steps {
            self.left.extend([A, AAAA].map(|rtype| Question::new(&name, rtype)));
        }
    }
}

impl Questions for ClusterMix {
    fn next(&mut self, out: &mut Question) {
        loop {
            if let Some(question) = self.left.pop_front() {
                *out = question;
                return;
            }
            self.look_up();
        }
    }
}

/// `count` names with long lives.
pub fn long_lived(count: usize) -> Vec<Question> {
    labels(count).map(|label| Question::new(&format!("{label}.cached.bench.example"), A)).collect()
}

/// `count` names that do not exist.
pub fn denied(count: usize) -> Vec<Question> {
    labels(count).map(|label| Question::new(&format!("nx{label}.cached.bench.example"), A)).collect()
}

/// Labels as people choose them, more or less: letters, of different lengths; numbered, so that no two are alike.
fn labels(count: usize) -> impl Iterator<Item = String> {
    let mut random = fastrand::Rng::with_seed(11);
    (0..count).map(move |number| {
        let length = random.usize(6..=12);
        let letters: String = std::iter::repeat_with(|| random.lowercase()).take(length).collect();
        // None begins as those that do not exist.
        format!("h{letters}{number:x}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn take(questions: &mut dyn Questions, count: usize) -> Vec<Question> {
        let mut out = Question::new("a.example", A);
        let mut next = || {
            questions.next(&mut out);
            out.clone()
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn distinct_names_are_distinct() {
        let seen: HashSet<_> =
            take(&mut Distinct::new("m-", "miss.bench.example", 0), 5000).into_iter().map(|q| q.octets).collect();
        assert_eq!(seen.len(), 5000);
    }

    #[test]
    fn the_first_of_a_thousand_popular_names_is_asked_for_an_eighth_of_the_time() {
        let first = long_lived(1).remove(0).octets;
        let count = take(&mut Popular::new(long_lived(1000)), 10_000).iter().filter(|q| q.octets == first).count();
        assert!((1000..1700).contains(&count), "{count}");
    }

    #[test]
    fn the_mix_has_answers_denials_and_pairs() {
        let queries = take(&mut ClusterMix::new(1), 20_000);
        let share = |expected| queries.iter().filter(|q| q.expected == expected).count() as f64 / 20_000.0;
        assert!((0.4..0.8).contains(&share(Expected::NoName)), "{}", share(Expected::NoName));
        assert!(share(Expected::Records) > 0.1 && share(Expected::NoData) > 0.1);
        for pair in queries.chunks(2) {
            assert_eq!(pair[0].octets[..pair[0].octets.len() - 4], pair[1].octets[..pair[1].octets.len() - 4]);
        }
    }
}
