//! Whether the server's thread of clients within TLS and HTTPS goes on. No question is asked there, since a listener
//! may want a client's certificate: while there are such listeners the thread says now and then that it has had a turn.

use super::StateMachine;
use std::time::Instant;

/// What is known of the present server's thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamsState {
    /// When it said so last; before it has, when it was first expected to.
    pub(super) last_heard: Instant,
    pub(super) has_been_heard: bool,
}

impl StateMachine {
    /// The server serves clients within TLS or HTTPS, or none any longer.
    pub(super) fn expect_streams(&mut self, has_streams: bool, now: Instant) {
        let expected = self.streams.unwrap_or(StreamsState { last_heard: now, has_been_heard: false });
        self.streams = has_streams.then_some(expected);
    }

    pub(super) fn hear_streams(&mut self, now: Instant) {
        if let Some(streams) = &mut self.streams {
            *streams = StreamsState { last_heard: now, has_been_heard: true };
        }
    }

    /// When the thread hangs, unless something is heard of it before.
    pub(super) fn streams_limit(&self) -> Option<Instant> {
        self.streams.map(|streams| streams.last_heard + self.timing.silence_of_streams)
    }

    /// Nobody but such clients is served, and they are.
    pub(super) fn serves_streams_alone(&self) -> bool {
        self.targets.is_empty() && self.streams.is_some_and(|streams| streams.has_been_heard)
    }
}
