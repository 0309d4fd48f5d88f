//! How often something may happen, and what is remembered of who did it too often.
//!
//! It knows neither sockets nor what is held back.

mod guesses;
mod rate;

pub use self::{
    guesses::{Guesses, TooMany},
    rate::{Bucket, InvalidRate, Rate},
};
