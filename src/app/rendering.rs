//! Renders, checks and writes the node agent's Corefile. One that is refused is written beside it, and what served
//! before serves on.

use super::corefile_template::{target, template};
use super::files::{FileClient, Recorded, SnapshotDigest};
use super::load::{CorefileSource, LoadError, LoadedCorefile};
use super::predecessor::{StartRefusal, last_served, load_recorded};
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

/// How long the start waits for the template's file system before it serves what a predecessor has written, for what
/// that has written, and for what it writes itself.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(2);

/// A Corefile's template and what becomes of it.
#[derive(Clone)]
pub(super) struct Rendering {
    template: CorefileTemplate,
    target: CorefileOutput,
    default_port: u16,
    files: Arc<FileClient>,
    /// Of the template's files, and of those that what is rendered names, at the last look.
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

    /// What is written, as it stands.
    pub(super) fn standing(&self) -> CorefileSource {
        CorefileSource::File(self.target.path().to_owned())
    }

    /// What to serve at start: the template with the ConfigMap or, where that cannot be, what served last as the
    /// watchdog remembers it, or what stands where the rendered Corefile is written (another watchdog's server served
    /// it), or, where nothing does, the template alone. May wait for a file system that hangs, but serves what a
    /// predecessor has written first.
    pub(super) fn start(&mut self, errors: &SetupErrors) -> anyhow::Result<RenderedStart> {
        let unread = self.template.clone();
        let Some((mut refresh, recorded)) = self.first_refresh(errors)? else {
            let source = self.standing();
            let recorded = self.files.corefile()?;
            let loaded = load_recorded(&source, self.default_port, &recorded)?;
            return Ok(RenderedStart::standing(source, loaded, &recorded));
        };
        let mut refusals = Vec::new();
        let is_config_good =
            !refresh.problems.iter().any(|problem| matches!(problem, CorefileTemplateError::Config(_)));
        // Only now, since what is remembered may be large: the last ConfigMap that was good is used on.
        if !is_config_good && let Ok((served, Some(_))) = self.files.last_served() {
            self.template = unread;
            self.template.adopt_config(&served.snapshot);
            refresh = self.template.refresh(&recorded.snapshot);
        }
        for problem in refresh.problems {
            errors.count_configmap();
            refusals.push(problem.to_string());
        }
        if !is_config_good {
            self.template.discard();
        }
        let (mut refused_text, mut fingerprint) = (None, None);
        // Served when there is nothing better.
        let mut nothing = None;
        if let Some(rendered) = refresh.rendered.filter(|_| is_config_good) {
            match self.load(&rendered, &recorded) {
                Ok(loaded) if loaded.config.serves_nothing() => {
                    refusals.push(loaded.warnings.clone());
                    refused_text = Some(rendered.text.clone());
                    nothing = Some((rendered, loaded));
                }
                Ok(loaded) => return Ok(self.unwritten(rendered, loaded)),
                Err(error) => {
                    errors.count_configmap();
                    self.refusal = Some(error.to_string());
                    fingerprint = error.fingerprint();
                    refusals.push(self.explain(&rendered, error, &recorded).to_string());
                    refused_text = Some(rendered.text);
                }
            }
        }
        let remembered = |refusals: &[String]| {
            let (source, loaded) = last_served(&self.files, self.target.path(), self.default_port)?;
            let refusal = Some(StartRefusal { error: anyhow::anyhow!(refusals.join("\n")), fingerprint });
            Some(RenderedStart { source, loaded, unwritten: None, seen: None, refusal })
        };
        // A Corefile that stood there when it served stands there still, or a newer one does.
        if !refusals.is_empty()
            && let Some(start) = remembered(&refusals)
            && matches!(start.source, CorefileSource::Text { .. })
        {
            return Ok(start);
        }
        let written = self.standing();
        // The text that was refused a moment ago, or no text after a refusal, is not worth being told of.
        let standing = self.files.corefile()?;
        let is_worthwhile = match (written.text(&standing.snapshot), &refused_text) {
            (Ok(text), Some(refused)) => text != *refused,
            (Err(_), Some(_)) => false,
            (_, None) => true,
        };
        if is_worthwhile {
            match load_recorded(&written, self.default_port, &standing) {
                Ok(loaded) if loaded.config.serves_nothing() => refusals.push(loaded.warnings),
                Ok(loaded) => {
                    tell(&refusals);
                    tracing::warn!("{} is served as it stands", self.target.path().display());
                    return Ok(RenderedStart::standing(written, loaded, &standing));
                }
                Err(error) => refusals.push(error.to_string()),
            }
            if let Some(start) = remembered(&refusals) {
                return Ok(start);
            }
        }
        if let Some((rendered, loaded)) = nothing {
            return Ok(self.unwritten(rendered, loaded));
        }
        // Read once more: a file system that hung may have failed what was asked of it meanwhile.
        let recorded = self.files.template()?;
        if let Ok(rendered) = self.template.render_without_config(&recorded.snapshot)
            && refused_text.as_ref() != Some(&rendered.text)
        {
            match self.load(&rendered, &recorded) {
                Ok(loaded) => {
                    tell(&refusals);
                    tracing::warn!("the template is served without the kube-dns ConfigMap");
                    return Ok(self.unwritten(rendered, loaded));
                }
                Err(error) => refusals.push(self.explain(&rendered, error, &recorded).to_string()),
            }
        }
        anyhow::bail!(refusals.join("\n"))
    }

