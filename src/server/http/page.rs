//! What stands at one path. However many ask, it is made by one at a time and for a bounded part of a processor's time; who waits meanwhile shares
//! what is made next. However slowly they read, what is kept for them is bounded too.

use super::text::{Source, Text};
use crate::chain::HttpAnswer;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// After it was made nothing is made for so many times as long as that took: a fifth of a processor at most.
const REST: u32 = 4;

/// Octets of what is still being sent to somebody, but for the newest. Beyond it the oldest is withdrawn.
const HELD_OCTETS: usize = 4 << 20;

type Make = Arc<dyn Fn() -> HttpAnswer + Send + Sync>;

pub(super) struct Page {
    make: Make,
    last: Mutex<Last>,
}

/// What it was when it was made.
pub(super) struct Made {
    pub status: u16,
    pub content_type: &'static str,
    source: Arc<Source>,
}

impl Made {
    /// The octets, to be sent to one client.
    pub fn text(&self) -> Text {
        self.source.text()
    }
}

/// What was made last.
struct Last {
    /// When that began.
    began: Option<Instant>,
    /// Kept by whoever waits for it.
    made: Weak<Made>,
    rest_until: Instant,
    /// What may still be being sent, the oldest first.
    held: VecDeque<Weak<Source>>,
}

impl Page {
    pub fn new(make: Make) -> Self {
        let held = VecDeque::new();
        Self { make, last: Mutex::new(Last { began: None, made: Weak::new(), rest_until: Instant::now(), held }) }
    }

    /// As it is now: made after it was asked for.
    pub async fn answer(&self) -> Arc<Made> {
        let asked = Instant::now();
        // Given in the order of asking.
        let mut last = self.last.lock().await;
        if last.began.is_some_and(|began| began >= asked)
            && let Some(made) = last.made.upgrade()
        {
            return made;
        }
        not_before(last.rest_until).await;
        last.began = Some(Instant::now());
        let (made, took) = timed(&*self.make);
        last.rest_until = Instant::now() + took * REST;
        last.hold(&made);
        made
    }
}

impl Last {
    fn hold(&mut self, made: &Arc<Made>) {
        self.made = Arc::downgrade(made);
        self.held.push_back(Arc::downgrade(&made.source));
        self.held.retain(|source| source.strong_count() > 0);
        let mut octets: usize = self.held.iter().filter_map(Weak::upgrade).map(|source| source.octets()).sum();
        while octets > HELD_OCTETS
            && self.held.len() > 1
            && let Some(oldest) = self.held.pop_front()
        {
            let Some(oldest) = oldest.upgrade() else { continue };
            octets -= oldest.octets();
            oldest.withdraw();
        }
    }
}

fn timed(make: &dyn Fn() -> HttpAnswer) -> (Arc<Made>, Duration) {
    let began = std::time::Instant::now();
    let HttpAnswer { status, content_type, body } = make();
    let made = Arc::new(Made { status, content_type, source: Source::new(body) });
    (made, began.elapsed())
}

/// Waits until then; not at all, not even for the timer's next tick, if that is past.
pub(super) async fn not_before(time: Instant) {
    if time > Instant::now() {
        sleep_until(time).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{HELD_OCTETS, Made, Page};
    use crate::chain::HttpAnswer;
    use futures_util::future::join_all;
    use http_body_util::BodyExt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// A page of so many octets that takes a while to make and ends in how often it was made, less than ten times.
    fn page(octets: usize) -> Page {
        let made = AtomicUsize::new(0);
        Page::new(Arc::new(move || {
            std::thread::sleep(Duration::from_millis(5));
            let number = made.fetch_add(1, Ordering::Relaxed) + 1;
            HttpAnswer { status: 200, content_type: "text/plain", body: " ".repeat(octets - 1) + &number.to_string() }
        }))
    }

    async fn read(made: &Made) -> Option<String> {
        let octets = made.text().collect().await.ok()?.to_bytes();
        Some(String::from_utf8(octets.to_vec()).unwrap().trim_start().to_owned())
    }

    async fn asked(page: &Page) -> String {
        read(&*page.answer().await).await.expect("it is not withdrawn")
    }

    #[tokio::test]
    async fn who_asks_while_it_may_not_be_made_shares_what_is_made_next() {
        let page = page(1);
        assert_eq!(asked(&page).await, "1");
        let all = join_all((0..20).map(|_| page.answer())).await;
        for made in all {
            assert_eq!(read(&made).await.as_deref(), Some("2"));
        }
    }

    #[tokio::test]
    async fn nobody_gets_what_was_made_before_they_asked() {
        let page = page(1);
        let held = page.answer().await;
        assert_eq!(asked(&page).await, "2");
        assert_eq!(read(&held).await.as_deref(), Some("1"));
        assert_eq!(asked(&page).await, "3");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_keeps_nobody_else_from_it() {
        let page = page(1);
        page.answer().await;
        assert!(tokio::time::timeout(Duration::ZERO, page.answer()).await.is_err(), "it rests");
        assert_eq!(asked(&page).await, "2");
    }

    #[tokio::test]
    async fn what_slow_readers_keep_is_bounded_and_the_newest_is_always_had() {
        let page = page(HELD_OCTETS / 3);
        let held = [page.answer().await, page.answer().await, page.answer().await, page.answer().await];
        let mut read_now = Vec::new();
        for made in &held {
            read_now.push(read(made).await);
        }
        assert_eq!(read_now, [None, Some("2".into()), Some("3".into()), Some("4".into())]);
        let large =
            super::Page::new(Arc::new(|| HttpAnswer { status: 200, content_type: "", body: "x".repeat(2 * HELD_OCTETS) }));
        assert_eq!(asked(&large).await.len(), 2 * HELD_OCTETS, "one is always had");
    }
}
