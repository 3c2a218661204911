//! A bot in Rust: says back in capitals what it hears.
//!
//! With what Meta gave you in the environment (see the README), or with any value in place of it
//! to see it start:
//!
//! ```sh
//! WHATSAPP_ACCESS_TOKEN=x WHATSAPP_APP_SECRET=x WHATSAPP_VERIFY_TOKEN=x \
//!     cargo run --example shout
//! ```

use hapax::{Gateway, Handler, Outcome, Turn, async_trait};

struct Shout;

#[async_trait]
impl Handler for Shout {
    async fn handle(&self, turn: &Turn) -> Outcome {
        match turn.text() {
            text if text.is_empty() => Outcome::Silence,
            text => Outcome::reply(text.to_uppercase()),
        }
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    Gateway::new(Shout).run().await
}
