//! One transaction. Statements are queued and leave together: what needs no answer of another
//! one costs no round trip of its own, the begin and the commit included.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CancelToken, Row, SimpleQueryMessage};

use super::fault::{Fault, classify, refuses_commit};
use super::parameter::Parameter;
use super::pool::Lent;
use super::wake::Woken;
use crate::clock::Clock;
use crate::crash_point::{Carried, Method};
use crate::model::{StoreId, Timestamp};

/// Whether the commit waits for the disk, and for synchronous standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// It does.
    Synced,
    /// What is written may be forgotten in a crash of the server: renewals, whose loss is seen,
    /// answers, which are for diagnosis only, and what retention takes out again.
    Relaxed,
}

/// What every transaction of a store has in common.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) clock: Clock,
    /// `SET LOCAL` for everything that must not depend on the connection's own settings.
    pub(super) settings: String,
    /// Whether statements are prepared once per connection, or sent whole each time.
    pub(super) prepares: bool,
    /// Whether the server tells its timeline.
    pub(super) has_timeline: bool,
    pub(super) store: StoreId,
}

/// A statement that waits to be sent.
struct Queued {
    sql: &'static str,
    parameters: Vec<Parameter>,
}

/// Where a queued statement's rows will stand among the answers of its flush.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot(usize);

/// The rows of every statement of one flush.
pub(super) struct Answers(Vec<Vec<Row>>);

impl Answers {
    /// Takes out the rows of one statement.
    pub(super) fn take(&mut self, slot: Slot) -> Vec<Row> {
        self.0
            .get_mut(slot.0)
            .map(std::mem::take)
            .unwrap_or_default()
    }
}

/// An open transaction; undone when dropped before its commit.
pub(super) struct Tx {
    connection: Option<Lent>,
    session: Arc<Session>,
    durability: Durability,
    queued: Vec<Queued>,
    state: State,
    now: Timestamp,
    pub(super) woke_turns: bool,
    pub(super) woke_sends: bool,
    pub(super) woke_settled: bool,
    pub(super) woke_threads: bool,
    pub(super) woke_relays: bool,
    carried: Carried,
}

/// How far the server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was sent.
    New,
    /// Statements are under way.
    Busy,
    /// The commit is under way.
    Committing,
    /// Begun; the server waits for more.
    Open,
    /// Committed, or undone: the connection is as good as new.
    Over,
}

// An alias of a timeline that no longer is: ids and epochs given out since are not known here,
// so that both jump over them. Usually no row.
const RAISE_ERA: &str = "
    UPDATE ledger SET timeline = t.now, era = era + 1
      FROM (SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint AS now) t
     WHERE ledger.timeline <> t.now RETURNING era";
const SKIP_IDS: &str = "
    SELECT setval('node_id', nextval('node_id') + 1000),
           setval('contact_id', nextval('contact_id') + 1048576),
           setval('conversation_id', nextval('conversation_id') + 1048576),
           setval('outgoing_id', nextval('outgoing_id') + 1048576),
           setval('bot_send_id', nextval('bot_send_id') + 1048576)";

impl Tx {
    /// A transaction that begins with its first flush.
    pub(super) fn new(connection: Lent, session: Arc<Session>, durability: Durability) -> Self {
        let mut tx = Self {
            connection: Some(connection),
            session,
            durability,
            queued: Vec::new(),
            state: State::New,
            now: Timestamp(0),
            woke_turns: false,
            woke_sends: false,
            woke_settled: false,
            woke_threads: false,
            woke_relays: false,
            carried: Carried::default(),
        };
        if tx.checks_era() {
            tx.queue(RAISE_ERA, Vec::new());
        }
        tx
    }

    fn checks_era(&self) -> bool {
        self.session.has_timeline && self.durability == Durability::Synced
    }

    /// The time of the transaction, on the database's clock; known from the first flush on.
    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    /// How long ago `at` was, which this process has read from its own clock.
    pub(super) fn age(&self, at: Timestamp) -> i64 {
        self.session.clock.now().0 - at.0
    }

    /// The same moment on the database's clock.
    pub(super) fn translate(&self, at: Timestamp) -> Timestamp {
        Timestamp(self.now.0 - self.age(at))
    }

    /// The store's name.
    pub(super) fn store(&self) -> StoreId {
        self.session.store
    }

    /// This method writes something.
    pub(super) const fn carries(&mut self, method: Method) {
        self.carried.add(method);
    }

