//! The CPU profile: samples of the stacks that use processor time, over some seconds.

use super::aggregate::Aggregate;
use super::message::ProfileBuilder;
use super::rest::Turn;
use super::symbols::Symbols;
use crate::chain::HttpAnswer;
use crate::platform::release_free_memory;
use crate::stack_sampling::{Sampler, SamplingError};
use crate::threads;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Processor time between two samples: a hundred a second, as in Go.
const PERIOD: Duration = Duration::from_millis(10);
/// Pauses in which samples wait to be counted.
const PAUSE: Duration = Duration::from_millis(20);
const DEFAULT_SECONDS: u64 = 30;
const LONGEST: u64 = 60;

/// What the thread needs: it reads the program's file.
const STACK: usize = 2 << 20;

/// One for the process, since it has one timer and one signal.
static TURN: LazyLock<Turn> = LazyLock::new(Turn::new);

/// A profile of so many seconds, if that is what `seconds` says. It ends when the answer is dropped.
pub(super) async fn answer(seconds: Option<String>) -> HttpAnswer {
    let time = match duration(seconds.as_deref()) {
        Ok(time) => time,
        Err(text) => return HttpAnswer::text(400, text),
    };
    // With the status that the reference has for it.
    let Some(working) = TURN.try_wait().await else { return refused(&SamplingError::Busy) };
    let (done, outcome) = oneshot::channel();
    // The turn ends with the work, not with who waits for it.
    let run = move || {
        let profile = record(time, || done.is_closed());
        let profile = profile.map(|(profile, took)| {
            working.done(took);
            profile
        });
        // Nobody may wait for it any longer.
        _ = done.send(profile);
    };
    if let Err(error) = threads::spawn("pprof", Some(STACK), run) {
        return refused(&error);
    }
    match outcome.await {
        Ok(Ok(body)) => HttpAnswer { status: 200, content_type: "application/octet-stream", body },
        Ok(Err(error)) => refused(&error),
        Err(_) => HttpAnswer::text(500, "The profile was not made, since something panicked: please report this.\n"),
    }
}

fn refused(error: &dyn std::error::Error) -> HttpAnswer {
    HttpAnswer::text(500, format!("Could not enable CPU profiling: {error}\n"))
}

/// As in Go, what is no positive number is the default.
fn duration(seconds: Option<&str>) -> Result<Duration, String> {
    let number = seconds.and_then(|text| text.parse::<i64>().ok()).and_then(|number| u64::try_from(number).ok());
    match number.filter(|number| *number > 0).unwrap_or(DEFAULT_SECONDS) {
        seconds if seconds <= LONGEST => Ok(Duration::from_secs(seconds)),
        seconds => {
            Err(format!("A profile takes {LONGEST} seconds at most, not {seconds}: ask with ?seconds={LONGEST}\n"))
        }
    }
}

/// The profile, and how long it took to make it of the samples.
fn record(time: Duration, is_given_up: impl Fn() -> bool) -> Result<(Vec<u8>, Duration), SamplingError> {
    let (began, began_at) = (Instant::now(), SystemTime::now());
    let mut aggregate = Aggregate::default();
    let mut sampler = Sampler::start(PERIOD)?;
    loop {
        std::thread::sleep(PAUSE.min(time.saturating_sub(began.elapsed())));
        sampler.drain(|stack| aggregate.count(stack));
        if is_given_up() {
            return Ok(Default::default());
        }
        if began.elapsed() >= time {
            break;
        }
    }
    let (lasted, lost) = (began.elapsed(), i64::try_from(sampler.lost()).unwrap_or(i64::MAX));
    drop(sampler);
    let began = Instant::now();
    let since_epoch = began_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let profile = encode(&aggregate, lost, since_epoch, lasted);
    drop(aggregate);
    release_free_memory();
    Ok((profile, began.elapsed()))
}

fn encode(aggregate: &Aggregate, lost: i64, began: Duration, lasted: Duration) -> Vec<u8> {
    let nanoseconds = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let period = nanoseconds(PERIOD);
    let mut builder = ProfileBuilder::new(&[("samples", "count"), ("cpu", "nanoseconds")]);
    builder.profile.period_type = Some(builder.value_type("cpu", "nanoseconds"));
    builder.profile.period = period;
    builder.profile.time_nanos = nanoseconds(began);
    builder.profile.duration_nanos = nanoseconds(lasted);
    let mut symbols = Symbols::new(&mut builder);
    for (stack, count) in aggregate.stacks() {
        let locations: Vec<u64> = stack.iter().map(|address| symbols.location(&mut builder, *address)).collect();
        builder.sample(&locations, &[count, count.saturating_mul(period)]);
    }
    let without_stack = aggregate.others().saturating_add(lost);
    if without_stack > 0 {
        let line = builder.line("[stacks that were not kept]", "", 0);
        let location = builder.location(0, 0, vec![line]);
        builder.sample(&[location], &[without_stack, without_stack.saturating_mul(period)]);
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::{Aggregate, duration, encode};
    use crate::directives::pprof::tests::{decode, named_values};
    use std::time::Duration;

    #[test]
    fn seconds_are_read_as_the_reference_does_and_bounded() {
        for (text, seconds) in
            [(None, 30), (Some("1"), 1), (Some("60"), 60), (Some("0"), 30), (Some("-5"), 30), (Some("x"), 30)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text:?}");
        }
        for text in ["61", "9223372036854775807"] {
            assert!(duration(Some(text)).unwrap_err().contains("60 seconds at most"), "{text}");
        }
    }

    #[test]
    fn a_stack_is_counted_once_for_each_sample_and_named() {
        let here = encode as fn(&Aggregate, i64, Duration, Duration) -> Vec<u8>;
        let mut aggregate = Aggregate::default();
        // As a return address in it, and one that is nowhere.
        let known = here as usize + 1;
        for stack in [&[known, 16][..], &[known, 16], &[16]] {
            aggregate.count(stack);
        }
        let profile = decode(&encode(&aggregate, 3, Duration::from_secs(1), Duration::from_secs(2)));
        let mut named = named_values(&profile);
        named.sort();
        let values: Vec<_> = named.iter().map(|(_, values)| values.as_slice()).collect();
        assert_eq!(values, [[1, 10_000_000], [3, 30_000_000], [2, 20_000_000]]);
        assert_eq!(named[0].0, "0xf");
        assert_eq!(named[1].0, "[stacks that were not kept]");
        // With the path in front where debugging information does not hold the bare name.
        assert!(named[2].0.ends_with("encode"), "{}", named[2].0);
        assert_eq!(
            (profile.time_nanos, profile.duration_nanos, profile.period),
            (1_000_000_000, 2_000_000_000, 10_000_000)
        );
        assert!(
            profile
                .mapping
                .iter()
                .any(|mapping| mapping.memory_start <= known as u64 && (known as u64) < mapping.memory_limit)
        );
    }

    #[test]
    fn stacks_beyond_what_is_kept_are_counted_together() {
        let mut aggregate = Aggregate::default();
        for address in 0..10_000 {
            aggregate.count(&[address]);
        }
        assert_eq!(
            (aggregate.stacks().count() as i64 + aggregate.others(), aggregate.others()),
            (10_000, 10_000 - 8192)
        );
        aggregate.count(&[0]);
        assert_eq!(aggregate.others(), 10_000 - 8192, "it is known");
    }
}
