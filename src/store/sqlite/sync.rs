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

use super::queue::{Job, Shared, answer_all};

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
}

/// The syncing thread's own things.
pub(super) struct Syncer {
    /// The WAL: the same file that SQLite writes to.
    pub(super) wal: File,
    pub(super) shared: Arc<Shared>,
    pub(super) commits: Receiver<Committed>,
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
            if self.shared.has_failed() {
                let failure = Err(self.shared.failure());
                batches
                    .into_iter()
                    .for_each(|batch| answer_all(batch.jobs, &failure));
                continue;
            }
            for batch in batches {
                self.count(&batch);
                self.wake(batch.written);
                answer_all(batch.jobs, &Ok(()));
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
    }
}
