//! The settings as the rest of the program sees them: parsed, checked, grouped by who needs them.
//!
//! A value of these types has passed every check of its own and every relation to the others.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{NumberId, Secret};

/// All settings of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The listener that Meta reaches.
    pub public: PublicConfig,
    /// The listener for bots.
    pub bot: BotConfig,
    /// The Graph API for the bot, on the same listener.
    pub egress: EgressConfig,
    /// The listener for operators.
    pub admin: DoorConfig,
    /// The ledger.
    pub store: StoreConfig,
    /// How long the ledger remembers.
    pub retention: RetentionConfig,
    /// What answers a turn.
    pub handler: HandlerConfig,
    /// How long and how often a turn is tried.
    pub turn: TurnConfig,
    /// How an AI thread comes to be.
    pub thread: ThreadConfig,
    /// How many turns run at once.
    pub worker: WorkerConfig,
    /// How messages are sent.
    pub send: SendConfig,
    /// The lease of this process.
    pub node: NodeConfig,
    /// What Meta gave us.
    pub whatsapp: WhatsappConfig,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// `public.*`: the listener that Meta reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The https address under which Meta reaches it, without `/webhook` and without a slash at
    /// the end. Only printed.
    pub url: Option<String>,
    /// The longest body, in bytes; Meta sends up to 3 MB.
    pub body_max: usize,
    /// How long a request may take to send its head.
    pub header_timeout: Duration,
    /// How long a request may take to send its body.
    pub body_timeout: Duration,
    /// How many connections may be open at once.
    pub connections_max: usize,
    /// How many bytes of bodies may be held at once; never less than `body_max`.
    pub body_memory_max: usize,
}

/// `bot.*`: the bot's listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BotConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What callers must show; always there when `listen` is not a loopback address.
    pub token: Option<Secret>,
    /// The folder of the certificate authority for bots behind the proxy.
    pub ca_dir: PathBuf,
}

/// `admin.*`: the operators' listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What callers must show; always there when `listen` is not a loopback address.
    pub token: Option<Secret>,
}

/// `egress.*`: the Graph API for the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressConfig {
    /// What the bot shows as its access token; Meta's own where none is set.
    pub token: Option<Secret>,
    /// The longest wait of a bot for the answer to a send.
    pub answer_within: Duration,
    /// When what a bot sends in a turn goes out.
    pub when: EgressWhen,
}

/// When what a bot sends in a turn goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressWhen {
    /// At once.
    Now,
    /// When the turn ends well.
    AtFinish,
}

/// `store.*`: the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where it is.
    pub url: StoreUrl,
    /// How many transactions may wait before a delivery is answered 503.
    pub queue_max: usize,
    /// How long a delivery waits for its commit before it is answered 503.
    pub wait_max: Duration,
    /// The size of SQLite's write-ahead log, in bytes, at which the writer makes room first.
    pub wal_max: u64,
    /// What holds only where `url` is a PostgreSQL database.
    pub postgres: PostgresConfig,
}

/// Where the ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL address, which may hold a password.
    Postgres(Secret),
}

/// The keys of `store.*` that PostgreSQL has and SQLite has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// The schema that holds the ledger: 1 to 48 letters a-z, digits and `_`, so that it needs no
    /// quotes; never one of the server's own.
    pub schema: String,
    /// How many connections this process shares among its transactions, 2 to 256. It opens two
    /// more: one for its lease, one for wake-ups.
    pub connections: usize,
    /// How long one server may take to answer, unless `url` says how long.
    pub connect_timeout: Duration,
    /// How long one statement may run.
    pub statement_timeout: Duration,
    /// How long one statement may wait for a lock; never more than `statement_timeout`.
    pub lock_timeout: Duration,
    /// What stands between this process and the server.
    pub pooler: Pooler,
    /// Whether several servers may stand in for each other without synchronous standbys.
    pub async_failover: AsyncFailover,
}

/// What stands between this process and a PostgreSQL server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing, or something that keeps a session on one connection.
    None,
    /// A pooler that gives each transaction another connection, such as PgBouncer in transaction
    /// mode. So nothing that outlives a transaction can be used: no `LISTEN`, no named prepared
    /// statements.
    Transaction,
}

/// What is done at the start when several servers are named and none is a synchronous standby:
/// a failover could then lose what was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsyncFailover {
    /// The process does not start.
    Refuse,
    /// The operator accepts that a failover may lose what was acknowledged.
    Allow,
}

/// `retention.*`: how long the ledger remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionConfig {
    /// How long an event is known to have been seen; at least 8 days, since Meta delivers again
    /// for 7.
    pub keys: Duration,
    /// How long the contents of what is over are kept; at least an hour, never more than `keys`.
    pub payloads: Duration,
    /// How often it is looked for what is over; at most a day.
    pub every: Duration,
}

/// `handler.*` and the group of the chosen handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerConfig {
    /// Says back what was said.
    Echo,
    /// Hands each message to the bot's own webhook.
    Forward(ForwardConfig),
    /// Asks the bot for replies.
    Ask(AskConfig),
}

impl HandlerConfig {
    /// The word for it in `handler.kind`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Forward(_) => "forward",
            Self::Ask(_) => "ask",
        }
    }

    /// The bot's URLs; empty for `echo`.
    pub fn bot_urls(&self) -> &[String] {
        match self {
            Self::Echo => &[],
            Self::Forward(forward) => &forward.bot_urls,
            Self::Ask(ask) => &ask.bot_urls,
        }
    }
}

