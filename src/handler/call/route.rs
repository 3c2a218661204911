//! Which URL of a bot a conversation meets: rendezvous hashing (highest random weight).
//!
//! Pure. Every process that knows the same URLs, in whatever order, comes to the same answer; when
//! a URL goes, only its own people move, and when it comes back, only they come back.

use sha2::{Digest, Sha256};

use crate::model::{ConversationId, NumberId};

/// The place of one URL among the others. Depends on nothing but the URL's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Place {
    /// Frozen together with [`order`]: another derivation would let every conversation meet
    /// another worker after an upgrade, and two versions side by side would disagree.
    pub(super) fn of(url: &str) -> Self {
        let digest = Sha256::digest(url.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(first))
    }
}

/// For whom a URL is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::handler) struct Person(u64);

impl From<ConversationId> for Person {
    fn from(conversation: ConversationId) -> Self {
        Self(conversation.0.cast_unsigned())
    }
}

impl From<&NumberId> for Person {
    /// Where nobody is known: all that concerns a number meets one URL.
    fn from(number: &NumberId) -> Self {
        Self(Place::of(number.as_str()).0)
    }
}

/// The indices of `places`, from the one that `person` prefers to the last resort.
pub(super) fn order(
    person: impl Into<Person>,
    places: impl IntoIterator<Item = Place>,
) -> Vec<usize> {
    let person = mix(person.into().0);
    let mut weighed: Vec<(u64, usize)> = places
        .into_iter()
        .enumerate()
        .map(|(index, place)| (mix(place.0 ^ person), index))
        .collect();
    weighed.sort_unstable_by(|a, b| b.cmp(a));
    weighed.into_iter().map(|(_, index)| index).collect()
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): each bit of the input changes each bit
/// of the output with a chance near one half. Conversation ids are consecutive numbers.
const fn mix(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const URLS: [&str; 4] = [
        "http://127.0.0.1:8001/webhook",
        "http://127.0.0.1:8002/webhook",
        "http://127.0.0.1:8003/webhook",
        "http://127.0.0.1:8004/webhook",
    ];

    fn first<'a>(conversation: i64, urls: &[&'a str]) -> &'a str {
        let places = urls.iter().map(|url| Place::of(url));
        urls[order(ConversationId(conversation), places)[0]]
    }

    #[test]
    fn people_spread_evenly() {
        for url in URLS {
            let met = (1..=4000).filter(|&id| first(id, &URLS) == url).count();
            assert!((900..=1100).contains(&met), "{url} has {met} of 4000");
        }
    }

    #[test]
    fn only_the_people_of_a_lost_url_move_and_they_spread() {
        let [lost, rest @ ..] = URLS;
        let mut moved_to = [0; 3];
        for id in 1..=4000 {
            let (before, after) = (first(id, &URLS), first(id, &rest));
            if before == lost {
                let heir = rest.iter().position(|url| *url == after);
                moved_to[heir.expect("one of the rest")] += 1;
            } else {
                assert_eq!(before, after, "{id} moved for nothing");
            }
        }
        assert!(
            moved_to.iter().all(|n| (250..=420).contains(n)),
            "{moved_to:?}"
        );
    }

    #[test]
    fn the_next_choice_is_the_one_made_without_the_first() {
        for id in 1..=100 {
            let chosen = order(ConversationId(id), URLS.map(Place::of));
            let rest: Vec<&str> = URLS.into_iter().filter(|u| *u != URLS[chosen[0]]).collect();
            assert_eq!(URLS[chosen[1]], first(id, &rest));
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let mut reversed = URLS;
        reversed.reverse();
        assert!((1..=100).all(|id| first(id, &URLS) == first(id, &reversed)));
    }

    #[test]
    fn the_choice_is_frozen() {
        let chosen: Vec<usize> = (1..=12)
            .map(|id| order(ConversationId(id), URLS.map(Place::of))[0])
            .collect();
        assert_eq!(chosen, [1, 3, 3, 2, 1, 3, 2, 1, 0, 2, 2, 1]);
    }
}
