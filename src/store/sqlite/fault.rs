//! What SQLite's errors mean: the caller's fault, a neighbour's lock, or the end of the store.

use rusqlite::ErrorCode;

use super::super::StoreError;

/// A transaction that SQLite has rolled back by itself.
pub(super) fn lost_transaction() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK),
        Some("the transaction was rolled back by SQLite".into()),
    )
}

/// Whether the disk, not the request, is at fault: then nobody knows what it holds.
pub(super) fn is_fatal(error: &rusqlite::Error) -> bool {
    let Some(code) = error.sqlite_error_code() else {
        return false;
    };
    matches!(
        code,
        ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::OperationAborted
    )
}

/// The error in words. Never carries a stored value.
pub(super) fn describe(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(failure) => format!("{failure} (SQLite code {})", failure.extended_code),
        None => "an error of the SQLite binding".to_owned(),
    }
}

/// What an error of a single transaction means to its caller.
pub(super) fn classify(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Unavailable("another process holds the file's write lock".into())
        }
        Some(_) if is_fatal(error) => StoreError::Fatal(describe(error).into()),
        _ => StoreError::Refused(describe(error)),
    }
}

/// What an error while opening means: a full or broken disk is no fault of the settings.
pub(super) fn classify_open(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => {
            StoreError::Fatal(describe(error).into())
        }
        _ => StoreError::Open(describe(error)),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn opened(code: i32) -> StoreError {
        classify_open(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn a_full_disk_is_told_from_a_wrong_path() {
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_FSYNC] {
            assert!(matches!(opened(code), StoreError::Fatal(_)), "{code}");
        }
        for code in [ffi::SQLITE_CANTOPEN, ffi::SQLITE_NOTADB] {
            assert!(matches!(opened(code), StoreError::Open(_)), "{code}");
        }
    }
}
