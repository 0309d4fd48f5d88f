//! `keys`: who may call the daemon.

use std::time::Duration;

use pipelet_proto::v1;
use serde::Serialize;

use crate::{
    cli::{AssumeYes, Keys},
    client::Client,
    error::{Error, ExitStatus},
    output::Printer,
    table::printable,
};

pub(crate) async fn run(
    verb: Keys,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    match verb {
        Keys::Create {
            name,
            role,
            expires_in,
        } => {
            let request = v1::CreateApiKeyRequest {
                name,
                role: Some(role.name().to_owned()),
                expires_in: expires_in.map(on_wire),
            };
            create(request, client, printer).await
        }
        Keys::List => list(client, printer).await,
        Keys::Revoke { id, assume } => {
            revoke(client.key_id(&id).await?, assume, client, printer).await
        }
    }
}

/// Beyond what a wire can say the daemon refuses it, as it does long before.
fn on_wire(time: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(time).unwrap_or(prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    })
}

async fn create(
    request: v1::CreateApiKeyRequest,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let answer = client
        .api_keys()
        .create_api_key(request)
        .await?
        .into_inner();
    if answer.api_key.is_none() {
        return Err(Error::Incomplete("API key"));
    }
    printer.one(&answer)?;
    printer.note("keep the key now: it is not shown again");
    Ok(ExitStatus::Success)
}

async fn list(client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let answer = client
        .api_keys()
        .list_api_keys(v1::ListApiKeysRequest {})
        .await?;
    let keys = answer.into_inner().api_keys;
    let mut list = printer.list("no API keys");
    list.extend(keys)?;
    list.finish(printer, false)?;
    Ok(ExitStatus::Success)
}

async fn revoke(
    id: u64,
    assume: AssumeYes,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    #[derive(Serialize)]
    struct Revoked {
        id: u64,
    }

    if !assume.yes {
        let request = v1::ListApiKeysRequest {};
        let listed = client.api_keys().list_api_keys(request).await?.into_inner();
        let name = listed.api_keys.into_iter().find(|key| key.id == id);
        let name = name.map_or_else(String::new, |key| format!(" ({})", printable(&key.name)));
        let question = format!("revoke key {id}{name}? whoever shows it is refused from then on");
        if !printer.confirm(&question).await? {
            return Ok(ExitStatus::Failed);
        }
    }
    let request = v1::RevokeApiKeyRequest { id };
    client.api_keys().revoke_api_key(request).await?;
    printer.done(&Revoked { id }, &format!("revoked key {id}"))?;
    Ok(ExitStatus::Success)
}
