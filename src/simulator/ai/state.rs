//! What the pretend AI remembers: conversations with their items, stored responses, and which
//! messages went into which. Data only: it neither waits nor speaks.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::refusal::Refusal;
use super::wording;
use crate::simulator::seed::Draw;

/// So that no bot can fill the memory.
const CONVERSATIONS_MAX: usize = 100_000;
const RESPONSES_MAX: usize = 100_000;
const ITEMS_MAX: usize = 10_000;
/// OpenAI takes at most so many items in one call.
const ITEMS_AT_ONCE_MAX: usize = 20;

/// A thread at the AI as its server has seen it: a conversation, or a chain of responses.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Thread {
    /// The tokens of the messages that went into it, each once, in order.
    pub tokens: Vec<String>,
}

impl std::fmt::Debug for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Thread")
            .field("tokens", &self.tokens.len())
            .finish()
    }
}

impl Thread {
    fn add(&mut self, tokens: &[String]) {
        for token in tokens {
            if !self.tokens.contains(token) {
                self.tokens.push(token.clone());
            }
        }
    }
}

/// All that the AI server has seen of threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Threads {
    /// How often an answer was asked for, refused calls apart.
    pub answers: u64,
    /// Calls that were refused because another one had the conversation.
    pub locked: u64,
    /// Every conversation that was made, deleted ones included, in order.
    pub conversations: Vec<Thread>,
    /// Every chain of responses. Empty when no call named a response before it: a bot that asks
    /// each time anew keeps no thread here.
    pub chains: Vec<Thread>,
}

#[derive(Default)]
struct Conversation {
    created_at: i64,
    metadata: Value,
    items: Vec<Value>,
    is_deleted: bool,
    thread: Thread,
}

struct Response {
    /// As it was answered.
    shown: Value,
    chain: usize,
}

/// Where an answer goes and what it goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Into {
    /// Nowhere: what the call carries is all there is.
    Nothing,
    Conversation(String),
    Previous(String),
}

pub(super) struct State {
    ids: Draw,
    conversations: HashMap<String, Conversation>,
    order: Vec<String>,
    responses: HashMap<String, Response>,
    chains: Vec<Thread>,
    are_chained: bool,
    running: HashSet<String>,
    /// How often each question was answered.
    asked: HashMap<String, u64>,
    answers: u64,
    locked: u64,
}

impl State {
    pub(super) fn new(ids: Draw) -> Self {
        Self {
            ids,
            conversations: HashMap::new(),
            order: Vec::new(),
            responses: HashMap::new(),
            chains: Vec::new(),
            are_chained: false,
            running: HashSet::new(),
            asked: HashMap::new(),
            answers: 0,
            locked: 0,
        }
    }

