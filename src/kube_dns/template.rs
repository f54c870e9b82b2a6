//! The template and the ConfigMap as they stand on disk, read anew whenever they may have changed.

use super::config::{self, ConfigErrors, KubeDnsConfig};
use super::render::{PillarValues, RenderError, Rendered, render};
use crate::corefile::Loader;
use std::io;
use std::path::{Path, PathBuf};

/// Why the template, or the ConfigMap, is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CorefileTemplateError {
    #[error(
        "cannot read the template {path}: {cause}; check the path and its permissions, or name another with -basecorefile"
    )]
    Read { path: PathBuf, cause: io::Error },
    #[error("the kube-dns ConfigMap is refused, the one before is used on:\n{0}")]
    Config(#[from] ConfigErrors),
    #[error("the template is refused:\n{0}")]
    Render(#[from] RenderError),
}

/// What has come of a look at the files.
#[derive(Debug, Default)]
pub(crate) struct Refresh {
    /// The Corefile.
    pub rendered: Option<Rendered>,
    /// It is another one than at the look before.
    pub is_new: bool,
    /// What was found wrong and was not at the look before.
    pub problems: Vec<CorefileTemplateError>,
}

/// Where a Corefile is rendered from.
#[derive(Clone)]
pub(crate) struct CorefileTemplate {
    base: PathBuf,
    kube_dns: Option<PathBuf>,
    values: PillarValues,
    /// The last ConfigMap that was good.
    config: KubeDnsConfig,
    last_text: Option<String>,
    /// The last text is not served, since the ConfigMap was bad and something better stood there.
    is_discarded: bool,
    last_problems: Vec<String>,
}

impl CorefileTemplate {
    /// `base` is the template, `kube_dns` the folder the ConfigMap is mounted on, if there is one.
    pub(crate) fn new(base: PathBuf, kube_dns: Option<PathBuf>, values: PillarValues) -> Self {
        let (config, last_problems) = (KubeDnsConfig::default(), Vec::new());
        Self { base, kube_dns, values, config, last_text: None, is_discarded: false, last_problems }
    }
    /// The template's path.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }
    /// The ConfigMap's folder.
    pub(crate) fn kube_dns(&self) -> Option<&Path> {
        self.kube_dns.as_deref()
    }

    /// The text of the last look is not to be served unless the ConfigMap is good: it is new then, though it may be the
    /// same.
    pub(crate) fn discard(&mut self) {
        self.is_discarded = true;
    }
    /// Uses the ConfigMap as `files` have it, if it is good there, until the one that is read is good.
    pub(crate) fn adopt_config(&mut self, files: &dyn Loader) {
        if let Some(Ok(config)) = self.kube_dns.as_deref().map(|folder| config::read(folder, files)) {
            self.config = config;
        }
    }
    /// Whether this text is what came of the last look, and to be served.
    pub(crate) fn has_rendered(&self, text: &str) -> bool {
        self.last_text.as_deref() == Some(text) && !self.is_discarded
    }
    /// Whether template or ConfigMap were bad at the last look.
    pub(crate) fn has_problems(&self) -> bool {
        !self.last_problems.is_empty()
    }

    /// Reads the files. With a bad ConfigMap the last good one is rendered, so that the template's own changes are not
    /// held up.
    pub(crate) fn refresh(&mut self, files: &dyn Loader) -> Refresh {
        let mut problems = Vec::new();
        match self.kube_dns.as_deref().map(|folder| config::read(folder, files)) {
            Some(Ok(config)) => self.config = config,
            Some(Err(errors)) => problems.push(errors.into()),
            None => {}
        }
        let is_wanted = self.is_discarded && problems.is_empty();
        let rendered = self.render(&self.config, files).map_err(|error| problems.push(error)).ok();
        let is_new =
            rendered.as_ref().is_some_and(|rendered| is_wanted || self.last_text.as_ref() != Some(&rendered.text));
        if let Some(rendered) = rendered.as_ref().filter(|_| is_new) {
            (self.last_text, self.is_discarded) = (Some(rendered.text.clone()), false);
        }
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let before = std::mem::replace(&mut self.last_problems, told);
        problems.retain(|problem| !before.contains(&problem.to_string()));
        Refresh { rendered, is_new, problems }
    }

    /// What the template alone gives, as if the ConfigMap were empty.
    pub(crate) fn render_without_config(&self, files: &dyn Loader) -> Result<Rendered, CorefileTemplateError> {
        self.render(&KubeDnsConfig::default(), files)
    }

    fn render(&self, config: &KubeDnsConfig, files: &dyn Loader) -> Result<Rendered, CorefileTemplateError> {
        let text =
            files.read(&self.base).map_err(|cause| CorefileTemplateError::Read { path: self.base.clone(), cause })?;
        Ok(render(&self.base, &text, config, &self.values, files)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{CorefileTemplate, CorefileTemplateError, Refresh};
    use crate::corefile::SystemLoader;
    use crate::kube_dns::render::{PillarValues, ServiceAddress};
    use tempfile::TempDir;

    struct Scene {
        folder: TempDir,
        template: CorefileTemplate,
    }

    impl Scene {
        fn new(base: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("kube-dns")).unwrap();
            let values = PillarValues {
                local_addresses: vec!["127.0.0.1".parse().unwrap()],
                port: 53,
                cluster_dns: ServiceAddress::read("no-such-service", &SystemLoader),
                prometheus: ":9253".to_owned(),
            };
            let template =
                CorefileTemplate::new(folder.path().join("base"), Some(folder.path().join("kube-dns")), values);
            let stage = Self { folder, template };
            stage.write("base", base);
            stage
        }
        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.path().join(name), text).unwrap();
        }
        fn refresh(&mut self) -> Refresh {
            self.template.refresh(&SystemLoader)
        }
        fn text(&mut self) -> Option<String> {
            let refresh = self.refresh();
            refresh.rendered.filter(|_| refresh.is_new).map(|rendered| rendered.text)
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let mut stage = Scene::new("first");
        assert_eq!(stage.text().as_deref(), Some("first"));
        assert_eq!(stage.text(), None);
        stage.write("base", "second");
        assert_eq!(stage.text().as_deref(), Some("second"));
        stage.write("kube-dns/stubDomains", r#"{"acme.local": ["1.2.3.4"]}"#);
        assert!(stage.text().is_some_and(|text| text.contains("acme.local:53")));
        stage.write("kube-dns/other", "ignored");
        assert_eq!(stage.text(), None);
    }

    #[test]
    fn a_bad_configmap_is_told_once_and_the_last_good_one_is_rendered_on() {
        let mut stage = Scene::new("first");
        stage.write("kube-dns/stubDomains", r#"{"acme.local": ["1.2.3.4"]}"#);
        stage.text();
        stage.write("kube-dns/stubDomains", "{");
        let refresh = stage.refresh();
        assert!(!refresh.is_new);
        assert!(matches!(refresh.problems.as_slice(), [CorefileTemplateError::Config(_)]));
        stage.write("base", "second");
        let refresh = stage.refresh();
        assert!(refresh.rendered.is_some_and(|rendered| rendered.text.starts_with("second\nacme.local:53")));
        assert!(refresh.problems.is_empty(), "it is told once");
        stage.write("kube-dns/stubDomains", "[");
        assert_eq!(stage.refresh().problems.len(), 1, "another error is told");
        stage.write("kube-dns/stubDomains", "{}");
        assert_eq!(stage.text().as_deref(), Some("second"));
        stage.write("kube-dns/stubDomains", "[");
        assert_eq!(stage.refresh().problems.len(), 1, "an error that comes back is told again");
    }

    #[test]
    fn a_template_that_cannot_be_read_or_resolved_is_told_with_its_path() {
        let mut stage = Scene::new("forward . __PILLAR__CLUSTER__DNS__");
        let refresh = stage.refresh();
        assert!(refresh.rendered.is_none());
        let said = refresh.problems[0].to_string();
        assert!(said.contains("base:1:11") && said.contains("NO_SUCH_SERVICE_SERVICE_HOST"), "{said}");
        std::fs::remove_file(stage.folder.path().join("base")).unwrap();
        let said = stage.refresh().problems[0].to_string();
        assert!(said.contains("base") && said.contains("-basecorefile"), "{said}");
    }
}
