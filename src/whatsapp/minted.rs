//! Message ids of our own, told to a bot where Meta's is not known in time. They look like Meta's,
//! tell which send they stand for, and are told from any other text by a checksum.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::model::{BotSendId, EventKey, StoreId};

/// What each begins with, once its base64 is read: the frame of Meta's own, with our name where
/// the person's phone number would be, and the length of what follows.
const HEAD: &[u8] = b"\x1c\x18\x05hapax\x15\x02\x00\x11\x18\x24";
/// What each ends with.
const FOOT: &[u8] = b"\x00";
const STORE_BYTES: usize = 4;
const SEND_BYTES: usize = 8;
const SUM_BYTES: usize = 6;

/// The id of this send of this store. Always the same.
pub fn mint(store: StoreId, send: BotSendId) -> String {
    let mut inner = Vec::with_capacity(STORE_BYTES + SEND_BYTES + SUM_BYTES);
    inner.extend_from_slice(&store.0.to_be_bytes());
    inner.extend_from_slice(&send.0.to_be_bytes());
    let sum = EventKey::derive(&[b"minted", &inner]);
    inner.extend_from_slice(&sum.0[..SUM_BYTES]);
    let inner = hex::encode_upper(inner);
    let whole = [HEAD, inner.as_bytes(), FOOT].concat();
    format!("wamid.{}", STANDARD.encode(whole))
}

/// The send that an id of ours stands for, and the store that gave it. `None` for any text that
/// is not exactly one of ours.
pub fn parse(text: &str) -> Option<(StoreId, BotSendId)> {
    let whole = STANDARD.decode(text.strip_prefix("wamid.")?).ok()?;
    let inner = whole.strip_prefix(HEAD)?.strip_suffix(FOOT)?;
    let inner = hex::decode(inner).ok()?;
    let (store, rest) = inner.split_first_chunk::<STORE_BYTES>()?;
    let (send, _) = rest.split_first_chunk::<SEND_BYTES>()?;
    let store = StoreId(u32::from_be_bytes(*store));
    let send = BotSendId(i64::from_be_bytes(*send));
    // Compared whole, so that its sum and its spelling are right.
    (mint(store, send) == text).then_some((store, send))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::property;
    use proptest::prelude::*;

    #[test]
    fn the_form_is_frozen() {
        let id = mint(StoreId(0xab), BotSendId(77));
        assert_eq!(
            id,
            "wamid.HBgFaGFwYXgVAgARGCQwMDAwMDBBQjAwMDAwMDAwMDAwMDAwNEQ0QTNCRTVDOTJGNjQA"
        );
    }

    #[test]
    fn no_id_of_metas_is_ours() {
        for text in [
            "",
            "wamid.",
            "wamid.HBgLMTU1NTEyMzQ1NjcVAgARGBI5QTNDQTVC",
            "7",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(property::cases(512))]

        #[test]
        fn an_id_comes_back_as_it_went(store: u32, send: i64) {
            let id = mint(StoreId(store), BotSendId(send));
            prop_assert_eq!(parse(&id), Some((StoreId(store), BotSendId(send))));
        }

        #[test]
        fn a_text_with_one_other_sign_is_not_ours(
            store: u32, send: i64, at in 0_usize..74, sign in "[ -~]",
        ) {
            let id = mint(StoreId(store), BotSendId(send));
            let mut other = id.clone();
            other.replace_range(at..=at, &sign);
            prop_assert!(other == id || parse(&other).is_none(), "{}", other);
        }

        #[test]
        fn any_other_text_is_not_ours(text in "\\PC{0,90}") {
            prop_assert_eq!(parse(&text), None);
            let within = format!("wamid.{text}");
            prop_assert_eq!(parse(&within), None);
        }
    }
}
