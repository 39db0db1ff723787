//! How long a camera may be silent. A hung camera sends no error: only the clock sees it.

use std::time::{Duration, Instant};

/// From connecting to the first access unit.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// Between access units. With [`TICK`] a hung camera is seen within 5 s.
pub(super) const SILENT: Duration = Duration::from_millis(4250);
/// From an access unit that the decoder cannot begin with, the first one or one after an overload, to a keyframe.
pub(super) const NO_KEYFRAME: Duration = Duration::from_secs(30);
/// From an access unit that the decoder was given and that was not followed by a picture. Longer than the longest usual
/// group of pictures.
pub(super) const NO_PICTURE: Duration = Duration::from_secs(12);
/// How often to look. Each look wakes up a processor that has nothing else to do.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    NoStream,
    Silent,
    NoKeyframe,
    NoPicture,
}

/// Watches three counters. A sleeping camera's decoder is given nothing, and owes no picture.
#[derive(Clone, Debug)]
pub(super) struct Watchdog {
    decoded_at_start: u64,
    received: u64,
    admitted: u64,
    decoded: u64,
    received_at: Option<Instant>,
    admitted_at: Option<Instant>,
    /// Since when the decoder owes a picture.
    owed_since: Option<Instant>,
    started: Instant,
}

impl Watchdog {
    pub(super) fn new(now: Instant, received: u64, admitted: u64, decoded: u64) -> Self {
        Self {
            decoded_at_start: decoded,
            received,
            admitted,
            decoded,
            received_at: None,
            admitted_at: None,
            owed_since: None,
            started: now,
        }
    }

    pub(super) fn decoded_at_start(&self) -> u64 {
        self.decoded_at_start
    }

    /// Takes the counters as they are now, and since when no keyframe has come that the decoder needs. `Some` is the reason
    /// to give the connection up, and since when there has been one.
    pub(super) fn look(
        &mut self,
        now: Instant,
        received: u64,
        admitted: u64,
        decoded: u64,
        lacks_keyframe: Option<Instant>,
    ) -> Option<(Silence, Instant)> {
        if received > self.received {
            self.received = received;
            self.received_at = Some(now);
        }
        let is_fed = |at: Option<Instant>| at.is_some_and(|at| now - at < SILENT);
        if admitted > self.admitted {
            // What a decoder owed when its camera fell asleep, it owes no more.
            let owed_since = self.owed_since.filter(|_| is_fed(self.admitted_at));
            self.owed_since = owed_since.or(Some(now));
            (self.admitted, self.admitted_at) = (admitted, Some(now));
        }
        if decoded > self.decoded {
            self.decoded = decoded;
            self.owed_since = None;
        }
        let owed_since = self.owed_since.filter(|_| is_fed(self.admitted_at));
        let lasts = |silence, since: Option<Instant>, patience| {
            since.filter(|since| now - *since >= patience).map(|since| (silence, since))
        };
        let Some(received_at) = self.received_at else {
            return lasts(Silence::NoStream, Some(self.started), CONNECT);
        };
        lasts(Silence::Silent, Some(received_at), SILENT)
            .or_else(|| lasts(Silence::NoKeyframe, lacks_keyframe, NO_KEYFRAME))
            .or_else(|| lasts(Silence::NoPicture, owed_since, NO_PICTURE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of second, received, admitted, decoded; the silence that is seen, and when.
    fn check(rows: &[(f64, u64, u64, u64)], expected: Option<(f64, Silence)>) {
        check_lacking(None, rows, expected);
    }

    /// The same where no keyframe comes from a second on.
    fn check_lacking(keyframe: Option<f64>, rows: &[(f64, u64, u64, u64)], expected: Option<(f64, Silence)>) {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start, 0, 0, 0);
        let mut counters = (0, 0, 0);
        let mut rows = rows.iter().peekable();
        let mut seen = None;
        for step in 0..(100.0 / TICK.as_secs_f64()) as u32 {
            let second = f64::from(step) * TICK.as_secs_f64();
            while let Some(&(_, received, admitted, decoded)) = rows.next_if(|row| row.0 <= second) {
                counters = (received, admitted, decoded);
            }
            let now = start + Duration::from_secs_f64(second);
            let lacking = keyframe.filter(|from| *from <= second).map(|s| start + Duration::from_secs_f64(s));
            if let Some((silence, since)) = watchdog.look(now, counters.0, counters.1, counters.2, lacking) {
                let patience = match silence {
                    Silence::NoStream => CONNECT,
                    Silence::Silent => SILENT,
                    Silence::NoKeyframe => NO_KEYFRAME,
                    Silence::NoPicture => NO_PICTURE,
                };
                assert!((patience..patience + TICK).contains(&(now - since)), "{silence:?} since {since:?}");
                seen = Some((second, silence));
                break;
            }
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn each_silence_has_its_own_patience() {
        check(&[], Some((10.0, Silence::NoStream)));
        check(&[(1.0, 1, 1, 0), (2.0, 9, 9, 5)], Some((6.5, Silence::Silent)));
        let rows = |last: u64, admitted: fn(u64) -> u64, decoded: fn(u64) -> u64| -> Vec<_> {
            (0..=last).map(|i| (i as f64, i, admitted(i), decoded(i))).collect()
        };
        check(&rows(99, |i| i, |_| 0), Some((13.0, Silence::NoPicture)));
        check(&rows(100, |i| i, |i| i), None);
        check_lacking(Some(1.0), &rows(99, |_| 0, |_| 0), Some((31.0, Silence::NoKeyframe)));
        check_lacking(Some(50.0), &rows(99, |i| i.min(50), |i| i.min(50)), Some((80.0, Silence::NoKeyframe)));
        check_lacking(Some(80.0), &rows(99, |i| i.min(80), |i| i.min(80)), None);
        let asleep = |i: u64| i.min(10);
        check(&rows(100, asleep, asleep), None);
        check(&rows(100, |i| i.min(11), asleep), None);
        check(&rows(100, |i| if i < 50 { i.min(10) } else { i }, asleep), Some((62.0, Silence::NoPicture)));
    }
}
