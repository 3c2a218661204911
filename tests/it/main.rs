//! Tests from outside: real processes, spoken to over HTTP.

mod busy_store;
mod cluster;
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
mod pooler;
mod provided;
mod proxy;
mod same_bot;
mod scene;
mod schema;
mod talk;
mod what_is_refused;
mod whole_batch;
mod world;
