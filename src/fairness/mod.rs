//! Who gives way when something that clients take places in is full: queries in flight, TCP connections,
//! `max_concurrent` of a forward. The largest holder does, so that whoever asks most loses, and nobody else, however
//! many addresses ask.
//!
//! [`Places`] is the rule, pure; [`Gate`] is places of futures, which it can end; [`Notice`] is what is told of it.

mod client;
mod gate;
mod lists;
mod notice;
mod places;
#[cfg(test)]
mod tests;

pub(crate) use client::{Client, Fairness, Policy};
pub(crate) use gate::{Entry, Gate, Pass};
pub(crate) use notice::Notice;
pub(crate) use places::{Admission, Evicted, Occupant, Place, Places};
