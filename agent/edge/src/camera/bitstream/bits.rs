//! Bits of a NAL unit, most significant first, without its emulation prevention bytes.

/// Reads the payload of a NAL unit. Whoever reads past the end gets `None`, again and again.
#[derive(Clone, Debug)]
pub(super) struct Bits<'a> {
    rest: &'a [u8],
    /// Zero bytes just read: after two of them a 3 is no payload (H.264 and H.265, clause 7.3.1.1).
    zeros: u8,
    /// The lowest `held` bits are the next ones.
    cache: u64,
    held: u32,
}

impl<'a> Bits<'a> {
    /// Of what follows a NAL unit's header.
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload, zeros: 0, cache: 0, held: 0 }
    }

    /// u(n), for n up to 32.
    pub(super) fn bits(&mut self, n: u32) -> Option<u32> {
        debug_assert!(n <= 32);
        while self.held < n {
            self.cache = self.cache << 8 | u64::from(self.byte()?);
            self.held += 8;
        }
        self.held -= n;
        Some((self.cache >> self.held & ((1 << n) - 1)) as u32)
    }

    /// u(1).
    pub(super) fn flag(&mut self) -> Option<bool> {
        Some(self.bits(1)? == 1)
    }

    /// Passes over n bits.
    pub(super) fn skip(&mut self, n: u32) -> Option<()> {
        (0..n / 32).try_for_each(|_| self.bits(32).map(drop))?;
        self.bits(n % 32).map(drop)
    }

    /// ue(v): Exp-Golomb (clause 9.1 of H.264, 9.2 of H.265).
    pub(super) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None; // larger than the standards let anything be
            }
        }
        Some((1 << zeros) - 1 + self.bits(zeros)?)
    }

    /// ue(v) that the standard limits to `most`; `None` where it is larger. Guards every loop.
    pub(super) fn ue_up_to(&mut self, most: u32) -> Option<u32> {
        self.ue().filter(|value| *value <= most)
    }

    /// se(v): signed Exp-Golomb.
    pub(super) fn se(&mut self) -> Option<i32> {
        let code = i64::from(self.ue()?);
        let magnitude = (code + 1) / 2;
        i32::try_from(if code % 2 == 1 { magnitude } else { -magnitude }).ok()
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        if self.zeros >= 2 && first == 3 {
            self.zeros = 0;
            return self.byte();
        }
        self.zeros = if first == 0 { self.zeros.saturating_add(1) } else { 0 };
        Some(first)
    }
}

/// Ceil(Log2(n)): how many bits tell n values apart.
pub(super) fn bits_for(n: u32) -> u32 {
    n.max(1).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_are_those_of_the_standard() {
        // Tables 9-2 and 9-3 of H.264: 1, 010, 011, 00100, 00101, 00110, 00111, 0001000
        let bytes = [0b1010_0110, 0b0100_0010, 0b1001_1000, 0b1110_0010, 0b0000_0000];
        let (mut unsigned, mut signed) = (Bits::new(&bytes), Bits::new(&bytes));
        assert_eq!([(); 8].map(|()| unsigned.ue().unwrap()), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!([(); 8].map(|()| signed.se().unwrap()), [0, 1, -1, 2, -2, 3, -3, 4]);
        assert_eq!(unsigned.ue(), None, "only zeros are left");
    }

    #[test]
    fn emulation_prevention_bytes_are_no_payload() {
        let mut bits = Bits::new(&[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 3, 9]);
        let read: Vec<_> = std::iter::from_fn(|| bits.bits(8)).collect();
        assert_eq!(read, [0, 0, 1, 0, 0, 0, 0, 3, 9]);
    }

    #[test]
    fn wide_reads_and_the_end() {
        let mut bits = Bits::new(&[0xff, 0x12, 0x34, 0x56, 0x78, 0x80]);
        assert_eq!(bits.bits(8), Some(255));
        assert_eq!(bits.bits(32), Some(0x1234_5678));
        assert_eq!((bits.bits(0), bits.flag(), bits.bits(8)), (Some(0), Some(true), None));
        assert_eq!([1, 2, 3, 4, 5, 32, 33].map(bits_for), [0, 1, 2, 2, 3, 5, 6]);
    }
}
