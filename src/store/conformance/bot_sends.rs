//! What a bot sends by itself: once for its turn, however often the turn is tried.

use std::time::Duration;

use super::fixture::{Fixture, message, number, phone, receipt};
use crate::model::bot_send::{Content, Likeness, Told};
use crate::model::{Attempt, GraphAnswer, OutgoingState, Recipient, TurnId, Wamid};
use crate::store::{
    BOT_SENDS_MAX, ClaimedTurn, Fate, SendResult, SendWhen, Settle, Stage, Staged, TurnEnd,
    TurnRun, Written,
};

const TAIL: Duration = Duration::from_secs(2);

fn says(to: &str, text: &str) -> Stage {
    Stage {
        number: number(),
        to: phone(to),
        recipient: Recipient::Phone(to.to_owned()),
        body: text.to_owned(),
        content: Content::of(&[to, text]),
        key: None,
        callback: None,
        is_apart: false,
        when: SendWhen::Now,
        tail: TAIL,
    }
}

fn held(to: &str, text: &str) -> Stage {
    Stage {
        when: SendWhen::AtFinish,
        ..says(to, text)
    }
}

async fn stage(f: &Fixture, stage: Stage) -> Staged {
    let staged = f.store.stage(stage).await.expect("it is answered");
    staged.expect("there is room")
}

/// Stages it, and its caller hears the truth.
async fn heard(f: &Fixture, asked: Stage) -> Staged {
    let staged = stage(f, asked).await;
    f.store.told(staged.id, Told::Truth).await.expect("noted");
    staged
}

async fn fate(f: &Fixture, of: &Staged) -> Fate {
    let fates = f.store.fates(vec![of.id]).await.expect("it is answered");
    fates.into_iter().next().expect("one each")
}

async fn begin(f: &Fixture, wamid: &str) -> ClaimedTurn {
    f.append(vec![message(phone("1"), wamid)]).await;
    f.claim_one().await
}

/// The turn fails, and its next attempt begins.
async fn again(f: &Fixture, turn: &ClaimedTurn) -> ClaimedTurn {
    assert_eq!(
        f.release(turn, Duration::ZERO, true, false).await,
        Written::Done
    );
    f.claim_one().await
}

/// What goes out, and is accepted as `wamid.TEXT`, until nothing is due any more.
async fn goes_out(f: &Fixture) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let sends = f.send().await;
        if sends.is_empty() {
            return texts;
        }
        for sending in sends {
            let wamid = format!("wamid.{}", sending.body);
            f.accepted(&sending, &wamid).await;
            texts.push(sending.body);
        }
    }
}

pub(in crate::store) async fn a_bots_send_goes_out_to_whom_it_has_dialled(f: Fixture) {
    let turn = begin(&f, "a").await;
    let staged = heard(&f, says("1", "one")).await;
    assert_eq!(staged.conversation, turn.lease.conversation);
    assert_eq!(staged.turn, Some(turn.id));
    assert_eq!(
        (staged.taken_for, staged.fate.clone()),
        (None, Fate::Waiting)
    );
    let sending = f.send_one().await;
    assert_eq!(sending.body, "one");
    assert_eq!(sending.recipient, Recipient::Phone("1".into()));
    assert_eq!((sending.turn, sending.is_bots), (turn.id, true));
    let answer = GraphAnswer {
        status: 200,
        body: "{}".to_owned(),
    };
    let settle = Settle {
        id: sending.id,
        attempt: sending.attempt,
        result: SendResult::Accepted(Wamid::from("w1")),
        answer: Some(answer.clone()),
    };
    f.store.settle(settle).await.expect("settled");
    let wamid = Wamid::from("w1");
    let answer = Some(answer);
    assert_eq!(fate(&f, &staged).await, Fate::Accepted { wamid, answer });
    assert_eq!(f.end(&turn, TurnEnd::Silence).await, Written::Done);
}

pub(in crate::store) async fn what_one_attempt_sent_the_next_does_not_send_again(f: Fixture) {
    let turn = begin(&f, "a").await;
    let one = heard(&f, says("1", "one")).await;
    let two = heard(&f, says("1", "two")).await;
    assert_eq!(goes_out(&f).await, ["one", "two"]);
    let turn = again(&f, &turn).await;
    let same = heard(&f, says("1", "two")).await;
    assert_eq!(
        (same.id, same.taken_for),
        (two.id, Some(Likeness::Repeated))
    );
    assert!(matches!(same.fate, Fate::Accepted { .. }), "known at once");
    let other = heard(&f, says("1", "one, reworded")).await;
    assert_eq!(
        (other.id, other.taken_for),
        (one.id, Some(Likeness::Diverged))
    );
    let more = heard(&f, says("1", "three")).await;
    assert_eq!(more.taken_for, None);
    assert_eq!(goes_out(&f).await, ["three"]);
    f.end(&turn, TurnEnd::Silence).await;
}

