//! One connection: its prepared statements, and a task that listens to what the server says
//! beside its answers.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_postgres::error::Severity;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Notification, Statement};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::address::{ConnectError, Connector, Messages};

/// A connection. Closed when dropped, whatever it was doing.
pub(super) struct Connection {
    pub(super) client: Client,
    statements: HashMap<&'static str, Statement>,
    warnings: Arc<AtomicU64>,
    ended: CancellationToken,
    _listening: AbortOnDropHandle<()>,
}

/// Takes notifications; must not wait.
pub(super) type Listener = Box<dyn Fn(Notification) + Send>;

impl Connection {
    /// Connects to the first host that answers and fits.
    pub(super) async fn open(
        connector: &Connector,
        listener: Option<Listener>,
    ) -> Result<Self, ConnectError> {
        let (client, messages) = connector.connect().await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let ended = CancellationToken::new();
        let ends = ended.clone().drop_guard();
        let listening = tokio::spawn({
            let warnings = Arc::clone(&warnings);
            async move {
                listen(messages, &warnings, listener).await;
                drop(ends);
            }
        });
        Ok(Self {
            client,
            ended,
            statements: HashMap::new(),
            warnings,
            _listening: AbortOnDropHandle::new(listening),
        })
    }

    /// Warnings that the server has sent so far. A warning reaches this count before the answer
    /// it precedes.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Acquire)
    }

    /// Waits until the connection is lost.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Makes sure that a statement is prepared.
    pub(super) async fn prepare(
        &mut self,
        sql: &'static str,
        types: &[Type],
    ) -> Result<(), tokio_postgres::Error> {
        if !self.statements.contains_key(sql) {
            let statement = self.client.prepare_typed(sql, types).await?;
            self.statements.insert(sql, statement);
        }
        Ok(())
    }

    /// A statement that was prepared.
    pub(super) fn prepared(&self, sql: &'static str) -> Option<&Statement> {
        self.statements.get(sql)
    }

    /// Statements have to be prepared anew, for example after a migration.
    pub(super) fn forget_statements(&mut self) {
        self.statements.clear();
    }
}

/// Drives the connection until it ends.
async fn listen(mut messages: Messages, warnings: &AtomicU64, listener: Option<Listener>) {
    while let Some(message) = poll_fn(|context| messages.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                let is_warning = notice.parsed_severity() == Some(Severity::Warning);
                if is_warning {
                    warnings.fetch_add(1, Ordering::Release);
                    tracing::warn!(reason = notice.message(), "the database warns");
                }
            }
            Ok(AsyncMessage::Notification(notification)) => {
                if let Some(listener) = &listener {
                    listener(notification);
                }
            }
            Ok(_) => {}
            // Whoever waits for an answer is told by the client.
            Err(_) => return,
        }
    }
}
