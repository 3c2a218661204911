//! Deliveries to fire: messages that differ, of people who come back, signed.

use bytes::Bytes;

use crate::clock::Clock;
use crate::simulator::payload::{Element, Side, sign, single, wamid};
use crate::simulator::person::Person;
use crate::simulator::seed::Draw;

/// Signs what the benches deliver.
pub(super) const APP_SECRET: &str = "bench-app-secret";
const NUMBER: &str = "106540352242922";

/// One signed delivery.
pub(super) struct Shot {
    pub(super) body: Bytes,
    pub(super) signature: String,
}

/// Makes messages. The same in each run, but for their times.
pub(super) struct Generator {
    people: Vec<Person>,
    draw: Draw,
    clock: Clock,
}

impl Generator {
    pub(super) fn new(people: usize, clock: Clock) -> Self {
        let mut draw = Draw::new(1);
        let people = (0..people.max(1))
            .map(|index| Person::draw(index, &mut draw))
            .collect();
        Self {
            people,
            draw,
            clock,
        }
    }

    /// So many, each with its index in its text; see [`index_of`].
    pub(super) fn shots(&mut self, count: usize) -> Vec<Shot> {
        (0..count).map(|index| self.shot(index)).collect()
    }

    fn shot(&mut self, index: usize) -> Shot {
        let person = self.people[self.draw.below(self.people.len() as u64) as usize].clone();
        let id = wamid(&person, Side::Person, &mut self.draw);
        let text = format!("{index}: is it still there, and could you send it by Friday?");
        let body = single(&Element::text(
            NUMBER,
            &person,
            &id,
            self.clock.now(),
            &text,
        ));
        let signature = sign(APP_SECRET, &body);
        Shot { body, signature }
    }
}

/// Which shot a text, or the echo of it, belongs to.
pub(super) fn index_of(text: &str) -> Option<usize> {
    text.split_once(':')?.0.parse().ok()
}
