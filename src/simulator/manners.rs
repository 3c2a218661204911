//! How the other sides of a rehearsal behave, call by call: the bot that is slow, fails or has
//! nothing to say, and Meta that refuses, limits, or takes a message and never says so. What is
//! drawn depends on what the call is about, not on when it comes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bot::{Bot, Call};
use super::graph::Graph;
use super::reference::{Reference, about};
use super::script::{Answer, Behaviour};
use super::seed::Draw;
use super::sending::{Sending, Speech};

/// How often each misfortune happens, from 0 (never) to 1 (always).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manners {
    /// The bot answers 204: it has nothing to say.
    pub bot_silent: f64,
    /// The bot answers 422, each time it is asked.
    pub bot_refuses: f64,
    /// The bot fails at first, once or twice: 500, 503, or a reset connection; or, where it sends
    /// by itself, 500 after some of what it had to say.
    pub bot_fails: f64,
    /// The bot hangs at first, until it is given up.
    pub bot_hangs: f64,
    /// The bot takes up to 300 ms.
    pub bot_slow: f64,
    /// The bot says two things.
    pub bot_wordy: f64,
    /// The bot, where it sends by itself, gives up on an answer at once and asks again.
    pub bot_impatient: f64,
    /// The bot, where it sends by itself, says it in the same words each time.
    pub bot_literal: f64,
    /// Meta takes a message and never answers.
    pub meta_mute: f64,
    /// Meta takes a message and resets the connection; or resets it and takes nothing.
    pub meta_resets: f64,
    /// Meta refuses a message for good.
    pub meta_refuses: f64,
    /// Meta answers with an error of its own that leaves all open.
    pub meta_errs: f64,
    /// Meta calls the number or the person too fast at first.
    pub meta_limits: f64,
    /// Meta answers up to 300 ms late, after its own receipts.
    pub meta_late: f64,
    /// A message fails after it was accepted.
    pub meta_fails_later: f64,
}

impl Default for Manners {
    /// A bad day.
    fn default() -> Self {
        Self {
            bot_silent: 0.03,
            bot_refuses: 0.015,
            bot_fails: 0.06,
            bot_hangs: 0.005,
            bot_slow: 0.3,
            bot_wordy: 0.15,
            bot_impatient: 0.1,
            bot_literal: 0.3,
            meta_mute: 0.015,
            meta_resets: 0.02,
            meta_refuses: 0.015,
            meta_errs: 0.01,
            meta_limits: 0.02,
            meta_late: 0.08,
            meta_fails_later: 0.02,
        }
    }
}

impl Manners {
    /// Nothing ever goes wrong.
    pub const fn good() -> Self {
        Self {
            bot_silent: 0.0,
            bot_refuses: 0.0,
            bot_fails: 0.0,
            bot_hangs: 0.0,
            bot_slow: 0.0,
            bot_wordy: 0.0,
            bot_impatient: 0.0,
            bot_literal: 0.0,
            meta_mute: 0.0,
            meta_resets: 0.0,
            meta_refuses: 0.0,
            meta_errs: 0.0,
            meta_limits: 0.0,
            meta_late: 0.0,
            meta_fails_later: 0.0,
        }
    }

    /// The bot behaves like this from now on; each reply names its message and its call. Its
    /// replies are in its answers; with `sending` it sends them by itself.
    pub fn teach_bot(self, bot: &Bot, seed: u64, sending: Option<Sending>) {
        let root = Draw::new(seed).fork("bot");
        let seen = Arc::new(Counter::default());
        bot.script().draw(move |call: &Call| {
            let wamids = call.wamids();
            let first = wamids.first()?;
            let before = seen.next(first);
            let mut draw = root.fork(first);
            let Some(sending) = &sending else {
                return Some(self.answer(&mut draw, before, replies_in_answer));
            };
            let works = |speech| {
                let (sending, seen, first) = (sending.clone(), Arc::clone(&seen), first.clone());
                Answer::Work(Arc::new(move |call| {
                    let (sending, seen, first) =
                        (sending.clone(), Arc::clone(&seen), first.clone());
                    Box::pin(async move {
                        let is_asked_again = || seen.times(&first) > before + 1;
                        sending.speak(&call, speech, is_asked_again).await
                    })
                }))
            };
            Some(self.answer(&mut draw, before, works))
        });
    }

    /// Meta behaves like this from now on.
    pub fn teach_graph(self, graph: &Graph, seed: u64) {
        let root = Draw::new(seed).fork("meta");
        let seen = Counter::default();
        graph.script().draw(move |body: &Value| {
            let about = about(body["text"]["body"].as_str().unwrap_or_default());
            let before = seen.next(&about);
            self.behaviour(&mut root.fork(&about), before)
        });
    }

