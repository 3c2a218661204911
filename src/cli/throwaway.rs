//! Names for schemas that are made for one run and destroyed after it.

use crate::store::postgres::THROWAWAY_PREFIXES;

/// What a schema is made for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Bench,
    Rehearsal,
}

/// A name that no other run has.
pub(super) fn schema(purpose: Purpose) -> Result<String, String> {
    let [bench, rehearsal] = THROWAWAY_PREFIXES;
    let prefix = match purpose {
        Purpose::Bench => bench,
        Purpose::Rehearsal => rehearsal,
    };
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(format!("{prefix}{}", hex::encode(bytes)))
}
