//! Reads the credentials of a file and checks them.

use std::{
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use c2pa::{Context, Error, Manifest, Reader, ValidationResults, ValidationState, assertions::Actions};
use serde_json::Value;

use super::{
    Action, Ingredient, Problem, Report, SignedBy, Verdict, VerifyError,
    keys::certificates_of,
    manifest::GENERATION,
    report::{explanation, format_of, report},
};
use crate::generation::{Format, cut};

/// The maximum number of entries of each list in a report.
const MOST: usize = 50;
/// The maximum number of characters of each text that a report copies from the file.
const MOST_CHARS: usize = 500;
/// The maximum number of bytes of the JSON of latentd's own assertion.
const MOST_GENERATION_BYTES: usize = 256 << 10;

/// The code for a signer that no trust anchor vouches for. This is no fault of the file, so it is not reported as a
/// problem.
const UNTRUSTED: &str = "signingCredential.untrusted";

/// Reads and checks the credentials of a file. `own` is the certificate of this server.
pub(super) fn verify(context: &Arc<Context>, own: Option<&[u8]>, file: &[u8]) -> Result<Report, VerifyError> {
    let format = format_of(file).ok_or(VerifyError::Format)?;
    // The library reads untrusted files. If the library panics, the request must still get an answer.
    let read = catch_unwind(AssertUnwindSafe(|| {
        Reader::from_shared_context(context).with_stream(format.media_type(), Cursor::new(file))
    }));
    let unreadable = |why: &str| {
        let problem = Problem { code: "unreadable".to_owned(), explanation: Some(cut(why, MOST_CHARS)) };
        Report { problems: vec![problem], ..report(format, file, Verdict::Unreadable) }
    };
    Ok(match read {
        Ok(Ok(reader)) => match reader.active_manifest() {
            Some(manifest) => of_manifest(&reader, manifest, own, report(format, file, verdict(&reader))),
            None => unreadable("the manifest store has no active manifest"),
        },
        Ok(Err(Error::JumbfNotFound | Error::ProvenanceMissing))
            if matches!(format, Format::Webp | Format::Wav) && !has_whole_chunks(file) =>
        {
            unreadable("the chunks of the file do not fit its length")
        }
        Ok(Err(Error::JumbfNotFound | Error::ProvenanceMissing)) => report(format, file, Verdict::None),
        Ok(Err(error)) => unreadable(&error.to_string()),
        Err(_) => unreadable("the reader of credentials failed"),
    })
}

/// Whether the chunks of a WebP or WAV file fill the length that its header names. If not, the reader of credentials
/// sees only the chunks before the wrong length.
fn has_whole_chunks(file: &[u8]) -> bool {
    let length = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?) as usize);
    let Some(end) = length(4).map(|length| 8 + length).filter(|end| *end <= file.len()) else { return false };
    let mut at = 12;
    while at < end {
        let Some(chunk) = length(at + 4) else { return false };
        // A chunk of an odd length has one more byte.
        at += 8 + chunk + chunk % 2;
    }
    at == end
}

fn verdict(reader: &Reader) -> Verdict {
    match reader.validation_state() {
        ValidationState::Invalid => Verdict::Altered,
        ValidationState::Valid | ValidationState::Trusted => Verdict::Intact,
    }
}

