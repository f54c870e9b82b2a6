//! What a block's directives would do with a question, as each of them says ([`super::Handler::explain`]): without
//! asking anybody, counting anything, or marking as used what is kept.

use super::{Answer, Arranger, Chain, Failure, Observer, Outcome, Request};
use crate::corefile::Span;
use crate::message::Rcode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Steps that are kept. An alias may lead to other questions, and a Corefile have any number of rules.
const MOST_STEPS: usize = 500;

/// Questions that one leads to, with itself: as many as [`super::Lookup`] asks.
const MOST_QUESTIONS: u8 = 16;

/// What becomes of a question, as far as that is known without asking anybody.
pub enum Course {
    /// This is what the client is given.
    Known(Outcome),
    /// It depends on what an upstream answers.
    Asks,
}

/// What a directive does with a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It is handed on as it is.
    #[default]
    Passes,
    /// The question as it goes on, or the answer as it comes back, is another.
    Changes,
    /// The client is given an answer that is at hand.
    Answers,
    /// Upstreams are asked.
    Asks,
    /// It is answered with an error, as there is no answer.
    Fails,
    /// Nothing is said to the client.
    Drops,
    /// It is seen when it is over.
    Observes,
    /// A setting that it is answered with.
    Sets,
    /// A directive before has ended it.
    NotReached,
}

/// What one directive, or one rule of it, says.
#[derive(Debug)]
pub struct Step {
    /// As the Corefile writes it.
    pub keyword: &'static str,
    /// Where the directive stands, or the rule of it that counts.
    pub place: Option<Span>,
    pub effect: Effect,
    /// Why, a line each.
    pub says: Vec<String>,
}

/// The steps of a question through its block, and what comes of them.
#[derive(Debug, Default)]
pub struct Explanation {
    pub steps: Vec<Step>,
    /// What becomes of it, in a few words, and where the directive or rule stands that says so.
    pub verdict: Option<(String, Option<Span>)>,
    /// Upstreams are asked for a newer answer than the one that the client is given.
    pub refreshes: bool,
    questions: u8,
    /// Directives that have a step, by keyword and place.
    reached: Vec<(&'static str, Option<Span>)>,
}

impl Explanation {
    /// Begins a step of a directive; what is said next belongs to it.
    fn begin(&mut self, keyword: &'static str, place: Option<Span>) {
        self.steps.push(Step { keyword, place, effect: Effect::Passes, says: Vec::new() });
    }

    /// The number of the present step.
    pub(crate) fn step(&self) -> usize {
        self.steps.len().saturating_sub(1)
    }

    /// Begins a further step of the directive that had this one: for what it does after the rest of the chain, or for
    /// another rule.
    pub(crate) fn again(&mut self, step: usize) {
        if let Some(Step { keyword, place, .. }) = self.steps.get(step) {
            self.begin(keyword, *place);
        }
    }

    /// The present step is this rule's.
    pub(crate) fn set_place(&mut self, place: Span) {
        if let Some(step) = self.steps.last_mut() {
            step.place = Some(place);
        }
    }

    /// What the present step does.
    pub(crate) fn set_effect(&mut self, effect: Effect) {
        if let Some(step) = self.steps.last_mut() {
            step.effect = effect;
        }
    }

    /// Why, in a line for the present step.
    pub(crate) fn say(&mut self, line: impl Into<String>) {
        // Those beyond are not told, but have their place: a verdict may be theirs.
        if self.steps.len() > MOST_STEPS {
            return;
        }
        if let Some(step) = self.steps.last_mut() {
            step.says.push(line.into());
        }
    }

    /// The present step decides what becomes of the question, in these few words. The last that says so counts.
    pub(crate) fn settle(&mut self, effect: Effect, verdict: impl Into<String>) {
        self.set_effect(effect);
        self.verdict = Some((verdict.into(), self.steps.last().and_then(|step| step.place)));
    }

    /// The present step ends the question with what is at hand. `verdict`: in a few words, if there is more to say than
    /// the code and the directive.
    pub(crate) fn end(&mut self, outcome: Outcome, verdict: Option<String>) -> Course {
        let keyword = self.steps.last().map_or("", |step| step.keyword);
        let (effect, words) = match &outcome {
            Ok(Answer { response, .. }) => {
                let words = match (response.rcode(), response.answer_count()) {
                    (Rcode::NOERROR, 0) => format!("answered by {keyword}, without records"),
                    (Rcode::NOERROR, _) => format!("answered by {keyword}"),
                    (rcode, _) => format!("{rcode} by {keyword}"),
                };
                (Effect::Answers, words)
            }
            Err(failure) if failure.is_silence() => (Effect::Drops, format!("not answered, by {keyword}")),
            Err(Failure { rcode, cause, .. }) => (Effect::Fails, format!("{rcode}: {cause}")),
        };
        self.settle(effect, verdict.unwrap_or(words));
        Course::Known(outcome)
    }

    /// Adds to what becomes of the question.
    pub(crate) fn add_to_verdict(&mut self, words: &str) {
        if let Some((verdict, _)) = &mut self.verdict {
            verdict.push_str(words);
        }
    }

