//! What real chargers do that the standard does not say, one test for each kind.
//!
//! The names in brackets are the reports it was learnt from. Whatever is odd must be served,
//! must become the event that it is, and must not cost the next message anything.

mod connections;
mod messages;