    /// Queues a statement for the next flush.
    pub(super) fn queue(&mut self, sql: &'static str, parameters: Vec<Parameter>) -> Slot {
        self.queued.push(Queued { sql, parameters });
        Slot(self.queued.len() - 1)
    }

    /// Sends what is queued, in order and at once, and answers the rows of each.
    pub(super) async fn flush(&mut self) -> Result<Answers, Fault> {
        let is_first = self.state == State::New;
        let mut answers = self.send(false).await?;
        if is_first && self.checks_era() && !answers.take(Slot(0)).is_empty() {
            tracing::warn!("the database has failed over: every epoch is raised");
            self.queue(SKIP_IDS, Vec::new());
            self.send(false).await?;
        }
        Ok(answers)
    }

    /// Sends what is queued and the commit; answers the rows when it is durable.
    ///
    /// # Errors
    /// Anything but [`Fault::Lost`] means that nothing is stored.
    pub(super) async fn commit(&mut self) -> Result<Answers, Fault> {
        if self.state == State::New && self.checks_era() {
            let answers = self.flush().await?;
            self.send(true).await?;
            return Ok(answers);
        }
        self.send(true).await
    }

    /// Whom it has woken, once it is committed.
    pub(super) fn woken(&self) -> Woken {
        Woken {
            turns: self.woke_turns,
            sends: self.woke_sends,
            settled: self.woke_settled,
            threads: self.woke_threads,
            relays: self.woke_relays,
        }
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether a commit was sent that was not answered.
    pub(super) fn may_be_committed(&self) -> bool {
        self.state == State::Committing
    }

    /// With which the server is told to stop what this transaction makes it do.
    pub(super) fn cancel_token(&self) -> Option<CancelToken> {
        self.connection
            .as_ref()
            .map(|lent| lent.client.cancel_token())
    }

    /// Undoes everything, so that the connection can be used again.
    pub(super) async fn undo(&mut self) {
        let Some(connection) = self.connection.as_ref().filter(|_| !self.is_over()) else {
            return;
        };
        if connection.client.batch_execute("ROLLBACK").await.is_ok() {
            self.state = State::Over;
        }
    }

    async fn send(&mut self, commits: bool) -> Result<Answers, Fault> {
        let queued = std::mem::take(&mut self.queued);
        let mut preamble = (self.state == State::New).then(|| self.preamble());
        self.state = State::Busy;
        let prepares = self.session.prepares;
        let Some(connection) = self.connection.as_mut() else {
            return Err(Fault::Unavailable("the transaction is over".to_owned()));
        };
        if prepares
            && queued
                .iter()
                .any(|statement| connection.prepared(statement.sql).is_none())
        {
            // Names are resolved when a statement is prepared: in the schema that is set first.
            if let Some(preamble) = preamble.take() {
                let said = connection.client.simple_query(&preamble).await;
                self.now = read_now(&said.map_err(|error| classify(&error))?)?;
            }
            for statement in &queued {
                let types = types(&statement.parameters);
                let prepared = connection.prepare(statement.sql, &types).await;
                prepared.map_err(|error| classify(&error))?;
            }
        }
        if commits {
            self.carried.before_commit();
            self.state = State::Committing;
        }
        let begins = preamble.is_some();
        let warnings = connection.warnings();
        let sent = in_order(requests(connection, preamble.as_deref(), &queued, commits)).await;
        let warned = connection.warnings() != warnings;
        let answers = self.read(sent, begins, commits, warned)?;
        if commits {
            self.carried.after_commit();
        }
        Ok(answers)
    }

    /// From what came back to rows; the first error of the statements counts, then the commit's.
    fn read(
        &mut self,
        mut sent: Vec<Result<Reply, tokio_postgres::Error>>,
        begins: bool,
        commits: bool,
        warned: bool,
    ) -> Result<Answers, Fault> {
        let committed = commits.then(|| sent.pop());
        let answered = matches!(committed, Some(Some(Ok(_))));
        let mut rows = Vec::with_capacity(sent.len());
        for reply in sent {
            match reply {
                Ok(Reply::Rows(answer)) => rows.push(answer),
                Ok(Reply::Said(said)) if begins => self.now = read_now(&said)?,
                Ok(Reply::Said(_)) => {}
                Err(error) => return Err(self.fail(&error, commits, answered)),
            }
        }
        match committed {
            Some(Some(Err(error))) if refuses_commit(&error) => {
                self.state = State::Over;
                Err(classify(&error))
            }
            Some(Some(Err(_)) | None) => Err(Fault::Lost),
            // The wait for a synchronous standby was cancelled: committed here, perhaps not there.
            Some(Some(Ok(_))) if warned => {
                self.state = State::Over;
                Err(Fault::Lost)
            }
            Some(Some(Ok(_))) => {
                self.state = State::Over;
                Ok(Answers(rows))
            }
            None => {
                self.state = State::Open;
                Ok(Answers(rows))
            }
        }
    }

    /// A statement has failed. A commit that was sent behind it is answered by a rollback.
    fn fail(&mut self, error: &tokio_postgres::Error, commits: bool, answered: bool) -> Fault {
        if commits && error.code().is_none() {
            return Fault::Lost;
        }
        self.state = if answered { State::Over } else { State::Busy };
        if error.code().is_some_and(|code| code.code() == "0A000")
            && let Some(connection) = self.connection.as_mut()
        {
            connection.forget_statements();
        }
        classify(error)
    }

    fn preamble(&self) -> String {
        let now = match self.session.clock.by_hand() {
            Some(now) => format!("'{}'", now.0),
            None => "(extract(epoch FROM clock_timestamp()) * 1000)::bigint::text".to_owned(),
        };
        let synced = match self.durability {
            Durability::Synced => "on",
            Durability::Relaxed => "off",
        };
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
             SET LOCAL synchronous_commit = {synced}; {}; \
             SELECT set_config('hapax.now', {now}, true)",
            self.session.settings
        )
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        let is_clean = matches!(self.state, State::New | State::Over);
        if let Some(lent) = self.connection.take()
            && !is_clean
        {
            // Nobody knows what it is doing: the server undoes it when the connection is gone.
            drop(Lent::take(lent));
        }
    }
}

