//! The server's work with the configuration's files. A file system may hang, so each piece of work has a thread of its
//! own: reading and checking the configuration, having the rendered Corefile written, having files watched.

use super::files;
use super::load::{BUILT_IN_PATH, CorefileSource, LoadError, LoadedCorefile, STDIN};
use super::rendering::{RenderedStart, Rendering};
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
                let RenderedStart { source, loaded, unwritten } = rendering.start(&errors)?;
                let rendering = Some((*rendering, errors));
                let files = ConfigurationFiles { source, rendering, default_port, reader, seen: None };
                return Ok(InitialConfiguration { files, loaded, unwritten });
            }
        };
        let files::Recorded { snapshot, digest } = reader.corefile()?;
        let source = match snapshot.is_fixed {
            true => CorefileSource::Text { text: CorefileSource::File(path.clone()).text(&snapshot)?, path },
            false => CorefileSource::File(path),
        };
        let loaded = source.load(default_port, &snapshot)?;
        Ok(InitialConfiguration {
            files: ConfigurationFiles { source, rendering: None, default_port, reader, seen: Some(digest) },
            loaded,
            unwritten: None,
        })
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
    /// Of the Corefile as it stands, and of what it names, when it was last read; `None` if it is refused.
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
        // What is rendered and not written yet names what the template does.
        let mut from_memory = None;
        if let Some((rendering, errors)) = &mut self.rendering {
            let of_template = rendering.read(always)?;
            rendered = of_template.as_ref().and_then(|snapshot| rendering.refresh(snapshot, errors, always));
            from_memory = matches!(self.source, CorefileSource::Text { .. }).then_some(of_template);
        }
        let is_good = rendered.as_ref().is_some_and(|(_, outcome)| outcome.is_ok());
        // A refused template may name other certificates than the text that is served from memory, of which nothing
        // was read then.
        let is_unknown = rendered.is_some() && from_memory.is_some();
        let mut read = None;
        if look != Look::Rendered && !is_good && !is_unknown {
            let snapshot = match from_memory {
                Some(of_template) => of_template,
                None => self.read(always)?,
            };
            read = snapshot.map(|snapshot| self.source.load(self.default_port, &snapshot));
            // A refused one may lack a file of data.
            if let Some(Err(_)) = read {
                self.seen = None;
            }
        }
        Ok((self, CheckedFiles { rendered, read }))
    }

    /// The Corefile as it stands, and what it names, if anything of that has changed since it was last read, it is
    /// refused, or `always`.
    fn read(&mut self, always: bool) -> io::Result<Option<files::HostSnapshot>> {
        let recorded = self.reader.corefile_unless(self.seen.as_ref().filter(|_| !always))?;
        Ok(recorded.map(|files::Recorded { snapshot, digest }| {
            self.seen = Some(digest);
            snapshot
        }))
    }

    /// Writes what is rendered and served, and watches what is to be looked at in `inotify`. Of files that are read,
    /// not rendered, only if `reads`.
    ///
    /// # Errors
    /// The watchdog does not answer.
    pub(super) fn write_and_watch(
        mut self,
        unwritten: Option<Rendered>,
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
