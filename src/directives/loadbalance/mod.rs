//! The `loadbalance` directive changes the order of the addresses in answers, so that clients which take the first
//! spread over all of them; see README.md beside this file.

mod parse;
#[cfg(test)]
mod tests;
mod weights;

pub use parse::parse;

use crate::chain::{Arranger, BuildContext, BuildError, Built, Configured, DataFilePoll};
use crate::corefile::FileStamp;
use crate::message::{AddressRun, AddressSet, RecordType, arrange_addresses, question_type_of};
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use weights::Weights;

const KEYWORD: &str = "loadbalance";

/// A `loadbalance` as configured.
struct LoadBalanceConfig {
    policy: PolicyConfig,
    /// Addresses of the first come first.
    prefer: Vec<IpNet>,
}

enum PolicyConfig {
    RoundRobin,
    Weighted {
        path: PathBuf,
        /// `None` if the file could not be read.
        stamp: Option<FileStamp>,
        weights: Arc<Weights>,
        /// Zero: the file is not read again.
        reload: Duration,
    },
}

impl Configured for LoadBalanceConfig {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let mut built = Built::default();
        let policy = match &self.policy {
            PolicyConfig::RoundRobin => BalancePolicy::RoundRobin,
            PolicyConfig::Weighted { path, stamp, weights, reload } => {
                let weights = Arc::new(ArcSwap::new(weights.clone()));
                if !reload.is_zero() {
                    let (current, shown) = (weights.clone(), path.display().to_string());
                    let poll = DataFilePoll {
                        directive: KEYWORD,
                        path: path.clone(),
                        interval: *reload,
                        known: *stamp,
                        files: context.process.data_files.clone(),
                        changed: Arc::new(move |file| match Weights::read(&file.text) {
                            Ok(read) => current.store(Arc::new(read)),
                            Err(error) => {
                                tracing::error!("loadbalance: the weights of {shown} stay as they were: {error}");
                            }
                        }),
                    };
                    built.background.push(Box::pin(poll.run()));
                }
                BalancePolicy::Weighted(weights)
            }
        };
        built.arranger = Some(Arc::new(LoadBalance { policy, prefer: self.prefer.clone().into() }));
        Ok(built)
    }
}

/// For fuzzing: whether a file of weights is good.
#[doc(hidden)]
pub fn read_weights(text: &str) -> bool {
    Weights::read(text).is_ok()
}

/// For fuzzing: puts a reply into order.
#[doc(hidden)]
pub fn shuffle_reply(reply: &mut Vec<u8>) {
    let prefer = ["192.0.2.0/25", "2001:db8::/32"].iter().flat_map(|network| network.parse()).collect();
    LoadBalance { policy: BalancePolicy::RoundRobin, prefer }.arrange(reply, 0);
}

enum BalancePolicy {
    RoundRobin,
    Weighted(Arc<ArcSwap<Weights>>),
}

/// The `loadbalance` of a server block.
struct LoadBalance {
    policy: BalancePolicy,
    prefer: Box<[IpNet]>,
}

impl LoadBalance {
    #[inline(always)]
    fn order(&self, set: &mut AddressSet<'_>) {
        match &self.policy {
            BalancePolicy::RoundRobin => shuffle(set),
            BalancePolicy::Weighted(weights) => {
                let owner = set.owner();
                let chosen = weights.load().choose(
                    &owner,
                    set.count(),
                    |index| set.address(index),
                    |sum| fastrand::usize(..sum.max(1)),
                );
                set.swap(0, chosen);
            }
        }
        if !self.prefer.is_empty() {
            let rank =
                |address| self.prefer.iter().position(|network| network.contains(&address)).unwrap_or(usize::MAX);
            set.sort_by_rank(rank);
        }
    }
}

/// Any order is as likely as another.
#[inline]
fn shuffle(set: &mut AddressSet<'_>) {
    for placed in 1..set.count() {
        set.swap(placed, fastrand::usize(..=placed));
    }
}

/// Whether replies to a question of this type are put into order by weights.
fn is_weighted(asked: Option<RecordType>) -> bool {
    matches!(asked, Some(RecordType::A | RecordType::AAAA | RecordType::SRV))
}

impl Arranger for LoadBalance {
    fn explain(&self) -> String {
        let order = match self.policy {
            BalancePolicy::RoundRobin => "the addresses of the answer come in any order",
            BalancePolicy::Weighted(_) => "the first address of the answer is chosen by weights",
        };
        let preferred = if self.prefer.is_empty() { "" } else { ", those of preferred networks first" };
        format!("{order}{preferred}")
    }

    fn arrange(&self, reply: &mut Vec<u8>, start: usize) {
        let below = match self.policy {
            BalancePolicy::RoundRobin => Some((|count| fastrand::usize(..count)) as fn(usize) -> usize),
            BalancePolicy::Weighted(_) => {
                let asked = reply.get(start..).and_then(question_type_of);
                if !is_weighted(asked) {
                    return;
                }
                None
            }
        };
        arrange_addresses(reply, start, below, &mut |set| self.order(set));
    }

    fn prepare(&self, reply: &[u8]) -> Option<AddressRun> {
        match self.policy {
            BalancePolicy::Weighted(_) if !is_weighted(question_type_of(reply)) => None,
            _ => AddressRun::of(reply),
        }
    }

    fn arrange_copy(&self, reply: &mut [u8], addresses: AddressRun) {
        addresses.arrange(reply, |set| self.order(set));
    }
}
