//! The one-dimensional transforms of F(2×2, 3×3) and F(4×4, 3×3), for several channels at a time.

/// Channels per transform: as many floats as a cache line has.
pub(super) const LANES: usize = 16;

/// One value for each of several channels.
pub(super) type Lanes = [f32; LANES];

/// The transforms for tiles of N × N inputs and M × M results.
pub(super) trait Transform<const N: usize, const M: usize> {
    /// G·g.
    fn weight(g: &[Lanes; 3]) -> [Lanes; N];

    /// Bᵀ·d.
    fn input(d: &[Lanes; N]) -> [Lanes; N];

    /// Aᵀ·m.
    fn output(m: &[Lanes; N]) -> [Lanes; M];
}

/// F(2×2, 3×3), with the interpolation points 0, 1, −1.
pub(super) struct F2;

impl Transform<4, 2> for F2 {
    #[inline(always)]
    fn weight(g: &[Lanes; 3]) -> [Lanes; 4] {
        let mut u = [[0.0; LANES]; 4];
        for l in 0..LANES {
            let (ends, middle) = (0.5 * (g[0][l] + g[2][l]), 0.5 * g[1][l]);
            u[0][l] = g[0][l];
            u[1][l] = ends + middle;
            u[2][l] = ends - middle;
            u[3][l] = g[2][l];
        }
        u
    }

    #[inline(always)]
    fn input(d: &[Lanes; 4]) -> [Lanes; 4] {
        let mut v = [[0.0; LANES]; 4];
        for l in 0..LANES {
            v[0][l] = d[0][l] - d[2][l];
            v[1][l] = d[1][l] + d[2][l];
            v[2][l] = d[2][l] - d[1][l];
            v[3][l] = d[1][l] - d[3][l];
        }
        v
    }

    #[inline(always)]
    fn output(m: &[Lanes; 4]) -> [Lanes; 2] {
        let mut y = [[0.0; LANES]; 2];
        for l in 0..LANES {
            y[0][l] = m[0][l] + m[1][l] + m[2][l];
            y[1][l] = m[1][l] - m[2][l] - m[3][l];
        }
        y
    }
}

/// F(4×4, 3×3), with the interpolation points 0, 1, −1, 2, −2.
pub(super) struct F4;

impl Transform<6, 4> for F4 {
    #[inline(always)]
    fn weight(g: &[Lanes; 3]) -> [Lanes; 6] {
        let mut u = [[0.0; LANES]; 6];
        for l in 0..LANES {
            let (ends, middle) = (-1.0 / 6.0 * (g[0][l] + g[2][l]), -1.0 / 6.0 * g[1][l]);
            let (ends_2, middle_2) = (1.0 / 24.0 * g[0][l] + 1.0 / 6.0 * g[2][l], 1.0 / 12.0 * g[1][l]);
            u[0][l] = 0.25 * g[0][l];
            u[1][l] = ends + middle;
            u[2][l] = ends - middle;
            u[3][l] = ends_2 + middle_2;
            u[4][l] = ends_2 - middle_2;
            u[5][l] = g[2][l];
        }
        u
    }

    #[inline(always)]
    fn input(d: &[Lanes; 6]) -> [Lanes; 6] {
        let mut v = [[0.0; LANES]; 6];
        for l in 0..LANES {
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

    #[inline(always)]
    fn output(m: &[Lanes; 6]) -> [Lanes; 4] {
        let mut y = [[0.0; LANES]; 4];
        for l in 0..LANES {
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
