//! How a model that was trained by flow matching chooses the noise levels of its steps.

/// The levels of a flow-matching pipeline, as far as they differ from the levels that the scheduler alone would choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLevels {
    /// Side in pixels of the square that is one token of a picture. Schedulers with `use_dynamic_shifting` shift the
    /// levels by the number of tokens.
    pub token_side: u32,
    /// Whether n levels are evenly spaced from 1 to 1/n before the shift. Otherwise the scheduler chooses them.
    pub is_linear: bool,
    /// How the shift depends on the number of tokens.
    pub mu: Mu,
}

/// How μ, the parameter of the shift, depends on the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mu {
    /// Linear in the number of tokens, as the scheduler's configuration says.
    #[default]
    Tokens,
    /// FLUX.2's function of the number of tokens and the number of steps.
    TokensAndSteps,
}

impl FlowLevels {
    /// The number of tokens of a picture.
    pub fn tokens(&self, width: u32, height: u32) -> u64 {
        let side = self.token_side.max(1);
        u64::from(width / side) * u64::from(height / side)
    }

    /// FLUX.2's μ for a picture of `tokens` tokens that is drawn in `steps` steps: on the line through its values for
    /// 10 and for 200 steps, or for large pictures the value for 200 steps (diffusers' `compute_empirical_mu`).
    pub fn mu_of_steps(tokens: u64, steps: usize) -> f64 {
        let tokens = tokens as f64;
        let of_200 = 0.000_169_27 * tokens + 0.456_666_66;
        if tokens > 4300.0 {
            return of_200;
        }
        let of_10 = 8.738_095_24e-5 * tokens + 1.898_333_33;
        let slope = (of_200 - of_10) / 190.0;
        slope * steps as f64 + (of_200 - 200.0 * slope)
    }

    /// n levels from 1 to 1/n.
    pub fn linear(n: usize) -> Vec<f64> {
        let step = if n > 1 { (1.0 / n as f64 - 1.0) / (n - 1) as f64 } else { 0.0 };
        (0..n).map(|i| 1.0 + i as f64 * step).collect()
    }
}
