//! What this process has taken and not ended yet, in lanes: one for each conversation, and one for
//! all else of a number. Of each lane one is handed over at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use crate::model::{ConversationId, EventKey, NodeId, NumberId};
use crate::store::Relaying;

/// Whose order is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Of(ConversationId),
    Number(NumberId),
}

impl Lane {
    pub(super) fn of(relaying: &Relaying) -> Self {
        match &relaying.of {
            Some(own) => Self::Of(own.conversation),
            None => Self::Number(relaying.number.clone()),
        }
    }
}

/// One that is taken, with its place in memory.
pub(super) struct Held {
    pub(super) relaying: Relaying,
    /// The incarnation that has taken it.
    pub(super) node: NodeId,
    _place: OwnedSemaphorePermit,
}

impl Held {
    pub(super) fn new(relaying: Relaying, node: NodeId, place: OwnedSemaphorePermit) -> Self {
        Self {
            relaying,
            node,
            _place: place,
        }
    }
}

#[derive(Default)]
struct Known {
    lanes: HashMap<Lane, VecDeque<Held>>,
    /// How often each is here: one that was given back may be taken again before it is forgotten.
    keys: HashMap<EventKey, u32>,
}

#[derive(Default)]
pub(super) struct Lanes(Mutex<Known>);

impl Lanes {
    /// Whether the lane is a new one, which nobody works at.
    pub(super) fn add(&self, lane: Lane, held: Held) -> bool {
        let mut known = self.known();
        *known.keys.entry(held.relaying.key).or_default() += 1;
        let is_new = !known.lanes.contains_key(&lane);
        known.lanes.entry(lane).or_default().push_back(held);
        is_new
    }

    /// The next one of a lane, for the one who works at it; `None`: the lane is no more.
    pub(super) fn next(&self, lane: &Lane) -> Option<Held> {
        let mut known = self.known();
        let next = known.lanes.get_mut(lane).and_then(VecDeque::pop_front);
        if next.is_none() {
            known.lanes.remove(lane);
        }
        next
    }

    /// All that is taken and not ended.
    pub(super) fn keys(&self) -> Vec<EventKey> {
        self.known().keys.keys().copied().collect()
    }

    /// It has ended.
    pub(super) fn forget(&self, key: EventKey) {
        let mut known = self.known();
        if let Some(times) = known.keys.get_mut(&key) {
            *times -= 1;
            if *times == 0 {
                known.keys.remove(&key);
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
