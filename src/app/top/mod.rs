//! The command `top`: asks an agent for its status, and prints it, or shows it as it changes ([`live`]).

mod live;
mod terminal;
mod text;

use crate::cli::{OutputFormat, StatusUrl, TopMode};
use crate::message::Name;
use crate::net::{HostLookup, http_client};
use crate::query_stats::{Report, Row, VERSION};
use crate::threads;
use anyhow::{Context, anyhow, bail, ensure};
use live::{Live, Next};
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::task::Poll;
use std::time::{Duration, Instant};
use terminal::Terminal;
pub(super) use text::{plain, plain_json};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of an answer.
const LIMIT: usize = 8 << 20;
/// From one answer to the next question of the live view, and how soon a key or an answer is seen there.
const PERIOD: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(100);
/// Lines of each table.
const ROWS: usize = 10;
/// Columns of a text that is as long as others choose.
const WIDTH: usize = 60;

/// Prints what the agent says, or shows it until a key ends that.
pub(super) fn run(how: TopMode, from: &StatusUrl) -> anyhow::Result<ExitCode> {
    match how {
        TopMode::Once(output) => print(output, from)?,
        TopMode::Live => watch(from)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn new_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn print(output: OutputFormat, from: &StatusUrl) -> anyhow::Result<()> {
    let runtime = new_runtime().context("cannot start the runtime")?;
    let asked = runtime.block_on(ask(from));
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    let Answer { status, text } = asked?;
    if status != 200 {
        bail!("{}", refusal(from, status, &text));
    }
    let report = read(from, &text)?;
    let mut out = io::stdout().lock();
    match output {
        OutputFormat::Json => writeln!(out, "{}", plain_json(&text))?,
        OutputFormat::Text => {
            ensure_known(&report)?;
            write!(out, "{}", tables(&report))?;
        }
    }
    Ok(())
}

/// Asks again and again, and shows what is told, in the terminal.
fn watch(from: &StatusUrl) -> anyhow::Result<()> {
    let mut terminal =
        Terminal::open().context("`top` shows itself in a terminal, and here is none: add --once, or kubectl's -it")?;
    let (tell, told) = mpsc::channel();
    let asked = from.clone();
    let ask_on = move |runtime: Runtime| {
        let asking = async {
            // Ends with who is told.
            while tell.send(report(&asked).await).is_ok() {
                tokio::time::sleep(PERIOD).await;
            }
        };
        runtime.block_on(until_ended(asking));
        runtime.shutdown_background();
    };
    let (_handle, _asking) = threads::spawn_with_runtime("status", None, new_runtime, ask_on)?;
    let mut live = Live::new(shown(from));
    loop {
        match told.try_recv() {
            Ok(told) => live.take(told.map_err(|error| format!("{error:#}")), Instant::now()),
            Err(TryRecvError::Empty) => {}
            // Told to end.
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        let size = terminal.size();
        let lost = "the terminal is gone";
        terminal.draw(size, live.draw(size, Instant::now())).context(lost)?;
        let keys = terminal.keys(TICK).context(lost)?;
        if keys.into_iter().any(|key| live.press(key) == Next::Quit) {
            return Ok(());
        }
    }
}

/// Runs until somebody ends this process, for whom the terminal is to be as it was.
async fn until_ended(asking: impl Future<Output = ()>) {
    let kinds = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit(), SignalKind::interrupt()];
    let mut signals: Vec<Signal> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
    let ended = poll_fn(|context| match signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    tokio::select! {
        () = asking => {}
        () = ended => {}
    }
}

/// What an agent tells, if it is of a version that this program knows: with 503 too, which has what its watchdog knows.
async fn report(from: &StatusUrl) -> anyhow::Result<Report> {
    let Answer { status, text } = ask(from).await?;
    match status {
        200 | 503 => {
            let report = read(from, &text)?;
            ensure_known(&report)?;
            Ok(report)
        }
        status => bail!("{}", refusal(from, status, &text)),
    }
}

fn read(from: &StatusUrl, text: &str) -> anyhow::Result<Report> {
    // What the error says may be the page's words.
    let read = serde_json::from_str(text).map_err(|error| plain(&error.to_string()));
    read.map_err(|error| anyhow!("{} is no status page: {error}", shown(from)))
}

fn ensure_known(report: &Report) -> anyhow::Result<()> {
    ensure!(
        report.version == VERSION,
        "the agent's status page has version {}, this program knows {VERSION}: use the program that the agent is",
        report.version
    );
    Ok(())
}

fn shown(from: &StatusUrl) -> String {
    let StatusUrl { host, port, path } = from;
    if host.contains(':') { format!("http://[{host}]:{port}{path}") } else { format!("http://{host}:{port}{path}") }
}

struct Answer {
    status: u16,
    text: String,
}

async fn ask(from: &StatusUrl) -> anyhow::Result<Answer> {
    let url = shown(from);
    let ask = async {
        let mut failure = anyhow::anyhow!("the name has no address");
        for address in addresses_of(&from.host).await? {
            match http_client::get_text(SocketAddr::new(address, from.port), &from.path, LIMIT).await {
                Ok((status, text)) => return Ok(Answer { status: status.as_u16(), text }),
                Err(error) => failure = anyhow::Error::from_boxed(error),
            }
        }
        Err(failure)
    };
    let help = "is an agent running there, and does it serve its metrics at that place (--metrics-listen-address)?";
    let asked = tokio::time::timeout(PATIENCE, ask).await;
    let asked = asked.unwrap_or_else(|_| bail!("no answer within {} s", PATIENCE.as_secs()));
    asked.with_context(|| format!("cannot ask {url}: {help}"))
}

/// Of a host name or an address. Not by the C library's getaddrinfo: a static program has no modules for it, and would
/// hold more of that library.
async fn addresses_of(host: &str) -> anyhow::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let lookup = HostLookup { resolvers: Vec::new(), files: Arc::new(|path| std::fs::read_to_string(path)) };
    Ok(lookup.addresses_of(&Name::parse(host)?).await?.0)
}

/// Why an answer is no status.
fn refusal(from: &StatusUrl, status: u16, text: &str) -> String {
    let url = shown(from);
    if status == 404 {
        return format!("{url} is not served: --status-page=false switches it off, and agents before 0.3 have none");
    }
    let error = serde_json::from_str::<Report>(text).ok().and_then(|report| report.error);
    format!("{url} answers {status}: {}", plain(error.as_deref().unwrap_or(text).trim()))
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
pub(super) fn table(out: &mut String, heading: &str, columns: &[&str], rows: &[Vec<String>]) {
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