/// `forward.*`: the bot you already have, unchanged.
#[derive(Clone, PartialEq, Eq)]
pub struct ForwardConfig {
    /// The bot's webhook URLs; at least one. http or https, without user name and password.
    pub bot_urls: Vec<String>,
    /// Webhook URLs of bots that answer for one number each, instead of those.
    pub number_urls: Vec<(NumberId, String)>,
    /// How many calls may run at once to one URL.
    pub concurrency: usize,
    /// When a forwarded turn is done.
    pub done: ForwardDone,
    /// How long a URL that refused a connection is passed over.
    pub down_for: Duration,
    /// What becomes of a turn that is done by its reply, when there is none.
    pub no_reply: ForwardNoReply,
    /// Whether the bot gets what is neither a message nor a status.
    pub notices: bool,
    /// How long the reply may take, after the bot's 2xx.
    pub reply_wait: Duration,
    /// Under which id a message is handed over again.
    pub retry_id: ForwardRetryId,
    /// Whether the bot gets what became of messages that were sent.
    pub statuses: bool,
    /// How long after its last send a bot has said all it has to say.
    pub tail: Duration,
}

// The URLs may carry a token in their query.

impl fmt::Debug for ForwardConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardConfig").finish_non_exhaustive()
    }
}

impl fmt::Debug for AskConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskConfig").finish_non_exhaustive()
    }
}

/// When a forwarded turn is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardDone {
    /// When the bot answers 2xx.
    Response,
    /// When it has also sent something, or its time for that is over.
    Reply,
}

/// What becomes of a turn that its bot has taken and not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardNoReply {
    /// It is tried again.
    Retry,
    /// It is done.
    Silence,
    /// It is a dead letter.
    DeadLetter,
}

/// Under which id a message is handed to the bot in a second attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardRetryId {
    /// Meta's, as in the first.
    Same,
    /// One made from it, so that the bot does not take it for a duplicate.
    Fresh,
}

/// `ask.*`: a bot that answers with its replies.
#[derive(Clone, PartialEq, Eq)]
pub struct AskConfig {
    /// The bot's URLs; at least one. http or https, without user name and password.
    pub bot_urls: Vec<String>,
    /// What requests are signed with: `whsec_` and base64, or plain text. The app secret where
    /// none is set.
    pub secret: Secret,
}

/// `turn.*`: how long and how often a turn is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnConfig {
    /// How long the handler may take.
    pub deadline: Duration,
    /// How often a failing turn is tried, the first time included.
    pub attempts_max: u32,
    /// The wait after the first failure.
    pub backoff_first: Duration,
    /// The longest wait after a failure.
    pub backoff_max: Duration,
    /// How long a turn waits for a bot that is down.
    pub unavailable_max: Duration,
    /// The longest wait between two tries of a bot that is down.
    pub unavailable_backoff_max: Duration,
    /// Whether messages are marked as read when their turn starts.
    pub mark_read: bool,
    /// Which messages one turn takes.
    pub policy: TurnPolicy,
}

/// Which messages one turn takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnPolicy {
    /// One message a turn, in order.
    Queue,
}

/// `thread.*`: how an AI thread comes to be, for bots that make theirs themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadConfig {
    /// How long the right to make a thread lasts; at most 10 minutes, since others wait.
    pub create_timeout: Duration,
    /// How long a caller may wait for the thread that another one makes; at most 5 minutes.
    pub wait_max: Duration,
}

/// `worker.*`: how many turns run at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    /// How many turns run at once in this process.
    pub concurrency: usize,
    /// How long running turns may go on after the process was told to stop.
    pub drain_timeout: Duration,
}

/// `send.*`: how messages are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendConfig {
    /// How many sends run at once in this process.
    pub concurrency: usize,
    /// How many messages a second one number sends.
    pub per_second: u32,
    /// How long Meta may take to answer.
    pub timeout: Duration,
    /// How long a connection may take; never more than `timeout`.
    pub connect_timeout: Duration,
    /// How long a send whose answer was lost waits for its receipt before it is a dead letter.
    pub unsure_wait: Duration,
    /// How long a send that surely failed is tried again.
    pub retry_max: Duration,
    /// The first wait after a send that surely failed; a person's limit waits four times that.
    pub backoff_first: Duration,
    /// How long a number that Meta blocks is left alone.
    pub pause: Duration,
}

/// `node.*`: the lease of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// After so long without a renewal the process counts as dead.
    pub lease_ttl: Duration,
    /// How often the lease is renewed; at least three times in `lease_ttl`.
    pub renew_every: Duration,
}

/// `whatsapp.*`: what Meta gave us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhatsappConfig {
    /// Opens the Graph API.
    pub access_token: Secret,
    /// Signs what Meta delivers.
    pub app_secret: Secret,
    /// The app secret before, still taken during a rotation.
    pub app_secret_previous: Option<Secret>,
    /// What Meta shows when the webhook is set up.
    pub verify_token: Secret,
    /// The verify token before, still taken during a rotation.
    pub verify_token_previous: Option<Secret>,
    /// The only business number that is served; `None` serves every number of the app.
    pub phone_number_id: Option<NumberId>,
    /// The Graph API without its version and without a slash at the end.
    pub api_url: String,
    /// The version of the Graph API, for example `v25.0`.
    pub api_version: String,
}

/// `log.*`: what is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level (for Hapax alone) or the directives of `tracing`'s `EnvFilter`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
    /// Whether people's identifiers may be logged.
    pub identifiers: LogIdentifiers,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// [`LogFormat::Pretty`] on a terminal, else [`LogFormat::Json`].
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Whether people's identifiers may be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogIdentifiers {
    /// Never.
    Hidden,
    /// As they are.
    Plain,
}
