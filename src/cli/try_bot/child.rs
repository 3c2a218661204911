//! The user's bot as a child: started in a process group of its own, its output in a file, and
//! ended with all that it has started, whatever ends first.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

use crate::clock::Clock;

/// How long an orderly end may take.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long what a killed bot has started may go on: a server's workers see that it is gone.
const ORPHANS_MAX: Duration = Duration::from_millis(1500);
const TAIL_LINES: usize = 20;
const PORT: &str = "{port}";

/// How a bot is started.
#[derive(Clone)]
pub(super) struct Launch<'a> {
    /// Program and arguments; `{port}` stands for the port.
    pub(super) command: &'a [String],
    pub(super) port: u16,
    pub(super) env: Vec<(String, String)>,
    /// Where its output goes.
    pub(super) log: PathBuf,
}

/// A running bot. Dropped, it is killed with everything in its process group.
pub(super) struct Bot<'a> {
    launch: Launch<'a>,
    child: Child,
    /// The process group; `None` once it is ended.
    group: Option<Pid>,
    clock: Clock,
}

/// What is killed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killed {
    /// The process that was started; what it has started goes on for a moment, and is killed then.
    Master,
    /// All of it at once.
    All,
}

/// The text with the port in it.
pub(super) fn with_port(text: &str, port: u16) -> String {
    text.replace(PORT, &port.to_string())
}

impl<'a> Bot<'a> {
    pub(super) fn start(launch: Launch<'a>, clock: Clock) -> Result<Self, String> {
        let (child, group) = spawn(&launch)?;
        Ok(Self {
            launch,
            child,
            group,
            clock,
        })
    }

    /// Starts it once more, after it has ended; its output goes on in the same file.
    pub(super) fn start_again(&mut self) -> Result<(), String> {
        self.end_group();
        (self.child, self.group) = spawn(&self.launch)?;
        Ok(())
    }

    /// Kills it as `kill -9` does, and returns when nothing of it is left.
    pub(super) async fn kill(&mut self, what: Killed) {
        // Kept until nothing of it is left: whoever is cut in the middle still ends it.
        let Some(group) = self.group else {
            return;
        };
        if what == Killed::Master {
            let _ = kill_process(group, Signal::KILL);
            self.clock.sleep(ORPHANS_MAX).await;
        }
        self.end_group();
        let _ = self.clock.timeout(STOP_MAX, self.child.wait()).await;
        self.group = None;
    }

