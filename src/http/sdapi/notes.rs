//! What a request asks for and does not get, as texts in `info` of the answer.

/// A bounded list of texts: a request can have any number of fields.
#[derive(Debug, Default)]
pub(super) struct Notes {
    shown: Vec<String>,
    /// How many texts had no place in `shown`.
    more: usize,
}

impl Notes {
    /// Maximum number of texts in an answer.
    pub const MOST: usize = 50;

    pub fn push(&mut self, note: String) {
        match self.shown.len() < Notes::MOST {
            true => self.shown.push(note),
            false => self.more += 1,
        }
    }

    /// At most 50 texts. If there were more, the last one says how many are left out.
    pub fn texts(mut self) -> Vec<String> {
        if self.more > 0 {
            self.shown.truncate(Notes::MOST - 1);
            self.shown.push(format!("{} more notes are left out", self.more + 1));
        }
        self.shown
    }
}

impl Extend<String> for Notes {
    fn extend<T: IntoIterator<Item = String>>(&mut self, notes: T) {
        notes.into_iter().for_each(|note| self.push(note));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_50_notes_are_shown() {
        for (added, shown, last) in [(0, 0, None), (50, 50, Some("49")), (51, 50, Some("2 more notes are left out"))] {
            let mut notes = Notes::default();
            notes.extend((0..added).map(|at: u32| at.to_string()));
            let texts = notes.texts();
            assert_eq!((texts.len(), texts.last().map(String::as_str)), (shown, last), "{added}");
        }
    }
}
