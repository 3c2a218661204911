//! The ledger in plain Rust: what the engines do with tables, locks and batches, done with
//! vectors. Random operations are tried on it and on every engine, and must come to the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Attempt, Evidence, OutgoingState, Transition};
use crate::store::evidence::{Facts, Reading, Shown};

/// Milliseconds.
pub(super) type Millis = i64;

/// The whole ledger.
#[derive(Debug, Default)]
pub(super) struct Plain {
    pub(super) now: Millis,
    /// How often each event has arrived, by its name.
    arrivals: BTreeMap<String, i64>,
    conversations: Vec<Conversation>,
    /// Until when each node's lease runs; `None` when it is no longer there.
    nodes: Vec<Option<Millis>>,
    outgoings: Vec<Outgoing>,
    /// Receipts that nobody has claimed, with their wamid.
    parked: Vec<(String, Reading)>,
    /// Which outgoing is known under a wamid.
    wamids: BTreeMap<String, usize>,
    healthy: Millis,
    healthy_at: Millis,
    /// Turns that ended as dead letters, and outgoings that are ones now.
    dead_turns: usize,
}

#[derive(Debug, Clone, Default)]
struct Conversation {
    messages: Vec<String>,
    done: usize,
    epoch: i64,
    owner: Option<usize>,
    attempt: Attempt,
    turn_last: Option<usize>,
    not_before: Millis,
    ready_at: Option<Millis>,
    unavailable_since: Option<Millis>,
    error: bool,
}

#[derive(Debug)]
struct Outgoing {
    who: usize,
    body: String,
    state: OutgoingState,
    attempt: Attempt,
    failed: Option<Attempt>,
    rank: u8,
    due_at: Option<Millis>,
    node: Option<usize>,
    unsure_at: Millis,
}

/// A turn as it was claimed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Taken {
    pub(super) who: usize,
    pub(super) seq: usize,
    pub(super) epoch: i64,
    pub(super) node: usize,
    pub(super) attempt: Attempt,
    pub(super) messages: Vec<String>,
    pub(super) unavailable_for: Option<Millis>,
    pub(super) failed_before: bool,
}

/// What waits: messages, conversations, open and unsure outgoings, dead letters.
pub(super) type Waiting = (u64, u64, u64, u64, u64);

impl Plain {
    pub(super) fn new(people: usize) -> Self {
        Self {
            conversations: vec![Conversation::default(); people],
            ..Self::default()
        }
    }

