//! The server's work with the configuration's files. A file system may hang, so each piece of work has a thread of its
//! own: reading and checking the configuration, having the rendered Corefile written, having files watched.

use super::files;
use super::load::{BUILT_IN_PATH, CorefileSource, LoadError, LoadedCorefile, STDIN};
use super::predecessor::{StartRefusal, last_served, load_recorded};
use super::rendering::{RenderedStart, Rendering, START_PATIENCE};
use super::served_record::ServedRecord;
use super::setup_errors::SetupErrors;
use crate::cli::CorefileArgument;
use crate::deadline;
use crate::kube_dns::WriteError;
use crate::kube_dns::render::Rendered;
use crate::kube_dns::watch::PlacedWatches;
use anyhow::Context;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

/// How long files may take. Later the service goes on with what it has, and looks again.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// When it looks again.
pub(super) const PAUSE: Duration = Duration::from_secs(2);

/// Threads that may hang at the same time in the same kind of work.
const MOST_THREADS: usize = 4;

/// Where the Corefile comes from, as the user says.
pub(super) enum CorefileOrigin {
    /// It is served as it is.
    Plain(CorefileArgument),
    /// It is rendered, and rendered again whenever its template or the kube-dns ConfigMap changes.
    Rendering(Box<Rendering>),
}

/// What is read first.
pub(super) struct InitialConfiguration {
    pub files: ConfigurationFiles,
    pub loaded: LoadedCorefile,
    /// Is to be written still.
    pub unwritten: Option<Rendered>,
    /// Why it is what served last, if it is.
    pub refusal: Option<StartRefusal>,
}

impl CorefileOrigin {
    /// Loads what is to be served, and waits for that as long as it takes: there is nothing else to serve. It is told
    /// what is waited for.
    ///
    /// # Errors
    /// It is bad, or cannot be read.
    pub(super) async fn load(
        self,
        default_port: u16,
        files: Arc<files::FileClient>,
        errors: SetupErrors,
    ) -> anyhow::Result<InitialConfiguration> {
        let waits_for = match &self {
            Self::Plain(CorefileArgument::File(path)) => path.display().to_string(),
            Self::Plain(_) => "the Corefile".to_owned(),
            Self::Rendering(rendering) => {
                format!("{} or the kube-dns ConfigMap", rendering.template().base().display())
            }
        };
        let mut outcome = deadline::begin(move || self.load_here(default_port, files, errors))?;
        loop {
            match timeout(LIMIT, &mut outcome).await {
                Ok(done) => {
                    return done.context("loading the configuration ended before its time: please report this")?;
                }
                Err(_) => tracing::warn!(
                    "still waiting for {waits_for}; does its file system hang? Until it can be read this server answers no queries"
                ),
            }
        }
    }

    fn load_here(
        self,
        default_port: u16,
        reader: Arc<files::FileClient>,
        errors: SetupErrors,
    ) -> anyhow::Result<InitialConfiguration> {
        let path = match self {
            Self::Plain(CorefileArgument::BuiltIn) => BUILT_IN_PATH.into(),
            Self::Plain(CorefileArgument::Stdin) => STDIN.into(),
            Self::Plain(CorefileArgument::File(path)) => path,
            Self::Rendering(mut rendering) => {
                let RenderedStart { source, loaded, unwritten, seen, refusal } = rendering.start(&errors)?;
                let rendering = Some((*rendering, errors));
                let files = ConfigurationFiles { source, rendering, default_port, reader, seen };
                return Ok(InitialConfiguration { files, loaded, unwritten, refusal });
            }
        };
        let recorded = reader.corefile()?;
        let source = match recorded.snapshot.is_fixed {
            true => CorefileSource::Text { text: CorefileSource::File(path.clone()).text(&recorded.snapshot)?, path },
            false => CorefileSource::File(path),
        };
        let outcome = load_recorded(&source, default_port, &recorded);
        let seen = Some(if outcome.is_ok() { recorded.digest.without_data() } else { recorded.digest });
        let files = ConfigurationFiles { source, rendering: None, default_port, reader, seen };
        let (nothing, refusal) = match outcome {
            Ok(loaded) if loaded.config.serves_nothing() => {
                let error = anyhow::anyhow!(loaded.warnings.clone());
                let fingerprint = Some(loaded.fingerprint);
                (Some(loaded), StartRefusal { error, fingerprint })
            }
            Ok(loaded) => return Ok(InitialConfiguration { files, loaded, unwritten: None, refusal: None }),
            Err(error) => (None, StartRefusal { fingerprint: error.fingerprint(), error: error.into() }),
        };
        match (last_served(&files.reader, files.source.path(), default_port), nothing) {
            (Some((_, loaded)), _) => {
                Ok(InitialConfiguration { files, loaded, unwritten: None, refusal: Some(refusal) })
            }
            (None, Some(loaded)) => Ok(InitialConfiguration { files, loaded, unwritten: None, refusal: None }),
            (None, None) => Err(refusal.error),
        }
    }
}

