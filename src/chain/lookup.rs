//! A question that a directive asks this server itself, as a client of the same listen address would: any block may
//! answer it.

use super::{Course, Explanation, Failure, Outcome, OwnedRequest, Request};
use futures_util::future::BoxFuture;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

/// Who answers what is asked at a listen address.
pub trait Resolver: Send + Sync {
    /// Runs the chain of the block whose zone has the name, from its first handler. [`Request::server_index`] and
    /// [`Request::zone`] need not be right.
    fn resolve<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Outcome>;

    /// What [`Resolver::resolve`] would do, without asking anybody ([`super::Handler::explain`]).
    fn explain(&self, request: &Request<'_>, explanation: &mut Explanation) -> Course;
}

/// The listen addresses of a block, by [`Request::server_index`]. They live as long as their plan serves, or is asked
/// for something.
#[derive(Clone, Default)]
pub struct Lookup(Arc<[Weak<dyn Resolver>]>);

/// Questions that a question of a directive's may make necessary, with itself and all that those lead to. An answer to
/// one may make several others necessary, and so on: without a bound of them all, an alias that leads back to itself by
/// two ways would be followed twice as often with each step.
const MOST_QUESTIONS: u8 = 16;

tokio::task_local! {
    /// Questions that the first one has led to so far.
    static ASKED: Arc<QuestionCount>;
}

#[derive(Default)]
struct QuestionCount(AtomicU8);

impl QuestionCount {
    /// Counts one more; false if there may be no more.
    fn count(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |asked| (asked < MOST_QUESTIONS).then(|| asked + 1))
            .is_ok()
    }
}

impl Lookup {
    pub fn new(listeners: impl IntoIterator<Item = Weak<dyn Resolver>>) -> Self {
        Self(listeners.into_iter().collect())
    }

    /// Asks at the listen address that the request came to. Gives way to the worker's other tasks first, since what
    /// answers may be ready at once.
    ///
    /// # Errors
    /// What a directive fails with; the plan is gone; the first question of its kind for the client's query has led to
    /// too many.
    pub async fn ask(&self, request: &OwnedRequest, directive: &'static str) -> Outcome {
        let asked = ASKED.try_with(Arc::clone).unwrap_or_default();
        if !asked.count() {
            let cause =
                format!("a query leads to more than {MOST_QUESTIONS} others, the last for {}", request.query.name);
            return Err(Failure::servfail(directive, cause));
        }
        tokio::task::yield_now().await;
        let Some(listener) = self.0.get(request.server_index).and_then(Weak::upgrade) else {
            return Err(Failure::servfail(directive, "the configuration that the question came to is gone"));
        };
        ASKED.scope(asked, listener.resolve(request.borrow())).await
    }

    /// What becomes of a question that [`Lookup::ask`] would be asked, without asking anybody.
    pub(crate) fn explain(&self, request: &OwnedRequest, explanation: &mut Explanation) -> Course {
        match self.0.get(request.server_index).and_then(Weak::upgrade) {
            Some(listener) if explanation.count_question() => listener.explain(&request.borrow(), explanation),
            _ => Course::Known(Err(Failure::servfail("", "it is not asked: it leads to too many questions"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::testing::Question;
    use crate::message::RecordType;

    /// Asks itself again and again.
    struct Endless(std::sync::OnceLock<Lookup>);

    impl Resolver for Endless {
        fn resolve<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Outcome> {
            Box::pin(async move { self.0.get().unwrap().ask(&request.to_owned(), "test").await })
        }

        fn explain(&self, request: &Request<'_>, explanation: &mut Explanation) -> Course {
            self.0.get().unwrap().explain(&request.to_owned(), explanation)
        }
    }

    /// Asks twice for what it is asked.
    struct Twice(std::sync::OnceLock<Lookup>, AtomicU8);

    impl Resolver for Twice {
        fn resolve<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Outcome> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let lookup = self.0.get().unwrap();
            Box::pin(async move {
                _ = lookup.ask(&request.to_owned(), "test").await;
                lookup.ask(&request.to_owned(), "test").await
            })
        }

        fn explain(&self, request: &Request<'_>, explanation: &mut Explanation) -> Course {
            self.0.get().unwrap().explain(&request.to_owned(), explanation)
        }
    }

    #[tokio::test]
    async fn questions_that_lead_to_several_others_each_are_few_all_the_same() {
        let twice = Arc::new(Twice(std::sync::OnceLock::new(), AtomicU8::new(0)));
        let resolver: Arc<dyn Resolver> = twice.clone();
        let lookup = Lookup::new([Arc::downgrade(&resolver)]);
        _ = twice.0.set(lookup.clone());
        let request = Question::new("a.example.", RecordType::A).request().to_owned();
        assert!(lookup.ask(&request, "test").await.is_err());
        assert_eq!(twice.1.load(Ordering::Relaxed), MOST_QUESTIONS);
    }

    #[tokio::test]
    async fn questions_within_questions_end() {
        let endless = Arc::new(Endless(std::sync::OnceLock::new()));
        let resolver: Arc<dyn Resolver> = endless.clone();
        let lookup = Lookup::new([Arc::downgrade(&resolver)]);
        _ = endless.0.set(lookup.clone());
        let request = Question::new("a.example.", RecordType::A).request().to_owned();
        let failure = lookup.ask(&request, "test").await.map(|_| ()).unwrap_err();
        assert!(failure.cause.contains("more than 16 others"), "{failure}");
        drop((endless, resolver));
        assert!(lookup.ask(&request, "test").await.map(|_| ()).unwrap_err().cause.contains("gone"));
    }
}
