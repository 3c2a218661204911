//! The people who write: who they are, by which ids Meta shows them, and what they say.
//!
//! Made up, all of them: the phone numbers are of the range kept for fiction.

use std::fmt;

use super::seed::Draw;

const NAMES: [&str; 16] = [
    "Ada", "Ben", "Chioma", "Diego", "Elif", "Farid", "Grace", "Hana", "Ivo", "Joana", "Kofi",
    "Lena", "Mateo", "Noor", "Olga", "Priya",
];

pub(super) const PHRASES: [&str; 16] = [
    "good morning",
    "are you open today?",
    "where is my order?",
    "thank you",
    "how much is it?",
    "bom dia, tudo bem?",
    "¿a qué hora cierran?",
    "नमस्ते",
    "merhaba",
    "one more thing",
    "can I change the address?",
    "👋 hi",
    "yes please",
    "no, the other one",
    "see you at eight",
    "schöne Grüße",
];

/// One person. Does not print phone or user id.
#[derive(Clone, PartialEq, Eq)]
pub struct Person {
    /// The name in the profile.
    pub name: String,
    /// Digits with country code, without `+`; Meta's `wa_id`.
    pub phone: Option<String>,
    /// Business-scoped user id.
    pub bsuid: Option<String>,
    /// The group in which they write, if they do: then the conversation is the group's.
    pub group: Option<String>,
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Person")
            .field("has_phone", &self.phone.is_some())
            .field("has_bsuid", &self.bsuid.is_some())
            .field("is_group", &self.group.is_some())
            .finish_non_exhaustive()
    }
}

impl Person {
    /// The `index`-th person of a crowd. No two share an id; a third each are known by phone
    /// only, by user id only, and by both.
    pub fn draw(index: usize, draw: &mut Draw) -> Self {
        let name = format!("{} {}", draw.pick(&NAMES), index + 1);
        let phone = format!("1555{index:07}");
        let bsuid = format!("US.{:010}{index:010}", draw.below(10_000_000_000));
        match draw.below(3) {
            0 => Self::with(&name, Some(phone), None),
            1 => Self::with(&name, None, Some(bsuid)),
            _ => Self::with(&name, Some(phone), Some(bsuid)),
        }
    }

    /// Somebody known by phone only.
    pub fn by_phone(phone: &str) -> Self {
        Self::with("Ann", Some(phone.to_owned()), None)
    }

    /// Somebody known by user id only.
    pub fn by_bsuid(bsuid: &str) -> Self {
        Self::with("Ann", None, Some(bsuid.to_owned()))
    }

    /// Somebody known by phone and user id.
    pub fn by_both(phone: &str, bsuid: &str) -> Self {
        Self::with("Ann", Some(phone.to_owned()), Some(bsuid.to_owned()))
    }

    fn with(name: &str, phone: Option<String>, bsuid: Option<String>) -> Self {
        Self {
            name: name.to_owned(),
            phone,
            bsuid,
            group: None,
        }
    }

    /// Somebody who writes in the `index`-th group, and whose own ids say nothing of who is
    /// answered.
    #[must_use]
    pub fn in_group(mut self, index: usize) -> Self {
        self.group = Some(format!("group-{index:07}"));
        self
    }

    /// The same person as one message shows them: who has both ids is now and then shown
    /// without the phone, as Meta does for people who took a username.
    #[must_use]
    pub fn as_shown(&self, draw: &mut Draw) -> Self {
        let mut shown = self.clone();
        if shown.bsuid.is_some() && draw.chance(0.25) {
            shown.phone = None;
        }
        shown
    }

    /// Every id under which their conversation is known: the group's; or the phone first.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        let is_alone = self.group.is_none();
        let phone = self.phone.as_deref().filter(|_| is_alone);
        let bsuid = self.bsuid.as_deref().filter(|_| is_alone);
        self.group.as_deref().into_iter().chain(phone).chain(bsuid)
    }

    /// The group, the phone, or else the user id.
    pub fn alias(&self) -> &str {
        self.aliases().next().unwrap_or_default()
    }
}

/// What a person says, text by text. Each text carries a number, so that an echo names the
/// message it answers.
pub struct Phrases {
    draw: Draw,
    next: u64,
    step: u64,
}

impl Phrases {
    /// Texts numbered `first`, `first + step`, and so on: with one `first` below `step` for each
    /// person no two people ever say the same, whoever is faster.
    pub const fn new(draw: Draw, first: u64, step: u64) -> Self {
        Self {
            draw,
            next: first,
            step,
        }
    }

    /// The next text.
    pub fn say(&mut self) -> String {
        let number = self.next;
        self.next += self.step;
        format!("{} #{number}", self.draw.pick(&PHRASES))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_crowd_shares_no_id_and_has_all_three_kinds() {
        let mut draw = Draw::new(5);
        let crowd: Vec<Person> = (0..200).map(|i| Person::draw(i, &mut draw)).collect();
        let ids: Vec<&str> = crowd.iter().flat_map(Person::aliases).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        for (phone, bsuid) in [(true, false), (false, true), (true, true)] {
            let kind = |p: &&Person| p.phone.is_some() == phone && p.bsuid.is_some() == bsuid;
            assert!(crowd.iter().filter(kind).count() > 40);
        }
    }

    #[test]
    fn no_two_texts_of_a_run_are_equal() {
        let root = Draw::new(5);
        let mut texts = HashSet::new();
        for person in 0..10 {
            let mut phrases = Phrases::new(root.fork(&person.to_string()), person + 1, 10);
            for _ in 0..100 {
                assert!(texts.insert(phrases.say()));
            }
        }
    }

    #[test]
    fn a_person_always_shows_some_id_and_never_prints_one() {
        let mut draw = Draw::new(9);
        let both = Person::by_both("15550000001", "US.1");
        let shown: Vec<Person> = (0..100).map(|_| both.as_shown(&mut draw)).collect();
        assert!(shown.iter().any(|p| p.phone.is_none()));
        assert!(shown.iter().all(|p| p.bsuid.is_some()));
        assert!(!format!("{both:?}").contains("1555"));
        assert_eq!(Person::by_phone("1").as_shown(&mut draw).alias(), "1");
    }
}
