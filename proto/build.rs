//! Compiles the `.proto` files with protox, a compiler in Rust: no `protoc` is needed.
//!
//! A message is also what REST and `pipeletctl -o json` show, so it gets what serde and utoipa need,
//! by rules alone: a new field needs nothing here. Keys come in the order of the `.proto` file; what
//! is marked `optional` there may be `null`, all else is there; a comment is the field's description.

use std::{collections::BTreeSet, env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use tonic_prost_build::Builder;

const FILES: [&str; 9] = [
    "pipelet/v1/webhook.proto",
    "pipelet/v1/failed_delivery.proto",
    "pipelet/v1/event.proto",
    "pipelet/v1/station.proto",
    "pipelet/v1/transaction.proto",
    "pipelet/v1/id_tag.proto",
    "pipelet/v1/api_key.proto",
    "pipelet/v1/daemon.proto",
    "pipelet/v1/cluster.proto",
];

const PACKAGE: &str = ".pipelet.v1.";
const TIMESTAMP: &str = ".google.protobuf.Timestamp";

/// What has a secret in it that must not get into a log.
const SECRET: [&str; 11] = [
    "CreateApiKeyResponse",
    "CreateWebhookRequest",
    "CreateWebhookResponse",
    "RegisterStationRequest",
    "RegistrationSpec",
    "RotateSigningSecretRequest",
    "RotateSigningSecretResponse",
    "UpdateStationRequest",
    "UpdateWebhookRequest",
    "UpdateWebhookResponse",
    "WebhookSpec",
];

/// What REST calls messages that gRPC has to call something else.
const NAMES: [(&str, &str); 11] = [
    ("AuditWebhooksResponse", "Audit"),
    ("BackfillResponse", "BackfillProgress"),
    ("CreateApiKeyResponse", "CreatedApiKey"),
    ("CreateWebhookResponse", "WebhookAndSecret"),
    ("GetClusterResponse", "Cluster"),
    ("GetOverviewResponse", "Overview"),
    ("GetStatusResponse", "DaemonStatus"),
    ("LastMeterValues", "MeterValues"),
    ("TestWebhookResponse", "TestResult"),
    ("TraceEventResponse", "EventTrace"),
    ("TriggerEventResponse", "TriggeredEvent"),
];

/// The few fields that are not shown as their type is.
const FIELDS: [(&str, &str); 8] = [
    ("CreateApiKeyResponse.api_key", "#[serde(flatten)]"),
    ("CreateWebhookResponse.webhook", "#[serde(flatten)]"),
    ("TriggerEventResponse.event", "#[serde(flatten)]"),
    (
        "CreateWebhookResponse.signing_secret",
        "#[serde(skip_serializing_if = \"Option::is_none\")]",
    ),
    (
        "TestWebhookResponse.code",
        "#[serde(skip_serializing_if = \"Option::is_none\")]",
    ),
    (
        "Webhook.absent_shards",
        "#[serde(skip_serializing_if = \"Vec::is_empty\")]",
    ),
    (
        "WebhookAudit.unbalanced_shards",
        "#[serde(skip_serializing_if = \"Vec::is_empty\")]",
    ),
    (
        "TestWebhookResponse.error",
        "#[serde(skip_serializing_if = \"Option::is_none\")]",
    ),
];

/// Fields whose text is JSON, and which are JSON in JSON.
const RAW: [&str; 3] = ["payload", "details", "sampled_value"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=pipelet");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let builder =
        tonic_prost_build::configure().skip_debug(SECRET.map(|name| format!("{PACKAGE}{name}")));
    shown(builder, &descriptors).compile_fds(descriptors)?;
    Ok(())
}

/// With the attributes of what is shown in JSON.
fn shown(mut builder: Builder, descriptors: &FileDescriptorSet) -> Builder {
    let files = descriptors.file.iter();
    let ours = files.filter(|file| file.package() == "pipelet.v1");
    let mut messages: Vec<_> = ours.flat_map(|file| &file.message_type).collect();
    // What holds what can't be shown can't be shown either.
    loop {
        let names: BTreeSet<_> = messages
            .iter()
            .map(|message| format!("{PACKAGE}{}", message.name()))
            .collect();
        let before = messages.len();
        messages.retain(|message| {
            message
                .field
                .iter()
                .all(|field| can_be_shown(field, &names))
        });
        if messages.len() == before {
            break;
        }
    }
    for message in messages {
        let path = format!("{PACKAGE}{}", message.name());
        builder = builder
            .message_attribute(&path, "#[derive(serde::Serialize)]")
            .message_attribute(&path, schema("derive(utoipa::ToSchema)"));
        let name = NAMES.iter().find(|(name, _)| *name == message.name());
        if let Some((_, name)) = name {
            builder = builder.message_attribute(&path, schema(&format!("schema(as = {name})")));
        }
        for field in &message.field {
            let path = format!("{path}.{}", field.name());
            for attribute in attributes(message, field) {
                builder = builder.field_attribute(&path, attribute);
            }
        }
    }
    builder
}

fn can_be_shown(field: &FieldDescriptorProto, shown: &BTreeSet<String>) -> bool {
    let is_of_oneof = field.oneof_index.is_some() && !field.proto3_optional();
    match field.r#type() {
        _ if is_of_oneof => false,
        Type::Message => field.type_name() == TIMESTAMP || shown.contains(field.type_name()),
        Type::Bytes => false,
        _ => true,
    }
}

fn attributes(message: &DescriptorProto, field: &FieldDescriptorProto) -> Vec<String> {
    let mut attributes = Vec::new();
    let name = format!("{}.{}", message.name(), field.name());
    if let Some((_, attribute)) = FIELDS.iter().find(|(field, _)| *field == name) {
        attributes.push((*attribute).to_owned());
    }
    let is_list = field.label() == Label::Repeated;
    let shown = match field.r#type() {
        Type::Message if field.type_name() == TIMESTAMP => {
            let with = if is_list { "times" } else { "time" };
            attributes.push(format!(
                "#[serde(serialize_with = \"crate::json::{with}\")]"
            ));
            Some("crate::schema::Time")
        }
        Type::Message => field.type_name().strip_prefix(PACKAGE),
        Type::String if RAW.contains(&field.name()) && !field.proto3_optional() => {
            attributes.push("#[serde(serialize_with = \"crate::json::raw\")]".to_owned());
            Some("crate::schema::Payload")
        }
        Type::String if field.name() == "event" => Some("crate::schema::EventName"),
        Type::String if field.name() == "events" => Some("crate::schema::EventSelector"),
        _ => None,
    };
    let is_left_out = attributes
        .iter()
        .any(|attribute| attribute.contains("skip_"));
    let mut said = Vec::new();
    if let Some(shown) = shown {
        said.push(match (is_list, field.proto3_optional()) {
            (true, _) => format!("value_type = Vec<{shown}>"),
            (false, true) => format!("value_type = Option<{shown}>"),
            (false, false) => format!("value_type = {shown}"),
        });
        if shown.ends_with("::Time") {
            said.push("inline".to_owned());
        }
    }
    if is_left_out {
        said.extend(["value_type = String", "required = false"].map(str::to_owned));
    } else {
        said.push("required".to_owned());
    }
    if !said.is_empty() {
        attributes.push(schema(&format!("schema({})", said.join(", "))));
    }
    attributes
}

/// An attribute of utoipa's, which only those that make the document of the API build.
fn schema(attribute: &str) -> String {
    format!("#[cfg_attr(feature = \"openapi\", {attribute})]")
}
