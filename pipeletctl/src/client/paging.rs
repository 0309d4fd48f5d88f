//! Walks a listing page by page.
//!
//! Invariant: never more items than the limit, and one page in memory at a time. What the items
//! are, and how a page is fetched, is the caller's.

/// Enough for a table, and few enough that a page of large payloads fits one message.
const DEFAULT_PAGE_SIZE: u32 = 100;

#[derive(Debug)]
pub(crate) struct Pages {
    /// How many items are still wanted; none: all there are.
    remaining: Option<u64>,
    page_size: u32,
    /// The page to ask for next; none: there is no more.
    token: Option<String>,
}

/// What to ask the daemon for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) size: u32,
    pub(crate) token: String,
}

impl Pages {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            remaining: limit,
            page_size: DEFAULT_PAGE_SIZE,
            token: Some(String::new()),
        }
    }

    /// For listings whose items may be large.
    pub(crate) fn with_page_size(self, page_size: u32) -> Self {
        Self { page_size, ..self }
    }

    pub(crate) fn next(&mut self) -> Option<Page> {
        if self.remaining == Some(0) {
            return None;
        }
        let token = self.token.take()?;
        let wanted = self
            .remaining
            .and_then(|remaining| u32::try_from(remaining).ok());
        let size = wanted.map_or(self.page_size, |wanted| wanted.min(self.page_size));
        Some(Page { size, token })
    }

    /// Whether it ended at the limit, and not at the end.
    pub(crate) const fn has_more(&self) -> bool {
        self.token.is_some()
    }

    /// Takes an answer in and gives back what of it is within the limit.
    pub(crate) fn accept<T>(&mut self, mut items: Vec<T>, next_token: String) -> Vec<T> {
        if let Some(remaining) = &mut self.remaining {
            items.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
            *remaining -= items.len() as u64;
        }
        self.token = (!next_token.is_empty()).then_some(next_token);
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fetches from a listing of `total` items.
    fn walk(mut pages: Pages, total: u32) -> (Vec<u32>, Vec<u32>) {
        let (mut items, mut sizes) = (Vec::new(), Vec::new());
        while let Some(page) = pages.next() {
            sizes.push(page.size);
            let from: u32 = page.token.parse().unwrap_or(0);
            let to = total.min(from + page.size);
            let token = if to < total {
                to.to_string()
            } else {
                String::new()
            };
            items.extend(pages.accept((from..to).collect(), token));
        }
        (items, sizes)
    }

    #[test]
    fn all_of_it() {
        let (items, sizes) = walk(Pages::new(None), 250);
        assert_eq!(items, (0..250).collect::<Vec<_>>());
        assert_eq!(sizes, [100, 100, 100]);
    }

    #[test]
    fn no_more_than_the_limit() {
        let (items, sizes) = walk(Pages::new(Some(120)), 250);
        assert_eq!(items.len(), 120);
        assert_eq!(sizes, [100, 20]);
        assert_eq!(walk(Pages::new(Some(0)), 250).1, [0_u32; 0]);
    }

    #[test]
    fn a_daemon_that_sends_too_much_is_cut() {
        let mut pages = Pages::new(Some(2));
        pages.next();
        assert_eq!(pages.accept(vec![1, 2, 3], "more".into()), [1, 2]);
        assert_eq!(pages.next(), None);
    }
}
