//! The ledger in a PostgreSQL database: where it is and how it is reached.
//!
//! Here no secret is printed, and no certificate is trusted that the address did not say to trust.

mod address;

pub use address::{Address, AddressError, ConnectError, Connector, Messages};
