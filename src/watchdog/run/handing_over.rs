//! Takes sockets and cache over from a predecessor, and gives them to a successor.

use super::Watchdog;
use crate::watchdog::control::Instruction;
use crate::watchdog::handover::HandoverEvent;
use crate::watchdog::node_thread::NodeThread;
use crate::watchdog::state::Event;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long a successor waits for what the caches hold, at most.
const CACHE_PATIENCE: Duration = Duration::from_millis(500);

impl Watchdog {
    /// Begins with what a predecessor has, if there is one.
    pub(super) fn take_over(&mut self) {
        let Some(path) = self.handover_path.as_deref() else { return };
        match self.handover.take_over(path) {
            Ok(None) => {}
            Ok(Some(inherited)) => {
                self.sockets = inherited.sockets;
                self.cache = inherited.cache;
                let addresses: Vec<String> = self.sockets.addresses().map(|address| address.to_string()).collect();
                tracing::info!("watchdog: the sockets of {} come from a predecessor", addresses.join(", "));
            }
            Err(error) => {
                tracing::warn!("watchdog: nothing is taken over at {}, this begins afresh: {error}", path.display())
            }
        }
    }

    pub(super) fn on_handover_event(&mut self, event: HandoverEvent, node: &NodeThread) {
        match event {
            HandoverEvent::TakeoverRequested => {
                self.offer_by = Some(Instant::now() + CACHE_PATIENCE);
                if self.server.is_some() {
                    self.tell(&Instruction::ExportCache);
                } else {
                    self.offer(node);
                }
            }
            HandoverEvent::SuccessorProven => {
                tracing::info!("watchdog: a successor has taken over; this one stands by until it is told to end");
                self.handle(Event::SuccessorServes, node);
            }
            HandoverEvent::SuccessorGone => {
                self.offer_by = None;
                self.set_yielding(false);
                self.handle(Event::SocketsShared { is_shared: self.handover.is_shared() }, node);
                self.handle(Event::SuccessorGone, node);
            }
            HandoverEvent::PredecessorGone => {
                self.handle(Event::SocketsShared { is_shared: self.handover.is_shared() }, node)
            }
        }
    }

    /// Gives the successor that asked what there is.
    pub(super) fn offer(&mut self, node: &NodeThread) {
        self.offer_by = None;
        self.sockets.drop_stopped();
        let cache = self.cache.take();
        if self.handover.offer(&self.sockets, cache.as_ref().map(AsFd::as_fd)) {
            tracing::info!("watchdog: a successor has been given the sockets");
            self.set_yielding(true);
            self.handle(Event::SocketsShared { is_shared: true }, node);
        }
    }

    /// Whether the server, and each that takes its place, is to leave a successor its share of what arrives.
    fn set_yielding(&mut self, is_yielding: bool) {
        if std::mem::replace(&mut self.is_yielding, is_yielding) != is_yielding {
            self.tell(&Instruction::Yield { is_on: is_yielding });
        }
    }
}
