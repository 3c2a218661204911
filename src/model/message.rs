//! A message as a handler sees it: the flat fields that bots ask for, and the raw element.

use serde::Serialize;
use serde_json::value::RawValue;

use super::ids::EventKey;

/// One message of a turn. Fields that a type does not have are absent.
#[derive(Debug, Clone, Serialize)]
pub struct Message {
    /// Meta's id of the message.
    pub id: String,
    /// Meta's `type`: `text`, `image`, `interactive`, …, or `unknown`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The sender's phone number without `+`; absent when the person hides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The sender's business-scoped user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_user_id: Option<String>,
    /// The sender's profile name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it was written: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// What the person said: the text, a caption, the title of a tapped button or list row,
    /// the emoji of a reaction, the new text of an edit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The message this one answers or reacts to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// The id of the tapped button or list row, or a template button's payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub button: Option<String>,
    /// The attached media.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// Whether it was forwarded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forwarded: bool,
    /// The element of `messages[]` as Meta sent it.
    pub raw: Box<RawValue>,
    /// The event it came as.
    #[serde(skip)]
    pub key: EventKey,
    /// A whole webhook body in Meta's shape that holds only this message.
    #[serde(skip)]
    pub envelope: String,
}

/// An attachment. The bytes are fetched from Meta by id.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Media {
    /// Meta's media id; lives seven days.
    pub id: String,
    /// For example `image/jpeg`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
    /// SHA-256 of the bytes, as Meta words it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The file's name, for documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Whether an audio is a voice note.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub voice: bool,
}
