//! The `cache` directive keeps what the rest of the block's chain answers, and answers from that until the TTL is over;
//! see README.md beside this file.

mod classify;
mod entry;
mod handler;
mod inspection;
mod metrics;
mod parse;
mod shard;
mod store;
mod subnet_answers;
mod transfer;
#[cfg(test)]
mod wire;

pub use classify::classify;
pub(crate) use inspection::{Selection, flush, list, stats};
pub use transfer::{Bounds, ClockReading, TransferCount, export, import};

use crate::chain::{BlockConfig, BuildContext, BuildError, Built, Configured, MemoryBudget, ParseContext, Part};
use crate::corefile::Directive;
use crate::message::{LowerName, Name, Response};
use entry::{Age, Entry};
use handler::{Cache, Inner, KEYWORD, Kept, Policy};
use metrics::{Labels, Metrics};
use parse::Config;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval_at};

/// Reads one `cache` of a server block.
pub fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let Some(config) = parse::read(directive, context.diagnostics) else { return };
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(config) });
}

/// How often expired answers are looked for, so that other caches can have their memory.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

impl Configured for Config {
    fn build(&self, context: &BuildContext<'_>) -> Result<Built, BuildError> {
        let zones = if self.zones.is_empty() { context.block_zones } else { &self.zones };
        let label = join(zones);
        // What was kept under another `disable` may not be served under this one, nor what others have answered than
        // those who would now.
        let disabled = self.disabled.each_ref().map(|zones| join(zones));
        let sources = Sha256::digest(context.answer_sources);
        let mut key =
            format!("cache {} {:?} {label} {disabled:?} {sources:x}", join(context.block_zones), context.servers);
        if let Some(view) = context.view {
            // Another block may have the same zones, and answer otherwise.
            key.push_str(&format!(" view {:?} {:x}", view.name, Sha256::digest(&view.rules)));
        }
        let kept = context.process.reload_state.adopt_or(&key, || {
            Kept::new(
                self.capacity,
                context.process,
                context.servers,
                Labels { zones: &label, view: context.view_name() },
            )
        });
        let covers_all = context.block_zones.iter().all(|served| zones.iter().any(|zone| served.is_within(zone)));
        let inner = Arc::new(Inner {
            zones: (!covers_all).then(|| lower(zones)),
            disabled: self.disabled.each_ref().map(|zones| lower(zones)),
            policy: Policy {
                lifetimes: self.lifetimes,
                prefetch: self.prefetch,
                stale: self.stale,
                keep_ttl: self.keep_ttl,
            },
            kept,
            metrics: context
                .servers
                .iter()
                .map(|server| {
                    let labels = Labels { zones: &label, view: context.view_name() };
                    Metrics::new(&context.process.registry, server, labels, self.stale.is_some())
                })
                .collect(),
        });
        let budget = context.process.cache_memory.clone();
        let background = Box::pin(maintain(inner.clone(), self.capacity, budget));
        Ok(Built { handler: Some(Arc::new(Cache(inner))), background: vec![background], ..Built::default() })
    }
}

/// Gives an adopted store the new capacities once this plan serves, then clears out what has expired, again and again,
/// and more when memory gets scarce.
async fn maintain(inner: Arc<Inner>, [success, denial]: [usize; 2], budget: Arc<MemoryBudget>) {
    let store = &inner.kept.store;
    *inner.kept.serving.lock() = Arc::downgrade(&inner);
    store.resize(success, denial);
    let mut sweep = interval_at(tokio::time::Instant::now() + SWEEP_INTERVAL, SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_exceeded = tokio::select! {
            _ = sweep.tick() => false,
            () = budget.exceeded() => true,
        };
        let now = store.moment(Instant::now());
        let is_useless = |entry: &Entry<Response>| inner.policy.age(entry, now) == Age::Gone;
        let tailored = inner.kept.tailored.get();
        if is_exceeded {
            // They are for few, and go before what is for everybody.
            tailored.inspect(|tailored| tailored.clear());
            store.shrink(&is_useless);
        } else {
            tailored.inspect(|tailored| tailored.sweep());
            store.sweep(&is_useless);
        }
    }
}

fn lower(zones: &[Name]) -> Box<[LowerName]> {
    zones.iter().map(Name::to_lower).collect()
}

/// As the reference writes zones in labels.
fn join(zones: &[Name]) -> String {
    zones.iter().map(|zone| zone.to_lower().to_name().to_string()).collect::<Vec<_>>().join(",")
}
