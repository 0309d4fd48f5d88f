//! Which number somebody means who has said a name.

use pipelet_proto::v1;

use super::{Client, paging::Pages};
use crate::{
    cli::Named,
    error::{CommandError, Error, ExitStatus},
};

impl Client {
    /// The id of the webhook that is meant.
    ///
    /// # Errors
    ///
    /// Where none has the name, or several have.
    pub(crate) async fn webhook_id(&self, named: &Named) -> Result<u64, Error> {
        let name = match named {
            Named::Id(id) => return Ok(*id),
            Named::Name(name) => name,
        };
        let mut ids = Vec::new();
        let mut pages = Pages::new(None);
        while let Some(webhooks) = self.next_webhooks(&mut pages).await? {
            let found = webhooks.iter().filter(|webhook| webhook.name == *name);
            ids.extend(found.map(|webhook| webhook.id));
        }
        the_one(
            "webhook",
            name,
            &ids,
            "`pipeletctl webhooks list` shows what there is",
        )
    }

    /// The same, where one was named.
    pub(crate) async fn webhook_id_if(&self, named: Option<&Named>) -> Result<Option<u64>, Error> {
        Ok(match named {
            Some(named) => Some(self.webhook_id(named).await?),
            None => None,
        })
    }

    /// The id of the API key that is meant.
    ///
    /// # Errors
    ///
    /// As [`Client::webhook_id`].
    pub(crate) async fn key_id(&self, named: &Named) -> Result<u64, Error> {
        let name = match named {
            Named::Id(id) => return Ok(*id),
            Named::Name(name) => name,
        };
        let request = v1::ListApiKeysRequest {};
        let answer = self.api_keys().list_api_keys(request).await?;
        let keys = answer.into_inner().api_keys.into_iter();
        let ids = keys.filter(|key| key.name == *name).map(|key| key.id);
        let ids: Vec<_> = ids.collect();
        the_one(
            "key",
            name,
            &ids,
            "`pipeletctl keys list` shows what there is",
        )
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no {what} is named {name:?}")]
struct NoSuchName {
    what: &'static str,
    name: String,
}

fn the_one(
    what: &'static str,
    name: &str,
    ids: &[u64],
    listing: &'static str,
) -> Result<u64, Error> {
    match ids {
        [id] => Ok(*id),
        [] => {
            let name = name.to_owned();
            let unknown = NoSuchName { what, name };
            Err(CommandError::new(ExitStatus::NotFound, Some(listing), unknown).into())
        }
        several => {
            let ids: Vec<_> = several.iter().map(u64::to_string).collect();
            Err(Error::Ambiguous {
                what,
                name: name.to_owned(),
                ids: ids.join(", "),
            })
        }
    }
}
