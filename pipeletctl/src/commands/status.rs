//! `status`: how the daemon is doing. Fails where it is not ready, so a script can wait for it.

use pipelet_proto::v1;

use crate::{
    client::Client,
    error::{Error, ExitStatus},
    output::Printer,
    view::DaemonStatus,
};

pub(crate) async fn run(client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let answer = client.daemon().get_status(v1::GetStatusRequest {}).await?;
    let status = DaemonStatus::from(answer.into_inner());
    printer.one(&status)?;
    Ok(if status.ready {
        ExitStatus::Success
    } else {
        ExitStatus::Failed
    })
}
