//! The vocabulary that the tables are written in.

/// What a field may hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A text of at most this many characters, `CiString` included: case is never an error.
    Text(usize),
    /// A text without a limit.
    AnyText,
    Enum(&'static [&'static str]),
    Integer,
    /// A number with at most one digit after the point.
    Decimal,
    DateTime,
    Uri,
    Object(&'static [Field]),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    /// Where the field is an array: how many elements it has at least.
    pub at_least: Option<usize>,
}

/// A field that must be there.
pub(super) const fn req(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        required: true,
        at_least: None,
    }
}

/// A field that may be there.
pub(super) const fn opt(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        required: false,
        at_least: None,
    }
}

impl Field {
    /// The field is an array of its kind.
    pub(super) const fn array(self, at_least: usize) -> Self {
        Self {
            at_least: Some(at_least),
            ..self
        }
    }
}
