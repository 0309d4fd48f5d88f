//! `webhooks`: the life of a subscription.

use std::{path::PathBuf, time::Duration};

use pipelet_proto::v1;
use serde::Serialize;

use crate::{
    cli::{AssumeYes, CreateWebhook, Limit, Webhooks, mask},
    client::{Client, paging::Pages},
    error::{Error, ExitStatus},
    output::Printer,
    system::secret::Secret,
    table::printable,
    view::{Retried, advice, tested},
    words::counted,
};

/// For what comes of retries that are sent now.
const RETRY_PATIENCE: Duration = Duration::from_mins(1);

pub(crate) async fn run(
    verb: Webhooks,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    match verb {
        Webhooks::Create(args) => create(*args, client, printer).await,
        Webhooks::List { limit } => list(limit, client, printer).await,
        Webhooks::Get { id } => get(client.webhook_id(&id).await?, client, printer).await,
        Webhooks::Update(args) => {
            let id = client.webhook_id(&args.id).await?;
            let request = args.change(id)?.ok_or(Error::NothingToChange)?;
            update(request, client, printer).await
        }
        Webhooks::Delete { id, assume } => {
            delete(client.webhook_id(&id).await?, assume, client, printer).await
        }
        Webhooks::Test { id, event } => {
            test(client.webhook_id(&id).await?, event, client, printer).await
        }
        Webhooks::Retry { id } => retry(client.webhook_id(&id).await?, client, printer).await,
        Webhooks::Enable { id } => {
            update(switch(client.webhook_id(&id).await?, true), client, printer).await
        }
        Webhooks::Disable { id } => {
            update(
                switch(client.webhook_id(&id).await?, false),
                client,
                printer,
            )
            .await
        }
        Webhooks::RotateSecret {
            id,
            signing_secret_file,
        } => {
            rotate_secret(
                client.webhook_id(&id).await?,
                signing_secret_file,
                client,
                printer,
            )
            .await
        }
        Webhooks::Stats { id, over } => {
            super::stats::run(
                client.webhook_id_if(id.as_ref()).await?,
                over,
                client,
                printer,
            )
            .await
        }
        Webhooks::Backfill(args) => super::backfill::run(*args, client, printer).await,
        Webhooks::Deliveries { id, limit } => {
            deliveries(client.webhook_id(&id).await?, limit, client, printer).await
        }
    }
}

async fn create(
    args: CreateWebhook,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let spec = args.spec()?;
    let request = v1::CreateWebhookRequest {
        webhook: Some(spec),
    };
    let answer = client
        .webhooks()
        .create_webhook(request)
        .await?
        .into_inner();
    show_with_secret(answer.webhook, answer.signing_secret, printer)
}

async fn list(limit: Limit, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let mut list =
        printer.list::<v1::Webhook>("no webhooks: `pipeletctl webhooks create` makes one");
    let mut pages = Pages::new(limit.count(printer.is_on_a_terminal()));
    while let Some(webhooks) = client.next_webhooks(&mut pages).await? {
        list.extend(webhooks)?;
    }
    list.finish(printer, pages.has_more())?;
    Ok(ExitStatus::Success)
}

async fn get(id: u64, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let request = v1::GetWebhookRequest { id };
    let answer = client.webhooks().get_webhook(request).await?;
    show(answer.into_inner().webhook, printer)
}

async fn update(
    request: v1::UpdateWebhookRequest,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let answer = client
        .webhooks()
        .update_webhook(request)
        .await?
        .into_inner();
    show_with_secret(answer.webhook, answer.signing_secret, printer)
}

async fn rotate_secret(
    id: u64,
    file: Option<PathBuf>,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let request = v1::RotateSigningSecretRequest {
        id,
        signing_secret: Secret::given(None, file)?.map(Secret::into_text),
    };
    let answer = client.webhooks().rotate_signing_secret(request).await?;
    let answer = answer.into_inner();
    show_with_secret(answer.webhook, answer.signing_secret, printer)
}

async fn delete(
    id: u64,
    assume: AssumeYes,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    #[derive(Serialize)]
    struct Deleted {
        id: u64,
        cancelled: u64,
    }

    if !assume.yes {
        let request = v1::GetWebhookRequest { id };
        let answer = client.webhooks().get_webhook(request).await?.into_inner();
        let webhook = answer.webhook.ok_or(Error::Incomplete("webhook"))?;
        let owed = match webhook.stats.unwrap_or_default().pending {
            0 => String::new(),
            owed => format!(
                " and cancel {} that it is owed",
                counted(owed, "delivery", "deliveries")
            ),
        };
        let question = format!("delete webhook {id} ({}){owed}?", printable(&webhook.name));
        if !printer.confirm(&question).await? {
            return Ok(ExitStatus::Failed);
        }
    }
    let request = v1::DeleteWebhookRequest { id };
    let answer = client.webhooks().delete_webhook(request).await?;
    let cancelled = answer.into_inner().cancelled;
    let deliveries = counted(cancelled, "delivery", "deliveries");
    printer.done(
        &Deleted { id, cancelled },
        &format!("deleted webhook {id}; cancelled {deliveries} that it was owed"),
    )?;
    Ok(ExitStatus::Success)
}

