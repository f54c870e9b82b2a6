//! What kubelet does for a pod: volumes, a container that is started again when it ends, probes, and the pod's end.

use super::image::Image;
use super::probe::Prober;
use super::runtime::Container;
use super::service_links::{Variable, all, api};
use super::spec::{Placement, spec};
use super::{seccomp, volumes};
use crate::cluster::{CLUSTER_IPS, UPSTREAM};
use crate::objects::Manifest;
use crate::support::processes::server;
use crate::support::server::{scratch, wait_until};
use crate::support::tools::write;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// For what a program under emulation takes some seconds for.
const SOON: Duration = Duration::from_secs(90);

/// Between looks at a container.
const LOOK: Duration = Duration::from_millis(20);

/// Pauses before restarts: the first comes at once, and each later one waits for twice as long as the one before, from
/// the container's end on (kubelet's back-off, `CrashLoopBackOff`).
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Whether the kernel ends all of a container when its memory is used up (`memory.oom.group`), as kubelet has it from
/// 1.28 on unless `singleProcessOOMKill` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomGroup {
    On,
    Off,
}

/// The node's.
pub struct Kubelet {
    image: Image,
    /// The node's own resolv.conf.
    pub resolv_conf: String,
    pub oom_group: OomGroup,
    /// So many times faster than kubelet's do the times of probes and the pauses before restarts pass.
    pub hurry: u32,
}

impl Kubelet {
    /// With the image unpacked.
    pub fn new(resolv_conf: &str) -> Self {
        prepare_cgroups();
        let image = Image::unpack();
        let resolv_conf = resolv_conf.to_owned();
        Self { image, resolv_conf, oom_group: OomGroup::On, hurry: 1 }
    }

    /// Starts the manifest's pod.
    pub fn start(&self, manifest: Manifest) -> Pod {
        let folder = scratch();
        let files = folder.path().join("files");
        std::fs::create_dir(&files).expect("the scratch folder can be written");
        for (name, text) in [
            ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
            ("hostname", "node\n"),
            ("resolv.conf", &self.resolv_conf),
            ("termination-log", ""),
        ] {
            write(&files, name, text);
        }
        volumes::set_up(&manifest, &folder.path().join("volumes"));
        let state = Arc::new(State {
            name: format!("node-local-dns-{:08x}", fastrand::u32(..)),
            root: self.image.root().to_owned(),
            service_links: service_links(&manifest),
            manifest,
            folder,
            oom_group: self.oom_group,
            hurry: self.hurry,
            status: Mutex::default(),
            is_deleted: AtomicBool::new(false),
        });
        let of_worker = state.clone();
        Pod { state, worker: Some(std::thread::spawn(move || of_worker.keep_running())) }
    }
}

/// Lets groups below the first have controllers. Processes may stand beside those in the first group alone.
fn prepare_cgroups() {
    let controllers = "/sys/fs/cgroup/cgroup.subtree_control";
    std::fs::write(controllers, "+cpu +memory +pids").unwrap_or_else(|error| panic!("{controllers}: {error}"));
}

/// Of a cluster whose Services in kube-system are KubeDNS's two.
fn service_links(manifest: &Manifest) -> Vec<Variable> {
    let (api, dns) = (api(), &manifest.upstream_service);
    let name = dns.metadata.name.as_deref().expect("the Service has a name");
    let services =
        [("kubernetes", ("10.96.0.1", &api)), ("kube-dns", (CLUSTER_IPS[0], dns)), (name, (UPSTREAM[0], dns))];
    all(&BTreeMap::from(services))
}

/// A pod. It is killed when this is dropped.
pub struct Pod {
    state: Arc<State>,
    worker: Option<JoinHandle<()>>,
}

struct State {
    /// Of this pod alone: cases share the machine's groups.
    name: String,
    manifest: Manifest,
    root: PathBuf,
    service_links: Vec<Variable>,
    folder: TempDir,
    oom_group: OomGroup,
    hurry: u32,
    status: Mutex<Status>,
    is_deleted: AtomicBool,
}

/// What there is to say of a pod.
#[derive(Default)]
struct Status {
    /// Since when without a break.
    ready_since: Option<Instant>,
    /// Of the running container: the first process and the group.
    first_process: Option<i32>,
    cgroup: PathBuf,
    /// How the containers before it ended.
    ends: Vec<String>,
}

impl Pod {
    /// Waits until it has been ready for the DaemonSet's `minReadySeconds`.
    pub fn await_available(&self) {
        let spec = self.state.manifest.daemon_set.spec.as_ref().expect("the DaemonSet has a specification");
        let seconds = Duration::from_secs(u64::try_from(spec.min_ready_seconds.unwrap_or(0)).expect("from 0 on"));
        let is_available =
            || self.state.status().ready_since.is_some_and(|since| since.elapsed() >= seconds / self.state.hurry);
        assert!(wait_until(SOON + seconds, is_available), "never available:\n{}", self.told());
    }

    pub fn is_ready(&self) -> bool {
        self.state.status().ready_since.is_some()
    }

    /// How the containers ended that were started again, or will be.
    pub fn ends(&self) -> Vec<String> {
        self.state.status().ends.clone()
    }

    /// Waits until so many containers have ended.
    pub fn await_ends(&self, count: usize) {
        assert!(wait_until(SOON, || self.ends().len() >= count), "fewer than {count} have ended:\n{}", self.told());
    }

