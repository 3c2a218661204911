//! The guards that keep the ledger's promises, each of which a build for rehearsals can switch off.
//!
//! Without the cargo feature `sabotage` every guard holds, and the compiler knows it. With it,
//! guards that `HAPAX_SABOTAGE` names don't: then a rehearsal must find the promise broken, or it
//! would find nothing else either. The variable is read once for the process and never changes.

/// The environment variable that names the guards to switch off, separated by commas.
pub const VARIABLE: &str = "HAPAX_SABOTAGE";

/// Something without which a promise breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// An event's key is stored once, in the transaction that stores the event. Prevents that a
    /// redelivered message is handled again. Off: each arrival is taken as new.
    UniqueKey,
    /// The end of a turn is written under its lease or not at all. Prevents that a process that
    /// was paused ends a turn that somebody else runs by now. Off: an old lease's end is taken.
    EpochCheck,
    /// What is being sent is marked on disk before Meta is called. Prevents that what a crash has
    /// interrupted goes out twice. Off: it is due again as if it had never been marked.
    OutboxMark,
    /// The end of a turn makes the conversation due while more is pending. Prevents that a message
    /// which came meanwhile waits for the next one. Off: it does.
    ReReady,
    /// Meta gets its 200 after the commit. Prevents that a crash loses what was acknowledged. Off:
    /// the 200 goes first and the transaction follows, whatever becomes of it.
    CommitBeforeOk,
    /// A receipt that comes before it is known whose it is waits for that. Prevents that what it
    /// shows is lost. Off: it is counted as seen, and forgotten.
    ReceiptParking,
    /// Conversations are locked in the order of their ids. Prevents that two transactions wait for
    /// each other. Off: every second time, on average, it is the other way round.
    LockOrder,
    /// A claim reads the messages after it has the lock. Prevents that a turn consists of what was
    /// there before: of messages that are done, or of none. Off: they are read before.
    TwoStepClaim,
    /// What a bot asks to send is held against what its turn has sent. Prevents that a bot which is
    /// tried again says everything again. Off: what has no key of its own goes out each time.
    SendRecord,
}

/// What keeps the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// One file, one writer.
    Sqlite,
    /// Many transactions at once.
    Postgres,
}

impl Guard {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::UniqueKey,
        Self::EpochCheck,
        Self::OutboxMark,
        Self::ReReady,
        Self::CommitBeforeOk,
        Self::ReceiptParking,
        Self::LockOrder,
        Self::TwoStepClaim,
        Self::SendRecord,
    ];

    /// The name by which [`VARIABLE`] speaks of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UniqueKey => "unique-key",
            Self::EpochCheck => "epoch-check",
            Self::OutboxMark => "outbox-mark",
            Self::ReReady => "re-ready",
            Self::CommitBeforeOk => "commit-before-200",
            Self::ReceiptParking => "receipt-parking",
            Self::LockOrder => "lock-order",
            Self::TwoStepClaim => "two-step-claim",
            Self::SendRecord => "send-record",
        }
    }

    /// Whether an engine has it. Where one transaction runs at a time, nobody can lock out anybody
    /// and nothing can change between a look and its lock: there it does nothing to switch it off.
    pub const fn applies_to(self, engine: Engine) -> bool {
        match self {
            Self::UniqueKey
            | Self::EpochCheck
            | Self::OutboxMark
            | Self::ReReady
            | Self::CommitBeforeOk
            | Self::ReceiptParking
            | Self::SendRecord => true,
            Self::LockOrder | Self::TwoStepClaim => matches!(engine, Engine::Postgres),
        }
    }
}

/// Whether a guard holds. In a build without the feature `sabotage` all do, always.
#[cfg(not(feature = "sabotage"))]
#[inline]
#[must_use]
pub const fn holds(_: Guard) -> bool {
    true
}

/// Whether a guard holds: all do that [`VARIABLE`] does not name.
#[cfg(feature = "sabotage")]
#[must_use]
pub fn holds(guard: Guard) -> bool {
    !switched_off().is_ok_and(|off| off.contains(&guard))
}

/// The guards that don't hold in this process: none in a build without the feature `sabotage`.
///
/// # Errors
/// [`VARIABLE`] names a guard that there is not: all hold.
#[cfg(not(feature = "sabotage"))]
pub const fn switched_off() -> Result<&'static [Guard], &'static UnknownGuard> {
    Ok(&[])
}

/// The guards that don't hold in this process.
///
/// # Errors
/// [`VARIABLE`] names a guard that there is not: all hold.
#[cfg(feature = "sabotage")]
pub fn switched_off() -> Result<&'static [Guard], &'static UnknownGuard> {
    use std::sync::OnceLock;
    static OFF: OnceLock<Result<Vec<Guard>, UnknownGuard>> = OnceLock::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "no setting: it must not be possible to set it in a file"
    )]
    let off = OFF.get_or_init(|| parse(&std::env::var(VARIABLE).unwrap_or_default()));
    off.as_deref()
}

/// [`VARIABLE`] names a guard that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}: there is no guard {0}; there are {all}", all = names(&Guard::ALL))]
pub struct UnknownGuard(pub String);

/// Names of guards in one line.
#[must_use]
pub fn names(guards: &[Guard]) -> String {
    let names: Vec<&str> = guards.iter().map(|guard| guard.as_str()).collect();
    names.join(", ")
}

#[cfg(any(test, feature = "sabotage"))]
fn parse(text: &str) -> Result<Vec<Guard>, UnknownGuard> {
    let named = text.split(',').map(str::trim);
    named
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut all = Guard::ALL.into_iter();
            let found = all.find(|guard| guard.as_str() == name);
            found.ok_or_else(|| UnknownGuard(name.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_read_by_their_names() {
        for guard in Guard::ALL {
            assert_eq!(parse(guard.as_str()), Ok(vec![guard]));
        }
        assert_eq!(parse(" "), Ok(Vec::new()));
        let two = vec![Guard::ReReady, Guard::UniqueKey];
        assert_eq!(parse("re-ready, unique-key"), Ok(two));
        let unknown = parse("re-ready,none").expect_err("there is no such guard");
        assert!(unknown.to_string().contains("no guard none"), "{unknown}");
    }

    #[test]
    fn a_guard_has_one_engine_at_least() {
        let applies = |guard: &Guard| guard.applies_to(Engine::Postgres);
        assert!(Guard::ALL.iter().all(applies));
        assert!(!Guard::LockOrder.applies_to(Engine::Sqlite));
    }

    #[test]
    fn every_guard_holds_unless_told_otherwise() {
        assert!(Guard::ALL.into_iter().all(holds));
    }
}