/// What could be sent now, if there is anything. That this can't be known is no failure.
async fn waiting(id: u64, client: &Client) -> Option<u64> {
    let request = v1::GetWebhookRequest { id };
    let answer = client.webhooks().get_webhook(request).await.ok()?;
    let webhook = answer.into_inner().webhook?;
    let waiting = webhook.stats.unwrap_or_default().retrying;
    Some(waiting).filter(|waiting| *waiting > 0 && webhook.enabled)
}

async fn retry(id: u64, client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let request = v1::RetryDeliveriesRequest {
        id,
        wait: prost_types::Duration::try_from(RETRY_PATIENCE).ok(),
    };
    let bar = printer.progress("sending");
    let mut webhooks = client.webhooks_with_timeout(RETRY_PATIENCE);
    let answer = webhooks.retry_deliveries(request).await;
    bar.finish_and_clear();
    let retried = Retried::new(id, &answer?.into_inner());
    printer.done(&retried, &retried.sentence())?;
    if !retried.ended {
        printer.hint(&format!(
            "it goes on: `pipeletctl deliveries list --status pending --webhook {id}` shows what waits"
        ));
    }
    if retried.failed > 0 {
        printer.hint(&format!(
            "`pipeletctl doctor` says why, and `webhooks test {id}`"
        ));
        return Ok(ExitStatus::Failed);
    }
    Ok(ExitStatus::Success)
}

async fn test(
    id: u64,
    event: Option<String>,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let request = v1::TestWebhookRequest { id, event };
    let answer = client.webhooks().test_webhook(request).await?;
    let outcome = answer.into_inner();
    printer.either(&outcome, &tested(&outcome))?;
    if outcome.ok {
        if let Some(waiting) = waiting(id, client).await {
            let waits = counted(waiting, "delivery waits", "deliveries wait");
            let hint =
                format!("{waits} for a retry: `pipeletctl webhooks retry {id}` sends at once");
            printer.hint(&hint);
        }
        return Ok(ExitStatus::Success);
    }
    let request = v1::GetWebhookRequest { id };
    // That it failed has been told.
    let answer = client.webhooks().get_webhook(request).await.ok();
    if let Some(webhook) = answer.and_then(|answer| answer.into_inner().webhook) {
        let (status, code) = (outcome.status_code, outcome.code.as_deref());
        printer.hint(&advice(&webhook, status, code));
    }
    Ok(ExitStatus::Failed)
}

async fn deliveries(
    id: u64,
    limit: Limit,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut list = printer.list::<v1::Delivery>("no deliveries to show");
    let mut pages = Pages::new(limit.count(printer.is_on_a_terminal()));
    while let Some(page) = pages.next() {
        let request = v1::ListDeliveriesRequest {
            webhook_id: id,
            page_size: page.size,
            page_token: page.token,
            status: String::new(),
        };
        let answer = client.webhooks().list_deliveries(request).await?;
        let answer = answer.into_inner();
        let deliveries = pages.accept(answer.deliveries, answer.next_page_token);
        list.extend(deliveries)?;
    }
    list.finish(printer, pages.has_more())?;
    Ok(ExitStatus::Success)
}

fn show(webhook: Option<v1::Webhook>, printer: &Printer) -> Result<ExitStatus, Error> {
    let webhook = webhook.ok_or(Error::Incomplete("webhook"))?;
    printer.one(&webhook)?;
    Ok(ExitStatus::Success)
}

/// The same with a secret that was made just now.
fn show_with_secret(
    webhook: Option<v1::Webhook>,
    secret: Option<String>,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    if secret.is_none() {
        return show(webhook, printer);
    }
    let webhook = Some(webhook.ok_or(Error::Incomplete("webhook"))?);
    printer.one(&v1::CreateWebhookResponse {
        webhook,
        signing_secret: secret,
    })?;
    printer.hint("keep the signing secret: it is not shown again");
    Ok(ExitStatus::Success)
}

/// The request that turns a webhook on or off and leaves the rest.
fn switch(id: u64, enabled: bool) -> v1::UpdateWebhookRequest {
    v1::UpdateWebhookRequest {
        id,
        webhook: Some(v1::WebhookSpec {
            enabled: Some(enabled),
            ..v1::WebhookSpec::default()
        }),
        update_mask: Some(mask(["enabled"])),
    }
}
