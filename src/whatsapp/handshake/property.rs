//! What the handshake promises of any query.

use proptest::prelude::*;

use super::*;
use crate::model::property;

fn text() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop_oneof![
        Just(String::new()),
        Just("subscribe".to_owned()),
        Just("Subscribe".to_owned()),
        "[ab\0é]{0,3}",
    ])
}

proptest! {
    #![proptest_config(property::cases(512))]

    #[test]
    fn only_who_knows_a_token_and_subscribes_is_answered(
        current in "[ab\0é]{0,3}",
        previous in prop::option::of("[ab\0é]{0,3}"),
        query in [text(), text(), text()],
    ) {
        let [mode, verify_token, challenge] = query;
        let query = Handshake { mode, verify_token, challenge };
        let ours = [Some(current.clone()), previous.clone()];
        let is_known = query.verify_token.as_deref().is_some_and(|token| !token.is_empty())
            && ours.contains(&query.verify_token);
        let is_right = is_known && query.mode.as_deref() == Some("subscribe");
        let tokens = VerifyTokens::new(Secret::new(current), previous.map(Secret::new));
        let expected = query.challenge.as_deref().filter(|_| is_right);
        prop_assert_eq!(tokens.answer(&query), expected);
    }
}
