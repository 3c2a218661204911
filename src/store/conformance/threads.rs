//! One conversation, one AI thread: who may make it, what comes too late, and what is remembered.

use std::time::Duration;

use tokio::task::JoinSet;

use super::fixture::{Fixture, both, bsuid, message, number, phone};
use crate::model::thread::{Access, Completion, Lateness, PastThread, Standing};
use crate::model::{ContactId, ConversationId, NumberId, ThreadId, Timestamp};
use crate::store::{Named, OrphanRecord, PruneRequest, StoreError, ThreadClaim, Whose};

/// How long a right lasts here, in seconds.
const LASTS: u64 = 20;

fn id(text: &str) -> ThreadId {
    ThreadId::new(text).expect("an id")
}

fn at_number(named: Named) -> Whose {
    Whose {
        number: number(),
        named,
    }
}

fn ann() -> Whose {
    at_number(Named::Person(phone("4915")))
}

fn of(conversation: ConversationId) -> Whose {
    at_number(Named::Conversation(conversation))
}

fn create(version: i64, left: u64) -> Access {
    let left = Duration::from_secs(left);
    Access::Create { version, left }
}

fn pending(version: i64, left: u64) -> Access {
    let left = Duration::from_secs(left);
    Access::Pending { version, left }
}

fn ready(version: i64, text: &str) -> Access {
    let thread = id(text);
    Access::Ready { version, thread }
}

fn late(why: Lateness, version: i64) -> Completion {
    Completion::Late { why, version }
}

fn claiming(whose: Whose, key: Option<&str>) -> ThreadClaim {
    ThreadClaim {
        whose,
        key: key.map(str::to_owned),
        lasts: Duration::from_secs(LASTS),
    }
}

async fn ask(f: &Fixture, whose: Whose, key: Option<&str>) -> Access {
    let claimed = f.store.claim_thread(claiming(whose, key)).await;
    let (_, access) = claimed
        .expect("it is answered")
        .expect("the person is known");
    access
}

async fn complete(f: &Fixture, whose: Whose, version: i64, text: &str) -> Completion {
    let completed = f.store.complete_thread(whose, version, id(text)).await;
    let (_, completion) = completed
        .expect("it is answered")
        .expect("the person is known");
    completion
}

async fn forget(f: &Fixture, whose: Whose) -> Option<i64> {
    let forgotten = f.store.forget_thread(whose).await.expect("it is answered");
    forgotten.map(|(_, version)| version)
}

/// Versions and ids of what was made for nothing, newest first.
async fn orphans(f: &Fixture) -> Vec<(i64, Option<String>)> {
    let orphans = f.store.orphans(100).await.expect("they are listed");
    let told = |orphan: OrphanRecord| {
        let thread = orphan.thread.map(|thread| thread.as_str().to_owned());
        (orphan.version, thread)
    };
    orphans.into_iter().map(told).collect()
}

fn some(version: i64, text: &str) -> (i64, Option<String>) {
    (version, Some(text.to_owned()))
}

/// Asks `times` times at once; answers the versions that were given, and how many wait.
async fn ask_at_once(f: &Fixture, times: usize) -> (Vec<i64>, usize) {
    let mut asking = JoinSet::new();
    for _ in 0..times {
        let store = f.store();
        asking.spawn(async move { store.claim_thread(claiming(ann(), None)).await });
    }
    let mut given = Vec::new();
    let mut waiting = 0;
    for claimed in asking.join_all().await {
        let (_, access) = claimed.expect("answered").expect("the person is made");
        match access {
            Access::Create { version, .. } => given.push(version),
            Access::Pending { .. } => waiting += 1,
            Access::Ready { .. } => panic!("nobody has made it"),
        }
    }
    (given, waiting)
}

pub(in crate::store) async fn of_many_who_ask_at_once_one_makes_the_thread(f: Fixture) {
    assert_eq!(ask_at_once(&f, 40).await, (vec![1], 39));
    f.wait(LASTS);
    assert_eq!(
        ask_at_once(&f, 40).await,
        (vec![2], 39),
        "and after its end"
    );
    assert_eq!(complete(&f, ann(), 2, "thr_a").await, Completion::Stored);
    assert_eq!(ask(&f, ann(), None).await, ready(2, "thr_a"));
    let first = f.append_one(message(phone("4915"), "a")).await;
    let conversation = first.place.expect("a new message has a place").0;
    assert_eq!(ask(&f, of(conversation), None).await, ready(2, "thr_a"));
}

pub(in crate::store) async fn a_request_that_comes_again_has_the_right_it_had(f: Fixture) {
    assert_eq!(ask(&f, ann(), Some("k")).await, create(1, LASTS));
    f.wait(5);
    assert_eq!(ask(&f, ann(), Some("k")).await, create(1, LASTS - 5));
    assert_eq!(ask(&f, ann(), Some("l")).await, pending(1, LASTS - 5));
    assert_eq!(ask(&f, ann(), None).await, pending(1, LASTS - 5));
    f.wait(LASTS - 5);
    assert_eq!(ask(&f, ann(), Some("k")).await, create(2, LASTS), "anew");
    assert_eq!(complete(&f, ann(), 2, "thr_a").await, Completion::Stored);
    assert_eq!(ask(&f, ann(), Some("k")).await, ready(2, "thr_a"));
}

