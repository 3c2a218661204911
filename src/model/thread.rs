//! The AI thread of a conversation: which one it is, and who may make it.
//!
//! A version names one right to make a thread and is never given twice. What comes under another
//! one is late, whatever the time; time decides only how soon somebody else may try.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::time::Timestamp;

/// What an AI provider calls a thread. Opaque: 1 to [`ThreadId::BYTES_MAX`] bytes without control
/// characters. `Debug` shows no content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(Arc<str>);

/// A text that is no id of a thread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 512 bytes without control characters, found {0}")]
pub struct ThreadIdError(String);

impl ThreadId {
    /// The longest id, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 512;

    /// Takes an id as it stands.
    ///
    /// # Errors
    /// It is empty, too long, or holds a control character. The error repeats nothing of it.
    pub fn new(text: &str) -> Result<Self, ThreadIdError> {
        let found = match text.chars().position(char::is_control) {
            _ if text.is_empty() => "none".to_owned(),
            _ if text.len() > Self::BYTES_MAX => format!("{} bytes", text.len()),
            Some(at) => format!("a control character in place {}", at + 1),
            None => return Ok(Self(text.into())),
        };
        Err(ThreadIdError(found))
    }

    /// One that was checked before it was stored.
    pub fn stored(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadId(…)")
    }
}

/// The right to make a thread. Whoever holds it knows its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// What its holder called the request, if anything: the same request is given it again.
    pub key: Option<String>,
    /// When it was given.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

impl Right {
    fn is_over(&self, now: Timestamp) -> bool {
        let lasts = self.until.since(self.since);
        // A clock that was set back by more than the right lasts does not prolong it.
        now >= self.until || now.after(lasts) < self.since
    }
}

/// How a conversation stands with its thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is none, and nobody makes one.
    Vacant,
    /// Somebody has the right to make it; perhaps it is over by now.
    Making(Right),
    /// It is known.
    Ready {
        /// Which.
        thread: ThreadId,
        /// Since when.
        since: Timestamp,
    },
}

/// The thread of one conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// The version of the last right that was given or taken away; 0 before the first one.
    pub version: i64,
    /// How it stands under that version.
    pub standing: Standing,
}

/// A thread that a conversation had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastThread {
    /// The right under which it was made.
    pub version: i64,
    /// Which.
    pub thread: ThreadId,
    /// Since when it was the conversation's.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

/// What was made for nothing, or may have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The right under which it was made.
    pub version: i64,
    /// Which; `None` when nobody ever told.
    pub thread: Option<ThreadId>,
    /// When that came to be known: the completion came, or the right ended.
    pub at: Timestamp,
}

/// What one who asks for the thread is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It is known.
    Ready {
        /// Under which version it was made.
        version: i64,
        /// Which.
        thread: ThreadId,
    },
    /// Nobody else makes it now: the one who asks may.
    Create {
        /// What to complete it with.
        version: i64,
        /// How long the right lasts from now on.
        left: Duration,
    },
    /// Somebody else is making it.
    Pending {
        /// Under which version.
        version: i64,
        /// How long that right lasts from now on.
        left: Duration,
    },
}

/// What became of the id that somebody brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// It is the conversation's thread, since now.
    Stored,
    /// It was so already, by this very completion.
    Again,
    /// It is not, and changes nothing.
    Late {
        /// Why.
        why: Lateness,
        /// The version that the conversation's thread has now.
        version: i64,
    },
}

/// Why an id came too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lateness {
    /// The right had ended. Nobody has been given another one yet.
    Over,
    /// Another thread was stored under this version.
    Taken,
    /// The version is another one by now, or never was this one.
    OtherVersion,
}

/// One step of a thread: what is answered, and what has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<A> {
    /// What the one who asked is told.
    pub answer: A,
    /// The thread after the step, if it is another one.
    pub next: Option<Thread>,
    /// What goes into the conversation's history.
    pub past: Option<PastThread>,
    /// What was made for nothing.
    pub orphan: Option<Orphan>,
}