    fn answer(&self, draw: &mut Draw, before: u32, says: impl FnOnce(Speech) -> Answer) -> Answer {
        let silent = draw.chance(self.bot_silent);
        let refuses = draw.chance(self.bot_refuses);
        let fails = draw.chance(self.bot_fails);
        let times = draw.between(1, 2);
        let failure = draw.below(3);
        let hangs = draw.chance(self.bot_hangs);
        let slow = draw.chance(self.bot_slow);
        let wait = draw.duration_below(Duration::from_millis(300));
        let parts = if draw.chance(self.bot_wordy) { 2 } else { 1 };
        let is_impatient = draw.chance(self.bot_impatient);
        let is_literal = draw.chance(self.bot_literal);
        let fails = fails && u64::from(before) < times;
        if hangs && before == 0 {
            return Answer::Hang;
        }
        let speech = Speech {
            parts,
            fails_after: fails.then_some(failure as usize % (parts + 1)),
            is_impatient,
            is_literal,
        };
        let answer = match (silent, refuses) {
            (true, _) => Answer::Status(204),
            (false, true) => Answer::Status(422),
            (false, false) => says(speech),
        };
        // Who works at it fails by itself, when some of it is done.
        let fails_at_once = fails && !matches!(answer, Answer::Work(_));
        if fails_at_once {
            return match failure {
                0 => Answer::Status(500),
                1 => Answer::Status(503),
                _ => Answer::Reset,
            };
        }
        match slow {
            true => answer.after(wait),
            false => answer,
        }
    }

    fn behaviour(&self, draw: &mut Draw, before: u32) -> Option<Behaviour> {
        let mute = draw.chance(self.meta_mute);
        let resets = draw.chance(self.meta_resets);
        let takes = draw.chance(0.5);
        let refuses = draw.chance(self.meta_refuses);
        let errs = draw.chance(self.meta_errs);
        let limits = draw.chance(self.meta_limits);
        let of_pair = draw.chance(0.5);
        let late = draw.chance(self.meta_late);
        let wait = draw.duration_below(Duration::from_millis(300));
        let reject = |http, code| Some(Behaviour::Reject { http, code });
        if refuses {
            return reject(400, 131_026);
        }
        if limits && before == 0 {
            return reject(400, if of_pair { 131_056 } else { 130_429 });
        }
        match (mute, resets, errs, late) {
            (true, ..) => Some(Behaviour::AcceptNeverAnswer),
            (_, true, ..) if takes => Some(Behaviour::AcceptThenReset),
            (_, true, ..) => Some(Behaviour::Reset),
            (_, _, true, _) => reject(500, 131_000),
            (.., true) => Some(Behaviour::Delay(wait)),
            (.., false) => None,
        }
    }
}

/// How often each thing was asked about.
#[derive(Default)]
struct Counter(Mutex<HashMap<String, u32>>);

impl Counter {
    fn next(&self, about: &str) -> u32 {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = seen.entry(about.to_owned()).or_insert(0);
        *times += 1;
        *times - 1
    }

    fn times(&self, about: &str) -> u32 {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(about).copied().unwrap_or(0)
    }
}

fn replies_in_answer(speech: Speech) -> Answer {
    Answer::from_call(move |call| replies(call, speech.parts))
}

fn replies(call: &Call, parts: usize) -> Value {
    let text = |part| Reference::lines(&call.wamids(), call.number, (part, parts));
    let texts: Vec<String> = (1..=parts).map(text).collect();
    json!({ "replies": texts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_manners_never_fail_and_bad_ones_depend_on_what_is_said() {
        for n in 0..100 {
            let mut draw = Draw::new(n);
            assert!(Manners::good().behaviour(&mut draw, 0).is_none());
            let answer = Manners::good().answer(&mut draw, 0, replies_in_answer);
            assert!(matches!(answer, Answer::Json(_)));
            let mut speech = None;
            Manners::good().answer(&mut draw, 0, |drawn| {
                speech = Some(drawn);
                Answer::Status(200)
            });
            assert_eq!(speech.and_then(|speech| speech.fails_after), None);
        }
        let bad = |n: u64, before| Manners::default().behaviour(&mut Draw::new(n), before);
        let all: Vec<Option<Behaviour>> = (0..500).map(|n| bad(n, 0)).collect();
        let told = |behaviour: &Option<Behaviour>| format!("{behaviour:?}");
        for (n, behaviour) in (0..500).zip(&all) {
            assert_eq!(told(&bad(n, 0)), told(behaviour), "the same each time");
        }
        let limited = |n: u64, before| told(&bad(n, before)).contains("131056");
        assert!((0..500).any(|n| limited(n, 0)));
        assert!(!(0..500).any(|n| limited(n, 1)), "only at first");
    }
}
