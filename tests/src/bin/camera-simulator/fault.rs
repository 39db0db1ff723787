//! What a broken camera does to its access units.

/// After how many access units of a session each fault begins, or that it begins when somebody says so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) silent_after: Option<u64>,
    pub(crate) garbage_after: Option<u64>,
    pub(crate) switch_size_after: Option<u64>,
    pub(crate) switch_size_when_told: bool,
    /// What is done to the camera, from an access unit up to another.
    pub(crate) tamper: Option<(Tamper, u64, u64)>,
}

/// What people do to cameras.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tamper {
    Covered,
    Blurred,
    Turned,
}

/// Whether a fault that begins after `limit` access units has begun at the `sent`-th.
pub(crate) fn begun(limit: Option<u64>, sent: u64) -> bool {
    limit.is_some_and(|limit| sent >= limit)
}

/// Replaces what is in an access unit by noise, but leaves start codes and the two bytes after each, so that
/// the noise reaches the other side's decoder instead of being dropped by this side's payloader.
///
/// The noise is the same in every run: xorshift64 (Marsaglia 2003) from `seed`.
pub(crate) fn garble(access_unit: &[u8], seed: u64) -> Vec<u8> {
    let mut spared = vec![false; access_unit.len()];
    for start in 0..access_unit.len() {
        if access_unit[start..].starts_with(&[0, 0, 1]) {
            let end = access_unit.len().min(start + 5);
            spared[start.saturating_sub(1)..end].fill(true);
        }
    }
    let mut state = seed | 1;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state as u8).max(2) // never 0 or 1, so that the noise holds no start code of its own
    };
    access_unit.iter().zip(spared).map(|(&byte, spared)| if spared { byte } else { noise() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_spares_start_codes_and_what_they_announce() {
        let unit = [0, 0, 0, 1, 0x67, 9, 9, 9, 0, 0, 1, 0x65, 8, 8, 8, 8];
        let garbled = garble(&unit, 7);
        assert_eq!(garbled.len(), unit.len());
        assert_eq!(garbled[..6], unit[..6]);
        assert_eq!(garbled[8..13], unit[8..13]);
        assert_ne!(garbled[13..], unit[13..]);
    }

    #[test]
    fn a_fault_begins_after_its_limit() {
        assert!(!begun(None, 1000));
        assert!(!begun(Some(3), 2));
        assert!(begun(Some(3), 3));
    }
}
