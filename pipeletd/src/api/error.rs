//! What a caller is told when something goes wrong: a code, a safe message, every fault.
//!
//! The cause goes to the log with the request's id, never to the caller.

use std::{path::Path, sync::Arc, time::Duration};

use pipelet_domain::webhooks::Fault;

use crate::{
    auth::Role,
    delivery::DeliveryError,
    journal::AppendError,
    ocpp::{CommandError, v16::Violation, wire::ErrorCode},
    registries::IdTagError,
    registries::{RegistrationError, WebhookError},
    store::StoreError,
};

/// An error for the outside.
#[derive(Debug, Clone)]
pub enum ApiError {
    /// No API key, or none that is known.
    Unauthenticated {
        /// Where the daemon wrote its first one, for callers on its own machine.
        first_key: Option<Arc<Path>>,
    },
    /// An API key that was one until it expired.
    KeyExpired,
    /// An API key that was revoked while it was in use.
    KeyRevoked,
    /// The caller is known and may not do this.
    Forbidden {
        has: Role,
        needed: Role,
    },
    /// What is asked for isn't there.
    NotFound {
        code: &'static str,
        message: String,
    },
    /// It is no longer as the caller believes.
    PreconditionFailed(String),
    /// It can't be done as things stand.
    Conflict {
        code: &'static str,
        message: String,
    },
    /// The request was understood, and is wrong in these points.
    Invalid(Vec<Fault>),
    /// The request can't be understood at all.
    Malformed(String),
    MethodNotAllowed,
    TooLarge {
        limit: usize,
    },
    UnsupportedMediaType,
    /// Too much is asked for at once; nothing was done.
    TooMany {
        code: &'static str,
        message: String,
    },
    /// The caller asks too often; nothing was done.
    Throttled {
        code: &'static str,
        message: String,
        retry_after: Duration,
    },
    /// A station was asked and did not answer; what it did is not known.
    NoAnswer {
        code: &'static str,
        message: String,
    },
    /// A station was asked, and nobody can read its answer; what it did is not known.
    MalformedAnswer(String),
    /// The daemon can't do it now.
    Unavailable(String),
    /// Our fault; the log knows more.
    Internal(Arc<anyhow::Error>),
}

impl ApiError {
    /// Before the reason.
    pub(super) const UNAVAILABLE: &str = "can't do that now: ";

    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::Internal(Arc::new(cause.into()))
    }

    pub fn no_route() -> Self {
        Self::NotFound {
            code: "no_such_route",
            message: "there is nothing here: GET /docs shows what there is".to_owned(),
        }
    }

    pub fn took_too_long() -> Self {
        Self::Unavailable("it took longer than anything may".to_owned())
    }

    pub fn too_many_open_calls() -> Self {
        let why = "calls without an API key whose answers were not taken";
        Self::TooMany {
            code: "too_many_calls",
            message: format!("this connection has too many {why}"),
        }
    }

    pub fn no_such_event(id: &str) -> Self {
        Self::NotFound {
            code: "no_such_event",
            message: format!("there is no event {id:?}, or it is no longer kept"),
        }
    }

    pub fn fault(pointer: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Fault {
            pointer: pointer.to_owned(),
            code,
            message: message.into(),
        }])
    }

    /// For programs; these never change.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated { .. } => "unauthenticated",
            Self::KeyExpired => "key_expired",
            Self::KeyRevoked => "key_revoked",
            Self::Forbidden { .. } => "forbidden",
            Self::NotFound { code, .. }
            | Self::Conflict { code, .. }
            | Self::TooMany { code, .. }
            | Self::Throttled { code, .. }
            | Self::NoAnswer { code, .. } => code,
            Self::MalformedAnswer(_) => "malformed_answer",
            Self::PreconditionFailed(_) => "precondition_failed",
            Self::Invalid(_) => "invalid_request",
            Self::Malformed(_) => "malformed_request",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge { .. } => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unavailable(_) => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// For people; says nothing that a caller may not know.
    pub fn message(&self) -> String {
        match self {
            Self::Unauthenticated { first_key } => {
                let what = "send a valid API key in the X-API-Key header (or x-api-key metadata)";
                match first_key {
                    Some(path) => format!("{what}; the first one is in {}", path.display()),
                    None => format!("{what}; an admin makes one: `pipeletctl keys create`"),
                }
            }
            Self::KeyExpired => "this API key has expired; ask an admin for another".to_owned(),
            Self::KeyRevoked => "this API key was revoked; ask an admin for another".to_owned(),
            Self::Forbidden { has, needed } => {
                format!("this needs an API key with the role {needed}; this one's is {has}")
            }
            Self::NotFound { message, .. }
            | Self::Conflict { message, .. }
            | Self::TooMany { message, .. }
            | Self::Throttled { message, .. }
            | Self::NoAnswer { message, .. }
            | Self::MalformedAnswer(message)
            | Self::PreconditionFailed(message)
            | Self::Malformed(message) => message.clone(),
            Self::Invalid(faults) => match faults.as_slice() {
                [_] => "the request is wrong in one point".to_owned(),
                faults => format!("the request is wrong in {} points", faults.len()),
            },
            Self::MethodNotAllowed => "this method is not allowed here".to_owned(),
            Self::TooLarge { limit } => format!("a body has at most {limit} bytes"),
            Self::UnsupportedMediaType => {
                "send the body as content-type: application/json".to_owned()
            }
            Self::Unavailable(why) => format!("{}{why}", Self::UNAVAILABLE),
            Self::Internal(_) => "something went wrong here; the log knows more".to_owned(),
        }
    }

    /// Tells the log what the caller is not told.
    pub fn log(&self, request_id: &str) {
        match self {
            Self::Internal(cause) => {
                tracing::error!(request_id, cause = format!("{cause:#}"), "a request failed");
            }
            Self::Unavailable(why) => tracing::warn!(request_id, why, "a request was refused"),
            // The authenticator has told the log where they come from, as often as is enough.
            Self::Unauthenticated { .. }
            | Self::KeyExpired
            | Self::KeyRevoked
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::PreconditionFailed(_)
            | Self::TooMany { .. }
            | Self::Throttled { .. }
            | Self::NoAnswer { .. }
            | Self::MalformedAnswer(_)
            | Self::Invalid(_)
            | Self::Malformed(_)
            | Self::MethodNotAllowed
            | Self::TooLarge { .. }
            | Self::UnsupportedMediaType => {}
        }
    }
}

