//! The tables, and how a database of an older version gets them.
//!
//! Forward only: a schema that a newer Hapax has migrated is refused. Safe when many processes
//! start at once: each takes a lock before it looks, and who finds nothing to do takes none.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::super::StoreError;
use super::fault::describe;
use crate::clock::Clock;
use crate::model::StoreId;

/// One migration each, in order; the schema version is the count of those applied. Applied to a
/// database that older processes may still be using: they add, and never take away.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/0001_ledger.sql"),
    include_str!("schema/0002_threads.sql"),
    include_str!("schema/0003_bot_sends.sql"),
    include_str!("schema/0004_relay.sql"),
];

/// The schema version of this binary.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// Ids count up from the store's birth in seconds, times this: a store that is deleted and made
/// anew does not give out the ids of the old one, which bots may have kept.
const IDS_PER_SECOND: i64 = 1 << 20;
const ID_EPOCH_SECONDS: i64 = 1_735_689_600; // 2025-01-01

/// Brings the schema to [`VERSION`].
///
/// # Errors
/// [`StoreError::Newer`], or [`StoreError::Open`] with what the server says.
pub(super) async fn migrate(
    client: &Client,
    schema: &str,
    clock: &Clock,
) -> Result<(), StoreError> {
    match version(client, schema).await? {
        found if found > VERSION => Err(newer(found)),
        VERSION => Ok(()),
        _ => {
            let migrated = migrate_locked(client, schema, clock).await;
            if migrated.is_err() {
                // The connection is closed next, which undoes it as well.
                let _ = client.batch_execute("ROLLBACK").await;
            }
            migrated
        }
    }
}

const fn newer(found: u32) -> StoreError {
    StoreError::Newer {
        found,
        known: VERSION,
    }
}

// The tables are asked, not `to_regclass`: that answers from the connection's memory, which may be
// older than what others committed while this one waited for the lock.
const HAS_VERSION: &str = "
    SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_tables
                    WHERE schemaname = $1 AND tablename = 'schema_version')";
const HAS_SCHEMA: &str = "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1)";

async fn is_there(client: &Client, question: &str, schema: &str) -> Result<bool, StoreError> {
    let answer = client.query_typed(question, &[(&schema, Type::TEXT)]).await;
    let answer = answer.map_err(opening)?;
    Ok(answer.first().is_some_and(|row| row.get(0)))
}

/// The version found; 0 where there is no ledger yet.
async fn version(client: &Client, schema: &str) -> Result<u32, StoreError> {
    if !is_there(client, HAS_VERSION, schema).await? {
        return Ok(0);
    }
    let version = format!("SELECT max(version) FROM \"{schema}\".schema_version");
    let said = client.simple_query(&version).await;
    Ok(number(&said.map_err(opening)?).unwrap_or(0))
}

fn number<N: std::str::FromStr>(said: &[SimpleQueryMessage]) -> Option<N> {
    said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    })
}

async fn migrate_locked(client: &Client, schema: &str, clock: &Clock) -> Result<(), StoreError> {
    // Waits for whoever migrates now; the lock ends with the transaction.
    let begin = format!(
        "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('hapax migrate {schema}', 0))"
    );
    client.batch_execute(&begin).await.map_err(opening)?;
    let found = version(client, schema).await?;
    if found > VERSION {
        return Err(newer(found));
    }
    if found == 0 {
        make_schema(client, schema).await?;
    }
    let path = format!("SET LOCAL search_path = \"{schema}\"");
    client.batch_execute(&path).await.map_err(opening)?;
    for (migration, version) in MIGRATIONS.iter().zip(1..).skip(found as usize) {
        let whole = format!("{migration}; INSERT INTO schema_version (version) VALUES ({version})");
        client.batch_execute(&whole).await.map_err(opening)?;
    }
    if found == 0 {
        give_birth(client, clock).await?;
    }
    client.batch_execute("COMMIT").await.map_err(opening)
}

