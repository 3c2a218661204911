//! What deliveries were answered, until a transaction takes it along.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::super::Answered;

/// Answers that wait to be recorded, at most; more are dropped, they are only for diagnosis.
const ANSWERS_MAX: usize = 65_536;

/// The answers given since the last batch of deliveries.
#[derive(Default)]
pub(super) struct AnswerLog {
    answers: Mutex<Vec<Answered>>,
    /// Told when the first one comes.
    pub(super) arrived: Notify,
}

impl AnswerLog {
    pub(super) fn add(&self, answered: Answered) {
        let mut answers = self.lock();
        if answers.len() < ANSWERS_MAX {
            answers.push(answered);
        }
        let is_first = answers.len() == 1;
        drop(answers);
        if is_first {
            self.arrived.notify_one();
        }
    }

    pub(super) fn take(&self) -> Vec<Answered> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Answered>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
