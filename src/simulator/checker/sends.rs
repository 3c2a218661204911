//! Sends and receipts: nothing goes out again on a guess, and what Meta has told of a message is
//! what the gateway knows of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::{Breach, Report, Said};
use crate::model::{OutgoingId, Tag};
use crate::simulator::accounts::{Accounts, DeadLetter, rank};
use crate::simulator::record::{Mark, Record, Sent, Told};

pub(super) fn check(record: &Record, accounts: &Accounts, said: Said, report: &mut Report) {
    let fates = Fates::of(record);
    let mut attempts: BTreeMap<i64, Vec<(u32, &Sent)>> = BTreeMap::new();
    for sent in &record.sends {
        match sent.tag.as_deref().and_then(Tag::parse) {
            Some(tag) => attempts
                .entry(tag.outgoing.0)
                .or_default()
                .push((tag.attempt, sent)),
            None => report.add(Breach::Unexpected, format!("no tag at {}", sent.at_order)),
        }
    }
    for sends in attempts.values() {
        again(sends, &fates, report);
    }
    let by_name: HashMap<String, &[(u32, &Sent)]> = attempts
        .iter()
        .map(|(id, sends)| (OutgoingId(*id).to_string(), sends.as_slice()))
        .collect();
    for name in by_name.keys() {
        if !accounts.outgoing.iter().any(|known| known.id == *name) {
            report.add(
                Breach::Receipt,
                format!("{name} was sent, and is not known"),
            );
        }
    }
    known(accounts, &by_name, &fates, report);
    let doubts = Doubts::of(record, accounts, said);
    dead(accounts, &by_name, &fates, &doubts, report);
}

/// Meta's words for "later": they end no message.
const LATER: [i64; 4] = [4, 80_007, 130_429, 131_056];
/// What is broken may leave its mark on a send from so long before to so long after.
const AROUND: Duration = Duration::from_millis(1500);

/// When a send may have been left in doubt.
struct Doubts<'a> {
    disturbed: &'a [(Duration, Duration)],
    /// When the bot first had said something in a turn, at the earliest.
    said: HashMap<&'a str, Duration>,
    attempts: HashMap<&'a str, u32>,
}

impl<'a> Doubts<'a> {
    fn of(record: &'a Record, accounts: &'a Accounts, when: Said) -> Self {
        let mut said = HashMap::new();
        for call in &record.calls {
            let at = match (when, call.status) {
                (Said::InAnswers, Some(200)) => call.ended_at,
                (Said::InAnswers, _) => None,
                (Said::DuringCalls, _) => Some(call.began_at),
            };
            if let Some(at) = at {
                said.entry(call.turn.as_str()).or_insert(at);
            }
        }
        let outgoing = accounts.outgoing.iter();
        Self {
            disturbed: &accounts.disturbed,
            said,
            attempts: outgoing.map(|o| (o.id.as_str(), o.attempt)).collect(),
        }
    }

    /// Whether anything explains that nobody knows what became of a send: Meta's own manners; or
    /// something that was broken around it, or at least after the bot had said it.
    fn explain(&self, letter: &DeadLetter, sends: &[(u32, &Sent)]) -> bool {
        let name = letter.outgoing.as_deref().unwrap_or_default();
        if self.attempts.get(name) == Some(&0) {
            return false;
        }
        match sends.last() {
            Some((_, sent)) if !sent.is_clear => true,
            Some((_, sent)) => self
                .disturbed
                .iter()
                .any(|(from, until)| sent.at + AROUND >= *from && sent.at <= *until + AROUND),
            None => {
                let said = self.said.get(letter.turn.as_str());
                let after = |at: &Duration| self.disturbed.iter().any(|(_, end)| end >= at);
                said.is_some_and(after)
            }
        }
    }
}

/// What Meta has told of each message, over all members of a group.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    /// The highest rank that a delivery answered 200 has told.
    rank: u8,
    /// The same, of those that name the send themselves. The others say nothing to who has never
    /// heard the id that Meta gave.
    rank_tagged: u8,
    /// A `failed` of the whole message was posted first at this mark.
    failed: Option<Mark>,
    /// It was told, to whoever listened, that the person has it.
    arrived: bool,
    /// And was answered 200.
    failure_told: bool,
}

impl Fate {
    /// Whether Meta has told that it failed, and never that it arrived.
    fn was_called_failed(&self) -> bool {
        self.failure_told && self.rank < rank("delivered")
    }
}

/// The fates of all messages, by their ids.
pub(super) struct Fates(HashMap<String, Fate>);

impl Fates {
    pub(super) fn of(record: &Record) -> Self {
        let mut fates: HashMap<String, Fate> = HashMap::new();
        for (key, told) in &record.statuses {
            let fate = fates.entry(key.wamid.clone()).or_default();
            let Told {
                posted,
                answered,
                is_tagged,
                ..
            } = *told;
            fate.arrived |= rank(&key.status) >= rank("delivered");
            if key.status == "failed" {
                if key.participant.is_none() {
                    fate.failed = Some(posted);
                    fate.failure_told = answered.is_some();
                }
            } else if answered.is_some() {
                let rank = rank(&key.status);
                fate.rank = fate.rank.max(rank);
                fate.rank_tagged = fate.rank_tagged.max(if is_tagged { rank } else { 0 });
            }
        }
        Self(fates)
    }

