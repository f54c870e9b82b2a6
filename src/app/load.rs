//! Reads a Corefile from wherever the command line names it, and checks it.

use super::configuration_parts::PartRecorder;
use super::host::ConfigurationSource;
use super::served_record::ServedRecord;
use crate::chain::Loaders;
use crate::corefile::{self, Corefile, Diagnostics, Severity};
use crate::directives::is_keyword_or_near;
use crate::directives::reload::{FilePart, Fingerprint};
use crate::plan::{PlanConfig, configure};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// The Corefile that is served when the user names none.
const BUILT_IN: &str = include_str!("../../config/Corefile.local");

/// What diagnostics call the Corefile that is in no file.
pub(super) const BUILT_IN_PATH: &str = "<built-in>";
pub(super) const STDIN: &str = "<stdin>";

/// Where the Corefile comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CorefileSource {
    File(PathBuf),
    /// A text that stands nowhere else; the path is what diagnostics call it, and where its imports are relative to.
    Text {
        path: PathBuf,
        text: String,
    },
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("cannot read the Corefile {path}: {cause}; check the path and its permissions, or name another with -conf")]
    Read { path: PathBuf, cause: io::Error },
    /// The Corefile is bad: its rendered diagnostics, and of which text.
    #[error("{diagnostics}")]
    Refused { diagnostics: String, fingerprint: Fingerprint },
}

impl LoadError {
    /// Of what was read; `None` if nothing could be.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Refused { fingerprint, .. } => Some(*fingerprint),
            Self::Read { .. } => None,
        }
    }
}

/// What is told of a good Corefile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strictness {
    /// A warning makes it bad.
    pub is_strict: bool,
    /// What the reference does not take is a warning.
    pub is_portable: bool,
}

/// A good configuration, of which texts, and warnings.
pub(super) struct LoadedCorefile {
    pub config: PlanConfig,
    /// Of the Corefile, every file it imports, and its certificates.
    pub fingerprint: Fingerprint,
    /// Rendered; empty if there are none.
    pub warnings: String,
    /// What is right and yet to be known, in one line.
    pub notice: Option<String>,
    /// What it is remembered by once it serves, if the watchdog has read it.
    pub record: Option<ServedRecord>,
}

impl CorefileSource {
    /// The one shipped as config/Corefile.local.
    pub(super) fn built_in() -> Self {
        Self::Text { path: BUILT_IN_PATH.into(), text: BUILT_IN.to_owned() }
    }
    /// What standard input had.
    pub(super) fn stdin(octets: &[u8]) -> Self {
        Self::Text { path: STDIN.into(), text: String::from_utf8_lossy(octets).into_owned() }
    }
    /// A file. What can be read but once, such as a pipe, is read here.
    pub(super) fn file(path: &Path) -> Result<Self, LoadError> {
        let is_stream =
            |metadata: std::fs::Metadata| metadata.file_type().is_fifo() || metadata.file_type().is_char_device();
        match path.metadata().is_ok_and(is_stream) {
            true => Self::once(path.to_owned(), File::open(path).and_then(corefile::read_at_most)),
            false => Ok(Self::File(path.to_owned())),
        }
    }
    fn once(path: PathBuf, octets: io::Result<Vec<u8>>) -> Result<Self, LoadError> {
        match octets {
            Ok(octets) => Ok(Self::Text { path, text: String::from_utf8_lossy(&octets).into_owned() }),
            Err(cause) => Err(LoadError::Read { path, cause }),
        }
    }
    /// Its path.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Text { path, .. } => path,
        }
    }
    /// The text as it stands on this machine.
    pub(super) fn text(&self, machine: &dyn ConfigurationSource) -> Result<String, LoadError> {
        match self {
            Self::Text { text, .. } => Ok(text.clone()),
            Self::File(path) => machine.text(path).map_err(|cause| LoadError::Read { path: path.clone(), cause }),
        }
    }

    /// Reads and checks everything.
    pub(super) fn load(
        &self,
        default_port: u16,
        machine: &dyn ConfigurationSource,
    ) -> Result<LoadedCorefile, LoadError> {
        self.load_as(default_port, machine, Strictness::default())
    }

    /// [`CorefileSource::load`], more or less strictly.
    pub(super) fn load_as(
        &self,
        default_port: u16,
        machine: &dyn ConfigurationSource,
        how: Strictness,
    ) -> Result<LoadedCorefile, LoadError> {
        let Examined { corefile, config, diagnostics, parts } =
            Examined::new(self.path(), &self.text(machine)?, default_port, machine, how);
        let rendered = diagnostics.render(&corefile.sources);
        let fingerprint = Fingerprint::of(&corefile.sources, &parts);
        match how.refuses(&diagnostics) {
            true => Err(LoadError::Refused { diagnostics: rendered, fingerprint }),
            false => {
                let notice = open_to_all(&config.on_all_addresses());
                Ok(LoadedCorefile { config, fingerprint, warnings: rendered, notice, record: None })
            }
        }
    }
}

