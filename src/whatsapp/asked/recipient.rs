//! Who a bot writes to, as it dials them.

use crate::model::{Aliases, Recipient};
use crate::whatsapp::decode;
use crate::whatsapp::told::Refused;

use super::parameters::Parameters;

/// The most digits that are taken for a phone number; E.164 has 15.
const PHONE_DIGITS_MAX: usize = 20;
/// Far longer than any id of a group.
const GROUP_ID_MAX: usize = 200;

/// Who a bot writes to.
#[derive(Clone, PartialEq, Eq)]
pub struct Dialled {
    /// As the bot wrote it.
    pub input: String,
    /// Where it goes.
    pub recipient: Recipient,
    /// The other side of the conversation.
    pub to: Aliases,
}

impl std::fmt::Debug for Dialled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dialled({:?})", self.recipient)
    }
}

impl Dialled {
    /// Reads it. `to` wins over `recipient`, as at Meta. A phone number is taken with its
    /// country code, whether or not it begins with `+`.
    ///
    /// # Errors
    /// Nobody is named, or nobody that a message could go to.
    ///
    /// Source: Meta, *Send messages: phone number formats*; *Business-scoped user ids*.
    pub(super) fn of(parameters: &Parameters) -> Result<Self, Refused> {
        if let Some(to) = parameters.text("to") {
            return match parameters.text("recipient_type").as_deref() {
                Some("group") => Self::group(to),
                _ => Self::phone(to),
            };
        }
        match parameters.text("recipient") {
            Some(id) => Self::user(id),
            None => Err(Refused::missing("to")),
        }
    }

    fn phone(input: String) -> Result<Self, Refused> {
        let digits = decode::digits(&input).filter(|digits| digits.len() <= PHONE_DIGITS_MAX);
        let digits = digits.ok_or_else(|| Refused::value("to", "is not a phone number"))?;
        Ok(Self {
            input,
            to: Aliases {
                phone: Some(digits.clone()),
                ..Aliases::default()
            },
            recipient: Recipient::Phone(digits),
        })
    }

    fn group(input: String) -> Result<Self, Refused> {
        if input.len() > GROUP_ID_MAX || !input.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Refused::value("to", "is not the id of a group"));
        }
        Ok(Self {
            to: Aliases {
                group: Some(input.clone()),
                ..Aliases::default()
            },
            recipient: Recipient::Group(input.clone()),
            input,
        })
    }

    fn user(input: String) -> Result<Self, Refused> {
        let named = decode::person(input.trim()).filter(|person| person.phone.is_none());
        let to = named.ok_or_else(|| Refused::value("recipient", "is not a user id"))?;
        Ok(Self {
            recipient: Recipient::Bsuid(input.trim().to_owned()),
            to,
            input,
        })
    }
}
