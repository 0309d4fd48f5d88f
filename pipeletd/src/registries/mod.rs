//! What operators have registered, in memory and in step with the configuration.

mod id_tags;
mod keyring;
mod registrations;
mod registry;
mod webhooks;

pub use self::{
    id_tags::{IdTagError, IdTags, Starting},
    keyring::{Caller, Keyring, Refused},
    registrations::{Entry, RegistrationError, Registrations},
    registry::{Found, Registered, Registry},
    webhooks::{IfRevision, WebhookError, Webhooks},
};
