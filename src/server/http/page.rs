//! Makes the answer at one HTTP path. However many ask, it is made by one at a time and for a bounded part of a
//! processor's time; who waits meanwhile shares what is made next. However slowly they read, what is kept for them is
//! bounded too.

use super::content_coding::{self, Coding};
use super::text::{SharedText, Text};
use crate::chain::{AnswerAll, HttpAnswer};
use futures_util::future::poll_fn;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// After it was made nothing is made for so many times as long as that took: a fifth of a processor at most.
const REST: u32 = 4;

/// Octets of what is still being sent to somebody, but for the newest. Beyond it the oldest is withdrawn.
const HELD_OCTETS: usize = 4 << 20;

pub(super) struct Page {
    make: AnswerAll,
    /// Who has asked and not been answered.
    waiting: AtomicUsize,
    last: Mutex<Last>,
}

/// What it was when it was made.
pub(super) struct Made {
    pub status: u16,
    pub content_type: &'static str,
    plain: Arc<SharedText>,
    /// Once somebody has asked for it.
    compressed: OnceLock<Arc<SharedText>>,
}

impl Made {
    /// The octets, to be sent to one client.
    pub(super) fn text(&self, coding: Coding) -> Text {
        let compressed = self.compressed.get().filter(|_| coding == Coding::Gzip);
        compressed.unwrap_or(&self.plain).text()
    }
    /// The best coding for a client that takes `accepted`. What is shorter than a packet is not worth one.
    pub(super) fn coding(&self, accepted: Coding) -> Coding {
        if self.plain.octets() >= content_coding::WORTHWHILE { accepted } else { Coding::Identity }
    }
}

/// What was made last.
struct Last {
    /// When that began.
    began: Option<Instant>,
    /// As long as somebody waits, who may share it.
    made: Option<Arc<Made>>,
    rest_until: Instant,
    /// What may still be being sent, the oldest first.
    held: VecDeque<HeldCodings>,
}

/// One answer in each coding that it was made in.
#[derive(Default)]
struct HeldCodings {
    plain: Weak<SharedText>,
    compressed: Weak<SharedText>,
}

impl HeldCodings {
    fn sources(&self) -> impl Iterator<Item = Arc<SharedText>> {
        [&self.plain, &self.compressed].into_iter().filter_map(Weak::upgrade)
    }
    fn octets(&self) -> usize {
        self.sources().map(|source| source.octets()).sum()
    }
}

impl Page {
    pub(super) fn new(make: AnswerAll) -> Self {
        let held = VecDeque::new();
        let last = Last { began: None, made: None, rest_until: Instant::now(), held };
        Self { make, waiting: AtomicUsize::new(0), last: Mutex::new(last) }
    }

    /// As it is now: made after it was asked for, and compressed if that is what `accepted` allows and is worth while.
    pub(super) async fn answer(&self, accepted: Coding) -> Arc<Made> {
        let asked = Instant::now();
        let _waits = Waits::new(self);
        // Given in the order of asking.
        let mut last = self.last.lock().await;
        let shared = last.began.filter(|began| *began >= asked).and_then(|_| last.made.clone());
        let made = match shared {
            Some(made) => made,
            None => {
                not_before(last.rest_until).await;
                let began = Instant::now();
                let (made, took) = self.make().await;
                last.rest_until = Instant::now() + took * REST;
                last.hold(began, &made);
                made
            }
        };
        if made.coding(accepted) == Coding::Gzip && made.compressed.get().is_none() {
            let (_, took) = timed(|| last.compress(&made));
            last.rest_until = last.rest_until.max(Instant::now()) + took * REST;
        }
        made
    }

    /// Also how long the processor was used for it, which is less than it took if it waited for somebody.
    async fn make(&self) -> (Arc<Made>, Duration) {
        let (mut making, mut took) = timed(|| (self.make)());
        let HttpAnswer { status, content_type, body } = poll_fn(|context| {
            let (polled, more) = timed(|| making.as_mut().poll(context));
            took += more;
            polled
        })
        .await;
        (Arc::new(Made { status, content_type, plain: SharedText::new(body), compressed: OnceLock::new() }), took)
    }
}

