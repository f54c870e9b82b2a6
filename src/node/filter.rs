//! What goes through the iptables programs beside an nftables table: rules that accept DNS traffic, which nodes need whose filter table drops by
//! default, and a predecessor's rules for NOTRACK. The programs may wait for the xtables lock for seconds, for which a withdrawal, which is
//! nftables' alone, must not wait: so they run beside everything else, one run at a time.

use super::Rule;
use super::error::Error;
use super::iptables::{self, Iptables, Table};
use std::future::pending;
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};

/// The rules of the filter table, and the present run of the programs.
pub struct Filter {
    programs: Programs,
    is_due: bool,
    /// A predecessor's rules for NOTRACK, which would outlive us, and with them an interception that nobody answers, may be there.
    is_raw_due: bool,
    /// The last run was in vain. Another one is not begun for that alone, or there would be no end of them.
    has_failed: bool,
    /// Of runs that have ended, until somebody asks.
    errors: Vec<Error>,
    run: Option<JoinHandle<Ended>>,
}

#[derive(Clone)]
enum Programs {
    /// Not looked for yet.
    Unknown,
    Found(Arc<Iptables>),
    Missing,
}

/// What became of a run.
struct Ended {
    programs: Programs,
    /// That was tried, with success.
    is_raw_clean: bool,
    errors: Vec<Error>,
}

impl Filter {
    /// Everything is due, nothing is run.
    pub fn new() -> Self {
        Self { programs: Programs::Unknown, is_due: true, is_raw_due: true, has_failed: false, errors: Vec::new(), run: None }
    }

    /// The rules may have been changed: the next [`Filter::begin`] looks.
    pub fn look(&mut self) {
        self.is_due = true;
    }

    /// What failed may succeed by now: the next [`Filter::begin`] tries again.
    pub fn retry(&mut self) {
        self.is_due |= self.has_failed;
    }

    /// Sees to it that those of `rules` for the filter table are there, and does not wait for it. Nothing if nothing is due, or a run goes on:
    /// then what is due is so at its end. What goes wrong is logged.
    pub fn begin(&mut self, rules: &[Rule], is_alone: bool) {
        let cleans_raw = self.is_raw_due && is_alone && (self.is_due || !self.has_failed);
        if self.run.is_some() || !self.is_due && !cleans_raw {
            return;
        }
        let (programs, applies) = (self.programs.clone(), std::mem::take(&mut self.is_due));
        let rules = rules.to_vec();
        self.run = Some(spawn_blocking(move || {
            let mut errors = if cleans_raw { clean_raw() } else { Vec::new() };
            let is_raw_clean = cleans_raw && errors.is_empty();
            let programs = programs.find();
            let applied = match &programs {
                Programs::Found(found) if applies => found.apply(&rules, &[Table::Filter], is_alone).map(|_has_changed| ()),
                _ => Ok(()),
            };
            if let Err(error) = applied {
                tracing::warn!("{error}; queries are intercepted as they should be all the same (it is tried again)");
                errors.push(error);
            }
            Ended { programs, is_raw_clean, errors }
        }));
    }

    /// Whether a run goes on.
    pub fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// What went wrong since this was last asked; it has been logged.
    pub fn take_errors(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.errors)
    }

    /// Waits for the end of the present run, if there is one, else for ever. May be dropped and called again at any time.
    pub async fn ended(&mut self) {
        let Some(run) = &mut self.run else { return pending().await };
        let ended = run.await;
        self.run = None;
        match ended {
            Ok(Ended { programs, is_raw_clean, errors }) => {
                self.programs = programs;
                self.is_raw_due &= !is_raw_clean;
                self.has_failed = !errors.is_empty();
                self.errors.extend(errors);
            }
            Err(_panicked) => tracing::error!("{}", Error::TaskEnded { task: "runs iptables" }),
        }
    }

    /// Waits until nothing runs.
    pub async fn finish(&mut self) {
        if self.run.is_some() {
            self.ended().await;
        }
    }
}

impl Programs {
    fn find(self) -> Self {
        match self {
            Self::Unknown => match Iptables::find() {
                Ok(programs) => Self::Found(Arc::new(programs)),
                Err(error) => {
                    tracing::warn!("{error}. Only nodes whose filter table drops by default need them, to accept DNS traffic");
                    Self::Missing
                }
            },
            known => known,
        }
    }
}

/// Returns what went wrong.
fn clean_raw() -> Vec<Error> {
    let (removed, errors) = iptables::clean(&[Table::Raw]);
    if removed > 0 {
        tracing::info!("{removed} iptables rules of a predecessor are removed from table raw");
    }
    for error in &errors {
        tracing::warn!("a predecessor's rule stays: {error}");
    }
    errors
}
