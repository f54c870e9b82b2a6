//! The live view of `top`, the whole program in a pseudo-terminal (script(1)).

mod support;

use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use support::server::{binary, scratch, wait_until};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);
/// What leaves the screen as it was.
const END: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";

/// Answers each request with the same page until it is dropped. Returns where.
struct Agent {
    from: String,
    is_over: Arc<AtomicBool>,
}

impl Agent {
    fn start(status: &'static str, page: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let from = format!("http://{}", listener.local_addr().expect("it has an address"));
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = is_over.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let mut stream = stream.expect("somebody comes");
                _ = stream.read(&mut [0; 4096]);
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", page.len());
                _ = stream.write_all(format!("{head}{page}").as_bytes());
            }
        });
        Self { from, is_over }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // The one that it waits for.
        _ = std::net::TcpStream::connect(self.from.trim_start_matches("http://"));
    }
}

struct Terminal {
    script: Child,
    keys: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    seen: Vec<u8>,
    folder: TempDir,
}

impl Terminal {
    /// `top` in a terminal of 80 columns and 24 lines.
    fn start(from: &str) -> Self {
        let folder = scratch();
        let pid = folder.path().join("pid");
        let run =
            format!("stty rows 24 cols 80; echo $$ >{}; exec {} top --from {from}", pid.display(), binary().display());
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-f", "-c", &run, "/dev/null"]).env("TERM", "xterm").env("SHELL", "/bin/sh");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut script = command.spawn().expect("script(1) runs: apt-get install bsdutils");
        let keys = script.stdin.take();
        let mut out = script.stdout.take().expect("it is piped");
        let (tell, output) = channel();
        std::thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut octets) {
                if tell.send(octets[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { script, keys, output, seen: Vec::new(), folder }
    }

    fn press(&mut self, keys: &str) {
        let pipe = self.keys.as_mut().expect("it is open");
        pipe.write_all(keys.as_bytes()).expect("it runs");
        pipe.flush().expect("it runs");
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Waits until this is written from now on.
    fn wait(&mut self, expected: &str) {
        let (from, limit) = (self.seen.len(), Instant::now() + SOON);
        while !String::from_utf8_lossy(&self.seen[from..]).contains(expected) {
            let patience = limit.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(patience) {
                Ok(more) => self.seen.extend(more),
                Err(_) => panic!("{expected:?} in {:?}", self.seen()),
            }
        }
    }

    /// Waits for the end; the exit status.
    fn end(&mut self) -> Option<i32> {
        let mut status = None;
        let has_ended = wait_until(SOON, || {
            status = self.script.try_wait().expect("it is our child");
            status.is_some()
        });
        assert!(has_ended, "it runs on: {:?}", self.seen());
        while let Ok(more) = self.output.recv_timeout(SOON) {
            self.seen.extend(more);
        }
        status.and_then(|status| status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        _ = self.script.kill();
        _ = self.script.wait();
    }
}

/// What is left without the sequences that move, colour, erase, and change screens.
fn without_sequences(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|character: char| !matches!(character, '0'..='9' | ';' | '?')).unwrap_or(part.len());
        let known = part[end..].strip_prefix(['H', 'K', 'm', 'J', 'h', 'l']);
        left.push_str(known.unwrap_or_else(|| panic!("a sequence of others: {part:?}")));
    }
    left
}

fn page(name: &str) -> String {
    let row = |name: &str| json!({ "name": name, "client": name, "count": 7, "error": 0 });
    let window = json!({
        "seconds": 60.0, "queries": 6000, "hits": 5400, "names": [row(name), row("other.example.")],
        "clients": [row(name)], "nxdomain_names": [row(name)], "slowest": [{ "name": name, "type": name, "ms": 5.0 }],
    });
    let watchdog = json!({ "state": name, "events": [{ "event": name, "detail": name }] });
    json!({ "version": 1, "time_ms": 1000, "shows_names": true, "minute": window, "watchdog": watchdog }).to_string()
}

#[test]
fn keys_do_what_the_last_line_says_and_the_terminal_is_left_as_it_was() {
    let agent = Agent::start("200 OK", page("a.example."));
    let mut terminal = Terminal::start(&agent.from);
    terminal.wait("a.example.");
    assert!(terminal.seen().contains("hits 90.0 %") && terminal.seen().contains("q quit"), "{}", terminal.seen());
    for (keys, expected) in [
        ("4", "[nxdomain]"),
        ("\t", "[failed]"),
        ("\x1b[D", "[nxdomain]"),
        ("1s", "name+"),
        ("r", "name-"),
        ("/other", "filter: other_"),
        ("\r", "filtered by: other"),
        ("w", "last ten minutes"),
        ("f", "[frozen]"),
        ("0", "[watchdog]"),
    ] {
        terminal.press(keys);
        terminal.wait(expected);
    }
    terminal.press("q");
    assert_eq!(terminal.end(), Some(0), "{}", terminal.seen());
    assert!(terminal.seen().trim_end().ends_with(END), "{:?}", terminal.seen());
}

#[test]
fn who_ends_it_finds_the_terminal_as_it_was() {
    let agent = Agent::start("200 OK", page("a.example."));
    let mut terminal = Terminal::start(&agent.from);
    terminal.wait("a.example.");
    let pid = std::fs::read_to_string(terminal.folder.path().join("pid")).expect("it has started");
    let killed = Command::new("kill").args(["-TERM", pid.trim()]).status().expect("kill runs");
    assert!(killed.success());
    terminal.wait(END);
    assert_eq!(terminal.end(), Some(0));
    // As by Ctrl-C.
    let mut terminal = Terminal::start(&agent.from);
    terminal.wait("a.example.");
    terminal.press("\x03");
    terminal.wait(END);
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn nothing_of_what_an_agent_says_is_obeyed_by_the_terminal() {
    let hostile = "\u{9b}31m\u{1b}[2J\u{1b}]0;x\u{7}\u{7f}\u{202e}<script>".repeat(9);
    for (status, page) in [("200 OK", page(&hostile)), ("503 Gone", page(&hostile)), ("500 Oh", hostile.clone())] {
        let agent = Agent::start(status, page);
        let mut terminal = Terminal::start(&agent.from);
        terminal.wait("\\194\\155");
        for digit in "1234567890".chars() {
            terminal.press(&digit.to_string());
        }
        terminal.press("q");
        assert_eq!(terminal.end(), Some(0), "{:?}", terminal.seen());
        let left = without_sequences(&terminal.seen());
        let is_plain = |character: char| matches!(character, ' '..='~' | '\r' | '\n');
        assert!(left.chars().all(is_plain), "{left:?}");
    }
}

#[test]
fn without_a_terminal_it_says_what_to_do() {
    let output = Command::new(binary()).arg("top").stdin(Stdio::null()).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("--once"), "{said}");
}

#[test]
fn an_agent_is_found_by_the_name_of_its_host() {
    let agent = Agent::start("404 Not Found", String::new());
    let from = agent.from.replace("127.0.0.1", "localhost");
    let mut top = Command::new(binary());
    let output = top.args(["top", "--once", "--from", &from]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&from) && said.contains("is not served"), "{said}");
}
