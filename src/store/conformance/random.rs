//! Random operations, the same on the plain ledger and on every engine: whatever they are, each
//! answer and what waits afterwards must be equal. A failure prints the shortest list that fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::fixture::{self, Fixture, TTL, message, phone, receipt};
use super::plain::{Millis, Plain, Taken, Waiting};
use crate::model::{
    Attempt, ConversationId, EventBody, EventKey, FailureClass, Lease, NodeId, OutgoingState,
    ReceiptFailure, property,
};
use crate::store::evidence::{self, Reading};
use crate::store::{
    AppendedEvent, Claimed, Finish, PruneRequest, Release, Renewal, SendRequest, SendResult,
    Sending, Settle, StoreError, TurnEnd, Verdict, Written,
};

const PEOPLE: usize = 4;
const UNSURE_WAIT: Duration = Duration::from_secs(6);

/// One operation. Indices are taken modulo what there is.
#[derive(Debug, Clone)]
enum Op {
    Append(usize, usize),
    Claim(usize),
    Finish(usize, usize),
    Release(usize, u64, bool, bool),
    Send(usize),
    Settle(usize, Answer),
    Receive(usize, &'static str, bool, bool),
    Advance(u64),
    Join,
    Renew(usize),
    Reap,
    Leave(usize),
    Expire(u64),
    Prune,
}

/// What Meta answers to a send.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Accepted,
    Retry(u64),
    Refused,
    Unsure,
}

fn op() -> impl Strategy<Value = Op> {
    let index = 0..64_usize;
    let answer = prop_oneof![
        4 => Just(Answer::Accepted),
        2 => (0..8_u64).prop_map(Answer::Retry),
        1 => Just(Answer::Refused),
        2 => Just(Answer::Unsure),
    ];
    let status = prop::sample::select(vec![
        "sent",
        "delivered",
        "read",
        "played",
        "failed",
        "deleted",
    ]);
    prop_oneof![
        6 => (0..PEOPLE, 0..8_usize).prop_map(|(who, which)| Op::Append(who, which)),
        5 => index.clone().prop_map(Op::Claim),
        5 => (index.clone(), 0..5_usize).prop_map(|(turn, end)| Op::Finish(turn, end)),
        2 => (index.clone(), 0..6_u64, any::<bool>(), any::<bool>())
            .prop_map(|(turn, wait, counts, down)| Op::Release(turn, wait, counts, down)),
        5 => index.clone().prop_map(Op::Send),
        5 => (index.clone(), answer).prop_map(|(send, answer)| Op::Settle(send, answer)),
        5 => (index.clone(), status, any::<bool>(), any::<bool>())
            .prop_map(|(send, status, tagged, fast)| Op::Receive(send, status, tagged, fast)),
        3 => (1..5_u64).prop_map(Op::Advance),
        1 => Just(Op::Join),
        3 => index.clone().prop_map(Op::Renew),
        2 => Just(Op::Reap),
        1 => index.prop_map(Op::Leave),
        2 => (0..6_u64).prop_map(Op::Expire),
        1 => Just(Op::Prune),
    ]
}

/// An engine, and how its ids translate into the plain ledger's.
struct Engine {
    name: &'static str,
    f: Fixture,
    nodes: Vec<NodeId>,
    people: BTreeMap<ConversationId, usize>,
    leases: BTreeMap<(usize, i64), Lease>,
    sends: BTreeMap<(String, Attempt), Sending>,
}

/// The plain ledger beside the engines.
struct Run {
    plain: Plain,
    engines: Vec<Engine>,
    turns: Vec<Taken>,
    sends: Vec<(String, usize, Attempt)>,
    nodes: usize,
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).expect("short")
}

fn count(appended: &AppendedEvent) -> i64 {
    match appended.verdict {
        Verdict::Accepted => 1,
        Verdict::Duplicate { count, .. } => count,
    }
}

impl Engine {
    fn new(name: &'static str, f: Fixture) -> Self {
        Self {
            name,
            nodes: vec![f.node],
            f,
            people: BTreeMap::new(),
            leases: BTreeMap::new(),
            sends: BTreeMap::new(),
        }
    }

    async fn append(&mut self, who: usize, wamid: &str) -> (i64, Option<usize>) {
        let appended = self
            .f
            .append_one(message(phone(&who.to_string()), wamid))
            .await;
        if let Some((conversation, _)) = appended.place {
            let known = *self.people.entry(conversation).or_insert(who);
            assert_eq!(known, who, "{}: somebody else's conversation", self.name);
        }
        let seq = appended
            .place
            .map(|(_, seq)| usize::try_from(seq).expect("positive"));
        (count(&appended), seq)
    }

