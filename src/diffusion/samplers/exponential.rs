//! Coefficients of a DPM-Solver step, which solves an exponential integral (Lu et al. 2022, arXiv:2206.00927).

use crate::diffusion::point::Point;
use crate::diffusion::scheduler_config::DpmSolver;

/// The coefficients of `x_next = c x + c0 D0 + c1 D1 + c2 D2 + s z` over `h = λ_next − λ_now`. `D0` is the integrand
/// (x0 or ε); `D1` and `D2` are its first and second divided differences times `h` and `h²/2`; `z` is unit noise of the
/// stochastic equation.
pub(super) struct Step {
    pub h: f64,
    pub c: f64,
    pub c0: f64,
    pub c1: f64,
    pub c2: f64,
    pub s: f64,
}

impl Step {
    /// The coefficients of a step of this order (Lu et al. 2022, arXiv:2206.00927 and arXiv:2211.01095).
    pub fn new(solver: &DpmSolver, order: usize, now: &Point, next: &Point) -> Step {
        let h = next.lambda() - now.lambda();
        let (c, scale, k) = match (solver.plus_plus, solver.sde) {
            (true, false) => (next.sigma / now.sigma, -next.alpha, -h),
            (true, true) => (next.sigma / now.sigma * libm::exp(-h), -next.alpha, -2.0 * h),
            (false, false) => (next.alpha / now.alpha, -next.sigma, h),
            (false, true) => (next.alpha / now.alpha, -2.0 * next.sigma, h),
        };
        let variance = match (solver.sde, solver.plus_plus) {
            (false, _) => 0.0,
            (true, true) => -libm::expm1(-2.0 * h),
            (true, false) => libm::expm1(2.0 * h),
        };
        let [c0, c1, c2] = integrals(solver, order, k).map(|integral| scale * integral);
        Step { h, c, c0, c1, c2, s: next.sigma * libm::sqrt(variance.max(0.0)) }
    }
}

/// The integrals over a step of a constant, a slope and a curvature, each times an exponential that goes from 1 to
/// `e^k`.
fn integrals(solver: &DpmSolver, order: usize, k: f64) -> [f64; 3] {
    let phi = libm::expm1(k);
    let slope = if order < 3 && !solver.heun { 0.5 * phi } else { phi / k - 1.0 };
    let curvature = (phi - k) / (k * k);
    // In the stochastic form, 0.5 has the sign that diffusers gives it, because pictures must equal diffusers'
    // pictures.
    [phi, slope, if solver.plus_plus && solver.sde { curvature + 0.5 } else { curvature - 0.5 }]
}
