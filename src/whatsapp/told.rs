//! What a bot is told of its calls, in the shapes of the Graph API: a message that was taken on,
//! and a refusal.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::asked::Dialled;
use super::json as lenient;
use crate::model::Recipient;

/// Meta's answer to a send, with what this bot has dialled in place of what was dialled for it;
/// where Meta's answer was lost, or is not there yet, one like it.
///
/// Source: Meta, *Messages API*.
pub fn accepted(answer: Option<&str>, id: &str, dialled: &Dialled) -> String {
    let kept = answer.and_then(|answer| serde_json::from_str(answer).ok());
    let mut answer = match kept {
        Some(answer @ Value::Object(_)) => answer,
        Some(_) | None => json!({}),
    };
    answer["messaging_product"] = json!("whatsapp");
    match answer["contacts"].get_mut(0) {
        Some(Value::Object(contact)) => {
            contact.insert("input".to_owned(), json!(dialled.input));
        }
        Some(_) | None => answer["contacts"] = json!([contact(dialled)]),
    }
    match answer["messages"].get_mut(0) {
        Some(Value::Object(message)) => {
            message.insert("id".to_owned(), json!(id));
        }
        Some(_) | None => answer["messages"] = json!([{"id": id}]),
    }
    answer.to_string()
}

fn contact(dialled: &Dialled) -> Value {
    let input = &dialled.input;
    match &dialled.recipient {
        Recipient::Phone(id) | Recipient::Group(id) => json!({"input": input, "wa_id": id}),
        Recipient::Bsuid(id) => json!({"input": input, "user_id": id}),
    }
}

/// The phone number that Meta took another one for, by its answer to a send.
pub fn taken_for(answer: &str, dialled: &Dialled) -> Option<String> {
    let Recipient::Phone(digits) = &dialled.recipient else {
        return None;
    };
    let root = lenient::parse(answer)?;
    let contacts = root.array("contacts")?;
    let wa_id = lenient::object(contacts.first()?)?.text("wa_id")?;
    super::decode::phone(&wa_id).filter(|wa_id| wa_id != digits)
}

/// Marked as read.
pub fn success() -> String {
    json!({"success": true}).to_string()
}

/// A call that is refused, in Graph's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    status: u16,
    code: i64,
    kind: &'static str,
    message: String,
    details: Option<String>,
    is_transient: bool,
}

const OAUTH: &str = "OAuthException";

