//! The status page in a real browser, Chromium: it shows what is asked, breaks no rule of its own policy, and whatever
//! is asked for is text to it. `SCREENSHOTS=write` makes those of docs/.

mod browser;
#[path = "../support/mod.rs"]
mod support;

use browser::{Browser, Page};
use serde_json::Value;
use std::net::TcpStream;
use std::time::Duration;
use support::client::{ask, http, loopback};
use support::ports::free_port;
use support::processes::ServerKiller;
use support::server::{Server, reference_command, scratch, wait_until, write_corefile};
use support::upstream::{Reply, Rule, Upstream, address_rule};

const SOON: Duration = Duration::from_secs(60);

/// What a browser would obey if it were more than text, in the presentation form of the status.
const HOSTILE: [&str; 4] = [
    "<img\\ src=x\\ onerror=alert\\(1\\)>.example.",
    "<script>alert\\(1\\)</script>.example.",
    "\\027[31m\\226\\128\\174\\\"9.example.",
    "javascript:alert\\(1\\)\\\".example.",
];

/// A name as long as there are: 255 octets in wire form.
fn longest() -> String {
    let label = "x".repeat(63);
    format!("{label}.{label}.{label}.{}.example.", "y".repeat(53))
}

struct Scene {
    server: Server,
    _upstream: Upstream,
    dns: u16,
    metrics: u16,
}

impl Scene {
    fn start() -> Self {
        let rule = |name: &str, reply: Reply| Rule { name: name.to_owned(), rtype: "*".to_owned(), via: None, reply };
        let slow = Reply { delay: 0.2, rcode: Some("NXDOMAIN".to_owned()), ..Reply::default() };
        let bad = Reply { rcode: Some("SERVFAIL".to_owned()), ..Reply::default() };
        let rules =
            [address_rule("a.example.", 300, "192.0.2.1"), rule("slow.example.", slow), rule("bad.example.", bad)];
        let upstream = Upstream::start(rules.into(), None);
        let (dns, metrics) = (free_port(), free_port());
        // The last brace is one too many, which is warned of.
        let corefile = format!(
            "example.:{dns} {{\n bind 127.0.0.1\n cache 30\n prometheus 127.0.0.1:{}\n forward . 127.0.0.1:{}\n}}\n}}\n",
            free_port(),
            upstream.port
        );
        let folder = scratch();
        let path = write_corefile(folder.path(), &corefile);
        let mut server = Server::spawn(reference_command(&path, metrics), folder);
        server.wait_ready(dns).unwrap_or_else(|error| panic!("{error}"));
        let scene = Self { server, _upstream: upstream, dns, metrics };
        let is_there = || TcpStream::connect(loopback(metrics)).is_ok();
        assert!(wait_until(SOON, is_there), "{}", scene.server.tail(20));
        scene
    }

    fn ask(&self, name: &str) {
        assert!(ask(loopback(self.dns), name, "A").is_some(), "{name}\n{}", self.server.tail(20));
    }

    /// Asks for a bit of everything.
    fn ask_much(&self) {
        for number in 0..400 {
            self.ask("a.example.");
            self.ask(&format!("n{}.missing.example.", number % 7));
        }
        for name in ["slow.example.", "bad.example.", "elsewhere.test.", &longest()].iter().chain(&HOSTILE) {
            self.ask(name);
        }
    }

    fn open<'a>(&self, browser: &'a mut Browser) -> Page<'a> {
        browser.open(&format!("http://127.0.0.1:{}/", self.metrics))
    }
}

/// Waits until what a section of the page shows is as wanted.
fn wait_shown(page: &mut Page<'_>, id: &str, is_shown: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    let is_there = wait_until(SOON, || {
        text = page.text(id);
        is_shown(&text)
    });
    assert!(is_there, "{id}: {text}\n{:?}", page.complaints());
    text
}

#[test]
fn it_shows_what_is_asked_and_whatever_is_asked_for_is_text() {
    let scene = Scene::start();
    scene.ask_much();
    let mut browser = Browser::start();
    let mut page = scene.open(&mut browser);
    wait_shown(&mut page, "state", |text| text.starts_with("All is well."));
    let names = page.text("names");
    assert!(names.contains("a.example."), "{names}");
    for (id, expected) in [
        ("interception", "No interception is wanted."),
        ("interception", "no rules are wanted"),
        ("history", "serving"),
        ("clients", "127.0.0.1"),
        ("nxdomain_names", "n0.missing.example."),
        ("failed_names", "bad.example."),
        ("slowest", "slow.example."),
        ("failures", "no server block has this name"),
        ("upstreams", "127.0.0.1:"),
        ("totals", "last minute"),
        ("configuration", "warning: "),
    ] {
        assert!(page.text(id).contains(expected), "{expected} in {id}:\n{}", page.text(id));
    }
    let status = http(&format!("{}/status.json", scene.metrics)).map(|(_, text)| text).unwrap_or_default();
    assert!(status.contains("\"is_intercepted\":false") && !status.contains("\"is_intercepted\":true"), "{status}");
    let missing = page.text("nxdomain_names");
    for name in HOSTILE.iter().copied().chain([longest().as_str()]) {
        assert!(missing.contains(name), "{name} in {missing}");
    }
    let made = "document.querySelectorAll('main img, main script, main a, main [onerror]').length";
    assert_eq!(page.evaluate(made), 0, "text has become markup");

    // Points come every ten seconds.
    let drawn = |page: &mut Page<'_>, id: &str| {
        page.evaluate(&format!("document.querySelector('#{id} path').getAttribute('d')"))
    };
    let is_drawn = |path: &Value| path.as_str().is_some_and(|path| path.starts_with('M') && path.contains('L'));
    for id in ["rate", "latency"] {
        assert!(
            wait_until(SOON, || {
                scene.ask("bad.example.");
                is_drawn(&drawn(&mut page, id))
            }),
            "{id}: {:?}",
            drawn(&mut page, id)
        );
    }
    assert_eq!(page.complaints(), Vec::<String>::new(), "nothing in its console");
}

