//! The memory of a call's answer.

use tonic::{Request, Response, Status};

use super::super::readers::{Held, Reader};

/// The caller's access to the memory for answers.
pub(in crate::api) fn of<T>(request: &Request<T>) -> Result<Reader, Status> {
    let reader = request.extensions().get::<Reader>().cloned();
    reader.ok_or_else(|| Status::internal("nobody was let in"))
}

impl Held {
    /// Held until the answer was sent.
    pub(in crate::api) fn within<T>(self, mut answer: Response<T>) -> Response<T> {
        answer.extensions_mut().insert(self);
        answer
    }
}