async fn make_schema(client: &Client, schema: &str) -> Result<(), StoreError> {
    // Asked first: to create one needs a right that a schema which is there makes needless.
    if !is_there(client, HAS_SCHEMA, schema).await? {
        let create = format!("CREATE SCHEMA \"{schema}\"");
        client.batch_execute(&create).await.map_err(opening)?;
    }
    let table = format!(
        "CREATE TABLE \"{schema}\".schema_version (
             version    int         PRIMARY KEY,
             applied_at timestamptz NOT NULL DEFAULT now())"
    );
    client.batch_execute(&table).await.map_err(opening)
}

/// Drops the schema with everything in it, if it is there. `limits` are what a transaction sets.
pub(super) async fn drop_whole(
    client: &Client,
    schema: &str,
    limits: &str,
) -> Result<(), StoreError> {
    let whole = format!("BEGIN; {limits}; DROP SCHEMA IF EXISTS \"{schema}\" CASCADE; COMMIT");
    client.batch_execute(&whole).await.map_err(opening)
}

const BIRTH: &str = "
    INSERT INTO ledger (one, store_id, healthy_ms, healthy_at, timeline, born_at)
    VALUES (1, $1, 0, $2, $3, $2)";
const START_IDS: &str = "
    SELECT setval('contact_id', $1 + 1), setval('conversation_id', $1 + 1),
           setval('outgoing_id', $1 + 1)";

async fn give_birth(client: &Client, clock: &Clock) -> Result<(), StoreError> {
    let now = match clock.by_hand() {
        Some(now) => now.0,
        None => {
            let asked = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
            number(&client.simple_query(asked).await.map_err(opening)?).unwrap_or(0)
        }
    };
    let mut id = [0; 4];
    // Without randomness the birth time has to do: the id only has to differ between stores.
    if getrandom::fill(&mut id).is_err() {
        id = (now as u32).to_le_bytes();
    }
    let id = i64::from(u32::from_le_bytes(id));
    // Where the server doesn't tell its timeline, nobody will look.
    let timeline = timeline_in(client, true).await.unwrap_or(0);
    let birth: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] = [
        (&id, Type::INT8),
        (&now, Type::INT8),
        (&timeline, Type::INT8),
    ];
    client.query_typed(BIRTH, &birth).await.map_err(opening)?;
    let base = (now / 1000 - ID_EPOCH_SECONDS).max(0) * IDS_PER_SECOND;
    let start = client.query_typed(START_IDS, &[(&base, Type::INT8)]).await;
    start.map(drop).map_err(opening)
}

const TIMELINE: &str = "
    SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint";

/// The server's timeline, if it tells: some managed services don't.
pub(super) async fn timeline(client: &Client) -> Option<i64> {
    timeline_in(client, false).await
}

/// Inside a transaction a failed look would spoil it.
async fn timeline_in(client: &Client, in_transaction: bool) -> Option<i64> {
    if !in_transaction {
        return number(&client.simple_query(TIMELINE).await.ok()?);
    }
    client.batch_execute("SAVEPOINT timeline").await.ok()?;
    let found = client.simple_query(TIMELINE).await;
    if found.is_err() {
        client.batch_execute("ROLLBACK TO timeline").await.ok()?;
    }
    number(&found.ok()?)
}

/// The store's name, given at its birth.
pub(super) async fn store_id(client: &Client, schema: &str) -> Result<StoreId, StoreError> {
    let said = client
        .simple_query(&format!("SELECT store_id FROM \"{schema}\".ledger"))
        .await;
    let id: Option<i64> = number(&said.map_err(opening)?);
    let id = id.and_then(|id| u32::try_from(id).ok());
    id.map(StoreId)
        .ok_or_else(|| StoreError::Open("the ledger has no birth row".to_owned()))
}

/// Whether commits wait for a standby.
pub(super) async fn has_synchronous_standby(client: &Client) -> Result<bool, StoreError> {
    let said = client
        .simple_query("SHOW synchronous_standby_names")
        .await
        .map_err(opening)?;
    let names: Option<String> = number(&said);
    Ok(names.is_some_and(|names| !names.trim().is_empty()))
}

pub(super) fn opening(error: tokio_postgres::Error) -> StoreError {
    StoreError::Open(describe(&error))
}
