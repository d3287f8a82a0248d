//! Bit tricks for a machine without count instructions.

/// Position of the lowest set bit; 0 for 0.
///
/// eBPF has no such instruction. A de Bruijn product and a 64-byte table (Leiserson, Prokop and Randall 1998) is one
/// multiplication and one load where the usual expansion is a popcount of a dozen dependent steps.
#[inline(always)]
#[must_use]
pub fn lowest(word: u64) -> u32 {
    let index = (word & word.wrapping_neg()).wrapping_mul(DE_BRUIJN) >> 58;
    u32::from(crate::ro::read(&TABLE[index as usize & 63]))
}

const DE_BRUIJN: u64 = 0x03f7_9d71_b4cb_0a89;

static TABLE: [u8; 64] = table();

const fn table() -> [u8; 64] {
    let mut table = [0; 64];
    let mut bit = 0;
    while bit < 64 {
        table[((1_u64 << bit).wrapping_mul(DE_BRUIJN) >> 58) as usize] = bit;
        bit += 1;
    }
    table
}

/// How many bits of `word` below bit `bit` (0..=63) are set.
#[inline(always)]
#[must_use]
pub fn rank(word: u64, bit: u32) -> u32 {
    (word & ((1_u64 << (bit & 63)) - 1)).count_ones()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_finds_every_bit_under_noise_above_it() {
        for bit in 0..64 {
            assert_eq!(lowest(1 << bit), bit);
            assert_eq!(lowest(u64::MAX << bit), bit);
        }
        assert_eq!(lowest(0), 0);
    }

    #[test]
    fn rank_counts_below() {
        assert_eq!(rank(0b1011, 3), 2);
        assert_eq!(rank(u64::MAX, 63), 63);
        assert_eq!(rank(u64::MAX, 0), 0);
    }
}
