//! Signs files with the keys of the server.

use std::{
    fmt,
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use c2pa::{BoxedSigner, Builder, Context, Signer, SigningAlg, create_signer};
use serde_json::json;

use super::{KeyError, Keys, Report, SignError, Statement, VerifyError, ingredient, manifest, verify};
use crate::generation::Format;

/// Signs files, if the server has keys, and verifies files. A clone shares the keys.
#[derive(Clone)]
pub struct Provenance {
    context: Arc<Context>,
    signer: Option<Arc<Compact>>,
}

impl Provenance {
    /// Opens the keys. The result signs with `keys`; without keys, it only verifies. It calls a signature trusted if
    /// the certificate of the signer leads to one of the certificates in `anchors` (PEM; may be empty).
    ///
    /// # Errors
    /// The keys cannot sign, or the anchors are no certificates.
    pub fn new(keys: Option<&Keys>, anchors: &str) -> Result<Provenance, KeyError> {
        let context = context(anchors).map_err(|error| KeyError::Anchors(error.to_string()))?;
        let signer = keys.map(Compact::of).transpose()?.map(Arc::new);
        Ok(Provenance { context: context.into_shared(), signer })
    }

    /// Whether files are signed.
    pub fn signs(&self) -> bool {
        self.signer.is_some()
    }

    /// A copy of the file with a credential that contains the statement. The format of the file must be
    /// [signable](Format::is_signable). Call this function on a blocking thread. Two calls with equal arguments give
    /// files of different bytes, because credentials contain random salts.
    ///
    /// # Errors
    /// There are no keys, or the file is not of the format of the job.
    pub fn sign(&self, file: &[u8], statement: &Statement<'_>) -> Result<Vec<u8>, SignError> {
        let definition = manifest::definition(statement);
        let kept = statement.inputs.iter().map(ingredient::of).collect();
        self.sign_as(file, statement.job.output.encoding.format(), &definition, kept)
    }

    /// Signs a small picture and verifies it, so that keys that cannot sign are found at the start.
    ///
    /// # Errors
    /// The keys cannot sign, or readers would refuse what they sign.
    pub fn check(&self) -> Result<(), KeyError> {
        if self.signer.is_none() {
            return Ok(());
        }
        let unusable = |why: String| KeyError::Unusable(why);
        let signed = self.sign_as(TEST_PICTURE, Format::Png, &manifest::bare(), Vec::new());
        let signed = signed.map_err(|error| unusable(error.to_string()))?;
        let report = self.verify(&signed).map_err(|error| unusable(error.to_string()))?;
        match report.by_this_server {
            true => Ok(()),
            false => {
                let codes: Vec<_> = report.problems.into_iter().map(|problem| problem.code).collect();
                Err(unusable(format!("readers would refuse its signatures ({})", codes.join(", "))))
            }
        }
    }

    fn sign_as(
        &self,
        file: &[u8],
        format: Format,
        definition: &serde_json::Value,
        ingredients: Vec<c2pa::Ingredient>,
    ) -> Result<Vec<u8>, SignError> {
        let signer = self.signer.as_ref().ok_or_else(|| SignError("there is no key".to_owned()))?;
        let failed = |error: c2pa::Error| SignError(error.to_string());
        let mut builder = Builder::from_shared_context(&self.context);
        builder = builder.with_definition(definition.to_string()).map_err(failed)?;
        for ingredient in ingredients {
            builder.add_ingredient(ingredient);
        }
        let (mut source, mut signed) = (Cursor::new(file), Cursor::new(Vec::with_capacity(file.len() + 8192)));
        builder.sign(&**signer, media_type(format), &mut source, &mut signed).map_err(failed)?;
        Ok(signed.into_inner())
    }

    /// The part of an uploaded picture's credentials that is stored, so that pictures made from it can contain this
    /// part; `None` if the file has none, or if nothing is signed.
    pub fn keep(&self, file: &[u8]) -> Option<Bytes> {
        if !self.signs() {
            return None;
        }
        // As in `verify`: a panic of the library must not refuse the request.
        catch_unwind(AssertUnwindSafe(|| ingredient::keep(&self.context, file))).ok().flatten()
    }

    /// Reads the credentials of a file (PNG, JPEG, WebP, GIF, WAV or MP4) and checks them. Uses no network. Call this
    /// function on a blocking thread.
    ///
    /// # Errors
    /// [`VerifyError::Format`].
    pub fn verify(&self, file: &[u8]) -> Result<Report, VerifyError> {
        verify::verify(&self.context, self.signer.as_ref().map(|signer| signer.certificate()), file)
    }
}

impl fmt::Debug for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provenance").field("signs", &self.signs()).finish_non_exhaustive()
    }
}

/// The name of the format in the library, which knows animated PNG files as PNG files.
fn media_type(format: Format) -> &'static str {
    match format {
        Format::Apng => Format::Png.media_type(),
        format => format.media_type(),
    }
}

/// The settings of the library: no thumbnails, no network, and these trust anchors.
fn context(anchors: &str) -> c2pa::Result<Context> {
    let anchors = (!anchors.is_empty()).then_some(anchors);
    Context::new().with_settings(json!({
        "builder": {"thumbnail": {"enabled": false}},
        "trust": {"trust_anchors": anchors},
        "core": {"allowed_network_hosts": [], "decode_identity_assertions": false},
        "verify": {"ocsp_fetch": false, "remote_manifest_fetch": false},
    }))
}

/// Signs as the library's signer does, but reserves fewer bytes for the signature. The bytes that the library reserves
/// make every file more than 10 KiB longer.
struct Compact {
    signer: BoxedSigner,
    certificates: Vec<Vec<u8>>,
}

impl Compact {
    fn of(keys: &Keys) -> Result<Compact, KeyError> {
        let (certificates, algorithm) = (keys.certificates_der()?, keys.algorithm()?);
        let key = keys.private_key.expose().as_bytes();
        let signer = create_signer::from_keys(keys.certificates.as_bytes(), key, algorithm, None);
        let signer = signer.map_err(|error| KeyError::Unusable(error.to_string()))?;
        Ok(Compact { signer, certificates })
    }

    /// The DER of the signer's certificate.
    fn certificate(&self) -> &[u8] {
        self.certificates.first().map(Vec::as_slice).unwrap_or_default()
    }
}

impl Signer for Compact {
    fn sign(&self, data: &[u8]) -> c2pa::Result<Vec<u8>> {
        self.signer.sign(data)
    }

    fn alg(&self) -> SigningAlg {
        self.signer.alg()
    }

    fn certs(&self) -> c2pa::Result<Vec<Vec<u8>>> {
        Ok(self.certificates.clone())
    }

    fn reserve_size(&self) -> usize {
        /// The signature and its frame.
        const SIGNATURE: usize = 1024;
        self.certificates.iter().map(Vec::len).sum::<usize>() + SIGNATURE
    }
}

/// A PNG of one pixel.
const TEST_PICTURE: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00, 0x00, 0x00, 0x00, 0x3a, 0x7e, 0x9b, 0x55, 0x00, 0x00, 0x00, 0x0a, 0x49,
    0x44, 0x41, 0x54, 0x78, 0xda, 0x63, 0x68, 0x00, 0x00, 0x00, 0x82, 0x00, 0x81, 0xda, 0x45, 0x08, 0x3b, 0x00, 0x00,
    0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];
