//! The settings of a node in a rehearsal: a world of its own, in which a minute is a second.

use super::fleet::Doors;

pub(super) const TOKEN: &str = "rehearsal-access-token";
pub(super) const APP_SECRET: &str = "rehearsal-app-secret";
pub(super) const VERIFY_TOKEN: &str = "rehearsal-verify-token";

/// Leases, back-offs and limits, scaled down so that a run takes seconds. What has to do with
/// safety must not depend on any of them.
const SCALED: [(&str, &str); 20] = [
    ("HAPAX_NODE_LEASE_TTL", "300ms"),
    ("HAPAX_NODE_RENEW_EVERY", "100ms"),
    ("HAPAX_TURN_DEADLINE", "1s"),
    ("HAPAX_TURN_ATTEMPTS_MAX", "100"),
    ("HAPAX_TURN_BACKOFF_FIRST", "20ms"),
    ("HAPAX_TURN_BACKOFF_MAX", "200ms"),
    ("HAPAX_TURN_UNAVAILABLE_BACKOFF_MAX", "200ms"),
    ("HAPAX_SEND_TIMEOUT", "800ms"),
    ("HAPAX_SEND_CONNECT_TIMEOUT", "300ms"),
    ("HAPAX_SEND_UNSURE_WAIT", "1500ms"),
    ("HAPAX_SEND_BACKOFF_FIRST", "20ms"),
    ("HAPAX_SEND_PAUSE", "200ms"),
    ("HAPAX_SEND_PER_SECOND", "1000"),
    ("HAPAX_STORE_WAIT_MAX", "1s"),
    ("HAPAX_STORE_CONNECT_TIMEOUT", "1s"),
    ("HAPAX_STORE_STATEMENT_TIMEOUT", "4s"),
    ("HAPAX_STORE_LOCK_TIMEOUT", "3s"),
    ("HAPAX_STORE_CONNECTIONS", "4"),
    ("HAPAX_WORKER_DRAIN_TIMEOUT", "1s"),
    ("HAPAX_RETENTION_EVERY", "100ms"),
];

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// A bot that is asked.
    Bot,
    /// The built-in echo.
    Echo,
}

/// Everything that a node is told, the ledger apart. `scaled`: as for a rehearsal with faults.
pub(super) fn of_node(doors: &Doors, answers: Answers, scaled: bool) -> Vec<(String, String)> {
    let own = |name: &str, value: String| (name.to_owned(), value);
    let mut all = vec![
        own("HAPAX_PUBLIC_LISTEN", doors.public.addr().to_string()),
        own("HAPAX_ADMIN_LISTEN", doors.admin.addr().to_string()),
        own("HAPAX_BOT_LISTEN", "127.0.0.1:0".to_owned()),
        own("HAPAX_LOG", "warn".to_owned()),
        own("HAPAX_LOG_FORMAT", "json".to_owned()),
        own("WHATSAPP_ACCESS_TOKEN", TOKEN.to_owned()),
        own("WHATSAPP_APP_SECRET", APP_SECRET.to_owned()),
        own("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN.to_owned()),
        own(
            "WHATSAPP_API_URL",
            format!("http://{}", doors.graph.address()),
        ),
    ];
    match answers {
        Answers::Echo => all.push(own("HAPAX_HANDLER", "echo".to_owned())),
        Answers::Bot => all.extend([
            own("HAPAX_HANDLER", "ask".to_owned()),
            own(
                "HAPAX_BOT_URL",
                format!("http://{}/webhook", doors.bot.address()),
            ),
            own("HAPAX_ASK_SECRET", APP_SECRET.to_owned()),
        ]),
    }
    if scaled {
        all.extend(SCALED.map(|(name, value)| own(name, value.to_owned())));
    }
    all
}
