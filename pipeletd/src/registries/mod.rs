//! What operators have registered, in memory and in step with the store.
//!
//! A change is durable before anybody sees it, and once begun it is finished whether or not its
//! caller still waits.

mod id_tags;
mod stations;

pub use self::{
    id_tags::{IdTagError, IdTags, Starting},
    stations::{Entry, Registry, RegistryError},
};
