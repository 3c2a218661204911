//! What a thread promises whatever happens to it, and in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::property;

/// One thing that happens. Ids and keys are few, so that they meet again.
#[derive(Debug, Clone)]
enum Op {
    Access(Option<u8>),
    Complete(i64, u8),
    Forget,
    Wait(i64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => prop::option::of(0..3_u8).prop_map(Op::Access),
        4 => (0..4_i64, 0..5_u8).prop_map(|(back, id)| Op::Complete(back, id)),
        1 => Just(Op::Forget),
        // Back, too: an operator may set the clock.
        4 => (-30..30_i64).prop_map(Op::Wait),
    ]
}

const LASTS: Duration = Duration::from_secs(20);

/// What is remembered of all steps.
#[derive(Default)]
struct Seen {
    given: BTreeMap<i64, Option<u8>>,
    stored: BTreeMap<i64, ThreadId>,
    past: BTreeMap<i64, ThreadId>,
    orphans: BTreeSet<(i64, Option<ThreadId>)>,
}

impl Seen {
    fn keep(&mut self, past: Option<PastThread>, orphan: Option<Orphan>) {
        self.past
            .extend(past.map(|past| (past.version, past.thread)));
        self.orphans
            .extend(orphan.map(|orphan| (orphan.version, orphan.thread)));
    }
}

proptest! {
    #![proptest_config(property::cases(512))]

    #[test]
    fn one_version_has_one_holder_and_one_thread_and_nothing_made_is_out_of_sight(
        ops in prop::collection::vec(op(), 0..40),
    ) {
        let mut now = Timestamp(1_800_000_000_000);
        let mut thread = Thread::unasked();
        let mut seen = Seen::default();
        for op in ops {
            let before = thread.clone();
            match op {
                Op::Wait(seconds) => now = Timestamp(now.0 + 1000 * seconds),
                Op::Access(key) => {
                    let name = key.map(|key| key.to_string());
                    let step = thread.access(now, name.as_deref(), LASTS);
                    if let Access::Create { version, .. } = step.answer {
                        let holder = seen.given.entry(version).or_insert(key);
                        let is_new = step.next.is_some();
                        prop_assert!(is_new || (key.is_some() && *holder == key));
                        prop_assert!(!is_new || version > before.version);
                    }
                    seen.keep(step.past, step.orphan);
                    thread = step.next.unwrap_or(thread);
                }
                Op::Complete(back, id) => {
                    let version = thread.version - back;
                    let id = ThreadId::stored(id.to_string());
                    let step = thread.complete(now, version, &id);
                    thread = step.next.unwrap_or(thread);
                    seen.keep(step.past, step.orphan);
                    match step.answer {
                        Completion::Stored => {
                            let one = seen.stored.insert(version, id);
                            prop_assert_eq!(one, None, "one thread a version");
                        }
                        Completion::Again => prop_assert_eq!(seen.stored.get(&version), Some(&id)),
                        Completion::Late { .. } => {
                            let is_seen = seen.orphans.contains(&(version, Some(id.clone())));
                            let is_current = seen.stored.get(&thread.version) == Some(&id);
                            prop_assert!(is_seen || is_current);
                        }
                    }
                }
                Op::Forget => {
                    let step = thread.forget(now);
                    seen.keep(step.past, step.orphan);
                    thread = step.next.unwrap_or(thread);
                    prop_assert_eq!(&thread.standing, &Standing::Vacant);
                }
            }
            prop_assert!(thread.version >= before.version, "versions never fall");
        }
        // Every right that was given is under way, has its thread, or is accounted for.
        for version in seen.given.keys() {
            let is_making = thread.version == *version
                && matches!(thread.standing, Standing::Making(_));
            let is_told = seen.orphans.iter().any(|(of, _)| of == version);
            prop_assert!(is_making || is_told || seen.stored.contains_key(version));
        }
        for (version, id) in &seen.stored {
            let is_current = thread.version == *version
                && matches!(&thread.standing, Standing::Ready { thread, .. } if thread == id);
            prop_assert!(is_current || seen.past.get(version) == Some(id));
        }
    }
}
