//! The Mersenne Twister MT19937, which torch's CPU generator uses.

const N: usize = 624;
const M: usize = 397;

/// The generator of Matsumoto and Nishimura, "Mersenne Twister" (1998), with the seeding of 2002 (`init_genrand`).
#[derive(Debug, Clone)]
pub struct Mt19937 {
    state: Box<[u32; N]>,
    used: usize,
}

impl Mt19937 {
    pub fn new(seed: u32) -> Mt19937 {
        let mut state = Box::new([seed; N]);
        for i in 1..N {
            let before = state[i - 1];
            state[i] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Mt19937 { state, used: N }
    }

    /// The next word, uniform over all 32-bit numbers.
    pub fn word(&mut self) -> u32 {
        if self.used == N {
            self.twist();
        }
        let mut y = self.state[self.used];
        self.used += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let matrix = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ matrix;
        }
        self.used = 0;
    }
}
