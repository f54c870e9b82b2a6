use super::{Debounce, FileWatch, FolderInterest, PlacedWatches, WatchedPaths, Watcher};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const QUIET: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_millis(500);
/// How long a change may take to be told on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_burst_is_told_once_it_is_over() {
    let start = Instant::now();
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    let mut debounce = Debounce::new(QUIET, LONGEST);
    assert_eq!(debounce.due(), None);
    assert!(!debounce.take(start));
    for event in [0, 10, 20, 90] {
        debounce.note(at(event));
    }
    assert_eq!(debounce.due(), Some(at(190)));
    assert!(!debounce.take(at(189)));
    assert!(debounce.take(at(190)));
    assert!(!debounce.take(at(191)), "told twice");
    assert_eq!(debounce.due(), None);
}

#[test]
fn endless_unrest_is_told_all_the_same() {
    let start = Instant::now();
    let mut debounce = Debounce::new(QUIET, LONGEST);
    let mut told = Vec::new();
    for milliseconds in (0..1200).step_by(50) {
        let now = start + Duration::from_millis(milliseconds);
        if debounce.take(now) {
            told.push(milliseconds);
        }
        debounce.note(now);
    }
    assert_eq!(told, [500, 1000]);
}

#[test]
fn a_folder_that_cannot_be_watched_is_passed_on_though_its_name_is_not_utf8() {
    let mut subjects = WatchedPaths::default();
    subjects.add_folder(Path::new(OsStr::from_bytes(b"/conf\xff")));
    let no_inotify = tempfile::tempfile().unwrap();
    let placed = Watcher::new(no_inotify.into()).place(subjects);
    assert_eq!(placed.failed.len(), 1);
    let said = serde_json::to_string(&placed).expect("it can be passed on");
    assert_eq!(serde_json::from_str::<PlacedWatches>(&said).unwrap(), placed);
}

#[test]
fn of_a_files_folder_only_its_name_and_a_configmaps_links_concern_us() {
    let mut subjects = WatchedPaths::default();
    subjects.add_file(Path::new("/no-such/etc/Corefile"));
    subjects.add_file(Path::new("/no-such/etc/other"));
    let interest = subjects.0.get(Path::new("/no-such/etc")).unwrap();
    for (name, expected) in
        [("Corefile", true), ("other", true), ("..data", true), ("..2024_01", true), ("log", false), (".x", false)]
    {
        assert_eq!(interest.includes(Some(OsStr::new(name))), expected, "{name}");
    }
    assert!(interest.includes(None), "the folder's own end");
    subjects.add_folder(Path::new("/no-such/etc"));
    assert_eq!(subjects.0.values().collect::<Vec<_>>(), [&FolderInterest::Everything]);
    subjects.add_file(Path::new("Corefile"));
    assert!(subjects.0.contains_key(Path::new(".")));
}

/// A ConfigMap as the kubelet mounts it.
struct ConfigMap {
    folder: TempDir,
    versions: u32,
}

