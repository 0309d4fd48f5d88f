//! The end-to-end suites: the contract, held from outside on the real binaries.
//!
//! One binary with a module for each theme, because linking is what such suites wait for.
//! Each test has its own daemon, data directory and receivers, so all of them run at once.

mod api_access;
mod api_hostile;
mod api_tls;
mod audit;
mod backlog;
mod backup;
mod bad_input;
mod cli;
mod clients;
mod clocks;
mod commands;
mod completions;
mod contexts;
mod crash;
mod cut;
mod day;
mod deliveries;
mod demo;
mod disk;
mod events;
mod formats;
mod https;
mod id_tags;
mod lifecycle;
mod logs;
mod metrics;
mod mutations;
mod node;
mod ocpp;
mod packaging;
mod payload;
mod power_loss;
mod promtool;
mod python;
mod quirks;
mod readme;
mod receivers;
mod registration;
mod replay_pace;
mod retries;
mod scene;
mod secrets;
mod security;
mod service_manager;
mod settings;
mod signatures;
mod simulate;
mod stations;
mod storms;
mod subscriptions;
mod targets;
mod traces;
mod transactions;