    /// Counts an arrival; answers how many there have been.
    fn arrive(&mut self, event: &str) -> i64 {
        let count = self.arrivals.entry(event.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Answers the arrivals so far, and the place of a new message.
    pub(super) fn append(&mut self, who: usize, wamid: &str) -> (i64, Option<usize>) {
        let count = self.arrive(wamid);
        if count > 1 {
            return (count, None);
        }
        let (now, conversation) = (self.now, &mut self.conversations[who]);
        conversation.messages.push(wamid.to_owned());
        if conversation.owner.is_none() && conversation.ready_at.is_none() {
            conversation.ready_at = Some(now.max(conversation.not_before));
        }
        (count, Some(conversation.messages.len()))
    }

    // Nodes ------------------------------------------------------------------------------------

    pub(super) fn join(&mut self, ttl: Millis) -> usize {
        self.nodes.push(Some(self.now + ttl));
        self.nodes.len() - 1
    }

    /// Whether it still was a node.
    pub(super) fn renew(&mut self, node: usize, ttl: Millis) -> bool {
        let until = self.now + ttl;
        self.nodes[node]
            .as_mut()
            .map(|lease| *lease = until)
            .is_some()
    }

    /// Each dead node, with how many conversations it held and sends it left unanswered.
    pub(super) fn reap(&mut self) -> BTreeSet<(usize, u64, u64)> {
        let is_over = |lease: &Option<Millis>| lease.is_some_and(|until| until <= self.now);
        let dead: Vec<usize> = (0..self.nodes.len())
            .filter(|node| is_over(&self.nodes[*node]))
            .collect();
        dead.into_iter().map(|node| self.remove(node)).collect()
    }

    pub(super) fn remove(&mut self, node: usize) -> (usize, u64, u64) {
        if self.nodes[node].take().is_none() {
            return (node, 0, 0);
        }
        let mut held = 0;
        for conversation in &mut self.conversations {
            if conversation.owner == Some(node) {
                conversation.owner = None;
                conversation.ready_at = Some(self.now.max(conversation.not_before));
                held += 1;
            }
        }
        let sending =
            |out: &Outgoing| out.node == Some(node) && out.state == OutgoingState::Sending;
        let left: Vec<usize> = (0..self.outgoings.len())
            .filter(|id| sending(&self.outgoings[*id]))
            .collect();
        for id in &left {
            let attempt = self.outgoings[*id].attempt;
            self.merge(*id, Evidence::Lost(attempt), &Facts::because("gone"));
        }
        (node, held, left.len() as u64)
    }

    pub(super) fn is_member(&self, node: usize) -> bool {
        self.nodes[node].is_some()
    }

    // Turns ------------------------------------------------------------------------------------

    /// Everything that is due, and how long until the next is.
    pub(super) fn claim(&mut self, node: usize) -> (BTreeSet<Taken>, Option<Millis>) {
        let mut taken = BTreeSet::new();
        for (who, conversation) in self.conversations.iter_mut().enumerate() {
            if conversation.ready_at.is_none_or(|at| at > self.now) {
                continue;
            }
            conversation.ready_at = None;
            conversation.epoch += 1;
            conversation.owner = Some(node);
            conversation.attempt += 1;
            let seq = conversation.done + 1;
            conversation.turn_last.get_or_insert(seq);
            taken.insert(Taken {
                who,
                seq,
                epoch: conversation.epoch,
                node,
                attempt: conversation.attempt,
                messages: vec![conversation.messages[seq - 1].clone()],
                unavailable_for: conversation.unavailable_since.map(|since| self.now - since),
                failed_before: conversation.error,
            });
        }
        let next = self
            .conversations
            .iter()
            .filter_map(|conversation| conversation.ready_at);
        (taken, next.min().map(|at| at - self.now))
    }

    /// Whether it was written. `replies` is `None` for a dead letter.
    pub(super) fn finish(&mut self, turn: &Taken, replies: Option<&[String]>) -> bool {
        let (now, conversation) = (self.now, &mut self.conversations[turn.who]);
        if conversation.epoch != turn.epoch {
            return false;
        }
        if conversation.done >= turn.seq {
            return true;
        }
        if conversation.turn_last != Some(turn.seq) {
            return false;
        }
        let more = conversation.messages.len() > turn.seq;
        *conversation = Conversation {
            messages: std::mem::take(&mut conversation.messages),
            done: turn.seq,
            epoch: conversation.epoch,
            ready_at: more.then_some(now),
            ..Conversation::default()
        };
        for body in replies.unwrap_or_default() {
            self.outgoings.push(Outgoing {
                who: turn.who,
                body: body.clone(),
                state: OutgoingState::Pending,
                attempt: 0,
                failed: None,
                rank: 0,
                due_at: None,
                node: None,
                unsure_at: 0,
            });
        }
        self.dead_turns += usize::from(replies.is_none());
        self.promote(turn.who, now);
        true
    }

    /// Whether it was written.
    pub(super) fn release(
        &mut self,
        turn: &Taken,
        wait: Millis,
        counts: bool,
        unavailable: bool,
    ) -> bool {
        let (now, conversation) = (self.now, &mut self.conversations[turn.who]);
        if conversation.epoch != turn.epoch || conversation.owner != Some(turn.node) {
            return false;
        }
        conversation.owner = None;
        conversation.not_before = now + wait;
        conversation.ready_at = Some(now + wait);
        conversation.attempt -= Attempt::from(!counts);
        let since = conversation.unavailable_since.unwrap_or(now);
        conversation.unavailable_since = unavailable.then_some(since);
        conversation.error = true;
        true
    }

    // Sending ----------------------------------------------------------------------------------

    /// Makes the oldest open outgoing due, if it waits for nothing else.
    fn promote(&mut self, who: usize, at: Millis) {
        let head = self
            .outgoings
            .iter_mut()
            .find(|out| out.who == who && out.state.is_open());
        if let Some(head) = head
            && head.state == OutgoingState::Pending
            && head.due_at.is_none()
        {
            head.due_at = Some(at);
        }
    }

    fn is_in_question(&self, who: usize) -> bool {
        let asks = |state| matches!(state, OutgoingState::Sending | OutgoingState::Unsure);
        self.outgoings
            .iter()
            .any(|out| out.who == who && asks(out.state))
    }

    /// Body, id and attempt of each that is due, and else how long until the next is.
    pub(super) fn send(
        &mut self,
        node: usize,
    ) -> (BTreeSet<(String, usize, Attempt)>, Option<Millis>) {
        let free: Vec<usize> = (0..self.outgoings.len())
            .filter(|id| !self.is_in_question(self.outgoings[*id].who))
            .collect();
        let mut sent = BTreeSet::new();
        for id in &free {
            let out = &mut self.outgoings[*id];
            if out.due_at.is_some_and(|at| at <= self.now) {
                out.due_at = None;
                out.state = OutgoingState::Sending;
                out.attempt += 1;
                out.node = Some(node);
                sent.insert((out.body.clone(), *id, out.attempt));
            }
        }
        let due = free.iter().filter_map(|id| self.outgoings[*id].due_at);
        let next = due.min().map(|at| (at - self.now).max(0));
        let next = next.filter(|_| sent.is_empty());
        (sent, next)
    }

    pub(super) fn settle(&mut self, id: usize, evidence: Evidence, facts: &Facts) -> OutgoingState {
        self.merge(id, evidence, facts);
        self.outgoings[id].state
    }

    fn merge(&mut self, id: usize, evidence: Evidence, facts: &Facts) {
        let (now, healthy, out) = (self.now, self.healthy, &mut self.outgoings[id]);
        if let Transition::To(state) = out.state.merge(out.attempt, out.failed, evidence) {
            out.state = state;
            out.due_at = None;
            out.node = None;
            if state == OutgoingState::Unsure {
                out.unsure_at = healthy;
            }
            let who = out.who;
            let wait = facts.retry_after.unwrap_or_default().as_millis() as Millis;
            match state {
                OutgoingState::Pending => {
                    let later = self.outgoings[id + 1..]
                        .iter_mut()
                        .filter(|out| out.who == who);
                    later.for_each(|out| out.due_at = None);
                    self.promote(who, now + wait);
                }
                OutgoingState::Sent | OutgoingState::Dead => self.promote(who, now),
                OutgoingState::Sending | OutgoingState::Unsure => {}
            }
        }
        if let Some(wamid) = &facts.wamid {
            self.learn(wamid.as_str(), id);
        }
    }

    fn learn(&mut self, wamid: &str, id: usize) {
        let id = *self.wamids.entry(wamid.to_owned()).or_insert(id);
        let parked = std::mem::take(&mut self.parked);
        let (own, others) = parked.into_iter().partition(|(of, _)| of == wamid);
        self.parked = others;
        for (wamid, reading) in own {
            self.read(id, &wamid, &reading);
        }
    }

    fn read(&mut self, id: usize, wamid: &str, reading: &Reading) {
        let out = &self.outgoings[id];
        match reading.shows(out.rank, out.attempt, true) {
            Shown::Nothing => {}
            Shown::Progress(rank, evidence) => {
                let out = &mut self.outgoings[id];
                out.rank = out.rank.max(rank as u8);
                self.merge(id, evidence, &Facts::known_as(wamid.into()));
            }
            Shown::Failure(attempt, evidence, facts) => {
                self.merge(id, evidence, &facts);
                self.outgoings[id].failed = Some(attempt);
            }
            Shown::OldFailure(evidence, facts) => self.merge(id, evidence, &facts),
        }
        self.learn(wamid, id);
    }

    /// Answers the arrivals so far, and the body of the outgoing that a new one speaks of.
    pub(super) fn receive(
        &mut self,
        event: &str,
        wamid: &str,
        tagged: Option<usize>,
        reading: &Reading,
    ) -> (i64, Option<String>) {
        let count = self.arrive(event);
        if count > 1 {
            return (count, None);
        }
        let Some(id) = tagged.or_else(|| self.wamids.get(wamid).copied()) else {
            self.parked.push((wamid.to_owned(), reading.clone()));
            return (count, None);
        };
        self.read(id, wamid, reading);
        (count, Some(self.outgoings[id].body.clone()))
    }

    /// The bodies of those whose wait is over.
    pub(super) fn expire(&mut self, healthy: Millis, wait: Millis) -> BTreeSet<String> {
        if healthy > 0 {
            self.healthy += (self.now - self.healthy_at).min(healthy);
            self.healthy_at = self.now;
        }
        let is_over = |out: &Outgoing| {
            out.state == OutgoingState::Unsure && out.unsure_at <= self.healthy - wait
        };
        let over: Vec<usize> = (0..self.outgoings.len())
            .filter(|id| is_over(&self.outgoings[*id]))
            .collect();
        for id in &over {
            let attempt = self.outgoings[*id].attempt;
            self.merge(*id, Evidence::WaitOver(attempt), &Facts::because("over"));
        }
        over.into_iter()
            .map(|id| self.outgoings[id].body.clone())
            .collect()
    }

    pub(super) fn waiting(&self) -> Waiting {
        let pending = self
            .conversations
            .iter()
            .map(|c| (c.messages.len() - c.done) as u64);
        let pending: Vec<u64> = pending.filter(|count| *count > 0).collect();
        let count = |wanted: fn(OutgoingState) -> bool| {
            self.outgoings
                .iter()
                .filter(|out| wanted(out.state))
                .count() as u64
        };
        (
            pending.iter().sum(),
            pending.len() as u64,
            count(OutgoingState::is_open),
            count(|state| state == OutgoingState::Unsure),
            self.dead_turns as u64 + count(|state| state == OutgoingState::Dead),
        )
    }
}
