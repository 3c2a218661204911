//! APPEND: many deliveries in one transaction. Locks are taken in one order: event keys,
//! contacts, conversations, wamids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::super::{Answered, Appended, AppendedEvent, Delivery, Verdict};
use super::answers::AnswerLog;
use super::fault::Fault;
use super::gate::{self, Arriving, Gate, latency_us};
use super::identity::{self, Resolved};
use super::lane::Batch;
use super::lock::{Lock, lock};
use super::outbox::{Book, STANDINGS};
use super::parameter::{Key, indexed, parameters, storable};
use super::receipts::{self, NewReceipt, Targets};
use super::relays;
use super::tx::Tx;
use crate::crash_point::Method;
use crate::model::{
    Aliases, ConversationId, Event, EventBody, EventKey, InboundMessage, Notice, NumberId, Receipt,
    Recipient, Timestamp,
};

/// The lane of deliveries.
pub(super) struct Appending {
    /// Answers that were given since the last batch.
    pub(super) answers: Arc<AnswerLog>,
}

#[async_trait]
impl Batch for Appending {
    type Item = Arc<Delivery>;
    type Answer = Appended;

    fn weight(delivery: &Arc<Delivery>) -> usize {
        let bytes: usize = delivery.events.iter().map(payload_bytes).sum();
        delivery.events.len().max(bytes / WEIGHT_BYTES).max(1)
    }

    async fn write(&self, tx: &mut Tx, items: &[Arc<Delivery>]) -> Result<Vec<Appended>, Fault> {
        let arriving: Vec<Arriving<'_>> = items
            .iter()
            .flat_map(|delivery| delivery.events.iter().map(move |event| (delivery, event)))
            .map(|(delivery, event)| Arriving { delivery, event })
            .collect();
        tx.carries(Method::Append);
        let mut told = append(tx, &arriving).await?.into_iter();
        queue_answers(tx, &self.answers.take());
        let appended = items.iter().map(|delivery| Appended {
            events: told.by_ref().take(delivery.events.len()).collect(),
        });
        Ok(appended.collect())
    }
}

/// So many bytes of payload weigh as much as one more event.
const WEIGHT_BYTES: usize = 8192;

fn payload_bytes(event: &Event) -> usize {
    let payload = match &event.body {
        EventBody::Message(message) => message.envelope.len(),
        EventBody::Status(receipt) => receipt.raw.len(),
        EventBody::Notice(notice) => notice.raw.len(),
    };
    payload + event.relay.as_ref().map_or(0, String::len)
}

async fn append(tx: &mut Tx, arriving: &[Arriving<'_>]) -> Result<Vec<AppendedEvent>, Fault> {
    // Every event at the gate, and what can be looked up without knowing which of them pass.
    let all = Sorted::of(arriving);
    let passed = gate::queue_pass(tx, arriving);
    let known = identity::queue_look_up(tx, all.senders());
    let targets = receipts::queue_targets(tx, &all.receipts);
    let mut answers = tx.flush().await?;
    let mut gate = Gate::new(&answers.take(passed));
    let known = answers.take(known);
    let targets = Targets::read(&mut answers, targets);

    if let Some(seen) = gate.queue_seen(tx, arriving) {
        let seen = tx.flush().await?.take(seen);
        gate.read_seen(&seen);
    }
    gate.check(arriving)?;
    let verdicts: Vec<Verdict> = arriving.iter().map(|one| gate.passes(tx, *one)).collect();
    let new = New::of(tx, arriving, &verdicts);

    let senders: Vec<(&NumberId, &Aliases)> = new
        .messages
        .iter()
        .map(|one| (one.number, &one.message.sender))
        .collect();
    let resolved = identity::resolve(tx, &senders, &known).await?;
    let conversations: BTreeSet<i64> = resolved
        .iter()
        .map(|resolved| resolved.conversation.0)
        .chain(targets.conversations())
        .collect();
    let locked = tx.queue(
        LOCK_OPEN.sql(),
        parameters![conversations.into_iter().collect::<Vec<_>>()],
    );
    let standings = tx.queue(STANDINGS, parameters![targets.outgoings()]);
    let raw = receipts::queue_raw(tx, &new.repeated);
    let mut answers = tx.flush().await?;
    let next: BTreeMap<i64, i64> = answers
        .take(locked)
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let mut book = Book::default();
    book.read(&answers.take(standings))?;

    let places = place(tx, &new.messages, &resolved, next)?;
    let raw = raw.map(|slot| answers.take(slot)).unwrap_or_default();
    let outgoings = receipts::receive(tx, book, &targets, &new.receipts).await?;
    if !new.repeated.is_empty() {
        receipts::queue_news(tx, &raw, &new.receipts, &new.repeated);
    }
    queue_notices(tx, &new.notices);
    relays::queue_new(tx, arriving, &verdicts);
    gate.write(tx);

    let mut places = places.into_iter();
    let told = arriving.iter().zip(verdicts).map(|(one, verdict)| {
        let accepted = verdict == Verdict::Accepted;
        let place = (accepted && as_message(one).is_some())
            .then(|| places.next())
            .flatten();
        AppendedEvent {
            key: one.event.key,
            kind: one.event.kind(),
            verdict,
            place: place.map(|(resolved, seq)| (resolved.conversation, seq)),
            outgoing: outgoings.get(&one.event.key).copied().filter(|_| accepted),
            collision: place.is_some_and(|(resolved, _)| resolved.collision),
        }
    });
    Ok(told.collect())
}

// What there is in a batch -------------------------------------------------------------------

fn as_message<'a>(one: &Arriving<'a>) -> Option<(&'a NumberId, &'a InboundMessage)> {
    match (&one.event.body, &one.event.number) {
        (EventBody::Message(message), Some(number)) => Some((number, message)),
        _ => None,
    }
}

