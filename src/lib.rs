//! Hapax: the exactly-once front door for WhatsApp bots.
//!
//! *Hapax*, from the Greek ἅπαξ: once. Meta may say a thing many times; a bot hears it once.

pub mod clock;
pub mod config;
pub mod model;
pub mod telemetry;