    /// The files of the template and of what is rendered from it, if anything of them has changed since the last look,
    /// or `always`.
    ///
    /// # Errors
    /// The watchdog does not answer.
    pub(super) fn read(&mut self, always: bool) -> io::Result<Option<Recorded>> {
        let seen = self.seen.as_ref().filter(|_| !always);
        let seen = seen.map(|seen| if self.refusal.is_some() { seen.clone() } else { seen.without_data() });
        let recorded = self.files.template_unless(seen.as_ref())?;
        if let Some(recorded) = &recorded {
            self.seen = Some(recorded.digest.clone());
        }
        Ok(recorded)
    }

    /// A Corefile that is another one than before, judged, as `recorded` has its files. One that was refused is judged
    /// again, since a file that it lacks may have come, and told if it is another reason or `always`. Whatever keeps
    /// template and ConfigMap from being used is told and counted.
    pub(super) fn refresh(&mut self, recorded: &Recorded, errors: &SetupErrors, always: bool) -> Option<Judged> {
        let Refresh { rendered, is_new, problems } = self.template.refresh(&recorded.snapshot);
        for problem in problems {
            errors.count_configmap();
            tracing::error!("{problem}");
        }
        let rendered = rendered.filter(|_| is_new || self.refusal.is_some())?;
        let outcome = self.load(&rendered, recorded);
        let refusal = outcome.as_ref().err().map(ToString::to_string);
        let is_told = is_new || always || refusal != self.refusal;
        self.refusal = refusal;
        is_told.then(|| {
            let outcome = outcome.map_err(|error| self.explain(&rendered, error, recorded));
            (rendered, outcome)
        })
    }

    /// Whether template or ConfigMap are not what serves, since they are bad.
    pub(super) fn is_refused(&self) -> bool {
        self.refusal.is_some() || self.template.has_problems()
    }

    /// Reads the text as if it stood where it is to be written.
    fn load(&self, rendered: &Rendered, recorded: &Recorded) -> Result<LoadedCorefile, LoadError> {
        self.load_at(self.target.path(), rendered, recorded)
    }
    fn load_at(&self, path: &Path, rendered: &Rendered, recorded: &Recorded) -> Result<LoadedCorefile, LoadError> {
        let source = CorefileSource::Text { path: path.to_owned(), text: rendered.text.clone() };
        load_recorded(&source, self.default_port, recorded)
    }

    /// Writes a text that is refused beside where it was to be written, and says why with places in that, so that
    /// whoever reads the diagnostics finds their lines.
    fn explain(&self, rendered: &Rendered, error: LoadError, recorded: &Recorded) -> LoadError {
        let LoadError::Refused { diagnostics, fingerprint } = error else { return error };
        let again = self.files.write_refused(&rendered.text).ok();
        let again = again.map(|()| self.load_at(&self.target.refused_path(), rendered, recorded));
        let diagnostics = match again {
            Some(Err(LoadError::Refused { diagnostics, .. })) => diagnostics,
            _ => diagnostics,
        };
        let base = self.template.base().display();
        LoadError::Refused { diagnostics: format!("rendered from {base}:\n{diagnostics}"), fingerprint }
    }

    /// The template as it is read first. None if its file system hangs and what a predecessor has written is good: that
    /// is to be served.
    fn first_refresh(&mut self, errors: &SetupErrors) -> anyhow::Result<Option<(Refresh, Recorded)>> {
        let (done, outcome) = sync_channel(1);
        let (mut template, files) = (self.template.clone(), self.files.clone());
        threads::spawn("template", None, move || {
            let read = files.template().map(|recorded| (template.refresh(&recorded.snapshot), template, recorded));
            // Nobody waits any longer if something else is served.
            _ = done.send(read);
        })?;
        let (refresh, template, recorded) = match outcome.recv_timeout(START_PATIENCE) {
            Err(RecvTimeoutError::Timeout) => {
                errors.count_configmap();
                let base = self.template.base().display();
                tracing::warn!(
                    "{base} or the kube-dns ConfigMap cannot be read yet: {}",
                    deadline::late(START_PATIENCE)
                );
                let (written, port, files) = (self.standing(), self.default_port, self.files.clone());
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
        (self.template, self.seen) = (template, Some(recorded.digest.clone()));
        Ok(Some((refresh, recorded)))
    }

    /// The rendered Corefile is good, and written once its sockets can be had: until then what a predecessor has served
    /// stands there, should this not come to serve.
    fn unwritten(&self, rendered: Rendered, loaded: LoadedCorefile) -> RenderedStart {
        let source = CorefileSource::Text { path: self.target.path().to_owned(), text: rendered.text.clone() };
        RenderedStart { source, loaded, unwritten: Some(rendered), seen: None, refusal: None }
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
    /// Of what was read where the rendered Corefile is written; `None` if nothing of that is served.
    pub seen: Option<SnapshotDigest>,
    /// Why what served last is served, if it is.
    pub refusal: Option<StartRefusal>,
}

impl RenderedStart {
    /// What stands where the rendered Corefile is written.
    fn standing(source: CorefileSource, loaded: LoadedCorefile, recorded: &Recorded) -> Self {
        Self { source, loaded, unwritten: None, seen: Some(recorded.digest.without_data()), refusal: None }
    }
}

fn tell(refusals: &[String]) {
    for refusal in refusals {
        tracing::error!("{refusal}");
    }
}
