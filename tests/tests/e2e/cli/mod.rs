//! `pipeletctl`: what it prints, draws and completes.

mod asking;
mod completions;
mod contexts;
mod demo;
pub(crate) mod doctor;
mod listen;
mod output;
mod overview;
mod screens;
mod simulate;
