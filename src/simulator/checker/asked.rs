//! A bot whose calls are on the record: whatever it decided has its effect once, and what has
//! none has a dead letter.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::order::{calls_about, is_answer};
use super::sends::Fates;
use super::{Breach, Report, Said, place};
use crate::model::Tag;
use crate::simulator::accounts::{Accounts, DeadLetter};
use crate::simulator::record::{Asked, Mark, Record, Sent};
use crate::simulator::reference::Reference;

pub(super) fn check(record: &Record, accounts: &Accounts, said: Said, report: &mut Report) {
    calls(record, report);
    let fates = Fates::of(record);
    let asked = calls_about(record);
    let mut effects: HashMap<usize, Effects<'_>> = HashMap::new();
    for sent in record.sends.iter().filter(|sent| sent.accepted) {
        let references = sent.text().split('\n').filter_map(Reference::parse);
        for (message, reference) in sent.answers.iter().zip(references) {
            let effects = effects.entry(*message).or_default();
            effects.calls.insert(reference.call);
            effects.parts.entry(reference.part).or_default().push(sent);
        }
    }
    let dead = Dead::of(record, accounts, &fates);
    given_up(record, accounts, report);
    for message in 0..record.messages.len() {
        let effects = effects.remove(&message).unwrap_or_default();
        let asked = asked.get(&message).map_or(&[][..], Vec::as_slice);
        match said {
            Said::InAnswers if effects.calls.len() > 1 => {
                two_answers(record, message, &effects, report);
            }
            Said::InAnswers | Said::DuringCalls => once(record, message, &effects, &fates, report),
        }
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
    /// Which replies have one, by their part where it is known: who was refused several times has
    /// lost one thing.
    sends: HashMap<&'a str, BTreeSet<Lost>>,
}

/// A reply that has a dead letter.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Lost {
    Part(usize),
    Send(String),
}

impl<'a> Dead<'a> {
    /// A letter of a send that arrived all the same makes up for nothing else.
    fn of(record: &Record, accounts: &'a Accounts, fates: &Fates) -> Self {
        let arrived: BTreeSet<String> = record
            .sends
            .iter()
            .filter(|sent| sent.accepted && !fates.has_failed(sent))
            .filter_map(|sent| Tag::parse(sent.tag.as_deref()?))
            .map(|tag| tag.outgoing.to_string())
            .collect();
        let has_arrived = |letter: &DeadLetter| {
            let name = letter.outgoing.as_ref();
            name.is_some_and(|name| arrived.contains(name))
        };
        let parts: HashMap<String, usize> = record
            .sends
            .iter()
            .filter_map(|sent| {
                let tag = Tag::parse(sent.tag.as_deref()?)?;
                let reference = Reference::parse(sent.text().split('\n').next()?)?;
                Some((tag.outgoing.to_string(), reference.part))
            })
            .collect();
        let lost = |letter: &DeadLetter| {
            let name = letter.outgoing.clone().unwrap_or_default();
            let part = parts.get(&name).copied();
            part.map_or(Lost::Send(name), Lost::Part)
        };
        let mut sends: HashMap<&str, BTreeSet<Lost>> = HashMap::new();
        let letters = accounts.dead_letters.iter();
        for letter in letters.clone().filter(|letter| !letter.is_turn()) {
            if !has_arrived(letter) {
                sends.entry(&letter.turn).or_default().insert(lost(letter));
            }
        }
        let turns = letters.filter(|letter| letter.is_turn());
        Self {
            turns: turns.map(|letter| letter.turn.as_str()).collect(),
            sends,
        }
    }
}

/// A turn is given up where the bot has refused it, and nowhere else.
fn given_up(record: &Record, accounts: &Accounts, report: &mut Report) {
    let refused: BTreeSet<&str> = record
        .calls
        .iter()
        .filter(|call| matches!(call.status, Some(400..=499)))
        .map(|call| call.turn.as_str())
        .collect();
    for letter in accounts.dead_letters.iter().filter(|l| l.is_turn()) {
        match refused.contains(letter.turn.as_str()) {
            true => report.dead_turns += 1,
            false => {
                let words = format!("{} was given up, and the bot refused nothing", letter.turn);
                report.add(Breach::Missing, words);
            }
        }
    }
}

/// Several calls were answered, and each answer took effect.
fn two_answers(record: &Record, message: usize, effects: &Effects<'_>, report: &mut Report) {
    let calls = effects.calls.len();
    let words = format!("{calls} calls about {}", place(record, message));
    report.add(Breach::Double, words);
}

/// None of the answers twice, in whatever words.
fn once(
    record: &Record,
    message: usize,
    effects: &Effects<'_>,
    fates: &Fates,
    report: &mut Report,
) {
    for (part, sends) in &effects.parts {
        // What fails later is no reason to have said it again before.
        let is_said = |(at, sent): &(usize, &&Sent)| match sends.get(at + 1) {
            Some(next) => !fates.has_failed_before(sent, next.at_order),
            None => !fates.has_failed(sent),
        };
        let arrived = sends.iter().enumerate().filter(is_said).count();
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
        let words = match asked.is_empty() {
            true => format!("the bot was never asked about {}", place()),
            false => format!("the bot never got to answer {}", place()),
        };
        return report.add(Breach::Missing, words);
    };
    match answer.status {
        Some(400..=499) if is_dead_turn() => {}
        Some(400..=499) => {
            let words = format!("the bot refused {}, and no dead letter says so", place());
            report.add(Breach::Missing, words);
        }
        _ => {
            let arrived = effects.parts.values();
            let arrived = arrived.filter(|sends| sends.iter().any(|s| !fates.has_failed(s)));
            let lacking = answer.replies.saturating_sub(arrived.count());
            let told = dead
                .sends
                .get(answer.turn.as_str())
                .map_or(0, BTreeSet::len);
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
