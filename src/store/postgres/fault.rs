//! What PostgreSQL's errors mean: try again, not now, this one never, or nobody knows.

use tokio_postgres::error::SqlState;

use super::super::StoreError;

/// Why a transaction did not happen, or may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It collided with another one and was undone; the same again may go through.
    Again(String),
    /// It and another one waited for each other, and the server undid this one. The same again may
    /// go through.
    Deadlock(String),
    /// The server can't be reached or can't take it now.
    Unavailable(String),
    /// The server refuses what is to be stored. In a batch: perhaps one operation's alone.
    Refused(String),
    /// The commit was sent, and nobody knows what came of it.
    Lost,
    /// The node that asks has no row.
    DeadNode,
}

impl Fault {
    /// Whether the connection can be used again after a rollback.
    pub(super) const fn leaves_connection(&self) -> bool {
        match self {
            Self::Again(_) | Self::Deadlock(_) | Self::Refused(_) | Self::DeadNode => true,
            Self::Unavailable(_) | Self::Lost => false,
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Again(reason) | Fault::Deadlock(reason) | Fault::Unavailable(reason) => {
                Self::Unavailable(reason)
            }
            Fault::Refused(reason) => Self::Refused(reason),
            Fault::Lost => Self::Lost,
            // Who asks for a node knows which, and says so instead.
            Fault::DeadNode => Self::Unavailable("the node has been declared dead".to_owned()),
        }
    }
}

/// What an error before the commit means.
pub(super) fn classify(error: &tokio_postgres::Error) -> Fault {
    let Some(code) = error.code() else {
        return Fault::Unavailable(describe(error));
    };
    let reason = describe(error);
    match code.code().get(..2).unwrap_or_default() {
        "40" if *code == SqlState::T_R_DEADLOCK_DETECTED => Fault::Deadlock(reason),
        "40" => Fault::Again(reason),
        // Data that doesn't fit, a broken rule, a value too long for an index.
        "22" | "23" | "54" => Fault::Refused(reason),
        // A plan that a migration has made out of date.
        "0A" if *code == SqlState::FEATURE_NOT_SUPPORTED => Fault::Again(reason),
        // Missing tables or rights: waiting for a person, not for a retry; but the data is not
        // at fault, and what was not stored will be delivered again.
        _ => Fault::Unavailable(reason),
    }
}

/// Whether an answer to COMMIT says for certain that nothing was committed.
pub(super) fn refuses_commit(error: &tokio_postgres::Error) -> bool {
    let class = |code: &SqlState| code.code().get(..2).map(str::to_owned);
    matches!(error.code().and_then(class).as_deref(), Some("23" | "40"))
}

/// The error in words. Never carries a stored value, which the server's detail and context may.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        let cause = std::error::Error::source(error);
        return match cause {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
    };
    let code = db.code().code();
    let message = match code.get(..2) {
        // These name the value itself.
        Some("22") => "data that can't be stored",
        _ => db.message(),
    };
    match (db.table(), db.constraint()) {
        (_, Some(constraint)) => format!("{message} (SQLSTATE {code}, {constraint})"),
        (Some(table), None) => format!("{message} (SQLSTATE {code}, table {table})"),
        (None, None) => format!("{message} (SQLSTATE {code})"),
    }
}
