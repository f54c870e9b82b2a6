//! Chromium without a window, told what to do in its DevTools protocol, whose messages go through two pipes.

use super::support::server::scratch;
use command_fds::{CommandFdExt, FdMapping};
use data_encoding::BASE64;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The descriptors at which it takes messages, and gives them.
const PIPES: [i32; 2] = [3, 4];
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Browser {
    child: Child,
    commands: File,
    messages: Receiver<Value>,
    last: u64,
    /// What pages have complained of.
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

pub(crate) struct Page<'a> {
    browser: &'a mut Browser,
    session: String,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = scratch();
        let (reads, commands) = std::io::pipe().expect("pipes are to be had");
        let (told, writes) = std::io::pipe().expect("pipes are to be had");
        let mut command = Command::new("chromium");
        command.args([
            "--headless",
            // Tests run as root in CI, too, and what they show is their own.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let [takes, gives] = PIPES;
        let mapped = command.fd_mappings(vec![
            FdMapping { parent_fd: reads.into(), child_fd: takes },
            FdMapping { parent_fd: writes.into(), child_fd: gives },
        ]);
        mapped.expect("both are other descriptors");
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start chromium: {error}; apt-get install chromium, or scripts/install-test-deps")
        });
        // Its ends of the pipes are its alone, so that they close with it.
        drop(command);
        let (tell, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(told).split(0) {
                let Ok(message) = message.map_err(drop).and_then(|text| serde_json::from_slice(&text).map_err(drop))
                else {
                    return;
                };
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let commands = File::from(std::os::fd::OwnedFd::from(commands));
        Self { child, commands, messages, last: 0, complaints: Vec::new(), _profile: profile }
    }

    /// Opens an address in a page of its own, and waits until it has loaded.
    pub(crate) fn open(&mut self, url: &str) -> Page<'_> {
        let target = self.ask(None, "Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.ask(None, "Target.attachToTarget", target);
        let session = session["sessionId"].as_str().expect("it has one").to_owned();
        let mut page = Page { browser: self, session };
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            page.ask(domain, json!({}));
        }
        let went = page.ask("Page.navigate", json!({ "url": url }));
        assert!(went["errorText"].is_null(), "{url}: {went}");
        page
    }

    fn ask(&mut self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut octets = message.to_string().into_bytes();
        octets.push(0);
        self.commands.write_all(&octets).expect("the browser runs");
        loop {
            let mut message = match self.messages.recv_timeout(PATIENCE) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => panic!("the browser does not answer {method}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the browser has ended at {method}"),
            };
            self.hear(&message);
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
        }
    }

    /// Keeps what a page complains of: what its console shows, errors of its script, what its policy forbids, dialogs.
    fn hear(&mut self, message: &Value) {
        let method = message["method"].as_str().unwrap_or_default();
        let complains =
            ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening"];
        if complains.contains(&method) {
            self.complaints.push(message.to_string());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Page<'_> {
    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.browser.ask(Some(&self.session), method, parameters)
    }

    /// The value of an expression.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let mut told = self.ask("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told}");
        told["result"]["value"].take()
    }

    /// What stands in the element with this ID; nothing if there is none.
    pub(crate) fn text(&mut self, id: &str) -> String {
        let text = self.evaluate(&format!("document.getElementById('{id}')?.innerText ?? ''"));
        text.as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn press(&mut self, key: &str) {
        let text = if key == " " { key } else { "" };
        let (code, number) = match key {
            "ArrowDown" => (key, 40),
            "Tab" => (key, 9),
            _ => ("Space", 32),
        };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({ "type": kind, "key": key, "code": code, "windowsVirtualKeyCode": number, "text": text });
            self.ask("Input.dispatchKeyEvent", event);
        }
    }

    /// On a screen of this size, in `light` or `dark`.
    pub(crate) fn show_as(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", features);
    }

    /// In WebP.
    pub(crate) fn screenshot(&mut self) -> Vec<u8> {
        let shot = self.ask("Page.captureScreenshot", json!({ "format": "webp", "quality": 40 }));
        BASE64.decode(shot["data"].as_str().expect("a text").as_bytes()).expect("base64")
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.browser.complaints.clone()
    }
}