fn as_receipt<'a>(one: &Arriving<'a>) -> Option<(&'a NumberId, &'a Receipt)> {
    match (&one.event.body, &one.event.number) {
        (EventBody::Status(receipt), Some(number)) => Some((number, receipt)),
        _ => None,
    }
}

/// All that came, new or not.
struct Sorted<'a> {
    messages: Vec<(&'a NumberId, &'a InboundMessage)>,
    receipts: Vec<(&'a NumberId, &'a Receipt)>,
}

impl<'a> Sorted<'a> {
    fn of(arriving: &[Arriving<'a>]) -> Self {
        Self {
            messages: arriving.iter().filter_map(as_message).collect(),
            receipts: arriving.iter().filter_map(as_receipt).collect(),
        }
    }

    fn senders(&self) -> impl Iterator<Item = (&'a NumberId, &'a Aliases)> {
        self.messages
            .iter()
            .map(|(number, message)| (*number, &message.sender))
    }
}

/// A message that came for the first time.
struct NewMessage<'a> {
    key: EventKey,
    number: &'a NumberId,
    message: &'a InboundMessage,
    received_at: Timestamp,
}

/// A notice that came for the first time.
struct NewNotice<'a> {
    key: EventKey,
    number: Option<&'a NumberId>,
    notice: &'a Notice,
    at: Timestamp,
}

/// What has passed the gate, and receipts that have not.
#[derive(Default)]
struct New<'a> {
    messages: Vec<NewMessage<'a>>,
    receipts: Vec<NewReceipt<'a>>,
    notices: Vec<NewNotice<'a>>,
    repeated: Vec<(EventKey, &'a Receipt)>,
}

