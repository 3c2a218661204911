//! What a turn has already sent, when its bot asks to send: the ledger of a bot's own sends.
//!
//! A bot that is tried again sends again, perhaps in other words. Its sends are therefore counted
//! by their place in the turn, not only compared by what they say. Pure: it sees records and
//! decides; the store keeps them.

use super::ids::{BotSendId, EventKey};

/// What a send says, as far as two can be told apart by it: equal for equal recipients and
/// bodies, however their JSON is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Content(pub [u8; 16]);

impl Content {
    /// Of these parts, each of them whole.
    pub fn of(parts: &[&str]) -> Self {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        Self(EventKey::derive(&parts).0)
    }
}

/// What the bot's caller was told of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Told {
    /// Nothing that we know of: it hung up, or the process that served it ended.
    Nothing = 0,
    /// What Meta said: the real message id, or an error.
    Truth = 1,
    /// An id of ours in place of Meta's, which was not known in time.
    OwnId = 2,
}

impl Told {
    /// Reads the ledger's number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Nothing),
            1 => Some(Self::Truth),
            2 => Some(Self::OwnId),
            _ => None,
        }
    }
}

/// One send that is on record for a turn. Epochs stand for attempts: each attempt has one of its
/// own, and a later one a higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Which.
    pub id: BotSendId,
    /// What it says.
    pub content: Content,
    /// What was asked for last where it was taken for this, if that were other words.
    pub also: Option<Content>,
    /// Whether it has surely not gone out, and never will.
    pub is_void: bool,
    /// The epoch in which it was asked for first.
    pub born: i64,
    /// The epoch in which it was asked for last; [`RETIRED`] where another has taken its place.
    pub seen: i64,
    /// What its caller was told.
    pub told: Told,
}

/// Later than any epoch: a send whose place another has taken stands for nothing any more.
pub const RETIRED: i64 = i64::MAX;

impl Recorded {
    /// Whether another has taken its place.
    pub const fn is_retired(&self) -> bool {
        self.seen == RETIRED
    }
}

/// What is asked for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// What it says.
    pub content: Content,
    /// The epoch of the attempt that asks.
    pub epoch: i64,
    /// Whether the turn has finished already.
    pub is_finished: bool,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is a new message.
    New,
    /// It is a new message, at the place of one that has surely not gone out. That one is retired.
    InPlaceOf(BotSendId),
    /// It is one that is on record, and nothing is sent for it.
    Known(BotSendId, Likeness),
}

impl Decision {
    /// Whether it is to go out.
    pub const fn is_new(self) -> bool {
        match self {
            Self::New | Self::InPlaceOf(_) => true,
            Self::Known(..) => false,
        }
    }
}

/// Why a send is taken for one that is on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// The same request once more: it has the same key, or says the same, and its first caller
    /// has not heard what came of it.
    Joined,
    /// It says the same as an earlier attempt did.
    Repeated,
    /// It says something else, at a place that an earlier attempt has filled already.
    Diverged,
}

impl Likeness {
    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Repeated => "repeated",
            Self::Diverged => "diverged",
        }
    }
}

