//! A reader of dnstap: fstrm_capture, and dnstap-read for what it has written.

use super::server::wait_until;
use super::tools::{run, tool};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// What a reader says that takes messages of dnstap: the control frame ACCEPT of Frame Streams, with the content type.
pub fn accept() -> Vec<u8> {
    const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
    const ACCEPT: u32 = 1;
    const FIELD_CONTENT_TYPE: u32 = 1;
    let body = [ACCEPT, FIELD_CONTENT_TYPE, CONTENT_TYPE.len() as u32].map(u32::to_be_bytes).concat();
    let length = (body.len() + CONTENT_TYPE.len()) as u32;
    [&[0; 4], length.to_be_bytes().as_slice(), &body, CONTENT_TYPE].concat()
}

/// A running fstrm_capture.
pub struct Capture {
    process: Child,
    file: PathBuf,
}

impl Capture {
    /// Listens as `arguments` say (`-u PATH`, or `-a ADDRESS -p PORT`), and writes to a file of that name in `folder`.
    pub fn start(arguments: &[&str], folder: &Path, name: &str) -> Self {
        let file = folder.join(name);
        let mut command = tool("fstrm_capture");
        command.args(["-t", "protobuf:dnstap.Dnstap"]).args(arguments).arg("-w").arg(&file);
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let capture = Self { process: process.unwrap_or_else(|e| panic!("starting {command:?}: {e}")), file };
        assert!(wait_until(SOON, || capture.file.exists()), "fstrm_capture does not begin");
        capture
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        super::processes::signal(i32::try_from(self.process.id()).expect("a process ID"), signal);
    }

    /// Has it end, and returns what it has read: a line for each message, as dnstap-read writes it.
    pub fn finish(mut self) -> Vec<String> {
        self.signal(libc::SIGTERM);
        let is_over = || matches!(self.process.try_wait(), Ok(Some(_)));
        assert!(wait_until(SOON, is_over), "fstrm_capture does not end");
        run(tool("dnstap-read").arg(&self.file)).lines().map(str::to_owned).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _it_may_have_ended = self.process.kill();
        let _it_is_reaped = self.process.wait();
    }
}

/// How many of these messages are of that kind, such as `CQ`.
pub fn count(messages: &[String], kind: &str) -> usize {
    messages.iter().filter(|line| line.split_whitespace().nth(2) == Some(kind)).count()
}
