//! What an operator sets, reads and installs.

mod compose;
mod health;
mod logs;
mod memory;
mod metrics;
mod otlp;
mod packaging;
mod service_manager;
mod settings;
