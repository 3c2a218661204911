//! x
use super::tally::Tally;
pub(super) fn page(_tally: &Tally, _store: &str, _nodes: usize) -> String {
    String::new()
}
