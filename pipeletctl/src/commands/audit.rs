//! `audit`: whether every delivery that was owed is accounted for. Fails where one is not.

use pipelet_proto::v1;

use crate::{
    cli::Audit,
    client::Client,
    error::{Error, ExitStatus},
    output::Printer,
    system::when,
    view,
};

pub(crate) async fn run(
    args: Audit,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let since = args.since.map(|since| since.resolve(when::now()));
    let request = v1::AuditWebhooksRequest {
        webhook_id: client.webhook_id_if(args.webhook.as_ref()).await?,
        since: since.map(when::on_wire),
    };
    let answer = client.webhooks().audit_webhooks(request).await?;
    let audit = view::Audit::new(answer.into_inner(), since);
    printer.either(&audit, &audit.text())?;
    for id in audit.unaudited() {
        printer.note(&format!(
            "webhook {id} is being deleted and was not audited; audit again when it is gone"
        ));
    }
    for caveat in audit.caveats() {
        printer.note(&caveat);
    }
    for gap in audit.gaps() {
        printer.note(&format!("gap: {gap}"));
    }
    Ok(if audit.balanced {
        ExitStatus::Success
    } else {
        ExitStatus::Failed
    })
}
