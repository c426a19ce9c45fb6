//! The seeds that torchsde derives for the nodes of its Brownian tree.

/// The size of the pool into which the entropy is mixed, in words. torchsde uses 24; numpy's default is 4.
const POOL: usize = 24;

/// `numpy.random.SeedSequence(entropy=seed, spawn_key=key, pool_size=24)`: the hash of O'Neill (2015), "Developing a
/// seed_seq Alternative", with numpy's constants.
pub(super) struct SeedSequence {
    pool: [u32; POOL],
}

impl SeedSequence {
    pub(super) fn new(seed: u64, key: &[u64]) -> SeedSequence {
        let mut entropy = Vec::new();
        push_words(&mut entropy, seed);
        if !key.is_empty() {
            entropy.resize(POOL.max(entropy.len()), 0);
            key.iter().for_each(|number| push_words(&mut entropy, *number));
        }
        let mut hash = Hash { state: 0x43b0_d7e5, factor: 0x931e_8875 };
        let mut pool = [0; POOL];
        for (i, word) in pool.iter_mut().enumerate() {
            *word = hash.of(entropy.get(i).copied().unwrap_or(0));
        }
        for from in 0..POOL {
            for to in (0..POOL).filter(|to| *to != from) {
                pool[to] = mixed(pool[to], hash.of(pool[from]));
            }
        }
        for word in entropy.iter().skip(POOL) {
            for mixed_into in &mut pool {
                *mixed_into = mixed(*mixed_into, hash.of(*word));
            }
        }
        SeedSequence { pool }
    }

    /// The first word of `generate_state`.
    pub(super) fn first(&self) -> u32 {
        Hash { state: 0x8b51_f9dd, factor: 0x58f3_8ded }.of(self.pool[0])
    }
}

/// Appends a number as numpy splits it into 32-bit words: the low word first, the high word only if it is not zero.
fn push_words(words: &mut Vec<u32>, number: u64) {
    words.push(number as u32);
    if number >> 32 > 0 {
        words.push((number >> 32) as u32);
    }
}

struct Hash {
    state: u32,
    factor: u32,
}

impl Hash {
    fn of(&mut self, word: u32) -> u32 {
        let word = word ^ self.state;
        self.state = self.state.wrapping_mul(self.factor);
        let word = word.wrapping_mul(self.state);
        word ^ (word >> 16)
    }
}

fn mixed(x: u32, y: u32) -> u32 {
    let word = x.wrapping_mul(0xca01_f9dd).wrapping_sub(y.wrapping_mul(0x4973_f715));
    word ^ (word >> 16)
}
