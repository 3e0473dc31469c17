//! Chance without a generator: every choice is a hash of the seed and of what it is about, so it never
//! depends on the order in which requests come in.

/// A well mixed number for `parts` under `seed` (the finaliser of splitmix64, applied part by part).
pub(super) fn mix(seed: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(scramble(seed), |state, &part| scramble(state ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

/// Whether `hash` falls into the given share (0 to 1) of all hashes.
pub(super) fn chance(hash: u64, share: f64) -> bool {
    // 53 bits are what an f64 holds exactly.
    ((hash >> 11) as f64) < share * (1_u64 << 53) as f64
}

/// A text as one part for [`mix`].
pub(super) fn part(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_hashes_is_about_that_share() {
        let hits = (0..10_000).filter(|&at| chance(mix(7, &[at]), 0.2)).count();
        assert!((1_800..2_200).contains(&hits), "{hits}");
        assert!(!(0..1_000).any(|at| chance(mix(7, &[at]), 0.0)));
        assert!((0..1_000).all(|at| chance(mix(7, &[at]), 1.0)));
    }
}
