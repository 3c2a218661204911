//! A pretend WhatsApp: people who write, Meta that delivers (often twice), the Graph API that
//! takes replies, an AI server, a bot to be called, and a checker that judges from outside.
//!
//! It is the other side of the wire: it builds Meta's JSON from its own knowledge, speaks HTTP
//! only, and never looks into the gateway. Every draw comes from one seed.

pub mod accounts;
pub mod acts;
pub mod ai;
pub mod bot;
pub mod checker;
pub mod courier;
pub mod elsewhere;
pub mod faults;
pub mod gate;
pub mod graph;
pub mod history;
pub mod manners;
pub mod meta;
pub mod payload;
pub mod person;
mod receipts;
pub mod record;
pub mod reference;
pub mod rehearsal;
pub mod script;
pub mod seed;
pub mod seen;
pub mod sending;
mod server;
pub mod token;
pub mod trial;
pub mod wire;

pub use ai::{Ai, Threads};
pub use bot::{Bot, Call, Proof};
pub use checker::{Breach, Findings, Report, Terms, check};
pub use courier::{Answered, Courier};
pub use gate::Gate;
pub use graph::{Graph, GraphSettings};
pub use history::{History, Progress};
pub use meta::{Delivered, Meta, MetaError, MetaSettings, Plan};
pub use payload::Element;
pub use person::Person;
pub use receipts::{Odds, Receipts};
pub use record::{Record, Said, Sent};
pub use rehearsal::{Rehearsal, Settings};
pub use script::{Answer, Behaviour, Script};
pub use seed::Draw;
pub use server::Port;
pub use trial::{Counts, Played, Trial, TrialSettings, count};
pub use wire::Wire;
