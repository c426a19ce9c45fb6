//! Measures which unit multiplies fastest on this machine. The features of a processor do not tell: some processors have
//! dot products of bfloat16 numbers that are slower than products of float32 numbers.

use std::time::Instant;

use candle_core::Result;
use rayon::ThreadPoolBuilder;

use crate::kernels::{
    Kernels,
    bf16::{self, Unit},
    matrix::Matrix,
    precision::Precision,
    random::Random,
};

/// How fast a unit multiplies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// `None` is what exact products use: the vector unit with float32 numbers, unless `kernels.matrix_unit` is on.
    pub unit: Option<Unit>,
    /// Multiplications per second of one thread.
    pub multiplications: f64,
}

impl Speed {
    /// The name of the unit in logs.
    pub fn name(&self) -> &'static str {
        self.unit.map_or("float32", Unit::name)
    }
}

/// The product that is measured: (LINES, SIDE) · (SIDE, SIDE).
const LINES: usize = 256;
const SIDE: usize = 384;

/// How often each product is computed. The fastest counts, because everything else on the machine only delays.
const TRIES: usize = 4;

/// How many times as fast as float32 a unit must be. Below, rounding is not worth it.
const WORTHWHILE: f64 = 1.2;

/// Measures all units of this machine, in a few milliseconds on one thread. Call this function before the first
/// computation, because it changes the unit of fast products ([`bf16::use_for_fast`]) meanwhile.
///
/// # Errors
/// There is no thread, or the product cannot be computed.
pub fn speeds() -> Result<Vec<Speed>> {
    let mut random = Random::new(1);
    let (x, matrix) = (random.normal(&[1, LINES, SIDE], 0.0), random.normal(&[SIDE, SIDE], 0.0));
    let matrix = Matrix::new(&matrix, None, Kernels::default())?;
    let pool = ThreadPoolBuilder::new().num_threads(1).build().map_err(candle_core::Error::wrap)?;
    let chosen = bf16::of_fast();
    let seconds = || -> Result<f64> {
        let begun = Instant::now();
        matrix.times(&x)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let measure = |unit: Option<Unit>| {
        bf16::use_for_fast(unit);
        let best = pool.install(|| {
            Precision::Fast.during(|| {
                // The first product is slower, because its memory is new.
                seconds()?;
                (0..TRIES).try_fold(f64::INFINITY, |best, _| Ok::<_, candle_core::Error>(best.min(seconds()?)))
            })
        })?;
        Ok(Speed { unit, multiplications: (LINES * SIDE * SIDE) as f64 / best.max(1e-9) })
    };
    let units = Unit::ALL.into_iter().filter(|unit| unit.is_available()).map(Some);
    let speeds = [None].into_iter().chain(units).map(measure).collect();
    bf16::use_for_fast(chosen);
    speeds
}

/// The fastest unit; `None` if none is clearly faster than products in float32.
pub fn fastest(speeds: &[Speed]) -> Option<Unit> {
    let float32 = speeds.iter().find(|speed| speed.unit.is_none()).map_or(0.0, |speed| speed.multiplications);
    let worthwhile =
        speeds.iter().filter(|speed| speed.unit.is_some() && speed.multiplications >= WORTHWHILE * float32);
    worthwhile.max_by(|a, b| a.multiplications.total_cmp(&b.multiplications))?.unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_chosen_if_it_is_clearly_faster_than_float32() {
        let choose = |speeds: &[(Option<Unit>, f64)]| {
            fastest(&speeds.iter().map(|&(unit, multiplications)| Speed { unit, multiplications }).collect::<Vec<_>>())
        };
        let (amx, dot) = (Some(Unit::Amx), Some(Unit::Dot));
        assert_eq!(choose(&[(None, 100.0)]), None);
        assert_eq!(choose(&[(None, 100.0), (dot, 44.0)]), None);
        assert_eq!(choose(&[(None, 100.0), (dot, 119.0)]), None);
        assert_eq!(choose(&[(None, 100.0), (amx, 500.0), (dot, 200.0)]), amx);
        assert_eq!(choose(&[(None, 100.0), (amx, 150.0), (dot, 200.0)]), dot);
    }

    #[test]
    fn every_unit_of_the_machine_is_measured() {
        let speeds = speeds().unwrap();
        let units: Vec<_> = speeds.iter().filter_map(|speed| speed.unit).collect();
        assert_eq!(units, Unit::ALL.into_iter().filter(|unit| unit.is_available()).collect::<Vec<_>>());
        assert!(speeds[0].unit.is_none() && speeds.iter().all(|speed| speed.multiplications > 1e6), "{speeds:?}");
    }
}