pub(in crate::store) async fn in_one_attempt_the_same_may_be_said_twice(f: Fixture) {
    begin(&f, "a").await;
    let first = heard(&f, says("1", "one")).await;
    let second = stage(&f, says("1", "one")).await;
    assert_ne!(first.id, second.id);
    let retried = stage(&f, says("1", "one")).await;
    assert_eq!(retried.id, second.id, "nobody has heard of the second");
    assert_eq!(retried.taken_for, Some(Likeness::Joined));
    assert_eq!(goes_out(&f).await, ["one", "one"]);
}

pub(in crate::store) async fn a_drained_attempt_counts_as_one_that_has_sent(f: Fixture) {
    let turn = begin(&f, "a").await;
    heard(&f, says("1", "one")).await;
    f.release(&turn, Duration::ZERO, false, false).await;
    let turn = f.claim_one().await;
    assert_eq!(turn.attempt, 1 as Attempt, "it was given back");
    let again = heard(&f, says("1", "one")).await;
    assert_eq!(again.taken_for, Some(Likeness::Repeated));
    assert_eq!(goes_out(&f).await, ["one"]);
}

pub(in crate::store) async fn after_the_end_a_turn_still_stands_in_for_a_while(f: Fixture) {
    let turn = begin(&f, "a").await;
    let one = heard(&f, says("1", "one")).await;
    f.end(&turn, TurnEnd::Silence).await;
    let same = heard(&f, says("1", "one")).await;
    assert_eq!((same.id, same.is_late), (one.id, false));
    f.clock.advance(TAIL + Duration::from_millis(1));
    let new = heard(&f, says("1", "one")).await;
    assert_eq!((new.taken_for, new.turn), (None, None));
    assert_eq!(goes_out(&f).await, ["one", "one"]);
}

pub(in crate::store) async fn a_bot_that_sends_after_its_end_is_noticed(f: Fixture) {
    let turn = begin(&f, "a").await;
    f.end(&turn, TurnEnd::Silence).await;
    f.wait(1);
    assert!(heard(&f, says("1", "one")).await.is_late);
    f.wait(60);
    assert!(heard(&f, says("1", "two")).await.is_late);
    f.wait(3600);
    assert!(!heard(&f, says("1", "hello again")).await.is_late);
    let turn = begin(&f, "b").await;
    assert!(!heard(&f, says("1", "three")).await.is_late);
    f.end(&turn, TurnEnd::Silence).await;
    assert!(
        !heard(&f, says("1", "four")).await.is_late,
        "it sent in time"
    );
}

pub(in crate::store) async fn a_key_is_one_send_outside_of_turns(f: Fixture) {
    let keyed = |text: &str, key: &str| Stage {
        key: Some(key.to_owned()),
        ..says("1", text)
    };
    let first = heard(&f, keyed("one", "k1")).await;
    assert_eq!((first.turn, first.taken_for), (None, None));
    let same = heard(&f, keyed("one", "k1")).await;
    assert_eq!(
        (same.id, same.taken_for),
        (first.id, Some(Likeness::Joined))
    );
    assert_ne!(heard(&f, keyed("one", "k2")).await.id, first.id);
    assert_eq!(goes_out(&f).await, ["one", "one"]);
}

pub(in crate::store) async fn outside_of_turns_only_what_nobody_heard_of_is_joined(f: Fixture) {
    let first = stage(&f, says("1", "one")).await;
    let retried = heard(&f, says("1", "one")).await;
    assert_eq!(
        (retried.id, retried.taken_for),
        (first.id, Some(Likeness::Joined))
    );
    assert_ne!(stage(&f, says("1", "one")).await.id, first.id);
    f.wait(3600);
    assert_eq!(
        stage(&f, says("1", "one")).await.taken_for,
        None,
        "long ago"
    );
    assert_eq!(goes_out(&f).await, ["one", "one", "one"]);
}

