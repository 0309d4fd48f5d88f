//! `pipeletd`: chargers connect over OCPP 1.6J, and applications are told what happens on them.

pub mod clock;
pub mod events;
pub mod journal;

pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