impl<A> Step<A> {
    const fn keeps(answer: A) -> Self {
        Self {
            answer,
            next: None,
            past: None,
            orphan: None,
        }
    }

    /// Whether anything has changed.
    pub const fn writes(&self) -> bool {
        self.next.is_some() || self.past.is_some() || self.orphan.is_some()
    }

    /// Whether those who wait may get something now.
    pub fn wakes(&self) -> bool {
        let next = self.next.as_ref();
        next.is_some_and(|thread| !matches!(thread.standing, Standing::Making(_)))
    }
}

impl Thread {
    /// The thread of a conversation for which nobody has asked yet.
    pub const fn unasked() -> Self {
        Self {
            version: 0,
            standing: Standing::Vacant,
        }
    }

    /// How long the right to make it lasts from `now` on; `None` if nobody has it.
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        match &self.standing {
            Standing::Making(right) if !right.is_over(now) => Some(right.until.since(now)),
            Standing::Making(_) | Standing::Vacant | Standing::Ready { .. } => None,
        }
    }

    /// Somebody asks for it, and would make it within `lasts` where nobody else does. The holder
    /// of the right, known by its `key`, is given it again; it lasts no longer for that.
    pub fn access(&self, now: Timestamp, key: Option<&str>, lasts: Duration) -> Step<Access> {
        let version = self.version;
        match &self.standing {
            Standing::Ready { thread, .. } => Step::keeps(Access::Ready {
                version,
                thread: thread.clone(),
            }),
            Standing::Making(right) if !right.is_over(now) => {
                let left = right.until.since(now);
                let is_holder = key.is_some() && right.key.as_deref() == key;
                Step::keeps(match is_holder {
                    true => Access::Create { version, left },
                    false => Access::Pending { version, left },
                })
            }
            Standing::Making(right) => Step {
                orphan: Some(self.never_learnt(right, now)),
                ..self.give(now, key, lasts)
            },
            Standing::Vacant => self.give(now, key, lasts),
        }
    }

    fn give(&self, now: Timestamp, key: Option<&str>, lasts: Duration) -> Step<Access> {
        let version = self.version + 1;
        let right = Right {
            key: key.map(str::to_owned),
            since: now,
            until: now.after(lasts),
        };
        let next = Self {
            version,
            standing: Standing::Making(right),
        };
        Step {
            next: Some(next),
            ..Step::keeps(Access::Create {
                version,
                left: lasts,
            })
        }
    }

    fn never_learnt(&self, right: &Right, now: Timestamp) -> Orphan {
        Orphan {
            version: self.version,
            thread: None,
            at: right.until.min(now),
        }
    }

    /// Somebody brings what was made under `version`.
    pub fn complete(&self, now: Timestamp, version: i64, thread: &ThreadId) -> Step<Completion> {
        let is_own = version == self.version;
        let late = |why| Completion::Late {
            why,
            version: self.version,
        };
        let orphan = Orphan {
            version,
            thread: Some(thread.clone()),
            at: now,
        };
        let refused = |why, next| Step {
            next,
            orphan: Some(orphan),
            ..Step::keeps(late(why))
        };
        let stands = |standing| Some(Self { version, standing });
        match &self.standing {
            Standing::Ready { thread: known, .. } if known == thread => {
                Step::keeps(match is_own {
                    true => Completion::Again,
                    // It is in use: nobody shall take it for an orphan.
                    false => late(Lateness::OtherVersion),
                })
            }
            Standing::Ready { .. } if is_own => refused(Lateness::Taken, None),
            Standing::Making(right) if is_own && right.is_over(now) => {
                // Its id is learnt after all: nobody need say later that it never was.
                refused(Lateness::Over, stands(Standing::Vacant))
            }
            Standing::Making(_) if is_own => {
                let thread = thread.clone();
                let since = now;
                Step {
                    next: stands(Standing::Ready { thread, since }),
                    ..Step::keeps(Completion::Stored)
                }
            }
            Standing::Vacant if is_own && version > 0 => refused(Lateness::Over, None),
            Standing::Ready { .. } | Standing::Making(_) | Standing::Vacant => {
                refused(Lateness::OtherVersion, None)
            }
        }
    }

    /// It is to be made afresh: the one that is known is a past one, and who is making one has
    /// lost the right to. Answers the version from then on.
    pub fn forget(&self, now: Timestamp) -> Step<i64> {
        let version = self.version + 1;
        let forgotten = Step {
            next: Some(Self {
                version,
                standing: Standing::Vacant,
            }),
            ..Step::keeps(version)
        };
        match &self.standing {
            Standing::Vacant => Step::keeps(self.version),
            Standing::Making(right) => Step {
                orphan: Some(self.never_learnt(right, now)),
                ..forgotten
            },
            Standing::Ready { thread, since } => Step {
                past: Some(PastThread {
                    version: self.version,
                    thread: thread.clone(),
                    since: *since,
                    until: now,
                }),
                ..forgotten
            },
        }
    }
}

