//! The words that metrics are labelled with: closed sets, so that nothing a stranger sends can
//! grow the number of series.

/// An enum whose variants have a word each.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word used in logs and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words!(
    /// What became of an event of a delivery.
    EventVerdict {
        /// Stored now.
        Accepted = "accepted",
        /// Stored before.
        Duplicate = "duplicate",
        /// Not stored: the delivery was answered with a failure.
        Rejected = "rejected",
    }
);
words!(
    /// How an attempt of a turn ended.
    TurnResult {
        /// With replies.
        Reply = "reply",
        /// Deliberately without.
        Silence = "silence",
        /// The bot has taken it, and answers by itself.
        Acknowledged = "acknowledged",
        /// To be tried again.
        Retry = "retry",
        /// Given up by the handler.
        Discard = "discard",
        /// Out of attempts or out of time.
        Dead = "dead",
        /// Its write came too late and was refused.
        Fenced = "fenced",
    }
);
words!(
    /// What became of a send.
    SentResult {
        /// Meta has taken it on.
        Accepted = "accepted",
        /// Surely not sent; tried again.
        Retry = "retry",
        /// Surely not sent; the number waits.
        Paused = "paused",
        /// Surely not sent, and never will be.
        Refused = "refused",
        /// Nobody knows.
        Unsure = "unsure",
    }
);
words!(
    /// A write under a lease.
    FencedWrite {
        /// The end of a turn.
        Finish = "finish",
        /// A conversation given back.
        Release = "release",
    }
);
words!(
    /// What became a dead letter.
    DeadLetterKind {
        /// A turn.
        Turn = "turn",
        /// A message that was refused or used its attempts.
        Outgoing = "outgoing",
        /// A message of which nobody learnt whether it was sent.
        Unsure = "unsure",
    }
);
words!(
    /// What became of a status or a notice that the bot is to get.
    RelayResult {
        /// The bot has taken it.
        Taken = "taken",
        /// The call failed; tried again.
        Retry = "retry",
        /// The bot is down or asks for patience; it waits.
        Unavailable = "unavailable",
        /// The bot will never take it.
        Refused = "refused",
        /// It has failed too often.
        GivenUp = "given_up",
        /// It has waited too long.
        Expired = "expired",
    }
);
words!(
    /// What a bot's request to send was taken for.
    BotSendVerdict {
        /// A new message.
        New = "new",
        /// The same request once more.
        Joined = "joined",
        /// What an earlier attempt of the turn has asked for.
        Repeated = "repeated",
        /// Other words, at a place that an earlier attempt has filled.
        Diverged = "diverged",
    }
);
words!(
    /// What a bot's request to send was answered.
    BotSendAnswer {
        /// Meta's own id of the message.
        Accepted = "accepted",
        /// A refusal, Meta's own or one for what will never go out.
        Refused = "refused",
        /// An id of ours: Meta's was not known in time.
        OwnId = "own_id",
        /// That it can't be done: the request was wrong, or the ledger did not answer.
        Failed = "failed",
        /// Nothing: the caller had hung up.
        Unheard = "nothing",
    }
);