pub(in crate::store) async fn what_comes_after_its_right_is_refused_and_kept_as_an_orphan(
    f: Fixture,
) {
    assert_eq!(ask(&f, ann(), None).await, create(1, LASTS));
    assert_eq!(orphans(&f).await, []);
    f.wait(LASTS);
    assert_eq!(orphans(&f).await, [(1, None)], "whether or not one asks");
    f.wait(5);
    assert_eq!(ask(&f, ann(), None).await, create(2, LASTS));
    let listed = f.store.orphans(100).await.expect("listed");
    let ended_at = Timestamp(f.clock.now().0 - 5_000);
    assert_eq!((listed[0].at, &listed[0].number), (ended_at, &number()));
    let refused = late(Lateness::OtherVersion, 2);
    for _ in 0..2 {
        assert_eq!(complete(&f, ann(), 1, "thr_1").await, refused);
        assert_eq!(orphans(&f).await, [some(1, "thr_1")], "listed once");
    }
    assert_eq!(complete(&f, ann(), 2, "thr_2").await, Completion::Stored);
    assert_eq!(complete(&f, ann(), 2, "thr_2").await, Completion::Again);
    f.wait(1);
    let taken = late(Lateness::Taken, 2);
    assert_eq!(complete(&f, ann(), 2, "thr_3").await, taken);
    f.wait(1);
    assert_eq!(complete(&f, ann(), 9, "thr_9").await, refused);
    let all = [some(9, "thr_9"), some(2, "thr_3"), some(1, "thr_1")];
    assert_eq!(orphans(&f).await, all, "newest first");
    assert_eq!(complete(&f, ann(), 1, "thr_2").await, refused);
    assert_eq!(orphans(&f).await, all, "what is in use is none");
    assert_eq!(f.store.orphans(2).await.expect("listed").len(), 2);
    assert_eq!(ask(&f, ann(), None).await, ready(2, "thr_2"));
}

pub(in crate::store) async fn what_is_completed_after_all_is_no_orphan(f: Fixture) {
    assert_eq!(ask(&f, ann(), None).await, create(1, LASTS));
    f.wait(LASTS);
    let over = late(Lateness::Over, 1);
    assert_eq!(complete(&f, ann(), 1, "thr_1").await, over);
    assert_eq!(orphans(&f).await, [some(1, "thr_1")], "its id is learnt");
    assert_eq!(ask(&f, ann(), None).await, create(2, LASTS));
    assert_eq!(orphans(&f).await, [some(1, "thr_1")]);
    assert_eq!(complete(&f, ann(), 2, "thr_1").await, Completion::Stored);
    assert_eq!(orphans(&f).await, []);
}

pub(in crate::store) async fn to_forget_begins_afresh_and_keeps_the_past(f: Fixture) {
    assert_eq!(forget(&f, ann()).await, None, "nobody knows her");
    f.append(vec![message(phone("4915"), "a")]).await;
    assert_eq!(forget(&f, ann()).await, None, "nobody has asked");
    assert_eq!(f.store.thread(ann()).await, Ok(None));
    assert_eq!(ask(&f, ann(), None).await, create(1, LASTS));
    let stored_at = f.clock.now();
    complete(&f, ann(), 1, "thr_1").await;
    f.wait(60);
    assert_eq!(forget(&f, ann()).await, Some(2));
    assert_eq!(forget(&f, ann()).await, Some(2), "there is nothing more");
    let known = late(Lateness::OtherVersion, 2);
    assert_eq!(complete(&f, ann(), 1, "thr_1").await, known);
    assert_eq!(orphans(&f).await, [], "it was in use");

    assert_eq!(ask(&f, ann(), Some("k")).await, create(3, LASTS));
    assert_eq!(forget(&f, ann()).await, Some(4), "the right is void");
    assert_eq!(ask(&f, ann(), Some("k")).await, create(5, LASTS));
    let void = late(Lateness::OtherVersion, 5);
    assert_eq!(orphans(&f).await, [(3, None)]);
    assert_eq!(complete(&f, ann(), 3, "thr_3").await, void);
    assert_eq!(orphans(&f).await, [some(3, "thr_3")]);
    complete(&f, ann(), 5, "thr_5").await;

    let record = f.store.thread(ann()).await.expect("read");
    let record = record.expect("it is known");
    let thread = id("thr_5");
    let since = f.clock.now();
    assert_eq!(record.thread.standing, Standing::Ready { thread, since });
    assert_eq!((record.thread.version, record.left), (5, None));
    let past = PastThread {
        version: 1,
        thread: id("thr_1"),
        since: stored_at,
        until: f.clock.now(),
    };
    assert_eq!(record.past, [past]);
    assert_eq!(record.number, number());
}

