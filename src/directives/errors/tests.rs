use super::{ErrorLog, Errors, parse};
use crate::chain::testing::{Sample, SharedOutput, configure};
use crate::chain::{Built, Level, LineSink, LogFormat};
use crate::message::{Rcode, RecordType};
use futures_util::FutureExt;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: &str = "read udp 127.0.0.1:4242->10.0.0.1:53: i/o timeout";

struct Scene {
    built: Built,
    sink: Arc<LineSink>,
    output: SharedOutput,
}

impl Scene {
    fn start(lines: &str) -> Self {
        let (block, diagnostics) = configure(parse, lines);
        assert_eq!(diagnostics, "");
        let errors = <dyn Any>::downcast_ref::<Errors>(&*block.parts[0].configured).expect("an Errors part");
        let output = SharedOutput::default();
        let sink = Arc::new(LineSink::to(output.clone(), 1 << 16, LogFormat::Text).unwrap());
        Self { built: ErrorLog::start(&errors.patterns, sink.clone()), sink, output }
    }
    fn fail(&self, name: &str, cause: &str) {
        let mut sample = Sample::new(name, RecordType::A);
        sample.fail(cause);
        self.built.observer.as_ref().unwrap().observe(&sample.exchange());
    }
    fn text(&self) -> String {
        assert!(self.sink.flush(Duration::from_secs(30)));
        self.output.text()
    }
    /// Runs the background until `done` holds of what was written.
    fn run_until(&mut self, done: impl Fn(&str) -> bool) {
        self.run_and(|_| {}, done);
    }
    /// The same, and `then` once the background waits.
    fn run_and(&mut self, then: impl FnOnce(&Self), done: impl Fn(&str) -> bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut background = self.built.background.pop().expect("a background");
        let output = self.output.clone();
        runtime.block_on(async {
            assert!((&mut background).now_or_never().is_none(), "the background ended");
            then(self);
            let seen = async {
                while !done(&output.text()) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                () = background => panic!("the background ended"),
                () = seen => {}
                () = tokio::time::sleep(Duration::from_secs(30)) => panic!("nothing but {:?}", output.text()),
            }
        });
    }
}

#[test]
fn a_failure_is_a_line_of_code_name_type_and_cause() {
    let running = Scene::start("errors");
    running.fail("A.example.", TIMEOUT);
    let mut sample = Sample::new("a.example.", RecordType::A);
    sample.answer(0x8180, Rcode::REFUSED, &[], &[]);
    running.built.observer.as_ref().unwrap().observe(&sample.exchange());
    assert_eq!(
        running.text(),
        format!("[ERROR] plugin/errors: 2 a.example. A: {TIMEOUT}\n"),
        "an answer is no failure"
    );
    assert!(running.built.background.is_empty(), "nothing to run without consolidation");
}

#[test]
fn errors_alike_are_told_when_their_time_is_over() {
    let mut running = Scene::start("errors {\n consolidate 0s \".* i/o timeout$\" warning\n consolidate 1h refused\n}");
    running.fail("a.example.", TIMEOUT);
    running.fail("b.example.", TIMEOUT);
    running.fail("c.example.", "connection refused");
    running.fail("d.example.", "no healthy proxies");
    assert_eq!(running.text(), "[ERROR] plugin/errors: 2 d.example. A: no healthy proxies\n");
    running.run_until(|text| text.contains("2 errors like '.* i/o timeout$' occurred in last 0s"));
    let text = running.text();
    let summaries: Vec<_> = text.lines().skip(1).collect();
    assert_eq!(
        summaries,
        [
            "[WARNING] plugin/errors: 2 errors like '.* i/o timeout$' occurred in last 0s",
            "[ERROR] plugin/errors: 1 errors like 'refused' occurred in last 1h0m0s",
        ],
        "the second is told early, since the background was stopped"
    );
    running.fail("e.example.", "connection refused");
    assert!(
        running.text().ends_with("[ERROR] plugin/errors: 2 e.example. A: connection refused\n"),
        "nothing is withheld after"
    );
}

