//! Logs and counts the clients whose packets come in and do not reach the cache.

use super::arrival::{ArrivalTracker, ArrivingClient, ClientReachability};
use super::error::Error;
use super::nftables::InterceptionTable;
use nix::net::if_::if_indextoname;
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often the kernel's notes are read. Its decisions do not wait for that.
const PERIOD: Duration = Duration::from_secs(1);
/// A pod can make up addresses without end; the log says how many there were in this time.
const LOG_PERIOD: Duration = Duration::from_secs(10);
/// The shortest time between two tries of everybody, since each may cost everybody a query.
const TRY_ALL_PERIOD: Duration = Duration::from_secs(10);
/// Clients that are named in a line of the log.
const NAMED: usize = 3;

/// What is known of them, and what has not been said yet.
pub(super) struct ClientWatch {
    arrivals: ArrivalTracker,
    tick: Interval,
    reach: ClientReachability,
    unsaid: Vec<ArrivingClient>,
    said_at: Option<Instant>,
    tried_all_at: Option<Instant>,
    /// Everybody is to be tried once that is allowed.
    is_try_owed: bool,
    /// Newly blocked, until somebody counts them.
    uncounted: usize,
}

impl ClientWatch {
    /// Knows of nobody. Must be called on a tokio runtime.
    pub(super) fn new() -> Self {
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            arrivals: ArrivalTracker::default(),
            tick,
            reach: ClientReachability::default(),
            unsaid: Vec::new(),
            said_at: None,
            tried_all_at: None,
            is_try_owed: false,
            uncounted: 0,
        }
    }

    /// How things stood at the last look.
    pub(super) fn reach(&self) -> ClientReachability {
        self.reach
    }

    /// Resolves when it is time for [`ClientWatch::look`].
    pub(super) async fn due(&mut self) {
        self.tick.tick().await;
    }

    /// Reads the kernel's notes; true if [`ClientWatch::reach`] is another now.
    pub(super) fn look(&mut self, table: &mut InterceptionTable) -> bool {
        let look = match table.look_at_clients() {
            Ok(look) => look,
            Err(error) => {
                tracing::debug!("clients whose packets do not arrive are not seen: {error}");
                return false;
            }
        };
        let now = Instant::now();
        let changes = self.arrivals.take(&look, now);
        if !changes.lengthened.is_empty()
            && let Err(error) = table.leave_alone(&changes.lengthened)
        {
            tracing::debug!("clients are tried again sooner than they should be: {error}");
        }
        self.uncounted += changes.blocked.len();
        self.unsaid.extend(changes.blocked);
        if !self.unsaid.is_empty() && self.said_at.is_none_or(|at| now >= at + LOG_PERIOD) {
            self.said_at = Some(now);
            tracing::warn!("{}", blocked(&std::mem::take(&mut self.unsaid)));
        }
        if !changes.freed.is_empty() {
            tracing::info!("packets from {} arrive at the cache again", describe_clients(&changes.freed));
        }
        let before = std::mem::replace(&mut self.reach, self.arrivals.reach(now));
        if self.is_try_owed {
            self.try_all(table);
        }
        before != self.reach
    }

    /// Something on the node has changed by which packets may arrive now.
    pub(super) fn try_all(&mut self, table: &mut InterceptionTable) {
        let now = Instant::now();
        self.is_try_owed = self.tried_all_at.is_some_and(|at| now < at + TRY_ALL_PERIOD);
        if self.is_try_owed {
            return;
        }
        self.tried_all_at = Some(now);
        match table.try_all_clients() {
            Ok(()) => self.arrivals.end_pauses(now),
            Err(error) => tracing::debug!("clients are tried again later only: {error}"),
        }
    }

    /// The clients blocked since this was last asked, as an error to be counted.
    pub(super) fn take_error(&mut self) -> Option<Error> {
        let count = std::mem::take(&mut self.uncounted);
        (count > 0).then_some(Error::PathBlocked { clients: count })
    }
}

fn blocked(clients: &[ArrivingClient]) -> String {
    format!(
        "packets from {} for the cache's addresses come in and do not arrive at the cache: a firewall, policy routing, rp_filter or an eBPF program on \
         this node takes them (`nodelocaldns doctor` looks for it). Cluster DNS answers these clients; they are tried again in 10 s, then ever more \
         seldom",
        describe_clients(clients)
    )
}

/// The first few by address and link, and how many more.
pub(crate) fn describe_clients(clients: &[ArrivingClient]) -> String {
    let link = |client: &ArrivingClient| match if_indextoname(client.interface) {
        Ok(name) if !name.is_empty() => name.to_string_lossy().into_owned(),
        // It is gone.
        _ => format!("link {}", client.interface),
    };
    let names: Vec<String> =
        clients.iter().take(NAMED).map(|client| format!("{} (by {})", client.address, link(client))).collect();
    match clients.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more clients", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_clients_are_named_and_the_rest_counted() {
        let client = |last| ArrivingClient { interface: u32::MAX, address: [10, 244, 1, last].into() };
        let clients: Vec<ArrivingClient> = (2..7).map(client).collect();
        assert_eq!(describe_clients(&clients[..1]), "10.244.1.2 (by link 4294967295)");
        let text = blocked(&clients);
        assert!(
            text.contains("10.244.1.4 (by link 4294967295) and 2 more clients") && !text.contains("10.244.1.5"),
            "{text}"
        );
        assert!(text.contains("firewall") && text.contains("nodelocaldns doctor"), "{text}");
    }
}
