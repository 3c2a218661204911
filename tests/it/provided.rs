//! What `./test` provides: a database, programs that serve, and somebody to run them as, since
//! they refuse to run as root. Knows no more of PostgreSQL than how to connect.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use hapax::clock::Clock;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::world::LIMIT;

/// A setting that `./test` has put into the environment.
pub(crate) fn provided(name: &str) -> String {
    offered(name)
        .unwrap_or_else(|| panic!("{name} is not set: run the tests by ./test, which provides it"))
}

/// A setting that only `./test --all` puts there.
#[expect(
    clippy::disallowed_methods,
    reason = "a setting of the tests, not of Hapax"
)]
pub(crate) fn offered(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The user and the group to run programs as; `None` when they may run as this process does.
fn unprivileged() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("the list of users");
    let ids = |name: &str| -> Option<(u32, u32)> {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = ids("postgres").or_else(|| ids("nobody"));
    Some(found.expect("root has somebody to run PostgreSQL as"))
}

/// A temporary folder that belongs to whom the programs run as.
pub(crate) fn private_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    give(folder.path());
    folder
}

/// Makes a file or a folder belong to whom the programs run as, and to nobody else.
pub(crate) fn give(path: &Path) {
    if let Some((user, group)) = unprivileged() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).expect("root may do that");
    }
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("its owner may do that");
}

/// A program that runs in `folder`, not as root, and inherits no setting.
pub(crate) fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir(folder)
        .stdin(Stdio::null());
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command
}

/// Runs a command to its end, which has to be a good one.
pub(crate) async fn run(command: Command) {
    let text = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    let output = command.kill_on_drop(true).output();
    let output = Clock::system().timeout(LIMIT, output).await;
    let output = output.expect("it ends in time").expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}: {}\n{said}", output.status);
}

/// A loopback port where nobody listens now. Not one that an outgoing connection could be given:
/// it stays free while a server is down, and whoever calls there then does not reach himself.
pub(crate) fn free_port() -> u16 {
    loop {
        let drawn = getrandom::u32().expect("randomness") % 12_000;
        let port = 20_000 + u16::try_from(drawn).expect("below the bound");
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return port,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => panic!("port {port}: {error}"),
        }
    }
}

/// A connection that lives as long as the client.
pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Its error is seen by whoever uses the client.
    tokio::spawn(connection);
    Ok(client)
}

/// Runs a future to its end on a thread of its own: what a `drop` inside of a runtime has to do.
pub(crate) fn apart<F: Future<Output: Send> + Send>(future: F) -> F::Output {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(future)
        });
        thread.join().expect("it does not panic")
    })
}

/// A program that serves until it is told to end. Killed when dropped.
pub(crate) struct Service {
    child: Child,
    log: PathBuf,
    clock: Clock,
}

impl Service {
    /// Starts a command that writes its log into a file, which grows with each start.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log);
        let file = file.expect("a log file");
        let copy = file.try_clone().expect("a second handle");
        let child = command.stdout(copy).stderr(file).spawn();
        Self {
            child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")),
            log: log.to_owned(),
            clock: Clock::system(),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its status is known")
    }

    /// Sends a signal, unless it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.status().is_none() {
            kill_process(self.pid(), signal).expect("the signal is sent");
        }
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let clock = self.clock.clone();
        let ended = async {
            loop {
                if let Some(status) = self.status() {
                    return status;
                }
                self.clock.sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = clock.timeout(LIMIT, ended).await;
        ended.unwrap_or_else(|_| panic!("it does not end:\n{}", log_tail(&self.log)))
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        log_tail(&self.log)
    }
}

impl Drop for Service {
    #[expect(clippy::print_stderr, reason = "shown with the failure of the test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.log_tail());
        }
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
