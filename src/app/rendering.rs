//! The node agent's Corefile: rendered, judged, written. What is refused stands beside it, and what served before serves on.

use super::load::{LoadError, Loaded, Source};
use super::setup_errors::SetupErrors;
use crate::corefile::SystemLoader;
use crate::deadline;
use crate::kube_dns::render::Rendered;
use crate::kube_dns::{Refresh, Target, Template, TemplateError, WriteError};
use crate::threads;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How long the start waits for the template's file system before it serves what a predecessor has written, and for what it writes itself.
const START_PATIENCE: Duration = Duration::from_secs(2);

/// A Corefile's template and what becomes of it.
#[derive(Clone)]
pub struct Rendering {
    template: Template,
    target: Target,
    default_port: u16,
}

/// A rendered Corefile, and what it is good for.
type Judged = (Rendered, Result<Loaded, LoadError>);

impl Rendering {
    /// `target` is where the Corefile rendered from `template` is written.
    pub fn new(template: Template, target: Target, default_port: u16) -> Self {
        Self { template, target, default_port }
    }
    /// The template.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// What to serve at start: the template with the ConfigMap or, where that cannot be, what stands where the rendered Corefile is
    /// written (this process's predecessor served it) or, where nothing does, the template alone. May wait for a file system that hangs, but serves
    /// what a predecessor has written first.
    pub fn start(&mut self, errors: &SetupErrors) -> anyhow::Result<Start> {
        let Some(refresh) = self.first_refresh(errors)? else {
            let source = Source::File(self.target.path().to_owned());
            let loaded = source.load(self.default_port)?;
            return Ok(Start { source, loaded, unwritten: None });
        };
        let mut refusals = Vec::new();
        let is_config_good = !refresh.problems.iter().any(|problem| matches!(problem, TemplateError::Config(_)));
        for problem in refresh.problems {
            errors.count_configmap();
            refusals.push(problem.to_string());
        }
        let mut refused_text = None;
        if let Some(rendered) = refresh.rendered.filter(|_| is_config_good) {
            let (rendered, outcome) = self.judge(rendered);
            match outcome {
                Ok(loaded) => return Ok(self.accept_first(rendered, loaded, errors)),
                Err(error) => {
                    errors.count_configmap();
                    refusals.push(error.to_string());
                    refused_text = Some(rendered.text);
                }
            }
        }
        let written = Source::File(self.target.path().to_owned());
        // The text that was refused a moment ago, or no text after a refusal, is not worth being told of.
        let is_worthwhile = match (written.text(), &refused_text) {
            (Ok(text), Some(refused)) => text != *refused,
            (Err(_), Some(_)) => false,
            (_, None) => true,
        };
        if is_worthwhile {
            match written.load(self.default_port) {
                Ok(loaded) => {
                    tell(&refusals);
                    tracing::warn!("{} is served as it stands", self.target.path().display());
                    return Ok(Start { source: written, loaded, unwritten: None });
                }
                Err(error) => refusals.push(error.to_string()),
            }
        }
        if let Ok(rendered) = self.template.render_without_config(&SystemLoader)
            && refused_text.as_ref() != Some(&rendered.text)
        {
            let (rendered, outcome) = self.judge(rendered);
            match outcome {
                Ok(loaded) => {
                    tell(&refusals);
                    tracing::warn!("the template is served without the kube-dns ConfigMap");
                    return Ok(self.accept_first(rendered, loaded, errors));
                }
                Err(error) => refusals.push(error.to_string()),
            }
        }
        anyhow::bail!(refusals.join("\n"))
    }

    /// A Corefile that is another one than before, judged. Whatever keeps template and ConfigMap from being used is told and counted.
    pub fn refresh(&mut self, errors: &SetupErrors) -> Option<Judged> {
        let refresh = self.template.refresh(&SystemLoader);
        for problem in refresh.problems {
            errors.count_configmap();
            tracing::error!("{problem}");
        }
        refresh.rendered.map(|rendered| self.judge(rendered))
    }

