//! The tables, and how a file of an older version gets them.
//!
//! Forward only: a file that a newer Hapax has migrated is refused. Safe when several processes
//! open the same file at once: each takes the write lock before it looks.

use rusqlite::{Connection, TransactionBehavior, params};

use super::super::StoreError;
use super::fault::classify_open;
use crate::model::{StoreId, Timestamp};

/// One migration each, in order; the schema version is the count of those applied.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/0001_ledger.sql"),
    include_str!("schema/0002_retention.sql"),
    include_str!("schema/0003_threads.sql"),
    include_str!("schema/0004_bot_sends.sql"),
    include_str!("schema/0005_relay.sql"),
];

/// The schema version of this binary.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// Ids count up from the store's birth in seconds, times this: a store that is deleted and made
/// anew does not give out the ids of the old one, which bots may have kept.
const IDS_PER_SECOND: i64 = 1 << 20;
const ID_EPOCH_SECONDS: i64 = 1_735_689_600; // 2025-01-01

/// Brings the file to [`VERSION`].
pub(super) fn migrate(conn: &mut Connection, now: Timestamp) -> Result<(), StoreError> {
    let tx = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|error| classify_open(&error))?;
    let found: u32 = tx
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|error| classify_open(&error))?;
    if found > VERSION {
        return Err(StoreError::Newer {
            found,
            known: VERSION,
        });
    }
    for migration in &MIGRATIONS[found as usize..] {
        tx.execute_batch(migration)
            .map_err(|error| classify_open(&error))?;
    }
    if found == 0 {
        give_birth(&tx, now).map_err(|error| classify_open(&error))?;
    }
    tx.pragma_update(None, "user_version", VERSION)
        .map_err(|error| classify_open(&error))?;
    tx.commit().map_err(|error| classify_open(&error))
}

fn give_birth(conn: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    let mut id = [0; 4];
    // Without randomness the birth time has to do: the id only has to differ between stores.
    if getrandom::fill(&mut id).is_err() {
        id = (now.0 as u32).to_le_bytes();
    }
    let id = i64::from(u32::from_le_bytes(id));
    conn.execute(
        "INSERT INTO ledger (one, store_id, healthy_ms, healthy_at, born_at)
         VALUES (1, ?1, 0, ?2, ?2)",
        params![id, now.0],
    )?;
    let base = (now.as_seconds() - ID_EPOCH_SECONDS).max(0) * IDS_PER_SECOND;
    for table in ["contact", "conversation", "outgoing"] {
        conn.execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)",
            (table, base),
        )?;
    }
    Ok(())
}

/// The store's name, given at its birth.
pub(super) fn store_id(conn: &Connection) -> rusqlite::Result<StoreId> {
    let id: i64 = conn.query_row("SELECT store_id FROM ledger", [], |row| row.get(0))?;
    Ok(StoreId(u32::try_from(id).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_an_older_version_gets_what_came_later_and_keeps_its_rows() {
        let mut conn = Connection::open_in_memory().expect("memory");
        conn.execute_batch(MIGRATIONS[0]).expect("the first schema");
        give_birth(&conn, Timestamp(1_800_000_000_000)).expect("born");
        conn.execute_batch(
            "PRAGMA user_version = 1;
             INSERT INTO event VALUES (x'00000000000000000000000000000007', 3, 1, 5, 5, 1, NULL);",
        )
        .expect("an event of that time");
        let id = store_id(&conn).expect("born");
        migrate(&mut conn, Timestamp(1_900_000_000_000)).expect("migrated");
        assert_eq!(store_id(&conn).expect("still"), id);
        let age = "SELECT coalesce(kept_at, first_at) FROM event INDEXED BY event_age
                    WHERE is_full = 1";
        let first_at: i64 = conn.query_row(age, [], |row| row.get(0)).expect("kept");
        assert_eq!(first_at, 5);
    }

    #[test]
    fn a_newer_file_is_refused_and_an_old_one_is_not_migrated_twice() {
        let mut conn = Connection::open_in_memory().expect("memory");
        migrate(&mut conn, Timestamp(1_800_000_000_000)).expect("first");
        let id = store_id(&conn).expect("born");
        migrate(&mut conn, Timestamp(1_900_000_000_000)).expect("again");
        assert_eq!(store_id(&conn).expect("still"), id);
        conn.pragma_update(None, "user_version", VERSION + 1)
            .expect("pragma");
        assert_eq!(
            migrate(&mut conn, Timestamp(0)),
            Err(StoreError::Newer {
                found: VERSION + 1,
                known: VERSION
            })
        );
    }
}
