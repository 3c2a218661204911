//! What Meta's error codes mean and what each asks of us.
//!
//! Builds on the code alone: HTTP statuses mislead (a rate limit is a 400), and titles change.
//! Meta's own words are never repeated, since they can hold a person's number.

use crate::model::FailureClass;

use FailureClass::{Ambiguous, NumberBlocked, NumberRate, PairRate, Refused};

/// What a code asks of us. `is_transient` is Meta's own flag, which decides only about codes
/// that are not in our table; without it these are refused, so that nothing is sent for ever.
pub const fn classify(code: i64, is_transient: bool) -> FailureClass {
    match known(code) {
        Some((class, _)) => class,
        None if is_transient => Ambiguous,
        None => Refused,
    }
}

/// What a code means, in our words and without any personal data.
pub const fn meaning(code: i64) -> &'static str {
    match known(code) {
        Some((_, meaning)) => meaning,
        None => "an error we do not know",
    }
}

/// Source: Meta, *Cloud API error codes*; which of them leave it open whether the message was
/// sent is our reading: those that Meta gives after it began its own work.
#[rustfmt::skip]
const fn known(code: i64) -> Option<(FailureClass, &'static str)> {
    Some(match code {
        130_429 => (NumberRate, "the number sends faster than its throughput"),
        131_056 => (PairRate, "too many messages to this person in a short time"),
        4       => (NumberRate, "the app has made too many calls"),
        80_007  => (NumberRate, "the account has made too many calls"),

        1       => (Ambiguous, "unknown error at Meta"),
        2       => (Ambiguous, "Meta's service is down or overloaded"),
        131_000 => (Ambiguous, "something went wrong at Meta"),
        131_016 => (Ambiguous, "Meta's service is unavailable"),
        131_057 => (Ambiguous, "the number is in maintenance, perhaps for a throughput upgrade"),
        133_004 => (Ambiguous, "Meta's server is temporarily unavailable"),

        131_047 => (Refused, "the 24-hour window is closed: only a template may be sent"),
        131_026 => (Refused, "the message cannot be delivered to this person"),
        130_472 => (Refused, "the person is part of an experiment of Meta's"),
        131_021 => (Refused, "the recipient is the sender"),
        131_051 => (Refused, "the message type is not supported"),
        131_062 => (Refused, "this message needs a phone number, not a user id"),
        130_403 => (Refused, "this person may not be sent to"),
        131_048 => (Refused, "the number is limited: too many people reported it as spam"),
        131_049 => (Refused, "held back to keep the ecosystem healthy: not before 24 hours"),
        131_050 => (Refused, "the person has stopped marketing messages"),

        0       => (NumberBlocked, "the access token cannot be authenticated"),
        190     => (NumberBlocked, "the access token has expired or was revoked"),
        3       => (NumberBlocked, "the app lacks a capability or permission"),
        10      => (NumberBlocked, "the app's permission is missing or was removed"),
        200..=299 => (NumberBlocked, "the app's permission is missing or was removed"),
        131_005 => (NumberBlocked, "access denied: a permission is missing or was removed"),
        368     => (NumberBlocked, "the account is blocked for a policy violation"),
        131_031 => (NumberBlocked, "the account is locked"),
        130_497 => (NumberBlocked, "the account may not write to this country"),
        131_042 => (NumberBlocked, "the account's payment method has a problem"),
        133_010 => (NumberBlocked, "the number is not registered"),
        131_037 => (NumberBlocked, "the number's display name is not approved"),
        131_045 => (NumberBlocked, "the number's certificate or registration is wrong"),

        100     => (Refused, "a parameter is invalid"),
        33      => (Refused, "the number does not exist or may not be used by this token"),
        131_008 => (Refused, "a required parameter is missing"),
        131_009 => (Refused, "a parameter's value is invalid"),
        132_000..=132_999 => (Refused, "the template cannot be sent as it is"),
        135_000 => (Refused, "the message's parameters do not fit together"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(class: FailureClass, codes: &[i64]) {
        for code in codes {
            assert_eq!(classify(*code, false), class, "{code}");
            assert_eq!(classify(*code, true), class, "a known code stands: {code}");
            assert_ne!(meaning(*code), meaning(-1), "{code}");
        }
    }

    #[test]
    fn every_known_code_has_its_class() {
        check(NumberRate, &[130_429, 4, 80_007]);
        check(PairRate, &[131_056]);
        check(Ambiguous, &[1, 2, 131_000, 131_016, 131_057, 133_004]);
        check(
            Refused,
            &[
                131_047, 131_026, 130_472, 131_021, 131_051, 131_062, 130_403, 131_048, 131_049,
                131_050, 100, 33, 131_008, 131_009, 132_000, 132_001, 132_999, 135_000,
            ],
        );
        check(
            NumberBlocked,
            &[
                0, 190, 3, 10, 200, 299, 131_005, 368, 131_031, 130_497, 131_042, 133_010, 131_037,
                131_045,
            ],
        );
    }

    #[test]
    fn an_unknown_code_is_refused_unless_meta_calls_it_transient() {
        for code in [-1, 5, 199, 300, 131_999, 133_000, i64::MAX] {
            assert_eq!(classify(code, false), Refused, "{code}");
            assert_eq!(classify(code, true), Ambiguous, "{code}");
        }
    }
}
