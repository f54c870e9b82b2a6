//! The command `top`: asks an agent for its status, and prints it.

use crate::cli::{OutputFormat, StatusUrl};
use crate::net::http_client;
use crate::query_stats::{Report, Row, VERSION};
use anyhow::{Context, anyhow, bail, ensure};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of an answer.
const LIMIT: usize = 8 << 20;
/// Lines of each table.
const ROWS: usize = 10;
/// Columns of a text that is as long as others choose.
const WIDTH: usize = 60;

/// Prints what the agent says.
pub(super) fn print(output: OutputFormat, from: &StatusUrl) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let fetched = runtime.block_on(fetch(from));
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    let text = fetched?;
    // What the error says may be the page's words.
    let read = serde_json::from_str(&text).map_err(|error| plain(&error.to_string()));
    let report: Report = read.map_err(|error| anyhow!("{} is no status page: {error}", shown(from)))?;
    let mut out = io::stdout().lock();
    match output {
        OutputFormat::Json => writeln!(out, "{}", plain_json(&text))?,
        OutputFormat::Text => {
            ensure!(
                report.version == VERSION,
                "the agent's status page has version {}, this program knows {VERSION}: use the program that the agent is",
                report.version
            );
            write!(out, "{}", tables(&report))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(from: &StatusUrl) -> String {
    let StatusUrl { host, port, path } = from;
    if host.contains(':') { format!("http://[{host}]:{port}{path}") } else { format!("http://{host}:{port}{path}") }
}

async fn fetch(from: &StatusUrl) -> anyhow::Result<String> {
    let url = shown(from);
    let ask = async {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((from.host.as_str(), from.port)).await?.collect();
        let mut failure = anyhow::anyhow!("the name has no address");
        for address in found {
            match http_client::get_text(address, &from.path, LIMIT).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = anyhow::Error::from_boxed(error),
            }
        }
        Err(failure)
    };
    let help = "is an agent running there, and does it serve its metrics at that place (--metrics-listen-address)?";
    let asked = tokio::time::timeout(PATIENCE, ask).await;
    let asked = asked.unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs()));
    let (status, text) = asked.with_context(|| format!("cannot ask {url}: {help}"))?;
    match status.as_u16() {
        200 => Ok(text),
        404 => bail!("{url} is not served: --status-page=false switches it off, and agents before 0.3 have none"),
        status => {
            let report = serde_json::from_str::<Report>(&text).ok();
            let said = report.and_then(|report| report.error).unwrap_or(text);
            bail!("{url} answers {status}: {}", plain(said.trim()))
        }
    }
}

/// Nothing that a terminal would obey: what is not printable ASCII as three digits for each octet, as in names
/// (RFC 1035 section 5.1).
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        if matches!(character, ' '..='~') {
            plain.push(character);
            continue;
        }
        for octet in character.encode_utf8(&mut [0; 4]).bytes() {
            _ = write!(plain, "\\{octet:03}");
        }
    }
    plain
}

/// The same JSON in printable ASCII: outside strings all but whitespace is that already, and in them any character may
/// be an escape (RFC 8259 section 7).
fn plain_json(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            ' '..='~' => plain.push(character),
            '\t' | '\n' | '\r' => plain.push(' '),
            _ => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| _ = write!(plain, "\\u{unit:04x}")),
        }
    }
    plain
}

/// [`plain`], cut to [`WIDTH`].
fn short(text: &str) -> String {
    let mut text = plain(text);
    if text.len() > WIDTH {
        text.truncate(WIDTH - 3);
        text.push_str("...");
    }
    text
}

