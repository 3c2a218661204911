//! Whom an alias names, remembered between transactions: people who write come back.
//!
//! Right as long as nobody else writes: it is emptied when another process has committed, and
//! after a transaction that was undone.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use rusqlite::Connection;

use crate::model::{AliasKind, ContactId, ConversationId, NumberId};

/// Whom an alias names. Aliases are scoped to a number, so a contact has one conversation there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) contact: ContactId,
    pub(super) conversation: ConversationId,
}

/// Aliases remembered at most; then all are forgotten, which costs one look-up each.
const ALIASES_MAX: usize = 65_536;

type OfNumber = HashMap<(AliasKind, Box<str>), Owner>;

/// The memory of one writer.
#[derive(Default)]
pub(super) struct KnownAliases {
    owners: RefCell<HashMap<NumberId, OfNumber>>,
    count: Cell<usize>,
    version: Cell<i64>,
}

impl KnownAliases {
    /// To be called at the start of each transaction.
    pub(super) fn check(&self, conn: &Connection) {
        // Changes when another connection, of this process or another, has committed; ours only
        // reads.
        let version = conn
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .unwrap_or(-1);
        if version == -1 || self.version.replace(version) != version {
            self.forget();
        }
    }

    pub(super) fn forget(&self) {
        self.owners.borrow_mut().clear();
        self.count.set(0);
    }

    pub(super) fn get(&self, number: &NumberId, kind: AliasKind, value: &str) -> Option<Owner> {
        let owners = self.owners.borrow();
        // A key that borrows would need a wrapper type; one short allocation is cheaper to read.
        owners.get(number)?.get(&(kind, value.into())).copied()
    }

    pub(super) fn set(&self, number: &NumberId, kind: AliasKind, value: &str, owner: Owner) {
        if self.count.get() >= ALIASES_MAX {
            self.forget();
        }
        let mut owners = self.owners.borrow_mut();
        let of_number = owners.entry(number.clone()).or_default();
        if of_number.insert((kind, value.into()), owner).is_none() {
            self.count.set(self.count.get() + 1);
        }
    }
}
