//! Any request to send through its reader: it is read or refused, what it says has a recipient of
//! its own and no token, and what it says is the same when it is read again.

#![no_main]

use hapax::whatsapp::asked::{Asked, Parameters, Quote, Written, asked, token};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let (kind, rest) = data.split_first().unwrap_or((&0, &[]));
    let at = rest.iter().position(|byte| *byte == b'\n');
    let (query, body) = rest.split_at(at.unwrap_or(0));
    let query = String::from_utf8_lossy(query);
    let written = match kind % 3 {
        0 => Written::Json,
        1 => Written::Form,
        _ => Written::of(None, body),
    };
    let _ = token::in_body(written, body);
    let _ = token::form_with(&query, "new");
    let read = || Parameters::read(&query, written, body).and_then(asked);
    match (read(), read()) {
        (Ok(Asked::Send(send)), Ok(Asked::Send(again))) => {
            assert_eq!(send.content, again.content);
            if let Ok(body) = send.body(|_, _| Quote::Unknown) {
                let body: Value = serde_json::from_str(&body).expect("it is JSON");
                for name in ["to", "recipient", "access_token", "biz_opaque_callback_data"] {
                    assert!(body.get(name).is_none(), "{name}");
                }
            }
        }
        (Ok(Asked::Mark(mark)), Ok(Asked::Mark(_))) => {
            let body: Value = serde_json::from_str(&mark.body()).expect("it is JSON");
            assert!(body.get("access_token").is_none());
        }
        (Err(refused), Err(_)) => assert!((400..500).contains(&refused.status())),
        _ => panic!("one request was read in two ways"),
    }
});
