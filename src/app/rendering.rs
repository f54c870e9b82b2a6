//! Renders, checks and writes the node agent's Corefile. One that is refused is written beside it, and what served
//! before serves on.

use super::corefile_template::{target, template};
use super::files::{FileClient, HostSnapshot, Recorded, SnapshotDigest};
use super::host::ConfigurationSource;
use super::load::{CorefileSource, LoadError, LoadedCorefile};
use super::setup_errors::SetupErrors;
use crate::cli::Agent;
use crate::deadline;
use crate::kube_dns::render::Rendered;
use crate::kube_dns::{CorefileOutput, CorefileTemplate, CorefileTemplateError, Refresh, WriteError};
use crate::threads;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How long the start waits for the template's file system before it serves what a predecessor has written, and for
/// what it writes itself.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// A Corefile's template and what becomes of it.
#[derive(Clone)]
pub(super) struct Rendering {
    template: CorefileTemplate,
    target: CorefileOutput,
    default_port: u16,
    files: Arc<FileClient>,
    /// Of the template's files, and of those that what is rendered names, at the last look; `None` while that is
    /// refused.
    seen: Option<SnapshotDigest>,
    /// Why what was rendered then is refused, if it is.
    refusal: Option<String>,
}

/// A rendered Corefile, and what it is good for.
type Judged = (Rendered, Result<LoadedCorefile, LoadError>);

impl Rendering {
    /// As the agent is told. `files` reads and writes them.
    pub(super) fn new(agent: &Agent, default_port: u16, files: Arc<FileClient>) -> Self {
        let (template, target) = (template(agent, default_port), target(agent));
        Self { template, target, default_port, files, seen: None, refusal: None }
    }
    /// The template.
    pub(super) fn template(&self) -> &CorefileTemplate {
        &self.template
    }

    /// What to serve at start: the template with the ConfigMap or, where that cannot be, what stands where the rendered
    /// Corefile is written (this process's predecessor served it) or, where nothing does, the template alone. May wait
    /// for a file system that hangs, but serves what a predecessor has written first.
    pub(super) fn start(&mut self, errors: &SetupErrors) -> anyhow::Result<RenderedStart> {
        let Some((refresh, snapshot)) = self.first_refresh(errors)? else {
            let source = CorefileSource::File(self.target.path().to_owned());
            let loaded = source.load(self.default_port, &self.files.corefile()?.snapshot)?;
            return Ok(RenderedStart { source, loaded, unwritten: None });
        };
        let mut refusals = Vec::new();
        let is_config_good =
            !refresh.problems.iter().any(|problem| matches!(problem, CorefileTemplateError::Config(_)));
        for problem in refresh.problems {
            errors.count_configmap();
            refusals.push(problem.to_string());
        }
        if !is_config_good {
            self.template.discard();
        }
        let mut refused_text = None;
        // Served when there is nothing better.
        let mut nothing = None;
        if let Some(rendered) = refresh.rendered.filter(|_| is_config_good) {
            match self.load(&rendered, &snapshot) {
                Ok(loaded) if loaded.config.serves_nothing() => {
                    refusals.push(loaded.warnings.clone());
                    refused_text = Some(rendered.text.clone());
                    nothing = Some((rendered, loaded));
                }
                Ok(loaded) => return Ok(self.accept_first(rendered, loaded, errors)),
                Err(error) => {
                    errors.count_configmap();
                    (self.refusal, self.seen) = (Some(error.to_string()), None);
                    refusals.push(self.explain(&rendered, error, &snapshot).to_string());
                    refused_text = Some(rendered.text);
                }
            }
        }
        let written = CorefileSource::File(self.target.path().to_owned());
        // The text that was refused a moment ago, or no text after a refusal, is not worth being told of.
        let standing = self.files.corefile()?.snapshot;
        let is_worthwhile = match (written.text(&standing), &refused_text) {
            (Ok(text), Some(refused)) => text != *refused,
            (Err(_), Some(_)) => false,
            (_, None) => true,
        };
        if is_worthwhile {
            match written.load(self.default_port, &standing) {
                Ok(loaded) if loaded.config.serves_nothing() => {}
                Ok(loaded) => {
                    tell(&refusals);
                    tracing::warn!("{} is served as it stands", self.target.path().display());
                    return Ok(RenderedStart { source: written, loaded, unwritten: None });
                }
                Err(error) => refusals.push(error.to_string()),
            }
        }
        if let Some((rendered, loaded)) = nothing {
            return Ok(self.accept_first(rendered, loaded, errors));
        }
        // Read once more: a file system that hung may have failed what was asked of it meanwhile.
        let snapshot = self.files.template()?.snapshot;
        if let Ok(rendered) = self.template.render_without_config(&snapshot)
            && refused_text.as_ref() != Some(&rendered.text)
        {
            match self.load(&rendered, &snapshot) {
                Ok(loaded) => {
                    tell(&refusals);
                    tracing::warn!("the template is served without the kube-dns ConfigMap");
                    return Ok(self.accept_first(rendered, loaded, errors));
                }
                Err(error) => refusals.push(self.explain(&rendered, error, &snapshot).to_string()),
            }
        }
        anyhow::bail!(refusals.join("\n"))
    }