    async fn claim(&mut self, node: usize) -> Option<(BTreeSet<Taken>, Option<Millis>)> {
        let request = crate::store::ClaimRequest {
            node: self.nodes[node],
            token: crate::store::ClaimToken(1),
            limit: 100,
            policy: crate::store::Policy::Queue,
        };
        let Claimed { turns, next_due } = match self.f.store.claim(request).await {
            Ok(claimed) => claimed,
            Err(StoreError::DeadNode(_)) => return None,
            Err(error) => panic!("{}: {error}", self.name),
        };
        let taken = turns.into_iter().map(|turn| {
            let who = self.people[&turn.lease.conversation];
            self.leases.insert((who, turn.lease.epoch), turn.lease);
            let text = |envelope: &str| envelope.trim_start_matches("envelope of ").to_owned();
            Taken {
                who,
                seq: usize::try_from(turn.id.seq).expect("positive"),
                epoch: turn.lease.epoch,
                node,
                attempt: turn.attempt,
                messages: turn
                    .messages
                    .iter()
                    .map(|one| text(&one.envelope))
                    .collect(),
                unavailable_for: turn.unavailable_for.map(millis),
                failed_before: turn.last_error.is_some(),
            }
        });
        Some((taken.collect(), next_due.map(millis)))
    }

    async fn finish(&self, turn: &Taken, end: TurnEnd) -> bool {
        let finish = Finish {
            seq_last: turn.seq as i64,
            end,
            started_at: self.f.clock.now(),
        };
        let lease = self.leases[&(turn.who, turn.epoch)];
        self.f.store.finish(lease, finish).await.expect("answered") == Written::Done
    }

    async fn release(&self, turn: &Taken, release: Release) -> bool {
        let lease = self.leases[&(turn.who, turn.epoch)];
        self.f
            .store
            .release(lease, release)
            .await
            .expect("answered")
            == Written::Done
    }

    async fn send(&mut self, node: usize) -> Option<(BTreeSet<(String, Attempt)>, Option<Millis>)> {
        let request = SendRequest {
            node: self.nodes[node],
            limit: 100,
            budget: Vec::new(),
        };
        let sends = match self.f.store.send(request).await {
            Ok(sends) => sends,
            Err(StoreError::DeadNode(_)) => return None,
            Err(error) => panic!("{}: {error}", self.name),
        };
        let sent = sends.outgoings.into_iter().map(|sending| {
            let key = (sending.body.clone(), sending.attempt);
            self.sends.insert(key.clone(), sending);
            key
        });
        Some((sent.collect(), sends.next_due.map(millis)))
    }

    async fn settle(&self, of: &(String, Attempt), result: SendResult) -> OutgoingState {
        let sending = &self.sends[of];
        let settle = Settle {
            id: sending.id,
            attempt: sending.attempt,
            result,
            answer: None,
        };
        self.f.store.settle(settle).await.expect("answered")
    }

    async fn waiting(&self) -> Waiting {
        let backlog = self.f.store.backlog().await.expect("read");
        (
            backlog.messages_pending,
            backlog.conversations_pending,
            backlog.outgoing_open,
            backlog.outgoing_unsure,
            backlog.dead_letters,
        )
    }

    fn body(&self, appended: &AppendedEvent) -> Option<String> {
        let id = appended.outgoing?;
        let of = self.sends.values().find(|sending| sending.id == id);
        Some(of.expect("it was sent").body.clone())
    }
}

/// Asks every engine and compares with what the plain ledger says.
macro_rules! same {
    ($run:ident, $expected:expr, |$engine:ident| $asked:expr) => {{
        let expected = $expected;
        for $engine in &mut $run.engines {
            let found = $asked;
            assert_eq!(
                found, expected,
                "{} differs from the plain ledger",
                $engine.name
            );
        }
    }};
}

