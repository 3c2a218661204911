//! What is asked and told of the sends that a bot makes by itself.

use std::time::Duration;

use crate::guard::{self, Guard};
use crate::model::bot_send::{Asked, Content, Decision, Likeness, Recorded, Told, decide};
use crate::model::phone;
use crate::model::{
    Aliases, BotSendId, ConversationId, GraphAnswer, NumberId, OutgoingState, Recipient, TurnId,
    Wamid,
};

/// Sends of one turn, at most; a further one is refused.
pub const BOT_SENDS_MAX: usize = 256;
/// How long after the end of a turn a send still shows that the bot works on after its answer.
pub(super) const LATE_MAX: Duration = Duration::from_secs(600);
/// How long, outside of an open turn, a send that says the same as one whose caller has heard
/// nothing is taken for that caller's second try.
pub(super) const REPEAT_MAX: Duration = Duration::from_secs(120);

/// A send that a bot asks for.
#[derive(Debug, Clone)]
pub struct Stage {
    /// From this number.
    pub number: NumberId,
    /// The other side, as the bot names it; never empty.
    pub to: Aliases,
    /// Where it goes, exactly as the bot has said.
    pub recipient: Recipient,
    /// The Graph message body without recipient.
    pub body: String,
    /// What it says.
    pub content: Content,
    /// What the bot calls the request (`Idempotency-Key`).
    pub key: Option<String>,
    /// The bot's own `biz_opaque_callback_data`.
    pub callback: Option<String>,
    /// Whether the bot says that it belongs to no turn.
    pub is_apart: bool,
    /// When it goes out.
    pub when: SendWhen,
    /// How long after its end a turn's record still stands in for what is asked for.
    pub tail: Duration,
}

/// When what a bot sends in a turn goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendWhen {
    /// At once.
    Now,
    /// When the turn ends well; what a failed attempt has asked for is dropped.
    AtFinish,
}

impl Stage {
    /// The other way to dial whom it goes to, where there is one.
    pub(super) fn twin(&self) -> Option<Aliases> {
        let twin = phone::twin(self.to.phone.as_deref()?)?;
        let by_phone_alone = Aliases {
            phone: self.to.phone.clone(),
            ..Aliases::default()
        };
        (self.to == by_phone_alone).then(|| Aliases {
            phone: Some(twin),
            ..Aliases::default()
        })
    }
}

/// A send, on record.
#[derive(Debug, Clone)]
pub struct Staged {
    /// Which.
    pub id: BotSendId,
    /// The conversation.
    pub conversation: ConversationId,
    /// The turn, or the one that has just ended; `None` outside of any.
    pub turn: Option<TurnId>,
    /// The one on record that it was taken for; `None`: it is a new one.
    pub taken_for: Option<Likeness>,
    /// Its turn had ended before, and without a send: the bot works on after its answer.
    pub is_late: bool,
    /// How it stands.
    pub fate: Fate,
}

/// How a bot's send stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It waits for the end of its turn.
    Held,
    /// It waits for Meta.
    Waiting,
    /// Meta has it.
    Accepted {
        /// Meta's id of it.
        wamid: Wamid,
        /// What Meta answered, where its answer was not lost.
        answer: Option<GraphAnswer>,
    },
    /// It will never go out.
    Refused {
        /// What Meta answered, if it was Meta.
        answer: Option<GraphAnswer>,
        /// Why.
        reason: String,
    },
    /// Nobody knows whether it went out, and nobody waits any more to learn it.
    Unknown,
    /// It is not there (any more).
    Gone,
}

impl Fate {
    /// Of an outgoing that stands at `state`.
    pub(super) fn of(
        state: OutgoingState,
        wamid: Option<Wamid>,
        answer: Option<GraphAnswer>,
        is_unsure: bool,
        reason: String,
    ) -> Self {
        match (state, wamid) {
            // Also one that has failed since: that it had been accepted stays true.
            (OutgoingState::Sent | OutgoingState::Dead, Some(wamid)) => {
                let answer = answer.filter(GraphAnswer::is_success);
                Self::Accepted { wamid, answer }
            }
            (OutgoingState::Dead, None) if is_unsure => Self::Unknown,
            (OutgoingState::Dead, None) => Self::Refused { answer, reason },
            (OutgoingState::Sent, None)
            | (OutgoingState::Pending | OutgoingState::Sending | OutgoingState::Unsure, _) => {
                Self::Waiting
            }
        }
    }

    /// Whether there is nothing to wait for.
    pub const fn is_known(&self) -> bool {
        match self {
            Self::Waiting => false,
            Self::Held
            | Self::Accepted { .. }
            | Self::Refused { .. }
            | Self::Unknown
            | Self::Gone => true,
        }
    }
}

/// A turn in one of its attempts, named for [`Store::heard`](super::Store::heard).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TurnRun {
    /// The turn.
    pub turn: TurnId,
    /// The epoch of its attempt.
    pub epoch: i64,
}

/// What a turn's attempt has asked to send so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Whose.
    pub run: TurnRun,
    /// How long ago it asked last.
    pub ago: Duration,
}

/// Where a send belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A turn that has begun.
    In { seq: i64, epoch: i64 },
    /// A turn that has ended a moment ago.
    After { seq: i64, epoch: i64 },
    /// No turn.
    Outside,
}

/// A conversation, as far as a bot's send concerns it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene {
    pub(super) epoch: i64,
    pub(super) done_seq: i64,
    /// Whether a turn has begun.
    pub(super) is_open: bool,
    /// The last turn that has ended: its place, its epoch, how long ago.
    pub(super) ended: Option<(i64, i64, Duration)>,
}

impl Scene {
    /// Where what is asked for now belongs.
    pub(super) fn place(&self, stage: &Stage) -> Place {
        if stage.is_apart {
            return Place::Outside;
        }
        if self.is_open {
            return Place::In {
                seq: self.done_seq + 1,
                epoch: self.epoch,
            };
        }
        match self.ended {
            Some((seq, epoch, ago)) if ago <= stage.tail => Place::After { seq, epoch },
            _ => Place::Outside,
        }
    }

    /// The turn that ended so short a while ago that what is asked for now may be its answer.
    pub(super) fn may_be_late_for(&self) -> Option<(i64, Duration)> {
        let (seq, _, ago) = self.ended?;
        (!self.is_open && ago <= LATE_MAX).then_some((seq, ago))
    }
}

/// What becomes of what is asked for. `None`: the turn has asked for as many as it may.
pub(super) fn decision(recorded: &[Recorded], asked: &Asked) -> Option<Decision> {
    let decision = match guard::holds(Guard::SendRecord) {
        true => decide(recorded, asked),
        false => Decision::New,
    };
    let places = recorded.iter().filter(|one| !one.is_retired()).count();
    let is_full = decision.is_new() && places >= BOT_SENDS_MAX;
    (!is_full).then_some(decision)
}

/// One row of the ledger's table, for both engines.
pub(super) struct BotSendRow {
    pub(super) id: i64,
    pub(super) content: [u8; 16],
    pub(super) also: Option<[u8; 16]>,
    pub(super) is_void: bool,
    pub(super) born: i64,
    pub(super) seen: i64,
    pub(super) told: u8,
}

impl BotSendRow {
    pub(super) fn read(self) -> Recorded {
        Recorded {
            id: BotSendId(self.id),
            content: Content(self.content),
            also: self.also.map(Content),
            is_void: self.is_void,
            born: self.born,
            seen: self.seen,
            told: Told::from_number(self.told).unwrap_or(Told::Nothing),
        }
    }
}
