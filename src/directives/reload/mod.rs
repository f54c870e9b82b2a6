//! The `reload` directive looks whether the Corefile, or a file it imports or names as a certificate, has changed; see
//! README.md beside this file. The directive only says how often; whoever watches the Corefile uses [`period`],
//! [`ChangeDetector`] and [`ReloadMetrics`].

mod change;
mod metrics;

pub(crate) use change::{ChangeDetector, FilePart, Fingerprint};
pub(crate) use metrics::ReloadMetrics;

use crate::chain::{BlockConfig, ParseContext, ReloadConfig};
use crate::corefile::{Directive, value};
use std::time::Duration;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_JITTER: Duration = Duration::from_secs(15);
const LEAST_INTERVAL: Duration = Duration::from_secs(2);
const LEAST_JITTER: Duration = Duration::from_secs(1);
/// What Go, and so the reference, can hold.
const LONGEST: Duration = Duration::from_nanos(i64::MAX as u64);

/// How often a Corefile that is refused is looked at though nothing of it says so.
pub(crate) const WHILE_REFUSED: ReloadConfig = ReloadConfig { interval: DEFAULT_INTERVAL, jitter: DEFAULT_JITTER };

/// Reads one `reload` of a server block.
pub(crate) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    let diagnostics = &mut *context.diagnostics;
    value::ignored_options(directive, diagnostics);
    if let [_, _, extra, ..] = directive.arguments.as_slice() {
        diagnostics
            .error(extra.span, "reload takes an interval and a jitter")
            .help("write reload [INTERVAL] [JITTER], such as reload 30s 15s");
        return;
    }
    let mut words = directive.arguments.iter();
    let interval = words.next().map_or(Some(DEFAULT_INTERVAL), |token| {
        value::duration(token, "the interval of reload", LEAST_INTERVAL..=LONGEST, diagnostics)
    });
    let jitter = words.next().map_or(Some(DEFAULT_JITTER), |token| {
        let jitter = value::duration(token, "the jitter of reload", Duration::ZERO..=LONGEST, diagnostics)?;
        if !jitter.is_zero() && jitter < LEAST_JITTER {
            diagnostics
                .error(token.span, format!("a jitter of {} is neither 0 nor at least 1s", token.text))
                .help("write 0s for no jitter, or 1s or more");
            return None;
        }
        Some(jitter)
    });
    let (Some(interval), Some(jitter)) = (interval, jitter) else { return };
    block.reload = Some(ReloadConfig { interval, jitter: jitter.min(interval / 2) });
}

/// How long to wait between two looks at the Corefile: the interval, moved by up to half the jitter either way.
/// `random` is drawn evenly from 0 to 1, once for each plan, so that nodes that started together do not reload
/// together.
pub(crate) fn period(config: ReloadConfig, random: f64) -> Duration {
    config.interval.saturating_sub(config.jitter / 2) + config.jitter.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::{parse, period};
    use crate::chain::ReloadConfig;
    use crate::chain::testing::configure;
    use std::time::Duration;

    const fn config(interval: u64, jitter: u64) -> ReloadConfig {
        ReloadConfig { interval: Duration::from_secs(interval), jitter: Duration::from_secs(jitter) }
    }

    #[test]
    fn the_jitter_is_at_most_half_the_interval() {
        for (text, expected) in [
            ("reload", config(30, 15)),
            ("reload 10s", config(10, 5)),
            ("reload 2s 1s", config(2, 1)),
            ("reload 1m 0s", config(60, 0)),
            ("reload 1m 40s", config(60, 30)),
            ("reload 1m 5s", config(60, 5)),
        ] {
            let (block, said) = configure(parse, text);
            assert_eq!((block.reload, said.as_str()), (Some(expected), ""), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "reload 1s",
            "reload 0s",
            "reload soon",
            "reload 30",
            "reload 30s 500ms",
            "reload 30s -5s",
            "reload 1m 1s 1s",
        ] {
            let (block, said) = configure(parse, text);
            assert_eq!(block.reload, None, "{text}");
            assert!(said.contains("Corefile:2:"), "{text}: {said}");
        }
    }

    #[test]
    fn a_block_is_ignored_with_a_warning_and_any_time_is_taken() {
        let (block, said) = configure(parse, "reload {\n every 5s\n}");
        assert_eq!(block.reload, Some(config(30, 15)));
        assert!(said.starts_with("Corefile:3:2: warning: "), "{said}");
        let (block, said) = configure(parse, "reload 99999h");
        assert_eq!((block.reload, said.as_str()), (Some(config(99_999 * 3600, 15)), ""));
    }

    #[test]
    fn both_arguments_are_checked_at_once() {
        let (_, said) = configure(parse, "reload 1s 500ms");
        assert!(said.contains("Corefile:2:8") && said.contains("Corefile:2:11"), "{said}");
    }

    #[test]
    fn the_period_lies_half_the_jitter_around_the_interval() {
        assert_eq!(period(config(30, 15), 0.0), Duration::from_millis(22_500));
        assert_eq!(period(config(30, 15), 0.5), Duration::from_secs(30));
        assert_eq!(period(config(30, 15), 1.0), Duration::from_millis(37_500));
        assert_eq!(period(config(30, 0), 0.9), Duration::from_secs(30));
    }
}
