//! What a bot does that answers people itself: it calls the Graph API for each of its replies, at
//! an address that it was told, and answers its webhook only then.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::bot::Call;
use super::reference::Reference;
use crate::model::Secret;

/// How long a call of the Graph API may take.
const SEND_MAX: Duration = Duration::from_secs(10);
/// After so long somebody impatient gives up and asks again.
const PATIENCE: Duration = Duration::from_millis(40);

/// What came of a call that was worked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worked {
    /// The answer.
    pub status: u16,
    /// How many replies the Graph API has answered for good: taken, or refused.
    pub replies: usize,
}

/// Work at a call, until it is done.
pub type Work = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Worked> + Send>> + Send + Sync>;

/// How a bot sends: where it finds the Graph API, and as whom.
#[derive(Debug, Clone)]
pub struct Sending {
    http: reqwest::Client,
    urls: Vec<String>,
    token: Secret,
}

/// What a bot says to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Speech {
    /// How many replies.
    pub(super) parts: usize,
    /// After so many it fails, with a 500.
    pub(super) fails_after: Option<usize>,
    /// It gives each reply an idempotency key, does not wait for the answer, and asks again.
    pub(super) is_impatient: bool,
    /// It says the same in each call.
    pub(super) is_literal: bool,
}

impl Sending {
    /// `urls`: the Graph API for calls whose path ends with 0, 1, and so on; each without a
    /// version and without a slash at the end.
    ///
    /// # Errors
    /// No HTTP client can be had.
    pub fn to(urls: Vec<String>, token: Secret) -> Result<Self, reqwest::Error> {
        // Fails where the process has installed a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(SEND_MAX)
            .build()?;
        Ok(Self { http, urls, token })
    }

    /// Says all of it, one thing after the other, and nothing more once something is not taken by
    /// anybody, or once it `is_asked_again`: then it is said there. What Meta refuses is left at
    /// that.
    pub(super) async fn speak(
        &self,
        call: &Call,
        speech: Speech,
        is_asked_again: impl Fn() -> bool + Send,
    ) -> Worked {
        let mut replies = 0;
        for part in 1..=speech.parts {
            if speech.fails_after == Some(part - 1) || is_asked_again() {
                return Worked {
                    status: 500,
                    replies,
                };
            }
            match self.say(call, part, &speech).await {
                Some(200 | 400..=499) => replies += 1,
                Some(_) | None => {
                    return Worked {
                        status: 500,
                        replies,
                    };
                }
            }
        }
        let status = match speech.fails_after {
            Some(_) => 500,
            None => 200,
        };
        Worked { status, replies }
    }

    /// The status of the answer; `None`: there was none.
    async fn say(&self, call: &Call, part: usize, speech: &Speech) -> Option<u16> {
        let key = call
            .wamids()
            .first()
            .map(|wamid| format!("{wamid}/{part}"))?;
        let body = message(call, part, speech)?;
        let post = || {
            let post = self.http.post(self.url(call)?).json(&body);
            Some(post.bearer_auth(self.token.expose()))
        };
        if !speech.is_impatient {
            return status(post()?).await;
        }
        let keyed = || Some(post()?.header("Idempotency-Key", &key));
        match status(keyed()?.timeout(PATIENCE)).await {
            Some(status) => Some(status),
            None => status(keyed()?).await,
        }
    }

    fn url(&self, call: &Call) -> Option<String> {
        let index: usize = call.path.rsplit('/').next()?.parse().ok()?;
        let number = value(call)["metadata"]["phone_number_id"].as_str()?;
        Some(format!("{}/v25.0/{number}/messages", self.urls.get(index)?))
    }
}

async fn status(request: reqwest::RequestBuilder) -> Option<u16> {
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    // Who does not read an answer to its end has not got it.
    answer.bytes().await.ok()?;
    Some(status)
}

fn value(call: &Call) -> &Value {
    &call.json["entry"][0]["changes"][0]["value"]
}

/// To whoever wrote, or to their group.
fn message(call: &Call, part: usize, speech: &Speech) -> Option<Value> {
    let number = if speech.is_literal { 0 } else { call.number };
    let text = Reference::lines(&call.wamids(), number, (part, speech.parts));
    let written = &value(call)["messages"][0];
    let to = |name: &str| written[name].as_str().map(str::to_owned);
    let mut body = Map::new();
    match (to("group_id"), to("from"), to("from_user_id")) {
        (Some(group), ..) => {
            body.insert("recipient_type".into(), json!("group"));
            body.insert("to".into(), json!(group));
        }
        (None, Some(phone), _) => {
            body.insert("to".into(), json!(phone));
        }
        (None, None, user) => {
            body.insert("recipient".into(), json!(user?));
        }
    }
    body.insert("messaging_product".into(), json!("whatsapp"));
    body.insert("type".into(), json!("text"));
    body.insert("text".into(), json!({ "body": text }));
    Some(body.into())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;
    use crate::simulator::bot::Proof;

    fn call(message: &Value) -> Call {
        let value = json!({
            "metadata": { "phone_number_id": "106" },
            "messages": [message],
        });
        Call {
            began: 1,
            number: 7,
            ended: None,
            path: "/webhook/1".to_owned(),
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
            json: json!({ "entry": [{ "changes": [{ "value": value }] }] }),
            proof: Proof::Valid,
            status: None,
        }
    }

    #[test]
    fn it_writes_to_whoever_wrote_in_the_way_they_are_known() {
        let speech = Speech {
            parts: 2,
            fails_after: None,
            is_impatient: false,
            is_literal: false,
        };
        let to = |written: Value| message(&call(&written), 1, &speech).expect("somebody wrote");
        let by_phone = to(json!({ "id": "w", "from": "1555", "from_user_id": "US.1" }));
        assert_eq!(by_phone["to"], "1555");
        assert_eq!(by_phone["text"]["body"], "to w in call 7, 1 of 2");
        let by_user = to(json!({ "id": "w", "from_user_id": "US.1" }));
        assert_eq!(
            (&by_user["recipient"], &by_user["to"]),
            (&json!("US.1"), &Value::Null)
        );
        let in_group = to(json!({ "id": "w", "from": "1555", "group_id": "g" }));
        let group = (&in_group["to"], &in_group["recipient_type"]);
        assert_eq!(group, (&json!("g"), &json!("group")));
        assert_eq!(message(&call(&json!({ "id": "w" })), 1, &speech), None);
        let literal = Speech {
            is_literal: true,
            ..speech
        };
        let same = message(&call(&json!({ "id": "w", "from": "1" })), 2, &literal);
        let same = same.expect("somebody wrote");
        assert_eq!(same["text"]["body"], "to w in call 0, 2 of 2");
    }

    #[test]
    fn it_sends_to_the_node_that_called() {
        let urls = vec!["http://a".to_owned(), "http://b".to_owned()];
        let sending = Sending::to(urls, Secret::new("token")).expect("a client");
        let url = sending.url(&call(&json!({ "id": "w", "from": "1555" })));
        assert_eq!(url.as_deref(), Some("http://b/v25.0/106/messages"));
    }
}
