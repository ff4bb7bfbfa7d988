//! The random numbers of Python's `random`, which published code draws documents with.
//!
//! The generator is MT19937 of Matsumoto and Nishimura (Mersenne Twister, ACM TOMACS 8(1), 1998), begun as
//! `random.seed(n)` does (its `init_by_array` with the words of `n`); `randrange(n)` takes as many high bits as `n` has
//! until they are below `n`. Numbers only.

/// Words of the state.
const SIZE: usize = 624;
/// From a word to the one that it is mixed with.
const SHIFT: usize = 397;

/// MT19937.
pub(super) struct Mersenne {
    state: [u32; SIZE],
    /// The next word that is handed out.
    at: usize,
}

impl Mersenne {
    /// As after `random.seed(seed)`.
    pub fn seeded(seed: u64) -> Self {
        let words = [seed as u32, (seed >> 32) as u32];
        let key = if words[1] == 0 { &words[..1] } else { &words[..] };
        let mut state = Self::from_one(19_650_218).state;
        let mixed = |state: &[u32; SIZE], i: usize, by: u32| {
            let before = state[i - 1];
            state[i] ^ (before ^ before >> 30).wrapping_mul(by)
        };
        let (mut i, mut word) = (1, 0);
        // The first word follows the last one.
        let step = |state: &mut [u32; SIZE], i: &mut usize| {
            *i += 1;
            if *i == SIZE {
                state[0] = state[SIZE - 1];
                *i = 1;
            }
        };
        for _ in 0..SIZE {
            state[i] = mixed(&state, i, 1_664_525).wrapping_add(key[word]).wrapping_add(word as u32);
            step(&mut state, &mut i);
            word = (word + 1) % key.len();
        }
        for _ in 1..SIZE {
            state[i] = mixed(&state, i, 1_566_083_941).wrapping_sub(i as u32);
            step(&mut state, &mut i);
        }
        state[0] = 1 << 31;
        Self { state, at: SIZE }
    }

    fn from_one(seed: u32) -> Self {
        let mut state = [seed; SIZE];
        for i in 1..SIZE {
            let before = state[i - 1];
            state[i] = (before ^ before >> 30).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, at: SIZE }
    }

    /// `random.getrandbits(32)`
    fn word(&mut self) -> u32 {
        if self.at == SIZE {
            for i in 0..SIZE {
                let both = self.state[i] & 1 << 31 | self.state[(i + 1) % SIZE] & !(1 << 31);
                let odd = if both & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + SHIFT) % SIZE] ^ both >> 1 ^ odd;
            }
            self.at = 0;
        }
        let mut word = self.state[self.at];
        self.at += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    /// `random.randrange(end)`, of an `end` from 1 to 2^31.
    pub fn below(&mut self, end: u32) -> u32 {
        let bits = u32::BITS - end.leading_zeros();
        loop {
            let number = self.word() >> (u32::BITS - bits);
            if number < end {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `random.seed(n)`, then `random.getrandbits(32)`, of Python 3.11.
    #[test]
    fn words_are_pythons() {
        let words = |seed, count| {
            let mut random = Mersenne::seeded(seed);
            (0..count).map(|_| random.word()).collect::<Vec<u32>>()
        };
        assert_eq!(words(0, 4), [3_626_764_237, 1_654_615_998, 3_255_389_356, 3_823_568_514]);
        assert_eq!(words((5489 << 40) + 17, 3), [2_723_513_050, 3_986_162_417, 2_814_272_037]);
        assert_eq!(words(1, 2001).pop(), Some(1_767_993_442));
    }

    /// `random.seed(0)`, then `random.randint(0, n - 1)`, of Python 3.11.
    #[test]
    fn numbers_below_an_end_are_pythons() {
        let mut random = Mersenne::seeded(0);
        let first = [25_247, 27_562, 2_653, 16_968, 33_506, 31_845, 26_537, 19_877];
        assert_eq!([(); 8].map(|()| random.below(45_576)), first);
        let mut random = Mersenne::seeded(0);
        let ends = [1, 2, 3, 4, 5, 1000, 45_576, 1 << 20, 7];
        assert_eq!(ends.map(|end| random.below(end)), [0, 1, 0, 2, 4, 497, 26_537, 636_092, 3]);
    }
}
