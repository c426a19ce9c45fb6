//! Why files cannot be used.

use crate::{families::CardError, weights::LoadError};

/// Why a file cannot be used, in words for users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::catalogue) struct Fault {
    pub reason: String,
    /// Whether the files could not be read for a transient reason, such as a lack of file descriptors.
    pub is_unread: bool,
}

impl Fault {
    /// The fault of an error; users see `reason`.
    pub fn of(error: &LoadError, reason: String) -> Fault {
        Fault { reason, is_unread: error.is_transient() }
    }

    /// Like [`Fault::of`], for an error that occurred while the card of a model was made.
    pub fn of_card(error: &CardError, reason: String) -> Fault {
        match error {
            CardError::Load(error) => Fault::of(error, reason),
            _ => reason.into(),
        }
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Fault {
        Fault { reason, is_unread: false }
    }
}

impl From<LoadError> for Fault {
    fn from(error: LoadError) -> Fault {
        Fault::of(&error, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_lack_of_file_descriptors_says_nothing_about_a_file() {
        let fault = |errno: Errno| Fault::from(LoadError::Read { path: "a".to_owned(), source: errno.into() });
        assert!(fault(Errno::MFILE).is_unread && fault(Errno::NFILE).is_unread && fault(Errno::IO).is_unread);
        assert!(!fault(Errno::ACCESS).is_unread && !Fault::from("no model".to_owned()).is_unread);
        let card = CardError::Load(LoadError::Read { path: "a".to_owned(), source: Errno::MFILE.into() });
        assert!(Fault::of_card(&card, card.to_string()).is_unread);
    }
}
