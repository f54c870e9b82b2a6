//! Answers the questions that directives ask this server itself.

use super::{Choice, Listener};
use crate::chain::{Course, Explanation, Failure, Outcome, Request, Resolver};
use crate::message::Rcode;
use futures_util::future::BoxFuture;

impl Resolver for Listener {
    fn resolve<'a>(&'a self, request: Request<'a>) -> BoxFuture<'a, Outcome> {
        let query = request.query;
        let Some(Choice { site, .. }) = self.choose(query, request.wire, request.peer) else {
            let cause = format!("no server block of this listen address has {}", query.name);
            return Box::pin(async { Err(Failure { rcode: Rcode::REFUSED, directive: "", cause }) });
        };
        let block = &site.block;
        // Where the block keeps no subnets, none goes upstream.
        let keeps_subnets = block.options.as_ref().is_some_and(|options| options.client_subnet.is_some());
        let request = Request {
            server_index: site.server,
            zone: site.zone,
            udp_cap: block.udp_cap,
            client_subnet: request.client_subnet.filter(|_| keeps_subnets),
            nsid: None,
            options: None,
            ..request
        };
        block.chain.start().run(request)
    }

    fn explain(&self, request: &Request<'_>, explanation: &mut Explanation) -> Course {
        let query = request.query;
        match self.choose(query, request.wire, request.peer) {
            Some(Choice { site, .. }) => {
                let request = Request { client_subnet: None, nsid: None, options: None, ..*request };
                self.explain_in(site, &request, explanation)
            }
            None => {
                let cause = format!("no server block of this listen address has {}", query.name);
                Course::Known(Err(Failure { rcode: Rcode::REFUSED, directive: "", cause }))
            }
        }
    }
}
