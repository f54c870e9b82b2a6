//! Looks at the configuration's files, takes what has changed in them, and writes what is rendered. A file system may
//! hang, so each look and each writing runs beside the service.

use super::{PendingCorefile, RefusedParts, Service};
use crate::app::configuration_files::{self, CheckedFiles, ConfigurationFiles, Look, WrittenFiles};
use crate::app::load::{CorefileSource, LoadError, LoadedCorefile};
use crate::chain::ReloadConfig;
use crate::directives::cache;
use crate::directives::reload::{self, Fingerprint};
use crate::kube_dns::render::Rendered;
use crate::server::Retries;
use std::io;
use tokio::time::Instant;

impl Service {
    pub(super) fn is_at_work(&self) -> bool {
        self.checking.is_running() || self.writing.is_running()
    }

    /// Reads the Corefile again and swaps it in, changed or not (SIGUSR1): an upstream's host file or an interface may
    /// have changed. What is cached is given up.
    pub(in crate::app) fn reload_now(&mut self) {
        self.is_reload_requested = true;
        self.check();
    }

    /// How often the Corefile is looked at as it stands: as its `reload` says, and while it is refused, though the one
    /// that serves has none, until it is mended.
    fn reload(&self) -> Option<ReloadConfig> {
        self.plan.reload.or_else(|| self.refused.bad.then_some(reload::WHILE_REFUSED))
    }

    /// Begins to look. A Corefile that is not rendered, or was changed by hand since, is read only where it has
    /// `reload` or the user asked.
    pub(super) fn check(&mut self) {
        self.is_check_due = self.is_at_work();
        if self.is_check_due {
            return;
        }
        self.is_check_requested = std::mem::take(&mut self.is_reload_requested);
        let files = self.files.clone();
        let look = match self.reload() {
            _ if self.is_check_requested => Look::Always,
            Some(_) => Look::All,
            None => Look::Rendered,
        };
        if let Err(error) = self.checking.begin(move || files.check(look)) {
            self.on_unreadable(&error);
        }
    }

    /// What serves serves on, and the same look is taken again.
    pub(super) fn on_unreadable(&mut self, error: &io::Error) {
        self.is_reload_requested |= std::mem::take(&mut self.is_check_requested);
        self.next_check = Some(Instant::now() + configuration_files::PAUSE);
        if !std::mem::replace(&mut self.is_unreadable, true) {
            self.show_refusal();
            self.reloads.count_failure();
            self.count_configmap();
            let path = self.configured_path().display();
            let why = format!("{path} and what belongs to it cannot be read: {error}");
            tracing::error!("plugin/reload: {why} What served before serves on; it is tried again");
            self.services.query_stats.set_refused(true, Some(why));
        }
    }

    /// Swaps in what has changed.
    pub(super) async fn on_files_checked(&mut self, files: ConfigurationFiles, found: CheckedFiles) {
        (self.files.rendering, self.files.seen) = (files.rendering, files.seen);
        let always = std::mem::take(&mut self.is_check_requested);
        if std::mem::take(&mut self.is_unreadable) {
            tracing::info!("plugin/reload: the configuration can be read again");
        }
        if let Some(read) = &found.read {
            self.refused.bad = read.is_err();
        }
        let waits = self.candidate.take_if(|candidate| always && candidate.rendered.is_some());
        match (found.rendered, waits) {
            (Some((rendered, outcome)), _) => {
                let is_swapped = self.on_rendered(rendered, outcome).await;
                if let Some(loaded) = found.read.filter(|_| !is_swapped) {
                    self.on_read(loaded, always).await;
                }
            }
            // Who asks wants what is rendered, not what stands there of the time before.
            (None, Some(candidate)) => _ = self.serve(candidate).await,
            (None, None) => {
                if let Some(loaded) = found.read {
                    self.on_read(loaded, always).await;
                }
            }
        }
        if always {
            cache::flush(&self.services.reload_state, &cache::Selection::All);
        }
        self.show_refusal();
        self.write_and_watch();
    }

    /// Shows whether what is configured is what serves.
    pub(super) fn show_refusal(&self) {
        let is_template_refused = self.files.rendering.as_ref().is_some_and(|(rendering, _)| rendering.is_refused());
        let RefusedParts { rendered, read, bad } = self.refused;
        let is_refused = is_template_refused || rendered || read || bad || self.is_unreadable;
        self.reloads.set_refused(is_refused);
        self.services.query_stats.set_refused(is_refused, None);
    }

