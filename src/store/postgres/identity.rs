//! Who wrote: from the aliases in payloads to the contacts and conversations they mean.
//!
//! People who are known need only a look. Whoever makes or links contacts first takes a lock
//! that there is once, and looks again: what one decides depends on what another links.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;

use super::fault::Fault;
use super::parameter::{indexed, parameters, storable};
use super::tx::{Slot, Tx};
use crate::model::{AliasKind, Aliases, ContactId, ConversationId, NumberId};

/// Whom an alias names. Aliases are scoped to a number, so a contact has one conversation there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    contact: ContactId,
    pub(super) conversation: ConversationId,
}

/// Where a message belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolved {
    pub(super) conversation: ConversationId,
    /// Two contacts claim the aliases. The message goes to the one that its user id names.
    pub(super) collision: bool,
}

/// An alias as it stands in the ledger.
type AliasKey = (String, i16, String);

fn alias_key(number: &NumberId, kind: AliasKind, value: &str) -> AliasKey {
    (indexed(number.as_str()), kind as i16, indexed(value))
}

/// Who is known among the senders of a batch, and what has to be made and linked.
#[derive(Default)]
pub(super) struct People {
    owners: BTreeMap<AliasKey, Owner>,
    with_bsuid: BTreeSet<(String, ContactId)>,
    /// Ids for those who have to be made.
    fresh: Vec<Owner>,
    made: Vec<(Owner, String, String)>,
    linked: BTreeMap<AliasKey, Owner>,
    /// How many have to be made that no id was left for.
    wanted: usize,
}

const LOOK_UP: &str = "
    SELECT a.number, a.kind, a.value, a.contact, a.conversation,
           EXISTS (SELECT 1 FROM alias b
                    WHERE b.contact = a.contact AND b.number = a.number AND b.kind = 1)
      FROM unnest($1::text[], $2::int2[], $3::text[]) AS n(number, kind, value)
      JOIN alias a ON a.number = n.number AND a.kind = n.kind AND a.value = n.value";
const LOCK_IDENTITY: &str = "SELECT identity FROM ledger FOR UPDATE";
const NEW_IDS: &str = "
    SELECT nextval('contact_id'), nextval('conversation_id') FROM generate_series(1, $1)";

/// Queues the look at all aliases.
pub(super) fn queue_look_up<'a>(
    tx: &mut Tx,
    senders: impl Iterator<Item = (&'a NumberId, &'a Aliases)>,
) -> Slot {
    let mut keys = BTreeSet::new();
    for (number, aliases) in senders {
        keys.extend(
            aliases
                .iter()
                .map(|(kind, value)| alias_key(number, kind, value)),
        );
    }
    let numbers = keys
        .iter()
        .map(|(number, _, _)| number.clone())
        .collect::<Vec<_>>();
    let kinds = keys.iter().map(|(_, kind, _)| *kind).collect::<Vec<_>>();
    let values = keys
        .into_iter()
        .map(|(_, _, value)| value)
        .collect::<Vec<_>>();
    tx.queue(LOOK_UP, parameters![numbers, kinds, values])
}

/// The conversation that a message from these aliases would come to, if there is one. `known` are
/// the rows of the look at them.
pub(super) fn find(number: &NumberId, aliases: &Aliases, known: &[Row]) -> Option<ConversationId> {
    let owner = People::read(known).owner(number, aliases)?;
    Some(owner.conversation)
}

/// Resolves every sender, in order. Makes and links what has to be, and queues it.
pub(super) async fn resolve(
    tx: &mut Tx,
    senders: &[(&NumberId, &Aliases)],
    known: &[Row],
) -> Result<Vec<Resolved>, Fault> {
    let mut people = People::read(known);
    let resolved = people.resolve_all(senders);
    if people.changes_nothing() {
        return Ok(resolved);
    }
    tx.queue(LOCK_IDENTITY, Vec::new());
    let known = queue_look_up(tx, senders.iter().copied());
    let ids = tx.queue(
        NEW_IDS,
        parameters![i32::try_from(senders.len()).unwrap_or(i32::MAX)],
    );
    let mut answers = tx.flush().await?;
    let mut people = People::read(&answers.take(known));
    people.fresh = answers.take(ids).iter().map(read_fresh).collect();
    let resolved = people.resolve_all(senders);
    people.write(tx);
    Ok(resolved)
}