impl ConfigMap {
    fn new(text: &str) -> Self {
        let mut map = Self { folder: tempfile::tempdir().unwrap(), versions: 0 };
        map.swap(text);
        symlink("..data/Corefile.base", map.path("Corefile.base")).unwrap();
        map
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn swap(&mut self, text: &str) {
        self.versions += 1;
        let version = format!("..version_{}", self.versions);
        fs::create_dir(self.path(&version)).unwrap();
        fs::write(self.path(&version).join("Corefile.base"), text).unwrap();
        symlink(&version, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        if self.versions > 1 {
            fs::remove_dir_all(self.path(&format!("..version_{}", self.versions - 1))).unwrap();
        }
    }
}

async fn is_told(watch: &mut FileWatch) -> bool {
    tokio::time::timeout(PATIENCE, watch.changed()).await.is_ok()
}

/// The kernel has noted what was done by the time that it is done, and what concerns us begins a burst as soon as it is
/// read.
async fn is_silent(watch: &mut FileWatch) -> bool {
    let is_told = tokio::time::timeout(Duration::from_millis(1), watch.changed()).await.is_ok();
    !is_told && watch.debounce.due().is_none()
}

fn follow(watch: &mut FileWatch, subjects: WatchedPaths) {
    if let Some(inotify) = watch.descriptor() {
        let watcher = Watcher::new(inotify.try_clone_to_owned().unwrap());
        watch.adopt(watcher.place(subjects));
    }
}

/// Follows after a look, and looks once more where something is newly watched, until nothing is.
async fn come_to_rest(watch: &mut FileWatch, subjects: &WatchedPaths) {
    follow(watch, subjects.clone());
    if !is_silent(watch).await {
        if watch.debounce.due().is_some() {
            assert!(is_told(watch).await);
        }
        follow(watch, subjects.clone());
        assert!(is_silent(watch).await, "the same is told again and again");
    }
}

fn file(path: &Path) -> WatchedPaths {
    let mut subjects = WatchedPaths::default();
    subjects.add_file(path);
    subjects
}

#[tokio::test]
async fn what_changed_between_a_look_and_its_being_watched_is_told() {
    let mut map = ConfigMap::new("0");
    let path = map.path("Corefile.base");
    assert_eq!(fs::read_to_string(&path).unwrap(), "0");
    let mut watch = FileWatch::start();
    map.swap("1");
    follow(&mut watch, file(&path));
    assert!(is_told(&mut watch).await, "the first look was before the swap, the watch after it");

    // Behind a symbolic link into another folder, as long as that was not watched.
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("real"), "2").unwrap();
    fs::remove_file(&path).unwrap();
    symlink(files.path().join("real"), &path).unwrap();
    assert!(is_told(&mut watch).await);
    assert_eq!(fs::read_to_string(&path).unwrap(), "2");
    fs::write(files.path().join("real"), "3").unwrap();
    follow(&mut watch, file(&path));
    assert!(is_told(&mut watch).await, "the file behind the link changed before its folder was watched");
}

#[tokio::test]
async fn a_configmaps_swap_is_told_once_and_the_next_one_too() {
    let mut map = ConfigMap::new("0");
    let mut watch = FileWatch::start();
    for text in ["1", "2", "3"] {
        come_to_rest(&mut watch, &file(&map.path("Corefile.base"))).await;
        map.swap(text);
        assert!(is_told(&mut watch).await, "swap {text}");
        assert_eq!(fs::read_to_string(map.path("Corefile.base")).unwrap(), text);
        assert!(is_silent(&mut watch).await, "swap {text} was told twice");
    }
}

#[tokio::test]
async fn a_file_written_in_place_or_replaced_is_told_and_its_neighbours_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Corefile");
    fs::write(&path, "0").unwrap();
    let mut watch = FileWatch::start();
    come_to_rest(&mut watch, &file(&path)).await;
    fs::write(&path, "1").unwrap();
    assert!(is_told(&mut watch).await);
    fs::write(folder.path().join("new"), "2").unwrap();
    assert!(is_silent(&mut watch).await, "a neighbour was told");
    fs::rename(folder.path().join("new"), &path).unwrap();
    assert!(is_told(&mut watch).await);
    fs::remove_file(&path).unwrap();
    assert!(is_told(&mut watch).await);
    follow(&mut watch, WatchedPaths::default());
    fs::write(&path, "3").unwrap();
    assert!(is_silent(&mut watch).await, "it is not followed any more");
}

#[tokio::test]
async fn what_a_symbolic_link_stands_for_is_watched() {
    let (links, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (link, real) = (links.path().join("Corefile"), files.path().join("real"));
    fs::write(&real, "0").unwrap();
    symlink(&real, &link).unwrap();
    let mut watch = FileWatch::start();
    come_to_rest(&mut watch, &file(&link)).await;
    fs::write(&real, "1").unwrap();
    assert!(is_told(&mut watch).await);
}

#[tokio::test]
async fn a_folder_that_comes_later_or_comes_back_is_watched() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a").join("b");
    let mut subjects = WatchedPaths::default();
    subjects.add_folder(&folder);
    let mut watch = FileWatch::start();
    for _ in 0..2 {
        come_to_rest(&mut watch, &subjects).await;
        fs::create_dir_all(&folder).unwrap();
        assert!(is_told(&mut watch).await, "the folder came");
        come_to_rest(&mut watch, &subjects).await;
        fs::write(folder.join("stubDomains"), "{}").unwrap();
        assert!(is_told(&mut watch).await, "a file came");
        fs::remove_dir_all(parent.path().join("a")).unwrap();
        assert!(is_told(&mut watch).await, "the folder went");
    }
    assert_eq!(watch.poll_period(), super::WATCHED_POLL);
}

#[tokio::test]
async fn what_cannot_be_watched_is_polled_more_often() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "").unwrap();
    let mut watch = FileWatch::start();
    let mut subjects = WatchedPaths::default();
    subjects.add_folder(&path);
    follow(&mut watch, subjects);
    assert_eq!(watch.poll_period(), super::UNWATCHED_POLL);
    follow(&mut watch, WatchedPaths::default());
    assert_eq!(watch.poll_period(), super::WATCHED_POLL);
    assert_eq!(FileWatch { events: None, ..watch }.poll_period(), super::UNWATCHED_POLL);
}
