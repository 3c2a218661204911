//! Names for schemas that are made for one run and destroyed after it.

use crate::store::postgres::THROWAWAY_PREFIX;

/// A name that no other run has.
pub(super) fn schema() -> Result<String, String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(format!("{THROWAWAY_PREFIX}{}", hex::encode(bytes)))
}
