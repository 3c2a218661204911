//! How a pretend server behaves, call by call, as a test sets it.
//!
//! Once-only behaviours come first, then rules by predicate, then the standing behaviour. It
//! only chooses; the servers act.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::bot::Call;
use super::gate::Gate;
use super::sending::Work;

/// What the pretend Graph API does with one well-formed send.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Takes it and answers.
    Accept,
    /// Takes it and never answers: the connection is held until the client gives up.
    AcceptNeverAnswer,
    /// Takes it and resets the connection instead of answering.
    AcceptThenReset,
    /// Resets the connection and takes nothing: to the client the same as the one before.
    Reset,
    /// Refuses it in Graph's error shape.
    Reject {
        /// The HTTP status.
        http: u16,
        /// Graph's error code.
        code: i64,
    },
    /// Takes it, waits, answers.
    Delay(Duration),
    /// Takes it, and answers when the gate is open.
    Hold(Gate),
    /// Takes it, has the status `sent` delivered and answered, then answers.
    StatusBeforeAnswer,
}

/// What the pretend bot does with one call.
#[derive(Clone)]
pub enum Answer {
    /// Answers with this status and no body.
    Status(u16),
    /// Answers 200 with JSON made from the call.
    Json(Arc<dyn Fn(&Call) -> Value + Send + Sync>),
    /// Works at it, and answers what came of it, without a body.
    Work(Work),
    /// Waits, then goes on.
    Delay(Duration, Box<Self>),
    /// Waits until the gate is open, then goes on.
    Hold(Gate, Box<Self>),
    /// Never answers: the connection is held until the client gives up.
    Hang,
    /// Resets the connection.
    Reset,
}

impl Answer {
    /// See [`Answer::Json`]; made from the call's JSON.
    pub fn json(make: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        Self::from_call(move |call| make(&call.json))
    }

    /// See [`Answer::Json`].
    pub fn from_call(make: impl Fn(&Call) -> Value + Send + Sync + 'static) -> Self {
        Self::Json(Arc::new(make))
    }

    /// See [`Answer::Delay`].
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self::Delay(wait, Box::new(self))
    }

    /// See [`Answer::Hold`].
    #[must_use]
    pub fn held_by(self, gate: &Gate) -> Self {
        Self::Hold(gate.clone(), Box::new(self))
    }
}

type Predicate<I> = Box<dyn Fn(&I) -> bool + Send + Sync>;

/// The choice of a behaviour `B` for each input `I`.
pub struct Script<I, B>(Mutex<Lines<I, B>>);

type Drawn<I, B> = Box<dyn Fn(&I) -> Option<B> + Send + Sync>;

struct Lines<I, B> {
    next: VecDeque<B>,
    rules: Vec<Rule<I, B>>,
    drawn: Option<Drawn<I, B>>,
    always: B,
}

struct Rule<I, B> {
    applies: Predicate<I>,
    behaviour: B,
    once: bool,
}

impl<I, B> fmt::Debug for Script<I, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl<I, B: Clone> Script<I, B> {
    /// The same behaviour for every call.
    pub const fn new(always: B) -> Self {
        Self(Mutex::new(Lines {
            next: VecDeque::new(),
            rules: Vec::new(),
            drawn: None,
            always,
        }))
    }

    /// One call behaves like this, before anything else; several queue up.
    pub fn next(&self, behaviour: B) {
        self.with(|lines| lines.next.push_back(behaviour));
    }

    /// Every call that no rule speaks of behaves like this.
    pub fn always(&self, behaviour: B) {
        self.with(|lines| lines.always = behaviour);
    }

    /// Every call that `applies` behaves like this; of several rules the oldest decides.
    pub fn when(&self, applies: impl Fn(&I) -> bool + Send + Sync + 'static, behaviour: B) {
        self.add(Box::new(applies), behaviour, false);
    }

    /// The first call that `applies` behaves like this.
    pub fn once_when(&self, applies: impl Fn(&I) -> bool + Send + Sync + 'static, behaviour: B) {
        self.add(Box::new(applies), behaviour, true);
    }

    /// A call that no rule speaks of behaves as is drawn for it, where something is.
    pub fn draw(&self, choose: impl Fn(&I) -> Option<B> + Send + Sync + 'static) {
        self.with(|lines| lines.drawn = Some(Box::new(choose)));
    }

    /// Chooses for one call.
    pub fn choose(&self, input: &I) -> B {
        self.with(|lines| {
            if let Some(behaviour) = lines.next.pop_front() {
                return behaviour;
            }
            match lines.rules.iter().position(|rule| (rule.applies)(input)) {
                Some(index) if lines.rules[index].once => lines.rules.remove(index).behaviour,
                Some(index) => lines.rules[index].behaviour.clone(),
                None => {
                    let drawn = lines.drawn.as_ref().and_then(|choose| choose(input));
                    drawn.unwrap_or_else(|| lines.always.clone())
                }
            }
        })
    }

    fn add(&self, applies: Predicate<I>, behaviour: B, once: bool) {
        let rule = Rule {
            applies,
            behaviour,
            once,
        };
        self.with(|lines| lines.rules.push(rule));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Lines<I, B>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_comes_before_rules_and_rules_before_always() {
        let script: Script<u32, &str> = Script::new("always");
        script.when(|n| *n == 1, "rule");
        script.once_when(|n| *n == 2, "once");
        script.next("next");
        let chosen: Vec<&str> = [1, 1, 2, 2, 3].iter().map(|n| script.choose(n)).collect();
        assert_eq!(chosen, ["next", "rule", "once", "always", "always"]);
        script.always("other");
        assert_eq!(script.choose(&3), "other");
    }
}
