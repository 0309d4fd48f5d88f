//! Lists of all shards, page by page: each shard's go on where they were left.

use futures_util::future::try_join_all;
use tonic::Status;

use super::super::{cursor, error::ApiError};

/// A page of one shard's list.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// Empty at the end.
    pub(super) next: String,
}

/// Where a shard's list goes on: so far behind the beginning of the page that this is the token of;
/// none at its end.
type Place = Option<(usize, String)>;

/// Reads a page token of a list of so many shards. Where it is empty, `first` are the tokens of their
/// first pages.
fn places(token: &str, first: Vec<String>) -> Result<Vec<Place>, ApiError> {
    if token.is_empty() {
        return Ok(first.into_iter().map(|first| Some((0, first))).collect());
    }
    let place = |part: &str| {
        let Some((skip, token)) = part.split_once('-') else {
            return part.is_empty().then_some(None);
        };
        let skip = cursor::to_number(skip).ok()?.try_into().ok()?;
        Some(Some((skip, token.to_owned())))
    };
    let places: Option<Vec<_>> = token.split('.').map(place).collect();
    let places = places.filter(|places| places.len() == first.len());
    places.ok_or_else(|| cursor::InvalidCursor.into())
}

/// Empty where all are at their ends.
fn token(places: &[Place]) -> String {
    if places.iter().all(Option::is_none) {
        return String::new();
    }
    let parts = places.iter().map(|place| match place {
        Some((skip, token)) => format!("{}-{token}", cursor::of_number(*skip as u64)),
        None => String::new(),
    });
    parts.collect::<Vec<_>>().join(".")
}

/// At most `size` items of a list that is merged of those of all shards, the smallest key first, and
/// the token of the next page. `fetch` reads a page of a shard.
pub(super) async fn page<S: Clone, T, K: Ord, F>(
    shards: &[S],
    size: usize,
    page_token: &str,
    first: Vec<String>,
    fetch: impl Fn(S, usize, String) -> F,
    key: impl Fn(&T) -> K,
) -> Result<(Vec<T>, String), Status>
where
    F: Future<Output = Result<Page<T>, Status>>,
{
    let mut places = places(page_token, first)?;
    let looks = shards.iter().zip(&places).map(|(shard, place)| {
        let (shard, place, fetch) = (shard.clone(), place.clone(), &fetch);
        async move {
            let Some((mut skip, mut token)) = place else {
                return Ok::<_, Status>((Vec::new(), None, String::new()));
            };
            loop {
                let Page { mut items, next } =
                    fetch(shard.clone(), skip + size, token.clone()).await?;
                items.drain(..skip.min(items.len()));
                // What was looked through without a find goes on behind it.
                if items.is_empty() && !next.is_empty() {
                    (skip, token) = (0, next);
                    continue;
                }
                return Ok((items, Some((skip, token)), next));
            }
        }
    });
    let mut found = Vec::new();
    let mut ends = Vec::new();
    for (items, place, next) in try_join_all(looks).await? {
        found.push(items.into_iter().peekable());
        ends.push((place, next));
    }
    let mut counts = vec![0; found.len()];
    let mut merged = Vec::new();
    while merged.len() < size {
        let mut first: Option<(usize, K)> = None;
        let mut is_known = true;
        for (shard, of_shard) in found.iter_mut().enumerate() {
            match of_shard.peek().map(&key) {
                Some(key) if first.as_ref().is_none_or(|(_, first)| key < *first) => {
                    first = Some((shard, key));
                }
                // More of it is on its next page.
                None if !ends[shard].1.is_empty() => is_known = false,
                Some(_) | None => {}
            }
        }
        let Some((shard, _)) = first.filter(|_| is_known) else {
            break;
        };
        merged.extend(found[shard].next());
        counts[shard] += 1;
    }
    for (shard, (place, next)) in ends.into_iter().enumerate() {
        places[shard] = match place {
            Some((skip, token)) if found[shard].peek().is_some() => {
                Some((skip + counts[shard], token))
            }
            Some(_) => (!next.is_empty()).then_some((0, next)),
            None => None,
        };
    }
    Ok((merged, token(&places)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of numbers, of which a shard has at most two at once.
    async fn fetch(list: Vec<u64>, size: usize, token: String) -> Result<Page<u64>, Status> {
        let from = cursor::to_number(&token).map_err(ApiError::from)?;
        let list = list.into_iter();
        let rest: Vec<_> = list.filter(|number| *number >= from).collect();
        let items: Vec<_> = rest.iter().copied().take(size.min(2)).collect();
        let next = rest.get(items.len()).copied();
        let next = next.map(cursor::of_number).unwrap_or_default();
        Ok(Page { items, next })
    }

    #[tokio::test]
    async fn every_item_is_on_one_page_and_in_order() {
        let lists = [vec![1, 4, 5, 9, 10, 11], vec![], vec![2, 3, 6, 7, 8]];
        for size in 1..13 {
            let (mut all, mut token) = (Vec::new(), String::new());
            loop {
                let first = vec!["0".to_owned(); lists.len()];
                let page = page(&lists, size, &token, first, fetch, |number| *number);
                let (items, next) = page.await.unwrap();
                assert!(items.len() <= size);
                all.extend(items);
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            assert_eq!(all, (1..12).collect::<Vec<_>>(), "{size}");
        }
    }

    #[test]
    fn what_is_no_token() {
        for text in ["x", "1", "1-2", "1-2.x", "1-2.3-4.5-6", "g-1."] {
            assert!(places(text, vec![String::new(); 2]).is_err(), "{text}");
        }
        let found = places("1-ab.", vec![String::new(); 2]).unwrap();
        assert_eq!(found, [Some((1, "ab".to_owned())), None]);
        assert_eq!(token(&found), "1-ab.");
    }
}
