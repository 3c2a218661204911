//! A bot whose calls are on the record: whatever it decided has its effect once, and what has
//! none has a dead letter.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::order::is_answer;
use super::sends::Fates;
use super::{Breach, Report, place};
use crate::simulator::accounts::Accounts;
use crate::simulator::record::{Asked, Mark, Record, Sent};
use crate::simulator::reference::Reference;

pub(super) fn check(record: &Record, accounts: &Accounts, report: &mut Report) {
    calls(record, report);
    let fates = Fates::of(record);
    let mut asked: HashMap<usize, Vec<&Asked>> = HashMap::new();
    for call in &record.calls {
        for index in call.wamids.iter().filter_map(|w| record.message_index(w)) {
            asked.entry(index).or_default().push(call);
        }
    }
    let mut effects: HashMap<usize, Effects<'_>> = HashMap::new();
    for sent in record.sends.iter().filter(|sent| sent.accepted) {
        let references = sent.text().split('\n').filter_map(Reference::parse);
        for (message, reference) in sent.answers.iter().zip(references) {
            let effects = effects.entry(*message).or_default();
            effects.calls.insert(reference.call);
            effects.parts.entry(reference.part).or_default().push(sent);
        }
    }
    let dead = Dead::of(accounts);
    for message in 0..record.messages.len() {
        let effects = effects.remove(&message).unwrap_or_default();
        let asked = asked.get(&message).map_or(&[][..], Vec::as_slice);
        once(record, message, &effects, &fates, report);
        if record.messages[message].answered.is_some() {
            some_effect(record, message, (asked, &effects), (&fates, &dead), report);
        }
    }
}

/// What came of one message, as the person sees it.
#[derive(Default)]
struct Effects<'a> {
    calls: BTreeSet<Mark>,
    parts: BTreeMap<usize, Vec<&'a Sent>>,
}

/// Dead letters by turn.
struct Dead<'a> {
    turns: BTreeSet<&'a str>,
    sends: HashMap<&'a str, usize>,
}

impl<'a> Dead<'a> {
    fn of(accounts: &'a Accounts) -> Self {
        let mut sends: HashMap<&str, usize> = HashMap::new();
        let letters = accounts.dead_letters.iter();
        for letter in letters.clone().filter(|letter| !letter.is_turn()) {
            *sends.entry(&letter.turn).or_default() += 1;
        }
        let turns = letters.filter(|letter| letter.is_turn());
        Self {
            turns: turns.map(|letter| letter.turn.as_str()).collect(),
            sends,
        }
    }
}

/// No two answers to one message, and none of them twice.
fn once(
    record: &Record,
    message: usize,
    effects: &Effects<'_>,
    fates: &Fates,
    report: &mut Report,
) {
    if effects.calls.len() > 1 {
        let words = format!(
            "{} calls about {}",
            effects.calls.len(),
            place(record, message)
        );
        return report.add(Breach::Double, words);
    }
    for (part, sends) in &effects.parts {
        let arrived = sends.iter().filter(|sent| !fates.has_failed(sent)).count();
        if arrived > 1 {
            let words = format!(
                "reply {part} to {} came {arrived} times",
                place(record, message)
            );
            report.add(Breach::Double, words);
        }
    }
}

/// What was answered 200 has an effect, or a dead letter that the wire bears out.
fn some_effect(
    record: &Record,
    message: usize,
    (asked, effects): (&[&Asked], &Effects<'_>),
    (fates, dead): (&Fates, &Dead<'_>),
    report: &mut Report,
) {
    let place = || place(record, message);
    let is_dead_turn = || {
        asked
            .iter()
            .any(|call| dead.turns.contains(call.turn.as_str()))
    };
    let Some(answer) = asked.iter().rev().find(|call| is_answer(call.status)) else {
        let words = match (asked.is_empty(), is_dead_turn()) {
            (true, _) => format!("the bot was never asked about {}", place()),
            (false, true) => format!("{} was given up without an answer of the bot", place()),
            (false, false) => format!("the bot never got to answer {}", place()),
        };
        return report.add(Breach::Missing, words);
    };
    match answer.status {
        Some(400..=499) if is_dead_turn() => report.dead_turns += 1,
        Some(400..=499) => {
            let words = format!("the bot refused {}, and no dead letter says so", place());
            report.add(Breach::Missing, words);
        }
        _ => {
            let arrived = effects.parts.values();
            let arrived = arrived.filter(|sends| sends.iter().any(|s| !fates.has_failed(s)));
            let lacking = answer.replies.saturating_sub(arrived.count());
            let told = dead.sends.get(answer.turn.as_str()).copied().unwrap_or(0);
            if lacking > told {
                let words = format!("{lacking} replies to {}, {told} dead letters", place());
                report.add(Breach::Missing, words);
            }
        }
    }
}

/// What is wrong with the calls themselves.
fn calls(record: &Record, report: &mut Report) {
    let mut sets: HashMap<&str, &[String]> = HashMap::new();
    let mut turns: HashMap<&str, &str> = HashMap::new();
    let mut people: HashMap<usize, &str> = HashMap::new();
    let mut conversations: HashMap<&str, usize> = HashMap::new();
    for call in &record.calls {
        let at = call.began;
        if !call.is_signed {
            report.add(Breach::Unsigned, format!("the call at {at}"));
        }
        if *sets.entry(&call.turn).or_insert(&call.wamids) != call.wamids {
            report.add(Breach::Changed, format!("the turn of the call at {at}"));
        }
        for wamid in &call.wamids {
            let Some(message) = record.message_index(wamid) else {
                let words = format!("the call at {at} is about what must not be answered");
                report.add(Breach::Unexpected, words);
                continue;
            };
            if *turns.entry(wamid).or_insert(&call.turn) != call.turn {
                report.add(Breach::Changed, format!("the message of the call at {at}"));
            }
            let person = record.messages[message].person;
            let conversation = *people.entry(person).or_insert(&call.conversation);
            let owner = *conversations.entry(&call.conversation).or_insert(person);
            if conversation != call.conversation || owner != person {
                report.add(
                    Breach::Split,
                    format!("person {person} in the call at {at}"),
                );
            }
        }
    }
}
