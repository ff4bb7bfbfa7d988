//! Dealing accesses of shared memory out over the moments at which a plane makes them.
//!
//! ```text
//!   a wave       what 32 lanes hold at a time, eight entries each
//!   a position   one of the eight: the lanes access shared memory for it together, once for each time the fullest
//!                of the 32 banks is needed
//!
//!                 bank   0  1  2  …
//!   position 0           1  .  2  …    two rounds
//!   position 1           1  1  .  …    one
//! ```
//! An entry goes where its bank is free, else where it costs no round, else where it costs one. Entries of one word
//! are one access. It knows nothing of what the entries are.

/// Banks of shared memory, a word of 32 bits wide.
pub const BANKS: usize = 32;
/// Positions of a wave.
pub const POSITIONS: usize = 8;

/// The accesses of some waves.
#[derive(Default)]
pub struct Waves(Vec<Wave>);

#[derive(Clone)]
struct Wave {
    /// Words of each bank at each position.
    words: [[u8; POSITIONS]; BANKS],
    /// Positions, a bit each, at which a bank is needed.
    used: [u8; BANKS],
    /// Rounds of each position.
    rounds: [u8; POSITIONS],
}

impl Waves {
    /// Takes the cheapest of the open cells for a word of a bank: a wave and a position. `open` yields waves and their
    /// open positions, a bit each, of which there must be one.
    pub fn take(&mut self, open: impl Iterator<Item = (usize, u8)>, bank: usize) -> (usize, usize) {
        let (mut best, mut least) = ((0, 0), (true, u8::MAX));
        for (wave, positions) in open {
            if self.0.len() <= wave {
                // A position takes a round even where no lane needs it.
                let empty = Wave { words: [[0; POSITIONS]; BANKS], used: [0; BANKS], rounds: [1; POSITIONS] };
                self.0.resize(wave + 1, empty);
            }
            let state = &self.0[wave];
            let free = positions & !state.used[bank];
            if free != 0 {
                best = (wave, free.trailing_zeros() as usize);
                break;
            }
            for position in (0..POSITIONS).filter(|position| positions >> position & 1 == 1) {
                let words = state.words[bank][position];
                let cost = (words >= state.rounds[position], words);
                if cost < least {
                    (best, least) = ((wave, position), cost);
                }
            }
        }
        let (wave, position) = best;
        let state = &mut self.0[wave];
        state.used[bank] |= 1 << position;
        state.words[bank][position] += 1;
        state.rounds[position] = state.rounds[position].max(state.words[bank][position]);
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_goes_where_its_bank_is_free_then_where_it_costs_nothing() {
        let mut waves = Waves::default();
        let mut take = |positions, bank| waves.take([(0, positions)].into_iter(), bank);
        assert_eq!(take(0b11, 5), (0, 0));
        assert_eq!(take(0b11, 5), (0, 1));
        // Both are taken: one round more.
        assert_eq!(take(0b10, 5), (0, 1));
        // There, another bank's second word costs nothing.
        assert_eq!([take(0b11, 6), take(0b11, 6), take(0b11, 6)], [(0, 0), (0, 1), (0, 1)]);
        assert_eq!(waves.take([(0, 0b11), (1, 0b100)].into_iter(), 5), (1, 2));
    }
}
