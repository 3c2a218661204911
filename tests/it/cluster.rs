//! PostgreSQL servers that belong to one test: to be stopped, paused, followed and promoted.
//! They keep what they have committed, unlike the one that all tests share.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hapax::clock::Clock;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::provided::{
    Service, apart, command, connect, free_port, give, private_folder, provided, run,
};
use crate::world::LIMIT;

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ends all sessions, and writes everything out.
    Fast,
    /// Like a crash: the next start recovers from the log.
    Immediate,
}

/// A server with a database `hapax` that belongs to the role `hapax`, who is no superuser.
/// Anybody on this machine may log in. Stopped and deleted when dropped.
pub(crate) struct Cluster {
    port: u16,
    server: Option<Service>,
    folder: TempDir,
    clock: Clock,
}

impl Cluster {
    /// Makes a server and starts it, with settings of `postgresql.conf` beside the usual ones.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let mut cluster = Self::unmade();
        let mut initdb = cluster.program("initdb");
        initdb.args(["--pgdata=data", "--username=postgres", "--auth=trust"]);
        // The files of an empty cluster are as good as synced: the machine is never cut off.
        initdb.args(["--encoding=UTF8", "--locale=C", "--no-sync"]);
        run(initdb).await;
        cluster.configure("postgresql.conf", &[("max_connections", "200")]);
        cluster.configure("postgresql.conf", settings);
        cluster.launch_at_a_free_port().await;
        let admin = connect(&cluster.address("postgres", "postgres")).await;
        let admin = admin.expect("a connection");
        for statement in [
            "CREATE ROLE hapax LOGIN",
            "CREATE DATABASE hapax OWNER hapax",
        ] {
            let made = admin.batch_execute(statement).await;
            made.expect("the role and its database are made");
        }
        cluster
    }

    /// Makes and starts a server that follows this one, known to it by this `application_name`;
    /// it has its settings, but waits for nobody once it is promoted. It streams when this
    /// returns.
    pub(crate) async fn standby(&self, name: &str) -> Self {
        let mut standby = Self::unmade();
        let mut backup = standby.program("pg_basebackup");
        let source = format!(
            "host=127.0.0.1 port={} user=postgres application_name={name}",
            self.port
        );
        backup.args(["--pgdata=data", "--write-recovery-conf", "--no-sync"]);
        backup.args([
            "--wal-method=stream",
            "--checkpoint=fast",
            "--dbname",
            &source,
        ]);
        run(backup).await;
        let alone = [("synchronous_standby_names", "")];
        standby.configure("postgresql.auto.conf", &alone);
        standby.launch_at_a_free_port().await;
        self.streams_to(name).await;
        standby
    }

    /// A cluster without data and without a server.
    fn unmade() -> Self {
        Self {
            port: 0,
            server: None,
            folder: private_folder(),
            clock: Clock::system(),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The database `hapax`, as its owner.
    pub(crate) fn url(&self) -> String {
        self.address("hapax", "hapax")
    }

    /// The database `hapax`, as the superuser.
    pub(crate) fn admin_url(&self) -> String {
        self.address("postgres", "hapax")
    }

    fn address(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs statements in the database `hapax` as the superuser; several are one transaction.
    pub(crate) async fn execute(&self, sql: &str) {
        let executed = async {
            let client = connect(&self.admin_url()).await?;
            client.batch_execute(sql).await
        };
        let executed = self.clock.timeout(LIMIT, executed).await;
        let executed = executed.unwrap_or_else(|_| panic!("not done in time: {sql}"));
        executed.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Stops the server, which may be paused, and waits until its last process is gone.
    pub(crate) async fn stop(&mut self, how: Stop) {
        self.resume();
        let mut server = self.server.take().expect("the server runs");
        server.signal(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        });
        server.ended().await;
    }

    /// Starts the stopped server, at the port that it had, and waits until it answers.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.server.is_none(), "the server is stopped");
        let launched = self.launch().await;
        launched.unwrap_or_else(|log| panic!("the server does not start:\n{log}"));
    }

    /// Makes a standby the primary; it takes writes when this returns.
    pub(crate) async fn promote(&self) {
        let promoted = async {
            let client = connect(&self.admin_url()).await?;
            client.query_one("SELECT pg_promote(true, 60)", &[]).await
        };
        let promoted = self.clock.timeout(LIMIT, promoted).await;
        let promoted = promoted.expect("an answer in time").expect("an answer");
        assert!(promoted.get::<_, bool>(0), "the standby is promoted");
    }

    /// Stops every process of the server where it stands; its connections stay open. They stand
    /// still when this returns.
    pub(crate) async fn pause(&self) {
        let server = self.server.as_ref().expect("the server runs");
        // The first one starts all others: then no further one appears.
        send(server.pid(), Signal::STOP);
        self.stands_still(&[server.pid()]).await;
        let others = children(server.pid());
        others.iter().for_each(|pid| send(*pid, Signal::STOP));
        self.stands_still(&others).await;
    }

    /// Lets a paused server go on; does nothing to one that is not paused.
    pub(crate) fn resume(&self) {
        let Some(server) = &self.server else { return };
        let others = children(server.pid());
        others.iter().for_each(|pid| send(*pid, Signal::CONT));
        send(server.pid(), Signal::CONT);
    }

    async fn stands_still(&self, processes: &[Pid]) {
        let moves = |pid: &Pid| state(*pid).is_some_and(|(state, _)| !"TtZX".contains(state));
        let still = async {
            while processes.iter().any(moves) {
                self.clock.sleep(Duration::from_millis(5)).await;
            }
        };
        let still = self.clock.timeout(LIMIT, still).await;
        still.expect("a stopped process stands still in time");
    }

    /// Puts a file beside the data, which only the server may read; answers its path.
    pub(crate) fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("the file is written");
        give(&path);
        path
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let program = Path::new(&provided("TEST_POSTGRES_BIN")).join(name);
        command(&program, self.folder.path())
    }

    /// Adds to a file of settings, where the last one counts.
    fn configure(&self, file: &str, settings: &[(&str, &str)]) {
        let path = self.data().join(file);
        let mut text = String::new();
        for (name, value) in settings {
            text += &format!("{name} = '{}'\n", value.replace('\'', "''"));
        }
        let file = std::fs::File::options().append(true).open(path);
        let written = file.expect("the settings").write_all(text.as_bytes());
        written.expect("the settings are written");
    }

    /// Starts the server for the first time, at a port of its own.
    async fn launch_at_a_free_port(&mut self) {
        let mut log = String::new();
        for _ in 0..5 {
            self.port = free_port();
            match self.launch().await {
                Ok(()) => return,
                Err(said) => log = said,
            }
            // Somebody else was faster than this server.
            if !log.contains("could not bind") {
                break;
            }
        }
        panic!("the server does not start:\n{log}");
    }

    /// Starts the server and waits until it answers; `Err` with its log when it ends before.
    async fn launch(&mut self) -> Result<(), String> {
        let mut postgres = self.program("postgres");
        let folder = self.folder.path().display();
        postgres
            .args(["-D", "data", "-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", &format!("unix_socket_directories={folder}")]);
        let mut server = Service::start(postgres, &self.folder.path().join("log"));
        let address = self.address("postgres", "postgres");
        let answers = async {
            while connect(&address).await.is_err() {
                if server.status().is_some() {
                    return Err(server.log_tail());
                }
                self.clock.sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        let answers = self.clock.timeout(LIMIT, answers).await;
        answers.expect("the server answers in time")?;
        self.server = Some(server);
        Ok(())
    }

    async fn streams_to(&self, name: &str) {
        let query = "SELECT 1 FROM pg_stat_replication \
                     WHERE application_name = $1 AND state = 'streaming'";
        let client = connect(&self.admin_url()).await.expect("a connection");
        let streams = async {
            while client
                .query(query, &[&name])
                .await
                .expect("rows")
                .is_empty()
            {
                self.clock.sleep(Duration::from_millis(20)).await;
            }
        };
        let streams = self.clock.timeout(LIMIT, streams).await;
        streams.expect("the standby streams in time");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.server.is_some() {
            // Killed, the server would leave its shared memory behind.
            apart(self.stop(Stop::Immediate));
        }
    }
}

/// Sends a signal, unless the process is gone.
fn send(pid: Pid, signal: Signal) {
    let _ = kill_process(pid, signal);
}

/// The state of a process and its parent; `None` when it is gone.
fn state(pid: Pid) -> Option<(char, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

fn children(of: Pid) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("the processes are listed");
    let name = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = name.filter_map(|name| Pid::from_raw(name.parse().ok()?));
    pids.filter(|pid| state(*pid).is_some_and(|(_, parent)| parent == of.as_raw_nonzero().get()))
        .collect()
}

/// How many rows the table `kept` has.
async fn rows(cluster: &Cluster) -> i64 {
    let client = connect(&cluster.url()).await.expect("a connection");
    let row = client.query_one("SELECT count(*) FROM kept", &[]).await;
    row.expect("a count").get(0)
}

async fn write_row(cluster: &Cluster) {
    let client = connect(&cluster.url()).await.expect("a connection");
    let written = client.execute("INSERT INTO kept VALUES (1)", &[]).await;
    written.expect("a row is written");
}

const TABLE: &str = "CREATE TABLE kept (a int); ALTER TABLE kept OWNER TO hapax";

#[tokio::test]
async fn a_cluster_keeps_its_rows_over_a_stop_and_a_crash() {
    let mut cluster = Cluster::start(&[("work_mem", "5MB")]).await;
    cluster.execute(TABLE).await;
    write_row(&cluster).await;
    for how in [Stop::Immediate, Stop::Fast] {
        let before = cluster.url();
        cluster.stop(how).await;
        assert!(connect(&before).await.is_err(), "it is down");
        cluster.start_again().await;
        assert_eq!(cluster.url(), before);
        assert_eq!(rows(&cluster).await, 1);
    }
    let client = connect(&cluster.url()).await.expect("a connection");
    for (setting, value) in [
        ("work_mem", "5MB"),
        ("fsync", "on"),
        ("is_superuser", "off"),
    ] {
        let row = client
            .query_one("SELECT current_setting($1)", &[&setting])
            .await;
        assert_eq!(row.expect("a setting").get::<_, &str>(0), value);
    }
}

#[tokio::test]
async fn a_standby_of_a_cluster_follows_and_is_promoted() {
    let mut primary = Cluster::start(&[]).await;
    primary.execute(TABLE).await;
    let standby = primary.standby("second").await;
    let names = "ALTER SYSTEM SET synchronous_standby_names = 'second'";
    primary.execute(names).await;
    primary
        .execute("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
        .await;
    primary.execute("SELECT pg_reload_conf()").await;
    let client = connect(&primary.admin_url()).await.expect("a connection");
    let query = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'";
    while client.query(query, &[]).await.expect("rows").is_empty() {
        primary.clock.sleep(Duration::from_millis(20)).await;
    }
    write_row(&primary).await;
    assert_eq!(
        rows(&standby).await,
        1,
        "applied there before it is answered"
    );

    primary.stop(Stop::Immediate).await;
    standby.promote().await;
    write_row(&standby).await;
    assert_eq!(rows(&standby).await, 2);
}

#[tokio::test]
async fn a_paused_cluster_answers_when_it_is_resumed() {
    let cluster = Cluster::start(&[]).await;
    let client = connect(&cluster.url()).await.expect("a connection");
    cluster.pause().await;
    let answer = client.simple_query("SELECT 1");
    tokio::pin!(answer);
    let early = cluster
        .clock
        .timeout(Duration::from_millis(200), &mut answer);
    assert!(early.await.is_err(), "no answer while it is paused");
    cluster.resume();
    let answer = cluster.clock.timeout(LIMIT, answer).await;
    answer.expect("in time").expect("an answer");
    // Dropped as it is: a paused cluster is stopped, too.
    cluster.pause().await;
}
