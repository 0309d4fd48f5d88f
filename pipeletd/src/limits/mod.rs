//! How often something may happen, what is remembered of who did it too often, and how much of
//! events may be in memory.
//!
//! It knows neither sockets nor what is held back.

mod guesses;
pub mod memory;
mod rate;

pub use self::{
    guesses::{Guesses, TooMany},
    rate::{Bucket, InvalidRate, Rate},
};