/// Where the Corefile comes from.
#[derive(Clone)]
pub(super) struct ConfigurationFiles {
    pub source: CorefileSource,
    /// Of a Corefile that is rendered.
    pub rendering: Option<(Rendering, SetupErrors)>,
    pub default_port: u16,
    /// Who reads and writes it.
    pub reader: Arc<files::FileClient>,
    /// Of the Corefile as it stands, and of what it names, when it was last read; without files of data while it is
    /// good.
    pub seen: Option<files::SnapshotDigest>,
}

/// Which files to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Those of a Corefile that is rendered.
    Rendered,
    /// The Corefile as it stands too.
    All,
    /// All, whether anything has changed or not.
    Always,
}

/// What a look at them has found.
pub(super) struct CheckedFiles {
    /// Another Corefile than before, if one is rendered.
    pub rendered: Option<(Rendered, Result<LoadedCorefile, LoadError>)>,
    /// The Corefile as it stands, if it was read and anything of it has changed.
    pub read: Option<Result<LoadedCorefile, LoadError>>,
}

impl ConfigurationFiles {
    /// Renders the Corefile anew. If it is as before, or refused, reads what stands there, as far as `look` says so.
    /// What is as it was at the last look is neither passed on by the watchdog nor judged.
    ///
    /// # Errors
    /// They cannot be had from the watchdog.
    pub(super) fn check(mut self, look: Look) -> io::Result<(Self, CheckedFiles)> {
        let always = look == Look::Always;
        let mut rendered = None;
        // A text that stands in no file was read with the template that it comes from: another one names other files.
        let (mut of_template, mut is_in_memory) = (None, false);
        if let Some((rendering, errors)) = &mut self.rendering {
            let recorded = rendering.read(always)?;
            rendered = recorded.as_ref().and_then(|recorded| rendering.refresh(recorded, errors, always));
            if let CorefileSource::Text { text, .. } = &self.source {
                is_in_memory = true;
                of_template = recorded.filter(|_| rendering.template().has_rendered(text));
            }
        }
        let is_good = rendered.as_ref().is_some_and(|(_, outcome)| outcome.is_ok());
        let mut read = None;
        if look != Look::Rendered && !is_good {
            let recorded = if is_in_memory { of_template } else { self.read(always)? };
            read = recorded.map(|recorded| load_recorded(&self.source, self.default_port, &recorded));
            if let (Some(Ok(_)), false) = (&read, is_in_memory) {
                self.seen = self.seen.map(|seen| seen.without_data());
            }
        }
        Ok((self, CheckedFiles { rendered, read }))
    }

    /// The Corefile as it stands, and what it names, if anything of that has changed since it was last read, or
    /// `always`.
    fn read(&mut self, always: bool) -> io::Result<Option<files::Recorded>> {
        let recorded = self.reader.corefile_unless(self.seen.as_ref().filter(|_| !always))?;
        if let Some(recorded) = &recorded {
            self.seen = Some(recorded.digest.clone());
        }
        Ok(recorded)
    }

    /// What served before this process began, and serves something, if it can be had soon: what the watchdog remembers,
    /// else what stands where the rendered Corefile is written.
    pub(super) async fn predecessor(&self) -> Option<(CorefileSource, LoadedCorefile)> {
        let (path, is_rendered) = (self.source.path().to_owned(), self.rendering.is_some());
        let (port, reader) = (self.default_port, self.reader.clone());
        let load = move || {
            last_served(&reader, &path, port).or_else(|| {
                let standing = CorefileSource::File(path);
                let recorded = is_rendered.then(|| reader.corefile())?.ok()?;
                let loaded = load_recorded(&standing, port, &recorded).ok()?;
                (!loaded.config.serves_nothing()).then_some((standing, loaded))
            })
        };
        timeout(START_PATIENCE, deadline::begin(load).ok()?).await.ok()?.ok()?
    }

    /// Has what is about to serve remembered, for the next server. Later it is told again.
    pub(super) async fn note_serving(&self, served: ServedRecord) {
        let reader = self.reader.clone();
        if let Ok(noted) = deadline::begin(move || reader.note_serving(&served)) {
            _ = timeout(START_PATIENCE, noted).await;
        }
    }