    /// Reads the text as if it stood where it is to be written. If it is refused it is written beside that, so that whoever reads
    /// the diagnostics finds their lines.
    fn judge(&self, rendered: Rendered) -> Judged {
        let load = |path: &Path| Source::Text { path: path.to_owned(), text: rendered.text.clone() }.load(self.default_port);
        let outcome = load(self.target.path()).map_err(|error| match error {
            LoadError::Refused { diagnostics, fingerprint } => {
                let again = self.target.write_refused(&rendered.text).ok().map(|path| load(&path));
                let diagnostics = match again {
                    Some(Err(LoadError::Refused { diagnostics, .. })) => diagnostics,
                    _ => diagnostics,
                };
                let base = self.template.base().display();
                LoadError::Refused { diagnostics: format!("rendered from {base}:\n{diagnostics}"), fingerprint }
            }
            other => other,
        });
        (rendered, outcome)
    }

    /// The template as it is read first. None if its file system hangs and what a predecessor has written is good: that is to be served.
    fn first_refresh(&mut self, errors: &SetupErrors) -> anyhow::Result<Option<Refresh>> {
        let (done, outcome) = sync_channel(1);
        let mut template = self.template.clone();
        threads::spawn("template", None, move || {
            let refresh = template.refresh(&SystemLoader);
            // Nobody waits any longer if something else is served.
            _ = done.send((template, refresh));
        })?;
        let (template, refresh) = match outcome.recv_timeout(START_PATIENCE) {
            Err(RecvTimeoutError::Timeout) => {
                errors.count_configmap();
                let base = self.template.base().display();
                tracing::warn!("{base} or the kube-dns ConfigMap cannot be read yet: {}", deadline::late(START_PATIENCE));
                let (written, port) = (Source::File(self.target.path().to_owned()), self.default_port);
                if let Ok(Ok(_)) = deadline::within(START_PATIENCE, move || written.load(port)) {
                    tracing::warn!("{} is served as it stands", self.target.path().display());
                    return Ok(None);
                }
                outcome.recv()?
            }
            outcome => outcome?,
        };
        self.template = template;
        Ok(Some(refresh))
    }

    /// The rendered Corefile is good: writes it before it serves, if that does not take long.
    fn accept_first(&self, rendered: Rendered, loaded: Loaded, errors: &SetupErrors) -> Start {
        self.announce(&rendered);
        let (path, text) = (self.target.path().to_owned(), rendered.text.clone());
        let from_memory = Source::Text { path: path.clone(), text: text.clone() };
        let target = self.target.clone();
        match deadline::within(START_PATIENCE, move || target.write(&text)) {
            Ok(written) => Start { source: self.written(&rendered, written, errors), loaded, unwritten: None },
            Err(error) => {
                errors.count_configmap();
                tracing::warn!("the Corefile is not in {} yet: {error}; it is served from memory", path.display());
                Start { source: from_memory, loaded, unwritten: Some(rendered) }
            }
        }
    }

    /// Says what has been rendered and serves.
    pub fn announce(&self, rendered: &Rendered) {
        let Rendered { stub_domain_count, upstreams, warnings, .. } = rendered;
        for warning in warnings.lines() {
            tracing::warn!("{warning}");
        }
        let base = self.template.base().display();
        tracing::info!("the Corefile is rendered from {base}; stub domains: {stub_domain_count}; upstreams: {upstreams}");
    }

    /// Writes it. May wait for a file system that hangs.
    pub fn write(&self, rendered: &Rendered) -> Result<(), WriteError> {
        self.target.write(&rendered.text)
    }

    /// Where to read the Corefile from now: where it could not be written it is kept in memory.
    pub fn written(&self, rendered: &Rendered, outcome: Result<(), WriteError>, errors: &SetupErrors) -> Source {
        let path = self.target.path().to_owned();
        match outcome {
            Ok(()) => Source::File(path),
            Err(error) => {
                errors.count_configmap();
                tracing::warn!("{error}; it is served from memory");
                Source::Text { path, text: rendered.text.clone() }
            }
        }
    }
}

/// What is served first.
pub struct Start {
    pub source: Source,
    pub loaded: Loaded,
    /// Is to be written still.
    pub unwritten: Option<Rendered>,
}

fn tell(refusals: &[String]) {
    for refusal in refusals {
        tracing::error!("{refusal}");
    }
}
