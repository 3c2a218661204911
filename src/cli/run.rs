//! `hapax run`: starts a bot so that its calls to `graph.facebook.com` come to the gateway.
//!
//! The bot takes this process's place: its signals, its exit status and its terminal are its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;

use super::fault;
use crate::clock::Clock;
use crate::config::{self, Sources};
use crate::proxy::environment::{Surroundings, Variables, prepare};
use crate::proxy::{Authority, DESCRIPTION_PATH, Description};

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The bot side of the gateway; without it, that of bot.listen.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The folder of the certificate authority; without it, the one that the gateway tells.
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// Start nothing; print what would be set, as NAME=value lines.
    #[arg(long)]
    print_env: bool,
    /// The gateway's TOML file; without it ./hapax.toml is read if it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The gateway's file of NAME=value lines.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// The bot's command and its arguments.
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required_unless_present = "print_env"
    )]
    command: Vec<OsString>,
}

/// How long the gateway may take to tell what it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// As a shell says it: a program that can't be run, and one that is not there.
const EXIT_NOT_RUN: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;

impl Run {
    pub(super) async fn run(self) -> ExitCode {
        let prepared = match self.prepare().await {
            Ok(prepared) => prepared,
            Err(text) => return fault(&text),
        };
        match self.command.split_first() {
            Some((program, arguments)) if !self.print_env => {
                tell(&prepared.url);
                become_the_bot(program, arguments, &prepared.variables)
            }
            Some(_) | None => {
                print(&prepared.variables);
                ExitCode::SUCCESS
            }
        }
    }

    async fn prepare(&self) -> Result<Prepared, String> {
        let sources = Sources::from_process(self.config.clone(), self.env_file.clone());
        let before: Variables = sources.env.iter().cloned().collect();
        let url = match &self.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => listening(sources)?,
        };
        check(&url)?;
        let gateway = describe(&url).await?;
        let folder = self.ca_dir.as_ref().unwrap_or(&gateway.ca_dir);
        let authority = trusted(folder, &gateway)?;
        let around = Surroundings {
            proxy: &url,
            base_url: &url,
            authority: &authority,
        };
        let variables = prepare(&before, around).map_err(|error| error.to_string())?;
        Ok(Prepared { url, variables })
    }
}

/// What a bot is told, and where its calls go.
struct Prepared {
    url: String,
    variables: Variables,
}

/// Where the settings say that bots are listened to.
fn listening(sources: Sources) -> Result<String, String> {
    let bot = config::load_bot(sources).map_err(|faults| faults.to_string())?;
    if bot.listen.port() == 0 {
        return Err(
            "bot.listen (HAPAX_BOT_LISTEN): expected a port that is known, found 0, any port; \
             give --url"
                .to_owned(),
        );
    }
    Ok(format!("http://{}", bot.listen))
}

/// The URL has to be one that a proxy has, and on this machine: what is said there is in clear.
fn check(url: &str) -> Result<(), String> {
    let uri = url.parse::<http::Uri>().ok();
    let is_right = uri.as_ref().is_some_and(|uri| {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let ip = host.parse::<IpAddr>();
        let is_here = ip.map_or(host == "localhost", |ip| ip.is_loopback());
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        uri.scheme_str() == Some("http") && uri.port().is_some() && is_here && is_bare
    });
    is_right.then_some(()).ok_or_else(|| {
        format!(
            "expected the gateway's bot side on a loopback address, as http://127.0.0.1:8081, \
             found {url}: hapax is no proxy for other machines. Start the bot where the gateway \
             is, with bot.listen (HAPAX_BOT_LISTEN) on 127.0.0.1"
        )
    })
}

/// Asks the gateway what it is.
async fn describe(url: &str) -> Result<Description, String> {
    // Whoever was first in this process; every client needs one, though it speaks no TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build();
    let client = client.map_err(|error| format!("no HTTP client: {error}"))?;
    let answer = client.get(format!("{url}{DESCRIPTION_PATH}")).send().await;
    let answer = answer.map_err(|_| {
        format!(
            "expected a gateway at {url}, found none: start hapax serve first, or give its bot \
             side with --url"
        )
    })?;
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    serde_json::from_str(&text).map_err(|_| {
        let said = text.lines().next().unwrap_or_default();
        format!(
            "expected a gateway's bot side at {url}, found something that answers {status} {said}"
        )
    })
}

/// The authority that the gateway signs with: its key shows that nobody but this user made it.
fn trusted(folder: &Path, gateway: &Description) -> Result<Authority, String> {
    let theirs = gateway.ca_dir.display();
    if !folder.exists() {
        let folder = folder.display();
        return Err(format!(
            "expected the gateway's certificate authority in {folder}, found no such folder; the \
             gateway has it in {theirs}"
        ));
    }
    let authority = Authority::open(folder, Clock::system()).map_err(|error| error.to_string())?;
    if authority.fingerprint() != gateway.ca_sha256 {
        return Err(format!(
            "expected the gateway's certificate authority in {}, found another one; the gateway \
             has opened {theirs}: name that by --ca-dir, or start the gateway again if it was \
             replaced",
            folder.display()
        ));
    }
    Ok(authority)
}

#[expect(clippy::print_stderr, reason = "for the person who typed the command")]
fn tell(url: &str) {
    eprintln!(
        "hapax: https of this command goes through {url}, which answers for graph.facebook.com; \
         hapax run --print-env shows what is set"
    );
}

#[expect(clippy::print_stdout, reason = "what the option is for")]
fn print(variables: &BTreeMap<String, String>) {
    for (name, value) in variables {
        println!("{name}={value}");
    }
}

/// Returns only if the bot can't be started.
#[expect(clippy::print_stderr, reason = "for the person who typed the command")]
fn become_the_bot(program: &OsString, arguments: &[OsString], variables: &Variables) -> ExitCode {
    let error = Command::new(program).args(arguments).envs(variables).exec();
    let program = program.display();
    if error.kind() == io::ErrorKind::NotFound {
        eprintln!("hapax: expected a program, found no {program}");
        return ExitCode::from(EXIT_NOT_FOUND);
    }
    eprintln!("hapax: expected a program that can be started, found {program}: {error}");
    ExitCode::from(EXIT_NOT_RUN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bot_side_is_a_loopback_address_in_clear() {
        for right in [
            "http://127.0.0.1:8081",
            "http://localhost:1",
            "http://[::1]:8081",
        ] {
            check(right).expect(right);
        }
        for wrong in [
            "https://127.0.0.1:8081",
            "http://10.0.0.1:8081",
            "http://hapax.example.org:8081",
            "http://127.0.0.1",
            "http://127.0.0.1:8081/v25.0",
            "127.0.0.1:8081",
            "",
        ] {
            check(wrong).expect_err(wrong);
        }
    }
}