    /// True if it serves now.
    async fn on_rendered(&mut self, rendered: Rendered, outcome: Result<LoadedCorefile, LoadError>) -> bool {
        if let Some(fingerprint) = fingerprint(&outcome) {
            self.reloads.set_version(fingerprint);
        }
        self.forget_candidate();
        match outcome {
            Ok(loaded) => self.serve(PendingCorefile { loaded, rendered: Some(rendered) }).await,
            Err(error) => {
                self.refuse(&error.into(), true);
                false
            }
        }
    }

    /// Swaps the Corefile in as it stands if it has changed, or `always`. Why it is refused is told once.
    async fn on_read(&mut self, loaded: Result<LoadedCorefile, LoadError>, always: bool) {
        let fingerprint = fingerprint(&loaded);
        let is_changed = fingerprint.is_some_and(|fingerprint| self.changes.is_changed(fingerprint, loaded.is_ok()));
        let refusal = loaded.as_ref().err().map(ToString::to_string);
        let is_refused_anew = refusal.is_some() && refusal != self.read_refusal;
        self.read_refusal = refusal;
        if !is_changed && !is_refused_anew && !always {
            return;
        }
        if let Some(fingerprint) = fingerprint {
            self.reloads.set_version(fingerprint);
        }
        // A template that waits for its sockets still does.
        if self.candidate.as_ref().is_some_and(|candidate| candidate.rendered.is_none()) {
            self.forget_candidate();
        }
        match loaded {
            Ok(loaded) => _ = self.serve(PendingCorefile { loaded, rendered: None }).await,
            Err(error) => self.refuse(&error.into(), false),
        }
    }

    /// Another text has come in its place.
    fn forget_candidate(&mut self) {
        self.candidate = None;
        self.swaps = Retries::default();
    }

    /// Writes and watches what there is to write and to watch, beside everything else.
    pub(super) fn write_and_watch(&mut self) {
        self.report_upstreams();
        self.schedule();
        if self.writing.has_threads() {
            // One of them may still write what has been rendered before. The next look settles it.
            return;
        }
        let (files, unwritten, served) = (self.files.clone(), self.unwritten.clone(), self.served.clone());
        let reads = self.reload().is_some();
        let inotify = self.watch.descriptor().map(|inotify| inotify.try_clone_to_owned()).transpose();
        let begun = inotify
            .and_then(|inotify| self.writing.begin(move || files.write_and_watch(unwritten, served, reads, inotify)));
        if let Err(error) = begun {
            self.on_files_written(Err(error));
        }
    }

    pub(super) fn on_files_written(&mut self, settled: io::Result<WrittenFiles>) {
        match settled {
            Ok(WrittenFiles { written, placed }) => {
                self.is_unwritable = false;
                if let (Some((text, outcome)), Some((rendering, errors))) = (written, &self.files.rendering)
                    && let Some(rendered) = self.unwritten.take_if(|rendered| rendered.text == text)
                {
                    self.files.source = rendering.written(&rendered, outcome, errors);
                }
                if let Some(placed) = placed {
                    self.watch.adopt(placed);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_unwritable, true) {
                    self.count_configmap();
                    let path = self.files.source.path().display();
                    tracing::error!("{path} is not written, or files are not watched: {error} It is tried again");
                }
            }
        }
        self.schedule();
        if self.is_check_due {
            self.check();
        }
    }

    pub(super) fn count_configmap(&self) {
        if let Some((_, errors)) = &self.files.rendering {
            errors.count_configmap();
        }
    }

    /// Sets when to look though nothing is told.
    fn schedule(&mut self) {
        let reload = self.reload().filter(|config| !config.interval.is_zero());
        let is_file = matches!(self.files.source, CorefileSource::File(_));
        let read = reload.filter(|_| is_file).map(|config| reload::period(config, fastrand::f64()));
        let render = self.files.rendering.as_ref().map(|_| self.watch.poll_period());
        self.next_check = read.into_iter().chain(render).min().map(|period| Instant::now() + period);
    }
}

/// Of what was read, good or bad; `None` if nothing could be.
fn fingerprint(outcome: &Result<LoadedCorefile, LoadError>) -> Option<Fingerprint> {
    outcome.as_ref().map_or_else(LoadError::fingerprint, |loaded| Some(loaded.fingerprint))
}
