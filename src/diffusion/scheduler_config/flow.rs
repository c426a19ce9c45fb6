//! Options of flow-matching levels, `x = (1 − σ) x0 + σ ε`, and the shift of such levels towards noise.

use serde_json::Value;

use super::Class;
use super::keys::{Keys, refused};
use crate::diffusion::error::InvalidScheduler;

/// The values of the keys `shift` or `flow_shift`, `use_dynamic_shifting`, `time_shift_type` and `shift_terminal`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::diffusion) struct Flow {
    shift: Shift,
    /// The last level before zero. The levels are stretched until their last one has this value; `None` does not
    /// stretch them.
    terminal: Option<f64>,
    /// Whether the factor of the shift depends on the picture size.
    is_dynamic: bool,
    /// μ as a function of the number of tokens of a picture.
    mu: MuLine,
}

/// diffusers' `calculate_shift`: μ is linear in the number of tokens, from `base_shift` at `base_image_seq_len` to
/// `max_shift` at `max_image_seq_len`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct MuLine {
    base_image_seq_len: f64,
    max_image_seq_len: f64,
    base_shift: f64,
    max_shift: f64,
}

impl MuLine {
    fn at(self, tokens: f64) -> f64 {
        let m = (self.max_shift - self.base_shift) / (self.max_image_seq_len - self.base_image_seq_len);
        tokens * m + self.base_shift - m * self.base_image_seq_len
    }
}

/// The factor `s` of `σ → s σ / (1 + (s − 1) σ)` (Esser et al. 2024, arXiv:2403.03206, equation 23).
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shift {
    /// A known factor.
    By(f64),
    /// `e^μ`, where μ depends on a picture size that is not known yet. `otherwise` is the factor if no pipeline sets μ.
    ByExpOfMu { otherwise: Option<f64> },
    /// `μ`, which depends on a picture size that is not known yet.
    ByMu,
}

impl Flow {
    /// The same levels with the factor for `mu`.
    pub(super) fn at(self, mu: f64) -> Flow {
        let shift = match self.shift {
            Shift::By(shift) => Shift::By(shift),
            Shift::ByExpOfMu { .. } => Shift::By(libm::exp(mu)),
            Shift::ByMu => Shift::By(mu),
        };
        Flow { shift, ..self }
    }

    /// The same levels for pictures of `tokens` tokens.
    pub(super) fn for_tokens(self, tokens: u64) -> Flow {
        self.at(self.mu.at(tokens as f64))
    }

    /// The factor of the shift; `None` if it depends on a picture size that is not known.
    pub(in crate::diffusion) fn factor(&self) -> Option<f64> {
        match self.shift {
            Shift::By(shift) => Some(shift),
            Shift::ByExpOfMu { otherwise } => otherwise,
            Shift::ByMu => None,
        }
    }

    /// Whether the factor of the shift depends on the picture size.
    pub(in crate::diffusion) fn is_dynamic(&self) -> bool {
        self.is_dynamic
    }

    pub(in crate::diffusion) fn terminal(&self) -> Option<f64> {
        self.terminal
    }
}

/// How a class reads the keys about flow levels.
#[derive(Debug)]
pub(in crate::diffusion) struct FlowKeys {
    /// Whether the levels are always flow levels; otherwise they are flow levels if `use_flow_sigmas` is true.
    pub is_always: bool,
    /// Whether the factor may be μ itself (`time_shift_type: linear`).
    pub may_be_linear: bool,
    /// Whether shifting by the picture size fails if no pipeline sets the size; otherwise the class uses `flow_shift`
    /// instead. A class with `is_always` true fails in both cases.
    pub needs_size: bool,
}

impl FlowKeys {
    pub(in crate::diffusion) const OPTIONAL: FlowKeys =
        FlowKeys { is_always: false, may_be_linear: false, needs_size: false };
}

/// The level `sigma` shifted by `factor` (equation 23 of Esser et al. 2024).
pub(in crate::diffusion) fn shifted(factor: f64, sigma: f64) -> f64 {
    factor * sigma / (1.0 + (factor - 1.0) * sigma)
}

impl Keys<'_> {
    pub(super) fn flow(self, class: &Class) -> Result<Option<Flow>, InvalidScheduler> {
        let FlowKeys { is_always: own, may_be_linear, needs_size } = class.flow;
        let dynamic = class.has("use_dynamic_shifting") && self.flag("use_dynamic_shifting", false)?;
        if !own {
            let is_flow = class.has("use_flow_sigmas") && self.flag("use_flow_sigmas", false)?;
            // Without flow levels, a class that does not need the size ignores `use_dynamic_shifting`.
            if !is_flow && dynamic && needs_size {
                return Err(refused(
                    "use_dynamic_shifting",
                    &Value::Bool(true),
                    "false without use_flow_sigmas".into(),
                ));
            }
            if !is_flow && class.has("shift_terminal") && self.get("shift_terminal").is_some() {
                return Err(InvalidScheduler::Conflict {
                    keys: "shift_terminal and use_flow_sigmas",
                    why: "only flow sigmas are stretched",
                });
            }
            if !is_flow {
                return Ok(None);
            }
            if self.respacing()?.is_some() {
                return Err(InvalidScheduler::Conflict {
                    keys: "use_flow_sigmas and use_karras_sigmas, use_exponential_sigmas or use_beta_sigmas",
                    why: "karras, exponential and beta levels are not flow levels",
                });
            }
        }
        let shift = self.positive(if own { "shift" } else { "flow_shift" })?.unwrap_or(1.0);
        let linear = match (may_be_linear, dynamic) {
            (true, _) => self.word("time_shift_type", "exponential", &[("exponential", false), ("linear", true)])?,
            (false, true) => self.word("time_shift_type", "exponential", &[("exponential", false)])?,
            (false, false) => false,
        };
        let terminal = match class.has("shift_terminal") {
            true => self.number("shift_terminal", "from 0 to below 1", |end| (0.0..1.0).contains(&end))?,
            false => None,
        };
        let shift = match (dynamic, linear) {
            (false, _) => Shift::By(shift),
            (true, false) => Shift::ByExpOfMu { otherwise: (!own && !needs_size).then_some(shift) },
            (true, true) => Shift::ByMu,
        };
        let (terminal, mu) = (terminal.filter(|end| *end > 0.0), self.mu_line(class)?);
        Ok(Some(Flow { shift, terminal, is_dynamic: dynamic, mu }))
    }

    fn mu_line(self, class: &Class) -> Result<MuLine, InvalidScheduler> {
        let number = |key, default: f64| match class.has(key) {
            true => Ok(self.number(key, "a number from -1e6 to 1e6", |n| n.abs() <= 1e6)?.unwrap_or(default)),
            false => Ok(default),
        };
        let line = MuLine {
            base_image_seq_len: number("base_image_seq_len", 256.0)?,
            max_image_seq_len: number("max_image_seq_len", 4096.0)?,
            base_shift: number("base_shift", 0.5)?,
            max_shift: number("max_shift", 1.15)?,
        };
        if line.base_image_seq_len == line.max_image_seq_len {
            return Err(InvalidScheduler::Conflict {
                keys: "base_image_seq_len and max_image_seq_len",
                why: "they must differ",
            });
        }
        Ok(line)
    }
}
