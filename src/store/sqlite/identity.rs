//! Who wrote: from the aliases in a payload to the one contact and conversation they mean.

use rusqlite::params;

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
    let contact = match known.contact(tx, number, aliases)? {
        Some(contact) => contact,
        None => create_contact(tx)?,
    };
    let collision = link(tx, number, aliases, &known, contact)?;
    Ok(Resolved {
        conversation: conversation(tx, number, aliases, contact)?,
        collision,
    })
}

/// Which contact each alias of a payload names today.
struct Known(Vec<(AliasKind, ContactId)>);

const LOOK_UP: &str = "SELECT contact FROM alias WHERE number = ?1 AND kind = ?2 AND value = ?3";

impl Known {
    fn look_up(tx: &Tx<'_>, number: &NumberId, aliases: &Aliases) -> rusqlite::Result<Self> {
        let mut known = Vec::with_capacity(3);
        for (kind, value) in aliases.iter() {
            let found = tx.row(LOOK_UP, (number.as_str(), kind as u8, value), |row| {
                row.get(0)
            })?;
            known.extend(found.map(|contact| (kind, ContactId(contact))));
        }
        Ok(Self(known))
    }

    fn of(&self, kind: AliasKind) -> Option<ContactId> {
        self.0
            .iter()
            .find(|(of, _)| *of == kind)
            .map(|(_, contact)| *contact)
    }

    /// A user id decides. A phone number decides only if it can't be a recycled one: its contact
    /// has no user id of its own, or the payload shows none.
    fn contact(
        &self,
        tx: &Tx<'_>,
        number: &NumberId,
        aliases: &Aliases,
    ) -> rusqlite::Result<Option<ContactId>> {
        let named = [AliasKind::Group, AliasKind::Bsuid, AliasKind::Parent]
            .into_iter()
            .find_map(|kind| self.of(kind));
        if named.is_some() {
            return Ok(named);
        }
        match self.of(AliasKind::Phone) {
            Some(contact) if aliases.bsuid.is_none() || !has_bsuid(tx, number, contact)? => {
                Ok(Some(contact))
            }
            _ => Ok(None),
        }
    }
}

const HAS_BSUID: &str = "SELECT 1 FROM alias WHERE contact = ?1 AND number = ?2 AND kind = ?3";

fn has_bsuid(tx: &Tx<'_>, number: &NumberId, contact: ContactId) -> rusqlite::Result<bool> {
    let params = (contact.0, number.as_str(), AliasKind::Bsuid as u8);
    Ok(tx.row(HAS_BSUID, params, |_| Ok(()))?.is_some())
}

const CREATE_CONTACT: &str = "INSERT INTO contact (created_at) VALUES (?1)";

fn create_contact(tx: &Tx<'_>) -> rusqlite::Result<ContactId> {
    tx.execute(CREATE_CONTACT, [tx.now.0])?;
    Ok(ContactId(tx.conn.last_insert_rowid()))
}

const LINK: &str = "
    INSERT INTO alias (number, kind, value, contact, since) VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (number, kind, value) DO UPDATE SET contact = ?4, since = ?5";

/// Links the payload's aliases to `contact`. An alias of another contact moves only where that
/// one is surely somebody else (a recycled phone number); otherwise both are the same person,
/// which only a merge can mend: answers `true`.
fn link(
    tx: &Tx<'_>,
    number: &NumberId,
    aliases: &Aliases,
    known: &Known,
    contact: ContactId,
) -> rusqlite::Result<bool> {
    let mut collision = false;
    for (kind, value) in aliases.iter() {
        let moves = match known.of(kind) {
            Some(owner) if owner == contact => continue,
            None => true,
            Some(owner) => {
                kind == AliasKind::Phone && aliases.bsuid.is_some() && has_bsuid(tx, number, owner)?
            }
        };
        if moves {
            tx.execute(
                LINK,
                (number.as_str(), kind as u8, value, contact.0, tx.now.0),
            )?;
        } else {
            collision = true;
        }
    }
    Ok(collision)
}

const FIND_CONVERSATION: &str = "
    SELECT id, merged_into FROM conversation WHERE number = ?1 AND contact = ?2";
const FIND_SURVIVOR: &str = "SELECT id, merged_into FROM conversation WHERE id = ?1";
const CREATE_CONVERSATION: &str = "
    INSERT INTO conversation (number, contact, recipient) VALUES (?1, ?2, ?3)";

fn conversation(
    tx: &Tx<'_>,
    number: &NumberId,
    aliases: &Aliases,
    contact: ContactId,
) -> rusqlite::Result<ConversationId> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let mut found: Option<(i64, Option<i64>)> =
        tx.row(FIND_CONVERSATION, (number.as_str(), contact.0), read)?;
    while let Some((_, Some(survivor))) = found {
        found = tx.row(FIND_SURVIVOR, [survivor], read)?;
    }
    if let Some((id, None)) = found {
        return Ok(ConversationId(id));
    }
    let recipient = aliases
        .recipient()
        .map(|recipient| recipient.encode())
        .unwrap_or_default();
    tx.execute(
        CREATE_CONVERSATION,
        params![number.as_str(), contact.0, recipient],
    )?;
    Ok(ConversationId(tx.conn.last_insert_rowid()))
}