    fn get(&self, sent: &Sent) -> Fate {
        let wamid = sent.wamid.as_deref().unwrap_or_default();
        self.0.get(wamid).copied().unwrap_or_default()
    }

    /// Whether Meta has told, before this mark, that it never brought it to the person.
    pub(super) fn has_failed_before(&self, sent: &Sent, mark: Mark) -> bool {
        self.has_failed(sent) && self.get(sent).failed.is_some_and(|at| at < mark)
    }

    /// Whether Meta took it and never brought it to the person.
    pub(super) fn has_failed(&self, sent: &Sent) -> bool {
        let fate = self.get(sent);
        fate.failed.is_some() && !fate.arrived
    }
}

/// Another attempt needs proof that the one before came to nothing.
fn again(sends: &[(u32, &Sent)], fates: &Fates, report: &mut Report) {
    for pair in sends.windows(2) {
        let ((before, first), (attempt, second)) = (pair[0], pair[1]);
        let failed = fates.get(first).failed;
        let came_to_nothing =
            first.refused.is_some() || failed.is_some_and(|at| at < second.at_order);
        if before == attempt || !came_to_nothing {
            let words = format!(
                "attempt {attempt} at {} after attempt {before} at {}",
                second.at_order, first.at_order
            );
            report.add(Breach::DoubleSend, words);
        }
    }
}

/// What the gateway says of its sends is at least what it was told of them.
fn known(
    accounts: &Accounts,
    by_name: &HashMap<String, &[(u32, &Sent)]>,
    fates: &Fates,
    report: &mut Report,
) {
    for outgoing in &accounts.outgoing {
        let sends = by_name.get(&outgoing.id).copied().unwrap_or_default();
        let (name, said) = (&outgoing.id, &outgoing.rank);
        if outgoing.is_open() {
            let words = format!("{name} still is {}", outgoing.state);
            report.add(Breach::Unsettled, words);
            continue;
        }
        let told: Vec<Fate> = sends.iter().map(|(_, sent)| fates.get(sent)).collect();
        let is_sent = outgoing.state == "sent";
        let heard = |fate: &Fate| if is_sent { fate.rank } else { fate.rank_tagged };
        let rank_told = told.iter().map(heard).max().unwrap_or(0);
        let failure_told = told.iter().any(|fate| fate.failure_told);
        let arrived = rank_told >= rank("delivered");
        let never_sent = !sends.iter().any(|(_, sent)| sent.accepted);
        let failed = !told.is_empty() && told.iter().all(Fate::was_called_failed);
        let mut add = |words: String| report.add(Breach::Receipt, format!("{name} {words}"));
        if rank(said) < rank_told {
            add(format!("is said to be {said}, Meta told rank {rank_told}"));
        }
        if is_sent && never_sent {
            add("is said to be sent, and never was".to_owned());
        }
        if is_sent && failed {
            add("is said to be sent, Meta told it had failed".to_owned());
        }
        if !is_sent && (arrived || rank_told > 0 && !failure_told) {
            add("is said to be dead, Meta told it had gone out".to_owned());
        }
    }
}

fn dead(
    accounts: &Accounts,
    by_name: &HashMap<String, &[(u32, &Sent)]>,
    fates: &Fates,
    doubts: &Doubts<'_>,
    report: &mut Report,
) {
    let sent: HashSet<&str> = accounts
        .outgoing
        .iter()
        .filter(|outgoing| outgoing.state == "sent")
        .map(|outgoing| outgoing.id.as_str())
        .collect();
    for letter in accounts.dead_letters.iter().filter(|l| !l.is_turn()) {
        let name = letter.outgoing.as_deref().unwrap_or_default();
        let sends = by_name.get(name).copied().unwrap_or_default();
        if sent.contains(name) {
            let words = format!("{name} is sent, and its dead letter is still open");
            report.add(Breach::Receipt, words);
        }
        if letter.is_unsure() {
            report.unsure += 1;
            if !doubts.explain(letter, sends) {
                let words = format!("{name} is said to be unsure, and nothing explains it");
                report.add(Breach::Missing, words);
            }
            continue;
        }
        report.dead_sends += 1;
        let is_borne_out = |(_, sent): &(u32, &Sent)| {
            let is_final = sent.refused.is_some_and(|code| !LATER.contains(&code));
            is_final || fates.get(sent).failed.is_some()
        };
        if !sends.last().is_some_and(is_borne_out) {
            let words = format!("{name} is a dead letter, and Meta refused nothing for good");
            report.add(Breach::Missing, words);
        }
    }
}
