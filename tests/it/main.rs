//! Tests from outside: real processes, spoken to over HTTP.

mod once;
mod payloads;
mod world;
