use super::*;
use crate::ports::free_port;
use std::io::{Read, Seek, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("handover.sock");
    (folder, path)
}

fn bound() -> (SocketAddr, Sockets) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    (address, Sockets::bind(&[address].into_iter().collect(), 2, &Sockets::default()).unwrap())
}

fn file(text: &str) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

/// A predecessor that gives one successor everything, and tells what it hears after that, so many times.
async fn serve(mut handover: Handover, sockets: Sockets, count: usize) -> (Handover, Vec<HandoverEvent>) {
    let mut event = Vec::new();
    while event.len() < count {
        match tokio::time::timeout(SOON, handover.next()).await.expect("something is heard") {
            HandoverEvent::TakeoverRequested => assert!(handover.offer(&sockets, Some(file("warm").as_fd()))),
            other => event.push(other),
        }
    }
    (handover, event)
}

/// [`Handover::announce`], and what [`Handover::next`] does for it.
async fn announce(handover: &mut Handover, path: &Path) {
    handover.announce(Some(path));
    while handover.pending.is_some() {
        let outcome = PendingListener::outcome(&mut handover.pending).await;
        handover.take_opened(outcome);
    }
}

/// [`Handover::take_over`] where it does not keep the runtime from running.
async fn take_over(path: &Path) -> (Handover, Result<Option<InheritedState>, HandoverError>) {
    let path = path.to_owned();
    let runtime = tokio::runtime::Handle::current();
    let blocking = move || {
        let _entered = runtime.enter();
        let mut handover = Handover::default();
        let outcome = handover.take_over(&path);
        (handover, outcome)
    };
    tokio::task::spawn_blocking(blocking).await.unwrap()
}

#[tokio::test]
async fn a_successor_gets_sockets_and_cache_and_tells_of_its_proof_and_of_its_end() {
    let (_folder, path) = folder();
    let (address, sockets) = bound();
    let mut old = Handover::default();
    announce(&mut old, &path).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let serving = tokio::spawn(serve(old, sockets.clone(), 2));
    let (mut new, outcome) = take_over(&path).await;
    let inherited = outcome.unwrap().expect("somebody was there");
    assert_eq!(inherited.sockets.addresses().collect::<Vec<_>>(), [address]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"waits", address).unwrap();
    assert_eq!(inherited.sockets.fds().count(), 3, "each socket, and no other in its place");
    let mut warm = String::new();
    std::fs::File::from(inherited.cache.unwrap()).read_to_string(&mut warm).unwrap();
    assert_eq!(warm, "warm");
    assert!(new.is_shared());
    announce(&mut new, &path).await;
    announce(&mut new, &path).await;
    drop(new);
    let (old, event) = serving.await.unwrap();
    assert_eq!(event, [HandoverEvent::SuccessorProven, HandoverEvent::SuccessorGone]);
    assert!(!old.is_shared());
}

#[tokio::test]
async fn the_socket_file_is_replaced_and_only_its_owner_removes_it() {
    let (folder, path) = folder();
    let (mut old, mut new) = (Handover::default(), Handover::default());
    std::fs::write(&path, "anything").unwrap();
    announce(&mut old, &path).await;
    announce(&mut new, &path).await;
    old.stop_offering();
    old.closed().await;
    assert!(path.exists(), "it is the new one's");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "and nothing beside it is left");
    new.stop_offering();
    new.closed().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn nobody_a_dead_peer_and_a_file_that_is_no_socket_are_no_predecessor() {
    let (_folder, path) = folder();
    assert!(matches!(take_over(&path).await.1, Ok(None)));
    // Bound, and closed without being removed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(take_over(&path).await.1, Err(HandoverError::Connect(_)) | Ok(None)));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "no socket").unwrap();
    assert!(matches!(take_over(&path).await.1, Ok(None) | Err(HandoverError::Connect(_))));
    let long = PathBuf::from(format!("/{}", "x".repeat(200)));
    assert!(matches!(take_over(&long).await.1, Err(HandoverError::Connect(_))));
}

