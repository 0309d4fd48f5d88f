//! Why a part can't do its work now.

use std::sync::{Arc, PoisonError, RwLock};

/// Set by the part that can't, and looked at by those that would ask it in vain.
#[derive(Debug, Default)]
pub struct Outage(RwLock<Option<Arc<str>>>);

impl Outage {
    /// The reason, while there is one.
    pub fn check(&self) -> Result<(), Arc<str>> {
        let why = self.0.read().unwrap_or_else(PoisonError::into_inner);
        why.clone().map_or(Ok(()), Err)
    }

    pub fn begin(&self, why: &str) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
    }

    pub fn end(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
