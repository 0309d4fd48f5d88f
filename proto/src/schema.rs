//! What utoipa has to be told of the messages' fields that are more than their Rust type.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{
            AdditionalProperties, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, Type,
        },
    },
};

/// A time in RFC 3339.
pub struct Time;
/// An OCPP message's body.
pub struct Payload;
/// An event type's name.
pub struct EventName;
/// The same, or a group of them, or all.
pub struct EventSelector;

fn schema(object: impl Into<Schema>) -> RefOr<Schema> {
    RefOr::T(object.into())
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        let time = ObjectBuilder::new().schema_type(Type::String);
        schema(time.format(Some(format)).build())
    }
}

impl ToSchema for Time {}

impl PartialSchema for Payload {
    fn schema() -> RefOr<Schema> {
        let payload = ObjectBuilder::new().schema_type(Type::Object);
        let payload = payload.description(Some("The OCPP message's body, as it came or went."));
        let payload = payload.additional_properties(Some(AdditionalProperties::FreeForm(true)));
        schema(payload.build())
    }
}

impl ToSchema for Payload {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Payload")
    }
}

/// Text whose values the catalogue of events says.
macro_rules! named {
    ($($name:ident),*) => {$(
        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                schema(Object::with_type(Type::String))
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    )*};
}

named!(EventName, EventSelector);
