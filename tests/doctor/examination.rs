//! Runs `latentd doctor` and reads what it prints.

use std::process::{Command, Output};

use serde_json::Value;

/// The settings of one set-up, in an empty data folder and on free ports unless they say otherwise.
pub struct Setup {
    pub data: tempfile::TempDir,
    settings: Vec<(String, String)>,
}

/// The findings of the doctor.
pub struct Examination {
    pub code: i32,
    pub report: Value,
    /// Standard output and standard error of the run for people.
    pub text: String,
}

impl Setup {
    pub fn new() -> Setup {
        let data = tempfile::tempdir().unwrap();
        let setup = Setup { settings: Vec::new(), data };
        let dir = setup.data.path().join("data").display().to_string();
        setup
            .set("LATENTD_DATA_DIR", dir)
            .set("LATENTD_HTTP__BIND", "127.0.0.1:0")
            .set("LATENTD_OPERATOR__BIND", "127.0.0.1:0")
    }

    pub fn set(mut self, key: &str, value: impl ToString) -> Setup {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    pub fn set_all(self, settings: Vec<(String, String)>) -> Setup {
        settings.into_iter().fold(self, |setup, (key, value)| setup.set(&key, value))
    }

    /// Runs the program after the words of `wrapper`.
    pub fn run(&self, wrapper: &[&str], arguments: &[&str]) -> Output {
        let words: Vec<&str> = wrapper.iter().copied().chain([env!("CARGO_BIN_EXE_latentd")]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(arguments).env_remove("LATENTD_CONFIG");
        command.envs(self.settings.iter().map(|(key, value)| (key, value))).output().unwrap()
    }

    pub fn examine(&self) -> Examination {
        self.examine_with(&[], &[])
    }

    pub fn examine_with(&self, wrapper: &[&str], options: &[&str]) -> Examination {
        let json = self.run(wrapper, &[&["doctor", "--json"], options].concat());
        let people = self.run(wrapper, &[&["doctor"], options].concat());
        let text = [&people.stdout[..], &people.stderr[..]].map(String::from_utf8_lossy).concat();
        assert_eq!(json.status.code(), people.status.code(), "{text}");
        let report = serde_json::from_slice(&json.stdout).unwrap_or_else(|error| panic!("{error}: {text}"));
        Examination { code: json.status.code().unwrap(), report, text }
    }
}

impl Examination {
    /// Asserts that a finding of `check` has this level, contains `fault`, and has a mend that contains `mend`; also in
    /// the text for people.
    pub fn finds(&self, level: &str, check: &str, fault: &str, mend: &str) -> &Examination {
        let has = |finding: &Value, key: &str, part: &str| finding[key].as_str().unwrap_or_default().contains(part);
        let findings = self.report["findings"].as_array().unwrap();
        let found = findings.iter().find(|finding| {
            finding["check"] == check
                && finding["level"] == level
                && has(finding, "text", fault)
                && has(finding, "mend", mend)
        });
        let found =
            found.unwrap_or_else(|| panic!("no {level} of {check} with {fault:?} and {mend:?}:\n{}", self.text));
        for key in ["text", "mend"] {
            let line = found[key].as_str().unwrap_or_default();
            assert!(!line.contains('\n'), "{line}");
        }
        assert!(self.text.contains(fault) && self.text.contains(mend), "{}", self.text);
        self
    }

    /// The number of findings of `check`.
    pub fn count(&self, check: &str) -> usize {
        self.report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check).count()
    }

    /// Asserts the exit code, and that it agrees with the findings.
    pub fn ends_with(&self, code: i32) -> &Examination {
        assert_eq!(self.code, code, "{}", self.text);
        let findings = self.report["findings"].as_array().unwrap();
        let count = |level: &str| findings.iter().filter(|finding| finding["level"] == level).count();
        assert_eq!(code, i32::from(count("error") > 0), "{}", self.text);
        assert_eq!(self.report["errors"], count("error"));
        assert_eq!(self.report["warnings"], count("warning"));
        self
    }

    /// Asserts that nothing that was printed contains `secret`.
    pub fn hides(&self, secret: &str) -> &Examination {
        assert!(!self.text.contains(secret) && !self.report.to_string().contains(secret), "{}", self.text);
        self
    }
}
