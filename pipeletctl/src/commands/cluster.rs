//! `cluster`: the nodes that the daemon is one of.

use pipelet_proto::v1;

use crate::{
    cli::Cluster,
    client::Client,
    error::{Error, ExitStatus},
    output::Printer,
    view::without_owner,
};

pub(crate) async fn run(
    verb: Cluster,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    match verb {
        Cluster::Status => status(client, printer).await,
        Cluster::Drain { node, undo } => drain(node, undo, client, printer).await,
    }
}

async fn status(client: &Client, printer: &Printer) -> Result<ExitStatus, Error> {
    let asked = v1::GetClusterRequest {};
    let cluster = client.cluster().get_cluster(asked).await?.into_inner();
    printer.one(&cluster)?;
    Ok(if without_owner(&cluster).is_empty() {
        ExitStatus::Success
    } else {
        ExitStatus::Failed
    })
}

async fn drain(
    node: String,
    undo: bool,
    client: &Client,
    printer: &Printer,
) -> Result<ExitStatus, Error> {
    let mut service = client.cluster();
    let (drained, sentence) = if undo {
        let asked = v1::UndrainNodeRequest { node: node.clone() };
        let answer = service.undrain_node(asked).await?.into_inner();
        (answer.node, format!("{node} may own shards again"))
    } else {
        let asked = v1::DrainNodeRequest { node: node.clone() };
        let answer = service.drain_node(asked).await?.into_inner();
        (
            answer.node,
            format!("{node} owns no shards, and takes none"),
        )
    };
    let drained = drained.ok_or(Error::Incomplete("node"))?;
    printer.done(&drained, &sentence)?;
    Ok(ExitStatus::Success)
}