impl From<DeliveryError> for ApiError {
    fn from(error: DeliveryError) -> Self {
        let message = error.to_string();
        match error {
            DeliveryError::NoSuchWebhook(_) => Self::NotFound {
                code: "no_such_webhook",
                message,
            },
            DeliveryError::NoSuchFailedDelivery(_) => Self::NotFound {
                code: "no_such_failed_delivery",
                message,
            },
            DeliveryError::WebhookDeleted(_) => Self::Conflict {
                code: "webhook_deleted",
                message,
            },
            DeliveryError::WebhookDisabled(_) => Self::Conflict {
                code: "webhook_disabled",
                message,
            },
            DeliveryError::Store(error) => error.into(),
            DeliveryError::Journal(error) => error.into(),
            DeliveryError::Ledger(_) => Self::Unavailable(message),
        }
    }
}

impl From<WebhookError> for ApiError {
    fn from(error: WebhookError) -> Self {
        let message = error.to_string();
        match error {
            WebhookError::NoSuchWebhook(_) => Self::NotFound {
                code: "no_such_webhook",
                message,
            },
            WebhookError::Changed(_) => Self::PreconditionFailed(message),
            WebhookError::Invalid(faults) => Self::Invalid(faults),
            WebhookError::Store(error) => error.into(),
        }
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        let message = error.to_string();
        match error {
            CommandError::NotACommand(_) => Self::NotFound {
                code: "no_such_action",
                message,
            },
            CommandError::Invalid(violations) => {
                Self::Invalid(violations.into_iter().map(fault_of).collect())
            }
            CommandError::NoSuchStation(_) => Self::NotFound {
                code: "no_such_station",
                message,
            },
            CommandError::NotConnected(_) => Self::Conflict {
                code: "station_not_connected",
                message,
            },
            CommandError::NotAccepted { .. } => Self::Conflict {
                code: "station_not_accepted",
                message,
            },
            CommandError::Busy(_) => Self::TooMany {
                code: "station_busy",
                message,
            },
            CommandError::TimedOut => Self::NoAnswer {
                code: "station_timeout",
                message,
            },
            CommandError::MalformedAnswer(_) => Self::MalformedAnswer(message),
            CommandError::ConnectionLost => Self::NoAnswer {
                code: "station_connection_lost",
                message,
            },
            CommandError::NotKept | CommandError::NoMessageId => Self::Unavailable(message),
        }
    }
}

impl From<RegistrationError> for ApiError {
    fn from(error: RegistrationError) -> Self {
        let message = error.to_string();
        match error {
            RegistrationError::NotRegistered(_) => Self::NotFound {
                code: "station_not_registered",
                message,
            },
            RegistrationError::AlreadyRegistered(_) => Self::Conflict {
                code: "station_registered",
                message,
            },
            RegistrationError::Invalid(faults) => Self::Invalid(faults),
            RegistrationError::Random(error) => Self::internal(error),
            RegistrationError::Store(error) => error.into(),
        }
    }
}

impl From<IdTagError> for ApiError {
    fn from(error: IdTagError) -> Self {
        let message = error.to_string();
        match error {
            IdTagError::NoSuchIdTag(_) => Self::NotFound {
                code: "no_such_id_tag",
                message,
            },
            IdTagError::Exists(_) => Self::Conflict {
                code: "id_tag_exists",
                message,
            },
            IdTagError::TooMany => Self::Conflict {
                code: "too_many_id_tags",
                message,
            },
            IdTagError::Invalid(faults) => Self::Invalid(faults),
            IdTagError::Store(error) => error.into(),
        }
    }
}

/// The codes are those of other bodies.
fn fault_of(violation: Violation) -> Fault {
    let code = match violation.code {
        ErrorCode::TypeConstraintViolation => "wrong_type",
        ErrorCode::OccurrenceConstraintViolation => "required",
        ErrorCode::FormationViolation if !violation.pointer.is_empty() => "unknown_field",
        ErrorCode::FormationViolation => "malformed",
        ErrorCode::PropertyConstraintViolation
        | ErrorCode::NotImplemented
        | ErrorCode::NotSupported
        | ErrorCode::InternalError
        | ErrorCode::ProtocolError
        | ErrorCode::SecurityError
        | ErrorCode::GenericError => "invalid_value",
    };
    Fault {
        pointer: violation.pointer,
        code,
        message: violation.message,
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_outage() {
            return Self::Unavailable(error.to_string());
        }
        Self::internal(error)
    }
}

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