    /// Looks whether upstreams are asked for a newer answer while the client is given one that is at hand. What those
    /// after it would say of that is not told.
    pub(crate) fn refresh(&mut self, request: &Request<'_>, rest: Following<'_>) {
        let mut aside = Self { questions: self.questions, ..Self::default() };
        let asks = matches!(rest.explain(request, &mut aside), Course::Asks);
        self.questions = aside.questions;
        self.refreshes |= asks || aside.refreshes;
    }

    /// Counts a question that a directive asks this server itself; false if there are too many.
    pub(crate) fn count_question(&mut self) -> bool {
        let is_allowed = self.questions < MOST_QUESTIONS;
        self.questions = self.questions.saturating_add(1);
        is_allowed
    }

    /// Notes the directives of a block that have no step, as one before them has ended the question, and leaves out
    /// the steps that are too many.
    pub(crate) fn finish(&mut self, directives: &[BlockDirective]) {
        for BlockDirective { keyword, place, .. } in directives {
            if !self.reached.contains(&(*keyword, *place)) {
                self.begin(keyword, *place);
                self.set_effect(Effect::NotReached);
            }
        }
        let more = self.steps.len().saturating_sub(MOST_STEPS);
        if more > 0 {
            self.steps.truncate(MOST_STEPS);
            let says = vec![format!("{more} more steps are left out")];
            self.steps.push(Step { keyword: "-", place: None, effect: Effect::Passes, says });
        }
    }
}

/// A directive of a block that has to do with questions, for explanations, in the order of the chain.
pub(crate) struct BlockDirective {
    pub keyword: &'static str,
    /// `None` in a block that is in no Corefile.
    pub place: Option<Span>,
    pub role: DirectiveRole,
}

/// What a directive is in its block.
pub(crate) enum DirectiveRole {
    /// The handler at this position of the chain.
    Handler(usize),
    /// Sees what is over.
    Observer(Arc<dyn Observer>),
    /// Puts the records of replies into order.
    Arranger(Arc<dyn Arranger>),
    /// Sets what others do, in these words.
    Setting(Box<str>),
}

/// The directives after one that explains itself.
#[derive(Clone, Copy)]
pub struct Following<'a> {
    pub(crate) chain: &'a Chain,
    pub(crate) directives: &'a [BlockDirective],
}

impl Following<'_> {
    /// What they would do with this request, and what becomes of it: the first handler says so, and of those after it
    /// if it hands it on.
    pub(crate) fn explain(self, request: &Request<'_>, explanation: &mut Explanation) -> Course {
        let mut rest = self.directives;
        while let Some((directive, after)) = rest.split_first() {
            rest = after;
            let (keyword, place) = (directive.keyword, directive.place);
            let is_told = explanation.reached.contains(&(keyword, place));
            explanation.reached.push((keyword, place));
            match &directive.role {
                DirectiveRole::Handler(position) => {
                    let Some(handler) = self.chain.handlers.get(*position) else { continue };
                    explanation.begin(keyword, place);
                    return handler.explain(request, Following { directives: rest, ..self }, explanation);
                }
                // What they do they do once, however often the handlers are asked.
                _ if is_told => {}
                DirectiveRole::Observer(observer) => {
                    explanation.begin(keyword, place);
                    explanation.set_effect(Effect::Observes);
                    explanation.say(observer.explain(request));
                }
                DirectiveRole::Arranger(arranger) => {
                    explanation.begin(keyword, place);
                    explanation.set_effect(Effect::Changes);
                    explanation.say(arranger.explain());
                }
                DirectiveRole::Setting(words) => {
                    explanation.begin(keyword, place);
                    explanation.set_effect(Effect::Sets);
                    explanation.say(&**words);
                }
            }
        }
        let failure = Failure::servfail("", self.chain.unanswered());
        explanation.verdict = Some(("SERVFAIL: no directive of the block answers it".to_owned(), None));
        Course::Known(Err(failure))
    }

    /// Keyword of the next handler; `None` at the end of the chain.
    pub(crate) fn keyword(&self) -> Option<&'static str> {
        let is_handler = |directive: &&BlockDirective| matches!(directive.role, DirectiveRole::Handler(_));
        self.directives.iter().find(is_handler).map(|directive| directive.keyword)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::FileId;

    #[test]
    fn steps_that_are_too_many_are_left_out_and_the_verdict_is_that_of_the_step_that_has_it() {
        let place = |line: usize| Some(Span { file: FileId(0), line: line as u32, column: 1, length: 1 });
        let mut explanation = Explanation::default();
        for line in 0..MOST_STEPS {
            explanation.begin("acl", place(line));
            explanation.say("one");
        }
        explanation.begin("hosts", place(MOST_STEPS));
        let failure = Failure::servfail("hosts", "it is so");
        explanation.say("more");
        explanation.end(Err(failure), None);
        explanation.finish(&[]);
        assert_eq!(explanation.verdict, Some(("SERVFAIL: it is so".to_owned(), place(MOST_STEPS))));
        let (last, told) = explanation.steps.split_last().unwrap();
        assert_eq!((told.len(), &*last.says), (MOST_STEPS, &["1 more steps are left out".to_owned()][..]));
        let is_left = |step: &Step| step.says == ["one"] && step.effect == Effect::Passes;
        assert!(told.iter().all(is_left), "none is written over");
    }
}
