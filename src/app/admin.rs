//! The commands `cache` and `log-level`: ask a server at its admin socket, and print what it says.

use super::top::{plain, plain_json, table};
use crate::admin::{self, CacheRequest, LogLevelRequest, LogLevels};
use crate::cli::{AdminTarget, OutputFormat};
use serde_json::Value;
use std::io::{self, Write};
use std::process::ExitCode;

/// Asks, and prints the answer.
pub(super) fn ask_cache(request: &CacheRequest, target: &AdminTarget) -> anyhow::Result<ExitCode> {
    let answer = admin::connect(target.label.as_deref())?.ask_cache(request);
    // It may have the server's words in it.
    let answer = answer.map_err(|error| anyhow::anyhow!("{}", plain(&error.to_string())))?;
    let text = match target.output {
        OutputFormat::Json => format!("{}\n", plain_json(&answer.to_string())),
        OutputFormat::Text => tables(request, &answer),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    let is_missing = matches!(request, CacheRequest::Get { .. }) && answer["matched"] == 0;
    Ok(if is_missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Has a server log more or less, or says how much it logs.
pub(super) fn log_level(request: LogLevelRequest, target: &AdminTarget) -> anyhow::Result<ExitCode> {
    let levels = admin::connect(target.label.as_deref())?.log_level(request);
    // It may have the server's words in it.
    let levels = levels.map_err(|error| anyhow::anyhow!("{}", plain(&error.to_string())))?;
    let text = match target.output {
        OutputFormat::Json => {
            let LogLevels { configured, set } = levels;
            let json = serde_json::json!({ "level": levels.level(), "configured": configured, "set": set });
            format!("{json}\n")
        }
        OutputFormat::Text => told(&levels),
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn told(levels: &LogLevels) -> String {
    let (level, configured) = (levels.level().name(), levels.configured.name());
    match levels.set {
        None => format!("{level}, as the Corefile says\n"),
        Some(_) => format!("{level}; by the Corefile it would be {configured}\n"),
    }
}

/// The text of a field, of whichever type it is.
fn field(row: &Value, name: &str) -> String {
    match &row[name] {
        Value::String(text) => plain(text),
        Value::Null => "-".to_owned(),
        Value::Array(texts) => {
            texts.iter().map(|text| plain(text.as_str().unwrap_or("?"))).collect::<Vec<_>>().join(" ")
        }
        other => plain(&other.to_string()),
    }
}

fn rows<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}

fn tables(request: &CacheRequest, answer: &Value) -> String {
    let mut out = String::new();
    match request {
        CacheRequest::Stats => {
            let cells = |cache: &Value| {
                let of_kind = |kind: &str| {
                    let kind = &cache[kind];
                    [format!("{} of {}", field(kind, "entries"), field(kind, "capacity")), field(kind, "bytes")]
                };
                let names = ["zones", "view", "servers"].map(|name| field(cache, name));
                [&names[..], &of_kind("success"), &of_kind("denial")].concat()
            };
            let caches: Vec<_> = rows(answer, "caches").iter().map(cells).collect();
            let heading =
                format!("caches: {} of {} octets taken", field(answer, "memory_used"), field(answer, "memory_limit"));
            let columns = ["zones", "view", "servers", ">answers", ">octets", ">denials", ">octets"];
            match caches.is_empty() {
                true => out.push_str("no server block has a cache\n"),
                false => table(&mut out, &heading, &columns, &caches),
            }
        }
        CacheRequest::List { .. } | CacheRequest::Get { .. } => {
            let answers = rows(answer, "answers");
            let ttl = |row: &Value| if row["ttl"].is_null() { "stale".to_owned() } else { field(row, "ttl") };
            let cells = |row: &Value| {
                let [name, kind, rcode, age, bytes, flags, zones] =
                    ["name", "type", "rcode", "age", "bytes", "flags", "zones"].map(|name| field(row, name));
                vec![name, kind, rcode, ttl(row), age, bytes, flags, zones]
            };
            let heading = format!("{} of {} answers", answers.len(), field(answer, "matched"));
            let columns = ["name", "type", "rcode", ">ttl", ">age", ">octets", "flags", "cache of"];
            match answers.is_empty() {
                true => out.push_str("no such answer is kept\n"),
                false => table(&mut out, &heading, &columns, &answers.iter().map(cells).collect::<Vec<_>>()),
            }
            for row in answers.iter().filter(|row| !rows(row, "records").is_empty()) {
                let records = rows(row, "records").iter().map(|record| vec![plain(record.as_str().unwrap_or("?"))]);
                let heading = format!("{} {} {}", field(row, "name"), field(row, "type"), field(row, "flags"));
                table(&mut out, heading.trim_end(), &["records"], &records.collect::<Vec<_>>());
            }
        }
        CacheRequest::Flush(_) => out = format!("{} answers are gone\n", field(answer, "flushed")),
    }
    out.trim_start_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Level;
    use serde_json::json;

    #[test]
    fn answers_are_printed_with_their_records_and_nothing_that_a_terminal_would_obey() {
        let hostile = "\u{1b}[31m\u{202e}";
        let row = json!({
            "name": hostile, "type": "A", "rcode": "NOERROR", "ttl": 7, "age": 3, "bytes": 200, "flags": ["do", "cd"],
            "zones": ".", "records": [hostile],
        });
        let stale = json!({ "name": "b.", "type": "A", "rcode": "NXDOMAIN", "ttl": null, "age": 99, "flags": [] });
        let answer = json!({ "matched": 9, "answers": [row, stale] });
        let get = CacheRequest::Get { name: "a.".to_owned(), qtype: None };
        let text = tables(&get, &answer);
        assert!(text.chars().all(|character| matches!(character, ' '..='~' | '\n')), "{text:?}");
        assert!(text.starts_with("2 of 9 answers\n") && text.contains("do cd") && text.contains("stale"), "{text}");
        assert!(text.contains("records\n  \\027[31m"), "{text}");
        assert_eq!(tables(&get, &json!({ "matched": 0, "answers": [] })), "no such answer is kept\n");
    }

    #[test]
    fn a_log_level_is_told_with_who_has_said_so() {
        let configured = Level::Info;
        assert_eq!(told(&LogLevels { configured, set: None }), "info, as the Corefile says\n");
        let set = LogLevels { configured, set: Some(Level::Debug) };
        assert_eq!(told(&set), "debug; by the Corefile it would be info\n");
    }

    #[test]
    fn caches_are_a_table() {
        let kind = json!({ "entries": 3, "capacity": 9984, "bytes": 700 });
        let cache = json!({ "zones": ".", "view": "", "servers": ["dns://:53"], "success": kind, "denial": kind });
        let text = tables(&CacheRequest::Stats, &json!({ "memory_used": 1, "memory_limit": 2, "caches": [cache] }));
        assert!(text.starts_with("caches: 1 of 2 octets taken\n") && text.contains("3 of 9984"), "{text}");
    }
}
