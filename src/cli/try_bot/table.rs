//! What was counted, as two columns for people and as JSON for scripts, and what to do next.

use serde_json::{Value, json};

use super::Done;
use crate::simulator::Counts;

/// Both columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    pub(super) alone: Counts,
    pub(super) behind: Counts,
    /// How often the bot was killed in each.
    pub(super) kills: [u64; 2],
}

/// What was tried.
pub(super) struct Tried<'a> {
    pub(super) done: Done,
    /// The bot's webhook, at a port of the user's.
    pub(super) webhook: &'a str,
    /// Whether it knew the verify token that it was told.
    pub(super) is_verified: bool,
    pub(super) command: &'a str,
    /// What starts it there, so that it sends through Hapax.
    pub(super) start: &'a str,
}

impl Columns {
    pub(super) fn table(&self) -> String {
        let mut table = format!("  {:<17}{:>8}{:>15}\n", "", "alone", "behind Hapax");
        if self.kills != [0; 2] {
            let [alone, behind] = self.kills;
            table.push_str(&format!(
                "  {:<17}{alone:>8}{behind:>15}\n",
                "kills of the bot"
            ));
        }
        let (alone, behind) = (rows(&self.alone), rows(&self.behind));
        for ((name, alone), (_, behind)) in alone.into_iter().zip(behind) {
            table.push_str(&format!(
                "  {name:<17}{:>8}{:>15}\n",
                shown(alone),
                shown(behind)
            ));
        }
        table
    }

    pub(super) fn json(&self) -> Value {
        let [alone, behind] = self.kills;
        json!({
            "alone": column(&self.alone, alone),
            "behind_hapax": column(&self.behind, behind),
            "clean": self.is_clean(),
        })
    }

    /// Whether everything behind Hapax was answered once; `None`: no fault is seen, and which
    /// message a reply answers can't be told.
    pub(super) fn is_clean(&self) -> Option<bool> {
        match (self.behind.is_clean(), self.behind.is_told()) {
            (false, _) => Some(false),
            (true, true) => Some(true),
            (true, false) => None,
        }
    }

    /// Whether the bot answers the webhook before it has done the work; from the column in which
    /// nothing holds it back.
    pub(super) const fn works_after_answering(&self) -> bool {
        self.alone.works_after_answering()
    }

    /// What the user may do next.
    pub(super) fn advice(&self, tried: &Tried<'_>) -> String {
        let Self { alone, behind, .. } = self;
        if alone.replies == 0 && behind.replies == 0 {
            return no_reply(tried);
        }
        if alone.replies == 0 {
            return "Alone, nothing that the bot sent has reached Graph: the columns can't be \
                    compared. The bot's output tells more."
                .to_owned();
        }
        let again = |flag: &str| format!("hapax try {flag} -- {}", tried.command);
        let waits = matches!(tried.done, Done::Response) && self.works_after_answering();
        // With as many in both columns it is the bot's way, and no fault of delivery.
        let is_talkative = |counts: &Counts| counts.double_answers * 10 > counts.messages * 9;
        match (behind.is_clean(), waits) {
            (true, false) if !behind.is_told() => format!(
                "Behind Hapax there were as many replies as messages. Which answers which can't be \
                 told, since they quote nothing of it. Next: HAPAX_BOT_URL={} hapax serve, and the \
                 bot by {}",
                tried.webhook, tried.start
            ),
            (true, false) => format!(
                "Every message was answered once. Next: HAPAX_BOT_URL={} hapax serve, and the bot \
                 by {}",
                tried.webhook, tried.start
            ),
            (true, true) => format!(
                "Clean this time. But the bot answers the webhook first and works afterwards, and \
                 order ends at its 200. Next: {}, which is HAPAX_FORWARD_DONE=reply",
                again("--done reply")
            ),
            (false, true) => format!(
                "The bot answers the webhook first and works afterwards; Hapax takes its 200 for \
                 the end. Next: {}, which is HAPAX_FORWARD_DONE=reply",
                again("--done reply")
            ),
            (false, false) if is_talkative(alone) && is_talkative(behind) => format!(
                "The bot seems to answer each message with several. Next, with their number: {}",
                again("--replies 2")
            ),
            (false, false) => "Behind Hapax not everything was answered once. The bot's output \
                               tells what it met."
                .to_owned(),
        }
    }
}