fn of_manifest(reader: &Reader, manifest: &Manifest, own: Option<&[u8]>, report: Report) -> Report {
    let is_intact = report.verdict == Verdict::Intact;
    let signature = manifest.signature_info();
    let certificate = signature.and_then(|signature| certificates_of(signature.cert_chain())?.into_iter().next());
    let is_own = certificate.as_deref().is_some_and(|certificate| Some(certificate) == own);
    let (by_this_server, trusted) = (is_intact && is_own, reader.validation_state() == ValidationState::Trusted);
    let text = |text: &String| cut(text, MOST_CHARS);
    Report {
        explanation: explanation(report.verdict, by_this_server, trusted).to_owned(),
        by_this_server,
        trusted,
        signer: signature.map(|signature| SignedBy {
            common_name: signature.common_name.as_ref().map(text),
            issuer: signature.issuer.as_ref().map(text),
            algorithm: signature.alg.map(|alg| alg.to_string()),
            serial_number: signature.cert_serial_number.as_ref().map(text),
            time: signature.time.as_ref().map(text),
        }),
        claim_generator: claim_generator(manifest),
        actions: actions(manifest),
        generation: generation(manifest),
        ingredients: manifest.ingredients().iter().take(MOST).map(ingredient).collect(),
        problems: problems(reader),
        ..report
    }
}

/// The name and the version of the program that wrote the credentials.
fn claim_generator(manifest: &Manifest) -> Option<String> {
    let info = manifest.claim_generator_info.as_ref()?.first()?;
    let version = info.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    Some(cut(&format!("{}{version}", info.name), MOST_CHARS))
}

fn actions(manifest: &Manifest) -> Vec<Action> {
    let found: Actions = match manifest.find_assertion(Actions::LABEL) {
        Ok(found) => found,
        Err(_) => return Vec::new(),
    };
    let one = |action: &c2pa::assertions::Action| {
        let value = serde_json::to_value(action).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(|text| cut(text, MOST_CHARS));
        let agent = &value["softwareAgent"];
        Action {
            action: cut(action.action(), MOST_CHARS),
            digital_source_type: text(&value["digitalSourceType"]),
            software_agent: text(agent).or_else(|| {
                let version = text(&agent["version"]).map(|version| format!(" {version}")).unwrap_or_default();
                Some(text(&agent["name"])? + &version)
            }),
            when: text(&value["when"]),
        }
    };
    found.actions().iter().take(MOST).map(one).collect()
}

/// latentd's own assertion.
fn generation(manifest: &Manifest) -> Option<Value> {
    let assertion = manifest.assertions().iter().find(|assertion| assertion.label() == GENERATION)?;
    let value = assertion.value().ok()?;
    (value.is_object() && value.to_string().len() <= MOST_GENERATION_BYTES).then(|| value.clone())
}

fn ingredient(ingredient: &c2pa::Ingredient) -> Ingredient {
    let text = |text: &str| cut(text, MOST_CHARS);
    let state = ingredient.validation_results().map(ValidationResults::validation_state);
    Ingredient {
        title: ingredient.title().map(text),
        format: ingredient.format().map(text),
        relationship: ingredient.relationship().as_str(),
        verdict: match ingredient.active_manifest() {
            None => Verdict::None,
            Some(_) if state.is_some_and(|state| state != ValidationState::Invalid) => Verdict::Intact,
            Some(_) => Verdict::Altered,
        },
    }
}

fn problems(reader: &Reader) -> Vec<Problem> {
    let failures = reader.validation_status().unwrap_or_default();
    let problem = |status: &c2pa::validation_status::ValidationStatus| Problem {
        code: cut(status.code(), MOST_CHARS),
        explanation: status.explanation().map(|text| cut(text, MOST_CHARS)),
    };
    failures.iter().filter(|status| status.code() != UNTRUSTED).take(MOST).map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::has_whole_chunks;

    #[test]
    fn chunks_fill_the_length_of_a_file() {
        let file = |length: u8, chunk: u8| {
            [b"RIFF", &[length, 0, 0, 0][..], b"WEBP", b"VP8L", &[chunk, 0, 0, 0], &[0; 4]].concat()
        };
        assert!(has_whole_chunks(&file(16, 4)) && has_whole_chunks(&file(16, 3)));
        for (length, chunk) in [(16, 2), (16, 5), (16, 255), (17, 4), (255, 4), (12, 4)] {
            assert!(!has_whole_chunks(&file(length, chunk)), "{length} {chunk}");
        }
        assert!(!has_whole_chunks(b"RIFF"));
    }
}
