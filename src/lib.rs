//! Hapax: the exactly-once front door for WhatsApp bots.
//!
//! *Hapax*, from the Greek ἅπαξ: once. Meta may say a thing many times; a bot hears it once.
//!
//! As a library it is the same gateway with a handler of your own in place of a bot's URL: see
//! [`Gateway`] and [`Handler`].

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crash_point;
pub mod egress;
pub mod guard;
pub mod handler;
pub mod ingress;
pub mod janitor;
pub mod listener;
pub mod model;
pub mod proxy;
pub mod relay;
pub mod sender;
pub mod simulator;
pub mod store;
pub mod telemetry;
pub mod threads;
pub mod whatsapp;
pub mod worker;

pub use app::Gateway;
pub use async_trait::async_trait;
pub use model::{Handler, Message, Outcome, Reply, Turn};
