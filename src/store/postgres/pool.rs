//! The connections of this process: so many at most, made when needed, with a growing pause
//! while none can be made.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};

use super::address::{ConnectError, Connector};
use super::connection::Connection;
use super::fault::Fault;
use crate::clock::Clock;
use crate::model::Backoff;

/// Makes connections.
pub(super) struct Maker {
    connector: Arc<Connector>,
    clock: Clock,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    in_row: u32,
    not_before: Duration,
}

/// The wait before another try to connect.
const RECONNECT: Backoff = Backoff {
    first: Duration::from_millis(50),
    factor: 2,
    max: Duration::from_secs(1),
};

impl managed::Manager for Maker {
    type Type = Connection;
    type Error = ConnectError;

    async fn create(&self) -> Result<Connection, ConnectError> {
        let wait = self.failures().not_before;
        let wait = wait.saturating_sub(self.clock.boottime());
        if !wait.is_zero() {
            self.clock.sleep(wait).await;
        }
        let opened = Connection::open(&self.connector, None).await;
        let mut failures = self.failures();
        match &opened {
            Ok(_) => *failures = Failures::default(),
            Err(_) => {
                failures.in_row += 1;
                let wait = RECONNECT.wait(failures.in_row, 0);
                failures.not_before = self.clock.boottime() + wait;
            }
        }
        opened
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &Metrics,
    ) -> RecycleResult<ConnectError> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("closed"));
        }
        Ok(())
    }
}

impl Maker {
    fn failures(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bounded set of connections.
#[derive(Clone)]
pub(super) struct Pool {
    pool: managed::Pool<Maker>,
    clock: Clock,
    wait_max: Duration,
}

/// A connection that goes back to its pool when dropped.
pub(super) type Lent = managed::Object<Maker>;

impl Pool {
    /// At most `size` connections; who wants one waits for at most `wait_max`.
    pub(super) fn new(
        connector: &Arc<Connector>,
        size: usize,
        wait_max: Duration,
        clock: &Clock,
    ) -> Self {
        let maker = Maker {
            connector: Arc::clone(connector),
            clock: clock.clone(),
            failures: Mutex::default(),
        };
        let pool = managed::Pool::builder(maker)
            .max_size(size)
            .build()
            .expect("a pool without time-outs needs no runtime");
        Self {
            pool,
            clock: clock.clone(),
            wait_max,
        }
    }

    /// A connection, made now if none is free.
    pub(super) async fn lend(&self) -> Result<Lent, Fault> {
        match self.clock.timeout(self.wait_max, self.pool.get()).await {
            Ok(Ok(lent)) => Ok(lent),
            Ok(Err(managed::PoolError::Backend(error))) => {
                Err(Fault::Unavailable(error.to_string()))
            }
            Ok(Err(error)) => Err(Fault::Unavailable(error.to_string())),
            Err(_) => Err(Fault::Unavailable(format!(
                "no connection within {:?}",
                self.wait_max
            ))),
        }
    }

    /// Closes every connection that is not lent, and lends no more.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}
