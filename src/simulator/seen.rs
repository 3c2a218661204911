//! Reads back what a posted body holds, as far as the record needs it: the record believes what
//! was on the wire, not what somebody meant to post.

use serde_json::Value;

/// One element of a posted body.
#[derive(Clone, PartialEq, Eq)]
pub enum Seen {
    /// A message with an id.
    Message {
        /// Its id.
        wamid: String,
        /// The group; or phone, then user id, where shown.
        aliases: Vec<String>,
        /// What it says, if it is a text.
        text: Option<String>,
    },
    /// A status with an id.
    Status {
        /// The message it is about.
        wamid: String,
        /// Meta's word.
        status: String,
        /// The member of a group whom it speaks of.
        participant: Option<String>,
        /// The error code of a `failed`.
        code: Option<i64>,
        /// Whether it carries what the sender had asked to get back with it.
        is_tagged: bool,
    },
    /// Something that looks much like a message and must never be answered: one from before the
    /// account was connected, a copy for who only listens, an echo of what the business wrote.
    Notice {
        /// Its id.
        wamid: String,
    },
}

impl Seen {
    /// The id of the message it is, or is about.
    pub fn wamid(&self) -> &str {
        match self {
            Self::Message { wamid, .. } | Self::Status { wamid, .. } | Self::Notice { wamid } => {
                wamid
            }
        }
    }
}

/// The elements of a body, in order. Empty for what is not JSON or has another shape: a test may
/// post anything.
pub fn read(body: &[u8]) -> Vec<Seen> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Vec::new();
    };
    let changes = list(&body["entry"])
        .iter()
        .flat_map(|entry| list(&entry["changes"]));
    changes.flat_map(of_change).collect()
}

fn of_change(change: &Value) -> Vec<Seen> {
    let value = &change["value"];
    match change["field"].as_str() {
        Some("messages") => {
            let messages = list(&value["messages"]).iter().filter_map(message);
            let statuses = list(&value["statuses"]).iter().filter_map(status);
            messages.chain(statuses).collect()
        }
        Some("history") => {
            let threads = list(&value["history"])
                .iter()
                .flat_map(|part| list(&part["threads"]));
            let messages = threads.flat_map(|thread| list(&thread["messages"]));
            messages.filter_map(notice).collect()
        }
        Some("standby") => list(&value["standby"]["messages"])
            .iter()
            .filter_map(notice)
            .collect(),
        Some("smb_message_echoes") => list(&value["message_echoes"])
            .iter()
            .filter_map(notice)
            .collect(),
        _ => Vec::new(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn message(message: &Value) -> Option<Seen> {
    let aliases = match text(&message["group_id"]) {
        Some(group) => vec![group],
        None => ["from", "from_user_id"]
            .iter()
            .filter_map(|key| text(&message[key]))
            .collect(),
    };
    Some(Seen::Message {
        wamid: text(&message["id"])?,
        aliases,
        text: text(&message["text"]["body"]),
    })
}

fn status(status: &Value) -> Option<Seen> {
    Some(Seen::Status {
        wamid: text(&status["id"])?,
        status: text(&status["status"])?,
        participant: text(&status["recipient_participant_id"]),
        code: status["errors"][0]["code"].as_i64(),
        is_tagged: status["biz_opaque_callback_data"].is_string(),
    })
}

fn notice(item: &Value) -> Option<Seen> {
    Some(Seen::Notice {
        wamid: text(&item["id"])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_reads_as_nothing() {
        for body in [
            &b"\xff"[..],
            b"{}",
            b"[]",
            br#"{"entry":[{"changes":[{}]}]}"#,
        ] {
            assert!(read(body).is_empty());
        }
    }

    #[test]
    fn what_is_said_in_a_group_is_of_the_group() {
        let body = br#"{"entry":[{"changes":[{"field":"messages","value":{"messages":[
            {"id":"wamid.A","group_id":"g1","from":"1555","text":{"body":"hi"}}]}}]}]}"#;
        let Some(Seen::Message { aliases, .. }) = read(body).pop() else {
            panic!("a message");
        };
        assert_eq!(aliases, ["g1"]);
    }
}
