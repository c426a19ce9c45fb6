//! What the credentials of a file say, and whether they are intact.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{generation::Format, hex::hex};

/// What the credentials of a file say, and whether they are intact.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub object: &'static str,
    pub content_type: &'static str,
    /// SHA-256 of the whole file.
    pub sha256: String,
    pub verdict: Verdict,
    /// The verdict in a sentence.
    pub explanation: String,
    /// Whether the file was signed with the certificate of this server, and is intact.
    pub by_this_server: bool,
    /// Whether an anchor of `provenance.trust_anchors` vouches for the signer, and the file is intact.
    pub trusted: bool,
    pub signer: Option<SignedBy>,
    /// The program that wrote the credentials.
    pub claim_generator: Option<String>,
    pub actions: Vec<Action>,
    /// What latentd says about a picture that it drew; `None` in credentials of other programs.
    pub generation: Option<Value>,
    pub ingredients: Vec<Ingredient>,
    /// What is wrong with the credentials.
    pub problems: Vec<Problem>,
}

/// The result of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The file has no credentials.
    None,
    /// The credentials, or the file around them, cannot be read.
    Unreadable,
    /// The file, or its credentials, were changed after signing, or the signature is not valid.
    Altered,
    /// Nothing was changed after signing.
    Intact,
    /// This build cannot read credentials.
    NotBuilt,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Verdict; 5] =
        [Verdict::None, Verdict::Unreadable, Verdict::Altered, Verdict::Intact, Verdict::NotBuilt];

    /// The word in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::None => "none",
            Verdict::Unreadable => "unreadable",
            Verdict::Altered => "altered",
            Verdict::Intact => "intact",
            Verdict::NotBuilt => "not_built",
        }
    }
}

/// The signer, from the certificate in the credentials.
#[derive(Clone, Debug, Serialize)]
pub struct SignedBy {
    pub common_name: Option<String>,
    pub issuer: Option<String>,
    pub algorithm: Option<String>,
    pub serial_number: Option<String>,
    /// When the file was signed, according to the time stamp in its credentials; `None` if they have no time stamp.
    pub time: Option<String>,
}

/// What was done to the picture.
#[derive(Clone, Debug, Serialize)]
pub struct Action {
    pub action: String,
    /// The IPTC term for the kind of source, such as a trained model, as a URL.
    pub digital_source_type: Option<String>,
    pub software_agent: Option<String>,
    pub when: Option<String>,
}

/// A picture from which the content of the file was made.
#[derive(Clone, Debug, Serialize)]
pub struct Ingredient {
    pub title: Option<String>,
    pub format: Option<String>,
    pub relationship: &'static str,
    /// The verdict that this picture's credentials got when the picture was used.
    pub verdict: Verdict,
}

/// What is wrong with the credentials.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// A status code of the C2PA specification, such as `assertion.dataHash.mismatch`, or `unreadable`.
    pub code: String,
    pub explanation: Option<String>,
}

/// The format of a picture, by the first bytes of its file.
pub(super) fn format_of(file: &[u8]) -> Option<Format> {
    match file {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Format::Png),
        [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::Webp),
        _ => None,
    }
}

/// A report without credentials.
pub(super) fn report(format: Format, file: &[u8], verdict: Verdict) -> Report {
    Report {
        object: "verification",
        content_type: format.media_type(),
        sha256: hex(Sha256::digest(file)),
        verdict,
        explanation: explanation(verdict, false, false).to_owned(),
        by_this_server: false,
        trusted: false,
        signer: None,
        claim_generator: None,
        actions: Vec::new(),
        generation: None,
        ingredients: Vec::new(),
        problems: Vec::new(),
    }
}

/// The verdict in a sentence.
pub(super) fn explanation(verdict: Verdict, by_this_server: bool, trusted: bool) -> &'static str {
    match verdict {
        Verdict::None => "The file has no content credentials. This says nothing about how the picture was made.",
        Verdict::NotBuilt => {
            "This build of latentd cannot read content credentials, because the Cargo feature provenance is off. It \
             looks for the watermark only."
        }
        Verdict::Unreadable => "The file has no content credentials that can be read.",
        Verdict::Altered => {
            "The content credentials are not valid: the file was changed after it was signed, or the signature is not \
             valid."
        }
        Verdict::Intact if by_this_server => {
            "The file was signed with the certificate of this server and has not changed since."
        }
        Verdict::Intact if trusted => "The file was signed by a trusted signer and has not changed since.",
        Verdict::Intact => {
            "The file has not changed since it was signed, but no trust anchor of this server vouches for the signer."
        }
    }
}
