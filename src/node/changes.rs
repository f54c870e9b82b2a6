//! Waits until something on the node may have changed, and says what to check.

use super::Node;
use super::check_schedule::Urgency;
use super::held_rules::HeldRules;
use super::nftables::ChangeScope;
use super::presence::Presence;
use std::future::pending;
use std::time::Duration;

/// How often an agent that has left rules to another one looks whether it is alone by now.
const ALONE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Something that [`Node::ensure_link`] or [`Node::ensure`] should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// The link or its addresses were changed.
    Link,
    /// Rules were changed.
    Rules,
    /// [`Node::reach`] is another.
    ClientReachability,
    /// The interval (`-syncinterval`) is over: look at everything.
    SyncDue,
}

/// What goes on beside the rules, and has come to something.
enum BackgroundDue {
    FilterDue,
    ClientsDue,
}

impl Node {
    /// Waits until something should be looked at again. May be dropped while it waits without losing anything.
    pub async fn changed(&mut self) -> Change {
        let change = loop {
            if let Some(change) = self.next_change().await {
                break change;
            }
        };
        tracing::debug!("the node may have changed: {change:?}");
        change
    }

    /// None where what has happened changes nothing.
    pub(super) async fn next_change(&mut self) -> Option<Change> {
        let link = async {
            match &mut self.link {
                Some(link) => link.changed().await,
                None => pending().await,
            }
        };
        let rules = async {
            match &mut self.events {
                Some(events) => events.next().await,
                None => pending().await,
            }
        };
        let is_on = !self.interception.is_none();
        let background = async {
            match &mut self.rules {
                Some(HeldRules::Nftables { filter, clients, .. }) => tokio::select! {
                    () = filter.due() => BackgroundDue::FilterDue,
                    () = clients.due(), if is_on => BackgroundDue::ClientsDue,
                },
                Some(HeldRules::Iptables { guard: Some(guard), .. }) if is_on => {
                    guard.clients.due().await;
                    BackgroundDue::ClientsDue
                }
                _ => pending().await,
            }
        };
        let (presence, is_left) = (&self.presence, self.is_left_to_another);
        let alone = async {
            if !is_left {
                pending::<()>().await;
            }
            while !presence.as_ref().is_none_or(Presence::is_alone) {
                tokio::time::sleep(ALONE_CHECK_INTERVAL).await;
            }
        };
        tokio::select! {
            () = link => {
                self.try_all_clients();
                Some(Change::Link)
            }
            background = background => match (background, self.rules.as_mut().and_then(HeldRules::clients)) {
                (BackgroundDue::ClientsDue, Some((table, clients))) => {
                    clients.look(table).then_some(Change::ClientReachability)
                }
                _ => Some(Change::Rules),
            },
            () = alone => Some(Change::Rules),
            change_scope = rules => {
                if let Err(error) = &change_scope {
                    tracing::warn!("changes of rules will be noticed at intervals only: {error}");
                    self.events = None;
                }
                self.try_all_clients();
                self.note_change(change_scope.unwrap_or(ChangeScope::ALL))
            }
            _ = self.sync.tick() => {
                self.look_at_filter(Urgency::Now);
                Some(Change::SyncDue)
            }
        }
    }

    /// What kept clients' packets away may be gone.
    pub(super) fn try_all_clients(&mut self) {
        if let Some((table, clients)) = self.rules.as_mut().and_then(HeldRules::clients) {
            clients.try_all(table);
        }
    }

    /// Somebody has changed what `change_scope` says; none if that is for the filter alone, which takes its time.
    pub(super) fn note_change(&mut self, change_scope: ChangeScope) -> Option<Change> {
        if change_scope.iptables {
            self.look_at_filter(Urgency::Prompt);
        } else if change_scope.firewall {
            self.look_at_filter(Urgency::Calm);
        }
        (change_scope.own_table || change_scope.iptables).then_some(Change::Rules)
    }

    pub(super) fn look_at_filter(&mut self, urgency: Urgency) {
        if let Some(HeldRules::Nftables { filter, .. }) = &mut self.rules {
            filter.look(urgency);
        }
    }
}