/// Somebody who has asked. With the last one what was made goes, unless somebody reads it.
struct Waits<'a>(&'a Page);

impl<'a> Waits<'a> {
    fn new(page: &'a Page) -> Self {
        page.waiting.fetch_add(1, Ordering::Relaxed);
        Self(page)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        // Who holds the lock waits too, and is then the last one.
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1
            && let Ok(mut last) = self.0.last.try_lock()
        {
            last.made = None;
        }
    }
}

impl Last {
    /// Keeps what has been made since `began`.
    fn hold(&mut self, began: Instant, made: &Arc<Made>) {
        self.began = Some(began);
        self.made = Some(made.clone());
        self.held.retain(|held| held.sources().next().is_some());
        self.held.push_back(HeldCodings { plain: Arc::downgrade(&made.plain), ..HeldCodings::default() });
        self.bound();
    }

    /// `made` is the newest.
    fn compress(&mut self, made: &Made) {
        let Some(compressed) = made.plain.map(content_coding::compress) else { return };
        let compressed = made.compressed.get_or_init(|| SharedText::new(compressed));
        if let Some(newest) = self.held.back_mut() {
            newest.compressed = Arc::downgrade(compressed);
        }
        self.bound();
    }

    fn bound(&mut self) {
        let mut octets: usize = self.held.iter().map(HeldCodings::octets).sum();
        while octets > HELD_OCTETS
            && self.held.len() > 1
            && let Some(oldest) = self.held.pop_front()
        {
            octets -= oldest.octets();
            oldest.sources().for_each(|source| source.withdraw());
        }
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = std::time::Instant::now();
    let outcome = work();
    (outcome, began.elapsed())
}

/// Waits until then; not at all, not even for the timer's next tick, if that is past.
pub(super) async fn not_before(time: Instant) {
    if time > Instant::now() {
        sleep_until(time).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{Coding, HELD_OCTETS, Made, Page};
    use crate::chain::HttpAnswer;
    use futures_util::future::{join_all, ready};
    use http_body_util::BodyExt;
    use std::io::Read;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// A page of so many octets that takes a while to make and ends in how often it was made, less than ten times.
    fn page(octets: usize) -> Page {
        let made = AtomicUsize::new(0);
        Page::new(Arc::new(move || {
            std::thread::sleep(Duration::from_millis(5));
            let number = made.fetch_add(1, Ordering::Relaxed) + 1;
            let body = [vec![b' '; octets - 1], number.to_string().into()].concat();
            Box::pin(ready(HttpAnswer { status: 200, content_type: "text/plain", body }))
        }))
    }

    async fn read(made: &Made) -> Option<String> {
        let octets = made.text(Coding::Identity).collect().await.ok()?.to_bytes();
        Some(String::from_utf8(octets.to_vec()).unwrap().trim_start().to_owned())
    }

    async fn asked(page: &Page) -> String {
        read(&*page.answer(Coding::Identity).await).await.expect("it is not withdrawn")
    }

    #[tokio::test]
    async fn who_asks_while_it_may_not_be_made_shares_what_is_made_next() {
        let page = page(1);
        assert_eq!(asked(&page).await, "1");
        let all = join_all((0..20).map(|_| page.answer(Coding::Identity))).await;
        for made in all {
            assert_eq!(read(&made).await.as_deref(), Some("2"));
        }
    }

    #[tokio::test]
    async fn who_waits_shares_it_though_the_first_has_read_it_and_gone_and_then_it_is_kept_no_longer() {
        let page = page(1);
        assert_eq!(asked(&page).await, "1");
        assert_eq!(join_all((0..20).map(|_| asked(&page))).await, ["2"; 20]);
        assert!(page.last.lock().await.made.is_none());
        let gives_up = tokio::time::timeout(Duration::ZERO, page.answer(Coding::Identity));
        assert!(gives_up.await.is_err() && page.last.lock().await.made.is_none());
    }

    #[tokio::test]
    async fn nobody_gets_what_was_made_before_they_asked() {
        let page = page(1);
        let held = page.answer(Coding::Identity).await;
        assert_eq!(asked(&page).await, "2");
        assert_eq!(read(&held).await.as_deref(), Some("1"));
        assert_eq!(asked(&page).await, "3");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_keeps_nobody_else_from_it() {
        let page = page(1);
        page.answer(Coding::Identity).await;
        assert!(tokio::time::timeout(Duration::ZERO, page.answer(Coding::Identity)).await.is_err(), "it rests");
        assert_eq!(asked(&page).await, "2");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_while_it_is_made_leaves_nothing_behind_that_is_older_than_a_question() {
        let made = Arc::new(AtomicUsize::new(0));
        let page = Page::new(Arc::new(move || {
            let number = made.fetch_add(1, Ordering::Relaxed) + 1;
            Box::pin(async move {
                // Waits for somebody, who is gone at the second time.
                tokio::time::sleep(Duration::from_secs(if number == 2 { 1000 } else { 1 })).await;
                HttpAnswer::text(200, number.to_string())
            })
        }));
        let held = page.answer(Coding::Identity).await;
        let waits_behind = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            asked(&page).await
        };
        let gives_up = tokio::time::timeout(Duration::from_secs(10), page.answer(Coding::Identity));
        let (given_up, behind) = tokio::join!(gives_up, waits_behind);
        assert!(given_up.is_err());
        assert_eq!((read(&held).await.as_deref(), behind.as_str()), (Some("1"), "3"));
    }

    #[tokio::test]
    async fn what_slow_readers_keep_is_bounded_and_the_newest_is_always_had() {
        let page = page(HELD_OCTETS / 3);
        let held = [
            page.answer(Coding::Identity).await,
            page.answer(Coding::Identity).await,
            page.answer(Coding::Identity).await,
            page.answer(Coding::Identity).await,
        ];
        let mut read_now = Vec::new();
        for made in &held {
            read_now.push(read(made).await);
        }
        assert_eq!(read_now, [None, Some("2".into()), Some("3".into()), Some("4".into())]);
        let large = Page::new(Arc::new(|| Box::pin(ready(HttpAnswer::text(200, "x".repeat(2 * HELD_OCTETS))))));
        assert_eq!(asked(&large).await.len(), 2 * HELD_OCTETS, "one is always had");
    }

    #[tokio::test]
    async fn it_is_compressed_once_for_all_who_take_that_and_plain_for_the_others() {
        let page = page(10_000);
        let plain = page.answer(Coding::Identity).await;
        assert!(plain.compressed.get().is_none(), "nobody has asked for it");
        let both = join_all([Coding::Gzip, Coding::Identity, Coding::Gzip].map(|coding| page.answer(coding))).await;
        assert!(both.iter().all(|made| Arc::ptr_eq(made, &both[0])));
        assert_eq!(read(&both[1]).await.as_deref(), Some("2"));
        let octets = both[2].text(Coding::Gzip).collect().await.unwrap().to_bytes();
        assert!(octets.len() < 1000, "{}", octets.len());
        let mut text = String::new();
        flate2::read::GzDecoder::new(&octets[..]).read_to_string(&mut text).unwrap();
        assert_eq!((text.trim_start(), text.len()), ("2", 10_000));
    }

    #[tokio::test]
    async fn what_is_short_is_not_compressed() {
        let made = page(10).answer(Coding::Gzip).await;
        assert_eq!(made.coding(Coding::Gzip), Coding::Identity);
        assert!(made.compressed.get().is_none());
    }

    #[tokio::test]
    async fn what_slow_readers_keep_compressed_is_withdrawn_with_the_rest_of_it() {
        let page = page(HELD_OCTETS / 2 + 1);
        let held = page.answer(Coding::Gzip).await;
        let texts = [Coding::Identity, Coding::Gzip].map(|coding| held.text(coding));
        _ = page.answer(Coding::Gzip).await;
        for text in texts {
            assert!(text.collect().await.is_err());
        }
    }
}
