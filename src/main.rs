//! The `hapax` binary: parse, run, exit code.

fn main() {}