pub(in crate::store) async fn what_is_held_goes_out_when_its_turn_ends_well(f: Fixture) {
    let turn = begin(&f, "a").await;
    let one = heard(&f, held("1", "one")).await;
    assert_eq!(one.fate, Fate::Held);
    assert!(goes_out(&f).await.is_empty());
    let turn = again(&f, &turn).await;
    assert_eq!(heard(&f, held("1", "reworded")).await.taken_for, None);
    assert_eq!(heard(&f, held("1", "two")).await.taken_for, None);
    f.end(&turn, TurnEnd::Silence).await;
    assert_eq!(goes_out(&f).await, ["reworded", "two"]);
    assert_eq!(fate(&f, &one).await, Fate::Gone, "its attempt had failed");
    // Of the answers a handler gives itself.
    let turn = begin(&f, "b").await;
    heard(&f, held("1", "before")).await;
    f.reply(&turn, &["after"]).await;
    assert_eq!(goes_out(&f).await, ["before", "after"]);
}

pub(in crate::store) async fn what_is_held_is_dropped_with_a_dead_turn(f: Fixture) {
    let turn = begin(&f, "a").await;
    let one = heard(&f, held("1", "one")).await;
    f.end(&turn, TurnEnd::Dead("it broke".into())).await;
    assert!(goes_out(&f).await.is_empty());
    assert_eq!(fate(&f, &one).await, Fate::Gone);
}

pub(in crate::store) async fn replies_stand_behind_what_the_bot_has_sent(f: Fixture) {
    let turn = begin(&f, "a").await;
    heard(&f, says("1", "own")).await;
    f.reply(&turn, &["reply", "another"]).await;
    heard(&f, says("1", "late")).await;
    assert_eq!(goes_out(&f).await, ["own", "reply", "another", "late"]);
}

pub(in crate::store) async fn a_bot_hears_what_meta_has_refused(f: Fixture) {
    begin(&f, "a").await;
    let one = heard(&f, says("1", "one")).await;
    let sending = f.send_one().await;
    let answer = GraphAnswer {
        status: 400,
        body: r#"{"error":{"code":131026}}"#.to_owned(),
    };
    let settle = Settle {
        id: sending.id,
        attempt: sending.attempt,
        result: SendResult::Refused {
            reason: "no".to_owned(),
        },
        answer: Some(answer.clone()),
    };
    assert_eq!(f.store.settle(settle).await, Ok(OutgoingState::Dead));
    let refused = Fate::Refused {
        answer: Some(answer),
        reason: "no".to_owned(),
    };
    assert_eq!(fate(&f, &one).await, refused);
}

pub(in crate::store) async fn a_send_whose_answer_is_lost_is_known_by_its_receipt(f: Fixture) {
    begin(&f, "a").await;
    let one = heard(&f, says("1", "one")).await;
    let sending = f.send_one().await;
    let reason = "timed out".to_owned();
    f.settle(&sending, SendResult::Unsure { reason }).await;
    assert_eq!(fate(&f, &one).await, Fate::Waiting);
    let mut settled = f.store.sends_settled();
    settled.mark_unchanged();
    f.append(vec![receipt("w1", "sent", Some(sending.tag.to_string()))])
        .await;
    assert!(settled.has_changed().expect("the store is open"));
    let wamid = Wamid::from("w1");
    let answer = None;
    assert_eq!(fate(&f, &one).await, Fate::Accepted { wamid, answer });
}

pub(in crate::store) async fn a_send_that_stays_unsure_is_unknown(f: Fixture) {
    begin(&f, "a").await;
    let one = heard(&f, says("1", "one")).await;
    let sending = f.send_one().await;
    let reason = "timed out".to_owned();
    f.settle(&sending, SendResult::Unsure { reason }).await;
    let second = Duration::from_secs(1);
    for _ in 0..2 {
        f.wait(1);
        f.store
            .expire_unsure(second, second)
            .await
            .expect("counted");
    }
    assert_eq!(fate(&f, &one).await, Fate::Unknown);
}