#[test]
fn an_error_during_the_wait_for_another_shortens_it() {
    let mut running = Scene::start("errors {\n consolidate 1h refused\n consolidate 10ms timeout\n}");
    running.fail("a.example.", "connection refused");
    let late = |running: &Scene| running.fail("b.example.", TIMEOUT);
    running.run_and(late, |text| text.contains("1 errors like 'timeout' occurred in last 10ms"));
}

#[test]
fn the_first_of_many_can_be_shown_at_the_patterns_level() {
    let running = Scene::start("errors {\n consolidate 5m timeout warning show_first\n}");
    running.fail("a.example.", TIMEOUT);
    running.fail("b.example.", TIMEOUT);
    assert_eq!(running.text(), format!("[WARNING] plugin/errors: 2 a.example. A: {TIMEOUT}\n"));
}

#[test]
fn a_plan_that_never_ran_drops_its_background_without_a_word() {
    let mut running = Scene::start("errors {\n consolidate 5m timeout\n}");
    drop(running.built.background.pop());
    assert_eq!(running.text(), "");
}

#[test]
fn what_is_counted_is_told_when_the_background_goes_unpolled() {
    let mut running = Scene::start("errors {\n consolidate 5m timeout\n}");
    running.fail("a.example.", TIMEOUT);
    drop(running.built.background.pop());
    assert_eq!(running.text(), "[ERROR] plugin/errors: 1 errors like 'timeout' occurred in last 5m0s\n");
}

#[test]
fn all_options_are_read() {
    let lines = "errors stdout {\n stacktrace\n consolidate 1m30s a\n consolidate 5m b info\n consolidate 1s c debug show_first\n \
                 consolidate 1s d show_first\n}";
    let (block, diagnostics) = configure(parse, lines);
    assert_eq!(diagnostics, "");
    assert!(block.stacktrace);
    let errors = <dyn Any>::downcast_ref::<Errors>(&*block.parts[0].configured).unwrap();
    let read: Vec<_> = errors
        .patterns
        .iter()
        .map(|pattern| (pattern.period.as_secs(), pattern.regex.as_str(), pattern.level, pattern.shows_first))
        .collect();
    assert_eq!(
        read,
        [
            (90, "a", Level::Error, false),
            (300, "b", Level::Info, false),
            (1, "c", Level::Debug, true),
            (1, "d", Level::Error, true)
        ]
    );
    assert!(!configure(parse, "errors").0.stacktrace);
}

#[test]
fn wrong_lines_are_told_where_they_stand() {
    let long = format!("  errors {{\n    consolidate 1s {}\n  }}", "a".repeat(10_001));
    for (lines, position, says) in [
        ("  errors /var/log/errors", "Corefile:2:10:", "/var/log/errors"),
        ("  errors {\n    consolidate\n  }", "Corefile:3:5:", "DURATION REGEXP"),
        ("  errors {\n    consolidate 1s\n  }", "Corefile:3:5:", "DURATION REGEXP"),
        ("  errors {\n    consolidate soon a\n  }", "Corefile:3:17:", "soon"),
        ("  errors {\n    consolidate -1s a\n  }", "Corefile:3:17:", "-1s"),
        ("  errors {\n    consolidate 1s (\n  }", "Corefile:3:20:", "at octet 2: a `(` is not closed"),
        ("  errors {\n    consolidate 1s a warn\n  }", "Corefile:3:22:", "warning"),
        ("  errors {\n    consolidate 1s a error info\n  }", "Corefile:3:28:", "one level"),
        ("  errors {\n    consolidate 1s a show_first info\n  }", "Corefile:3:33:", "before show_first"),
        ("  errors {\n    stacktrace yes\n  }", "Corefile:3:", "stacktrace"),
        ("  errors {\n    stacktrase\n  }", "Corefile:3:5:", "stacktrace"),
        (long.as_str(), "Corefile:3:20:", "10001 octets"),
    ] {
        let (_, diagnostics) = configure(parse, lines);
        assert!(diagnostics.contains(position) && diagnostics.contains(says), "{lines}\n{diagnostics}");
    }
}
