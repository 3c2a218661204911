//! Receipts of a batch: each finds its outgoing by our tag or by its wamid, or is parked until
//! the answer to the send tells whose it is.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;

use super::super::evidence::Reading;
use super::fault::Fault;
use super::outbox::{Book, Learnt, read_adopted};
use super::parameter::{Key, indexed, parameters, storable};
use super::tx::{Slot, Tx};
use crate::guard::{self, Guard};
use crate::model::{EventKey, NumberId, OutgoingId, Receipt, Tag, Timestamp};

/// A receipt that came for the first time.
#[derive(Clone, Copy)]
pub(super) struct NewReceipt<'a> {
    pub(super) key: EventKey,
    pub(super) number: &'a NumberId,
    pub(super) receipt: &'a Receipt,
    pub(super) received_at: Timestamp,
}

const BY_TAG: &str = "
    SELECT o.id, o.conversation FROM unnest($1::int8[], $2::text[]) AS n(id, number)
      JOIN outgoing o ON o.id = n.id AND o.number = n.number";
const BY_WAMID: &str = "
    SELECT w.number, w.wamid, w.outgoing, w.conversation
      FROM unnest($1::text[], $2::text[]) AS n(number, wamid)
      JOIN wamid w ON w.number = n.number AND w.wamid = n.wamid AND w.outgoing IS NOT NULL";

/// Which outgoings a batch's receipts speak of.
#[derive(Default)]
pub(super) struct Targets {
    tagged: BTreeSet<OutgoingId>,
    named: BTreeMap<(String, String), OutgoingId>,
    conversations: BTreeSet<i64>,
}

/// Where the look for them will be answered.
pub(super) struct TargetSlots(Slot, Slot);

fn tag_of(tx: &Tx, receipt: &Receipt) -> Option<Tag> {
    let tag = receipt.callback_data.as_deref().and_then(Tag::parse);
    tag.filter(|tag| tag.store == tx.store())
}

/// Queues the look for the outgoings of receipts, whether they are new or not.
pub(super) fn queue_targets<'a>(
    tx: &mut Tx,
    receipts: &[(&'a NumberId, &'a Receipt)],
) -> Option<TargetSlots> {
    if receipts.is_empty() {
        return None;
    }
    let tagged = receipts.iter().filter_map(|(number, receipt)| {
        Some((tag_of(tx, receipt)?.outgoing.0, indexed(number.as_str())))
    });
    let (ids, numbers_of_ids): (Vec<i64>, Vec<String>) = tagged.unzip();
    let (numbers, wamids): (Vec<String>, Vec<String>) = receipts
        .iter()
        .map(|(number, receipt)| (indexed(number.as_str()), indexed(receipt.wamid.as_str())))
        .unzip();
    Some(TargetSlots(
        tx.queue(BY_TAG, parameters![ids, numbers_of_ids]),
        tx.queue(BY_WAMID, parameters![numbers, wamids]),
    ))
}

impl Targets {
    pub(super) fn read(answers: &mut super::tx::Answers, slots: Option<TargetSlots>) -> Self {
        let mut targets = Self::default();
        let Some(TargetSlots(by_tag, by_wamid)) = slots else {
            return targets;
        };
        for row in answers.take(by_tag) {
            targets.tagged.insert(OutgoingId(row.get(0)));
            targets.conversations.insert(row.get(1));
        }
        for row in answers.take(by_wamid) {
            targets
                .named
                .insert((row.get(0), row.get(1)), OutgoingId(row.get(2)));
            targets.conversations.insert(row.get(3));
        }
        targets
    }

    /// The conversations that have to be locked.
    pub(super) fn conversations(&self) -> impl Iterator<Item = i64> {
        self.conversations.iter().copied()
    }

    /// The outgoings that have to be read, once those are locked.
    pub(super) fn outgoings(&self) -> Vec<i64> {
        let all: BTreeSet<i64> = self
            .tagged
            .iter()
            .chain(self.named.values())
            .map(|id| id.0)
            .collect();
        all.into_iter().collect()
    }

    fn of(&self, tx: &Tx, one: &NewReceipt<'_>) -> Option<(OutgoingId, Option<Tag>)> {
        let tag = tag_of(tx, one.receipt).filter(|tag| self.tagged.contains(&tag.outgoing));
        let name = || {
            (
                indexed(one.number.as_str()),
                indexed(one.receipt.wamid.as_str()),
            )
        };
        tag.map(|tag| (tag.outgoing, Some(tag)))
            .or_else(|| Some((*self.named.get(&name())?, None)))
    }
}

/// A receipt and what it speaks of.
struct Placed<'a> {
    one: NewReceipt<'a>,
    reading: Reading,
    outgoing: Option<OutgoingId>,
}