#[test]
fn it_is_read_on_a_narrow_screen_by_keyboard_and_by_a_screen_reader() {
    let scene = Scene::start();
    scene.ask_much();
    let mut browser = Browser::start();
    let mut page = scene.open(&mut browser);
    wait_shown(&mut page, "state", |text| text.starts_with("All is well."));
    let is_kept = std::env::var_os("SCREENSHOTS").is_some_and(|how| how == "write");
    if is_kept {
        // Plots of some length.
        let points = "document.querySelector('#rate path').getAttribute('d').split('L').length";
        assert!(wait_until(SOON, || {
            scene.ask_much();
            page.evaluate(points).as_i64() > Some(4)
        }));
    }
    let mut shots = Vec::new();
    for (width, height) in [(400, 900), (1440, 1000)] {
        for scheme in ["light", "dark"] {
            page.show_as(width, height, scheme);
            let over = page.evaluate("document.documentElement.scrollWidth - innerWidth");
            assert!(over.as_i64() <= Some(0), "{width}: {over} columns beyond the screen");
            shots.push((format!("status-page-{width}-{scheme}"), page.screenshot()));
        }
    }
    assert!(
        shots.iter().all(|(_, shot)| shot.len() > 5000 && shot.len() < 60_000),
        "{:?}",
        shots.iter().map(|(name, shot)| (name, shot.len())).collect::<Vec<_>>()
    );
    assert!(shots[0].1 != shots[1].1, "dark is not light");
    if is_kept {
        for (name, shot) in &shots {
            let path = format!("{}/docs/{name}.webp", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, shot).expect("it can be written");
        }
    }
    for (script, why) in [
        ("document.querySelectorAll('th:not([scope=col])').length", "each column is said to be one"),
        ("document.querySelectorAll('svg:not([aria-label])').length", "each plot is said in words"),
        (
            "[...document.querySelectorAll('section')].filter(part => !document.getElementById(part.getAttribute('aria-labelledby'))?.textContent).length",
            "each section has a name",
        ),
        (
            "[...document.querySelectorAll('.box')].filter(box => box.tabIndex !== 0 || box.getAttribute('role') !== 'region').length",
            "what scrolls can be scrolled by keyboard",
        ),
        (
            "document.querySelectorAll('[role=status], [aria-live]').length - 1",
            "one thing alone is read aloud by itself",
        ),
        (
            "document.documentElement.lang === 'en' && document.querySelector('header h1') && document.querySelector('main') ? 0 : 1",
            "landmarks",
        ),
        (
            "getComputedStyle(document.getElementById('state')).color === getComputedStyle(document.body).backgroundColor ? 1 : 0",
            "it can be seen",
        ),
    ] {
        assert_eq!(page.evaluate(script), 0, "{why}");
    }

    // The window is chosen, and the page frozen, without a mouse.
    page.evaluate("document.getElementById('window').focus()");
    page.press("ArrowDown");
    assert_eq!(page.evaluate("document.getElementById('window').value"), "ten_minutes");
    page.press("Tab");
    page.press(" ");
    assert_eq!(page.evaluate("document.activeElement.getAttribute('aria-pressed')"), "true", "frozen");
    scene.ask("later.test.");
    let shows = "document.getElementById('failures').textContent.includes('later.test.')";
    // Longer than it waits from one look to the next.
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(page.evaluate(shows), false);
    page.press(" ");
    assert!(wait_until(SOON, || page.evaluate(shows) == true), "it goes on");
    assert_eq!(page.complaints(), Vec::<String>::new(), "nothing in its console");
}

#[test]
fn while_no_server_runs_it_shows_what_the_watchdog_knows_and_then_all_again() {
    let scene = Scene::start();
    let mut browser = Browser::start();
    let mut page = scene.open(&mut browser);
    wait_shown(&mut page, "state", |text| text.starts_with("All is well."));
    let killer = ServerKiller::start(scene.server.pid());
    wait_shown(&mut page, "state", |text| text.contains("is not running"));
    wait_shown(&mut page, "history", |text| text.contains("the server was ended by signal 9"));
    drop(killer);
    wait_shown(&mut page, "state", |text| text.starts_with("All is well."));
}
