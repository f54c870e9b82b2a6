//! What a server gets that another commands, and what it needs.

use super::FileServer;
use crate::app::files::{FileClient, FileReply, FileRequest, SnapshotDigest};
use crate::app::host::ConfigurationSource;
use crate::cli::{CorefileArgument, Invocation, Mode};
use crate::corefile::{Loader, SocketRole};
use crate::kube_dns::watch::WatchedPaths;
use crate::watchdog::channel::Channel;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A folder with a template, a ConfigMap and a file that neither names, and a watchdog that reads them for a server.
struct Scene {
    folder: TempDir,
    file_server: Arc<FileServer>,
    files: FileClient,
    _runtime: tokio::runtime::Runtime,
}

const SECRET: &str = "hunter2";

impl Scene {
    fn new(base: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("kube-dns")).unwrap();
        fs::write(folder.path().join("base"), base).unwrap();
        fs::write(folder.path().join("secret"), SECRET).unwrap();
        let at = |name: &str| folder.path().join(name).into_os_string();
        let words = [("-localip", OsString::from("127.0.0.1")), ("-conf", at("Corefile"))];
        let words = words.into_iter().chain([("-basecorefile", at("base")), ("-kubednscm", at("kube-dns"))]);
        let words = words.flat_map(|(flag, value)| [OsString::from(flag), value]);
        let Ok(Invocation::Serve(options)) =
            Invocation::parse([OsString::from("nodelocaldns")].into_iter().chain(words))
        else {
            panic!("no command line")
        };
        let file_server = Arc::new(FileServer::new(options.mode, options.dns_port, None));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (here, there) = Channel::pair().unwrap();
        let files = FileClient::new(there.into_fd()).unwrap();
        let entered = runtime.enter();
        file_server.serve(here);
        drop(entered);
        Self { folder, file_server, files, _runtime: runtime }
    }
    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
    fn put(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }
    /// What the server renders.
    fn rendered(&self) -> String {
        let (template, _) = self.file_server.rendering().unwrap();
        template.clone().refresh(&self.files.template().unwrap().snapshot).rendered.expect("it is good").text
    }
}

#[test]
fn a_server_that_writes_a_corefile_with_an_import_is_refused_and_reads_nothing_by_it() {
    let stage = Scene::new(".:53 {\n errors\n forward . __PILLAR__UPSTREAM__SERVERS__\n}\n");
    let secret = stage.at("secret").display().to_string();
    let folder = stage.folder.path().display();
    for text in [
        ".:53 {\n import secret\n}\n".to_owned(),
        format!(".:53 {{\n import {secret}\n}}\n"),
        format!(".:53 {{\n import {folder}/*\n}}\n"),
        format!(".:53 {{\n forward . {secret}\n}}\n"),
        format!(".:53 {{\n dnstap {secret}\n forward . __PILLAR__UPSTREAM__SERVERS__\n}}\n"),
        // Reading ends before it, this time.
        format!("}}\n.:53 {{\n import {secret}\n}}\n"),
        format!(".:53 {{\n import no-such-snippet\n}}\na:53 {{\n import {secret}\n}}\n"),
    ] {
        let error = stage.files.write(&text).expect_err(&text).to_string();
        assert!(error.contains("names files that the template does not"), "{error}");
        assert!(!stage.at("Corefile").exists(), "{text}");
        if !text.starts_with('}') {
            assert!(stage.files.write_refused(&text).is_err(), "{text}");
            assert!(!stage.at("Corefile.refused").exists(), "{text}");
        }
    }
    let snapshot = serde_json::to_string(&stage.files.corefile().unwrap().snapshot).unwrap();
    assert!(!snapshot.contains(SECRET) && !snapshot.contains("secret"), "{snapshot}");
}