pub(in crate::store) async fn which_attempts_have_sent_is_told(f: Fixture) {
    let turn = begin(&f, "a").await;
    let run = |turn: &ClaimedTurn| TurnRun {
        turn: turn.id,
        epoch: turn.lease.epoch,
    };
    let nobody = TurnRun {
        turn: TurnId {
            conversation: turn.lease.conversation,
            seq: 77,
        },
        epoch: 1,
    };
    let runs = vec![nobody, run(&turn)];
    assert!(f.store.heard(runs.clone()).await.expect("read").is_empty());
    heard(&f, says("1", "one")).await;
    f.wait(3);
    let told = f.store.heard(runs).await.expect("read");
    let told: Vec<_> = told.iter().map(|heard| (heard.run, heard.ago)).collect();
    assert_eq!(told, [(run(&turn), Duration::from_secs(3))]);
    let turn = again(&f, &turn).await;
    assert!(
        f.store
            .heard(vec![run(&turn)])
            .await
            .expect("read")
            .is_empty()
    );
    heard(&f, says("1", "one")).await;
    assert_eq!(
        f.store.heard(vec![run(&turn)]).await.expect("read").len(),
        1
    );
}

pub(in crate::store) async fn a_turn_has_room_for_so_many_sends(f: Fixture) {
    begin(&f, "a").await;
    for at in 0..BOT_SENDS_MAX {
        heard(&f, says("1", &at.to_string())).await;
    }
    let more = f.store.stage(says("1", "more")).await.expect("answered");
    assert!(more.is_none());
    let other = stage(&f, says("2", "other")).await;
    assert_eq!(other.turn, None, "of nobody else's turn");
}

pub(in crate::store) async fn a_dialled_number_names_whom_meta_takes_it_for(f: Fixture) {
    let turn = begin(&f, "a").await;
    let dialled = heard(&f, says("01", "one")).await;
    assert_ne!(
        dialled.conversation, turn.lease.conversation,
        "not known yet"
    );
    let link = f.store.link_dialled(number(), "01".into(), "1".into());
    link.await.expect("linked");
    let again = heard(&f, says("01", "two")).await;
    assert_eq!(again.conversation, turn.lease.conversation);
    // And one that nobody has written from.
    let link = f.store.link_dialled(number(), "02".into(), "2".into());
    link.await.expect("nobody is meant");
    let stranger = heard(&f, says("02", "three")).await;
    let link = f.store.link_dialled(number(), "02".into(), "2".into());
    link.await.expect("linked");
    let known = heard(&f, says("2", "four")).await;
    assert_eq!(known.conversation, stranger.conversation);
}

pub(in crate::store) async fn a_send_is_forgotten_with_its_outgoing(f: Fixture) {
    let one = heard(&f, says("1", "one")).await;
    assert_eq!(goes_out(&f).await, ["one"]);
    f.wait(40 * 24 * 3600);
    f.store
        .renew(f.node, super::fixture::TTL)
        .await
        .expect("renewed");
    let day = Duration::from_secs(24 * 3600);
    let request = crate::store::PruneRequest {
        node: f.node,
        keys: 30 * day,
        payloads: 30 * day,
        relays: Duration::MAX,
        limit: 100,
    };
    f.store.prune(request).await.expect("pruned");
    assert_eq!(fate(&f, &one).await, Fate::Gone);
}

pub(in crate::store) async fn a_key_is_one_send_over_attempts_that_hold_and_over_turns(f: Fixture) {
    let keyed = |text: &str| Stage {
        key: Some("k".to_owned()),
        ..held("1", text)
    };
    let turn = begin(&f, "a").await;
    let first = heard(&f, keyed("one")).await;
    let turn = again(&f, &turn).await;
    let second = heard(&f, keyed("reworded")).await;
    assert_eq!((second.taken_for, second.fate.clone()), (None, Fate::Held));
    assert_eq!(fate(&f, &first).await, Fate::Gone, "its attempt is over");
    f.end(&turn, TurnEnd::Silence).await;
    assert_eq!(goes_out(&f).await, ["reworded"]);
    // The client tries again when the next turn has begun.
    begin(&f, "b").await;
    let late = heard(&f, keyed("one")).await;
    assert_eq!(
        (late.id, late.taken_for),
        (second.id, Some(Likeness::Joined))
    );
    assert!(goes_out(&f).await.is_empty());
}

pub(in crate::store) async fn a_second_try_after_the_end_joins_what_nobody_heard_of(f: Fixture) {
    let turn = begin(&f, "a").await;
    let first = stage(&f, says("1", "one")).await;
    f.end(&turn, TurnEnd::Silence).await;
    f.wait(60);
    let retried = heard(&f, says("1", "one")).await;
    assert_eq!(
        (retried.id, retried.taken_for),
        (first.id, Some(Likeness::Joined))
    );
    assert_eq!(goes_out(&f).await, ["one"]);
}

