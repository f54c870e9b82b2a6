//! A block's chain of handlers, and the rest of it as each handler is given it to call.

use super::{After, Failure, FastPath, Handler, HitCounters, OpenSpan, Outcome, PacketAnswer, Request};
use crate::message::{RecordType, Response};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// A block's handlers in the reference's fixed order.
pub(crate) struct Chain {
    pub handlers: Box<[Arc<dyn Handler>]>,
}

impl Chain {
    /// Asks the handlers one after another, synchronously: what the first said that did not pass, and its place.
    #[inline]
    pub(crate) fn serve_fast(&self, request: &Request<'_>, reply: &mut Vec<u8>) -> (FastPath, usize) {
        FastRest { handlers: &self.handlers, index: 0 }.run(request, reply)
    }
    /// What counts the packet cache's hits with a reply to this request.
    pub(crate) fn hit_counters(&self, request: &Request<'_>, answered: PacketAnswer) -> HitCounters {
        let mut counters = HitCounters::new();
        FastRest { handlers: &self.handlers, index: 0 }.hit_counters(request, answered, &mut counters);
        counters
    }
    /// The whole chain, from its first handler.
    pub(crate) fn start(self: &Arc<Self>) -> Next<'_> {
        Next { chain: self, index: 0 }
    }
    /// Why a query that every handler handed on has no answer, in the reference's words: `errors { consolidate }`
    /// matches on them.
    pub(super) fn unanswered(&self) -> String {
        match self.handlers.last() {
            Some(last) => format!("plugin/{}: no next plugin found", last.keyword()),
            None => "no next plugin found".to_owned(),
        }
    }
}

/// The handlers after one of the fast path.
#[derive(Clone, Copy)]
pub struct FastRest<'a> {
    handlers: &'a [Arc<dyn Handler>],
    index: usize,
}

impl FastRest<'_> {
    /// The position in the chain of the first of them: one more than that of the handler that is given them.
    pub fn position(&self) -> usize {
        self.index
    }
    /// Has the first of them show its answer to a question for `qtype`, if it can ([`Handler::show_fast`]).
    #[inline]
    pub fn show(
        &self,
        request: &Request<'_>,
        qtype: RecordType,
        take: &mut dyn FnMut(&Response, u32) -> bool,
    ) -> Option<After> {
        self.handlers.get(self.index)?.show_fast(request, qtype, take)
    }
    /// Adds what counts the packet cache's hits with a reply that one of them gave.
    pub fn hit_counters(self, request: &Request<'_>, answered: PacketAnswer, counters: &mut HitCounters) {
        if let Some(handler) = self.handlers.get(self.index) {
            let rest = FastRest { handlers: self.handlers, index: self.index + 1 };
            handler.hit_counters(request, answered, rest, counters);
        }
    }
    /// Asks them one after another: what the first said that did not pass, and its place in the chain.
    /// [`FastPath::Pass`] if all passed.
    #[inline]
    pub fn run(self, request: &Request<'_>, reply: &mut Vec<u8>) -> (FastPath, usize) {
        let mut index = self.index;
        while let Some(handler) = self.handlers.get(index) {
            match handler.serve_fast(request, reply) {
                FastPath::Pass => index += 1,
                FastPath::Through => {
                    let rest = FastRest { handlers: self.handlers, index: index + 1 };
                    return handler.serve_fast_through(request, rest, reply);
                }
                said => return (said, index),
            }
        }
        (FastPath::Pass, self.handlers.len())
    }
}

/// The handlers after the one that holds this.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    chain: &'a Arc<Chain>,
    index: usize,
}

impl<'a> Next<'a> {
    /// Asks the next handler. At the end of the chain that is a SERVFAIL, as in the reference.
    pub fn run(self, request: Request<'a>) -> BoxFuture<'a, Outcome> {
        match self.chain.handlers.get(self.index) {
            Some(handler) => {
                // Opened first: a handler may ask the next one before it has a future to give.
                let span = OpenSpan::enter(handler.keyword());
                let serving = handler.serve(request, Next { chain: self.chain, index: self.index + 1 });
                match span {
                    None => serving,
                    Some(span) => Box::pin(async move {
                        let outcome = serving.await;
                        drop(span);
                        outcome
                    }),
                }
            }
            None => {
                let cause = self.chain.unanswered();
                Box::pin(async { Err(Failure::servfail("", cause)) })
            }
        }
    }
    /// Keyword of the next handler; `None` at the end of the chain.
    pub fn keyword(&self) -> Option<&'static str> {
        self.chain.handlers.get(self.index).map(|handler| handler.keyword())
    }
    /// Keeps the rest of the chain for a task of its own.
    pub fn to_rest(self) -> Rest {
        Rest { chain: self.chain.clone(), index: self.index }
    }
}

/// [`Next`], owned, for work that outlives the request that started it.
#[derive(Clone)]
pub struct Rest {
    chain: Arc<Chain>,
    index: usize,
}

impl Rest {
    pub fn next(&self) -> Next<'_> {
        Next { chain: &self.chain, index: self.index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::testing::Sample;
    use crate::chain::{Course, Explanation, Following};
    use crate::message::RecordType;

    struct HandsOn(&'static str);

    impl Handler for HandsOn {
        fn keyword(&self) -> &'static str {
            self.0
        }
        fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
            rest.explain(request, explanation)
        }
        fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
            next.run(request)
        }
    }

    #[tokio::test]
    async fn a_query_that_every_handler_hands_on_fails_in_the_name_of_the_last() {
        let sample = Sample::new("a.example.", RecordType::A);
        let chain = Arc::new(Chain { handlers: Box::new([Arc::new(HandsOn("cache")), Arc::new(HandsOn("forward"))]) });
        let failure = chain.start().run(sample.exchange().request).await.map(|_| ()).unwrap_err();
        assert_eq!(failure.cause, "plugin/forward: no next plugin found");
        let empty = Arc::new(Chain { handlers: Box::new([]) });
        let failure = empty.start().run(sample.exchange().request).await.map(|_| ()).unwrap_err();
        assert_eq!(failure.cause, "no next plugin found");
    }
}
