//! One person, one conversation.

use super::fixture::{Fixture, both, bsuid, message, message_to, number, phone};
use crate::model::{Aliases, ConversationId, Event, NumberId, Recipient};

async fn place(f: &Fixture, event: Event) -> ConversationId {
    f.append_one(event)
        .await
        .place
        .expect("a new message has a place")
        .0
}

pub(in crate::store) async fn one_conversation_through_every_alias(f: Fixture) {
    let first = place(&f, message(phone("4915"), "a")).await;
    assert_eq!(place(&f, message(both("4915", "US.1"), "b")).await, first);
    assert_eq!(place(&f, message(bsuid("US.1"), "c")).await, first);
    assert_eq!(place(&f, message(phone("4915"), "d")).await, first);
    let parent = Aliases {
        parent: Some("US.ENT.9".into()),
        ..bsuid("US.1")
    };
    assert_eq!(place(&f, message(parent, "e")).await, first);
    let moved = Aliases {
        parent: Some("US.ENT.9".into()),
        ..bsuid("US.2")
    };
    assert_eq!(
        place(&f, message(moved, "f")).await,
        first,
        "the parent id names the person"
    );
}

pub(in crate::store) async fn a_recycled_phone_number_starts_a_new_conversation(f: Fixture) {
    let old = place(&f, message(both("4915", "US.1"), "a")).await;
    let stranger = place(&f, message(both("4915", "US.2"), "b")).await;
    assert_ne!(stranger, old, "a stranger must not read the old thread");
    assert_eq!(place(&f, message(bsuid("US.1"), "c")).await, old);
    assert_eq!(place(&f, message(bsuid("US.2"), "d")).await, stranger);
    assert_eq!(
        place(&f, message(phone("4915"), "e")).await,
        stranger,
        "the number has moved"
    );
}

pub(in crate::store) async fn two_contacts_that_meet_are_reported(f: Fixture) {
    let by_phone = place(&f, message(phone("4915"), "a")).await;
    let by_bsuid = place(&f, message(bsuid("US.1"), "b")).await;
    assert_ne!(by_phone, by_bsuid);
    let met = f.append_one(message(both("4915", "US.1"), "c")).await;
    assert!(met.collision);
    assert_eq!(
        met.place.map(|(conversation, _)| conversation),
        Some(by_bsuid)
    );
}

pub(in crate::store) async fn the_same_person_on_two_numbers_has_two_conversations(f: Fixture) {
    let other = NumberId::from("200");
    let first = place(&f, message_to(&number(), phone("4915"), "a")).await;
    let second = place(&f, message_to(&other, phone("4915"), "a")).await;
    assert_ne!(
        first, second,
        "the same wamid on another number is another message"
    );
}

pub(in crate::store) async fn a_group_is_not_its_participant(f: Fixture) {
    let group = Aliases {
        group: Some("g1".into()),
        ..phone("4915")
    };
    let in_group = place(&f, message(group, "a")).await;
    assert_ne!(place(&f, message(phone("4915"), "b")).await, in_group);
    for turn in f.claim().await {
        f.reply(&turn, &["hello"]).await;
    }
    let mut groups = 0;
    for sending in f.send().await {
        let expected = if sending.conversation == in_group {
            groups += 1;
            Recipient::Group("g1".into())
        } else {
            Recipient::Phone("4915".into())
        };
        assert_eq!(sending.recipient, expected);
    }
    assert_eq!(groups, 1);
}