impl Refused {
    fn new(status: u16, code: i64, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            kind: OAUTH,
            message: message.into(),
            details: None,
            is_transient: false,
        }
    }

    fn with(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// The token is not the right one, or missing.
    pub fn token() -> Self {
        let message = "Invalid OAuth access token - Cannot parse access token";
        Self::new(401, 190, message)
    }

    /// The call can't be meant so.
    pub fn wrong(details: impl Into<String>) -> Self {
        Self::new(400, 100, "(#100) Invalid parameter").with(details)
    }

    /// It says nothing of WhatsApp.
    pub(super) fn product() -> Self {
        let message = "(#100) The parameter messaging_product is required.";
        Self::new(400, 100, message).with("expected messaging_product: \"whatsapp\"")
    }

    /// A parameter is not there.
    pub(super) fn missing(parameter: &str) -> Self {
        let message = "(#131008) Required parameter is missing";
        Self::new(400, 131_008, message).with(format!("Parameter '{parameter}' is mandatory."))
    }

    /// A parameter says what it can't.
    pub(super) fn value(parameter: &str, why: &str) -> Self {
        let message = "(#131009) Parameter value is not valid";
        Self::new(400, 131_009, message).with(format!("Parameter '{parameter}' {why}."))
    }

    /// A number that is not served here.
    pub fn number() -> Self {
        let message = "Unsupported post request. Object with this ID does not exist, cannot be \
                       loaded due to missing permissions, or does not support this operation";
        Self::new(400, 100, message).with("Hapax serves the number of whatsapp.phone_number_id")
    }

    /// Too many messages to one person.
    pub fn pair_rate() -> Self {
        let message = "(#131056) (Business Account, Consumer Account) pair rate limit hit";
        Self::new(400, 131_056, message).with("too many messages in one turn")
    }

    /// It will never be sent, for a reason that is not Meta's.
    pub fn never(reason: &str) -> Self {
        Self::new(400, 131_000, "(#131000) Something went wrong").with(reason)
    }

    /// What would go round the record of what was sent.
    pub fn goes_round(details: &str) -> Self {
        Self::new(400, 3, "(#3) Application does not have the capability").with(details)
    }

    /// It can't be done now, and nothing of it was.
    pub fn unavailable(details: impl Into<String>) -> Self {
        Self {
            is_transient: true,
            ..Self::new(503, 2, "Service temporarily unavailable").with(details)
        }
    }

    /// Meta could not be reached, or broke off.
    pub fn no_way(details: impl Into<String>) -> Self {
        Self {
            status: 502,
            ..Self::unavailable(details)
        }
    }

    /// The body is longer than it may be.
    pub fn too_long(limit: usize) -> Self {
        Self {
            status: 413,
            ..Self::wrong(format!("the body is longer than {limit} bytes"))
        }
    }

    /// The body did not come in time, or not whole.
    pub fn body(details: impl Into<String>) -> Self {
        Self {
            status: 408,
            ..Self::wrong(details)
        }
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Graph's code.
    pub const fn code(&self) -> i64 {
        self.code
    }

    /// The body of the answer.
    pub fn body_text(&self) -> String {
        let mut error = json!({
            "message": self.message,
            "type": self.kind,
            "code": self.code,
            "fbtrace_id": trace_id(),
        });
        if self.is_transient {
            error["is_transient"] = json!(true);
        }
        if let Some(details) = &self.details {
            error["error_data"] = json!({"messaging_product": "whatsapp", "details": details});
        }
        json!({"error": error}).to_string()
    }
}

/// Looks like Meta's, and can't be one: theirs hold no dot.
fn trace_id() -> String {
    let mut random = [0; 12];
    match getrandom::fill(&mut random) {
        Ok(()) => format!("AHapax.{}", URL_SAFE_NO_PAD.encode(random)),
        // A name for support to ask after; nothing depends on it.
        Err(_) => "AHapax.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::asked::{Asked, Parameters, Written, asked};
    use super::*;

    fn dialled(to: &Value) -> Dialled {
        let mut body = to.clone();
        body["messaging_product"] = json!("whatsapp");
        body["text"] = json!({"body": "hi"});
        let parameters = Parameters::read("", Written::Json, body.to_string().as_bytes());
        match asked(parameters.unwrap()) {
            Ok(Asked::Send(send)) => send.to,
            other => panic!("{other:?}"),
        }
    }

    fn read(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn metas_answer_is_told_with_what_this_bot_dialled() {
        let answer = r#"{"messaging_product":"whatsapp","contacts":[{"input":"+49","wa_id":"50"}],
            "messages":[{"id":"wamid.A","message_status":"accepted"}],"later":1}"#;
        let to = dialled(&json!({"to": "4 9"}));
        let expected = json!({"messaging_product": "whatsapp", "later": 1,
            "contacts": [{"input": "4 9", "wa_id": "50"}],
            "messages": [{"id": "wamid.A", "message_status": "accepted"}]});
        assert_eq!(read(&accepted(Some(answer), "wamid.A", &to)), expected);
        assert_eq!(taken_for(answer, &to).as_deref(), Some("50"));
        assert_eq!(taken_for(answer, &dialled(&json!({"to": "50"}))), None);
        assert_eq!(taken_for("[]", &to), None);
    }

    #[test]
    fn an_answer_that_was_lost_is_made_up() {
        let user = json!({"recipient": "US.1"});
        let group = json!({"to": "g1", "recipient_type": "group"});
        let cases = [
            (json!({"to": "+49"}), json!({"input": "+49", "wa_id": "49"})),
            (user, json!({"input": "US.1", "user_id": "US.1"})),
            (group, json!({"input": "g1", "wa_id": "g1"})),
        ];
        for (to, contact) in cases {
            for lost in [None, Some("<html>"), Some("[]"), Some("{\"contacts\":7}")] {
                let expected = json!({"messaging_product": "whatsapp", "contacts": [contact],
                    "messages": [{"id": "wamid.A"}]});
                assert_eq!(read(&accepted(lost, "wamid.A", &dialled(&to))), expected);
            }
        }
    }

    #[test]
    fn a_refusal_has_graphs_shape() {
        let refused = read(&Refused::token().body_text());
        let error = &refused["error"];
        assert_eq!(error["code"], 190);
        assert_eq!(error["type"], "OAuthException");
        assert!(error["fbtrace_id"].as_str().unwrap().starts_with("AHapax."));
        assert_eq!(Refused::token().status(), 401);
        let later = read(&Refused::unavailable("x").body_text());
        assert_eq!(later["error"]["is_transient"], true);
        assert_eq!(later["error"]["error_data"]["details"], "x");
    }
}
