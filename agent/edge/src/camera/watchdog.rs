//! How long a camera may be silent. A hung camera sends no error: only the clock sees it.

use std::time::{Duration, Instant};

/// From connecting to the first access unit.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Between access units. With [`TICK`] a hung camera is seen within 5 s.
pub(super) const SILENT: Duration = Duration::from_millis(4500);
/// From an access unit that was not followed by a picture. Longer than the longest usual group of pictures.
pub(super) const NO_PICTURE: Duration = Duration::from_secs(12);
/// How often to look.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    NoStream,
    Silent,
    NoPicture,
}

/// Watches two counters.
#[derive(Clone, Debug)]
pub(super) struct Watchdog {
    decoded_at_start: u64,
    received: u64,
    decoded: u64,
    received_at: Option<Instant>,
    decoded_at: Instant,
    started: Instant,
}

impl Watchdog {
    pub(super) fn new(now: Instant, received: u64, decoded: u64) -> Self {
        Self {
            decoded_at_start: decoded,
            received,
            decoded,
            received_at: None,
            decoded_at: now,
            started: now,
        }
    }

    pub(super) fn decoded_at_start(&self) -> u64 {
        self.decoded_at_start
    }

    /// Takes the counters as they are now. `Some` is the reason to give the connection up.
    pub(super) fn look(&mut self, now: Instant, received: u64, decoded: u64) -> Option<Silence> {
        if received > self.received {
            if self.received_at.is_none() {
                self.decoded_at = now; // the wait for a picture starts with the first access unit
            }
            self.received = received;
            self.received_at = Some(now);
        }
        if decoded > self.decoded {
            self.decoded = decoded;
            self.decoded_at = now;
        }
        match self.received_at {
            None if now - self.started >= CONNECT => Some(Silence::NoStream),
            Some(at) if now - at >= SILENT => Some(Silence::Silent),
            Some(_) if now - self.decoded_at >= NO_PICTURE => Some(Silence::NoPicture),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of second, received, decoded; the silence that is seen, and when.
    fn check(rows: &[(f64, u64, u64)], expected: Option<(f64, Silence)>) {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start, 0, 0);
        let mut counters = (0, 0);
        let mut rows = rows.iter().peekable();
        let mut seen = None;
        for step in 0..400 {
            let second = f64::from(step) * TICK.as_secs_f64();
            while let Some((_, received, decoded)) = rows.next_if(|row| row.0 <= second) {
                counters = (*received, *decoded);
            }
            if let Some(silence) =
                watchdog.look(start + Duration::from_secs_f64(second), counters.0, counters.1)
            {
                seen = Some((second, silence));
                break;
            }
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn each_silence_has_its_own_patience() {
        check(&[], Some((10.0, Silence::NoStream)));
        check(&[(1.0, 1, 0), (2.0, 9, 5)], Some((6.5, Silence::Silent)));
        let no_pictures: Vec<_> = (0..100).map(|i| (f64::from(i), i as u64, 0)).collect();
        check(&no_pictures, Some((13.0, Silence::NoPicture)));
        let healthy: Vec<_> = (0..101).map(|i| (f64::from(i), i as u64, i as u64)).collect();
        check(&healthy, None);
    }
}
