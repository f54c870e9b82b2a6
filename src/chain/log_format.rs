//! The form of log lines: the reference's `[INFO] message`, or one JSON object a line for programs that read logs.

use serde::{Deserialize, Serialize};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{self, FormatTime};

/// How grave a line is; what it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For who looks into something.
    Debug,
    /// What goes on.
    Info,
    /// What somebody should know of.
    Warning,
    /// What somebody should act on.
    Error,
}

impl Level {
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Debug => "[DEBUG] ",
            Self::Info => "[INFO] ",
            Self::Warning => "[WARNING] ",
            Self::Error => "[ERROR] ",
        }
    }

    /// In JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// A line's level, and what comes after it.
    fn split(line: &str) -> Option<(Self, &str)> {
        let levels = [Self::Debug, Self::Info, Self::Warning, Self::Error];
        levels.into_iter().find_map(|level| Some((level, line.strip_prefix(level.prefix())?)))
    }
}

/// How log lines are written (`--log-format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// As node-cache has them
    #[default]
    Text,
    /// One JSON object a line, with time, level and message
    Json,
}

#[derive(Serialize)]
struct Record<'a> {
    /// RFC 3339, in UTC.
    time: &'a str,
    level: &'static str,
    message: &'a str,
}

/// Octets of a message in one object: with all else of it, it is written in one piece ([`super::line_sink`]), and no
/// object of the other process gets into it.
const MESSAGE: usize = 3900;

/// `lines`, whole ones in the form of text, as JSON. A line without a level belongs to the one before it; `level` is
/// that of the first, if it has none. What is longer than [`MESSAGE`] becomes several objects.
pub(super) fn to_json(level: Level, lines: &[u8], time: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(lines);
    let mut records: Vec<(Level, String)> = Vec::new();
    for line in text.lines() {
        let (own, line) = Level::split(line).map_or((None, line), |(level, line)| (Some(level), line));
        let mut parts = pieces(line).into_iter();
        let first = parts.next().unwrap_or_default();
        match (own, records.last_mut()) {
            (None, Some((_, message))) if written(message) + written("\n") + written(first) <= MESSAGE => {
                message.extend(["\n", first]);
            }
            (own, last) => {
                let level = own.or(last.map(|(level, _)| *level)).unwrap_or(level);
                records.push((level, first.to_owned()));
            }
        }
        let level = records.last().map_or(level, |(level, _)| *level);
        records.extend(parts.map(|part| (level, part.to_owned())));
    }
    let mut json = Vec::with_capacity(lines.len() + 64 * records.len());
    for (level, message) in &records {
        // Writing texts to a Vec cannot fail.
        _ = serde_json::to_writer(&mut json, &Record { time, level: level.name(), message });
        json.push(b'\n');
    }
    json
}

/// Octets that a text takes in JSON, at most (RFC 8259 section 7).
fn written(text: &str) -> usize {
    text.chars().map(written_char).sum()
}

fn written_char(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' => 2,
        '\0'..='\x1f' => 6,
        other => other.len_utf8(),
    }
}

/// A line in parts of at most [`MESSAGE`] octets each, as they are written.
fn pieces(line: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut octets) = (Vec::new(), 0, 0);
    for (at, char) in line.char_indices() {
        let more = written_char(char);
        if octets + more > MESSAGE {
            parts.extend(line.get(begin..at));
            (begin, octets) = (at, 0);
        }
        octets += more;
    }
    parts.extend(line.get(begin..));
    parts
}

/// The time now, as RFC 3339 has it, in UTC.
pub(super) fn now() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    _ = time::SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(lines: &[u8]) -> String {
        String::from_utf8(to_json(Level::Warning, lines, "2026-11-30T12:00:00.5Z")).unwrap()
    }

    #[test]
    fn each_line_is_an_object_with_its_own_level_and_text() {
        let json = json(b"[INFO] one \"1\"\n[DEBUG] two\n[ERROR] \xff\x1b[31m\n");
        assert_eq!(
            json,
            "{\"time\":\"2026-11-30T12:00:00.5Z\",\"level\":\"info\",\"message\":\"one \\\"1\\\"\"}\n\
             {\"time\":\"2026-11-30T12:00:00.5Z\",\"level\":\"debug\",\"message\":\"two\"}\n\
             {\"time\":\"2026-11-30T12:00:00.5Z\",\"level\":\"error\",\"message\":\"\u{fffd}\\u001b[31m\"}\n"
        );
    }

    #[test]
    fn lines_without_a_level_belong_to_the_one_before() {
        let messages = |lines: &[u8]| {
            let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
            let pair = |record: serde_json::Value| format!("{}: {}", record["level"], record["message"]);
            json(lines).lines().map(read).map(pair).collect::<Vec<_>>()
        };
        assert_eq!(
            messages(b"[ERROR] a panic\n  at one\n  at two\n[INFO] on\n"),
            [r#""error": "a panic\n  at one\n  at two""#, r#""info": "on""#]
        );
        assert_eq!(
            messages(b"Corefile:1:2: a warning\nand more\n"),
            [r#""warning": "Corefile:1:2: a warning\nand more""#]
        );
        assert_eq!(messages(b"[NOTICE] of somebody\n\n"), [r#""warning": "[NOTICE] of somebody\n""#]);
        assert!(messages(b"").is_empty());
    }

    /// Both processes write to one pipe, which takes PIPE_BUF octets in one piece.
    #[test]
    fn an_object_is_never_longer_than_what_a_pipe_takes_in_one_piece() {
        for (line, most) in [("é", 2), ("\u{1}", 6), ("\\", 2), ("a", 1)].map(|(char, most)| (char.repeat(9000), most))
        {
            let many = "[ERROR] first\n".to_owned() + &"of a long one\n".repeat(1000) + &line + "\n[INFO] last\n";
            let json = json(many.as_bytes());
            assert!(json.lines().all(|object| object.len() < 4096), "{}", json.lines().map(str::len).max().unwrap());
            assert!(json.lines().count() < 8 + 9000 * most / 3900 * 2, "{}", json.lines().count());
            let records: Vec<serde_json::Value> =
                json.lines().map(|object| serde_json::from_str(object).unwrap()).collect();
            let (last, errors) = records.split_last().unwrap();
            assert!(last["message"] == "last" && last["level"] == "info");
            assert!(errors.iter().all(|record| record["level"] == "error"));
            let said: String = errors.iter().filter_map(|record| record["message"].as_str()).collect();
            let expected = many.strip_prefix("[ERROR] ").unwrap().strip_suffix("\n[INFO] last\n").unwrap();
            assert_eq!(said.replace('\n', ""), expected.replace('\n', ""), "nothing is lost");
        }
    }

    #[test]
    fn the_time_is_one_of_rfc_3339_in_utc() {
        let now = now();
        assert!(now.len() > 20 && now.ends_with('Z') && now.as_bytes()[10] == b'T' && now.starts_with("20"), "{now}");
    }
}
