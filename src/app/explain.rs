//! The command `explain`: what a server would do with a question, of the one that runs here or of a Corefile.

use super::host::ThisHost;
use super::load::CorefileSource;
use super::top::{plain, plain_json, table};
use crate::admin::{self, ExplainRequest};
use crate::chain::{Effect, ProcessContext};
use crate::cli::{Explain, ExplainOf, OutputFormat};
use crate::message::{Name, RecordType};
use crate::plan::{self, AskReport, Asked, ExplainReport, OutcomeKind, QuestionReport, StepReport};
use anyhow::anyhow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Octets that the caches of a plan which never serves may take.
const CACHE_OCTETS: usize = 1 << 20;

/// Asks, and prints the answer.
pub(super) fn explain(command: &Explain) -> anyhow::Result<ExitCode> {
    let Explain { request, of, output } = command;
    let report = match of {
        ExplainOf::Server { label } => {
            let answer = admin::connect(label.as_deref())?.explain(request);
            // It may have the server's words in it.
            answer.map_err(|error| anyhow!("{}", plain(&error.to_string())))?
        }
        ExplainOf::Corefile { path, dns_port } => of_corefile(request, path, *dns_port)?,
    };
    let text = match output {
        OutputFormat::Json => format!("{}\n", plain_json(&serde_json::to_string(&report)?)),
        OutputFormat::Text => text(&report),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What a plan of a Corefile would do that serves on this machine and has just begun. Nothing is sent.
fn of_corefile(request: &ExplainRequest, path: &Path, dns_port: u16) -> anyhow::Result<ExplainReport> {
    let loaded = CorefileSource::file(path)?.load(dns_port, &ThisHost)?;
    let process = ProcessContext { reaches_out: false, ..ProcessContext::new(1, CACHE_OCTETS) };
    let plan = loaded.config.build(&process)?;
    let ExplainRequest { name, qtype, client, server, .. } = request;
    let asked = Asked { name: Name::parse(name)?, qtype: RecordType(*qtype), client: *client, server: *server };
    let mut report = plan::explain(&plan.listeners, &asked, Instant::now())?;
    let note = "of a Corefile that is not served here: caches are empty, and no upstream is known to be down";
    report.note = Some(note.to_owned());
    Ok(report)
}

fn with_place(text: &str, at: Option<&str>) -> String {
    match at {
        Some(at) => format!("{} ({})", plain(text), plain(at)),
        None => plain(text),
    }
}

/// For people: the verdict first.
fn text(report: &ExplainReport) -> String {
    let ExplainReport { verdict, at, question, block, steps, .. } = report;
    let mut out = with_place(verdict, at.as_deref());
    out.push('\n');
    let cost = match (report.asks_upstream, report.outcome) {
        (true, OutcomeKind::Answered) => "none for the client: upstreams are asked for a newer answer meanwhile",
        (true, _) => "an exchange with an upstream, unless one for the same question is under way",
        (false, _) => "none: what is said is at hand",
    };
    let QuestionReport { name, r#type: qtype, client, server, transport } = question;
    let over = transport.to_uppercase();
    let mut line = |word: &str, text: &str| _ = writeln!(out, "  {word:<9} {text}");
    line("question", &plain(&format!("{name} {qtype}, from {client}, to {server} over {over}")));
    if let Some(block) = block {
        let view = if block.view.is_empty() { String::new() } else { format!(", view {}", block.view) };
        line("block", &with_place(&format!("{}{view}", block.zone), block.at.as_deref()));
    }
    line("cost", cost);
    report.hints.iter().for_each(|hint| line("hint", &plain(hint)));
    report.note.iter().for_each(|note| line("note", &plain(note)));
    let rows: Vec<Vec<String>> = steps.iter().flat_map(rows).collect();
    table(&mut out, "steps", &["at", "directive", "does", "why"], &rows);
    let records = |records: &[String]| records.iter().map(|record| vec![plain(record)]).collect::<Vec<_>>();
    table(&mut out, "what the client is given", &["records"], &records(&report.records));
    if let Some(asked) = &report.asked {
        _ = writeln!(out, "\nasked for real: {}", asked_words(asked));
        let timed = asked.steps.iter().map(|step| {
            let time = step.ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.3}"));
            let what = format!("{}{}", "  ".repeat(step.depth), plain(&step.what));
            let peer = step.peer.as_deref().map(plain).unwrap_or_default();
            vec![format!("{:.3}", step.start_ms), time, what, peer]
        });
        table(&mut out, "where the time went", &[">from ms", ">for ms", "in", "with"], &timed.collect::<Vec<_>>());
        table(&mut out, "what the client was given", &["records"], &records(&asked.records));
    }
    out
}

/// A row for each line that a step says.
fn rows(step: &StepReport) -> Vec<Vec<String>> {
    let does = match step.does {
        Effect::Passes => "passes",
        Effect::Changes => "changes",
        Effect::Answers => "answers",
        Effect::Asks => "asks",
        Effect::Fails => "fails",
        Effect::Drops => "drops",
        Effect::Observes => "observes",
        Effect::Sets => "sets",
        Effect::NotReached => "not reached",
    };
    let first = [step.at.as_deref().unwrap_or("-"), &step.directive, does].map(plain);
    let mut says = step.says.iter().map(|line| plain(line));
    let mut rows = vec![[&first[..], &[says.next().unwrap_or_default()]].concat()];
    rows.extend(says.map(|line| vec![String::new(), String::new(), String::new(), line]));
    rows
}

fn asked_words(asked: &AskReport) -> String {
    let mut words = match &asked.rcode {
        Some(rcode) => format!("{} in {:.3} ms", plain(rcode), asked.ms),
        None => format!("no answer in {:.3} ms", asked.ms),
    };
    if !asked.answered_by.is_empty() {
        _ = write!(words, ", by {}", plain(&asked.answered_by));
    }
    if asked.is_at_hand {
        words.push_str(", at hand");
    }
    if let Some(upstream) = &asked.upstream {
        let over =
            if asked.transport.is_empty() { String::new() } else { format!(" over {}", plain(&asked.transport)) };
        _ = write!(words, ", from {}{over}, messages sent: {}", plain(upstream), asked.tries);
    }
    if asked.is_stale {
        words.push_str(", stale");
    }
    if let Some(failure) = &asked.failure {
        _ = write!(words, ": {}", plain(failure));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{AskReport, TimedStep};

    const HOSTILE: &str = "\u{1b}[31m\u{202e}\n";

    fn hostile() -> ExplainReport {
        let text = || HOSTILE.to_owned();
        let step = StepReport { directive: text(), at: Some(text()), does: Effect::Asks, says: vec![text(), text()] };
        let timed = TimedStep { what: text(), depth: 1, start_ms: 0.5, ms: None, peer: Some(text()) };
        let asked = AskReport {
            rcode: Some(text()),
            answered_by: text(),
            failure: Some(text()),
            upstream: Some(text()),
            transport: text(),
            steps: vec![timed],
            records: vec![text()],
            ..AskReport::default()
        };
        ExplainReport {
            verdict: text(),
            at: Some(text()),
            hints: vec![text()],
            steps: vec![step],
            records: vec![text()],
            note: Some(text()),
            asked: Some(asked),
            ..ExplainReport::default()
        }
    }

    #[test]
    fn nothing_that_is_told_is_obeyed_by_a_terminal() {
        let printed = text(&hostile());
        assert!(printed.chars().all(|character| matches!(character, ' '..='~' | '\n')), "{printed:?}");
        assert!(printed.starts_with(r"\027[31m\226\128\174\010 (\027[31m"), "{printed}");
    }

    #[test]
    fn a_report_is_read_as_it_was_written_and_one_of_a_later_version_too() {
        let report = hostile();
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<ExplainReport>(&json).unwrap(), report);
        let later = serde_json::json!({ "verdict": "is so", "outcome": "dropped", "more": [1] });
        assert_eq!(serde_json::from_value::<ExplainReport>(later).unwrap().verdict, "is so");
    }
}
