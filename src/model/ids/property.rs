//! What ids promise: each prints as what it is read from, and as nothing else.

use proptest::prelude::*;

use super::*;
use crate::model::property;

fn tag() -> impl Strategy<Value = Tag> {
    (any::<u32>(), any::<i64>(), any::<u32>()).prop_map(|(store, outgoing, attempt)| Tag {
        store: StoreId(store),
        outgoing: OutgoingId(outgoing),
        attempt,
    })
}

proptest! {
    #![proptest_config(property::cases(512))]

    #[test]
    fn every_tag_comes_back(one in tag(), other in tag()) {
        prop_assert_eq!(Tag::parse(&one.to_string()), Some(one));
        prop_assert_eq!(one.to_string() == other.to_string(), one == other);
    }

    #[test]
    fn a_text_that_is_no_tag_of_ours_is_none(
        tag in tag(),
        text in "(hapax:)?[+-]?[0-9A-Fa-f]{0,9}:[+ -]?[0-9]{0,20}:[+-]?[0-9]{0,11}(:|\\PC)?",
        at in any::<prop::sample::Index>(),
        other in any::<char>(),
    ) {
        let mut near: Vec<char> = tag.to_string().chars().collect();
        let at = at.index(near.len());
        near[at] = other;
        for text in [text, near.into_iter().collect()] {
            if let Some(tag) = Tag::parse(&text) {
                prop_assert_eq!(tag.to_string(), text, "only what we wrote is ours");
            }
        }
    }

    #[test]
    fn an_id_is_read_back_as_its_own_kind_only(number in any::<i64>(), text in "\\PC{0,12}") {
        let printed = ConversationId(number).to_string();
        prop_assert_eq!(printed.parse(), Ok(ConversationId(number)));
        prop_assert!(printed.parse::<ContactId>().is_err());
        prop_assert!(printed.parse::<OutgoingId>().is_err());
        prop_assert!(text.parse::<NodeId>().is_err() || text.starts_with("node_"));
    }

    #[test]
    fn a_delivery_knows_its_node(node in 0..1_i64 << 22, count in 0..1_i64 << 40) {
        let delivery = DeliveryId::new(NodeId(node), count);
        prop_assert_eq!(delivery.node(), NodeId(node));
        prop_assert!(delivery < DeliveryId::new(NodeId(node + 1), 0));
    }

    #[test]
    fn parts_make_one_key_and_no_other(
        one in prop::collection::vec(prop::collection::vec(0..2_u8, 0..3), 0..4),
        other in prop::collection::vec(prop::collection::vec(0..2_u8, 0..3), 0..4),
    ) {
        let key = |parts: &[Vec<u8>]| {
            EventKey::derive(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
        };
        prop_assert_eq!(key(&one) == key(&other), one == other);
    }
}
