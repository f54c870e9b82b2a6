//! What the live view of `top` shows, and what keys do to it. Pure: reports, keys, a size and the time in, lines out.

use super::text::plain;
use crate::query_stats::{Report, Row, WindowReport};
use std::cmp::Ordering;
use std::time::{Duration, Instant};

/// Lines above the table's rows, and below them.
const AROUND: usize = 8;
/// Columns that a text is cut to at least.
const LEAST_WIDTH: usize = 6;
/// From dark to bright, for plots of a line.
const SHADES: &[u8] = b" .:-=+*#";
/// After so long without an answer what is shown is said to be old.
const OLD: Duration = Duration::from_secs(10);

/// A key, or several that come as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Next,
    Previous,
    Up,
    Down,
    PageUp,
    PageDown,
    Interrupt,
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    Quit,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Reversed,
}

/// A line of the screen, in printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub text: String,
    pub style: Style,
}

/// Which table is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Names,
    Clients,
    Pairs,
    Missing,
    Failed,
    Upstreams,
    Slowest,
    Errors,
    Blocks,
    Watchdog,
}

impl View {
    /// In the order of their digits: 1 to 9, and 0.
    const ALL: [Self; 10] = [
        Self::Names,
        Self::Clients,
        Self::Pairs,
        Self::Missing,
        Self::Failed,
        Self::Upstreams,
        Self::Slowest,
        Self::Errors,
        Self::Blocks,
        Self::Watchdog,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Clients => "clients",
            Self::Pairs => "both",
            Self::Missing => "nxdomain",
            Self::Failed => "failed",
            Self::Upstreams => "upstreams",
            Self::Slowest => "slowest",
            Self::Errors => "errors",
            Self::Blocks => "blocks",
            Self::Watchdog => "watchdog",
        }
    }

    /// The one so many further on.
    fn moved(self, by: usize) -> Self {
        let own = Self::ALL.iter().position(|view| *view == self).unwrap_or(0);
        Self::ALL.get((own + by) % Self::ALL.len()).copied().unwrap_or(self)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Window {
    Minute,
    TenMinutes,
    Hour,
}

/// A cell, with what it is sorted by.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Text(String),
    Number(f64, String),
}

impl Cell {
    fn text(text: &str) -> Self {
        Self::Text(plain(text))
    }
    fn count(count: u64) -> Self {
        Self::Number(count as f64, count.to_string())
    }
    fn decimal(number: f64) -> Self {
        Self::Number(number, format!("{number:.1}"))
    }
    fn shown(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(_, text) => text,
        }
    }
    /// Texts from A to Z, the largest number first.
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(one, _), Self::Number(other, _)) => other.total_cmp(one),
            _ => self.shown().cmp(other.shown()),
        }
    }
}

struct Table {
    columns: &'static [&'static str],
    rows: Vec<Vec<Cell>>,
}

/// All of what is shown.
pub(super) struct Live {
    from: String,
    report: Option<Report>,
    /// Why the last question had no whole answer.
    problem: Option<String>,
    heard: Option<Instant>,
    view: View,
    window: Window,
    /// The column that is sorted by; else the order is the report's.
    sort: Option<usize>,
    is_reversed: bool,
    filter: String,
    is_typing: bool,
    is_frozen: bool,
    scroll: usize,
}

impl Live {
    /// Of an agent that has told nothing yet.
    pub(super) fn new(from: String) -> Self {
        Self {
            from,
            report: None,
            problem: None,
            heard: None,
            view: View::Names,
            window: Window::Minute,
            sort: None,
            is_reversed: false,
            filter: String::new(),
            is_typing: false,
            is_frozen: false,
            scroll: 0,
        }
    }

