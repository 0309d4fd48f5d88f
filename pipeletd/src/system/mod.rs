//! What the daemon needs of the system it runs on, and of itself as a process: small matters, each
//! with nothing to do with the others.
//!
//! | module | |
//! |---|---|
//! | [`clock`] | the one clock |
//! | [`core_dumps`] | no memory of ours in them |
//! | [`descriptors`] | how many files may be open, and who has which share |
//! | [`latencies`] | how long something takes, counted |
//! | [`limits`] | how often something may happen, and how much memory it may take |
//! | [`private_file`] | files that only their owner reads |
//! | [`shutdown`] | the signals that end the daemon |
//! | [`tls`] | certificates, and streams with or without them |

pub mod clock;
pub mod core_dumps;
pub mod descriptors;
pub mod latencies;
pub mod limits;
pub mod private_file;
pub mod shutdown;
pub mod tls;
