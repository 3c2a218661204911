//! What happened when, for the pictures: taken from the record, in seconds since the run began.

use std::collections::HashMap;
use std::time::Duration;

use crate::simulator::record::Record;

/// One run as it went.
#[derive(Debug, Clone, Default)]
pub(super) struct Timeline {
    /// When the run began, as time since boot.
    pub(super) began: Duration,
    /// Each POST: when, and whether it was answered 200.
    pub(super) posts: Vec<(f64, bool)>,
    /// Each accepted reply: when.
    pub(super) replies: Vec<f64>,
    /// Each message that was replied to: when it was first posted, and how long it took.
    pub(super) waits: Vec<(f64, f64)>,
}

impl Timeline {
    pub(super) fn of(record: &Record, began: Duration) -> Self {
        let at = |time: Duration| time.saturating_sub(began).as_secs_f64();
        let mut first: HashMap<usize, Duration> = HashMap::new();
        for sent in record.sends.iter().filter(|sent| sent.accepted) {
            for message in &sent.answers {
                first.entry(*message).or_insert(sent.at);
            }
        }
        let messages = record.messages.iter().enumerate();
        Self {
            began,
            posts: record
                .posted
                .iter()
                .map(|posted| (at(posted.began_at), posted.status == Some(200)))
                .collect(),
            replies: record
                .sends
                .iter()
                .filter(|sent| sent.accepted)
                .map(|sent| at(sent.at))
                .collect(),
            waits: messages
                .filter_map(|(index, said)| {
                    let replied = *first.get(&index)?;
                    let wait = replied.saturating_sub(said.posted_at).as_secs_f64();
                    Some((at(said.posted_at), wait))
                })
                .collect(),
        }
    }
}