    /// The running container's first process, which is the watchdog.
    pub fn watchdog(&self) -> i32 {
        let mut found = None;
        let is_there = || {
            found = self.state.status().first_process;
            found.is_some()
        };
        assert!(wait_until(SOON, is_there), "nothing runs:\n{}", self.told());
        found.expect("it was found")
    }

    /// The process that serves.
    pub fn server(&self) -> i32 {
        let mut found = None;
        let watchdog = self.watchdog().unsigned_abs();
        let is_there = || {
            found = server(watchdog);
            found.is_some()
        };
        assert!(wait_until(SOON, is_there), "no server:\n{}", self.told());
        found.expect("it was found")
    }

    /// A file of the running container's group.
    pub fn cgroup(&self, file: &str) -> PathBuf {
        self.watchdog();
        self.state.status().cgroup.join(file)
    }

    /// Everything in it gets SIGKILL at once, as when its memory is used up and `memory.oom.group` is set.
    pub fn kill_all(&self) {
        let file = self.cgroup("cgroup.kill");
        std::fs::write(&file, "1").unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// Ends it as kubelet does: SIGTERM, and SIGKILL when the grace period is over. How it ended.
    pub fn delete(mut self) -> String {
        self.state.is_deleted.store(true, Ordering::Relaxed);
        self.join();
        self.ends().pop().expect("a container has ended")
    }

    /// What its containers have written, and how they ended.
    pub fn told(&self) -> String {
        let ends = self.ends().join(", ");
        format!("{}: {ends}\n{}", self.state.name, self.state.output())
    }

    fn join(&mut self) {
        if let Some(worker) = self.worker.take()
            && let Err(panic) = worker.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.state.is_deleted.store(true, Ordering::Relaxed);
        let cgroup = self.state.status().cgroup.clone();
        let _it_may_have_ended = std::fs::write(cgroup.join("cgroup.kill"), "1");
        self.join();
        volumes::tear_down(&self.state.manifest, &self.state.folder.path().join("volumes"));
    }
}

impl State {
    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::Relaxed)
    }

    fn output(&self) -> String {
        let logs = (0..=self.status().ends.len()).map(|number| self.log(number));
        logs.filter_map(|log| std::fs::read_to_string(log).ok()).collect()
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("log-{number}"))
    }

    /// Runs one container after the other until the pod is deleted.
    fn keep_running(&self) {
        let mut pause = Duration::ZERO;
        loop {
            let until = Instant::now() + pause / self.hurry;
            if wait_until(until - Instant::now(), || self.is_deleted()) {
                return;
            }
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            let number = self.status().ends.len();
            let end = self.run(number);
            let mut status = self.status();
            (status.first_process, status.ready_since) = (None, None);
            status.ends.push(end);
            drop(status);
            if self.is_deleted() {
                return;
            }
        }
    }

    /// Runs a container to its end; how that was.
    fn run(&self, number: usize) -> String {
        let id = format!("{}-{number}", self.name);
        let cgroup = Path::new("/kubepods/burstable").join(format!("pod-{}", self.name)).join(&id);
        let placement = Placement {
            root: &self.root,
            volumes: &self.folder.path().join("volumes"),
            files: &self.folder.path().join("files"),
            service_links: self.service_links.clone(),
            cgroup: &cgroup,
            has_oom_group: self.oom_group == OomGroup::On,
        };
        let spec = spec(self.manifest.pod(), &placement, seccomp::runtime_default);
        let mut container = Container::start(&id, &spec, self.folder.path(), &self.log(number));
        let mut status = self.status();
        status.cgroup = Path::new("/sys/fs/cgroup").join(cgroup.strip_prefix("/").expect("an absolute path"));
        status.first_process = container.first_process();
        drop(status);
        let is_over = AtomicBool::new(false);
        let is_unhealthy = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| self.probe_readiness(&is_over));
            scope.spawn(|| self.probe_liveness(&is_over, &is_unhealthy));
            let has_ended = |container: &mut Container| container.end().is_some();
            while !has_ended(&mut container) && !self.is_deleted() && !is_unhealthy.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
            }
            is_over.store(true, Ordering::Relaxed);
            let why = if is_unhealthy.load(Ordering::Relaxed) { ", for its liveness probe fails" } else { "" };
            format!("{}{why}", container.stop(self.grace()))
        })
    }

    fn grace(&self) -> Duration {
        let seconds = self.manifest.pod().termination_grace_period_seconds.unwrap_or(30);
        Duration::from_secs(u64::try_from(seconds).expect("a time from 0 on"))
    }

    fn probe_readiness(&self, is_over: &AtomicBool) {
        let probe = self.manifest.container().readiness_probe.as_ref().expect("the container has a readiness probe");
        let mut prober = Prober::new(probe, self.hurry);
        while !is_over.load(Ordering::Relaxed) {
            match prober.poll() {
                Some(true) => _ = self.status().ready_since.get_or_insert_with(Instant::now),
                Some(false) => self.status().ready_since = None,
                None => std::thread::sleep(LOOK),
            }
        }
    }

    fn probe_liveness(&self, is_over: &AtomicBool, is_unhealthy: &AtomicBool) {
        let probe = self.manifest.container().liveness_probe.as_ref().expect("the container has a liveness probe");
        let mut prober = Prober::new(probe, self.hurry);
        while !is_over.load(Ordering::Relaxed) {
            match prober.poll() {
                Some(false) => return is_unhealthy.store(true, Ordering::Relaxed),
                Some(true) | None => std::thread::sleep(LOOK),
            }
        }
    }
}