/// Links a number that a bot has dialled to the one that Meta took it for. Nobody writes from a
/// number that is not Meta's own word for them, so whom it named before was only ever dialled.
pub(super) async fn link_dialled(
    tx: &mut Tx,
    number: &NumberId,
    dialled: &str,
    wa_id: &str,
) -> Result<(), Fault> {
    let by_phone = |phone: &str| Aliases {
        phone: Some(phone.to_owned()),
        ..Aliases::default()
    };
    let (dialled, wa_id) = (by_phone(dialled), by_phone(wa_id));
    tx.queue(LOCK_IDENTITY, Vec::new());
    let known = queue_look_up(tx, [(number, &dialled), (number, &wa_id)].into_iter());
    let mut people = People::read(&tx.flush().await?.take(known));
    let owner = |of: &Aliases| people.of(number, of, AliasKind::Phone);
    let (linked, owner) = match (owner(&dialled), owner(&wa_id)) {
        (_, Some(owner)) => (&dialled, owner),
        (Some(owner), None) => (&wa_id, owner),
        (None, None) => return Ok(()),
    };
    for (kind, value) in linked.iter() {
        people.linked.insert(alias_key(number, kind, value), owner);
    }
    people.write(tx);
    Ok(())
}

fn read_fresh(row: &Row) -> Owner {
    Owner {
        contact: ContactId(row.get(0)),
        conversation: ConversationId(row.get(1)),
    }
}

impl People {
    fn read(rows: &[Row]) -> Self {
        let mut people = Self::default();
        for row in rows {
            let owner = Owner {
                contact: ContactId(row.get(3)),
                conversation: ConversationId(row.get(4)),
            };
            let number: String = row.get(0);
            if row.get(5) {
                people.with_bsuid.insert((number.clone(), owner.contact));
            }
            people
                .owners
                .insert((number, row.get(1), row.get(2)), owner);
        }
        people
    }

    fn resolve_all(&mut self, senders: &[(&NumberId, &Aliases)]) -> Vec<Resolved> {
        senders
            .iter()
            .map(|(number, aliases)| self.resolve(number, aliases))
            .collect()
    }

    fn changes_nothing(&self) -> bool {
        self.wanted == 0 && self.made.is_empty() && self.linked.is_empty()
    }

    fn of(&self, number: &NumberId, aliases: &Aliases, kind: AliasKind) -> Option<Owner> {
        let (_, value) = aliases.iter().find(|(of, _)| *of == kind)?;
        self.owners.get(&alias_key(number, kind, value)).copied()
    }

    fn has_bsuid(&self, number: &NumberId, contact: ContactId) -> bool {
        self.with_bsuid
            .contains(&(indexed(number.as_str()), contact))
    }

    fn resolve(&mut self, number: &NumberId, aliases: &Aliases) -> Resolved {
        let owner = match self.owner(number, aliases) {
            Some(owner) => owner,
            None => self.make(number, aliases),
        };
        let collision = self.link(number, aliases, owner);
        Resolved {
            conversation: owner.conversation,
            collision,
        }
    }

    /// A user id decides. A phone number decides only if it can't be a recycled one: its contact
    /// has no user id of its own, or the payload shows none.
    fn owner(&self, number: &NumberId, aliases: &Aliases) -> Option<Owner> {
        let named = [AliasKind::Group, AliasKind::Bsuid, AliasKind::Parent]
            .into_iter()
            .find_map(|kind| self.of(number, aliases, kind));
        named.or_else(|| {
            let by_phone = self.of(number, aliases, AliasKind::Phone)?;
            let may_be = aliases.bsuid.is_none() || !self.has_bsuid(number, by_phone.contact);
            may_be.then_some(by_phone)
        })
    }

