//! The rest of a chain.

use super::{Directive, Failure, Outcome, Request};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// A block's links in the reference's fixed order.
pub struct Chain {
    pub links: Box<[Arc<dyn Directive>]>,
}

impl Chain {
    /// The whole chain, from its first link.
    pub fn start(self: &Arc<Self>) -> Next<'_> {
        Next { chain: self, index: 0 }
    }
}

/// The links after the one that holds this.
#[derive(Clone, Copy)]
pub struct Next<'a> {
    chain: &'a Arc<Chain>,
    index: usize,
}

impl<'a> Next<'a> {
    /// Asks the next link. At the end of the chain that is a SERVFAIL, as in the reference.
    pub fn run(self, request: Request<'a>) -> BoxFuture<'a, Outcome> {
        match self.chain.links.get(self.index) {
            Some(link) => link.serve(request, Next { chain: self.chain, index: self.index + 1 }),
            None => Box::pin(async { Err(Failure::servfail("", "no next plugin found")) }),
        }
    }
    /// Keyword of the next link; `None` at the end of the chain.
    pub fn keyword(&self) -> Option<&'static str> {
        self.chain.links.get(self.index).map(|link| link.keyword())
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
