//! When a connection to an upstream has been idle for so long, or has become so old, that it takes no more queries.

use super::tcp_connection::TcpConnection;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// How often it is looked, at least and at most.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// The timer of one connection.
pub(super) struct IdleTimer {
    /// When something was sent or came last.
    since: Instant,
    interval: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl IdleTimer {
    /// For a connection that is closed after being idle for `expire`.
    pub(super) fn new(expire: Duration) -> Self {
        let interval = expire.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        Self { since: Instant::now(), interval, sleep: Box::pin(tokio::time::sleep(interval)) }
    }

    /// Something was sent, or came.
    pub(super) fn restart(&mut self) {
        self.since = Instant::now();
    }

    /// Waits until it is time to look, and retires the connection if it is old, or idle with nothing in flight.
    pub(super) async fn tick(&mut self, connection: &TcpConnection) {
        self.sleep.as_mut().await;
        let now = Instant::now();
        self.sleep.as_mut().reset((now + self.interval).into());
        // Retires the connection if its lifetime is over.
        connection.load(now);
        let is_idle = now.saturating_duration_since(self.since) >= connection.remote.settings.expire;
        if is_idle && connection.in_flight.lock().is_empty() {
            connection.state.lock().is_retired = true;
        }
    }
}
