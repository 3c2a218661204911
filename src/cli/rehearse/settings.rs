//! The settings of a node in a rehearsal: a world of its own, in which a minute is a second.

use super::fleet::Doors;
use crate::simulator::faults::Handler;

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

/// Where a bot sends by itself, an attempt has to be over before the next begins: a lease does not
/// run out because a machine is busy, and what was under way when a call was cut arrives first.
const FORWARD: [(&str, &str); 9] = [
    ("HAPAX_HANDLER", "forward"),
    ("HAPAX_FORWARD_STATUSES", "true"),
    ("HAPAX_EGRESS_ANSWER_WITHIN", "1s"),
    ("HAPAX_SEND_TIMEOUT", "3s"),
    ("HAPAX_NODE_LEASE_TTL", "4s"),
    ("HAPAX_TURN_DEADLINE", "6s"),
    ("HAPAX_TURN_BACKOFF_FIRST", "200ms"),
    ("HAPAX_TURN_BACKOFF_MAX", "400ms"),
    ("HAPAX_WORKER_DRAIN_TIMEOUT", "7s"),
];

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// A bot, reached so.
    Bot(Handler),
    /// The built-in echo.
    Echo,
}

/// Everything that the `index`-th node is told, the ledger apart. `scaled`: as for a rehearsal with
/// faults. Of two values for one name the later one counts.
pub(super) fn of_node(
    index: usize,
    doors: &Doors,
    answers: Answers,
    scaled: bool,
) -> Vec<(String, String)> {
    let own = |name: &str, value: String| (name.to_owned(), value);
    let mut all = vec![
        own("HAPAX_PUBLIC_LISTEN", doors.public.addr().to_string()),
        own("HAPAX_ADMIN_LISTEN", doors.admin.addr().to_string()),
        own("HAPAX_BOT_LISTEN", doors.bot_side.addr().to_string()),
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
    if scaled {
        all.extend(SCALED.map(|(name, value)| own(name, value.to_owned())));
    }
    // The bot learns by whom it is called, and sends there.
    let bot_url = format!("http://{}/webhook/{index}", doors.bot.address());
    match answers {
        Answers::Echo => all.push(own("HAPAX_HANDLER", "echo".to_owned())),
        Answers::Bot(Handler::Ask) => all.extend([
            own("HAPAX_HANDLER", "ask".to_owned()),
            own("HAPAX_BOT_URL", bot_url),
            own("HAPAX_ASK_SECRET", APP_SECRET.to_owned()),
        ]),
        Answers::Bot(Handler::Forward) => {
            all.push(own("HAPAX_BOT_URL", bot_url));
            all.extend(FORWARD.map(|(name, value)| own(name, value.to_owned())));
        }
    }
    all
}
