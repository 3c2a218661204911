//! Statuses and notices for the bot: each is taken by one, until it has ended.

use std::time::Duration;

use super::fixture::{Fixture, TTL, notice, number, phone, receipt};
use crate::model::bot_send::{Content, Told};
use crate::model::{Event, EventKey, NodeId, NumberId, Recipient};
use crate::store::{
    OwnMessage, PruneRequest, RelayEnd, RelayRequest, Relaying, SendWhen, Stage, Staged, StoreError,
};

const SECOND: Duration = Duration::from_secs(1);

/// To be relayed, as a body that names it.
fn relayed(text: &str) -> Event {
    Event {
        relay: Some(format!("body of {text}")),
        ..notice(text)
    }
}

fn of_number(number: &str, text: &str) -> Event {
    Event {
        number: Some(NumberId::from(number)),
        ..relayed(text)
    }
}

fn request(node: NodeId) -> RelayRequest {
    RelayRequest {
        node,
        holds: Vec::new(),
        except: Vec::new(),
        limit: 100,
    }
}

async fn ask(f: &Fixture, request: RelayRequest) -> Vec<Relaying> {
    f.store.relay(request).await.expect("it is answered")
}

async fn holding(f: &Fixture, holds: &[EventKey]) -> Vec<Relaying> {
    let holds = holds.to_vec();
    ask(
        f,
        RelayRequest {
            holds,
            ..request(f.node)
        },
    )
    .await
}

async fn take(f: &Fixture) -> Vec<Relaying> {
    holding(f, &[]).await
}

async fn end(f: &Fixture, relaying: &Relaying, end: RelayEnd) {
    let ended = f.store.relayed(f.node, relaying.key, end).await;
    ended.expect("it ends");
}

async fn waiting(f: &Fixture) -> u64 {
    f.store.backlog().await.expect("it is read").relays
}

fn bodies(taken: &[Relaying]) -> Vec<&str> {
    taken.iter().map(|one| one.envelope.as_str()).collect()
}

fn again(wait: Duration, counts: bool) -> RelayEnd {
    RelayEnd::Again { wait, counts }
}

pub(in crate::store) async fn each_is_relayed_once_in_the_order_in_which_it_came(f: Fixture) {
    let mut changed = f.store.relays_changed();
    f.append(vec![notice("not asked for"), relayed("b"), relayed("a")])
        .await;
    changed.changed().await.expect("it is told");
    f.append(vec![relayed("a"), of_number("7", "c"), relayed("b")])
        .await;
    assert_eq!(waiting(&f).await, 3);
    let taken = take(&f).await;
    assert_eq!(bodies(&taken), ["body of b", "body of a", "body of c"]);
    assert_eq!(taken[0].key, relayed("b").key);
    assert_eq!(
        (taken[1].number.as_str(), taken[2].number.as_str()),
        ("", "7")
    );
    assert!(
        taken
            .iter()
            .all(|one| one.failures == 0 && one.of.is_none())
    );
    for one in &taken {
        end(&f, one, RelayEnd::Over).await;
    }
    assert_eq!(waiting(&f).await, 0);
    f.append(vec![relayed("a"), relayed("b")]).await;
    assert_eq!(take(&f).await, [], "what came again is no new one");
}

pub(in crate::store) async fn what_one_node_has_taken_another_gets_when_that_is_gone(f: Fixture) {
    f.append(vec![relayed("a"), relayed("b")]).await;
    let limited = RelayRequest {
        limit: 1,
        ..request(f.node)
    };
    let first = ask(&f, limited).await;
    assert_eq!(bodies(&first), ["body of a"]);
    f.clock.advance(TTL - SECOND);
    let other = f.store.join(10 * TTL).await.expect("it joins");
    let second = ask(&f, request(other)).await;
    assert_eq!(bodies(&second), ["body of b"]);
    f.clock.advance(2 * SECOND);
    f.store.reap().await.expect("it is looked for");
    let freed = RelayRequest {
        holds: vec![second[0].key],
        ..request(other)
    };
    assert_eq!(bodies(&ask(&f, freed).await), ["body of a"]);
    let dead = f.store.relay(request(f.node)).await;
    assert_eq!(dead, Err(StoreError::DeadNode(f.node)));
    // What the dead one still says of it is not heard; that it is over is.
    end(&f, &first[0], again(Duration::ZERO, true)).await;
    let third = f.store.join(10 * TTL).await.expect("it joins");
    assert_eq!(ask(&f, request(third)).await, []);
    end(&f, &first[0], RelayEnd::Over).await;
    f.store.leave(other).await.expect("it leaves");
    assert_eq!(bodies(&ask(&f, request(third)).await), ["body of b"]);
}

pub(in crate::store) async fn what_was_taken_by_a_lost_answer_comes_again(f: Fixture) {
    f.append(vec![relayed("a"), relayed("b")]).await;
    let taken = take(&f).await;
    let heard = [taken[0].key];
    let lost = holding(&f, &heard).await;
    assert_eq!(bodies(&lost), ["body of b"]);
    assert_eq!(holding(&f, &[taken[0].key, taken[1].key]).await, []);
}

