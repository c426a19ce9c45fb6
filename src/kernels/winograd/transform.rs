//! The transforms of F(2×2, 3×3) and F(4×4, 3×3), one dimension at a time, over several channels.

/// Values of several channels.
pub(super) type Lanes = [f32; super::LANES];

/// The transforms of weights and inputs for tiles of N × N inputs.
pub(super) trait Transform<const N: usize> {
    const G: [[f64; 3]; N];

    /// Bᵀ·d
    fn input(d: &[Lanes; N]) -> [Lanes; N];
}

/// The transform of the products to M × M results.
pub(super) trait Output<const N: usize, const M: usize> {
    /// Aᵀ·m
    fn output(m: &[Lanes; N]) -> [Lanes; M];
}

/// F(2×2, 3×3): the points 0, 1, −1.
pub(super) struct F2;

impl Transform<4> for F2 {
    const G: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

    #[inline(always)]
    fn input(d: &[Lanes; 4]) -> [Lanes; 4] {
        let mut v = [[0.0; super::LANES]; 4];
        for l in 0..super::LANES {
            v[0][l] = d[0][l] - d[2][l];
            v[1][l] = d[1][l] + d[2][l];
            v[2][l] = d[2][l] - d[1][l];
            v[3][l] = d[1][l] - d[3][l];
        }
        v
    }
}

impl Output<4, 2> for F2 {
    #[inline(always)]
    fn output(m: &[Lanes; 4]) -> [Lanes; 2] {
        let mut y = [[0.0; super::LANES]; 2];
        for l in 0..super::LANES {
            y[0][l] = m[0][l] + m[1][l] + m[2][l];
            y[1][l] = m[1][l] - m[2][l] - m[3][l];
        }
        y
    }
}

/// F(4×4, 3×3): the points 0, 1, −1, 2, −2.
pub(super) struct F4;

impl Transform<6> for F4 {
    const G: [[f64; 3]; 6] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];

    #[inline(always)]
    fn input(d: &[Lanes; 6]) -> [Lanes; 6] {
        let mut v = [[0.0; super::LANES]; 6];
        for l in 0..super::LANES {
            let (even, odd) = (d[4][l] - 4.0 * d[2][l], d[3][l] - 4.0 * d[1][l]);
            let (even_2, odd_2) = (d[4][l] - d[2][l], 2.0 * (d[3][l] - d[1][l]));
            v[0][l] = 4.0 * d[0][l] - 5.0 * d[2][l] + d[4][l];
            v[1][l] = even + odd;
            v[2][l] = even - odd;
            v[3][l] = even_2 + odd_2;
            v[4][l] = even_2 - odd_2;
            v[5][l] = 4.0 * d[1][l] - 5.0 * d[3][l] + d[5][l];
        }
        v
    }
}

impl Output<6, 4> for F4 {
    #[inline(always)]
    fn output(m: &[Lanes; 6]) -> [Lanes; 4] {
        let mut y = [[0.0; super::LANES]; 4];
        for l in 0..super::LANES {
            let (sum, difference) = (m[1][l] + m[2][l], m[1][l] - m[2][l]);
            let (sum_2, difference_2) = (m[3][l] + m[4][l], m[3][l] - m[4][l]);
            y[0][l] = m[0][l] + sum + sum_2;
            y[1][l] = difference + 2.0 * difference_2;
            y[2][l] = sum + 4.0 * sum_2;
            y[3][l] = difference + 8.0 * difference_2 + m[5][l];
        }
        y
    }
}