const PARK: &str = "
    INSERT INTO wamid (number, wamid, at)
    SELECT DISTINCT number, wamid, now_ms()
      FROM unnest($1::text[], $2::text[]) AS n(number, wamid) ORDER BY number, wamid
    ON CONFLICT (number, wamid) DO UPDATE SET at = wamid.at
    RETURNING outgoing";

/// Merges new receipts into their outgoings and queues everything. The conversations are locked
/// and `book` was read under the locks. Answers each receipt's outgoing.
pub(super) async fn receive(
    tx: &mut Tx,
    mut book: Book,
    targets: &Targets,
    receipts: &[NewReceipt<'_>],
) -> Result<BTreeMap<EventKey, OutgoingId>, Fault> {
    if receipts.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut learnt = Learnt::default();
    let mut placed = place(tx, &book, targets, receipts, &mut learnt);
    if !guard::holds(Guard::ReceiptParking) {
        placed.retain(|placed| placed.outgoing.is_some());
    }
    let adopted = (!learnt.is_empty()).then(|| learnt.queue(tx));
    let parked = queue_parked(tx, &placed);
    if adopted.is_some() || parked.is_some() {
        let mut answers = tx.flush().await?;
        let claimed = parked.map(|slot| answers.take(slot)).unwrap_or_default();
        if claimed
            .iter()
            .any(|row| row.get::<_, Option<i64>>(0).is_some())
        {
            // The answer to the send came in between; now its conversation can be locked.
            return Err(Fault::Again("a wamid was claimed meanwhile".to_owned()));
        }
        merge(&mut book, tx.now(), &placed);
        let adopted = adopted.map(|slot| answers.take(slot)).unwrap_or_default();
        read_adopted(&mut book, tx.now(), &adopted);
    } else {
        merge(&mut book, tx.now(), &placed);
    }
    keep(tx, &mut placed);
    book.write(tx);
    let told = placed
        .iter()
        .filter_map(|placed| Some((placed.one.key, placed.outgoing?)));
    Ok(told.collect())
}

/// Finds the outgoing of each. A wamid that a tag explains is known for all of the batch.
fn place<'a>(
    tx: &Tx,
    book: &Book,
    targets: &Targets,
    receipts: &[NewReceipt<'a>],
    learnt: &mut Learnt,
) -> Vec<Placed<'a>> {
    let mut placed: Vec<Placed<'a>> = Vec::with_capacity(receipts.len());
    for one in receipts {
        let (outgoing, tag) = targets.of(tx, one).unzip();
        let attempt = tag.flatten().map(|tag| tag.attempt);
        if let Some(id) = outgoing
            && !book.is_known_as(id, &one.receipt.wamid)
        {
            let name = (
                indexed(one.number.as_str()),
                indexed(one.receipt.wamid.as_str()),
            );
            learnt.add(name.0, name.1, id);
        }
        placed.push(Placed {
            one: *one,
            reading: Reading::of(one.receipt, attempt),
            outgoing,
        });
    }
    for placed in placed.iter_mut().filter(|placed| placed.outgoing.is_none()) {
        let (number, wamid) = (
            placed.one.number.as_str(),
            placed.one.receipt.wamid.as_str(),
        );
        placed.outgoing = learnt.get(&indexed(number), &indexed(wamid));
    }
    placed
}

