//! Why did the same event come again? A first guess from what one arrival shows.

use std::fmt;
use std::time::Duration;

/// What we answered to a delivery, and how long that took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status; 499 when the other side hung up before it was sent.
    pub status: u16,
    /// From the last byte of the request head to the answer.
    pub latency: Duration,
}

/// The likely reason of a redelivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// We answered something other than 200 last time: Meta is right to ask again.
    AfterOurFailure,
    /// We answered 200, but so late that Meta had given up.
    AfterSlowAnswer,
    /// It came again within two seconds: a second subscription, a second app, or an override
    /// of the callback URL sends everything twice.
    Twin,
    /// It came again in a delivery of another size: Meta put its batches together anew.
    Rebatched,
    /// It came again and again although we answered 200.
    Storm,
    /// It came again long after: a replay after an outage somewhere on the way.
    LateReplay,
    /// Nothing tells.
    Unknown,
}

/// What is known when a duplicate arrives.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// How often the event has arrived, this time included.
    pub count: i64,
    /// Since the arrival before this one.
    pub gap: Duration,
    /// What we answered the last time, where that is known.
    pub previous: Option<Answer>,
    /// Whether the delivery before held another number of events than this one.
    pub rebatched: bool,
}

impl Cause {
    /// Meta asks for an answer well under this; other integrators report giving up from 3 s on.
    pub const SLOW: Duration = Duration::from_secs(3);
    /// Two deliveries closer than this are two senders, not one that tries again.
    pub const TWIN: Duration = Duration::from_secs(2);
    /// From this many arrivals on, with a 200 each time, something is broken.
    pub const STORM: i64 = 8;
    /// Later than this, it is a replay of the past.
    pub const LATE: Duration = Duration::from_secs(600);

    /// The first rule that fits, from the surest to the weakest.
    pub fn guess(arrival: &Arrival) -> Self {
        match arrival.previous {
            Some(answer) if answer.status != 200 => Self::AfterOurFailure,
            Some(answer) if answer.latency >= Self::SLOW => Self::AfterSlowAnswer,
            _ if arrival.count >= Self::STORM => Self::Storm,
            _ if arrival.gap < Self::TWIN => Self::Twin,
            _ if arrival.rebatched => Self::Rebatched,
            _ if arrival.gap >= Self::LATE => Self::LateReplay,
            _ => Self::Unknown,
        }
    }

    /// The word used in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AfterOurFailure => "after_our_failure",
            Self::AfterSlowAnswer => "after_slow_answer",
            Self::Twin => "twin",
            Self::Rebatched => "rebatched",
            Self::Storm => "storm",
            Self::LateReplay => "late_replay",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_sign() {
        let ok = Answer {
            status: 200,
            latency: Duration::from_millis(3),
        };
        let base = Arrival {
            count: 2,
            gap: Duration::from_secs(30),
            previous: Some(ok),
            rebatched: false,
        };
        let failed = Some(Answer { status: 503, ..ok });
        let slow = Some(Answer {
            latency: Duration::from_secs(5),
            ..ok
        });
        let near = Duration::from_millis(20);
        let cases = [
            (base, Cause::Unknown),
            (
                Arrival {
                    previous: failed,
                    ..base
                },
                Cause::AfterOurFailure,
            ),
            (
                Arrival {
                    previous: slow,
                    ..base
                },
                Cause::AfterSlowAnswer,
            ),
            (Arrival { count: 40, ..base }, Cause::Storm),
            (Arrival { gap: near, ..base }, Cause::Twin),
            (
                Arrival {
                    gap: near,
                    previous: None,
                    ..base
                },
                Cause::Twin,
            ),
            (
                Arrival {
                    rebatched: true,
                    ..base
                },
                Cause::Rebatched,
            ),
            (
                Arrival {
                    gap: Duration::from_secs(7200),
                    ..base
                },
                Cause::LateReplay,
            ),
        ];
        for (arrival, cause) in cases {
            assert_eq!(Cause::guess(&arrival), cause, "{arrival:?}");
        }
    }
}