impl Run {
    async fn apply(&mut self, op: &Op) {
        match *op {
            Op::Append(who, which) => {
                let wamid = format!("{who} {which}");
                let plain = self.plain.append(who, &wamid);
                same!(self, plain, |engine| engine.append(who, &wamid).await);
            }
            Op::Claim(node) => self.claim(node % self.nodes).await,
            Op::Finish(turn, end) if !self.turns.is_empty() => {
                self.finish(turn % self.turns.len(), end).await;
            }
            Op::Release(turn, wait, counts, unavailable) if !self.turns.is_empty() => {
                let turn = self.turns[turn % self.turns.len()].clone();
                let plain = self
                    .plain
                    .release(&turn, wait as Millis * 1000, counts, unavailable);
                let release = Release {
                    wait: Duration::from_secs(wait),
                    counts,
                    unavailable,
                    error: Some("it broke".into()),
                };
                same!(self, plain, |engine| engine
                    .release(&turn, release.clone())
                    .await);
            }
            Op::Send(node) => self.send(node % self.nodes).await,
            Op::Settle(send, answer) if !self.sends.is_empty() => {
                self.settle(send % self.sends.len(), answer).await;
            }
            Op::Receive(send, status, tagged, fast) if !self.sends.is_empty() => {
                self.receive(send % self.sends.len(), status, tagged, fast)
                    .await;
            }
            Op::Advance(seconds) => {
                self.plain.now += seconds as Millis * 1000;
                self.engines
                    .iter()
                    .for_each(|engine| engine.f.wait(seconds));
            }
            Op::Join | Op::Renew(_) | Op::Reap | Op::Leave(_) => self.change_nodes(op).await,
            Op::Expire(seconds) => self.expire(Duration::from_secs(seconds)).await,
            Op::Prune => self.prune().await,
            Op::Finish(..) | Op::Release(..) | Op::Settle(..) | Op::Receive(..) => {}
        }
        let plain = self.plain.waiting();
        same!(self, plain, |engine| engine.waiting().await);
    }

    async fn change_nodes(&mut self, op: &Op) {
        match *op {
            Op::Join => {
                self.nodes = self.plain.join(millis(TTL)) + 1;
                for engine in &mut self.engines {
                    let node = engine.f.store.join(TTL).await.expect("joined");
                    engine.nodes.push(node);
                }
            }
            Op::Renew(node) => {
                let node = node % self.nodes;
                let plain = self.plain.renew(node, millis(TTL));
                let alive = |renewed| renewed == Ok(Renewal::Alive);
                same!(self, plain, |engine| {
                    alive(engine.f.store.renew(engine.nodes[node], TTL).await)
                });
            }
            Op::Reap => self.reap().await,
            Op::Leave(node) => {
                let node = node % self.nodes;
                self.plain.remove(node);
                for engine in &self.engines {
                    engine
                        .f
                        .store
                        .leave(engine.nodes[node])
                        .await
                        .expect("left");
                }
            }
            _ => unreachable!("no change of nodes: {op:?}"),
        }
    }

    async fn claim(&mut self, node: usize) {
        let plain = self.plain.is_member(node).then(|| self.plain.claim(node));
        same!(self, plain.clone(), |engine| engine.claim(node).await);
        self.turns
            .extend(plain.into_iter().flat_map(|(taken, _)| taken));
    }

    async fn finish(&mut self, turn: usize, end: usize) {
        let turn = self.turns[turn].clone();
        let body = |n| format!("{} {} {} {n}", turn.who, turn.seq, turn.epoch);
        let bodies: Vec<String> = (0..end).map(body).collect();
        let (plain, end) = match end {
            4 => (
                self.plain.finish(&turn, None),
                TurnEnd::Dead("it failed".into()),
            ),
            0 => (self.plain.finish(&turn, Some(&[])), TurnEnd::Silence),
            _ => (
                self.plain.finish(&turn, Some(&bodies)),
                TurnEnd::Reply(bodies.clone()),
            ),
        };
        same!(self, plain, |engine| engine
            .finish(&turn, end.clone())
            .await);
    }

    async fn send(&mut self, node: usize) {
        let plain = self.plain.is_member(node).then(|| self.plain.send(node));
        let keys = plain.as_ref().map(|(sent, next)| {
            let keys = sent
                .iter()
                .map(|(body, _, attempt)| (body.clone(), *attempt));
            (keys.collect::<BTreeSet<_>>(), *next)
        });
        same!(self, keys.clone(), |engine| engine.send(node).await);
        self.sends
            .extend(plain.into_iter().flat_map(|(sent, _)| sent));
    }

