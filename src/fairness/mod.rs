//! Who gives way when something that clients take places in is full: queries in flight, TCP connections,
//! `max_concurrent` of a forward. The largest holder does, so that whoever asks most loses, and nobody else, however
//! many addresses ask.
//!
//! [`Places`] is the rule, pure. [`ConcurrencyLimiter`] applies it to futures, which it can end. [`LogThrottle`] lets
//! the log say so once a minute.

mod client;
mod concurrency_limiter;
mod lists;
mod log_throttle;
mod places;
#[cfg(test)]
mod tests;

pub(crate) use client::{Client, Fairness, SharedFairness};
pub(crate) use concurrency_limiter::{ConcurrencyLimiter, Permit, PermitOutcome};
pub(crate) use log_throttle::LogThrottle;
pub(crate) use places::{Admission, Evicted, Occupant, Place, Places};
