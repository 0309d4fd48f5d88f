//! How often something may happen, what is remembered of who did it too often, whose turn it is, and
//! how much of events may be in memory.
//!
//! It knows neither sockets nor what is held back.

mod guesses;
pub mod memory;
mod network;
mod rate;
mod turns;

pub use self::{
    guesses::{Guesses, PasswordGuesses, TooMany},
    rate::{Bucket, InvalidRate, Rate},
    turns::{Pending, Turns},
};