/// A table: a heading, and columns as wide as what they hold. Those that begin with `>` are for numbers.
fn table(out: &mut String, heading: &str, columns: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    _ = writeln!(out, "\n{heading}");
    let names: Vec<String> = columns.iter().map(|name| name.trim_start_matches('>').to_owned()).collect();
    let lines = || std::iter::once(&names).chain(rows);
    let width = |column: usize| lines().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for line in lines() {
        let mut text = String::new();
        for ((cell, column), width) in line.iter().zip(columns).zip(&widths) {
            _ = match column.starts_with('>') {
                true => write!(text, "  {cell:>width$}"),
                false => write!(text, "  {cell:<width$}"),
            };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
}

/// All that is told, the last minute's first.
fn tables(report: &Report) -> String {
    let mut out = String::new();
    let windows = [("minute", &report.minute), ("ten minutes", &report.ten_minutes), ("hour", &report.hour)];
    let rates = windows.map(|(name, window)| {
        let rate = |count: u64| format!("{:.1}", count as f64 / window.seconds.max(0.001));
        let hits = format!("{:.1} %", 100.0 * window.hits as f64 / window.queries.max(1) as f64);
        let others = [window.misses, window.rejected, window.failures].map(rate);
        let seconds = format!("{:.0}", window.seconds);
        [vec![format!("last {name}"), seconds, rate(window.queries), hits], others.to_vec()].concat()
    });
    let heading = format!("queries (hits are estimated from one in {})", report.sampling_rate);
    let columns = ["", ">seconds", ">per second", ">hits", ">misses/s", ">rejected/s", ">failed/s"];
    table(&mut out, &heading, &columns, &rates);
    let window = &report.minute;
    let rcodes = window.rcodes.iter().map(|(rcode, count)| vec![plain(rcode), count.to_string()]).collect::<Vec<_>>();
    table(&mut out, "response codes, last minute", &["rcode", ">queries"], &rcodes);
    let blocks = report.blocks.iter().filter(|block| block.queries_per_second > 0.0).take(ROWS);
    let blocks =
        blocks.map(|block| vec![short(&block.zone), short(&block.server), format!("{:.1}", block.queries_per_second)]);
    let unmatched = (report.unmatched_per_second > 0.0)
        .then(|| vec!["(none)".to_owned(), "-".to_owned(), format!("{:.1}", report.unmatched_per_second)]);
    let blocks = blocks.chain(unmatched).collect::<Vec<_>>();
    table(&mut out, "server blocks, last minute", &["zone", "server", ">per second"], &blocks);
    let missing = match report.shows_names {
        true => "-",
        false => "(hidden: ask from the node, or see --status-names)",
    };
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| missing.to_owned(), short);
    let counted = |row: &Row| [row.count.to_string(), row.error.to_string()];
    let of_names = |rows: &[Row]| -> Vec<Vec<String>> {
        rows.iter().take(ROWS).map(|row| [vec![text(&row.name)], counted(row).to_vec()].concat()).collect()
    };
    let name_columns = ["name", ">queries", ">of which may be others'"];
    table(&mut out, "names, last minute", &name_columns, &of_names(&window.names));
    let clients = window.clients.iter().take(ROWS);
    let clients = clients.map(|row| [vec![text(&row.client)], counted(row).to_vec()].concat()).collect::<Vec<_>>();
    table(&mut out, "clients, last minute", &["client", ">queries", ">of which may be others'"], &clients);
    let pairs = window.clients_and_names.iter().take(ROWS);
    let pairs = pairs.map(|row| [vec![text(&row.client), text(&row.name)], counted(row).to_vec()].concat());
    let columns = ["client", "name", ">queries", ">of which may be others'"];
    table(&mut out, "clients and what they ask for, last minute", &columns, &pairs.collect::<Vec<_>>());
    table(&mut out, "names that do not exist, last minute", &name_columns, &of_names(&window.nxdomain_names));
    table(&mut out, "names that failed, last minute", &name_columns, &of_names(&window.failed_names));
    let upstreams = window.upstreams.iter().map(|upstream| {
        let known = report.upstreams.iter().find(|latency| latency.upstream == upstream.upstream);
        let within = |bound: Option<Option<f64>>| match bound {
            Some(Some(ms)) => format!("{ms}"),
            Some(None) => "longer".to_owned(),
            None => "-".to_owned(),
        };
        vec![
            short(&upstream.upstream),
            upstream.queries.to_string(),
            upstream.failures.to_string(),
            format!("{:.1}", upstream.mean_ms),
            format!("{:.1}", upstream.longest_ms),
            within(known.map(|known| known.p50_ms)),
            within(known.map(|known| known.p99_ms)),
        ]
    });
    let columns =
        ["upstream", ">queries", ">failed", ">mean ms", ">longest ms", ">p50 ms since start", ">p99 ms since start"];
    table(&mut out, "upstreams, last minute", &columns, &upstreams.collect::<Vec<_>>());
    let slowest = window.slowest.iter().take(ROWS).map(|slow| {
        vec![
            format!("{:.1}", slow.ms),
            text(&slow.name),
            plain(&slow.r#type),
            text(&slow.client),
            plain(slow.rcode.as_deref().unwrap_or("dropped")),
            short(slow.upstream.as_deref().unwrap_or("-")),
            plain(if slow.transport.is_empty() { "-" } else { &slow.transport }),
            slow.tries.to_string(),
            plain(if slow.stale { "stale" } else { &slow.answered_by }),
        ]
    });
    let columns = [">ms", "name", "type", "client", "rcode", "upstream", "over", ">tries", "answered by"];
    table(&mut out, "slowest queries, last minute", &columns, &slowest.collect::<Vec<_>>());
    let failures = report.failures.iter().take(ROWS).map(|failed| {
        vec![
            format!("{:.1}", report.time_ms.saturating_sub(failed.time_ms) as f64 / 1000.0),
            text(&failed.name),
            plain(failed.r#type.as_deref().unwrap_or("-")),
            text(&failed.client),
            plain(failed.rcode.as_deref().unwrap_or("dropped")),
            plain(failed.reason.as_deref().unwrap_or("-")),
        ]
    });
    let columns = [">seconds ago", "name", "type", "client", "rcode", "reason"];
    table(&mut out, "last failures", &columns, &failures.collect::<Vec<_>>());
    out.trim_start_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_would_obey_is_printed() {
        let hostile = "\u{1b}]0;x\u{7}\u{202e}evil\n\t<script>.";
        let row = Row { name: Some(hostile.repeat(9)), client: Some(hostile.into()), count: 7, error: 1 };
        let mut report = Report { version: VERSION, ..Report::default() };
        report.minute.names = vec![row.clone()];
        report.minute.clients_and_names = vec![row];
        report.minute.rcodes = [(hostile.to_owned(), 1)].into();
        report
            .failures
            .push(serde_json::from_value(serde_json::json!({ "name": hostile, "reason": hostile })).unwrap());
        let text = tables(&report);
        assert!(text.chars().all(|character| matches!(character, ' '..='~' | '\n')), "{text:?}");
        assert!(text.contains("\\027]0;x\\007\\226\\128\\174evil\\010\\009<script>."), "{text}");
    }

    #[test]
    fn json_is_printed_in_printable_ascii_and_means_the_same() {
        let text = "{\"name\":\t\"\u{9b}31m\u{7f}\u{202e}\u{1f600}\u{fc}\",\r\n\"escaped\":\"\\u001b\"}";
        let printed = plain_json(text);
        assert!(printed.chars().all(|character| matches!(character, ' '..='~')), "{printed:?}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&printed), read(text));
        assert!(printed.contains("\\u009b31m\\u007f\\u202e\\ud83d\\ude00"), "{printed}");
    }

    #[test]
    fn a_table_has_columns_as_wide_as_what_they_hold() {
        let mut out = String::new();
        let rows = [vec!["a".to_owned(), "1000".to_owned()], vec!["long.name.".to_owned(), "7".to_owned()]];
        table(&mut out, "names", &["name", ">queries"], &rows);
        assert_eq!(out, "\nnames\n  name        queries\n  a              1000\n  long.name.        7\n");
        let before = out.clone();
        table(&mut out, "nothing", &["name"], &[]);
        assert_eq!(out, before);
    }

    #[test]
    fn what_is_hidden_says_how_it_can_be_seen() {
        let mut report = Report::default();
        report.minute.names = vec![Row { count: 3, ..Row::default() }];
        assert!(tables(&report).contains("--status-names"));
    }
}
