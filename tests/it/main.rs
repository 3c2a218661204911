//! Tests from outside.

mod payloads;
