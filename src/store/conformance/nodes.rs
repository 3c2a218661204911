//! Leases belong to nodes; a node that is silent for too long loses everything at once.

use super::fixture::{Fixture, TTL, message, phone};
use crate::store::{Renewal, SendRequest, StoreError, Written};

pub(in crate::store) async fn a_lease_that_is_over_frees_everything(f: Fixture) {
    f.append(vec![message(phone("1"), "a"), message(phone("2"), "b")])
        .await;
    let held = f.claim().await;
    assert_eq!(held.len(), 2);
    let heir = f.store.join(TTL).await.expect("joined");
    f.wait(4);
    assert_eq!(f.store.renew(heir, TTL).await, Ok(Renewal::Alive));
    assert_eq!(f.store.reap().await, Ok(vec![]), "the lease still runs");
    f.wait(1);
    let reaped = f.store.reap().await.expect("reaped");
    assert_eq!(reaped.len(), 1);
    assert_eq!((reaped[0].node, reaped[0].conversations), (f.node, 2));
    let taken_up = f.claim_as(heir, 100).await.turns;
    assert_eq!(taken_up.len(), 2);
    assert!(
        taken_up.iter().all(|turn| turn.attempt == 2),
        "the lost attempt counts"
    );
    assert_eq!(f.reply(&held[0], &["late"]).await, Written::Fenced);
    assert_eq!(f.store.renew(f.node, TTL).await, Ok(Renewal::Dead));
}

pub(in crate::store) async fn a_renewed_node_lives(f: Fixture) {
    f.append(vec![message(phone("1"), "a")]).await;
    let turn = f.claim_one().await;
    for _ in 0..10 {
        f.wait(4);
        assert_eq!(f.store.renew(f.node, TTL).await, Ok(Renewal::Alive));
        assert_eq!(f.store.reap().await, Ok(vec![]));
    }
    assert_eq!(f.reply(&turn, &["hello"]).await, Written::Done);
}

pub(in crate::store) async fn a_dead_node_gets_no_work(f: Fixture) {
    f.wait(6);
    let heir = f.store.join(TTL).await.expect("joined");
    f.store.reap().await.expect("reaped");
    f.append(vec![message(phone("1"), "a")]).await;
    let send = SendRequest {
        node: f.node,
        limit: 1,
        budget: Vec::new(),
    };
    assert_eq!(
        f.store.send(send).await.err(),
        Some(StoreError::DeadNode(f.node))
    );
    assert_eq!(f.claim_as(heir, 1).await.turns.len(), 1);
}

pub(in crate::store) async fn leaving_frees_at_once(f: Fixture) {
    f.append(vec![message(phone("1"), "a")]).await;
    f.claim_one().await;
    f.store.leave(f.node).await.expect("left");
    let heir = f.store.join(TTL).await.expect("joined");
    assert_eq!(f.claim_as(heir, 1).await.turns.len(), 1);
}