impl<'a> New<'a> {
    fn of(tx: &Tx, arriving: &[Arriving<'a>], verdicts: &[Verdict]) -> Self {
        let mut new = Self::default();
        for (one, verdict) in arriving.iter().zip(verdicts) {
            let key = one.event.key;
            let at = tx.translate(one.delivery.at);
            if *verdict != Verdict::Accepted {
                new.repeated
                    .extend(as_receipt(one).map(|(_, receipt)| (key, receipt)));
                continue;
            }
            match (&one.event.body, &one.event.number) {
                (EventBody::Message(message), Some(number)) => new.messages.push(NewMessage {
                    key,
                    number,
                    message,
                    received_at: at,
                }),
                (EventBody::Status(receipt), Some(number)) => new.receipts.push(NewReceipt {
                    key,
                    number,
                    receipt,
                    received_at: at,
                }),
                (EventBody::Notice(notice), number) => new.notices.push(NewNotice {
                    key,
                    number: number.as_ref(),
                    notice,
                    at,
                }),
                (EventBody::Message(_) | EventBody::Status(_), None) => {}
            }
        }
        new
    }
}

// Messages -----------------------------------------------------------------------------------

const LOCK_OPEN: Lock = lock!(
    "
    SELECT id, next_seq FROM conversation WHERE id = ANY($1) AND merged_into IS NULL"
);
// No column of these has an index.
const TAKE_PLACES: &str = "
    UPDATE conversation c SET next_seq = n.next_seq, recipient = n.recipient
      FROM unnest($1::int8[], $2::int8[], $3::text[]) AS n(id, next_seq, recipient)
     WHERE c.id = n.id";
const KEEP_MESSAGES: &str = "
    INSERT INTO message (conversation, seq, event, wamid, kind, sent_at, received_at, envelope)
    SELECT * FROM unnest($1::int8[], $2::int8[], $3::uuid[], $4::text[], $5::text[], $6::int8[],
                         $7::int8[], $8::text[])";
// One that is owned has its row already, and is made due when its turn ends.
const MAKE_DUE: &str = "
    INSERT INTO pending (conversation, due_at)
    SELECT c.id, greatest(now_ms(), c.not_before, c.quiet_until)
      FROM conversation c WHERE c.id = ANY($1) ORDER BY c.id
    ON CONFLICT (conversation) DO NOTHING";

/// Gives each new message the next place in its conversation, under the lock on that.
fn place(
    tx: &mut Tx,
    messages: &[NewMessage<'_>],
    resolved: &[Resolved],
    mut next: BTreeMap<i64, i64>,
) -> Result<Vec<(Resolved, i64)>, Fault> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let mut recipients: BTreeMap<ConversationId, String> = BTreeMap::new();
    let mut places = Vec::with_capacity(messages.len());
    for (one, resolved) in messages.iter().zip(resolved) {
        let Some(seq) = next.get_mut(&resolved.conversation.0) else {
            // Merged into another one since it was looked up.
            return Err(Fault::Again(
                "a conversation was merged meanwhile".to_owned(),
            ));
        };
        places.push((*resolved, *seq));
        *seq += 1;
        let recipient = one.message.sender.recipient();
        let recipient = recipient
            .as_ref()
            .map(Recipient::encode)
            .unwrap_or_default();
        recipients.insert(resolved.conversation, storable(&recipient));
    }
    let conversations: Vec<i64> = recipients.keys().map(|id| id.0).collect();
    let next: Vec<i64> = conversations
        .iter()
        .map(|id| next.get(id).copied().unwrap_or_default())
        .collect();
    let recipients: Vec<String> = recipients.into_values().collect();
    tx.queue(
        TAKE_PLACES,
        parameters![conversations.clone(), next, recipients],
    );
    queue_messages(tx, messages, &places);
    tx.queue(MAKE_DUE, parameters![conversations]);
    tx.woke_turns = true;
    Ok(places)
}

fn queue_messages(tx: &mut Tx, messages: &[NewMessage<'_>], places: &[(Resolved, i64)]) {
    let parameters = parameters![
        places
            .iter()
            .map(|(resolved, _)| resolved.conversation.0)
            .collect::<Vec<_>>(),
        places.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(),
        messages
            .iter()
            .map(|one| Key::from(one.key))
            .collect::<Vec<_>>(),
        messages
            .iter()
            .map(|one| storable(one.message.wamid.as_str()))
            .collect::<Vec<_>>(),
        messages
            .iter()
            .map(|one| storable(&one.message.kind))
            .collect::<Vec<_>>(),
        messages
            .iter()
            .map(|one| one.message.sent_at.map(|at| at.0))
            .collect::<Vec<_>>(),
        messages
            .iter()
            .map(|one| one.received_at.0)
            .collect::<Vec<_>>(),
        messages
            .iter()
            .map(|one| storable(&one.message.envelope))
            .collect::<Vec<_>>(),
    ];
    tx.queue(KEEP_MESSAGES, parameters);
}

// Notices and answers ------------------------------------------------------------------------

const KEEP_NOTICES: &str = "
    INSERT INTO notice (event, number, kind, at, raw)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int8[], $5::text[])";

fn queue_notices(tx: &mut Tx, notices: &[NewNotice<'_>]) {
    if notices.is_empty() {
        return;
    }
    let number = |one: &NewNotice<'_>| one.number.map(|number| indexed(number.as_str()));
    let parameters = parameters![
        notices
            .iter()
            .map(|one| Key::from(one.key))
            .collect::<Vec<_>>(),
        notices.iter().map(number).collect::<Vec<_>>(),
        notices
            .iter()
            .map(|one| storable(&one.notice.kind))
            .collect::<Vec<_>>(),
        notices.iter().map(|one| one.at.0).collect::<Vec<_>>(),
        notices
            .iter()
            .map(|one| storable(&one.notice.raw))
            .collect::<Vec<_>>(),
    ];
    tx.queue(KEEP_NOTICES, parameters);
}

const RECORD_ANSWERS: &str = "
    INSERT INTO delivery (id, at, events, status, latency_us)
    SELECT id, now_ms() - age, events, status, latency_us
      FROM unnest($1::int8[], $2::int8[], $3::int4[], $4::int2[], $5::int8[])
           AS n(id, age, events, status, latency_us)
     ORDER BY id
    ON CONFLICT (id) DO NOTHING";

/// Queues the record of what deliveries were answered.
pub(super) fn queue_answers(tx: &mut Tx, answers: &[Answered]) {
    if answers.is_empty() {
        return;
    }
    tx.carries(Method::Answered);
    let events = |one: &Answered| i32::try_from(one.events).unwrap_or(i32::MAX);
    let parameters = parameters![
        answers.iter().map(|one| one.delivery.0).collect::<Vec<_>>(),
        answers.iter().map(|one| tx.age(one.at)).collect::<Vec<_>>(),
        answers.iter().map(events).collect::<Vec<_>>(),
        answers
            .iter()
            .map(|one| one.answer.status as i16)
            .collect::<Vec<_>>(),
        answers
            .iter()
            .map(|one| latency_us(one.answer))
            .collect::<Vec<_>>(),
    ];
    tx.queue(RECORD_ANSWERS, parameters);
}
