//! What stands at one path. However many ask, it is made by one at a time and for a bounded part of a processor's time; who waits meanwhile shares
//! what is made next.

use crate::chain::HttpAnswer;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// After it was made nothing is made for so many times as long as that took: a fifth of a processor at most.
const REST: u32 = 4;

type Make = Arc<dyn Fn() -> HttpAnswer + Send + Sync>;

pub(super) struct Page {
    make: Make,
    last: Mutex<Last>,
}

/// What was made last.
struct Last {
    /// When that began.
    began: Option<Instant>,
    /// Kept by whoever is being sent it.
    answer: Weak<HttpAnswer>,
    rest_until: Instant,
}

impl Page {
    pub fn new(make: Make) -> Self {
        Self { make, last: Mutex::new(Last { began: None, answer: Weak::new(), rest_until: Instant::now() }) }
    }

    /// As it is now: made after it was asked for.
    pub async fn answer(&self) -> Arc<HttpAnswer> {
        let asked = Instant::now();
        // Given in the order of asking.
        let mut last = self.last.lock().await;
        if last.began.is_some_and(|began| began >= asked)
            && let Some(answer) = last.answer.upgrade()
        {
            return answer;
        }
        not_before(last.rest_until).await;
        let began = Instant::now();
        let (answer, took) = timed(&*self.make);
        *last = Last { began: Some(began), answer: Arc::downgrade(&answer), rest_until: Instant::now() + took * REST };
        answer
    }
}

/// Waits until then; not at all, not even for the timer's next tick, if that is past.
pub(super) async fn not_before(time: Instant) {
    if time > Instant::now() {
        sleep_until(time).await;
    }
}

fn timed(make: &dyn Fn() -> HttpAnswer) -> (Arc<HttpAnswer>, Duration) {
    let began = std::time::Instant::now();
    let answer = Arc::new(make());
    (answer, began.elapsed())
}

/// The octets of an answer that is shared.
pub(super) struct Body(pub Arc<HttpAnswer>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self.0.body.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::Page;
    use crate::chain::HttpAnswer;
    use futures_util::future::join_all;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// A page that takes a while to make and says how often it was made.
    fn page() -> Page {
        let made = AtomicUsize::new(0);
        Page::new(Arc::new(move || {
            std::thread::sleep(Duration::from_millis(5));
            let body = (made.fetch_add(1, Ordering::Relaxed) + 1).to_string();
            HttpAnswer { status: 200, content_type: "text/plain", body }
        }))
    }

    #[tokio::test]
    async fn who_asks_while_it_may_not_be_made_shares_what_is_made_next() {
        let page = page();
        assert_eq!(page.answer().await.body, "1");
        let answers = join_all((0..20).map(|_| page.answer())).await;
        let bodies: Vec<&str> = answers.iter().map(|answer| &*answer.body).collect();
        assert_eq!(bodies, ["2"; 20]);
    }

    #[tokio::test]
    async fn nobody_gets_what_was_made_before_they_asked() {
        let page = page();
        let held = page.answer().await;
        assert_eq!((&*held.body, &*page.answer().await.body), ("1", "2"));
        assert_eq!(page.answer().await.body, "3");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_keeps_nobody_else_from_it() {
        let page = page();
        page.answer().await;
        assert!(tokio::time::timeout(Duration::ZERO, page.answer()).await.is_err(), "it rests");
        assert_eq!(page.answer().await.body, "2");
    }
}