/// Decides by what is on record for the turn, in the order of its places. A key of the request's
/// own decides before this, in whatever turn.
///
/// In the first attempt every send is new, unless a client repeats a request whose answer it has
/// not got. In a later attempt, and after the end, what was said is not said again; and what is
/// said in other words takes, in order, the places that earlier attempts have had. What Meta has
/// refused is refused again in the same words; other words at its place are a new message.
pub fn decide(recorded: &[Recorded], asked: &Asked) -> Decision {
    let recorded: Vec<&Recorded> = recorded.iter().filter(|one| !one.is_retired()).collect();
    let find =
        |wanted: &dyn Fn(&Recorded) -> bool| recorded.iter().copied().find(|one| wanted(one));
    let says_it = |one: &Recorded| {
        one.content == asked.content || one.also.is_some_and(|also| also == asked.content)
    };
    let of_earlier = |one: &Recorded| one.seen < asked.epoch;
    let known = |one: &Recorded, likeness| Decision::Known(one.id, likeness);
    if let Some(same) = find(&|one| says_it(one) && one.told == Told::Nothing) {
        return known(same, Likeness::Joined);
    }
    if let Some(same) = find(&|one| says_it(one) && of_earlier(one)) {
        return known(same, Likeness::Repeated);
    }
    let of_before = |one: &Recorded| one.born < asked.epoch || asked.is_finished;
    if let Some(same) = find(&|one| says_it(one) && of_before(one)) {
        return known(same, Likeness::Repeated);
    }
    match find(&of_earlier) {
        Some(free) if free.is_void => Decision::InPlaceOf(free.id),
        Some(filled) => known(filled, Likeness::Diverged),
        None => Decision::New,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn as it is asked, once after the other; each line answers what became of it.
    #[derive(Default)]
    struct Played {
        recorded: Vec<Recorded>,
        is_finished: bool,
    }

    impl Played {
        fn ask(&mut self, epoch: i64, says: &str) -> Decision {
            self.ask_as(epoch, says, Told::Truth)
        }

        fn ask_as(&mut self, epoch: i64, says: &str, told: Told) -> Decision {
            let content = Content::of(&[says]);
            let asked = Asked {
                content,
                epoch,
                is_finished: self.is_finished,
            };
            let decision = decide(&self.recorded, &asked);
            let new = Recorded {
                id: BotSendId(self.recorded.len() as i64),
                content,
                also: None,
                is_void: false,
                born: epoch,
                seen: epoch,
                told,
            };
            match decision {
                Decision::New => self.recorded.push(new),
                Decision::InPlaceOf(id) => {
                    let mut old = std::mem::replace(self.of(id), new);
                    old.seen = RETIRED;
                    self.recorded.push(old);
                }
                Decision::Known(id, _) => {
                    let one = self.of(id);
                    one.also = (one.content != content).then_some(content);
                    one.seen = one.seen.max(epoch);
                    one.told = told;
                }
            }
            decision
        }

        fn of(&mut self, id: BotSendId) -> &mut Recorded {
            let is_it = |one: &&mut Recorded| one.id == id;
            self.recorded.iter_mut().find(is_it).unwrap()
        }

        fn is_refused(&mut self, id: i64) {
            self.of(BotSendId(id)).is_void = true;
        }

        fn gone_out(&self) -> usize {
            self.recorded.iter().filter(|one| !one.is_void).count()
        }
    }

    fn known(id: i64, likeness: Likeness) -> Decision {
        Decision::Known(BotSendId(id), likeness)
    }

    #[test]
    fn in_the_first_attempt_each_is_new_even_if_it_says_the_same() {
        let mut turn = Played::default();
        for says in ["a", "b", "a"] {
            assert_eq!(turn.ask(5, says), Decision::New);
        }
    }

    #[test]
    fn a_clients_retry_joins_what_it_has_not_heard_of() {
        let mut turn = Played::default();
        assert_eq!(turn.ask_as(5, "a", Told::Nothing), Decision::New);
        assert_eq!(turn.ask(5, "a"), known(0, Likeness::Joined));
        assert_eq!(turn.ask(5, "a"), Decision::New, "it has heard of the first");
    }

    #[test]
    fn a_second_attempt_says_nothing_again() {
        let mut turn = Played::default();
        turn.ask(5, "a");
        turn.ask(5, "b");
        assert_eq!(turn.ask(6, "b"), known(1, Likeness::Repeated));
        assert_eq!(turn.ask(6, "a"), known(0, Likeness::Repeated));
        assert_eq!(turn.ask(6, "a"), known(0, Likeness::Repeated));
        assert_eq!(turn.ask(6, "c"), Decision::New);
    }

    #[test]
    fn other_words_take_the_places_that_are_filled() {
        let mut turn = Played::default();
        turn.ask(5, "a");
        turn.ask(5, "b");
        assert_eq!(
            turn.ask(7, "a, in other words"),
            known(0, Likeness::Diverged)
        );
        assert_eq!(
            turn.ask(7, "b, in other words"),
            known(1, Likeness::Diverged)
        );
        assert_eq!(turn.ask(7, "c"), Decision::New);
        // And so in the attempt after that: three places are filled.
        for place in 0..3 {
            let says = format!("third wording of {place}");
            assert_eq!(turn.ask(8, &says), known(place, Likeness::Diverged));
        }
        assert_eq!(turn.ask(8, "d"), Decision::New);
    }

    #[test]
    fn a_second_try_is_joined_also_where_other_words_were_taken_for_it() {
        let mut turn = Played::default();
        turn.ask(5, "a");
        let other = turn.ask_as(6, "in other words", Told::Nothing);
        assert_eq!(other, known(0, Likeness::Diverged));
        assert_eq!(turn.ask(6, "in other words"), known(0, Likeness::Joined));
        assert_eq!(turn.ask(6, "more"), Decision::New);
    }

    #[test]
    fn what_meta_has_refused_does_not_stand_in_for_other_words() {
        let mut turn = Played::default();
        turn.ask(5, "much too long");
        turn.is_refused(0);
        assert_eq!(turn.ask(6, "much too long"), known(0, Likeness::Repeated));
        let place = Decision::InPlaceOf(BotSendId(0));
        assert_eq!(turn.ask(7, "shorter"), place);
        assert_eq!(turn.ask(8, "short"), known(1, Likeness::Diverged));
        // What was refused before stands for nothing: it is other words for what has gone out.
        let first_words = turn.ask(9, "much too long");
        assert_eq!(first_words, known(1, Likeness::Diverged));
        assert_eq!(turn.gone_out(), 1);
    }

    #[test]
    fn what_stands_behind_something_refused_keeps_its_place() {
        let mut turn = Played::default();
        turn.ask(5, "a");
        turn.is_refused(0);
        turn.ask(5, "b");
        for epoch in 6..9 {
            let a = format!("a, wording {epoch}");
            let Decision::InPlaceOf(_) = turn.ask(epoch, &a) else {
                panic!("refused each time");
            };
            turn.is_refused(epoch - 4);
            let b = format!("b, wording {epoch}");
            assert_eq!(turn.ask(epoch, &b), known(1, Likeness::Diverged));
        }
        assert_eq!(turn.gone_out(), 1);
    }

    #[test]
    fn a_later_attempt_may_say_twice_what_is_new() {
        let mut turn = Played::default();
        turn.ask(5, "a");
        turn.ask(6, "a");
        assert_eq!(turn.ask(6, "b"), Decision::New);
        assert_eq!(turn.ask(6, "b"), Decision::New);
    }

    #[test]
    fn an_attempt_that_sent_nothing_leaves_the_next_one_free() {
        let mut turn = Played::default();
        assert_eq!(turn.ask(6, "a"), Decision::New);
        assert_eq!(turn.ask(6, "a"), Decision::New);
    }

    #[test]
    fn after_the_end_nothing_is_said_again() {
        let mut turn = Played::default();
        turn.ask(5, "a");
        turn.is_finished = true;
        assert_eq!(turn.ask(5, "a"), known(0, Likeness::Repeated));
        assert_eq!(
            turn.ask(5, "b"),
            Decision::New,
            "a bot that goes on sending"
        );
    }

    proptest::proptest! {
        /// However often a turn is tried and whatever its attempts say, no person gets more
        /// messages than the attempt that said most.
        #[test]
        fn no_turn_sends_more_than_its_longest_attempt(
            attempts in proptest::collection::vec(
                proptest::collection::vec("[a-d]", 0..6), 1..6),
        ) {
            let mut turn = Played::default();
            for (epoch, sends) in attempts.iter().enumerate() {
                for says in sends {
                    // Each client may try twice.
                    turn.ask_as(epoch as i64, says, Told::Nothing);
                    turn.ask(epoch as i64, says);
                }
            }
            let longest = attempts.iter().map(Vec::len).max().unwrap_or(0);
            proptest::prop_assert!(turn.recorded.len() <= longest);
        }

        /// Attempts that end anywhere and word each part in one of three ways, of which parts Meta
        /// refuses some: each that it takes goes out once, and all that the longest attempt says.
        #[test]
        fn each_part_goes_out_once_whatever_becomes_of_the_others(
            attempts in proptest::collection::vec(
                proptest::collection::vec(0_u8..3, 0..6), 1..7),
            refused in proptest::collection::vec(proptest::bool::ANY, 6),
        ) {
            let mut turn = Played::default();
            for (epoch, wordings) in attempts.iter().enumerate() {
                for (part, wording) in wordings.iter().enumerate() {
                    let known = turn.recorded.len();
                    turn.ask(epoch as i64, &format!("{part} in wording {wording}"));
                    if refused[part] && turn.recorded.len() > known {
                        turn.is_refused(known as i64);
                    }
                }
            }
            let longest = attempts.iter().map(Vec::len).max().unwrap_or(0);
            let taken = refused[..longest].iter().filter(|refused| !**refused).count();
            proptest::prop_assert_eq!(turn.gone_out(), taken);
        }
    }
}