#[tokio::test]
async fn a_predecessor_that_hangs_ends_or_talks_nonsense_costs_a_second_at_most() {
    let (_folder, path) = folder();
    for nonsense in
        [None, Some(&b"\xff\x00"[..]), Some(&br#"{"sockets":{"more":false,"new":1}}"#[..]), Some(&br#""cache""#[..])]
    {
        let listener = HandoverListener::open(BoundSocket::take(&path).unwrap()).unwrap();
        let peer = tokio::spawn(async move {
            let channel = listener.accept().await.unwrap();
            if let Some(nonsense) = nonsense {
                rustix::net::send(channel.into_fd(), nonsense, rustix::net::SendFlags::empty()).unwrap();
            } else {
                tokio::time::sleep(SOON).await;
            }
        });
        let started = Instant::now();
        let (new, outcome) = take_over(&path).await;
        assert!(matches!(outcome, Err(HandoverError::Channel(_) | HandoverError::OutOfOrder)), "{nonsense:?}");
        assert!(started.elapsed() < SOON && !new.is_shared());
        peer.abort();
    }
}

#[tokio::test]
async fn successors_that_talk_nonsense_hang_or_speak_another_version_do_not_keep_the_next_one_out() {
    let (_folder, path) = folder();
    let (_, sockets) = bound();
    let mut old = Handover::default();
    announce(&mut old, &path).await;
    let serving = tokio::spawn(serve(old, sockets, 1));
    let silent = listener::connect(&path).unwrap().unwrap();
    let gone = listener::connect(&path).unwrap().unwrap();
    drop(gone);
    let talker = listener::connect(&path).unwrap().unwrap();
    talker.send(&SuccessorMessage::Proven, &[]).unwrap();
    let newer = listener::connect(&path).unwrap().unwrap();
    newer.send(&SuccessorMessage::TakeOver { version: VERSION + 1 }, &[]).unwrap();
    let told = tokio::task::spawn_blocking(move || newer.wait::<PredecessorMessage>(SOON)).await.unwrap();
    assert!(matches!(&told, Ok((PredecessorMessage::Refused { reason }, _)) if reason.contains("version")), "{told:?}");
    let (new, outcome) = take_over(&path).await;
    assert!(outcome.unwrap().is_some());
    let (second, refused) = take_over(&path).await;
    assert!(matches!(refused, Err(HandoverError::Refused(_))) && !second.is_shared());
    drop((silent, talker, new));
    assert_eq!(serving.await.unwrap().1, [HandoverEvent::SuccessorGone]);
}

#[tokio::test]
async fn who_has_passed_on_is_not_missed() {
    let (_folder, path) = folder();
    let (_, sockets) = bound();
    let mut first = Handover::default();
    announce(&mut first, &path).await;
    let serving = tokio::spawn(serve(first, sockets.clone(), 1));
    let (mut second, outcome) = take_over(&path).await;
    outcome.unwrap().expect("somebody was there");
    announce(&mut second, &path).await;
    let (mut first, event) = serving.await.unwrap();
    assert_eq!(event, [HandoverEvent::SuccessorProven]);

    let serving = tokio::spawn(serve(second, sockets, 1));
    let (mut third, outcome) = take_over(&path).await;
    outcome.unwrap().expect("somebody was there");
    announce(&mut third, &path).await;
    let (second, event) = serving.await.unwrap();
    assert_eq!(event, [HandoverEvent::SuccessorProven]);
    drop(second);
    assert!(tokio::time::timeout(Duration::from_millis(300), first.next()).await.is_err(), "the third one serves");
    assert_eq!(tokio::time::timeout(SOON, third.next()).await, Ok(HandoverEvent::PredecessorGone));
}

#[tokio::test]
async fn the_socket_file_is_the_successors_before_its_predecessor_hears_of_the_proof() {
    let (_folder, path) = folder();
    for round in 0..20 {
        let listener = HandoverListener::open(BoundSocket::take(&path).unwrap()).unwrap();
        let own = std::fs::metadata(&path).unwrap().ino();
        let there = path.clone();
        let old = tokio::spawn(async move {
            let channel = listener.accept().await.unwrap();
            channel.send(&PredecessorMessage::Sockets { more: false }, &[]).unwrap();
            channel.send(&PredecessorMessage::Cache, &[]).unwrap();
            let event = move || {
                assert!(matches!(channel.wait(SOON), Ok((SuccessorMessage::TakeOver { .. }, _))));
                assert!(matches!(channel.wait(SOON), Ok((SuccessorMessage::Proven, _))));
                std::fs::metadata(there).unwrap().ino()
            };
            let found = tokio::task::spawn_blocking(event).await.unwrap();
            listener.close().unwrap().await.unwrap();
            found
        });
        let (mut new, outcome) = take_over(&path).await;
        assert!(outcome.unwrap().is_some());
        announce(&mut new, &path).await;
        assert_ne!(old.await.unwrap(), own, "round {round}: who leaves now would remove the successor's");
        assert!(path.exists());
    }
}

#[tokio::test]
async fn a_predecessor_that_never_ends_costs_a_second_at_most() {
    let (_folder, path) = folder();
    let listener = HandoverListener::open(BoundSocket::take(&path).unwrap()).unwrap();
    let peer = tokio::spawn(async move {
        let channel = listener.accept().await.unwrap();
        // Until nobody hears it, and waiting a little where there is no room.
        loop {
            let sent = channel.send(&PredecessorMessage::Sockets { more: true }, &[]);
            if matches!(sent, Err(ChannelError::Socket(error)) if error.kind() != io::ErrorKind::WouldBlock) {
                break;
            }
            tokio::task::yield_now().await;
        }
    });
    let (new, outcome) = tokio::time::timeout(SOON, take_over(&path)).await.expect("it ends");
    assert!(matches!(outcome, Err(HandoverError::Channel(ChannelError::TimedOut(_)))));
    assert!(!new.is_shared());
    peer.await.unwrap();
}

#[tokio::test]
async fn a_successor_that_says_the_same_without_end_is_heard_once_and_holds_nothing_up() {
    let (_folder, path) = folder();
    let (_, sockets) = bound();
    let mut old = Handover::default();
    announce(&mut old, &path).await;
    let talker = listener::connect(&path).unwrap().unwrap();
    talker.send(&SuccessorMessage::TakeOver { version: VERSION }, &[]).unwrap();
    assert_eq!(old.next().await, HandoverEvent::TakeoverRequested);
    assert!(old.offer(&sockets, None));
    talker.send(&SuccessorMessage::Proven, &[]).unwrap();
    assert_eq!(old.next().await, HandoverEvent::SuccessorProven);
    let fill = || {
        let mut count = 0;
        while talker.send(&SuccessorMessage::Proven, &[]).is_ok()
            && talker.send(&SuccessorMessage::PassedOn, &[]).is_ok()
        {
            count += 1;
        }
        count
    };
    let waiting = fill();
    assert!(waiting > 10, "its messages wait: {waiting}");
    for _ in 0..3 {
        // What the watchdog does beside comes to its turn, however much there is to hear.
        assert!(tokio::time::timeout(Duration::from_millis(1), old.next()).await.is_err());
        assert!(fill() < waiting / 2, "most of them wait still");
    }
}
