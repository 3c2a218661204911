//! Any reply through the composer: nothing is too long, nothing visible is lost, nobody else is
//! written to, and what was composed composes to itself.

#![no_main]

use hapax::model::Reply;
use hapax::whatsapp::bodies;
use hapax::whatsapp::compose::TEXT_CHARS_MAX;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    if let Ok(body) = serde_json::from_slice::<Value>(data) {
        for composed in composed(&Reply::Body(body)) {
            for name in [
                "to",
                "recipient",
                "recipient_type",
                "biz_opaque_callback_data",
            ] {
                assert!(composed.get(name).is_none(), "{name}");
            }
            assert!(composed["type"].is_string());
            assert_eq!(self::composed(&Reply::Body(composed.clone())), [composed]);
        }
    }
    // Repeated, since a text is cut at thousands of characters and the fuzzer thinks in hundreds.
    let (times, text) = data.split_first().unwrap_or((&0, &[]));
    let text = String::from_utf8_lossy(text).repeat(usize::from(*times));
    let bodies = composed(&Reply::Text(text.clone()));
    let parts: Vec<&str> = bodies
        .iter()
        .filter_map(|body| body["text"]["body"].as_str())
        .collect();
    assert_eq!(parts.len(), bodies.len());
    assert!(
        parts
            .iter()
            .all(|part| part.chars().count() <= TEXT_CHARS_MAX)
    );
    assert!(parts.iter().all(|part| !part.trim().is_empty()));
    let visible = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(visible(&parts.concat()), visible(&text));
});

fn composed(reply: &Reply) -> Vec<Value> {
    let bodies = bodies(reply).unwrap_or_default();
    bodies
        .iter()
        .map(|body| serde_json::from_str(body).expect("it is JSON"))
        .collect()
}
