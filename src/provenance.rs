//! Content credentials (C2PA): signs the files of pictures, films and sounds, and verifies the credentials of any such
//! file.
//!
//! A credential is a manifest inside the file. The manifest says what made the file and from which inputs; a
//! signature covers the manifest and the rest of the file. Without the Cargo feature `provenance`, this code is not
//! built, and files are not signed.

#[cfg(feature = "provenance")]
mod chain;
#[cfg(feature = "provenance")]
mod ingredient;
#[cfg(feature = "provenance")]
mod keys;
#[cfg(feature = "provenance")]
mod manifest;
mod report;
#[cfg(feature = "provenance")]
mod signer;
mod statement;
#[cfg(feature = "provenance")]
mod verify;
#[cfg(not(feature = "provenance"))]
mod without;

#[cfg(feature = "provenance")]
pub use chain::make;
#[cfg(feature = "provenance")]
pub use keys::Keys;
pub use report::{Action, Ingredient, Problem, Report, SignedBy, Verdict};
#[cfg(feature = "provenance")]
pub use signer::Provenance;
pub use statement::{Input, Statement, WeightDigests};
#[cfg(not(feature = "provenance"))]
pub use without::Provenance;

/// Why a certificate or a private key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no certificate: the text must have a PEM block CERTIFICATE")]
    Certificate,
    #[error("there is no private key: the text must have a PEM block PRIVATE KEY")]
    NoKey,
    #[error("the key is a {0}; it must be an unencrypted PKCS#8 key, as `openssl pkcs8 -topk8 -nocrypt` writes it")]
    Encoding(String),
    #[error("the key is of an unsupported kind; it must be for ES256, ES384, ES512 or Ed25519")]
    Kind,
    #[error("a certificate cannot be made: {0}")]
    NotMade(String),
    #[error("the trust anchors cannot be used: {0}")]
    Anchors(String),
    #[error("the certificate and its key cannot sign: {0}")]
    Unusable(String),
}

/// A file that cannot be signed.
#[derive(Debug, thiserror::Error)]
#[error("the file cannot be signed: {0}")]
pub struct SignError(pub String);

/// Why a file has no report.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The first bytes belong to no format that can be verified.
    #[error("must be a PNG, JPEG, WebP, GIF, WAV, FLAC or MP4 file")]
    Format,
}
