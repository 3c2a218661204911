//! The thread that makes commits durable, and only then answers those who wait for them.
//!
//! SQLite's own sync at commit would keep the writer idle while the disk works. Here the writer
//! goes on with the next batch, and one sync of the WAL covers every commit before it: the WAL
//! is a log, what is durable of it is always a prefix, and nobody acts on a commit before the
//! sync that covers it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use tokio::sync::mpsc;

use super::super::StoreError;
use super::queue::{Job, Shared, answer_all};
use crate::crash_point::Carried;

/// Batches that may be written ahead of the sync under way.
pub(super) const AHEAD_MAX: usize = 2;

/// A committed batch that waits for its sync.
pub(super) struct Committed {
    pub(super) jobs: Vec<Box<dyn Job>>,
    pub(super) written: Written,
}

/// What a committed batch did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Written {
    /// Whether it put anything into the WAL at all.
    pub(super) anything: bool,
    pub(super) woke_turns: bool,
    pub(super) woke_sends: bool,
    pub(super) woke_settled: bool,
    pub(super) woke_threads: bool,
    pub(super) woke_relays: bool,
    pub(super) carried: Carried,
}

/// The syncing thread's own things.
pub(super) struct Syncer {
    /// The WAL: the same file that SQLite writes to.
    pub(super) wal: File,
    pub(super) shared: Arc<Shared>,
    pub(super) commits: Receiver<Committed>,
    /// To [`answer`]: waking many tasks costs less from inside the runtime.
    pub(super) synced: mpsc::Sender<Synced>,
}

/// Operations whose fate is known.
pub(super) struct Synced {
    jobs: Vec<Box<dyn Job>>,
    result: Result<(), StoreError>,
}

/// Syncs whose answers may be under way.
pub(super) const SYNCED_MAX: usize = 64;

/// Tells those who wait, until the syncer ends.
pub(super) async fn answer(mut synced: mpsc::Receiver<Synced>) {
    while let Some(batch) = synced.recv().await {
        answer_all(batch.jobs, &batch.result);
    }
}

impl Syncer {
    /// Syncs until the writer ends.
    pub(super) fn run(self) {
        while let Ok(first) = self.commits.recv() {
            let mut batches = vec![first];
            batches.extend(self.commits.try_iter());
            if batches.iter().any(|batch| batch.written.anything) {
                self.sync();
            }
            let failed = self.shared.has_failed();
            for batch in batches {
                if !failed {
                    batch.written.carried.after_commit();
                    self.count(&batch);
                    self.wake(batch.written);
                }
                let result = if failed {
                    Err(self.shared.failure())
                } else {
                    Ok(())
                };
                // Fails when the runtime has ended, and with it whoever waited.
                let _ = self.synced.blocking_send(Synced {
                    jobs: batch.jobs,
                    result,
                });
            }
        }
    }

    /// After a failed sync the kernel may have dropped what it could not write, and a second
    /// sync would not know: the store ends.
    fn sync(&self) {
        if let Err(error) = self.wal.sync_data() {
            self.shared
                .fail(format!("the write-ahead log can't be synced: {error}"));
        }
    }

    fn count(&self, batch: &Committed) {
        if batch.written.anything {
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            self.shared
                .writes
                .fetch_add(batch.jobs.len() as u64, Ordering::Relaxed);
        }
    }

    fn wake(&self, written: Written) {
        if written.woke_turns {
            self.shared.turns.send_modify(|count| *count += 1);
        }
        if written.woke_sends {
            self.shared.sends.send_modify(|count| *count += 1);
        }
        if written.woke_settled {
            self.shared.settled.send_modify(|count| *count += 1);
        }
        if written.woke_relays {
            self.shared.relays.send_modify(|count| *count += 1);
        }
        if written.woke_threads {
            self.shared.threads.send_modify(|count| *count += 1);
        }
    }
}
