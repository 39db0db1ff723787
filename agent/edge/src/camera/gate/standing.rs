//! How far a camera's stream may be believed, and the mode that follows from it.
//!
//! The gate is honest about itself: sleeping pictures are audited, and a stream whose numbers say nothing, or whose
//! sleep hid something, is watched more closely, with the reason in health.

use std::time::{Duration, Instant};

use super::GateMode;

/// Group of pictures beyond which waking up in the middle means decoding for a second.
const GROUP_MAX: Duration = Duration::from_secs(12);

/// Group of pictures up to which keyframes alone are a watch.
const KEYFRAMES_WITHIN: Duration = Duration::from_secs(4);

/// Audits that are remembered, and the missed ones among them that are too many.
const AUDITS: u32 = 32;
const MISSED_MAX: u32 = 3;

/// Awakenings by a keyframe whose group of pictures had shown nothing, beyond those by activity, that are too many.
const UNANNOUNCED_MAX: i32 = 4;

/// A stream that lost its standing is tried again after this long: night noise ends in the morning.
const PAROLE: Duration = Duration::from_secs(6 * 3600);

/// What is held against a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Every unit is a keyframe.
    AllIntra,
    /// Keyframes are too far apart for a wake-up in their midst.
    LongGroups,
    /// Keyframes showed what the units between had not.
    Unannounced,
    /// Audits found what sleep had hidden.
    Missed,
}

impl Doubt {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::AllIntra => "every frame is a keyframe: sizes say nothing",
            Self::LongGroups => {
                "keyframes are more than 12 s apart; set the camera's I-frame interval to 2 s"
            }
            Self::Unannounced => "sizes do not show what keyframes show",
            Self::Missed => "audits found what sleep had hidden",
        }
    }
}

/// The mode of one camera, as configured or closer.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    configured: GateMode,
    lost: Option<(GateMode, Doubt, Instant)>,
    unannounced: i32,
    /// The last audits, newest in the lowest bit; 1 where something had been missed.
    audits: u32,
    audited: u32,
}

impl Standing {
    pub(super) fn new(configured: GateMode) -> Self {
        Self { configured, lost: None, unannounced: 0, audits: 0, audited: 0 }
    }

    /// What to do now.
    pub(super) fn mode(&self) -> GateMode {
        self.lost.map_or(self.configured, |(mode, ..)| mode)
    }

    /// Why that is not what was configured.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        self.lost.map(|(_, doubt, _)| doubt)
    }

    /// What is known of the stream's keyframes, at each of them.
    pub(super) fn keyframe(&mut self, now: Instant, group: Option<Duration>, all_intra: bool) {
        if self.lost.is_some_and(|(.., since)| now.saturating_duration_since(since) >= PAROLE) {
            *self = Self::new(self.configured);
        }
        match group {
            Some(group) if group > GROUP_MAX => self.lose(now, GateMode::Always, Doubt::LongGroups),
            _ if all_intra && self.mode() == GateMode::Adaptive => {
                self.lose(now, GateMode::Keyframes, Doubt::AllIntra);
            }
            Some(group) if group > KEYFRAMES_WITHIN && self.mode() == GateMode::Keyframes => {
                self.lose(now, GateMode::Always, self.doubt().unwrap_or(Doubt::LongGroups));
            }
            _ => {}
        }
    }

    /// No keyframe has come for that long: what was kept from the last one on will soon be too much to wake up by.
    pub(super) fn no_keyframe(&mut self, now: Instant, since: Duration) {
        if since > GROUP_MAX {
            self.lose(now, GateMode::Always, Doubt::LongGroups);
        }
    }

    /// Something happened in a sleeping picture, and this is what told of it.
    pub(super) fn woken(&mut self, now: Instant, by_activity: bool) {
        self.unannounced = (self.unannounced + if by_activity { -1 } else { 1 }).max(0);
        if self.unannounced >= UNANNOUNCED_MAX && self.mode() == GateMode::Adaptive {
            self.lose(now, GateMode::Keyframes, Doubt::Unannounced);
        }
    }

    /// A sleeping picture was looked at by the detector.
    pub(super) fn audited(&mut self, now: Instant, missed: bool) {
        self.audits = self.audits << 1 | u32::from(missed);
        self.audited = (self.audited + 1).min(AUDITS);
        if missed && self.audits.count_ones() >= MISSED_MAX {
            let closer = match self.mode() {
                GateMode::Adaptive => GateMode::Keyframes,
                GateMode::Keyframes | GateMode::Always => GateMode::Always,
            };
            self.lose(now, closer, Doubt::Missed);
        }
    }

    fn lose(&mut self, now: Instant, mode: GateMode, doubt: Doubt) {
        if self.mode() != mode {
            self.lost = Some((mode, doubt, now));
            (self.audits, self.audited, self.unannounced) = (0, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Plays events: `k1` keyframes that many seconds apart, `i` all-intra, `m` a missed audit, `g` a good one, `u` an
    /// unannounced awakening, `a` an announced one, `n13` no keyframe for
    /// that many seconds, `h` an hour passes. Says the mode and the doubt at the end.
    fn check(configured: GateMode, events: &str, expected: (GateMode, Option<Doubt>)) {
        let mut now = Instant::now();
        let mut standing = Standing::new(configured);
        for event in events.split(' ') {
            match event {
                "i" => standing.keyframe(now, Some(SECOND / 15), true),
                "m" => standing.audited(now, true),
                "g" => standing.audited(now, false),
                "u" => standing.woken(now, false),
                "a" => standing.woken(now, true),
                "h" => now += 3600 * SECOND,
                _ => {
                    let time = SECOND * event[1..].parse::<u32>().unwrap();
                    match event.starts_with('n') {
                        true => standing.no_keyframe(now, time),
                        false => standing.keyframe(now, Some(time), false),
                    }
                }
            }
        }
        assert_eq!((standing.mode(), standing.doubt()), expected, "{events}");
    }

    #[test]
    fn a_stream_loses_its_standing_step_by_step_and_gets_another_chance() {
        use Doubt::{AllIntra, LongGroups, Missed, Unannounced};
        use GateMode::{Adaptive, Always, Keyframes};
        check(Adaptive, "k2 k2 m g m a u a u", (Adaptive, None));
        check(Adaptive, "i", (Keyframes, Some(AllIntra)));
        check(Adaptive, "k2 k15", (Always, Some(LongGroups)));
        check(Adaptive, "k2 n12", (Adaptive, None));
        check(Adaptive, "k2 n13 n14 k2", (Always, Some(LongGroups)));
        check(Keyframes, "n13", (Always, Some(LongGroups)));
        check(Adaptive, "m g m g m", (Keyframes, Some(Missed)));
        check(Adaptive, "m m m m m m k2", (Always, Some(Missed)));
        check(Adaptive, "u u a u u u", (Keyframes, Some(Unannounced)));
        check(Adaptive, "u u u u k8", (Always, Some(Unannounced)));
        check(Keyframes, "k2 u u u u u u", (Keyframes, None));
        check(Keyframes, "k8", (Always, Some(LongGroups)));
        check(Adaptive, "m m m h h h h h k2", (Keyframes, Some(Missed)));
        check(Adaptive, "m m m h h h h h h k2", (Adaptive, None));
        check(Always, "m m m u u u u u i k2", (Always, None));
    }

    #[test]
    fn old_misses_are_forgotten() {
        let quiet = "g ".repeat(AUDITS as usize);
        check(GateMode::Adaptive, &format!("m m {quiet}m"), (GateMode::Adaptive, None));
    }
}
