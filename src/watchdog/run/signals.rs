//! The signals that the watchdog handles.

use crate::watchdog::state::Event;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that mean something to us.
pub(super) struct WatchdogSignals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    reload: Signal,
    hangup: Signal,
}

impl WatchdogSignals {
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            reload: signal(SignalKind::user_defined1())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Event<'static> {
        tokio::select! {
            _ = self.terminate.recv() => Event::Stop,
            _ = self.interrupt.recv() => Event::Stop,
            _ = self.quit.recv() => Event::Stop,
            _ = self.reload.recv() => Event::Reload,
            _ = self.hangup.recv() => Event::Retry,
        }
    }
}