fn no_reply(tried: &Tried<'_>) -> String {
    match tried.is_verified {
        true => "No reply was seen. The bot's output tells why; what it sends must go to \
                 graph.facebook.com."
            .to_owned(),
        false => "No reply was seen, and the bot's webhook knows another verify token: it has its \
                  secrets from elsewhere. Let it read WHATSAPP_VERIFY_TOKEN, WHATSAPP_APP_SECRET \
                  and WHATSAPP_ACCESS_TOKEN from its environment."
            .to_owned(),
    }
}

fn rows(counts: &Counts) -> [(&'static str, Option<u64>); 6] {
    [
        ("messages", Some(counts.messages)),
        ("replies", Some(counts.replies)),
        ("double answers", Some(counts.double_answers)),
        ("split threads", counts.split_threads),
        ("out of order", counts.out_of_order),
        ("missing", Some(counts.missing)),
    ]
}

fn shown(count: Option<u64>) -> String {
    count.map_or_else(|| "not seen".to_owned(), |count| count.to_string())
}

fn column(counts: &Counts, kills: u64) -> Value {
    json!({
        "kills": kills,
        "messages": counts.messages,
        "replies": counts.replies,
        "double_answers": counts.double_answers,
        "split_threads": counts.split_threads,
        "out_of_order": counts.out_of_order,
        "missing": counts.missing,
        "replies_that_quote_nothing": counts.unquoted,
        "threads": counts.threads,
        "works_after_answering": counts.works_after_answering(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: Counts = Counts {
        messages: 300,
        replies: 300,
        double_answers: 0,
        split_threads: Some(0),
        out_of_order: Some(0),
        unquoted: 0,
        missing: 0,
        answered_late: 0,
        threads: 40,
    };
    const TRIED: Tried<'_> = Tried {
        done: Done::Response,
        webhook: "http://127.0.0.1:5000/webhook",
        is_verified: true,
        command: "python bot.py",
        start: "PORT=5000 hapax run -- python bot.py",
    };

    fn columns(behind: Counts) -> Columns {
        let alone = Counts {
            replies: 517,
            double_answers: 143,
            split_threads: None,
            ..CLEAN
        };
        Columns {
            alone,
            behind,
            kills: [0; 2],
        }
    }

    #[test]
    fn the_table_has_two_columns() {
        let expected = "
                      alone   behind Hapax
  messages              300            300
  replies               517            300
  double answers        143              0
  split threads    not seen              0
  out of order            0              0
  missing                 0              0
";
        assert_eq!(format!("\n{}", columns(CLEAN).table()), expected);
        let json = columns(CLEAN).json();
        assert_eq!(json["alone"]["double_answers"], 143);
        assert!(json["alone"]["split_threads"].is_null());
        assert_eq!(
            (&json["clean"], &json["behind_hapax"]["threads"]),
            (&json!(true), &json!(40))
        );
    }

    #[test]
    fn the_advice_names_what_suits_the_bot() {
        let advice = |columns: Columns| columns.advice(&TRIED);
        let next = "HAPAX_BOT_URL=http://127.0.0.1:5000/webhook hapax serve, and the bot by \
                    PORT=5000 hapax run -- python bot.py";
        assert!(advice(columns(CLEAN)).ends_with(next));
        let mut late = columns(CLEAN);
        late.alone.answered_late = 200;
        assert!(advice(late).contains("HAPAX_FORWARD_DONE=reply"));
        late.behind.out_of_order = Some(1);
        assert!(advice(late).contains("hapax try --done reply -- python bot.py"));
        let told = Tried {
            done: Done::Reply,
            ..TRIED
        };
        assert!(!late.advice(&told).contains("--done"));
        let several = Counts {
            replies: 600,
            double_answers: 300,
            ..CLEAN
        };
        let alone = several;
        let behind = several;
        assert!(
            advice(Columns {
                alone,
                behind,
                kills: [0; 2]
            })
            .contains("--replies 2")
        );
        let mut silent = columns(Counts {
            replies: 0,
            missing: 300,
            ..CLEAN
        });
        silent.alone = silent.behind;
        assert!(advice(silent).contains("No reply was seen"));
        let stranger = Tried {
            is_verified: false,
            ..TRIED
        };
        assert!(silent.advice(&stranger).contains("WHATSAPP_VERIFY_TOKEN"));
    }
}
