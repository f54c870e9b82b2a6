//! A question that a directive asks this server itself, as a client of the same listen address would: any block may answer it.

use super::{Failure, Outcome, OwnedRequest, Request};
use futures_util::future::BoxFuture;
use std::sync::{Arc, Weak};

/// Who answers what is asked at a listen address.
pub trait Resolver: Send + Sync {
    /// Runs the chain of the block whose zone has the name, from its first handler. [`Request::server`] and [`Request::zone`] need not be right.
    fn resolve<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Outcome>;
}

/// The listen addresses of a block, by [`Request::server`]. They live as long as their plan serves, or is asked for something.
#[derive(Clone, Default)]
pub struct Lookup(Arc<[Weak<dyn Resolver>]>);

/// Questions within questions: an answer to one may make another necessary, and so on without an end.
const MOST_WITHIN: u8 = 8;

tokio::task_local! {
    /// How many questions this one is within.
    static WITHIN: u8;
}

impl Lookup {
    pub fn new(listeners: impl IntoIterator<Item = Weak<dyn Resolver>>) -> Self {
        Self(listeners.into_iter().collect())
    }

    /// Asks at the listen address that the request came to.
    ///
    /// # Errors
    /// What a directive fails with; the plan is gone; the question is within too many others.
    pub async fn ask(&self, request: &OwnedRequest, directive: &'static str) -> Outcome {
        let within = WITHIN.try_with(|within| within + 1).unwrap_or(1);
        if within > MOST_WITHIN {
            let cause = format!("more than {MOST_WITHIN} questions within each other, the last for {}", request.query.name);
            return Err(Failure::servfail(directive, cause));
        }
        let Some(listener) = self.0.get(request.server).and_then(Weak::upgrade) else {
            return Err(Failure::servfail(directive, "the configuration that the question came to is gone"));
        };
        WITHIN.scope(within, listener.resolve(request.borrow())).await
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
    }

    #[tokio::test]
    async fn questions_within_questions_end() {
        let endless = Arc::new(Endless(std::sync::OnceLock::new()));
        let resolver: Arc<dyn Resolver> = endless.clone();
        let lookup = Lookup::new([Arc::downgrade(&resolver)]);
        _ = endless.0.set(lookup.clone());
        let request = Question::new("a.example.", RecordType::A).request().to_owned();
        let failure = lookup.ask(&request, "test").await.map(|_| ()).unwrap_err();
        assert!(failure.cause.contains("8 questions within each other"), "{failure}");
        drop((endless, resolver));
        assert!(lookup.ask(&request, "test").await.map(|_| ()).unwrap_err().cause.contains("gone"));
    }
}
