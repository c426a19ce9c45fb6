//! The findings of a check.

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// The server runs, but perhaps not as intended.
    Warning,
    /// The server does not start, or fails later.
    Error,
}

/// One line about a finding, and one line about how to mend it.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub level: Level,
    pub text: String,
    /// `None` if nothing is to be mended.
    pub mend: Option<String>,
}

impl Finding {
    pub fn ok(text: impl Into<String>) -> Finding {
        Finding { level: Level::Ok, text: one_line(text), mend: None }
    }

    pub fn warning(text: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { level: Level::Warning, text: one_line(text), mend: Some(one_line(mend)) }
    }

    pub fn error(text: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { level: Level::Error, text: one_line(text), mend: Some(one_line(mend)) }
    }

    /// The finding with both lines changed.
    pub fn map(self, change: impl Fn(String) -> String) -> Finding {
        Finding { text: change(self.text), mend: self.mend.map(change), ..self }
    }

    pub fn print(&self, check: &str) {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        println!("{level:<8} {check}: {}", self.text);
        if let Some(mend) = &self.mend {
            println!("         mend: {mend}");
        }
    }
}

/// The text with spaces instead of line breaks.
fn one_line(text: impl Into<String>) -> String {
    text.into().split_whitespace().collect::<Vec<_>>().join(" ")
}
