//! Who may connect to what, and secrets that stay secret.

mod floods;
mod https;
mod profiles;
mod secrets;
mod targets;
