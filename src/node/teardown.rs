//! Takes down what an agent has set up.

use super::desired::{Interception, NodeSpec, desired};
use super::error::Error;
use super::held_rules::HeldRules;
use super::iptables;
use super::link::Link;
use super::nftables::{self, AcceptRules, FALLBACK_TABLE_NAME, FallbackTable};
use super::{Node, on_own_thread, presence};

impl Node {
    /// Removes everything of ours: rules, addresses, and the link if we made it. What another agent on this node still
    /// needs stays; and where there is a fallback it stays, and with it link and addresses, from which programs on the
    /// node have connected sockets. Returns everything that went wrong; each thing is tried all the same.
    pub async fn teardown(mut self) -> Vec<Error> {
        let mut errors = Vec::new();
        if let Some(HeldRules::Nftables { table, filter, .. }) = &mut self.rules {
            errors.extend(table.remove().err());
            filter.finish().await;
        }
        let is_alone = self.is_alone();
        if let Some(HeldRules::Iptables { guard: Some(guard), .. }) = &mut self.rules
            && is_alone
        {
            errors.extend(guard.table.remove().err());
        }
        if !is_alone {
            tracing::info!("another agent is at work on this node: link and addresses are left to it");
            return errors;
        }
        if !self.backend.is_none() {
            errors.extend(AcceptRules::remove_all().err());
            errors.extend(clean(&iptables::IptablesTable::ALL).await.1);
        }
        if self.fallback.as_ref().is_some_and(FallbackTable::is_in_place) {
            tracing::info!(
                "link, addresses and nftables table inet {FALLBACK_TABLE_NAME} stay, so that cluster DNS answers ({}); nodelocaldns \
                 teardown removes them",
                self.spec.fallback
            );
        } else if let Some(link) = &mut self.link {
            errors.extend(link.remove().await.err());
        }
        errors
    }
}

/// Removes from this node everything that an agent may have left for `spec`, ours or the reference's, whichever way it
/// was set up. Returns what went wrong. A running agent keeps its nftables table, which nobody else may remove, and
/// mends the rest.
pub async fn teardown(spec: &NodeSpec) -> Vec<Error> {
    if presence::is_any() {
        tracing::warn!("an agent is running on this node and will set it up again: stop it first");
    }
    let accepting = AcceptRules::remove_all();
    let (removed, mut errors) = clean(&iptables::IptablesTable::ALL).await;
    tracing::info!("{} iptables rules removed", removed + accepting.as_ref().unwrap_or(&0));
    errors.extend(accepting.err());
    errors.extend(nftables::remove_guard().err());
    match nftables::remove_fallback() {
        Ok(true) => tracing::info!("nftables table inet {FALLBACK_TABLE_NAME} removed"),
        Ok(false) => {}
        Err(error) => errors.push(error),
    }
    if let Some(link) = desired(spec, &Interception::default()).link {
        match Link::open(link) {
            Ok(mut link) => errors.extend(link.remove().await.err()),
            Err(error) => errors.push(error),
        }
    }
    errors
}

async fn clean(tables: &'static [iptables::IptablesTable]) -> (usize, Vec<Error>) {
    let cleaned = on_own_thread("cleans iptables", move || iptables::clean(tables)).await;
    cleaned.unwrap_or_else(|error| (0, vec![error]))
}
