//! An echoing bot: every text is answered once, with itself.

use super::{Breach, Report, place};
use crate::simulator::record::Record;

pub(super) fn check(record: &Record, report: &mut Report) {
    for (index, said) in record.messages.iter().enumerate() {
        if said.replies.is_empty() && said.answered.is_some() && said.text.is_some() {
            report.add(Breach::Missing, place(record, index));
        }
        for _ in said.replies.iter().skip(1) {
            report.add(Breach::Double, place(record, index));
        }
    }
}
