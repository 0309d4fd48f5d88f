//! The stations' side: OCPP 1.6J by the book and as real chargers speak it.

mod clients;
mod commands;
mod conformance;
mod day;
mod id_tags;
mod mutations;
mod quirks;
mod registration;
mod stations;
mod storms;
mod transactions;
