//! How a database is used.

use std::time::Duration;

use super::Address;

/// A process that is frozen inside a transaction holds its locks for so long.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// How a database is used.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// Where it is.
    pub address: Address,
    /// The schema that holds every table; lower-case letters, digits and `_`.
    pub schema: String,
    /// Connections of this process at most; one more is kept for the lease, one for wake-ups.
    pub connections: usize,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a statement may run on the server.
    pub statement_timeout: Duration,
    /// How long a statement waits for a lock.
    pub lock_timeout: Duration,
    /// Whether a pooler in transaction mode stands between: then nothing is prepared and nobody
    /// is woken by another process, who looks every second instead.
    pub pooled: bool,
    /// Whether several hosts are taken though no standby is synchronous: a failover may then
    /// lose what was acknowledged.
    pub allows_async_failover: bool,
    /// Deliveries that may wait before [`Store::append`](crate::store::Store::append) answers
    /// [`StoreError::Behind`](crate::store::StoreError::Behind).
    pub queue_max: usize,
}

impl PostgresSettings {
    /// What every transaction sets for itself. Each statement looks up a few rows by their keys:
    /// whatever the statistics of a young or quickly changing table suggest, to join whole
    /// tables or to compile the plan takes longer than all of that.
    pub(super) fn session(&self) -> String {
        format!(
            "SET LOCAL search_path = \"{}\"; SET LOCAL statement_timeout = {}; \
             SET LOCAL lock_timeout = {}; SET LOCAL jit = off; \
             SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
             SET LOCAL idle_in_transaction_session_timeout = {}",
            self.schema,
            self.statement_timeout.as_millis(),
            self.lock_timeout.as_millis(),
            self.statement_timeout.min(IDLE_MAX).as_millis(),
        )
    }
}
