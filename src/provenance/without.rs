//! Stands in for the code of content credentials in builds without the Cargo feature `provenance`.

use bytes::Bytes;

use super::{
    Report, SignError, Statement, Verdict, VerifyError,
    report::{format_of, report},
};

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

    /// A report that says that this build cannot read credentials.
    ///
    /// # Errors
    /// [`VerifyError::Format`].
    pub fn verify(&self, file: &[u8]) -> Result<Report, VerifyError> {
        let format = format_of(file).ok_or(VerifyError::Format)?;
        Ok(report(format, file, Verdict::NotBuilt))
    }
}
