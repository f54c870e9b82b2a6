//! The `cancel` directive answers a query SERVFAIL that takes longer than a time; see README.md beside this file.

use crate::chain::{
    BlockConfig, BuildContext, BuildError, Built, Configured, Course, Explanation, Failure, FastPath, Following,
    Handler, Next, Outcome, ParseContext, Part, Request,
};
use crate::corefile::{Directive, value};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const KEYWORD: &str = "cancel";
/// The reference's.
const DEFAULT: Duration = Duration::from_millis(5001);

/// Reads one `cancel` of a server block. Of several the last counts.
pub(super) fn parse(directive: &Directive, block: &mut BlockConfig, context: &mut ParseContext<'_>) {
    value::no_options(directive, context.diagnostics);
    let limit = match directive.arguments.as_slice() {
        [] => Some(DEFAULT),
        [limit] => {
            value::duration(limit, "the time of cancel", Duration::from_nanos(1)..=Duration::MAX, context.diagnostics)
        }
        [_, extra, ..] => {
            context
                .diagnostics
                .error(extra.span, "`cancel` takes one time")
                .help("write `cancel [TIMEOUT]`, such as `cancel 5s`");
            None
        }
    };
    let Some(limit) = limit else { return };
    block.parts.retain(|part| part.keyword != KEYWORD);
    block.parts.push(Part { keyword: KEYWORD, span: directive.keyword.span, configured: Box::new(Cancel { limit }) });
}

/// Ends what takes too long.
#[derive(Clone, Copy)]
struct Cancel {
    limit: Duration,
}

impl Configured for Cancel {
    fn build(&self, _context: &BuildContext<'_>) -> Result<Built, BuildError> {
        Ok(Built { handler: Some(Arc::new(*self)), ..Built::default() })
    }
}

impl Handler for Cancel {
    fn keyword(&self) -> &'static str {
        KEYWORD
    }

    fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
        explanation.say(format!("an answer that takes longer than {:?} is given up: SERVFAIL", self.limit));
        rest.explain(request, explanation)
    }

    /// What the fast path answers takes no time.
    fn serve_fast(&self, _request: &Request<'_>, _reply: &mut Vec<u8>) -> FastPath {
        FastPath::Pass
    }

    fn serve<'a>(&'a self, request: Request<'a>, next: Next<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let late = |_| Err(Failure::servfail(KEYWORD, format!("there is no answer after {:?}", self.limit)));
            timeout(self.limit, next.run(request)).await.unwrap_or_else(late)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::chain::testing::{Question, build, configure, process};
    use crate::chain::{Chain, Course, Explanation, FastPath, Following, Handler, Next, Outcome, Request};
    use crate::message::RecordType;
    use futures_util::future::BoxFuture;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::Instant;

    /// Never answers.
    struct Silent;

    impl Handler for Silent {
        fn keyword(&self) -> &'static str {
            "silent"
        }
        fn explain(&self, request: &Request<'_>, rest: Following<'_>, explanation: &mut Explanation) -> Course {
            rest.explain(request, explanation)
        }
        fn serve<'a>(&'a self, _request: Request<'a>, _next: Next<'a>) -> BoxFuture<'a, Outcome> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_longer_is_a_failure_and_what_does_not_passes() {
        for (text, limit) in [("cancel", 5001), ("cancel 2s", 2000), ("cancel 2s\ncancel 1s", 1000)] {
            let handler = build(&configure(parse, text).0, &process()).handler.unwrap();
            let question = Question::new("a.example.", RecordType::A);
            assert_eq!(question.ask_quickly(&*handler).0, FastPath::Pass);
            assert_eq!(question.ask(&handler).await.unwrap().from, "fixed");
            let begun = Instant::now();
            let chain = Arc::new(Chain { handlers: Box::new([handler, Arc::new(Silent)]) });
            let failure = chain.start().run(question.request()).await.unwrap_err();
            assert_eq!((failure.directive, begun.elapsed()), ("cancel", Duration::from_millis(limit)));
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, expected) in [
            ("cancel 0s", "error: `0s` is out of range"),
            ("cancel -1s", "error: `-1s` is negative"),
            ("cancel soon", "error: `soon` is not a duration"),
            ("cancel 1s 2s", "error: `cancel` takes one time"),
        ] {
            let said = configure(parse, text).1;
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
