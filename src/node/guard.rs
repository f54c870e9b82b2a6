//! The nftables table that guards rules of iptables. It keeps them from clients whose packets do not arrive, and from
//! everybody once the watchdog sends no probes.

use super::client_watch::ClientWatch;
use super::desired::Rule;
use super::error::Error;
use super::nftables::{InterceptionTable, SharedTableOutcome};
use super::said::Said;

/// The table, and the clients in it.
pub(super) struct IptablesGuard {
    pub table: InterceptionTable,
    pub clients: Box<ClientWatch>,
    /// The table is as another agent wants it.
    pub is_left: bool,
}

impl IptablesGuard {
    /// Changes nothing yet. None where the kernel has no nf_tables, which is logged. Must be called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`], [`Error::Nftables`]; worth another try.
    pub(super) fn open(said: &mut Said) -> Result<Option<Self>, Error> {
        match InterceptionTable::guard() {
            Ok(table) => Ok(Some(Self { table, clients: Box::new(ClientWatch::new()), is_left: false })),
            Err(error @ Error::NftablesMissing { .. }) => {
                say_there_is_none(&error, said);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sees to it that the table is there for `rules`; false where the kernel cannot hold it, which is logged: then
    /// there is no guard.
    ///
    /// While another agent is at work, the table is left as it is to whoever put the last rules there, and nothing is
    /// taken out of it.
    ///
    /// # Errors
    ///
    /// [`Error::Nftables`]; worth another try.
    pub(super) fn apply(&mut self, rules: &[Rule], is_alone: bool, said: &mut Said) -> Result<bool, Error> {
        match self.table.apply_shared(rules, is_alone) {
            Ok(shared) => {
                self.is_left = shared == SharedTableOutcome::Left;
                Ok(true)
            }
            Err(error @ Error::NftablesUnsupported { .. }) => {
                say_there_is_none(&error, said);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn say_there_is_none(error: &Error, said: &mut Said) {
    let error = error.to_string();
    if said.is_news("guard", &error) {
        tracing::warn!("clients whose packets a firewall takes are not noticed: {error}");
    }
}