pub(in crate::store) async fn what_was_held_by_an_attempt_that_is_over_is_no_answer(f: Fixture) {
    let turn = begin(&f, "a").await;
    heard(&f, held("1", "one")).await;
    let run = |turn: &ClaimedTurn, epoch| TurnRun {
        turn: turn.id,
        epoch,
    };
    let told = f.store.heard(vec![run(&turn, turn.lease.epoch)]).await;
    assert_eq!(told.expect("read").len(), 1);
    let turn = again(&f, &turn).await;
    let runs = vec![run(&turn, turn.lease.epoch), run(&turn, 0)];
    assert!(f.store.heard(runs).await.expect("read").is_empty());
}

pub(in crate::store) async fn what_meta_has_refused_leaves_its_place_free(f: Fixture) {
    let turn = begin(&f, "a").await;
    heard(&f, says("1", "too long")).await;
    let sending = f.send_one().await;
    let reason = "no".to_owned();
    f.settle(&sending, SendResult::Refused { reason }).await;
    again(&f, &turn).await;
    assert_eq!(heard(&f, says("1", "shorter")).await.taken_for, None);
    assert_eq!(goes_out(&f).await, ["shorter"]);
}

pub(in crate::store) async fn what_stands_behind_something_refused_keeps_its_place(f: Fixture) {
    let mut turn = begin(&f, "a").await;
    let refuse = async || {
        let sending = f.send_one().await;
        let reason = "no".to_owned();
        f.settle(&sending, SendResult::Refused { reason }).await;
    };
    heard(&f, says("1", "one")).await;
    refuse().await;
    let two = heard(&f, says("1", "two")).await;
    assert_eq!(goes_out(&f).await, ["two"]);
    for wording in ["reworded", "reworded again"] {
        turn = again(&f, &turn).await;
        let run = TurnRun {
            turn: turn.id,
            epoch: turn.lease.epoch,
        };
        let told = f.store.heard(vec![run]).await.expect("read");
        assert!(told.is_empty(), "this attempt has sent nothing yet");
        let one = heard(&f, says("1", &format!("one, {wording}"))).await;
        assert_eq!(one.taken_for, None, "what was refused is asked again");
        refuse().await;
        let same = heard(&f, says("1", &format!("two, {wording}"))).await;
        let expected = (two.id, Some(Likeness::Diverged));
        assert_eq!((same.id, same.taken_for), expected);
    }
    // And the words that were refused last are not asked again.
    again(&f, &turn).await;
    let last = heard(&f, says("1", "one, reworded again")).await;
    assert_eq!(last.taken_for, Some(Likeness::Repeated));
    assert!(matches!(last.fate, Fate::Refused { .. }));
    let same = heard(&f, says("1", "two, once more")).await;
    assert_eq!(same.id, two.id);
    assert!(goes_out(&f).await.is_empty());
}

pub(in crate::store) async fn what_is_said_to_be_apart_is_on_no_turns_record(f: Fixture) {
    let apart = |text: &str| Stage {
        is_apart: true,
        ..held("1", text)
    };
    let turn = begin(&f, "a").await;
    assert_eq!(heard(&f, apart("news")).await.turn, None);
    assert_eq!(goes_out(&f).await, ["news"]);
    heard(&f, says("1", "one")).await;
    again(&f, &turn).await;
    assert_eq!(heard(&f, apart("more news")).await.taken_for, None);
    let one = heard(&f, says("1", "reworded")).await;
    assert_eq!(one.taken_for, Some(Likeness::Diverged));
    assert_eq!(goes_out(&f).await, ["one", "more news"]);
}

pub(in crate::store) async fn who_is_known_by_the_other_way_to_dial_is_no_stranger(f: Fixture) {
    f.append(vec![message(phone("5491123456789"), "a")]).await;
    let turn = f.claim_one().await;
    let staged = heard(&f, says("541123456789", "one")).await;
    assert_eq!(staged.turn, Some(turn.id));
    let sending = f.send_one().await;
    let dialled = Recipient::Phone("541123456789".into());
    assert_eq!(sending.recipient, dialled, "it goes where the bot has said");
}

pub(in crate::store) async fn a_turn_that_was_given_back_is_claimed_again(f: Fixture) {
    let turn = begin(&f, "a").await;
    assert!(!turn.is_again);
    f.release(&turn, Duration::ZERO, false, false).await;
    let turn = f.claim_one().await;
    assert_eq!((turn.attempt, turn.is_again), (1 as Attempt, true));
    f.end(&turn, TurnEnd::Silence).await;
    assert!(!begin(&f, "b").await.is_again);
}
