//! Which partition of listings and ledger a tenant lives in.

use crate::domain::TenantId;

/// The partition of a tenant: murmur2 of its lower-case hyphenated id, modulo `count`, as Java's producer places keys.
///
/// `count` is the *configured* number of partitions, at least 1. Taking it from live metadata would, once somebody adds
/// partitions, give one tenant two owners without a common generation (docs/exactly-once.md, rule 17).
pub fn partition_of(tenant: TenantId, count: i32) -> i32 {
    let hash = murmur2(tenant.to_string().as_bytes());
    // Java's `toPositive`: the sign bit is masked, not negated.
    let positive = (hash & 0x7fff_ffff) as i32;
    positive % count.max(1)
}

/// MurmurHash2, 32 bits, with the seed that Kafka's clients use.
///
/// Source: Austin Appleby, MurmurHash2 (public domain); Apache Kafka, "Utils.murmur2", for the seed.
fn murmur2(bytes: &[u8]) -> u32 {
    const MIX: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;

    // Keys are short texts; the algorithm takes the length modulo 2^32.
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(MIX);
        k ^= k >> 24;
        hash = hash.wrapping_mul(MIX) ^ k.wrapping_mul(MIX);
    }
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// The values that Apache Kafka's own test of `Utils.murmur2` expects.
    #[test]
    fn the_hash_is_the_one_of_javas_client() {
        for (text, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, expected, "{text}");
        }
    }

    #[test]
    fn tenants_spread_over_all_partitions() {
        let mut seen = [0; 12];
        for n in 0..1_200_u128 {
            seen[partition_of(TenantId(Uuid::from_u128(n)), 12) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (50..150).contains(count)), "{seen:?}");
    }

    proptest! {
        #[test]
        fn a_tenant_has_one_partition_within_the_count(id: u128, count in 1_i32..=10_000) {
            let tenant = TenantId(Uuid::from_u128(id));
            prop_assert!((0..count).contains(&partition_of(tenant, count)));
            let spelt = TenantId(tenant.to_string().to_uppercase().parse().unwrap());
            prop_assert_eq!(partition_of(spelt, count), partition_of(tenant, count));
        }
    }
}
