//! What a bot gets of an event that is no message: a webhook body that holds it alone, made only
//! where somebody asks for it.

use serde_json::value::RawValue;

use super::envelope::{self, Envelope};
use super::sender::Contacts;
use super::{Account, Change};
use crate::whatsapp::json;

/// Which events beside messages a bot is to get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relays {
    /// What became of messages that were sent.
    pub statuses: bool,
    /// Everything that is neither a message nor a status.
    pub notices: bool,
}

impl Relays {
    /// Whether there are any.
    pub const fn any(self) -> bool {
        self.statuses || self.notices
    }
}

/// Where an event stood in its delivery.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// It is a whole entry.
    Entry,
    /// It is a whole change.
    Change,
    /// In this array of the change's value.
    In(&'a str),
    /// It is an object of members of the value.
    Members,
}

/// The body for a status, if it is asked for.
pub(super) fn of_status(change: &Change<'_>, raw: &RawValue) -> Option<String> {
    let is_asked = change.account.relays.statuses;
    is_asked.then(|| of_element(change, Place::In("statuses"), raw))
}

/// The body for a notice, if it is asked for.
pub(super) fn of_notice(
    account: &Account<'_>,
    change: Option<&Change<'_>>,
    place: Place<'_>,
    raw: &RawValue,
) -> Option<String> {
    let body = || match (place, change) {
        (Place::Entry, _) => envelope::around_entry(raw),
        (Place::In(_) | Place::Members, Some(change)) => of_element(change, place, raw),
        (Place::Change, _) | (Place::In(_) | Place::Members, None) => {
            envelope::around_change(account, raw)
        }
    };
    account.relays.notices.then(body)
}

fn of_element(change: &Change<'_>, place: Place<'_>, raw: &RawValue) -> String {
    let mut carried = String::new();
    let mut contact = None;
    if let Place::In(array) = place {
        // As with messages: what Meta has added since belongs to what it stands beside.
        if change.kind == "messages" && matches!(array, "messages" | "statuses") {
            carried = envelope::beside_messages(change);
        }
        let is_sole = |elements: Vec<&RawValue>| elements.len() == 1;
        let sole = change.value.array(array).is_some_and(is_sole);
        let element = json::object(raw).unwrap_or_default();
        let contacts = Contacts::of(&change.value);
        contact = contacts
            .of_element(&element, sole)
            .map(|contact| contact.raw);
    }
    if !envelope::can_be_carried(&carried) {
        carried.clear();
    }
    Envelope::of(change, &carried).around(contact, place, raw)
}
