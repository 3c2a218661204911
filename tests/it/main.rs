//! Tests from outside: real processes, spoken to over HTTP.

mod drained;
mod failing_bot;
mod fenced;
mod in_order;
mod killed;
mod once;
mod payloads;
mod same_bot;
mod scene;
mod whole_batch;
mod world;
