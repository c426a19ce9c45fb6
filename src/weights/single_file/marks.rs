//! Marks that show which noise a model was trained on: special tensors of a file, or notes in its header.

use crate::weights::{FileContent, LoadError, header::Header, numbers::floats};

/// An empty tensor that marks models that predict velocity.
pub(super) const V_PREDICTION: &str = "v_pred";

/// An empty tensor that marks models whose last noise level has no signal left.
pub(super) const ZERO_SNR: &str = "ztsnr";

/// Two tensors of one number each, which mark variants trained on EDM's noise levels.
const EDM: [&str; 2] = ["edm_vpred.sigma_min", "edm_vpred.sigma_max"];

/// Tensors with statistics of the latents, as in Playground 2.5. A file with them is refused, because pictures would
/// have wrong colors if the statistics were ignored.
const UNSUPPORTED: [&str; 2] = ["edm_mean", "edm_std"];

/// The note on the type of prediction that trainers write into the header (Stability's model metadata standard).
pub(super) const NOTE: &str = "modelspec.prediction_type";

/// How many characters of a note are shown.
const LONGEST_NOTE: usize = 40;

/// The marks of a file: its special tensors, and the note in its header.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    /// diffusers' `prediction_type`, and the name of the mark that contains it.
    pub prediction: Option<(&'static str, &'static str)>,
    /// The beginning of the note on the type of prediction, if its value is not known.
    pub(super) unknown: Option<String>,
    /// Whether the last noise level has no signal left.
    pub zero_snr: bool,
    /// The smallest and the largest noise level of EDM.
    pub edm: Option<(f64, f64)>,
}

impl Marks {
    /// Reads the marks of a file. The marks of EDM are read only if `reads_edm_marks` is true. A tensor takes
    /// precedence over a note, as in other programs.
    ///
    /// # Errors
    /// The marks require something that is not supported.
    pub(super) fn read(
        path: &str,
        file: &FileContent,
        header: &Header,
        reads_edm_marks: bool,
    ) -> Result<Self, LoadError> {
        let bad = |reason: String| LoadError::Checkpoint { path: path.into(), reason };
        let has = |name: &str| header.tensors.contains_key(name);
        if let Some(name) = UNSUPPORTED.into_iter().find(|name| has(name)) {
            return Err(bad(format!("{name}: latents with statistics of their own are not supported")));
        }
        let edm = match reads_edm_marks && EDM.into_iter().all(has) {
            true => {
                let [least, most] = EDM.map(|name| number(file, header, name));
                let (least, most) = (least.map_err(&bad)?, most.map_err(&bad)?);
                if !(0.0 < least && least < most && most <= 1e4) {
                    return Err(bad(format!("{}: {least} to {most} are no noise levels", EDM.join(", "))));
                }
                Some((least, most))
            }
            false => None,
        };
        let note = header.metadata.get(NOTE).map(|note| note.trim());
        let noted = match note.map(str::to_lowercase).as_deref() {
            Some("v" | "v_prediction" | "v-prediction") => Some(("v_prediction", NOTE)),
            Some("epsilon" | "eps") => Some(("epsilon", NOTE)),
            _ => None,
        };
        let marked = match (edm, has(V_PREDICTION)) {
            (Some(_), _) => Some(("v_prediction", EDM[1])),
            (None, true) => Some(("v_prediction", V_PREDICTION)),
            (None, false) => None,
        };
        let unknown = note.filter(|note| noted.is_none() && !note.is_empty());
        let unknown = unknown.map(|note| note.chars().take(LONGEST_NOTE).collect());
        Ok(Self { prediction: marked.or(noted), unknown, zero_snr: has(ZERO_SNR), edm })
    }
}

/// The value of a tensor with one number.
fn number(file: &FileContent, header: &Header, name: &str) -> Result<f64, String> {
    let info = header.tensors.get(name).ok_or_else(|| format!("it has no {name}"))?;
    if info.shape.iter().any(|axis| *axis != 1) {
        return Err(format!("{name} of shape {:?} is not one number", info.shape));
    }
    let bytes = file.read(info.bytes.clone()).map_err(|error| format!("{name}: {error}"))?;
    match floats(&bytes, info.dtype).as_deref() {
        Some([number]) => Ok(f64::from(*number)),
        _ => Err(format!("{name} is of type {}, expected a float", info.dtype)),
    }
}
