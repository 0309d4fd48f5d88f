//! What the tool needs of the system it runs on and of the person at it: small matters, each with
//! nothing to do with the others.
//!
//! | module | |
//! |---|---|
//! | [`interrupts`] | the signals that end a command |
//! | [`rate`] | how many in how long, as people write it |
//! | [`screen`] | the terminal as one screen |
//! | [`secret`] | what the user hands over and nothing shows |
//! | [`when`] | times and durations, and the one clock |

pub(crate) mod interrupts;
pub(crate) mod rate;
pub(crate) mod screen;
pub(crate) mod secret;
pub(crate) mod when;
