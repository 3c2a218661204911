//! Order, and one at a time: what a person wrote after their last message was taken comes after
//! it, at the bot and at the person.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Breach, Report, place};
use crate::simulator::record::{Asked, Mark, Record};
use crate::simulator::reference::Reference;

/// One message of a person: when it was posted and taken, and from when until when it had its
/// effect.
struct Step {
    message: usize,
    posted: Mark,
    answered: Option<Mark>,
    effect: Option<(Mark, Mark)>,
}

/// Replies come to a person in the order of what they answer.
pub(super) fn check_replies(record: &Record, report: &mut Report) {
    let spans = reply_spans(record, report);
    for (person, steps) in steps(record, |message| spans.get(&message).copied()) {
        for (earlier, later) in overtaking(&steps) {
            let words =
                format!("message {later} of person {person} was answered before message {earlier}");
            report.add(Breach::Order, words);
        }
    }
}

/// The bot is asked in order, and about one message of a conversation at a time; what it said to
/// a call that came to nothing does not count.
pub(super) fn check_calls(record: &Record, report: &mut Report) {
    let asked = calls_about(record);
    let span = |message: usize| {
        let calls = asked.get(&message)?;
        let answered = calls.iter().filter(|call| is_answer(call.status));
        Some((
            calls.first()?.began,
            answered.filter_map(|c| c.ended).min()?,
        ))
    };
    for (person, steps) in steps(record, span) {
        for (earlier, later) in overtaking(&steps) {
            let words = format!(
                "the bot was asked about message {later} of person {person} before it had \
                 answered message {earlier}"
            );
            report.add(Breach::Order, words);
        }
    }
    overlaps(record, report);
}

/// The calls about each message, in their order.
pub(super) fn calls_about(record: &Record) -> HashMap<usize, Vec<&Asked>> {
    let mut asked: HashMap<usize, Vec<&Asked>> = HashMap::new();
    for call in &record.calls {
        for index in call.wamids.iter().filter_map(|w| record.message_index(w)) {
            asked.entry(index).or_default().push(call);
        }
    }
    asked
}

/// Whether a status of the bot ends a turn: a reply, silence, or a refusal.
pub(super) const fn is_answer(status: Option<u16>) -> bool {
    matches!(status, Some(200..=299 | 400..=499))
}

/// From the first to the last part of the replies to each message, each part by its first
/// acceptance. Parts among themselves must be in order, too.
fn reply_spans(record: &Record, report: &mut Report) -> HashMap<usize, (Mark, Mark)> {
    let mut parts: HashMap<usize, BTreeMap<usize, Mark>> = HashMap::new();
    for sent in record.sends.iter().filter(|sent| sent.accepted) {
        let mut lines = sent.text().split('\n');
        for message in &sent.answers {
            let reference = lines.next().and_then(Reference::parse);
            let part = reference.map_or(1, |reference| reference.part);
            let known = parts.entry(*message).or_default();
            known.entry(part).or_insert(sent.at_order);
        }
    }
    let mut spans = HashMap::new();
    for (message, marks) in parts {
        let marks: Vec<Mark> = marks.into_values().collect();
        if !marks.is_sorted() {
            let words = format!("the replies to {} changed places", place(record, message));
            report.add(Breach::Order, words);
        }
        if let (Some(first), Some(last)) = (marks.iter().min(), marks.iter().max()) {
            spans.insert(message, (*first, *last));
        }
    }
    spans
}

fn steps(
    record: &Record,
    effect: impl Fn(usize) -> Option<(Mark, Mark)>,
) -> BTreeMap<usize, Vec<Step>> {
    let mut people: BTreeMap<usize, Vec<Step>> = BTreeMap::new();
    for (message, said) in record.messages.iter().enumerate() {
        people.entry(said.person).or_default().push(Step {
            message,
            posted: said.posted,
            answered: said.answered,
            effect: effect(message),
        });
    }
    people
}

/// Pairs (a, b) of one person's messages, at most one for each b: a was answered 200 before b
/// was first posted, and yet b's effect began before a's had ended.
///
/// One walk in the order of posting, beside one in the order of the answers, so that a long
/// conversation costs no more than sorting it.
fn overtaking(steps: &[Step]) -> Vec<(usize, usize)> {
    let mut answered: Vec<(Mark, (Mark, Mark), usize)> = steps
        .iter()
        .filter_map(|a| Some((a.answered?, a.effect?, a.message)))
        .collect();
    answered.sort_unstable();
    let mut before = answered.into_iter().peekable();
    let mut latest: Option<(Mark, Mark, usize)> = None;
    let mut found = Vec::new();
    for b in steps {
        while let Some((_, (began, ended), earlier)) = before.next_if(|(at, ..)| *at < b.posted) {
            latest = latest.max(Some((ended, began, earlier)));
        }
        // What began together was one turn.
        if let (Some((ended, together, earlier)), Some((began, _))) = (latest, b.effect)
            && began < ended
            && began != together
        {
            found.push((earlier, b.message));
        }
    }
    found
}

/// The calls whose answers took effect must not overlap within a conversation.
fn overlaps(record: &Record, report: &mut Report) {
    let effective: BTreeSet<Mark> = record
        .sends
        .iter()
        .filter(|sent| sent.accepted)
        .flat_map(|sent| sent.text().split('\n').filter_map(Reference::parse))
        .map(|reference| reference.call)
        .collect();
    let mut last: HashMap<&str, &Asked> = HashMap::new();
    for call in record.calls.iter().filter(|c| effective.contains(&c.began)) {
        let Some(ended) = call.ended else { continue };
        let before = last.get(call.conversation.as_str()).copied();
        if before
            .and_then(|before| before.ended)
            .is_some_and(|end| call.began < end)
        {
            let words = format!("the calls until {ended} of one conversation");
            report.add(Breach::Overlap, words);
        }
        last.insert(&call.conversation, call);
    }
}