fn queue_parked(tx: &mut Tx, placed: &[Placed<'_>]) -> Option<Slot> {
    let parked = placed.iter().filter(|placed| placed.outgoing.is_none());
    let (numbers, wamids): (Vec<String>, Vec<String>) = parked
        .map(|placed| {
            let one = &placed.one;
            (
                indexed(one.number.as_str()),
                indexed(one.receipt.wamid.as_str()),
            )
        })
        .unzip();
    (!numbers.is_empty()).then(|| tx.queue(PARK, parameters![numbers, wamids]))
}

fn merge(book: &mut Book, now: Timestamp, placed: &[Placed<'_>]) {
    for placed in placed {
        if let Some(id) = placed.outgoing {
            book.read_receipt(now, id, &placed.one.receipt.wamid, &placed.reading);
        }
    }
}

const KEEP: &str = "
    INSERT INTO receipt (event, number, wamid, status, participant, at, received_at, outgoing,
                         attempt, code, retryable, raw)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int8[],
                         $7::int8[], $8::int8[], $9::int8[], $10::int8[], $11::bool[],
                         $12::text[])";

fn keep(tx: &mut Tx, placed: &mut [Placed<'_>]) {
    let text = |of: fn(&Receipt) -> &str| -> Vec<String> {
        placed
            .iter()
            .map(|placed| storable(of(placed.one.receipt)))
            .collect()
    };
    let parameters = parameters![
        placed
            .iter()
            .map(|p| Key::from(p.one.key))
            .collect::<Vec<_>>(),
        placed
            .iter()
            .map(|p| indexed(p.one.number.as_str()))
            .collect::<Vec<_>>(),
        placed
            .iter()
            .map(|p| indexed(p.one.receipt.wamid.as_str()))
            .collect::<Vec<_>>(),
        text(|receipt| receipt.status.as_str()),
        text(|receipt| receipt.participant.as_deref().unwrap_or_default()),
        placed
            .iter()
            .map(|p| p.one.receipt.at.map(|at| at.0))
            .collect::<Vec<_>>(),
        placed
            .iter()
            .map(|p| p.one.received_at.0)
            .collect::<Vec<_>>(),
        placed
            .iter()
            .map(|p| p.outgoing.map(|id| id.0))
            .collect::<Vec<_>>(),
        placed
            .iter()
            .map(|p| p.reading.attempt.map(i64::from))
            .collect::<Vec<_>>(),
        placed.iter().map(|p| p.reading.code).collect::<Vec<_>>(),
        placed
            .iter()
            .map(|p| p.reading.retryable)
            .collect::<Vec<_>>(),
        text(|receipt| &receipt.raw),
    ];
    tx.queue(KEEP, parameters);
}

// News of what is known ----------------------------------------------------------------------

const RAW: &str = "SELECT event, raw FROM receipt WHERE event = ANY($1)";
const ENRICH: &str = "
    UPDATE receipt r SET raw = n.raw FROM unnest($1::uuid[], $2::text[]) AS n(event, raw)
     WHERE r.event = n.event";

/// Queues the look at what is kept of repeated receipts: they may bring what the first lacked,
/// pricing or errors. Their events are locked.
pub(super) fn queue_raw(tx: &mut Tx, repeated: &[(EventKey, &Receipt)]) -> Option<Slot> {
    let keys: BTreeSet<Key> = repeated.iter().map(|(key, _)| Key::from(*key)).collect();
    let keys: Vec<Key> = keys.into_iter().collect();
    (!keys.is_empty()).then(|| tx.queue(RAW, parameters![keys]))
}

/// Queues what they add, to what is kept and to what came new in this batch, which is kept by now.
pub(super) fn queue_news(
    tx: &mut Tx,
    rows: &[Row],
    new: &[NewReceipt<'_>],
    repeated: &[(EventKey, &Receipt)],
) {
    let kept = rows
        .iter()
        .map(|row| (row.get::<_, Key>(0).into(), row.get(1)));
    let new = new.iter().map(|one| (one.key, one.receipt.raw.clone()));
    let kept: BTreeMap<EventKey, String> = kept.chain(new).collect();
    let mut changed: BTreeMap<EventKey, String> = BTreeMap::new();
    for (key, receipt) in repeated {
        let Some(before) = changed.get(key).or_else(|| kept.get(key)) else {
            continue;
        };
        if let Some(after) = enriched(before, &receipt.raw) {
            changed.insert(*key, after);
        }
    }
    if !changed.is_empty() {
        let keys: Vec<Key> = changed.keys().map(|key| Key::from(*key)).collect();
        let raws: Vec<String> = changed.into_values().map(|raw| storable(&raw)).collect();
        tx.queue(ENRICH, parameters![keys, raws]);
    }
}

/// `before` with the members of `news` merged in (RFC 7396), if that changes anything. What is
/// not JSON stays as it was.
fn enriched(before: &str, news: &str) -> Option<String> {
    if before == news {
        return None;
    }
    let mut merged: serde_json::Value = serde_json::from_str(before).ok()?;
    let original = merged.clone();
    merge_patch(&mut merged, serde_json::from_str(news).ok()?);
    (merged != original).then(|| merged.to_string())
}

fn merge_patch(target: &mut serde_json::Value, patch: serde_json::Value) {
    match (target, patch) {
        (serde_json::Value::Object(target), serde_json::Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    target.remove(&name);
                } else {
                    let member = target.entry(name).or_insert(serde_json::Value::Null);
                    merge_patch(member, value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_merged_member_by_member() {
        let before = r#"{"id":"w","pricing":{"billable":true}}"#;
        let news = r#"{"id":"w","pricing":{"category":"service"},"errors":[1]}"#;
        let merged = enriched(before, news).expect("something is new");
        let merged: serde_json::Value = serde_json::from_str(&merged).expect("JSON");
        let expected = serde_json::json!({
            "id": "w", "pricing": {"billable": true, "category": "service"}, "errors": [1]});
        assert_eq!(merged, expected);
        for (before, news) in [(before, before), (before, "no JSON"), ("no JSON", before)] {
            assert_eq!(enriched(before, news), None);
        }
    }
}
