//! The order in which upstreams are asked. Random numbers are the caller's.

use smallvec::SmallVec;
use std::sync::atomic::{AtomicU32, Ordering};

/// `policy random|round_robin|sequential`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum UpstreamPolicy {
    #[default]
    Random,
    RoundRobin,
    Sequential,
}

impl UpstreamPolicy {
    /// The values of the option.
    pub(super) const WORDS: [&'static str; 3] = ["random", "round_robin", "sequential"];

    /// The policy that a value of the option names.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        match word {
            "random" => Some(Self::Random),
            "round_robin" => Some(Self::RoundRobin),
            "sequential" => Some(Self::Sequential),
            _ => None,
        }
    }
}

/// Indices into the list of upstreams, first to ask first. Small, because each query in flight holds one.
pub(super) type UpstreamOrder = SmallVec<[u16; 8]>;

/// A policy and its state.
#[derive(Debug, Default)]
pub(super) struct UpstreamSelector {
    policy: UpstreamPolicy,
    /// Requests so far, for `round_robin`.
    requests: AtomicU32,
}

impl UpstreamSelector {
    pub(super) fn new(policy: UpstreamPolicy) -> Self {
        Self { policy, requests: AtomicU32::new(0) }
    }

    /// Which upstream is the next by turns, counted on and on: the remainder by their number is its place.
    pub(super) fn next_in_turn(&self) -> usize {
        self.requests.load(Ordering::Relaxed).wrapping_add(1) as usize
    }

    /// The order of `count` upstreams for one request. `random_below` returns a random number below its argument, which
    /// is never 0.
    pub(super) fn order(&self, count: usize, mut random_below: impl FnMut(usize) -> usize) -> UpstreamOrder {
        let mut order: UpstreamOrder = (0..u16::try_from(count).unwrap_or(u16::MAX)).collect();
        match self.policy {
            UpstreamPolicy::Sequential => {}
            UpstreamPolicy::Random => {
                // The shuffle of Fisher and Yates.
                for last in (1..order.len()).rev() {
                    order.swap(last, random_below(last + 1));
                }
            }
            UpstreamPolicy::RoundRobin => {
                // As in CoreDNS, the chosen one is first and the others follow in the order of the Corefile.
                if let Some(first) =
                    (self.requests.fetch_add(1, Ordering::Relaxed).wrapping_add(1) as usize).checked_rem(order.len())
                {
                    let chosen = order.remove(first);
                    order.insert(0, chosen);
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequential_keeps_the_order_of_the_corefile() {
        assert_eq!(UpstreamSelector::new(UpstreamPolicy::Sequential).order(3, |_| 0).as_slice(), [0, 1, 2]);
    }

    #[test]
    fn round_robin_takes_turns_and_keeps_the_rest_in_order() {
        let selector = UpstreamSelector::new(UpstreamPolicy::RoundRobin);
        let orders: Vec<_> = (0..4).map(|_| selector.order(3, |_| 0).to_vec()).collect();
        assert_eq!(orders, [vec![1, 0, 2], vec![2, 0, 1], vec![0, 1, 2], vec![1, 0, 2]]);
        assert_eq!((selector.next_in_turn() % 3, selector.next_in_turn() % 3), (2, 2), "to look is not to take");
    }

    #[test]
    fn random_gives_every_order_a_chance() {
        let selector = UpstreamSelector::new(UpstreamPolicy::Random);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..500 {
            let order = selector.order(3, |bound| rand::random_range(0..bound));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted.as_slice(), [0, 1, 2]);
            seen.insert(order.to_vec());
        }
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn no_upstreams_have_no_order() {
        for policy in [UpstreamPolicy::Random, UpstreamPolicy::RoundRobin, UpstreamPolicy::Sequential] {
            assert!(UpstreamSelector::new(policy).order(0, |_| 0).is_empty());
        }
    }
}