    /// The files of the template and of what is rendered from it, if anything of them has changed since the last look,
    /// what was rendered then is refused, or `always`.
    ///
    /// # Errors
    /// The watchdog does not answer.
    pub(super) fn read(&mut self, always: bool) -> io::Result<Option<HostSnapshot>> {
        let recorded = self.files.template_unless(self.seen.as_ref().filter(|_| !always))?;
        Ok(recorded.map(|Recorded { snapshot, digest }| {
            self.seen = Some(digest);
            snapshot
        }))
    }

    /// A Corefile that is another one than before, judged, as `snapshot` has its files. One that was refused is judged
    /// each time, since a file that it lacks may have come, and told if it is another reason or `always`. Whatever
    /// keeps template and ConfigMap from being used is told and counted.
    pub(super) fn refresh(&mut self, snapshot: &HostSnapshot, errors: &SetupErrors, always: bool) -> Option<Judged> {
        let Refresh { rendered, is_new, problems } = self.template.refresh(snapshot);
        for problem in problems {
            errors.count_configmap();
            tracing::error!("{problem}");
        }
        let rendered = rendered.filter(|_| is_new || self.refusal.is_some())?;
        let outcome = self.load(&rendered, snapshot);
        let refusal = outcome.as_ref().err().map(ToString::to_string);
        let is_told = is_new || always || refusal != self.refusal;
        if refusal.is_some() {
            self.seen = None;
        }
        self.refusal = refusal;
        is_told.then(|| {
            let outcome = outcome.map_err(|error| self.explain(&rendered, error, snapshot));
            (rendered, outcome)
        })
    }

    /// Whether template or ConfigMap are not what serves, since they are bad.
    pub(super) fn is_refused(&self) -> bool {
        self.refusal.is_some() || self.template.has_problems()
    }

    /// Reads the text as if it stood where it is to be written.
    fn load(&self, rendered: &Rendered, machine: &dyn ConfigurationSource) -> Result<LoadedCorefile, LoadError> {
        self.load_at(self.target.path(), rendered, machine)
    }
    fn load_at(
        &self,
        path: &Path,
        rendered: &Rendered,
        machine: &dyn ConfigurationSource,
    ) -> Result<LoadedCorefile, LoadError> {
        CorefileSource::Text { path: path.to_owned(), text: rendered.text.clone() }.load(self.default_port, machine)
    }

    /// Writes a text that is refused beside where it was to be written, and says why with places in that, so that
    /// whoever reads the diagnostics finds their lines.
    fn explain(&self, rendered: &Rendered, error: LoadError, machine: &dyn ConfigurationSource) -> LoadError {
        let LoadError::Refused { diagnostics, fingerprint } = error else { return error };
        let again = self.files.write_refused(&rendered.text).ok();
        let again = again.map(|()| self.load_at(&self.target.refused_path(), rendered, machine));
        let diagnostics = match again {
            Some(Err(LoadError::Refused { diagnostics, .. })) => diagnostics,
            _ => diagnostics,
        };
        let base = self.template.base().display();
        LoadError::Refused { diagnostics: format!("rendered from {base}:\n{diagnostics}"), fingerprint }
    }

