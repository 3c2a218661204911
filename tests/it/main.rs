//! Tests from outside: real processes, spoken to over HTTP.

mod busy_store;
mod command_line;
mod every_shape;
mod failing_disk;
mod honest_sends;
mod logs_keep_secrets;
mod logs_tell;
mod once;
mod one_person;
mod payloads;
mod talk;
mod what_is_refused;
mod world;