#[cfg(test)]
mod property;

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(20);
    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn at(seconds: u64) -> Timestamp {
        START.after(Duration::from_secs(seconds))
    }

    fn id(text: &str) -> ThreadId {
        ThreadId::new(text).expect("an id")
    }

    fn making(key: Option<&str>) -> Thread {
        let step = Thread::unasked().access(at(0), key, LASTS);
        step.next.expect("the right is given")
    }

    fn ready(text: &str) -> Thread {
        let step = making(None).complete(at(1), 1, &id(text));
        step.next.expect("it is stored")
    }

    fn pending(left: u64) -> Access {
        let left = Duration::from_secs(left);
        Access::Pending { version: 1, left }
    }

    #[test]
    fn the_first_one_makes_it_and_the_others_wait_and_get_it() {
        let first = Thread::unasked().access(at(0), None, LASTS);
        let create = |version| Access::Create {
            version,
            left: LASTS,
        };
        assert_eq!(first.answer, create(1));
        assert!(!first.wakes(), "nobody gets anything by that");
        let made = first.next.expect("the right is given");
        assert_eq!(made.left(at(5)), Some(Duration::from_secs(15)));
        let second = made.access(at(5), None, LASTS);
        assert_eq!(second, Step::keeps(pending(15)));
        let done = made.complete(at(6), 1, &id("thr_a"));
        assert_eq!(done.answer, Completion::Stored);
        assert!(done.wakes());
        let done = done.next.expect("it is stored");
        let thread = id("thr_a");
        assert_eq!(
            done.access(at(9), None, LASTS).answer,
            Access::Ready { version: 1, thread }
        );
        assert_eq!(done.left(at(9)), None);
    }

    #[test]
    fn the_same_request_has_the_same_right_and_not_for_longer() {
        let made = making(Some("k"));
        let left = Duration::from_secs(8);
        assert_eq!(
            made.access(at(12), Some("k"), LASTS),
            Step::keeps(Access::Create { version: 1, left })
        );
        for other in [None, Some("l")] {
            assert_eq!(made.access(at(12), other, LASTS).answer, pending(8));
        }
        assert_eq!(making(None).access(at(12), None, LASTS).answer, pending(8));
        let again = made.access(at(20), Some("k"), LASTS);
        assert_eq!(again.next.expect("given anew").version, 2);
    }

    #[test]
    fn a_right_that_is_over_goes_to_the_next_one_and_its_thread_was_never_learnt() {
        let made = making(None);
        assert_eq!(made.access(at(19), None, LASTS).answer, pending(1));
        let step = made.access(at(90), None, LASTS);
        let orphan = Orphan {
            version: 1,
            thread: None,
            at: at(20),
        };
        assert_eq!(step.orphan, Some(orphan));
        let next = step.next.expect("given anew");
        assert_eq!(next.version, 2);
        let late = next.complete(at(91), 1, &id("thr_late"));
        let why = Lateness::OtherVersion;
        assert_eq!(late.answer, Completion::Late { why, version: 2 });
        assert_eq!(late.next, None);
        let orphan = late.orphan.expect("it is listed");
        assert_eq!((orphan.version, orphan.thread), (1, Some(id("thr_late"))));
    }

    #[test]
    fn after_its_end_a_right_is_worth_nothing_though_nobody_else_came() {
        let late = making(None).complete(at(20), 1, &id("thr_late"));
        let over = Completion::Late {
            why: Lateness::Over,
            version: 1,
        };
        assert_eq!(late.answer, over);
        let left = late.next.expect("nobody makes one any more");
        assert_eq!((left.version, &left.standing), (1, &Standing::Vacant));
        let again = left.complete(at(21), 1, &id("thr_late"));
        assert_eq!((again.answer, again.next), (over, None));
        let next = left.access(at(22), None, LASTS);
        assert_eq!(next.orphan, None, "its id was learnt");
        assert_eq!(next.next.expect("given").version, 2);
    }

    #[test]
    fn a_clock_that_is_set_back_prolongs_no_right() {
        let made = making(None);
        let before = |seconds: i64| Timestamp(START.0 - 1000 * seconds);
        assert_eq!(made.access(before(20), None, LASTS).answer, pending(40));
        let step = made.access(before(21), None, LASTS);
        assert_eq!(step.next.expect("given anew").version, 2);
        assert_eq!(step.orphan.expect("never learnt").at, before(21));
    }

    #[test]
    fn a_completion_counts_once_and_another_one_of_its_right_does_not() {
        let thread = ready("thr_a");
        let again = thread.complete(at(900), 1, &id("thr_a"));
        assert_eq!(again, Step::keeps(Completion::Again));
        let other = thread.complete(at(2), 1, &id("thr_b"));
        let why = Lateness::Taken;
        assert_eq!(other.answer, Completion::Late { why, version: 1 });
        assert_eq!(other.orphan.expect("listed").thread, Some(id("thr_b")));
        let in_use = thread.complete(at(2), 7, &id("thr_a"));
        let why = Lateness::OtherVersion;
        assert_eq!(
            in_use,
            Step::keeps(Completion::Late { why, version: 1 }),
            "what is in use is no orphan"
        );
        let unasked = Thread::unasked().complete(at(2), 1, &id("thr_b"));
        assert_eq!(unasked.answer, Completion::Late { why, version: 0 });
    }

    #[test]
    fn to_forget_takes_the_right_away_and_keeps_the_past() {
        let step = ready("thr_a").forget(at(5));
        assert_eq!(step.answer, 2);
        assert!(step.wakes());
        let past = PastThread {
            version: 1,
            thread: id("thr_a"),
            since: at(1),
            until: at(5),
        };
        assert_eq!(step.past, Some(past));
        let vacant = step.next.expect("nothing is known");
        assert_eq!(vacant.forget(at(6)), Step::keeps(2), "nothing to forget");
        let anew = vacant.access(at(6), None, LASTS);
        assert_eq!(anew.next.expect("given").version, 3);

        let step = making(None).forget(at(5));
        let orphan = step.orphan.expect("somebody may be making it");
        assert_eq!((orphan.thread, orphan.at), (None, at(5)));
        let vacant = step.next.expect("nobody has the right");
        let late = vacant.complete(at(6), 1, &id("thr_late"));
        let why = Lateness::OtherVersion;
        assert_eq!(late.answer, Completion::Late { why, version: 2 });
    }

    #[test]
    fn an_id_is_any_text_of_bounded_length_that_can_be_shown() {
        for right in ["x", "thr_abc", "ünïcode 7", &"a".repeat(512)] {
            assert_eq!(id(right).as_str(), right);
        }
        let long = "é".repeat(257);
        for (wrong, found) in [
            ("", "none"),
            (long.as_str(), "514 bytes"),
            ("a\0", "a control character in place 2"),
            ("\u{85}", "a control character in place 1"),
        ] {
            let error = ThreadId::new(wrong).expect_err(wrong).to_string();
            assert!(error.ends_with(&format!("found {found}")), "{error}");
        }
        assert_eq!(format!("{:?}", id("thr_abc")), "ThreadId(…)");
    }
}
