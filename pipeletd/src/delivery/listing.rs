//! A webhook's deliveries as a list that is read page by page: what waits for a retry, by due
//! time, and behind it the latest that were settled, the latest first.
//!
//! It moves while it is read: a delivery that is settled or tried between two pages may be on both,
//! or on none.

use pipelet_domain::{
    deliveries::{Retry, RetryKey},
    webhooks::WebhookId,
};

use super::{
    history::Settled,
    webhooks::{Delivery, DeliveryError},
};
use crate::store::{Part, ReadLimit};

#[derive(Debug)]
pub enum Listed {
    Waiting(Retry),
    Settled(Settled),
}

/// Where in the list a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Waiting(RetryKey),
    /// By [`Settled::number`].
    Settled(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Pending,
    Delivered,
    Dead,
}

impl Listed {
    const fn status(&self) -> Status {
        match self {
            Self::Waiting(_) => Status::Pending,
            Self::Settled(settled) if settled.delivered => Status::Delivered,
            Self::Settled(_) => Status::Dead,
        }
    }

    /// About how many bytes of memory it takes.
    pub fn memory_size(&self) -> usize {
        match self {
            Self::Waiting(retry) => retry.memory_size(),
            Self::Settled(_) => size_of::<Self>(),
        }
    }

    pub const fn place(&self) -> Place {
        match self {
            Self::Waiting(retry) => Place::Waiting(retry.key),
            Self::Settled(settled) => Place::Settled(settled.number),
        }
    }
}

impl Delivery {
    /// Deliveries behind a place; where a status is given, those that have it.
    pub async fn deliveries(
        &self,
        id: WebhookId,
        only: Option<Status>,
        after: Option<Place>,
        limit: ReadLimit,
    ) -> Result<Part<Listed>, DeliveryError> {
        let wanted = |status| only.is_none_or(|only| only == status);
        let (after, settled_before) = match after {
            Some(Place::Settled(number)) => (None, Some(number)),
            Some(Place::Waiting(key)) => (Some(key), None),
            None => (None, None),
        };
        let mut listed = Vec::new();
        if wanted(Status::Pending) && settled_before.is_none() {
            let retries = self.retries(id, after, limit).await?.map(Listed::Waiting);
            if retries.is_cut {
                return Ok(retries);
            }
            listed.extend(retries.items);
        }
        let settled = self.0.running(id)?.history.latest().into_iter();
        let settled = settled
            .filter(|it| settled_before.is_none_or(|before| it.number < before))
            .map(Listed::Settled)
            .filter(|it| wanted(it.status()));
        listed.extend(settled.take(limit.count - listed.len()));
        Ok(Part {
            items: listed,
            is_cut: false,
        })
    }
}