    /// Writes what is rendered before it serves, if that does not take long. Returns what is to be written still.
    pub(super) async fn write_first(&mut self, rendered: Rendered) -> Option<Rendered> {
        let (rendering, errors) = self.rendering.as_ref()?;
        rendering.announce(&rendered);
        let (writer, text) = (self.reader.clone(), rendered.text.clone());
        let written = match deadline::begin(move || writer.write(&text)) {
            Ok(outcome) => timeout(START_PATIENCE, outcome).await.map_err(|_| deadline::late(START_PATIENCE)),
            Err(error) => Err(error),
        };
        match written {
            Ok(Ok(outcome)) => {
                self.source = rendering.written(&rendered, outcome, errors);
                None
            }
            // It panicked, or is late.
            outcome => {
                errors.count_configmap();
                let why = outcome.err().map(|error| format!(": {error}")).unwrap_or_default();
                let path = self.source.path().display();
                tracing::warn!("the Corefile is not in {path} yet{why}; it is served from memory");
                Some(rendered)
            }
        }
    }

    /// Writes what is rendered and served, has what is `served` remembered, and watches what is to be looked at in
    /// `inotify`. Of files that are read, not rendered, only if `reads`.
    ///
    /// # Errors
    /// The watchdog does not answer.
    pub(super) fn write_and_watch(
        mut self,
        unwritten: Option<Rendered>,
        served: Option<ServedRecord>,
        reads: bool,
        inotify: Option<OwnedFd>,
    ) -> io::Result<WrittenFiles> {
        let write = |rendered: Rendered| {
            let (rendering, _) = self.rendering.as_ref()?;
            let outcome = rendering.write(&rendered);
            Some((rendered.text, outcome))
        };
        let written = unwritten.and_then(write);
        if let Some((_, Ok(()))) = &written {
            self.source = CorefileSource::File(self.source.path().to_owned());
        }
        if let Some(Err(error)) = served.map(|served| self.reader.note_serving(&served)) {
            tracing::debug!("the next server will not know what serves: {error}");
        }
        let placed = inotify.map(|inotify| self.reader.watch(reads, inotify.as_fd())).transpose()?;
        Ok(WrittenFiles { written, placed })
    }
}

/// What has become of it.
pub(super) struct WrittenFiles {
    /// Which text was to be written, and whether it is.
    pub written: Option<(String, Result<(), WriteError>)>,
    pub placed: Option<PlacedWatches>,
}

/// Work on a thread of its own, one piece at a time.
pub(super) struct BackgroundWork<T> {
    running: Option<(oneshot::Receiver<T>, Instant)>,
    /// One for each thread, those included that nobody waits for any longer.
    threads: Arc<()>,
}

impl<T> Default for BackgroundWork<T> {
    fn default() -> Self {
        Self { running: None, threads: Arc::default() }
    }
}

impl<T: Send + 'static> BackgroundWork<T> {
    /// Whether it is waited for.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }
    /// Whether a thread is at it, waited for or not.
    pub(super) fn has_threads(&self) -> bool {
        Arc::strong_count(&self.threads) > 1
    }

    /// Begins it, unless too many threads hang.
    ///
    /// # Errors
    /// That; no thread can be started.
    pub(super) fn begin(&mut self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<()> {
        if Arc::strong_count(&self.threads) > MOST_THREADS {
            return Err(deadline::late(LIMIT));
        }
        let thread = self.threads.clone();
        let outcome = deadline::begin(move || {
            let done = work();
            drop(thread);
            done
        })?;
        self.running = Some((outcome, Instant::now() + LIMIT));
        Ok(())
    }

    /// What has come of it; never where nothing runs. May be dropped and called again at any time.
    ///
    /// # Errors
    /// It is late, and nobody waits for it any longer.
    pub(super) async fn outcome(&mut self) -> io::Result<T> {
        let Some((outcome, limit)) = &mut self.running else { return std::future::pending().await };
        let done = tokio::select! {
            biased;
            done = outcome => done.map_err(|_panicked| io::Error::other("it ended before its time: please report this")),
            () = sleep_until(*limit) => Err(deadline::late(LIMIT)),
        };
        self.running = None;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::{BackgroundWork, MOST_THREADS};
    use std::io::ErrorKind;
    use std::sync::mpsc::channel;

    #[tokio::test(start_paused = true)]
    async fn work_that_hangs_is_given_up_on_and_begun_again_but_not_without_end() {
        let mut work = BackgroundWork::default();
        let mut releases = Vec::new();
        for _ in 0..MOST_THREADS {
            let (release, held) = channel::<()>();
            releases.push(release);
            work.begin(move || _ = held.recv()).unwrap();
            assert_eq!(work.outcome().await.unwrap_err().kind(), ErrorKind::TimedOut);
            assert!(!work.is_running() && work.has_threads());
        }
        assert!(work.begin(|| ()).is_err());
        drop(releases);
        while work.has_threads() {
            std::thread::yield_now();
        }
        work.begin(|| ()).unwrap();
        tokio::time::resume();
        work.outcome().await.unwrap();
    }
}
