//! The locks on conversations. Whoever takes several takes them in one order, so that nobody waits
//! for somebody who waits for him.

use crate::guard::{self, Guard};

/// A statement that locks the conversations it selects.
pub(super) struct Lock {
    pub(super) by_id: &'static str,
    pub(super) reversed: &'static str,
}

/// The lock of what a statement selects, given without its order.
macro_rules! lock {
    ($select:literal) => {
        $crate::store::postgres::lock::Lock {
            by_id: concat!($select, " ORDER BY id FOR UPDATE"),
            reversed: concat!($select, " ORDER BY id DESC FOR UPDATE"),
        }
    };
}
pub(super) use lock;

impl Lock {
    pub(super) fn sql(&self) -> &'static str {
        if !guard::holds(Guard::LockOrder) && getrandom::u32().is_ok_and(|bits| bits % 2 == 1) {
            return self.reversed;
        }
        self.by_id
    }
}
