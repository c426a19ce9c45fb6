//! What the owner of a finished generation does with it.

/// A change of a finished generation that is no event of its history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerChange {
    Deleted,
    Starred,
    Unstarred,
}

impl OwnerChange {
    const ALL: [OwnerChange; 3] = [OwnerChange::Deleted, OwnerChange::Starred, OwnerChange::Unstarred];

    /// The name of the server-sent event.
    pub fn as_str(self) -> &'static str {
        match self {
            OwnerChange::Deleted => "generation.deleted",
            OwnerChange::Starred => "generation.starred",
            OwnerChange::Unstarred => "generation.unstarred",
        }
    }

    /// The inverse of [`OwnerChange::as_str`].
    pub fn parse(text: &str) -> Option<OwnerChange> {
        OwnerChange::ALL.into_iter().find(|change| change.as_str() == text)
    }
}
