//! `keys`: who may call the daemon.

use pipelet_proto::v1;
use serde::Serialize;

use crate::{
    cli::Keys,
    client::Client,
    error::{Error, ExitStatus},
    output::Printer,
    view::{ApiKey, NewApiKey},
};

pub(crate) async fn run(
    verb: Keys,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    match verb {
        Keys::Create { name } => create(name, client, printer).await,
        Keys::List => list(client, printer).await,
        Keys::Revoke { id } => revoke(id, client, printer).await,
    }
}

async fn create(name: String, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let request = v1::CreateApiKeyRequest { name };
    let answer = client
        .api_keys()
        .create_api_key(request)
        .await?
        .into_inner();
    let api_key = answer.api_key.ok_or(Error::Incomplete("API key"))?;
    printer.one(&NewApiKey::new(api_key, answer.key))?;
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
    list.extend(keys.into_iter().map(ApiKey::from))?;
    list.finish(printer)?;
    Ok(ExitStatus::Success)
}

async fn revoke(id: u64, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    #[derive(Serialize)]
    struct Revoked {
        id: u64,
    }

    let request = v1::RevokeApiKeyRequest { id };
    client.api_keys().revoke_api_key(request).await?;
    printer.done(&Revoked { id }, &format!("revoked key {id}"))?;
    Ok(ExitStatus::Success)
}