    fn make(&mut self, number: &NumberId, aliases: &Aliases) -> Owner {
        let Some(owner) = self.fresh.pop() else {
            self.wanted += 1;
            // Stands for somebody new until there are ids; nothing of this round is written.
            let stand_in = -i64::try_from(self.wanted).unwrap_or(i64::MAX);
            return Owner {
                contact: ContactId(stand_in),
                conversation: ConversationId(stand_in),
            };
        };
        let recipient = aliases.recipient().map(|recipient| recipient.encode());
        let recipient = storable(&recipient.unwrap_or_default());
        self.made.push((owner, indexed(number.as_str()), recipient));
        owner
    }

    /// Links the payload's aliases to `owner`. An alias of another contact moves only where that
    /// one is surely somebody else (a recycled phone number); otherwise both are the same person,
    /// which only a merge can mend: answers `true`.
    fn link(&mut self, number: &NumberId, aliases: &Aliases, owner: Owner) -> bool {
        let mut collision = false;
        for (kind, value) in aliases.iter() {
            let key = alias_key(number, kind, value);
            let moves = match self.owners.get(&key) {
                Some(other) if *other == owner => continue,
                None => true,
                Some(other) => {
                    kind == AliasKind::Phone
                        && aliases.bsuid.is_some()
                        && self.has_bsuid(number, other.contact)
                }
            };
            if !moves {
                collision = true;
                continue;
            }
            if kind == AliasKind::Bsuid {
                self.with_bsuid.insert((key.0.clone(), owner.contact));
            }
            self.owners.insert(key.clone(), owner);
            self.linked.insert(key, owner);
        }
        collision
    }

    fn write(self, tx: &mut Tx) {
        if !self.linked.is_empty() {
            let linked = &self.linked;
            let parameters = parameters![
                linked
                    .keys()
                    .map(|(number, _, _)| number.clone())
                    .collect::<Vec<_>>(),
                linked.keys().map(|(_, kind, _)| *kind).collect::<Vec<_>>(),
                linked
                    .keys()
                    .map(|(_, _, value)| value.clone())
                    .collect::<Vec<_>>(),
                linked
                    .values()
                    .map(|owner| owner.contact.0)
                    .collect::<Vec<_>>(),
                linked
                    .values()
                    .map(|owner| owner.conversation.0)
                    .collect::<Vec<_>>(),
            ];
            tx.queue(LINK, parameters);
        }
        if self.made.is_empty() {
            return;
        }
        let contacts: Vec<i64> = self
            .made
            .iter()
            .map(|(owner, _, _)| owner.contact.0)
            .collect();
        tx.queue(MAKE_CONTACTS, parameters![contacts.clone()]);
        let parameters = parameters![
            self.made
                .iter()
                .map(|(owner, _, _)| owner.conversation.0)
                .collect::<Vec<_>>(),
            self.made
                .iter()
                .map(|(_, number, _)| number.clone())
                .collect::<Vec<_>>(),
            contacts,
            self.made
                .iter()
                .map(|(_, _, recipient)| recipient.clone())
                .collect::<Vec<_>>(),
        ];
        tx.queue(MAKE_CONVERSATIONS, parameters);
    }
}

const LINK: &str = "
    INSERT INTO alias (number, kind, value, contact, conversation, since)
    SELECT number, kind, value, contact, conversation, now_ms()
      FROM unnest($1::text[], $2::int2[], $3::text[], $4::int8[], $5::int8[])
           AS n(number, kind, value, contact, conversation)
     ORDER BY number, kind, value
    ON CONFLICT (number, kind, value)
    DO UPDATE SET contact = excluded.contact, conversation = excluded.conversation,
                  since = excluded.since";
const MAKE_CONTACTS: &str = "
    INSERT INTO contact (id, created_at) SELECT id, now_ms() FROM unnest($1::int8[]) AS n(id)";
const MAKE_CONVERSATIONS: &str = "
    INSERT INTO conversation (id, number, contact, recipient)
    SELECT * FROM unnest($1::int8[], $2::text[], $3::int8[], $4::text[])";
