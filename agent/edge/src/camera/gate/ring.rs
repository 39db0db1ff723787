//! The current group of pictures in compressed form, so that a camera that wakes up is decoded from its keyframe on.

/// Bytes that are kept of one camera: sixteen seconds at 4 Mbit/s.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Access units that are kept: decoding more than this many at once takes seconds.
const UNITS_MAX: usize = 600;

/// Access units from the last keyframe on. Full: all are let go, and it is empty until the next keyframe; a camera that
/// should wake meanwhile is decoded from there.
#[derive(Clone, Debug)]
pub(in super::super) struct Ring<U> {
    units: Vec<U>,
    bytes: usize,
}

impl<U> Ring<U> {
    pub(in super::super) fn new() -> Self {
        Self { units: Vec::new(), bytes: 0 }
    }

    pub(in super::super) fn push(&mut self, unit: U, keyframe: bool, bytes: usize) {
        if keyframe {
            self.clear();
        } else if self.units.is_empty() {
            return;
        }
        self.bytes += bytes;
        self.units.push(unit);
        if self.bytes > BYTES_MAX || self.units.len() > UNITS_MAX {
            self.clear();
        }
    }

    /// The units from the keyframe to the newest; empty before the first keyframe and after it was full.
    pub(in super::super) fn units(&self) -> &[U] {
        &self.units
    }

    fn clear(&mut self) {
        self.units.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_came_since_the_keyframe_or_nothing() {
        let mut ring = Ring::new();
        let check = |ring: &Ring<u32>, expected: &[u32]| assert_eq!(ring.units(), expected);
        ring.push(1, false, 10);
        check(&ring, &[]);
        for (unit, keyframe) in [(2, true), (3, false), (4, false)] {
            ring.push(unit, keyframe, 10);
        }
        check(&ring, &[2, 3, 4]);
        ring.push(5, true, 10);
        check(&ring, &[5]);
        ring.push(6, false, BYTES_MAX);
        check(&ring, &[]);
        ring.push(7, false, 10);
        check(&ring, &[]);
        ring.push(8, true, 10);
        check(&ring, &[8]);
        for unit in 0..=UNITS_MAX as u32 {
            ring.push(unit, false, 1);
        }
        check(&ring, &[]);
    }
}