pub(in crate::store) async fn one_person_has_one_thread_by_every_name(f: Fixture) {
    assert_eq!(ask(&f, ann(), None).await, create(1, LASTS));
    let first = f.append_one(message(both("4915", "US.1"), "a")).await;
    let conversation = first.place.expect("a new message has a place").0;
    complete(&f, of(conversation), 1, "thr_a").await;
    let record = f.store.thread(ann()).await.expect("read").expect("known");
    assert_eq!(record.conversation, conversation);
    for named in [
        Named::Person(phone("4915")),
        Named::Person(bsuid("US.1")),
        Named::Contact(record.contact),
        Named::Conversation(conversation),
    ] {
        let access = ask(&f, at_number(named.clone()), None).await;
        assert_eq!(access, ready(1, "thr_a"), "{named:?}");
    }
    let elsewhere = Whose {
        number: NumberId::from("200"),
        named: Named::Person(phone("4915")),
    };
    assert_eq!(
        ask(&f, elsewhere, None).await,
        create(1, LASTS),
        "at another number"
    );
}

pub(in crate::store) async fn who_is_not_known_is_made_by_name_and_by_no_id(f: Fixture) {
    for named in [
        Named::Contact(ContactId(7)),
        Named::Conversation(ConversationId(7)),
    ] {
        let claimed = f.store.claim_thread(claiming(at_number(named), None)).await;
        assert_eq!(claimed, Ok(None));
    }
    let completed = f.store.complete_thread(ann(), 1, id("thr_a")).await;
    assert_eq!(completed, Ok(None), "nor by a completion");
    assert_eq!(ask(&f, ann(), None).await, create(1, LASTS));
    let record = f.store.thread(ann()).await.expect("read").expect("made");
    assert_eq!(record.left, Some(Duration::from_secs(LASTS)));
    let message = f.append_one(message(phone("4915"), "a")).await;
    assert_eq!(message.place, Some((record.conversation, 1)), "her first");
    let other_number = Whose {
        number: NumberId::from("200"),
        named: Named::Conversation(record.conversation),
    };
    let claimed = f.store.claim_thread(claiming(other_number, None)).await;
    assert_eq!(claimed, Ok(None), "an id is of one number");
}

pub(in crate::store) async fn to_ask_for_what_is_known_writes_nothing(f: Fixture) {
    ask(&f, ann(), None).await;
    let changed = f.store.threads_changed();
    let before = f.store.commits();
    assert_eq!(ask(&f, ann(), None).await, pending(1, LASTS));
    assert!(!changed.has_changed().expect("the store is there"));
    assert_eq!(f.store.commits(), before);
    complete(&f, ann(), 1, "thr_a").await;
    assert!(changed.has_changed().expect("the store is there"), "a hint");
    let before = f.store.commits();
    assert_eq!(ask(&f, ann(), None).await, ready(1, "thr_a"));
    complete(&f, ann(), 1, "thr_a").await;
    assert_eq!(f.store.commits(), before);
}

async fn prune(f: &Fixture, limit: u32) -> (u64, bool) {
    let day = Duration::from_secs(24 * 3600);
    let request = PruneRequest {
        node: f.node,
        keys: 30 * day,
        payloads: 10 * day,
        relays: Duration::MAX,
        limit,
    };
    let pruned = f.store.prune(request).await.expect("it is answered");
    let pruned = pruned.expect("the only node has the duty");
    assert_eq!(pruned.events, 0);
    (pruned.payloads, pruned.more)
}

pub(in crate::store) async fn the_past_is_forgotten_and_no_version_is_given_again(f: Fixture) {
    let bob = || at_number(Named::Person(phone("4916")));
    for version in [1, 3, 5] {
        assert_eq!(ask(&f, ann(), None).await, create(version, LASTS));
        complete(&f, ann(), version, &format!("thr_{version}")).await;
        assert_eq!(forget(&f, ann()).await, Some(version + 1));
    }
    complete(&f, ann(), 1, "thr_late").await;
    assert_eq!(ask(&f, ann(), None).await, create(7, LASTS));
    complete(&f, ann(), 7, "thr_7").await;
    assert_eq!(ask(&f, bob(), None).await, create(1, LASTS));
    f.wait(10 * 24 * 3600 - 1);
    assert_eq!(prune(&f, 100).await, (0, false));
    f.wait(1 + LASTS);
    assert_eq!(prune(&f, 2).await, (4, true), "two, one and one of a kind");
    assert_eq!(prune(&f, 2).await, (1, false));
    assert_eq!(orphans(&f).await, []);
    let record = f.store.thread(ann()).await.expect("read").expect("known");
    assert_eq!(record.past, []);
    assert_eq!(ask(&f, ann(), None).await, ready(7, "thr_7"), "it stays");
    assert_eq!(ask(&f, bob(), None).await, create(2, LASTS));
    let never: Result<_, StoreError> = f.store.complete_thread(bob(), 1, id("thr_b")).await;
    let (_, completion) = never.expect("answered").expect("known");
    assert_eq!(completion, late(Lateness::OtherVersion, 2));
}