    pub(super) fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}_{}", self.ids.hex(12).to_lowercase())
    }

    pub(super) fn threads(&self) -> Threads {
        let of = |id: &String| self.conversations.get(id).map(|kept| kept.thread.clone());
        Threads {
            answers: self.answers,
            locked: self.locked,
            conversations: self.order.iter().filter_map(of).collect(),
            chains: match self.are_chained {
                true => self.chains.clone(),
                false => Vec::new(),
            },
        }
    }

    /// Which answer to this question the next one is, from 0.
    pub(super) fn count(&mut self, tokens: &[String]) -> u64 {
        self.answers += 1;
        let count = self.asked.entry(tokens.join(" ")).or_default();
        *count += 1;
        *count - 1
    }

    /// How many conversations were made.
    pub(super) fn made(&self) -> usize {
        self.order.len()
    }

    pub(super) fn create(&mut self, body: &Value, created_at: i64) -> Result<Value, Refusal> {
        if self.conversations.len() >= CONVERSATIONS_MAX {
            return Err(Refusal::FULL);
        }
        let id = self.id("conv");
        let conversation = Conversation {
            created_at,
            metadata: body.get("metadata").cloned().unwrap_or_else(|| json!({})),
            ..Conversation::default()
        };
        self.order.push(id.clone());
        self.conversations.insert(id.clone(), conversation);
        if let Some(items) = body["items"].as_array() {
            self.add_items(&id, items)?;
        }
        self.show(&id)
    }

    pub(super) fn show(&self, id: &str) -> Result<Value, Refusal> {
        let conversation = self.conversation(id)?;
        Ok(json!({
            "id": id,
            "object": "conversation",
            "created_at": conversation.created_at,
            "metadata": conversation.metadata,
        }))
    }

    pub(super) fn set_metadata(&mut self, id: &str, metadata: Value) -> Result<Value, Refusal> {
        self.conversation_mut(id)?.metadata = metadata;
        self.show(id)
    }

    pub(super) fn delete(&mut self, id: &str) -> Result<Value, Refusal> {
        self.conversation_mut(id)?.is_deleted = true;
        Ok(json!({ "id": id, "object": "conversation.deleted", "deleted": true }))
    }

    /// The items, the newest first unless asked otherwise.
    pub(super) fn items(&self, id: &str, limit: usize, ascending: bool) -> Result<Value, Refusal> {
        let items = &self.conversation(id)?.items;
        let all: Box<dyn Iterator<Item = &Value>> = match ascending {
            true => Box::new(items.iter()),
            false => Box::new(items.iter().rev()),
        };
        Ok(listed(all.take(limit).collect(), items.len() > limit))
    }

    pub(super) fn item(&self, id: &str, item: &str) -> Result<Value, Refusal> {
        let mut items = self.conversation(id)?.items.iter();
        let found = items.find(|kept| kept["id"] == item);
        found.cloned().ok_or(Refusal::NOT_FOUND)
    }

    pub(super) fn delete_item(&mut self, id: &str, item: &str) -> Result<Value, Refusal> {
        self.item(id, item)?;
        let items = &mut self.conversation_mut(id)?.items;
        items.retain(|kept| kept["id"] != item);
        self.show(id)
    }

    /// Puts items in, and answers them with their ids.
    pub(super) fn add_items(&mut self, id: &str, items: &[Value]) -> Result<Value, Refusal> {
        if items.len() > ITEMS_AT_ONCE_MAX {
            return Err(Refusal::invalid("at most 20 items at a time"));
        }
        let named: Vec<Value> = items.iter().map(|item| self.named(item)).collect();
        let tokens = wording::of_user(&named);
        let conversation = self.conversation_mut(id)?;
        if conversation.items.len() + named.len() > ITEMS_MAX {
            return Err(Refusal::FULL);
        }
        conversation.thread.add(&tokens);
        conversation.items.extend(named.iter().cloned());
        Ok(listed(named.iter().collect(), false))
    }

    /// Begins an answer: a conversation is held until [`State::release`].
    pub(super) fn begin(&mut self, into: &Into) -> Result<(), Refusal> {
        match into {
            Into::Nothing => {}
            Into::Conversation(id) => {
                self.conversation(id)?;
                if !self.running.insert(id.clone()) {
                    self.locked += 1;
                    return Err(Refusal::LOCKED);
                }
            }
            Into::Previous(id) => {
                let is_known = self.responses.contains_key(id);
                is_known.then_some(()).ok_or(Refusal::NOT_FOUND)?;
                self.are_chained = true;
            }
        }
        Ok(())
    }

    pub(super) fn release(&mut self, into: &Into) {
        if let Into::Conversation(id) = into {
            self.running.remove(id);
        }
    }

    /// An answer is complete: only now what was asked and answered becomes part of its thread.
    pub(super) fn complete(
        &mut self,
        into: &Into,
        input: &[Value],
        shown: &Value,
        is_stored: bool,
    ) -> Result<(), Refusal> {
        let tokens = wording::asked(input);
        let output = shown["output"].as_array().cloned().unwrap_or_default();
        if let Into::Conversation(id) = into {
            let input: Vec<Value> = input.iter().map(|item| self.named(item)).collect();
            let conversation = self.conversation_mut(id)?;
            if conversation.items.len() + input.len() + output.len() > ITEMS_MAX {
                return Err(Refusal::FULL);
            }
            conversation.thread.add(&tokens);
            conversation.items.extend(input);
            conversation.items.extend(output);
            return Ok(());
        }
        if !is_stored {
            return Ok(());
        }
        if self.responses.len() >= RESPONSES_MAX {
            return Err(Refusal::FULL);
        }
        let before = match into {
            Into::Previous(id) => self.responses.get(id).map(|response| response.chain),
            Into::Nothing | Into::Conversation(_) => None,
        };
        let chain = before.unwrap_or_else(|| {
            self.chains.push(Thread::default());
            self.chains.len() - 1
        });
        self.chains[chain].add(&tokens);
        let id = shown["id"].as_str().unwrap_or_default().to_owned();
        let shown = shown.clone();
        self.responses.insert(id, Response { shown, chain });
        Ok(())
    }

    pub(super) fn response(&self, id: &str) -> Result<Value, Refusal> {
        let response = self.responses.get(id);
        response
            .map(|response| response.shown.clone())
            .ok_or(Refusal::NOT_FOUND)
    }

    fn conversation(&self, id: &str) -> Result<&Conversation, Refusal> {
        let found = self.conversations.get(id);
        found
            .filter(|conversation| !conversation.is_deleted)
            .ok_or(Refusal::NOT_FOUND)
    }

    fn conversation_mut(&mut self, id: &str) -> Result<&mut Conversation, Refusal> {
        let found = self.conversations.get_mut(id);
        found
            .filter(|conversation| !conversation.is_deleted)
            .ok_or(Refusal::NOT_FOUND)
    }

    /// An item as the AI shows it: with an id, and content in parts.
    fn named(&mut self, item: &Value) -> Value {
        let mut item = item.clone();
        let id = self.id("msg");
        if let Some(members) = item.as_object_mut() {
            members.entry("id").or_insert_with(|| json!(id));
            members.entry("type").or_insert_with(|| json!("message"));
            members
                .entry("status")
                .or_insert_with(|| json!("completed"));
            if let Some(Value::String(text)) = members.get("content") {
                let part = json!({ "type": "input_text", "text": text });
                members.insert("content".into(), json!([part]));
            }
        }
        item
    }
}

fn listed(items: Vec<&Value>, has_more: bool) -> Value {
    let id = |item: Option<&&Value>| item.map(|item| item["id"].clone());
    json!({
        "object": "list",
        "first_id": id(items.first()),
        "last_id": id(items.last()),
        "has_more": has_more,
        "data": items,
    })
}