    fn end_group(&self) {
        if let Some(group) = self.group {
            // An error: nothing of it is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// The process that was started; `None` once it is ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it has ended, if it has.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Returns, with what is to be said of it, when it ends by itself.
    pub(super) async fn ends(&mut self) -> String {
        let status = self.child.wait().await;
        self.obituary(status.ok())
    }

    /// What to say of a bot that has ended.
    pub(super) fn obituary(&self, status: Option<ExitStatus>) -> String {
        let how = status.map_or_else(String::new, |status| format!(" ({status})"));
        self.complaint(&format!("the bot has ended{how}"))
    }

    /// What is wrong, and the last that the bot said.
    pub(super) fn complaint(&self, what: &str) -> String {
        let log = &self.launch.log;
        let said = tail(log);
        let said = match said.as_str() {
            "" => "It has said nothing.".to_owned(),
            said => format!("The last that it said:\n{said}"),
        };
        format!("{what}. {said}\n(its output: {})", log.display())
    }

    /// Ends it and all that it has started.
    pub(super) async fn stop(mut self) {
        let Some(group) = self.group else {
            return;
        };
        // An error: it has ended already.
        let _ = kill_process_group(group, Signal::TERM);
        let _ = self.clock.timeout(STOP_MAX, self.child.wait()).await;
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.clock.timeout(STOP_MAX, self.child.wait()).await;
        self.group = None;
    }
}

impl Drop for Bot<'_> {
    fn drop(&mut self) {
        self.end_group();
    }
}

/// Its process, and the group that this leads.
fn spawn(launch: &Launch<'_>) -> Result<(Child, Option<Pid>), String> {
    let (port, log) = (launch.port, &launch.log);
    let [program, arguments @ ..] = launch.command else {
        return Err("expected a command after --, found none".to_owned());
    };
    let write = |error| format!("{}: {error}", log.display());
    let out = File::options().create(true).append(true).open(log);
    let out = out.map_err(write)?;
    let err = out.try_clone().map_err(write)?;
    let child = Command::new(with_port(program, port))
        .args(arguments.iter().map(|argument| with_port(argument, port)))
        .envs(launch.env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    Ok((child, id.and_then(Pid::from_raw)))
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(TAIL_LINES);
    let lines = lines[first..].iter().map(|line| format!("  {line}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn start(folder: &Path, script: &str) -> Bot<'static> {
        let command = ["sh", "-c", script].map(str::to_owned);
        let launch = Launch {
            command: Box::leak(Box::new(command)),
            port: 5000,
            env: vec![("NAME".to_owned(), "Ann".to_owned())],
            log: folder.join("log"),
        };
        Bot::start(launch, Clock::system()).unwrap()
    }

    /// Waits for a line in the log, and tells it.
    async fn line(folder: &Path) -> String {
        let read = async {
            loop {
                let text = std::fs::read_to_string(folder.join("log")).unwrap();
                if let Some((line, _)) = text.split_once('\n') {
                    return line.to_owned();
                }
                Clock::system().sleep(Duration::from_millis(5)).await;
            }
        };
        Clock::system().timeout(LIMIT, read).await.unwrap()
    }

    fn is_running(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        // A zombie is only waiting for its parent to ask.
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    async fn is_gone(pid: &str) {
        let gone = async {
            while is_running(pid) {
                Clock::system().sleep(Duration::from_millis(5)).await;
            }
        };
        Clock::system().timeout(LIMIT, gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_bot_that_ends_says_what_it_said_last() {
        let folder = tempfile::tempdir().unwrap();
        let mut bot = start(folder.path(), "echo $NAME on {port} >&2; exit 3");
        let said = bot.ends().await;
        assert!(said.contains("exit status: 3"), "{said}");
        assert!(said.contains("Ann on 5000"), "{said}");
    }

    #[tokio::test]
    async fn nothing_that_it_has_started_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let stubborn = "trap '' TERM; sleep 1000 & echo $!; wait; wait";
        let bot = start(folder.path(), stubborn);
        let pid = line(folder.path()).await;
        assert!(is_running(&pid));
        bot.stop().await;
        is_gone(&pid).await;

        let bot = start(folder.path(), stubborn);
        let pid = line(folder.path()).await;
        drop(bot);
        is_gone(&pid).await;
    }

    #[tokio::test]
    async fn a_killed_bot_is_gone_and_can_be_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut bot = start(folder.path(), "sleep 1000 & echo $!; wait");
        for what in [Killed::Master, Killed::All] {
            let pid = line(folder.path()).await;
            bot.kill(what).await;
            is_gone(&pid).await;
            std::fs::remove_file(folder.path().join("log")).unwrap();
            bot.start_again().unwrap();
        }
        let pid = line(folder.path()).await;
        assert!(is_running(&pid));
        bot.stop().await;
        is_gone(&pid).await;
    }

    #[tokio::test]
    async fn what_is_no_program_is_told() {
        let command = ["/nowhere/bot".to_owned()];
        let folder = tempfile::tempdir().unwrap();
        let launch = Launch {
            command: &command,
            port: 1,
            env: Vec::new(),
            log: folder.path().join("log"),
        };
        let error = Bot::start(launch, Clock::system()).err().unwrap();
        assert!(error.contains("cannot start /nowhere/bot"), "{error}");
    }
}