#[test]
fn what_the_template_and_the_configmap_give_is_written_also_with_the_last_good_configmap() {
    let stage = Scene::new("import zones/*.conf\n.:53 {\n import part\n forward . __PILLAR__UPSTREAM__SERVERS__\n}\n");
    fs::create_dir(stage.at("zones")).unwrap();
    stage.put("zones/one.conf", "one.test:53 {\n forward . 192.0.2.1\n}\n");
    stage.put("part", "errors\n");
    let written = |text: &str| {
        stage.files.write(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(fs::read_to_string(stage.at("Corefile")).unwrap(), text);
        stage.files.write_refused(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    };
    written(&stage.rendered());
    stage.put("kube-dns/stubDomains", r#"{"acme.local": ["1.2.3.4"]}"#);
    stage.put("kube-dns/upstreamNameservers", r#"["192.0.2.2"]"#);
    let good = stage.rendered();
    assert!(good.contains("acme.local:53") && good.contains("192.0.2.2"), "{good}");
    written(&good);
    stage.put("kube-dns/stubDomains", "{");
    written(&good);
}

#[test]
fn of_files_of_data_those_alone_are_read_again_that_a_good_configuration_has_named() {
    let stage = Scene::new("");
    let hosts = stage.at("hosts");
    let secret = stage.at("secret");
    let base = |path: &std::path::Path, more: &str| format!(".:53 {{\n hosts {}\n{more}}}\n", path.display());
    stage.put("hosts", "192.0.2.1 a.test\n");
    stage.put("base", &base(&hosts, ""));
    assert!(stage.files.data(&hosts, None).is_err(), "nothing has been read");
    stage.rendered();
    let first = stage.files.data(&hosts, None).unwrap().unwrap();
    assert_eq!(first.text, "192.0.2.1 a.test\n");
    assert_eq!(stage.files.data(&hosts, Some(first.stamp)).unwrap(), None);
    stage.put("hosts", "192.0.2.22 a.test\n");
    assert_eq!(stage.files.data(&hosts, Some(first.stamp)).unwrap().unwrap().text, "192.0.2.22 a.test\n");
    // What a bad configuration names is not read again, and what the former one named is still.
    stage.put("base", &base(&secret, " nonsense\n"));
    _ = stage.files.template().unwrap();
    assert!(stage.files.data(&secret, None).unwrap_err().to_string().contains("no good configuration has named it"));
    assert!(stage.files.data(&hosts, None).is_ok());
    // One that comes later is read once it is there.
    let later = stage.at("later");
    stage.put("base", &base(&later, ""));
    stage.rendered();
    assert!(stage.files.data(&later, None).is_err());
    stage.put("later", "\n");
    assert!(stage.files.data(&later, None).unwrap().is_some());
}

#[test]
fn what_has_not_changed_is_not_passed_on_and_what_is_lacking_is_a_change_once_it_comes() {
    let stage = Scene::new("");
    let more = stage.at("more").display().to_string();
    stage.put("Corefile", &format!(".:53 {{\n import {more}\n hosts {}\n}}\n", stage.at("hosts").display()));
    let mut seen = stage.files.corefile().unwrap().digest;
    let is_passed = |seen: &SnapshotDigest| stage.files.corefile_unless(Some(seen)).unwrap().is_some();
    assert!(!is_passed(&seen));
    for (name, text, if_good, if_refused) in [
        ("secret", "nobody names it", false, false),
        ("more", "errors\n", true, true),
        // Whoever serves it reads it again, but one that is refused may lack it.
        ("hosts", "192.0.2.1 a.test\n", false, true),
        ("hosts", "192.0.2.1 a.test b.test\n", false, true),
        ("more", "erors\n", true, true),
    ] {
        stage.put(name, text);
        assert_eq!((is_passed(&seen.without_data()), is_passed(&seen)), (if_good, if_refused), "{name}: {text}");
        seen = stage.files.corefile().unwrap().digest;
        assert_eq!((is_passed(&seen.without_data()), is_passed(&seen)), (false, false), "{name}: {text}");
    }
}

#[test]
fn what_is_named_is_watched_by_its_name_also_of_a_refused_corefile() {
    let stage = Scene::new(".:53 {\n whoami\n}\n");
    let [certificates, parts] = ["certificates", "parts"].map(|name| stage.at(name));
    [&certificates, &parts].iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let text = format!(
        ".:53 {{\n import {}/*.conf\n forward . tls://192.0.2.1 {{\n  tls {}/ca.crt\n }}\n}}\n",
        parts.display(),
        certificates.display()
    );
    stage.put("Corefile", &text);
    _ = stage.files.corefile().unwrap();
    let mut expected = WatchedPaths::default();
    expected.add_file(&stage.at("base"));
    expected.add_folder(&stage.at("kube-dns"));
    assert_eq!(stage.file_server.subjects(false), expected);
    expected.add_file(&stage.at("Corefile"));
    expected.add_folder(&parts);
    expected.add_file(&certificates.join("ca.crt"));
    assert_eq!(stage.file_server.subjects(true), expected);
}

#[test]
fn of_sockets_those_alone_are_connected_to_that_a_good_configuration_has_named() {
    let stage = Scene::new("");
    let [named, other, bad] = ["named", "other", "bad"].map(|name| stage.at(name));
    let _listeners = [&named, &other, &bad].map(|path| UnixListener::bind(path).unwrap());
    let connect = |path: &Path| stage.files.socket(path, SocketRole::Connect).map(drop).map_err(|e| e.to_string());
    let base = |path: &Path, more: &str| format!(".:53 {{\n dnstap {}\n whoami\n{more}}}\n", path.display());
    assert!(connect(&named).is_err(), "nothing has been read");
    stage.put("base", &base(&named, ""));
    stage.rendered();
    assert_eq!(connect(&named), Ok(()));
    stage.put("base", &base(&bad, " nonsense\n"));
    _ = stage.files.template().unwrap();
    for path in [&other, &bad] {
        assert!(connect(path).unwrap_err().contains("no good configuration has named it"), "{}", path.display());
    }
    assert_eq!(connect(&named), Ok(()), "what the former one named is known still");
}

#[test]
fn a_pipe_in_place_of_a_text_is_refused_and_holds_no_thread() {
    let stage = Scene::new(".:53 {\n whoami\n}\n");
    let (reader, writer) = std::io::pipe().unwrap();
    let (reply, _) = stage.files.ask(&FileRequest::Write { is_refused: true }, &[reader.as_fd()]).unwrap();
    assert!(matches!(reply, FileReply::Written { error: Some(_) }), "{reply:?}");
    let (reply, _) = stage.files.ask(&FileRequest::Serving, &[reader.as_fd()]).unwrap();
    assert!(matches!(reply, FileReply::Failed { .. }), "{reply:?}");
    drop(writer);
}

#[test]
fn what_served_is_given_to_the_next_server_as_it_was_and_nothing_is_read_for_it() {
    let stage = Scene::new("");
    let hosts = stage.at("hosts");
    let corefile = format!(".:53 {{\n hosts {}\n}}\n", hosts.display());
    stage.put("hosts", "192.0.2.1 a.test\n");
    stage.put("Corefile", &corefile);
    assert!(stage.files.last_served().is_err(), "nothing has");
    let served = stage.files.corefile().unwrap();
    stage.files.note_serving(&served.served(None)).unwrap();
    stage.put("Corefile", &format!(".:53 {{\n hosts {}\n nonsense\n}}\n", stage.at("secret").display()));
    stage.put("hosts", "");
    // It is asked for, and not served.
    _ = stage.files.corefile().unwrap();
    for _ in 0..2 {
        let (recorded, text) = stage.files.last_served().unwrap();
        assert_eq!((recorded.snapshot.text(&stage.at("Corefile")).unwrap(), text), (corefile.clone(), None));
        assert_eq!(recorded.snapshot.data(&hosts).unwrap().text, "192.0.2.1 a.test\n");
        assert!(recorded.snapshot.data(&stage.at("secret")).is_err());
        assert_eq!(recorded.digest.without_data(), served.digest.without_data());
    }
    // One that stands in no file has its text beside it.
    let template = stage.files.template().unwrap();
    stage.files.note_serving(&template.served(Some("rendered"))).unwrap();
    assert_eq!(stage.files.last_served().unwrap().1.as_deref(), Some("rendered"));
    // What is too large is not remembered, and neither is what served before it any longer.
    let large = memfd_create("large", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&large, super::MOST_SERVED_OCTETS + 1).unwrap();
    let (reply, _) = stage.files.ask(&FileRequest::Serving, &[large.as_fd()]).unwrap();
    assert!(matches!(reply, FileReply::Failed { .. }), "{reply:?}");
    assert!(stage.files.last_served().is_err());
}

#[test]
fn what_is_remembered_cannot_grow_afterwards() {
    let stage = Scene::new("");
    let growing = memfd_create("growing", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    let (reply, _) = stage.files.ask(&FileRequest::Serving, &[growing.as_fd()]).unwrap();
    assert!(matches!(reply, FileReply::Noted), "{reply:?}");
    assert!(ftruncate(&growing, 1 << 30).is_err());
    assert!(stage.files.last_served().is_err(), "it is no record");
    let unsealable = memfd_create("unsealable", MemfdFlags::CLOEXEC).unwrap();
    let (reply, _) = stage.files.ask(&FileRequest::Serving, &[unsealable.as_fd()]).unwrap();
    assert!(matches!(reply, FileReply::Failed { .. }), "{reply:?}");
}

#[test]
fn a_server_that_asks_without_end_keeps_nothing_else_waiting() {
    const QUESTIONS: usize = 100;
    let (here, there) = Channel::pair().unwrap();
    let (answer, _answers) = Channel::pair().unwrap();
    let answer: OwnedFd = answer.into_fd();
    for _ in 0..QUESTIONS {
        there.send(&FileRequest::Resolver, &[answer.as_fd()]).unwrap();
    }
    let here = here.into_fd();
    let same = Channel::from_fd(here.try_clone().unwrap()).unwrap();
    let file_server = Arc::new(FileServer::new(Mode::Plain(CorefileArgument::BuiltIn), 53, None));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let left = runtime.block_on(async {
        file_server.serve(Channel::from_fd(here).unwrap());
        // The task has its turn, and this one the next.
        tokio::task::yield_now().await;
        std::iter::from_fn(|| same.receive::<FileRequest>().unwrap()).count()
    });
    assert!((QUESTIONS / 2..QUESTIONS).contains(&left), "{left} of {QUESTIONS}");
}

#[test]
fn a_server_that_asks_without_a_socket_for_the_answer_is_listened_to_no_longer() {
    let stage = Scene::new(".:53 {\n whoami\n}\n");
    stage.files.0.send(&FileRequest::Resolver, &[]).unwrap();
    // The other end closes.
    while stage.files.0.send(&FileRequest::Resolver, &[]).is_ok() {
        std::thread::yield_now();
    }
    assert!(stage.files.corefile().is_err());
}
