//! TLS as a server: what is shown, and the bytes of a connection with or without it.
//!
//! It knows neither what is spoken on the connections nor who speaks.

mod certificates;
mod stream;

pub use self::{
    certificates::{Certificates, TlsError, TlsFiles},
    stream::Stream,
};
