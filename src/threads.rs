//! Starts threads, and explains what to do where the system refuses one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

/// A thread could not be started, or not what it needs.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the thread {name}: {cause}{}", hint(cause))]
pub struct ThreadError {
    /// What the thread would have been called.
    name: String,
    cause: io::Error,
}

impl From<ThreadError> for io::Error {
    fn from(error: ThreadError) -> Self {
        Self::new(error.cause.kind(), error.to_string())
    }
}

/// Starts a thread. `stack` is in octets; none for what is usual.
///
/// # Errors
///
/// Processes or memory are at their limit, or a system call is refused.
pub(crate) fn spawn(
    name: &str,
    stack: Option<usize>,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, ThreadError> {
    let builder = Builder::new().name(name.to_owned());
    let builder = stack.into_iter().fold(builder, Builder::stack_size);
    builder.spawn(body).map_err(|cause| ThreadError { name: name.to_owned(), cause })
}

/// Starts a thread with a runtime of its own, which `body` gets. It is made on that thread: a runtime must not be
/// dropped on one that runs another, and that is what would become of it if the thread cannot be started.
///
/// # Errors
///
/// As of [`spawn`], or open files are at their limit.
pub(crate) fn spawn_with_runtime(
    name: &str,
    stack: Option<usize>,
    make: impl FnOnce() -> io::Result<Runtime> + Send + 'static,
    body: impl FnOnce(Runtime) + Send + 'static,
) -> Result<(Handle, JoinHandle<()>), ThreadError> {
    let (made, is_made) = mpsc::channel();
    let run = move || match make() {
        Ok(runtime) => {
            // Fails only if nobody waits for it.
            _ = made.send(Ok(runtime.handle().clone()));
            body(runtime);
        }
        Err(error) => _ = made.send(Err(error)),
    };
    let thread = spawn(name, stack, run)?;
    let made = is_made.recv().unwrap_or_else(|_panicked| Err(io::Error::other("it ended at once")));
    let handle = made.map_err(|cause| ThreadError { name: name.to_owned(), cause })?;
    Ok((handle, thread))
}

/// Starts `work`, which may wait for programs and files, on a thread of its own. The receiver gets what comes of it, or
/// an error if it panics. A runtime's own threads for such work make the caller panic where there can be none.
///
/// # Errors
///
/// As of [`spawn`].
pub(crate) fn run_blocking<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, ThreadError> {
    let (done, result) = oneshot::channel();
    // Nobody may wait for it any longer.
    spawn(name, None, move || _ = done.send(work()))?;
    Ok(result)
}

/// What to do about it.
fn hint(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => format!(
            "; processes and threads are at their limit{}: raise pids.max of the container's cgroup (kubelet's podPidsLimit), `ulimit -u` or \
             kernel.threads-max, whichever it is",
            pids_limit().map(|pids| format!(" ({pids})")).unwrap_or_default()
        ),
        Some(libc::EPERM | libc::ENOSYS) => "; a seccomp profile refuses the system call clone3, as those of old container runtimes do (Docker \
             before 20.10.10, libseccomp before 2.5): update the runtime, or give the container another profile (seccompProfile: Unconfined)"
            .to_owned(),
        Some(libc::ENOMEM) => "; memory is at its limit".to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => "; open files are at their limit (`ulimit -n`)".to_owned(),
        _ => String::new(),
    }
}

fn pids_limit() -> Option<String> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_in(&membership, |file| fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).ok())
}

/// The limit of processes that this process's cgroup has, and how many there are. `read` reads a file below the
/// cgroups' mount.
fn limit_in(membership: &str, read: impl Fn(&Path) -> Option<String>) -> Option<String> {
    let folders = membership.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (controllers, path) = (parts.nth(1)?, parts.next()?.trim_start_matches('/'));
        let root = match controllers {
            "" => PathBuf::new(),
            version1 if version1.split(',').any(|controller| controller == "pids") => PathBuf::from(version1),
            _ => return None,
        };
        // In a container without a cgroup namespace the mount shows only the container's part.
        Some([root.join(path), root])
    });
    folders.flatten().find_map(|folder| {
        let limit = read(&folder.join("pids.max"))?;
        let limit = limit.trim();
        let current = read(&folder.join("pids.current")).unwrap_or_default();
        (limit != "max").then(|| format!("pids.max {limit}, pids.current {}", current.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than any address space has.
    const TOO_MUCH: Option<usize> = Some(1 << 60);

    fn runtime() -> io::Result<Runtime> {
        tokio::runtime::Builder::new_current_thread().build()
    }

    #[tokio::test]
    async fn a_thread_with_a_runtime_that_cannot_be_started_is_an_error_and_no_panic() {
        let refused = spawn_with_runtime("worker-3", TOO_MUCH, runtime, |runtime| runtime.block_on(async {}));
        let text = refused.err().unwrap().to_string();
        assert!(text.contains("worker-3") && text.contains("limit"), "{text}");
    }

    #[tokio::test]
    async fn a_runtime_that_cannot_be_made_is_an_error_and_no_panic() {
        let make = || Err(io::Error::from_raw_os_error(libc::EMFILE));
        let refused = spawn_with_runtime("worker-3", None, make, |_| {});
        assert!(refused.err().unwrap().to_string().contains("open files are at their limit"));
    }

    #[tokio::test]
    async fn what_is_run_aside_gives_its_result_and_a_panic_is_an_error() {
        assert_eq!(run_blocking("work", || 7).unwrap().await, Ok(7));
        assert!(run_blocking("work", || -> u8 { panic!("for this test") }).unwrap().await.is_err());
    }

    #[test]
    fn each_reason_says_what_to_do() {
        let text =
            |code| ThreadError { name: "lines".to_owned(), cause: io::Error::from_raw_os_error(code) }.to_string();
        assert!(text(libc::EAGAIN).contains("pids.max") && text(libc::EAGAIN).contains("the thread lines"));
        for refusal in [libc::EPERM, libc::ENOSYS] {
            assert!(text(refusal).contains("clone3") && text(refusal).contains("seccomp"), "{}", text(refusal));
        }
    }

    #[test]
    fn the_limit_of_processes_is_found_with_either_version_of_cgroups() {
        let files = |known: &'static [(&'static str, &'static str)]| {
            move |file: &Path| {
                known.iter().find(|(path, _)| Path::new(path) == file).map(|(_, text)| format!("{text}\n"))
            }
        };
        let version2 = files(&[("pod/pids.max", "20"), ("pod/pids.current", "19")]);
        assert_eq!(limit_in("0::/pod\n", version2).unwrap(), "pids.max 20, pids.current 19");
        let version1 = files(&[("pids/pids.max", "30"), ("pids/pids.current", "30")]);
        assert_eq!(
            limit_in("4:memory:/a\n9:pids:/not/shown\n0::/\n", version1).unwrap(),
            "pids.max 30, pids.current 30"
        );
        assert_eq!(limit_in("0::/\n", files(&[("pids.max", "max")])), None);
        assert_eq!(limit_in("no such line\n", files(&[])), None);
    }
}
