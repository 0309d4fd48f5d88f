//! The end-to-end suites: the contract, held from outside on the real binaries.
//!
//! One binary with a module for each theme, because linking is what such suites wait for.
//! Each test has its own daemon, data directory and receivers, so all of them run at once.

mod api;
mod cli;
mod cluster;
mod contract;
mod delivery;
mod ocpp;
mod operating;
mod scene;
mod security;
mod shards;
mod storage;

use pipelet_tests::{browser, node, promtool, python, traces};