impl Strictness {
    /// Whether a Corefile of which this is told is bad.
    pub(super) fn refuses(self, diagnostics: &Diagnostics) -> bool {
        diagnostics.has_errors() || (self.is_strict && !diagnostics.is_empty())
    }
}

/// A Corefile's text, read, and all that is to be told of it.
pub(super) struct Examined {
    pub corefile: Corefile,
    pub config: PlanConfig,
    pub diagnostics: Diagnostics,
    /// Files that are a part of it beside those of the Corefile.
    pub parts: Vec<FilePart>,
}

impl Examined {
    /// Reads and checks a text that stands in `path`.
    pub(super) fn new(
        path: &Path,
        text: &str,
        default_port: u16,
        machine: &dyn ConfigurationSource,
        how: Strictness,
    ) -> Self {
        let (corefile, mut diagnostics) = corefile::parse(path, text, machine);
        let recorder = PartRecorder::new(machine);
        let loaders = Loaders { files: &recorder, interfaces: &recorder };
        let (config, more) = configure(&corefile, default_port, loaders);
        diagnostics.extend(more);
        if config.serves_nothing() && !diagnostics.has_errors() {
            diagnostics
                .warning_without_span("there is no server block with a zone that clients ask for: nothing is served")
                .help("write at least one, such as `.:53 {`, a `forward` or another directive, and `}`");
        }
        diagnostics.retain(|diagnostic| how.is_portable || diagnostic.severity != Severity::Portability);
        diagnostics.conceal(&corefile.sources, &is_keyword_or_near);
        Self { corefile, config, diagnostics, parts: recorder.finish() }
    }
}