    /// Takes an answer, or why there is none, unless what is shown is to stay.
    pub(super) fn take(&mut self, told: Result<Report, String>, now: Instant) {
        if self.is_frozen {
            return;
        }
        match told {
            Ok(report) => {
                self.problem = None;
                self.heard = Some(now);
                self.report = Some(report);
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// Does what a key is for.
    pub(super) fn press(&mut self, key: Key) -> Next {
        if key == Key::Interrupt {
            return Next::Quit;
        }
        if self.is_typing {
            match key {
                Key::Char(character) => self.filter.push(character),
                Key::Backspace => _ = self.filter.pop(),
                Key::Escape => {
                    self.filter.clear();
                    self.is_typing = false;
                }
                Key::Enter => self.is_typing = false,
                _ => {}
            }
            self.scroll = 0;
            return Next::GoOn;
        }
        match key {
            Key::Char('q') => return Next::Quit,
            Key::Char('f' | ' ') => self.is_frozen = !self.is_frozen,
            Key::Char('/') => self.is_typing = true,
            Key::Escape => self.filter.clear(),
            Key::Char('r') => self.is_reversed = !self.is_reversed,
            Key::Char('s') => {
                let columns = self.table().columns.len();
                self.sort = self.sort.map_or(Some(0), |sort| Some(sort + 1)).filter(|sort| *sort < columns);
            }
            Key::Char('w') => {
                self.window = match self.window {
                    Window::Minute => Window::TenMinutes,
                    Window::TenMinutes => Window::Hour,
                    Window::Hour => Window::Minute,
                };
            }
            Key::Next => self.show(self.view.moved(1)),
            Key::Previous => self.show(self.view.moved(View::ALL.len() - 1)),
            Key::Char(digit @ '0'..='9') => {
                let index = (digit as usize + 9 - '0' as usize) % 10;
                self.show(View::Names.moved(index));
            }
            Key::Up => self.scroll = self.scroll.saturating_sub(1),
            Key::Down => self.scroll += 1,
            Key::PageUp => self.scroll = self.scroll.saturating_sub(10),
            Key::PageDown => self.scroll += 10,
            Key::Char(_) | Key::Enter | Key::Backspace | Key::Interrupt => {}
        }
        self.scroll = self.scroll.min(self.rows().len().saturating_sub(1));
        Next::GoOn
    }

    fn show(&mut self, view: View) {
        (self.view, self.sort, self.is_reversed, self.scroll) = (view, None, false, 0);
    }

    /// The screen: as many lines as it has, none longer than it is wide.
    pub(super) fn draw(&self, (width, height): (usize, usize), now: Instant) -> Vec<Line> {
        let mut lines = self.head(width, now);
        let Table { columns, .. } = self.table();
        let rows = self.rows();
        let widths = widths(columns, &rows, width);
        let marked = columns.iter().enumerate().map(|(index, column)| {
            let name = column.trim_start_matches('>');
            match self.sort == Some(index) {
                true => Cell::Text(format!("{name}{}", if self.is_reversed { '-' } else { '+' })),
                false => Cell::Text(name.to_owned()),
            }
        });
        let header = row(columns, &widths, &marked.collect::<Vec<_>>());
        lines.push(Line { text: format!("{header:<width$}"), style: Style::Reversed });
        let room = height.saturating_sub(AROUND);
        let shown = rows.iter().skip(self.scroll).take(room).map(|cells| row(columns, &widths, cells));
        lines.extend(shown.map(|text| Line { text, style: Style::Plain }));
        let below = height.saturating_sub(1);
        lines.truncate(below);
        lines.resize(below, Line { text: String::new(), style: Style::Plain });
        let help = "q quit  f freeze  s sort  r reverse  / filter  w window  tab 0-9 view  arrows";
        lines.push(Line { text: help.to_owned(), style: Style::Bold });
        lines.truncate(height);
        lines.iter_mut().for_each(|line| line.text.truncate(width));
        lines
    }

    /// All above the table.
    fn head(&self, width: usize, now: Instant) -> Vec<Line> {
        let report = self.report.as_ref();
        let watchdog = report.and_then(|report| report.watchdog.as_ref());
        let state = watchdog.map_or_else(String::new, |watchdog| {
            let taken = watchdog.addresses.iter().filter(|address| address.is_intercepted).count();
            match watchdog.is_interception_wanted {
                true => format!("{}, {taken} of {} addresses intercepted", watchdog.state, watchdog.addresses.len()),
                false => format!("{}, no interception wanted", watchdog.state),
            }
        });
        let frozen = if self.is_frozen { " [frozen]" } else { "" };
        let old = self.heard.map(|heard| now.saturating_duration_since(heard)).filter(|age| *age >= OLD);
        let old = old.map_or_else(String::new, |age| format!(" [{} s old]", age.as_secs()));
        let title = format!("{}{frozen}{old}  {}", self.from, plain(&state));
        let error = report.and_then(|report| report.error.as_ref());
        let status = match (self.problem.as_ref().or(error), self.window()) {
            (Some(problem), _) => plain(problem),
            (None, Some(window)) => {
                let rate = |count: u64| count as f64 / window.seconds.max(0.001);
                format!(
                    "{:.1}/s  hits {:.1} %  misses {:.1}/s  rejected {:.1}/s  failed {:.1}/s",
                    rate(window.queries),
                    100.0 * window.hits as f64 / window.queries.max(1) as f64,
                    rate(window.misses),
                    rate(window.rejected),
                    rate(window.failures)
                )
            }
            (None, None) => "asking...".to_owned(),
        };
        let points = report.map_or(&[][..], |report| &report.timeline);
        let rates: Vec<f64> = points.iter().map(|point| point.queries as f64 / point.seconds.max(0.001)).collect();
        let latencies: Vec<f64> = points.iter().map(|point| point.mean_ms.unwrap_or(0.0)).collect();
        let tabs = View::ALL.map(|view| match view == self.view {
            true => format!("[{}]", view.name()),
            false => view.name().to_owned(),
        });
        let window = match self.window {
            Window::Minute => "last minute",
            Window::TenMinutes => "last ten minutes",
            Window::Hour => "last hour",
        };
        let filter = match (self.is_typing, self.filter.as_str()) {
            (true, filter) => format!("filter: {filter}_"),
            (false, "") => window.to_owned(),
            (false, filter) => format!("{window}, filtered by: {filter}"),
        };
        let plain = |text: String| Line { text, style: Style::Plain };
        vec![
            Line { text: title, style: Style::Bold },
            plain(status),
            plain(plot("queries/s", &rates, "", width)),
            plain(plot("mean ms  ", &latencies, " ms", width)),
            plain(tabs.join(" ")),
            plain(filter),
        ]
    }

    fn window(&self) -> Option<&WindowReport> {
        let report = self.report.as_ref().filter(|report| report.error.is_none())?;
        Some(match self.window {
            Window::Minute => &report.minute,
            Window::TenMinutes => &report.ten_minutes,
            Window::Hour => &report.hour,
        })
    }

    /// The rows that are shown, in their order.
    fn rows(&self) -> Vec<Vec<Cell>> {
        let Table { mut rows, .. } = self.table();
        if !self.filter.is_empty() {
            let wanted = self.filter.to_ascii_lowercase();
            let has = |cell: &Cell| matches!(cell, Cell::Text(text) if text.to_ascii_lowercase().contains(&wanted));
            rows.retain(|row| row.iter().any(has));
        }
        if let Some(sort) = self.sort {
            rows.sort_by(|one, other| match (one.get(sort), other.get(sort)) {
                (Some(one), Some(other)) => one.order(other),
                _ => Ordering::Equal,
            });
        }
        if self.is_reversed {
            rows.reverse();
        }
        rows
    }

    fn table(&self) -> Table {
        let (columns, rows) = match (self.view, self.report.as_ref(), self.window()) {
            (View::Watchdog, report, _) => (&["time", "event", "detail"][..], report.map(events)),
            (View::Names, _, window) => (NAMED, window.map(|window| named(&window.names))),
            (View::Clients, _, window) => (&["client", ">queries", ">others'"][..], window.map(clients)),
            (View::Pairs, _, window) => (&["client", "name", ">queries", ">others'"][..], window.map(pairs)),
            (View::Missing, _, window) => (&["name", ">queries", ">others'", "asked by"][..], window.map(missing)),
            (View::Failed, _, window) => (NAMED, window.map(|window| named(&window.failed_names))),
            (View::Upstreams, report, window) => {
                (UPSTREAMS, window.zip(report).map(|(window, report)| upstreams(window, report)))
            }
            (View::Slowest, _, window) => (SLOWEST, window.map(slowest)),
            (View::Errors, report, window) => {
                (&[">s ago", "name", "type", "client", "rcode", "reason"][..], window.and(report).map(errors))
            }
            (View::Blocks, report, window) => (&["zone", "server", ">queries/s"][..], window.and(report).map(blocks)),
        };
        Table { columns, rows: rows.unwrap_or_default() }
    }
}

const NAMED: &[&str] = &["name", ">queries", ">others'"];
const UPSTREAMS: &[&str] = &["upstream", "health", ">queries", ">failed", ">mean ms", ">longest", ">p50 ms", ">p99 ms"];
const SLOWEST: &[&str] = &[">ms", "name", "type", "client", "rcode", "upstream", "over", ">tries"];

/// What may be hidden.
fn shown(text: Option<&String>) -> Cell {
    text.map_or_else(|| Cell::text("(hidden)"), |text| Cell::text(text))
}

fn named(rows: &[Row]) -> Vec<Vec<Cell>> {
    rows.iter().map(|row| vec![shown(row.name.as_ref()), Cell::count(row.count), Cell::count(row.error)]).collect()
}

fn clients(window: &WindowReport) -> Vec<Vec<Cell>> {
    let row = |row: &Row| vec![shown(row.client.as_ref()), Cell::count(row.count), Cell::count(row.error)];
    window.clients.iter().map(row).collect()
}

fn pairs(window: &WindowReport) -> Vec<Vec<Cell>> {
    let row = |row: &Row| {
        vec![shown(row.client.as_ref()), shown(row.name.as_ref()), Cell::count(row.count), Cell::count(row.error)]
    };
    window.clients_and_names.iter().map(row).collect()
}

/// With whoever is known to have asked for each, most often first.
fn missing(window: &WindowReport) -> Vec<Vec<Cell>> {
    let row = |row: &Row| {
        let asked = window.clients_and_names.iter().filter(|pair| pair.name.is_some() && pair.name == row.name);
        let clients: Vec<&str> = asked.filter_map(|pair| pair.client.as_deref()).take(3).collect();
        let by = if clients.is_empty() { "-".to_owned() } else { clients.join(" ") };
        vec![shown(row.name.as_ref()), Cell::count(row.count), Cell::count(row.error), Cell::text(&by)]
    };
    window.nxdomain_names.iter().map(row).collect()
}

fn upstreams(window: &WindowReport, report: &Report) -> Vec<Vec<Cell>> {
    let rows = window.upstreams.iter().map(|upstream| {
        let known = report.upstreams.iter().find(|known| known.upstream == upstream.upstream);
        let within = |bound: Option<Option<f64>>| match bound {
            Some(Some(ms)) => Cell::Number(ms, ms.to_string()),
            Some(None) => Cell::Number(f64::INFINITY, "longer".to_owned()),
            None => Cell::Number(-1.0, "-".to_owned()),
        };
        let health = match upstream.failures.saturating_mul(10) {
            _ if upstream.failures == upstream.queries => "down",
            tenths if tenths > upstream.queries => "failing",
            _ => "ok",
        };
        vec![
            Cell::text(&upstream.upstream),
            Cell::text(health),
            Cell::count(upstream.queries),
            Cell::count(upstream.failures),
            Cell::decimal(upstream.mean_ms),
            Cell::decimal(upstream.longest_ms),
            within(known.map(|known| known.p50_ms)),
            within(known.map(|known| known.p99_ms)),
        ]
    });
    rows.collect()
}

fn slowest(window: &WindowReport) -> Vec<Vec<Cell>> {
    let rows = window.slowest.iter().map(|slow| {
        vec![
            Cell::decimal(slow.ms),
            shown(slow.name.as_ref()),
            Cell::text(&slow.r#type),
            shown(slow.client.as_ref()),
            Cell::text(slow.rcode.as_deref().unwrap_or("dropped")),
            Cell::text(slow.upstream.as_deref().unwrap_or("-")),
            Cell::text(&slow.transport),
            Cell::count(slow.tries.into()),
        ]
    });
    rows.collect()
}

fn errors(report: &Report) -> Vec<Vec<Cell>> {
    let rows = report.failures.iter().map(|failed| {
        let name = match failed.r#type {
            Some(_) => shown(failed.name.as_ref()),
            None => Cell::text("-"),
        };
        vec![
            Cell::decimal(report.time_ms.saturating_sub(failed.time_ms) as f64 / 1000.0),
            name,
            Cell::text(failed.r#type.as_deref().unwrap_or("-")),
            shown(failed.client.as_ref()),
            Cell::text(failed.rcode.as_deref().unwrap_or("dropped")),
            shown(failed.reason.as_ref()),
        ]
    });
    rows.collect()
}

fn blocks(report: &Report) -> Vec<Vec<Cell>> {
    let row = |zone: &str, server: &str, rate| vec![Cell::text(zone), Cell::text(server), Cell::decimal(rate)];
    let others = (report.unmatched_per_second > 0.0).then(|| row("(none)", "-", report.unmatched_per_second));
    let blocks = report.blocks.iter().map(|block| row(&block.zone, &block.server, block.queries_per_second));
    blocks.chain(others).collect()
}

/// Each address with why it is intercepted or not, then what has happened.
fn events(report: &Report) -> Vec<Vec<Cell>> {
    let Some(watchdog) = &report.watchdog else { return Vec::new() };
    let addresses = watchdog.addresses.iter().map(|address| {
        let is = if address.is_intercepted { "intercepted" } else { "not taken" };
        vec![Cell::text("now"), Cell::text(is), Cell::text(&format!("{}: {}", address.address, address.why))]
    });
    let events = watchdog.events.iter().map(|event| {
        let ago = report.time_ms.saturating_sub(event.time_ms) / 1000;
        let ago = format!("{}:{:02}:{:02} ago", ago / 3600, ago / 60 % 60, ago % 60);
        vec![Cell::text(&ago), Cell::text(&event.event), Cell::text(&event.detail)]
    });
    addresses.chain(events).collect()
}

/// The last of the values, as many as there is room for, in shades up to the largest.
fn plot(name: &str, values: &[f64], unit: &str, width: usize) -> String {
    let room = width.saturating_sub(name.len() + 24).min(values.len());
    let values = values.get(values.len() - room..).unwrap_or_default();
    let most = values.iter().copied().fold(0.0, f64::max);
    let shade = |value: &f64| {
        let bright = if most > 0.0 { (value / most * (SHADES.len() - 1) as f64).ceil() as usize } else { 0 };
        SHADES.get(bright).copied().map_or(' ', char::from)
    };
    let drawn: String = values.iter().map(shade).collect();
    let last = values.last().copied().unwrap_or(0.0);
    format!("{name} |{drawn}| {last:.1}{unit}, most {most:.1}{unit}")
}

/// How wide each column is, so that all fit: the widest gives way.
fn widths(columns: &[&str], rows: &[Vec<Cell>], width: usize) -> Vec<usize> {
    let wanted = |column: usize, name: &str| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.shown().len()).max();
        // A mark may follow its name.
        cells.unwrap_or(0).max(name.trim_start_matches('>').len() + 1)
    };
    let mut widths: Vec<usize> = columns.iter().enumerate().map(|(column, name)| wanted(column, name)).collect();
    let room = width.saturating_sub(2 * columns.len().saturating_sub(1));
    loop {
        let total: usize = widths.iter().sum();
        let Some(over) = total.checked_sub(room).filter(|over| *over > 0) else { return widths };
        let Some(widest) = widths.iter_mut().max() else { return widths };
        if *widest <= LEAST_WIDTH {
            return widths;
        }
        // To the next one's width at most, that the long share what is lacking, a column at a time when they are equal.
        *widest -= over.min((*widest - LEAST_WIDTH).min((*widest / 4).max(1)));
    }
}

fn row(columns: &[&str], widths: &[usize], cells: &[Cell]) -> String {
    let mut text = String::new();
    for ((cell, column), width) in cells.iter().zip(columns).zip(widths) {
        if !text.is_empty() {
            text.push_str("  ");
        }
        let shown = cell.shown();
        let cut = match shown.get(..width.saturating_sub(1)) {
            Some(beginning) if shown.len() > *width => format!("{beginning}~"),
            _ => shown.to_owned(),
        };
        text.push_str(&match column.starts_with('>') {
            true => format!("{cut:>width$}"),
            false => format!("{cut:<width$}"),
        });
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SIZE: (usize, usize) = (80, 24);

    fn report() -> Report {
        let named = |name: &str, count: u64| json!({ "name": name, "count": count, "error": 0 });
        let window = json!({
            "seconds": 60.0, "queries": 6000, "hits": 5400, "misses": 540, "rejected": 60, "failures": 30,
            "names": [named("a.example.", 900), named("b.example.", 90), named("c.test.", 9)],
            "clients": [{ "client": "10.0.0.7", "count": 500, "error": 3 }],
            "clients_and_names": [{ "client": "10.0.0.7", "name": "r1.example.", "count": 5, "error": 0 }],
            "nxdomain_names": [named("r1.example.", 5)],
            "failed_names": [named("bad.example.", 2)],
            "upstreams": [
                { "upstream": "192.0.2.1:53", "queries": 100, "failures": 0, "mean_ms": 2.5, "longest_ms": 40.0 },
                { "upstream": "192.0.2.2:53", "queries": 10, "failures": 5, "mean_ms": 9.0, "longest_ms": 41.0 },
                { "upstream": "192.0.2.3:53", "queries": 7, "failures": 7, "mean_ms": 5000.0, "longest_ms": 5001.0 },
            ],
            "slowest": [{ "ms": 1600.0, "name": "slow.example.", "type": "A", "client": "10.0.0.7", "rcode": null,
                "answered_by": "forward", "upstream": "192.0.2.1:53", "transport": "udp", "tries": 3 }],
        });
        let report = json!({
            "version": 1, "time_ms": 100_000, "shows_names": true, "minute": window, "ten_minutes": window,
            "blocks": [{ "server": "dns://:53", "zone": "example.", "queries_per_second": 90.0 }],
            "unmatched_per_second": 1.0,
            "upstreams": [{ "upstream": "192.0.2.1:53", "answers": 9, "p50_ms": 1.0, "p90_ms": 4.0, "p99_ms": null }],
            "failures": [{ "time_ms": 97_000, "name": "bad.example.", "type": "A", "client": "10.0.0.8",
                "rcode": "SERVFAIL", "reason": "nobody answers" }],
            "timeline": [
                { "seconds": 10.0, "queries": 100, "mean_ms": null },
                { "seconds": 10.0, "queries": 1000, "mean_ms": 8.0 },
            ],
            "watchdog": { "state": "serving", "is_interception_wanted": true,
                "addresses": [{ "address": "10.96.0.10", "is_intercepted": false, "why": "somebody else answers" }],
                "events": [{ "time_ms": 40_000, "event": "replaced", "detail": "hang" }] },
        });
        serde_json::from_value(report).unwrap()
    }

    fn live() -> (Live, Instant) {
        let (mut live, now) = (Live::new("http://127.0.0.1:9353/status.json".into()), Instant::now());
        live.take(Ok(report()), now);
        (live, now)
    }

    fn screen(live: &Live, now: Instant) -> String {
        let lines = live.draw(SIZE, now);
        assert_eq!(lines.len(), SIZE.1);
        assert!(lines.iter().all(|line| line.text.len() <= SIZE.0), "{lines:?}");
        lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }

    fn press(live: &mut Live, keys: &str) {
        keys.chars().for_each(|key| assert_eq!(live.press(Key::Char(key)), Next::GoOn));
    }

    #[test]
    fn each_view_shows_its_table() {
        let (mut live, now) = live();
        for (key, expected) in [
            ('1', &["a.example.       ", "900", "100.0/s  hits 90.0 %", "serving, 0 of 1 addresses intercepted"][..]),
            ('2', &["10.0.0.7", "500"]),
            ('3', &["10.0.0.7", "r1.example."]),
            ('4', &["r1.example.", "asked by", "10.0.0.7"]),
            ('5', &["bad.example."]),
            ('6', &["ok", "failing", "down", "longer", "5000.0"]),
            ('7', &["1600.0", "slow.example.", "dropped", "udp"]),
            ('8', &["3.0", "SERVFAIL", "nobody answers"]),
            ('9', &["example.", "90.0", "(none)"]),
            ('0', &["10.96.0.10: somebody else answers", "0:01:00 ago", "hang"]),
        ] {
            press(&mut live, &key.to_string());
            let shown = screen(&live, now);
            for text in expected {
                assert!(shown.contains(text), "{key}: {text} in\n{shown}");
            }
        }
        for view in View::ALL {
            assert!(screen(&live, now).contains(&format!("[{}]", live.view.name())), "{view:?}");
            live.press(Key::Next);
        }
        live.press(Key::Previous);
        assert_eq!(live.view, View::Blocks);
    }

    #[test]
    fn rows_are_sorted_filtered_and_scrolled() {
        let (mut live, now) = live();
        let names = |live: &Live| -> Vec<String> { live.rows().iter().map(|row| row[0].shown().to_owned()).collect() };
        let as_told = ["a.example.", "b.example.", "c.test."];
        assert_eq!(names(&live), as_told);
        press(&mut live, "sr");
        assert_eq!(names(&live), ["c.test.", "b.example.", "a.example."], "from Z to A");
        assert!(screen(&live, now).contains("name-"));
        press(&mut live, "rss");
        assert_eq!(live.sort, Some(2));
        press(&mut live, "s");
        assert_eq!((live.sort, names(&live)), (None, as_told.map(str::to_owned).to_vec()));
        press(&mut live, "/EXAMPLq");
        assert!(screen(&live, now).contains("filter: EXAMPLq_") && names(&live).is_empty(), "q is a letter now");
        live.press(Key::Backspace);
        live.press(Key::Enter);
        assert_eq!(names(&live), ["a.example.", "b.example."]);
        live.press(Key::PageDown);
        assert_eq!(live.scroll, 1, "no further than the last row");
        assert!(!screen(&live, now).contains("a.example."));
        live.press(Key::Escape);
        assert_eq!(names(&live).len(), 3);
    }

    #[test]
    fn what_is_frozen_stays_and_what_is_old_is_said_to_be() {
        let (mut live, now) = live();
        press(&mut live, "f");
        live.take(Err("gone".into()), now);
        assert!(screen(&live, now).contains("[frozen]") && !screen(&live, now).contains("gone"));
        press(&mut live, "f");
        live.take(Err("gone".into()), now);
        let later = screen(&live, now + Duration::from_secs(30));
        assert!(later.contains("gone") && later.contains("[30 s old]") && later.contains("a.example."), "{later}");
        let error = Report { error: Some("no server runs".into()), ..report() };
        live.take(Ok(error), now);
        assert!(screen(&live, now).contains("no server runs") && !screen(&live, now).contains("a.example."));
        press(&mut live, "0");
        assert!(screen(&live, now).contains("hang"), "the watchdog tells on");
        assert_eq!((live.press(Key::Char('q')), live.press(Key::Interrupt)), (Next::Quit, Next::Quit));
    }

    #[test]
    fn whatever_an_agent_says_is_printable_ascii_and_within_any_screen() {
        let hostile = "\u{1b}]0;x\u{7}\u{202e}evil\n\t<script>.".repeat(20);
        let text = serde_json::to_string(&report()).unwrap();
        let mut told: serde_json::Value = serde_json::from_str(&text).unwrap();
        spoil(&mut told, &hostile);
        let mut live = Live::new("http://x".into());
        let now = Instant::now();
        live.take(Ok(serde_json::from_value(told).unwrap()), now);
        for view in 0..View::ALL.len() {
            for size in [(80, 24), (1, 1), (20, 5), (300, 90)] {
                for line in live.draw(size, now) {
                    let is_plain = line.text.chars().all(|character| matches!(character, ' '..='~'));
                    assert!(is_plain && line.text.len() <= size.0, "{view} {size:?}: {:?}", line.text);
                }
            }
            live.press(Key::Next);
        }
        live.take(Err(hostile), now);
        assert!(live.draw(SIZE, now).iter().all(|line| line.text.is_ascii()));
    }

    /// Puts a text in the place of each.
    fn spoil(value: &mut serde_json::Value, text: &str) {
        match value {
            serde_json::Value::String(own) => text.clone_into(own),
            serde_json::Value::Array(values) => values.iter_mut().for_each(|value| spoil(value, text)),
            serde_json::Value::Object(fields) => fields.values_mut().for_each(|value| spoil(value, text)),
            _ => {}
        }
    }

    #[test]
    fn a_plot_is_as_wide_as_there_is_room_and_bright_where_much_was_asked() {
        assert_eq!(plot("x", &[0.0, 5.0, 10.0], "", 80), "x | =#| 10.0, most 10.0");
        assert_eq!(plot("x", &[], "", 80), "x || 0.0, most 0.0");
        assert!(plot("x", &[1.0; 500], " ms", 60).len() <= 60);
        assert_eq!(plot("x", &[1.0; 500], "", 3), "x || 0.0, most 0.0");
    }
}
