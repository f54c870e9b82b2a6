//! What holds the interception rules: a table of nftables, or the iptables programs with a table that guards them.

use super::client_watch::ClientWatch;
use super::desired::{Hook, Rule};
use super::error::Error;
use super::filter_tables::FilterReconciler;
use super::guard::IptablesGuard;
use super::iptables::{self, Iptables};
use super::nftables::{self, Events, FALLBACK_TABLE_NAME, FallbackTable, OwnTables};
use super::said::Said;
use super::{Backend, on_own_thread};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// What holds the rules.
pub(super) enum HeldRules {
    Nftables { table: nftables::InterceptionTable, filter: Box<FilterReconciler>, clients: Box<ClientWatch> },
    Iptables { programs: Arc<Iptables>, guard: Option<IptablesGuard> },
    None,
}

impl HeldRules {
    /// Chooses what holds the rules and puts them there. What is chosen is logged, at another try only if it is
    /// something else than what was `said`.
    ///
    /// # Errors
    ///
    /// Nothing could be chosen, or it could not be done; worth another try.
    pub(super) async fn install(
        backend: Backend,
        rules: &[Rule],
        is_alone: bool,
        said: &mut Said,
    ) -> Result<Self, Error> {
        let mut lack = None;
        let (table, why) = match backend {
            Backend::None => {
                tracing::info!("interception: none, as asked for");
                return Ok(Self::None);
            }
            Backend::Iptables => (None, "as asked for".to_owned()),
            Backend::Nftables => (Some(nftables::InterceptionTable::create(rules)?), "as asked for".to_owned()),
            Backend::Auto => match nftables::InterceptionTable::create(rules) {
                Ok(table) => (Some(table), "this kernel removes its rules the moment this program is gone".to_owned()),
                Err(error @ (Error::NftablesUnsupported { .. } | Error::NftablesMissing { .. })) => {
                    lack = Some(error.to_string());
                    (None, format!("since {error}"))
                }
                Err(error) => return Err(error),
            },
        };
        let Some(table) = table else {
            let found = on_own_thread("looks for iptables", Iptables::find).await?;
            let programs = Arc::new(found.map_err(|error| match (error, lack) {
                (Error::IptablesMissing { program }, Some(nftables)) => Error::NoBackend { program, nftables },
                (error, _) => error,
            })?);
            let choice = format!("iptables, {why}; program: {}", programs.description());
            if said.is_news("interception", &choice) {
                tracing::info!("interception: {choice}");
            }
            // What a predecessor left goes first, while its guard is there.
            let lets_in = rules.iter().any(|rule| rule.hook == Hook::RawPrerouting);
            if !lets_in {
                apply_programs(&programs, rules.to_vec(), is_alone).await?;
            }
            let guard = match IptablesGuard::open(said)? {
                Some(mut guard) => guard.apply(rules, is_alone, said)?.then_some(guard),
                None => None,
            };
            if lets_in {
                apply_programs(&programs, rules.to_vec(), is_alone).await?;
            }
            return Ok(Self::Iptables { programs, guard });
        };
        tracing::info!("interception: nftables table inet {}, {why}", table.name());
        // A predecessor's, whose rules of iptables go too.
        if is_alone && let Err(error) = nftables::remove_guard() {
            tracing::warn!("a predecessor's table stays: {error}");
        }
        let mut filter = Box::new(FilterReconciler::new());
        filter.begin(rules, is_alone);
        Ok(Self::Nftables { table, filter, clients: Box::new(ClientWatch::new()) })
    }

    /// The table in which the kernel notes whose packets arrive, and what is known of them.
    pub(super) fn clients(&mut self) -> Option<(&mut nftables::InterceptionTable, &mut ClientWatch)> {
        match self {
            Self::Nftables { table, clients, .. } => Some((table, clients)),
            Self::Iptables { guard, .. } => guard.as_mut().map(|guard| (&mut guard.table, &mut *guard.clients)),
            Self::None => None,
        }
    }

    pub(super) fn duplicate_owner(&self) -> Option<OwnedFd> {
        let Self::Nftables { table, .. } = self else { return None };
        let warn =
            |error: &_| tracing::warn!("the rules go with the watchdog, a little before its server does: {error}");
        table.duplicate_owner().inspect_err(warn).ok()
    }

    /// The kernel's word on changes that others make; none where there is nothing to tell or nobody who tells.
    pub(super) fn events(&self, fallback: Option<&FallbackTable>, sync_interval: Duration) -> Option<Events> {
        let mut own = OwnTables::default();
        match self {
            Self::None => return None,
            Self::Nftables { table, filter, .. } => {
                own.tables.push(table.name().to_owned());
                own.port_ids.extend(std::iter::once(table.port_id()).chain(filter.port_id()));
            }
            Self::Iptables { guard, .. } => {
                if let Some(IptablesGuard { table, .. }) = guard {
                    own.tables.push(table.name().to_owned());
                    own.port_ids.push(table.port_id());
                }
            }
        }
        if let Some(table) = fallback {
            own.tables.push(FALLBACK_TABLE_NAME.to_owned());
            own.port_ids.push(table.port_id());
        }
        let warn = |error: &_| {
            tracing::warn!("changes of rules will be noticed every {} s only: {error}", sync_interval.as_secs())
        };
        Events::subscribe(own).inspect_err(warn).ok()
    }
}

pub(super) async fn apply_programs(programs: &Arc<Iptables>, rules: Vec<Rule>, is_alone: bool) -> Result<bool, Error> {
    let programs = Arc::clone(programs);
    on_own_thread("runs iptables", move || programs.apply(&rules, &iptables::IptablesTable::ALL, is_alone)).await?
}