/// What one request was answered.
enum Reply {
    Rows(Vec<Row>),
    Said(Vec<SimpleQueryMessage>),
}

type Request<'a> = Pin<Box<dyn Future<Output = Result<Reply, tokio_postgres::Error>> + Send + 'a>>;

fn requests<'a>(
    connection: &'a super::connection::Connection,
    preamble: Option<&'a str>,
    queued: &'a [Queued],
    commits: bool,
) -> Vec<Request<'a>> {
    let client = &connection.client;
    let say = |text: &'a str| -> Request<'a> {
        Box::pin(async move { client.simple_query(text).await.map(Reply::Said) })
    };
    let mut requests = Vec::with_capacity(queued.len() + 2);
    requests.extend(preamble.map(say));
    for statement in queued {
        let prepared = connection.prepared(statement.sql);
        requests.push(Box::pin(async move {
            let rows = match prepared {
                Some(prepared) => client.query(prepared, &values(&statement.parameters)).await,
                None => {
                    client
                        .query_typed(statement.sql, &typed(&statement.parameters))
                        .await
                }
            };
            rows.map(Reply::Rows)
        }));
    }
    requests.extend(commits.then(|| say("COMMIT")));
    requests
}

fn types(parameters: &[Parameter]) -> Vec<Type> {
    parameters.iter().map(|(_, of)| of.clone()).collect()
}

fn values(parameters: &[Parameter]) -> Vec<&(dyn ToSql + Sync)> {
    parameters
        .iter()
        .map(|(value, _)| &**value as &(dyn ToSql + Sync))
        .collect()
}

fn typed(parameters: &[Parameter]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    fn pair((value, of): &Parameter) -> (&(dyn ToSql + Sync), Type) {
        (&**value, of.clone())
    }
    parameters.iter().map(pair).collect()
}

/// Drives all requests together. Each is sent when it is first polled, so they leave in order;
/// the server answers in the same order.
async fn in_order(mut requests: Vec<Request<'_>>) -> Vec<Result<Reply, tokio_postgres::Error>> {
    let mut replies: Vec<Option<_>> = requests.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut waits = false;
        for (request, reply) in requests.iter_mut().zip(&mut replies) {
            if reply.is_none() {
                match request.as_mut().poll(context) {
                    Poll::Ready(answer) => *reply = Some(answer),
                    Poll::Pending => waits = true,
                }
            }
        }
        if waits {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    replies.into_iter().flatten().collect()
}

fn read_now(said: &[SimpleQueryMessage]) -> Result<Timestamp, Fault> {
    let now = said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    now.map(Timestamp)
        .ok_or_else(|| Fault::Unavailable("the database does not tell the time".to_owned()))
}
