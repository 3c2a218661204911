//! What the bot is told in its environment: secrets of a world that exists in one process only,
//! under the names that bots usually read them from. Reads nothing itself.

use std::path::Path;

/// What a bot proves itself to Graph with.
pub(super) const TOKEN: &str = "try-access-token";
/// What deliveries are signed with.
pub(super) const APP_SECRET: &str = "try-app-secret";
/// What the handshake shows.
pub(super) const VERIFY_TOKEN: &str = "try-verify-token";
/// The business number (`phone_number_id`).
pub(super) const NUMBER: &str = "106540352242922";

const ACCOUNT: &str = "100000000000001";
const VERSION: &str = "v23.0";

const NAMES: [(&str, &[&str]); 8] = [
    (
        TOKEN,
        &[
            "WHATSAPP_ACCESS_TOKEN",
            "WHATSAPP_TOKEN",
            "WHATSAPP_API_TOKEN",
            "WHATSAPP_CLOUD_API_TOKEN",
            "META_ACCESS_TOKEN",
            "GRAPH_API_TOKEN",
            "ACCESS_TOKEN",
            "WA_TOKEN",
        ],
    ),
    (
        APP_SECRET,
        &[
            "WHATSAPP_APP_SECRET",
            "META_APP_SECRET",
            "FACEBOOK_APP_SECRET",
            "FB_APP_SECRET",
            "APP_SECRET",
        ],
    ),
    (
        VERIFY_TOKEN,
        &[
            "WHATSAPP_VERIFY_TOKEN",
            "WHATSAPP_WEBHOOK_VERIFY_TOKEN",
            "WEBHOOK_VERIFY_TOKEN",
            "META_VERIFY_TOKEN",
            "VERIFY_TOKEN",
        ],
    ),
    (
        NUMBER,
        &[
            "WHATSAPP_PHONE_NUMBER_ID",
            "WHATSAPP_PHONE_ID",
            "META_PHONE_NUMBER_ID",
            "PHONE_NUMBER_ID",
            "PHONE_ID",
        ],
    ),
    (
        ACCOUNT,
        &[
            "WHATSAPP_BUSINESS_ACCOUNT_ID",
            "BUSINESS_ACCOUNT_ID",
            "WABA_ID",
            "APP_ID",
        ],
    ),
    (
        VERSION,
        &["WHATSAPP_API_VERSION", "GRAPH_API_VERSION", "VERSION"],
    ),
    ("sk-try", &["OPENAI_API_KEY"]),
    // Output that waits in a buffer is missing from the log when it is needed.
    ("1", &["HAPAX_TRY", "PYTHONUNBUFFERED"]),
];

/// The folder that is new for each column, where a bot may keep what it must not remember.
const FOLDERS: [&str; 2] = ["HAPAX_TRY_DIR", "STATE_DIR"];
const PORTS: [&str; 3] = ["PORT", "FLASK_RUN_PORT", "UVICORN_PORT"];
const AI: [&str; 2] = ["OPENAI_BASE_URL", "OPENAI_API_BASE"];

/// Where the bot finds what it needs.
pub(super) struct Surroundings<'a> {
    /// On which it is to listen.
    pub(super) port: u16,
    /// The AI server, with the version.
    pub(super) ai: &'a str,
    /// For its state.
    pub(super) folder: &'a Path,
}

/// Names and values, for the child alone.
pub(super) fn of(surroundings: &Surroundings<'_>) -> Vec<(String, String)> {
    let port = surroundings.port.to_string();
    let folder = surroundings.folder.display().to_string();
    let places: [(&str, &[&str]); 3] =
        [(&port, &PORTS), (surroundings.ai, &AI), (&folder, &FOLDERS)];
    let all = NAMES.iter().copied().chain(places);
    let named = all.flat_map(|(value, names)| names.iter().map(move |name| (*name, value)));
    named
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn each_name_is_told_once() {
        let surroundings = Surroundings {
            port: 5000,
            ai: "http://127.0.0.1:1/v1",
            folder: Path::new("/tmp/x"),
        };
        let told = of(&surroundings);
        let by_name: HashMap<&str, &str> = told
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(by_name.len(), told.len());
        assert_eq!(by_name["PORT"], "5000");
        assert_eq!(by_name["OPENAI_BASE_URL"], "http://127.0.0.1:1/v1");
        assert_eq!(by_name["WHATSAPP_APP_SECRET"], APP_SECRET);
        assert_eq!(by_name["STATE_DIR"], "/tmp/x");
    }
}
