//! The heap profile: what the allocator holds, as text or as a profile. It does not say who has asked for what: that
//! would cost each allocation something.

use super::message::ProfileBuilder;
use super::rest::Turn;
use crate::chain::{HttpAnswer, MemoryBudget};
use crate::platform::{AllocatorFigures, allocator_figures};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Answers with the figures of one process.
pub(super) struct Heap {
    caches: Arc<MemoryBudget>,
    turn: Turn,
}

impl Heap {
    /// Of a process whose caches together hold `caches`.
    pub(super) fn new(caches: Arc<MemoryBudget>) -> Self {
        Self { caches, turn: Turn::new() }
    }

    /// As text, or as a profile. The allocator is asked for one at a time, since it stands still meanwhile.
    pub(super) async fn answer(&self, is_text: bool) -> HttpAnswer {
        let working = self.turn.wait().await;
        let began = Instant::now();
        let figures = allocator_figures();
        working.done(began.elapsed());
        let Some(figures) = figures else {
            return HttpAnswer::text(501, "This program's C library tells nothing of its allocator.\n");
        };
        let caches = self.caches.used();
        if is_text {
            return HttpAnswer::text(200, text(&figures, caches));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        HttpAnswer { status: 200, content_type: "application/octet-stream", body: profile(&figures, caches, now) }
    }
}

fn text(figures: &AllocatorFigures, caches: usize) -> String {
    let AllocatorFigures { in_use, free, free_at_top, free_pieces, heaps, mapped, mappings } = *figures;
    let mut text = String::from("# What the allocator holds, in octets (mallinfo2(3))\n");
    for (name, value, what) in [
        ("uordblks", in_use, "given out, of the heaps"),
        ("hblkhd", mapped, "given out in mappings of their own"),
        ("hblks", mappings, "of those mappings there are so many"),
        ("arena", heaps, "the heaps"),
        ("fordblks", free, "free in the heaps"),
        ("ordblks", free_pieces, "of those pieces there are so many"),
        ("keepcost", free_at_top, "free at the top of the main heap"),
        ("caches", caches, "of what is given out, the answers in the caches"),
    ] {
        // Writing to memory does not fail.
        _ = writeln!(text, "# {name} = {value} ({what})");
    }
    text
}

/// What is given out, as far as it is known to whom.
fn profile(figures: &AllocatorFigures, caches: usize, now: Duration) -> Vec<u8> {
    let mut builder = ProfileBuilder::new(&[("inuse_space", "bytes")]);
    builder.profile.period_type = Some(builder.value_type("space", "bytes"));
    builder.profile.time_nanos = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    let given_out = figures.in_use.saturating_add(figures.mapped);
    let caches = caches.min(given_out);
    for (name, octets) in [("answers in the caches", caches), ("everything else", given_out - caches)] {
        let line = builder.line(name, "", 0);
        let location = builder.location(0, 0, vec![line]);
        builder.sample(&[location], &[octets]);
    }
    builder.comment(&text(figures, caches));
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::{Heap, profile, text};
    use crate::chain::MemoryBudget;
    use crate::directives::pprof::tests::{decode, named_values};
    use crate::platform::AllocatorFigures;
    use std::sync::Arc;
    use std::time::Duration;

    const FIGURES: AllocatorFigures = AllocatorFigures {
        in_use: 5000,
        free: 600,
        free_at_top: 70,
        free_pieces: 8,
        heaps: 5600,
        mapped: 3000,
        mappings: 2,
    };

    #[test]
    fn what_is_given_out_is_shared_between_the_caches_and_everything_else() {
        let profile = decode(&profile(&FIGURES, 2000, Duration::from_nanos(7)));
        let expected = [("answers in the caches".to_owned(), vec![2000]), ("everything else".to_owned(), vec![6000])];
        assert_eq!(named_values(&profile), expected);
        assert_eq!(profile.time_nanos, 7);
        let [kind] = profile.sample_type.as_slice() else { panic!("one type") };
        assert_eq!(
            [kind.r#type, kind.unit].map(|text| profile.string_table[text as usize].as_str()),
            ["inuse_space", "bytes"]
        );
    }

    #[test]
    fn caches_that_count_more_than_is_given_out_take_all_of_it() {
        let profile = decode(&profile(&FIGURES, usize::MAX, Duration::ZERO));
        assert_eq!(named_values(&profile).into_iter().map(|(_, values)| values[0]).collect::<Vec<_>>(), [8000, 0]);
    }

    #[test]
    fn the_text_has_every_figure_under_the_allocators_name() {
        let text = text(&FIGURES, 2000);
        for figure in
            ["uordblks = 5000 ", "hblkhd = 3000 ", "hblks = 2 ", "arena = 5600 ", "fordblks = 600 ", "keepcost = 70 "]
        {
            assert!(text.contains(&format!("\n# {figure}")), "{figure} in {text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn this_process_has_given_something_out() {
        let heap = Heap::new(Arc::new(MemoryBudget::new(0)));
        let answer = heap.answer(false).await;
        assert_eq!(answer.status, 200);
        assert!(named_values(&decode(&answer.body))[1].1[0] > 0);
        let text = String::from_utf8(heap.answer(true).await.body).unwrap();
        assert!(text.contains("uordblks"), "{text}");
    }
}
