//! Who writes what in a trial, and when: all of it drawn before it begins, so that two columns are
//! given the same.

use std::time::Duration;

use super::{MESSAGES_MAX, PEOPLE_MAX, TrialSettings};
use crate::simulator::payload::{Side, wamid};
use crate::simulator::person::{PHRASES, Person};
use crate::simulator::seed::Draw;
use crate::simulator::token;

const BURST_CHANCE: f64 = 0.15;
const BURST_MAX: u64 = 3;
/// So that not everybody begins at once.
const ENTRANCE: Duration = Duration::from_secs(5);
const THOUGHT: Duration = Duration::from_millis(1500);
/// How fast people write without waiting. Long enough that the order in which their messages
/// arrive is beyond doubt.
const TYPING_MIN: Duration = Duration::from_millis(150);
const TYPING_OVER: Duration = Duration::from_millis(100);
/// The range of phone numbers kept for fiction has so many, less the largest crowd.
const PHONES: u64 = 10_000_000 - PEOPLE_MAX as u64;

/// One message, as it will be written.
pub(super) struct Line {
    pub(super) wamid: String,
    pub(super) token: String,
    pub(super) text: String,
    /// Before it is written, after what is waited for.
    pub(super) pause: Duration,
    /// Whether an answer is waited for before the next one is written.
    pub(super) waits: bool,
}

/// One person with all that they will write.
pub(super) struct Writer {
    pub(super) person: Person,
    pub(super) lines: Vec<Line>,
}

/// Everybody; who has nothing to write is left out.
pub(super) fn writers(settings: &TrialSettings) -> Vec<Writer> {
    let root = Draw::new(settings.seed).fork("trial");
    let messages = settings.messages.clamp(1, MESSAGES_MAX);
    let people = settings.people.clamp(1, PEOPLE_MAX).min(messages);
    let mut tokens = token::draw(messages, &mut root.fork("tokens")).into_iter();
    let writer = |index: usize| {
        let share = messages / people + usize::from(index < messages % people);
        let tokens = tokens.by_ref().take(share).collect();
        write(settings, &root, index, tokens)
    };
    (0..people).map(writer).collect()
}

fn write(settings: &TrialSettings, root: &Draw, index: usize, tokens: Vec<String>) -> Writer {
    let person = person(settings.salt, index);
    let mut draw = root.fork(&format!("person {index}"));
    let mut ids = Draw::new(settings.salt).fork(&format!("ids {index}"));
    let mut lines: Vec<Line> = Vec::new();
    let mut burst = 0;
    for token in tokens {
        let pause = match lines.last() {
            None => draw.duration_below(ENTRANCE),
            Some(before) if before.waits => draw.duration_below(THOUGHT),
            Some(_) => TYPING_MIN + draw.duration_below(TYPING_OVER),
        };
        if burst == 0 && draw.chance(BURST_CHANCE) {
            burst = draw.between(2, BURST_MAX);
        }
        burst = u64::saturating_sub(burst, 1);
        lines.push(Line {
            wamid: wamid(&person, Side::Person, &mut ids),
            text: format!("{} {token}", draw.pick(&PHRASES)),
            token,
            pause,
            waits: burst == 0,
        });
    }
    Writer { person, lines }
}

/// Somebody whom Meta shows by phone and user id, as most people are shown.
fn person(salt: u64, index: usize) -> Person {
    let phone = format!("1555{:07}", salt % PHONES + index as u64);
    let bsuid = format!("US.{:010}{index:010}", salt % 10_000_000_000);
    Person {
        name: format!("Ann {}", index + 1),
        ..Person::by_both(&phone, &bsuid)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::Secret;

    fn settings(seed: u64, salt: u64) -> TrialSettings {
        TrialSettings {
            seed,
            salt,
            people: 7,
            messages: 300,
            ..TrialSettings::new("", Secret::new(""))
        }
    }

    fn told(writers: &[Writer]) -> Vec<(String, Duration, bool)> {
        let lines = writers.iter().flat_map(|writer| &writer.lines);
        lines
            .map(|line| (line.text.clone(), line.pause, line.waits))
            .collect()
    }

    #[test]
    fn a_seed_is_a_script_and_the_salt_is_in_the_ids_alone() {
        let (one, other) = (writers(&settings(7, 1)), writers(&settings(7, 2)));
        assert_eq!(told(&one), told(&other));
        assert_ne!(told(&one), told(&writers(&settings(8, 1))));
        let ids = |writers: &[Writer]| -> HashSet<String> {
            let wamids = writers.iter().flat_map(|writer| &writer.lines);
            let wamids = wamids.map(|line| line.wamid.clone());
            let people = writers.iter().flat_map(|writer| writer.person.aliases());
            wamids.chain(people.map(str::to_owned)).collect()
        };
        assert_eq!(ids(&one).len(), 300 + 2 * 7);
        assert!(
            ids(&one)
                .iter()
                .all(|id| id.starts_with("1555") || !ids(&other).contains(id))
        );
    }

    #[test]
    fn everything_is_written_and_some_of_it_without_waiting() {
        let writers = writers(&settings(7, 1));
        let lines: Vec<&Line> = writers.iter().flat_map(|writer| &writer.lines).collect();
        assert_eq!(lines.len(), 300);
        let bursts = lines.iter().filter(|line| !line.waits).count();
        assert!((20..150).contains(&bursts), "{bursts}");
        assert!(
            lines
                .iter()
                .all(|line| token::find(&line.text) == [line.token.clone()])
        );
    }

    #[test]
    fn nobody_comes_who_has_nothing_to_say() {
        let few = TrialSettings {
            messages: 3,
            ..settings(7, 1)
        };
        assert_eq!(writers(&few).len(), 3);
    }
}
