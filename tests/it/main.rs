//! Tests from outside: real processes, spoken to over HTTP.

mod benches;
mod busy_store;
mod command_line;
mod drained;
mod every_shape;
mod failing_bot;
mod failing_disk;
mod fenced;
mod honest_sends;
mod in_order;
mod killed;
mod logs_keep_secrets;
mod logs_tell;
mod once;
mod one_person;
mod payloads;
mod same_bot;
mod scene;
mod talk;
mod what_is_refused;
mod whole_batch;
mod world;
