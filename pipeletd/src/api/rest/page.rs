//! Query strings: paging and filters. A parameter that is not known is refused: a filter with a
//! slip in its name must not select everything.

use axum::{extract::FromRequestParts, http::request::Parts};
use jiff::Timestamp;
use pipelet_domain::webhooks::Fault;
use serde::Serialize;
use url::form_urlencoded;

use super::{
    super::{DEFAULT_PAGE, MAX_PAGE, cursor::InvalidCursor, error::ApiError},
    problem::Problem,
};

/// The parameters of a request, and what was wrong with those taken so far.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    faults: Vec<Fault>,
}

/// Which part of a list is asked for.
#[derive(Debug)]
pub(super) struct Page<C> {
    pub(super) limit: usize,
    pub(super) after: Option<C>,
}

/// A part of a list.
#[derive(Debug, Serialize)]
pub(super) struct List<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self::parse(parts.uri.query().unwrap_or_default()))
    }
}

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let pairs = form_urlencoded::parse(query.as_bytes());
        Self {
            pairs: pairs.into_owned().collect(),
            faults: Vec::new(),
        }
    }

    /// Takes a parameter and reads it; `expected` says what it should have been.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let at = self.pairs.iter().position(|(name, _)| name == key)?;
        let (_, value) = self.pairs.remove(at);
        let read = read(&value);
        if read.is_none() {
            self.faults.push(Fault {
                pointer: format!("?{key}"),
                code: "invalid_parameter",
                message: format!("{value:?} is not {expected}"),
            });
        }
        read
    }

    /// Takes all parameters of this name.
    pub(super) fn all(&mut self, key: &str) -> Vec<String> {
        let taken = self.pairs.extract_if(.., |(name, _)| name == key);
        taken.map(|(_, value)| value).collect()
    }

    /// Adds faults that were found in what was taken.
    pub(super) fn blame(&mut self, faults: Vec<Fault>) {
        self.faults.extend(faults);
    }

    pub(super) fn time(&mut self, key: &str) -> Option<Timestamp> {
        self.take(
            key,
            "an RFC 3339 time, as in 2026-04-14T12:00:00Z",
            |text| text.parse().ok(),
        )
    }

    pub(super) fn page<C>(
        &mut self,
        read: impl FnOnce(&str) -> Result<C, InvalidCursor>,
    ) -> Page<C> {
        let in_range = |limit: &usize| (1..=MAX_PAGE).contains(limit);
        let expected = format!("a number from 1 to {MAX_PAGE}");
        let limit = self.take("limit", &expected, |text| {
            text.parse().ok().filter(in_range)
        });
        let expected = "a cursor that a list gave";
        let after = self.take("cursor", expected, |text| read(text).ok());
        Page {
            limit: limit.unwrap_or(DEFAULT_PAGE),
            after,
        }
    }

    /// The same, of a list whose cursors its service reads.
    pub(super) fn service_page(&mut self) -> (u32, String) {
        let page = self.page(|text| {
            let is_like_one = |byte: u8| byte.is_ascii_hexdigit() || b".-".contains(&byte);
            let text = (!text.is_empty() && text.bytes().all(is_like_one)).then_some(text);
            text.map(str::to_owned).ok_or(InvalidCursor)
        });
        let limit = u32::try_from(page.limit).unwrap_or(u32::MAX);
        (limit, page.after.unwrap_or_default())
    }

    /// Fails where anything was wrong, or is left.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        let mut faults = self.faults;
        faults.extend(self.pairs.into_iter().map(|(key, _)| Fault {
            pointer: format!("?{key}"),
            code: "unknown_parameter",
            message: "this parameter is not known here".to_owned(),
        }));
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Invalid(faults))
        }
    }
}

impl<C> Page<C> {
    /// One more than asked for: whether there is a next page shows by it.
    pub(super) const fn fetch(&self) -> usize {
        self.limit + 1
    }

    /// Makes the list of what was fetched.
    pub(super) fn list<I, T>(
        &self,
        mut items: Vec<I>,
        cursor: impl FnOnce(&I) -> String,
        view: impl FnMut(I) -> T,
    ) -> List<T> {
        let more = items.len() > self.limit;
        items.truncate(self.limit);
        let next_cursor = items.last().filter(|_| more).map(cursor);
        List {
            data: items.into_iter().map(view).collect(),
            next_cursor,
        }
    }
}

impl<T> List<T> {
    pub(super) fn whole(data: Vec<T>) -> Self {
        Self {
            data,
            next_cursor: None,
        }
    }

    /// What a service has answered, whose token is empty at the end.
    pub(super) fn part(data: Vec<T>, next: String) -> Self {
        let next_cursor = (!next.is_empty()).then_some(next);
        Self { data, next_cursor }
    }
}