    /// The template as it is read first. None if its file system hangs and what a predecessor has written is good: that
    /// is to be served.
    fn first_refresh(&mut self, errors: &SetupErrors) -> anyhow::Result<Option<(Refresh, HostSnapshot)>> {
        let (done, outcome) = sync_channel(1);
        let (mut template, files) = (self.template.clone(), self.files.clone());
        threads::spawn("template", None, move || {
            let read = files.template().map(|recorded| (template.refresh(&recorded.snapshot), template, recorded));
            // Nobody waits any longer if something else is served.
            _ = done.send(read);
        })?;
        let (refresh, template, Recorded { snapshot, digest }) = match outcome.recv_timeout(START_PATIENCE) {
            Err(RecvTimeoutError::Timeout) => {
                errors.count_configmap();
                let base = self.template.base().display();
                tracing::warn!(
                    "{base} or the kube-dns ConfigMap cannot be read yet: {}",
                    deadline::late(START_PATIENCE)
                );
                let (written, port, files) =
                    (CorefileSource::File(self.target.path().to_owned()), self.default_port, self.files.clone());
                let is_good = move || {
                    let loaded = written.load(port, &files.corefile()?.snapshot);
                    io::Result::Ok(loaded.is_ok_and(|loaded| !loaded.config.serves_nothing()))
                };
                if let Ok(Ok(true)) = deadline::within(START_PATIENCE, is_good) {
                    tracing::warn!("{} is served as it stands", self.target.path().display());
                    return Ok(None);
                }
                outcome.recv()??
            }
            outcome => outcome??,
        };
        (self.template, self.seen) = (template, Some(digest));
        Ok(Some((refresh, snapshot)))
    }

    /// The rendered Corefile is good: writes it before it serves, if that does not take long.
    fn accept_first(&self, rendered: Rendered, loaded: LoadedCorefile, errors: &SetupErrors) -> RenderedStart {
        self.announce(&rendered);
        let (path, text) = (self.target.path().to_owned(), rendered.text.clone());
        let from_memory = CorefileSource::Text { path: path.clone(), text: text.clone() };
        let files = self.files.clone();
        match deadline::within(START_PATIENCE, move || files.write(&text)) {
            Ok(written) => {
                let source = self.written(&rendered, written, errors);
                RenderedStart { source, loaded, unwritten: None }
            }
            Err(error) => {
                errors.count_configmap();
                tracing::warn!("the Corefile is not in {} yet: {error}; it is served from memory", path.display());
                RenderedStart { source: from_memory, loaded, unwritten: Some(rendered) }
            }
        }
    }

    /// Says what has been rendered and serves.
    pub(super) fn announce(&self, rendered: &Rendered) {
        let Rendered { stub_domain_count, upstreams, warnings, .. } = rendered;
        for warning in warnings.lines() {
            tracing::warn!("{warning}");
        }
        let base = self.template.base().display();
        tracing::info!(
            "the Corefile is rendered from {base}; stub domains: {stub_domain_count}; upstreams: {upstreams}"
        );
    }

    /// Writes it. May wait for a file system that hangs.
    pub(super) fn write(&self, rendered: &Rendered) -> Result<(), WriteError> {
        self.files.write(&rendered.text)
    }

    /// Where to read the Corefile from now: where it could not be written it is kept in memory.
    pub(super) fn written(
        &self,
        rendered: &Rendered,
        outcome: Result<(), WriteError>,
        errors: &SetupErrors,
    ) -> CorefileSource {
        let path = self.target.path().to_owned();
        match outcome {
            Ok(()) => CorefileSource::File(path),
            Err(error) => {
                errors.count_configmap();
                tracing::warn!("{error}; it is served from memory");
                CorefileSource::Text { path, text: rendered.text.clone() }
            }
        }
    }
}

/// What is served first.
pub(super) struct RenderedStart {
    pub source: CorefileSource,
    pub loaded: LoadedCorefile,
    /// Is to be written still.
    pub unwritten: Option<Rendered>,
}

fn tell(refusals: &[String]) {
    for refusal in refusals {
        tracing::error!("{refusal}");
    }
}
