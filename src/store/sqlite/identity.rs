//! Who wrote: from the aliases in a payload to the one contact and conversation they mean.

use rusqlite::params;

use super::known::Owner;
use super::tx::Tx;
use crate::model::{AliasKind, Aliases, ContactId, ConversationId, NumberId};

/// Where a message belongs.
pub(super) struct Resolved {
    pub(super) conversation: ConversationId,
    /// Two contacts claim the aliases. The message goes to the one that its user id names; moving
    /// and merging contacts starts from here.
    pub(super) collision: bool,
}

/// Finds or makes the contact and its conversation, and links what arrived together.
pub(super) fn resolve(
    tx: &Tx<'_>,
    number: &NumberId,
    aliases: &Aliases,
) -> rusqlite::Result<Resolved> {
    let known = Known::look_up(tx, number, aliases)?;
    let owner = match known.owner(tx, number, aliases)? {
        Some(owner) => owner,
        None => create(tx, number, aliases)?,
    };
    let collision = link(tx, number, aliases, &known, owner)?;
    Ok(Resolved {
        conversation: owner.conversation,
        collision,
    })
}

/// Finds the conversation that a message from these aliases would come to, if there is one.
pub(super) fn find(
    tx: &Tx<'_>,
    number: &NumberId,
    aliases: &Aliases,
) -> rusqlite::Result<Option<ConversationId>> {
    let owner = Known::look_up(tx, number, aliases)?.owner(tx, number, aliases)?;
    Ok(owner.map(|owner| owner.conversation))
}

/// Links a number that a bot has dialled to the one that Meta took it for. Nobody writes from a
/// number that is not Meta's own word for them, so whom it named before was only ever dialled.
pub(super) fn link_dialled(
    tx: &Tx<'_>,
    number: &NumberId,
    dialled: &str,
    wa_id: &str,
) -> rusqlite::Result<()> {
    let known = |value| look_up(tx, number, AliasKind::Phone, value);
    let (from, to) = match (known(dialled)?, known(wa_id)?) {
        (_, Some(owner)) => (dialled, owner),
        (Some(owner), None) => (wa_id, owner),
        (None, None) => return Ok(()),
    };
    point(tx, number, (AliasKind::Phone, from), to)
}

/// Whom each alias of a payload names today.
struct Known(Vec<(AliasKind, Owner)>);

const LOOK_UP: &str = "
    SELECT contact, conversation FROM alias WHERE number = ?1 AND kind = ?2 AND value = ?3";

impl Known {
    fn look_up(tx: &Tx<'_>, number: &NumberId, aliases: &Aliases) -> rusqlite::Result<Self> {
        let mut known = Vec::with_capacity(3);
        for (kind, value) in aliases.iter() {
            let owner = match tx.known.get(number, kind, value) {
                Some(owner) => Some(owner),
                None => look_up(tx, number, kind, value)?,
            };
            known.extend(owner.map(|owner| (kind, owner)));
        }
        Ok(Self(known))
    }

    fn of(&self, kind: AliasKind) -> Option<Owner> {
        self.0
            .iter()
            .find(|(of, _)| *of == kind)
            .map(|(_, owner)| *owner)
    }

    /// A user id decides. A phone number decides only if it can't be a recycled one: its contact
    /// has no user id of its own, or the payload shows none.
    fn owner(
        &self,
        tx: &Tx<'_>,
        number: &NumberId,
        aliases: &Aliases,
    ) -> rusqlite::Result<Option<Owner>> {
        let named = [AliasKind::Group, AliasKind::Bsuid, AliasKind::Parent]
            .into_iter()
            .find_map(|kind| self.of(kind));
        if named.is_some() {
            return Ok(named);
        }
        match self.of(AliasKind::Phone) {
            Some(owner) if aliases.bsuid.is_none() || !has_bsuid(tx, number, owner.contact)? => {
                Ok(Some(owner))
            }
            _ => Ok(None),
        }
    }
}

fn look_up(
    tx: &Tx<'_>,
    number: &NumberId,
    kind: AliasKind,
    value: &str,
) -> rusqlite::Result<Option<Owner>> {
    let owner = tx.row(LOOK_UP, (number.as_str(), kind as u8, value), |row| {
        Ok(Owner {
            contact: ContactId(row.get(0)?),
            conversation: ConversationId(row.get(1)?),
        })
    })?;
    if let Some(owner) = owner {
        tx.known.set(number, kind, value, owner);
    }
    Ok(owner)
}

const HAS_BSUID: &str = "SELECT 1 FROM alias WHERE contact = ?1 AND number = ?2 AND kind = ?3";

fn has_bsuid(tx: &Tx<'_>, number: &NumberId, contact: ContactId) -> rusqlite::Result<bool> {
    let params = (contact.0, number.as_str(), AliasKind::Bsuid as u8);
    Ok(tx.row(HAS_BSUID, params, |_| Ok(()))?.is_some())
}

const CREATE_CONTACT: &str = "INSERT INTO contact (created_at) VALUES (?1)";
const CREATE_CONVERSATION: &str = "
    INSERT INTO conversation (number, contact, recipient) VALUES (?1, ?2, ?3)";

fn create(tx: &Tx<'_>, number: &NumberId, aliases: &Aliases) -> rusqlite::Result<Owner> {
    tx.execute(CREATE_CONTACT, [tx.now.0])?;
    let contact = ContactId(tx.conn.last_insert_rowid());
    let recipient = aliases
        .recipient()
        .map(|recipient| recipient.encode())
        .unwrap_or_default();
    tx.execute(
        CREATE_CONVERSATION,
        params![number.as_str(), contact.0, recipient],
    )?;
    Ok(Owner {
        contact,
        conversation: ConversationId(tx.conn.last_insert_rowid()),
    })
}

const LINK: &str = "
    INSERT INTO alias (number, kind, value, contact, conversation, since)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (number, kind, value) DO UPDATE SET contact = ?4, conversation = ?5, since = ?6";

/// From now on this alias names `owner`.
fn point(
    tx: &Tx<'_>,
    number: &NumberId,
    (kind, value): (AliasKind, &str),
    owner: Owner,
) -> rusqlite::Result<()> {
    let params = (
        number.as_str(),
        kind as u8,
        value,
        owner.contact.0,
        owner.conversation.0,
        tx.now.0,
    );
    tx.execute(LINK, params)?;
    tx.known.set(number, kind, value, owner);
    Ok(())
}

/// Links the payload's aliases to `owner`. An alias of another contact moves only where that one
/// is surely somebody else (a recycled phone number); otherwise both are the same person, which
/// only a merge can mend: answers `true`.
fn link(
    tx: &Tx<'_>,
    number: &NumberId,
    aliases: &Aliases,
    known: &Known,
    owner: Owner,
) -> rusqlite::Result<bool> {
    let mut collision = false;
    for (kind, value) in aliases.iter() {
        let moves = match known.of(kind) {
            Some(other) if other == owner => continue,
            None => true,
            Some(other) => {
                kind == AliasKind::Phone
                    && aliases.bsuid.is_some()
                    && has_bsuid(tx, number, other.contact)?
            }
        };
        if moves {
            point(tx, number, (kind, value), owner)?;
        } else {
            collision = true;
        }
    }
    Ok(collision)
}