    async fn settle(&mut self, send: usize, answer: Answer) {
        let (body, id, attempt) = self.sends[send].clone();
        let reason = || "no".to_owned();
        let result = match answer {
            Answer::Accepted => SendResult::Accepted(format!("w {body}").as_str().into()),
            Answer::Retry(seconds) => SendResult::Retry {
                after: Duration::from_secs(seconds),
                reason: reason(),
            },
            Answer::Refused => SendResult::Refused { reason: reason() },
            Answer::Unsure => SendResult::Unsure { reason: reason() },
        };
        let (evidence, facts) = evidence::of_result(attempt, &result);
        let plain = self.plain.settle(id, evidence, &facts);
        let of = (body, attempt);
        same!(self, plain, |engine| engine
            .settle(&of, result.clone())
            .await);
    }

    async fn receive(&mut self, send: usize, status: &str, tagged: bool, fast: bool) {
        let (body, id, attempt) = self.sends[send].clone();
        let wamid = format!("w {body}");
        let name = format!("{wamid} {status} {attempt}");
        let of = (body, attempt);
        let event_of = |engine: &Engine| {
            let tag = engine.sends[&of].tag.to_string();
            let mut event = receipt(&wamid, status, tagged.then_some(tag));
            event.key = EventKey::derive(&[name.as_bytes()]);
            if let EventBody::Status(receipt) = &mut event.body {
                let class = if fast {
                    FailureClass::PairRate
                } else {
                    FailureClass::Refused
                };
                let failed = status == "failed";
                receipt.failure = failed.then_some(ReceiptFailure { code: 1, class });
            }
            event
        };
        let event = event_of(&self.engines[0]);
        let EventBody::Status(receipt) = &event.body else {
            unreachable!("it is a receipt")
        };
        let reading = Reading::of(receipt, tagged.then_some(attempt));
        let plain = self
            .plain
            .receive(&name, &wamid, tagged.then_some(id), &reading);
        same!(self, plain.clone(), |engine| {
            let appended = engine.f.append_one(event_of(engine)).await;
            (count(&appended), engine.body(&appended))
        });
    }

    async fn reap(&mut self) {
        let plain = self.plain.reap();
        same!(self, plain.clone(), |engine| {
            let reaped = engine.f.store.reap().await.expect("answered");
            let index = |node| engine.nodes.iter().position(|known| *known == node);
            let reaped = reaped.iter().map(|dead| {
                (
                    index(dead.node).expect("known"),
                    dead.conversations,
                    dead.unsure,
                )
            });
            reaped.collect::<BTreeSet<_>>()
        });
    }

    async fn expire(&mut self, healthy: Duration) {
        let plain = self.plain.expire(millis(healthy), millis(UNSURE_WAIT));
        same!(self, plain.clone(), |engine| {
            let ended = engine.f.store.expire_unsure(healthy, UNSURE_WAIT).await;
            let body = |id| {
                let of = engine.sends.values().find(|sending| sending.id == id);
                of.expect("it was sent").body.clone()
            };
            let ended = ended.expect("answered").into_iter().map(body);
            ended.collect::<BTreeSet<_>>()
        });
    }

    /// Nothing is old enough: retention beside everything else takes nothing away.
    async fn prune(&mut self) {
        for engine in &self.engines {
            for node in &engine.nodes {
                let request = PruneRequest {
                    node: *node,
                    keys: Duration::from_secs(30 * 86_400),
                    payloads: Duration::from_secs(30 * 86_400),
                    relays: Duration::MAX,
                    limit: 100,
                };
                if let Ok(Some(pruned)) = engine.f.store.prune(request).await {
                    assert_eq!((pruned.events, pruned.payloads), (0, 0));
                }
            }
        }
    }
}

async fn run(ops: &[Op]) {
    let sqlite = fixture::with(crate::store::sqlite::tests::open).await;
    let postgres = fixture::with(crate::store::postgres::tests::open).await;
    let mut run = Run {
        plain: Plain::new(PEOPLE),
        engines: vec![
            Engine::new("SQLite", sqlite),
            Engine::new("PostgreSQL", postgres),
        ],
        turns: Vec::new(),
        sends: Vec::new(),
        nodes: 1,
    };
    run.plain.join(millis(TTL));
    for op in ops {
        run.apply(op).await;
    }
}

/// Shrinking is short: each try opens two stores.
fn config() -> ProptestConfig {
    ProptestConfig {
        max_shrink_iters: 400,
        ..property::cases(32)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_engine_does_what_the_plain_ledger_does(ops in prop::collection::vec(op(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(run(&ops));
    }
}
