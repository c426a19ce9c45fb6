//! Stands in for the code of content credentials in builds without the Cargo feature `provenance`.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Problem, Report, SignError, Statement, Verdict, VerifyError, report::format_of};

/// Signs nothing and verifies nothing.
#[derive(Clone, Debug, Default)]
pub struct Provenance;

impl Provenance {
    /// Whether files are signed.
    pub fn signs(&self) -> bool {
        false
    }

    /// Never called, because [`Provenance::signs`] is false.
    ///
    /// # Errors
    /// Always.
    pub fn sign(&self, _file: &[u8], _statement: &Statement<'_>) -> Result<Vec<u8>, SignError> {
        Err(SignError("this build has no support for content credentials".to_owned()))
    }

    /// Keeps nothing.
    pub fn keep(&self, _file: &[u8]) -> Option<Bytes> {
        None
    }

    /// A report that says that this build cannot read credentials, so that the answer can tell the watermark.
    ///
    /// # Errors
    /// The file is no picture.
    pub fn verify(&self, file: &[u8]) -> Result<Report, VerifyError> {
        let format = format_of(file).ok_or(VerifyError::NotAPicture)?;
        let explanation = VerifyError::NotBuilt.to_string();
        let problem = Problem { code: "not_built".to_owned(), explanation: Some(explanation.clone()) };
        Ok(Report {
            object: "verification",
            content_type: format.media_type(),
            sha256: Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect(),
            verdict: Verdict::Unreadable,
            explanation,
            by_this_server: false,
            trusted: false,
            signer: None,
            claim_generator: None,
            actions: Vec::new(),
            generation: None,
            ingredients: Vec::new(),
            problems: vec![problem],
        })
    }
}
