//! The node agent's Corefile: rendered, judged, written. What is refused stands beside it, and what served before serves on.

use super::load::{LoadError, Loaded, Source};
use super::setup_errors::SetupErrors;
use crate::corefile::SystemLoader;
use crate::kube_dns::render::Rendered;
use crate::kube_dns::{Target, Template, TemplateError};
use std::path::Path;

/// A Corefile's template and what becomes of it.
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
    /// written (this process's predecessor served it) or, where nothing does, the template alone.
    pub fn start(&mut self, errors: &SetupErrors) -> anyhow::Result<(Source, Loaded)> {
        let refresh = self.template.refresh(&SystemLoader);
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
                Ok(loaded) => return Ok((self.accept(&rendered, errors), loaded)),
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
                    return Ok((written, loaded));
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
                    return Ok((self.accept(&rendered, errors), loaded));
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

    /// The rendered Corefile serves: writes it. Where it cannot be written it is kept in memory.
    pub fn accept(&self, rendered: &Rendered, errors: &SetupErrors) -> Source {
        let Rendered { text, stub_domain_count, upstreams, warnings } = rendered;
        for warning in warnings.lines() {
            tracing::warn!("{warning}");
        }
        let base = self.template.base().display();
        tracing::info!("the Corefile is rendered from {base}; stub domains: {stub_domain_count}; upstreams: {upstreams}");
        let path = self.target.path().to_owned();
        match self.target.write(text) {
            Ok(()) => Source::File(path),
            Err(error) => {
                errors.count_configmap();
                tracing::warn!("{error}; it is served from memory");
                Source::Text { path, text: text.clone() }
            }
        }
    }
}

fn tell(refusals: &[String]) {
    for refusal in refusals {
        tracing::error!("{refusal}");
    }
}