/// What to know where clients may come by any address of the machine.
pub(super) fn open_to_all(ports: &[u16]) -> Option<String> {
    let ports = match ports {
        [] => return None,
        [port] => format!("port {port} is"),
        ports => format!("ports {} are", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")),
    };
    Some(format!(
        "{ports} served on all addresses of this machine, so that the node's neighbours can ask too, not its pods alone: `bind` names the \
         addresses that are to be served; `acl` chooses by client who is answered"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::host::ThisHost;
    use super::{CorefileSource, Fingerprint, LoadError, LoadedCorefile, Strictness};

    fn load(text: &str) -> Result<LoadedCorefile, LoadError> {
        CorefileSource::Text { path: "/etc/coredns/Corefile".into(), text: text.to_owned() }.load(53, &ThisHost)
    }

    /// Of what was read, good or bad.
    fn fingerprint(outcome: Result<LoadedCorefile, LoadError>) -> Fingerprint {
        match outcome {
            Ok(LoadedCorefile { fingerprint, .. }) | Err(LoadError::Refused { fingerprint, .. }) => fingerprint,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn imports_and_certificates_make_another_corefile_and_files_of_data_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let tls = format!("forward . tls://192.0.2.1 {{\n  tls {}\n }}", at("ca.pem"));
        let text = format!(".:53 {{\n import {}\n hosts {}\n {tls}\n}}\n", at("more"), at("hosts"));
        let now = || fingerprint(load(&text));
        let mut before = now();
        for (name, text, is_another) in [
            ("more", "errors\n", true),
            ("more", "erors\n", true),
            ("hosts", "192.0.2.7 host.example\n", false),
            ("ca.pem", "not a certificate", true),
        ] {
            put(name, text);
            assert_eq!(now() != before, is_another, "{name}: {text}");
            before = now();
        }
    }

    #[test]
    fn a_block_that_listens_on_all_addresses_is_told_of_and_no_other() {
        let notice = |text: &str| load(text).unwrap_or_else(|error| panic!("{error}")).notice.unwrap_or_default();
        for text in [".:53 {\n whoami\n}\n", ".:53 {\n bind 0.0.0.0\n whoami\n}\n", ".:53 {\n bind ::\n whoami\n}\n"] {
            let told = notice(text);
            assert!(
                told.contains("port 53 is") && told.contains("neighbours") && told.contains("`acl`"),
                "{text}: {told}"
            );
        }
        assert!(notice("a:53 b:54 {\n whoami\n}\nc:53 {\n whoami\n}\n").contains("ports 53, 54"));
        assert_eq!(notice(".:53 {\n bind 127.0.0.1 169.254.20.10\n whoami\n}\n"), "");
        let built_in = CorefileSource::built_in().load(53, &ThisHost).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(built_in.notice, None);
        assert_eq!(notice(include_str!("../../config/Corefile.node-local")), "");
    }

    #[test]
    fn warnings_are_errors_to_the_strict_and_what_is_not_portable_is_a_warning_to_who_asks() {
        let load = |text: &str, is_strict, is_portable| {
            let source = CorefileSource::Text { path: "Corefile".into(), text: text.to_owned() };
            source.load_as(53, &ThisHost, Strictness { is_strict, is_portable }).map(|loaded| loaded.warnings)
        };
        let doubtful = ".:53 {\n bind 127.0.0.1\n whoami\n}\n}\n";
        assert!(load(doubtful, false, false).is_ok_and(|said| said.starts_with("Corefile:5:1: warning: ")));
        assert!(
            load(doubtful, true, false).is_err_and(|error| error.to_string().starts_with("Corefile:5:1: warning: "))
        );
        let ours = ".:53 {\n bind 127.0.0.1\n ready\n}\n";
        assert_eq!(load(ours, true, false).unwrap_or_else(|error| panic!("{error}")), "");
        assert!(
            load(ours, false, true).is_ok_and(|said| said.starts_with("Corefile:3:2: warning: node-cache's build"))
        );
        assert!(load(ours, true, true).is_err());
    }

    #[test]
    fn a_corefile_that_serves_nothing_is_good_with_a_warning() {
        let unasked = ["10.0.0.0/33 {\n whoami\n}\n", "example.org{ {\n whoami\n}\na:b {\n whoami\n}\n"];
        let empty = ["", "# nothing\n", "\u{feff}", "(s) {\n whoami\n}\n", "{\n whoami\n}\n"];
        for text in empty.into_iter().chain(unasked) {
            let loaded = load(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(loaded.config.serves_nothing() && loaded.warnings.contains("nothing is served"), "{text}");
        }
    }

    /// What is said of a Corefile that imports `text`.
    fn said_of_import(text: &str, corefile: impl Fn(&str) -> String) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("imported");
        std::fs::write(&path, text).unwrap();
        load(&corefile(&path.display().to_string())).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn nothing_of_an_imported_file_that_is_no_corefile_is_told() {
        let secrets = [
            "root:$6$hunter2$hash:19000:0:99999:7:::\nbin:*:19000:::\n",
            "hunter2\n",
            "  hunter2 {\n}\n",
            "hunter2 \"x\n",
            "-----BEGIN hunter2-----\nMIIEhunter2 {$hunter2}\n}\n",
            "apiVersion: hunter2\nkind: {\n",
        ];
        let corefiles: [fn(&str) -> String; 5] = [
            |path| format!(".:53 {{\n import {path}\n whoami\n}}\n"),
            |path| format!("import {path}\n.:53 {{\n whoami\n}}\n"),
            |path| format!(".:53 {{\n import {path}\n {{\n }}\n}}\n"),
            |path| format!(".:53 {{\n forward . 192.0.2.1 {{\n import {path}\n }}\n}}\n"),
            |path| format!(".:53 {{\n whoami\n import {path}\n"),
        ];
        for secret in secrets {
            for (index, corefile) in corefiles.iter().enumerate() {
                let said = said_of_import(secret, corefile);
                // One of them is a whole server block.
                assert!(said.contains("error") || (index, secret) == (1, "  hunter2 {\n}\n"), "{index}: {secret}");
                assert!(
                    !said.contains("hunter2") && !said.contains("MII") && !said.contains("root"),
                    "{index}: {said}"
                );
            }
        }
    }

    #[test]
    fn what_is_wrong_in_an_imported_part_of_a_corefile_is_shown() {
        let within = |path: &str| format!(".:53 {{\n import {path}\n whoami\n}}\n");
        let said = said_of_import("# upstreams\nforwrad . 192.0.2.1\n", within);
        assert!(
            said.contains("imported:2:1: error: unknown directive `forwrad`") && said.contains("2 | forwrad . 192"),
            "{said}"
        );
        let said = said_of_import("cache {\n success many\n}\n", within);
        assert!(said.contains("`many`") && said.contains("success many"), "{said}");
        let said = said_of_import("max_fails many\n", |path| {
            format!(".:53 {{\n forward . 192.0.2.1 {{\n import {path}\n }}\n}}\n")
        });
        assert!(said.contains("imported:1:11: error: this imported file") && said.contains("at 1:11"), "{said}");
    }
}