pub(in crate::store) async fn what_failed_waits_and_is_counted(f: Fixture) {
    f.append(vec![relayed("a"), relayed("b")]).await;
    let taken = take(&f).await;
    end(&f, &taken[0], again(2 * SECOND, true)).await;
    end(&f, &taken[1], again(SECOND, false)).await;
    assert_eq!(take(&f).await, []);
    f.wait(1);
    let early = take(&f).await;
    assert_eq!((bodies(&early), early[0].failures), (vec!["body of b"], 0));
    f.wait(1);
    let late = holding(&f, &[early[0].key]).await;
    assert_eq!((bodies(&late), late[0].failures), (vec!["body of a"], 1));
}

pub(in crate::store) async fn a_number_whose_bot_is_down_keeps_nobody_else_waiting(f: Fixture) {
    let events = ["1", "1", "", "2", "1"].iter().enumerate();
    let events = events.map(|(place, number)| match *number {
        "" => relayed(&place.to_string()),
        number => of_number(number, &place.to_string()),
    });
    f.append(events.collect()).await;
    let but = |except: &[&str]| RelayRequest {
        except: except
            .iter()
            .map(|number| NumberId::from(*number))
            .collect(),
        limit: 2,
        ..request(f.node)
    };
    let first = ask(&f, but(&["1"])).await;
    assert_eq!(bodies(&first), ["body of 2", "body of 3"]);
    for one in &first {
        end(&f, one, again(Duration::ZERO, false)).await;
    }
    assert_eq!(
        bodies(&ask(&f, but(&["2", ""])).await),
        ["body of 0", "body of 1"]
    );
}

async fn stage(f: &Fixture, text: &str) -> Staged {
    let stage = Stage {
        number: number(),
        to: phone("1"),
        recipient: Recipient::Phone("1".to_owned()),
        body: text.to_owned(),
        content: Content::of(&[text]),
        key: None,
        callback: Some(format!("callback of {text}")),
        is_apart: false,
        when: SendWhen::Now,
        tail: SECOND,
    };
    let staged = f.store.stage(stage).await.expect("it is answered");
    staged.expect("there is room")
}

fn status(wamid: &str, tag: Option<String>) -> Event {
    Event {
        relay: Some(format!("status of {wamid}")),
        ..receipt(wamid, "sent", tag)
    }
}

pub(in crate::store) async fn a_status_tells_what_the_bot_knows_of_its_own_send(f: Fixture) {
    for (text, told) in [("one", Told::OwnId), ("two", Told::Truth)] {
        let staged = stage(&f, text).await;
        f.store.told(staged.id, told).await.expect("noted");
        let sending = f.send_one().await;
        let tag = Some(sending.tag.to_string());
        f.append(vec![status(text, tag)]).await;
        let taken = take(&f).await;
        let known_as = (told == Told::OwnId).then_some(staged.id);
        let own = OwnMessage {
            conversation: staged.conversation,
            callback: Some(format!("callback of {text}")),
            known_as,
        };
        assert_eq!(bodies(&taken), [format!("status of {text}")]);
        assert_eq!(taken[0].of, Some(own));
        end(&f, &taken[0], RelayEnd::Over).await;
    }
    f.append(vec![status("somebody else's", None)]).await;
    assert_eq!(take(&f).await[0].of, None);
}

pub(in crate::store) async fn a_bot_is_told_of_its_send_before_it_hears_its_status(f: Fixture) {
    let staged = stage(&f, "one").await;
    let sending = f.send_one().await;
    f.append(vec![status("one", Some(sending.tag.to_string()))])
        .await;
    assert_eq!(take(&f).await, []);
    let mut changed = f.store.relays_changed();
    f.store.told(staged.id, Told::Truth).await.expect("noted");
    changed.changed().await.expect("it is told");
    let taken = take(&f).await;
    assert_eq!(bodies(&taken), ["status of one"]);
    end(&f, &taken[0], RelayEnd::Over).await;
    // Whose caller has hung up: nobody will be told.
    stage(&f, "two").await;
    f.accepted(&sending, "one").await;
    let sending = f.send_one().await;
    f.append(vec![status("two", Some(sending.tag.to_string()))])
        .await;
    assert_eq!(take(&f).await, []);
    f.wait(60);
    f.store.renew(f.node, TTL).await.expect("renewed");
    assert_eq!(bodies(&take(&f).await), ["status of two"]);
}

pub(in crate::store) async fn what_waits_too_long_is_dropped_and_counted(f: Fixture) {
    f.append(vec![relayed("a"), relayed("b"), relayed("c")])
        .await;
    let limited = RelayRequest {
        limit: 1,
        ..request(f.node)
    };
    let under_way = ask(&f, limited).await;
    let prune = async |limit| {
        let request = PruneRequest {
            node: f.node,
            keys: Duration::MAX,
            payloads: Duration::MAX,
            relays: 60 * SECOND,
            limit,
        };
        let pruned = f.store.prune(request).await.expect("it is answered");
        pruned.expect("it has the duty")
    };
    f.wait(59);
    assert_eq!(prune(100).await.relays, 0);
    f.wait(1);
    f.append(vec![relayed("d")]).await;
    let first = prune(1).await;
    assert_eq!((first.relays, first.more), (1, true));
    assert_eq!(prune(100).await.relays, 1);
    assert_eq!(waiting(&f).await, 2, "what is under way, and what is new");
    assert_eq!(
        bodies(&holding(&f, &[under_way[0].key]).await),
        ["body of d"]
    );
}
