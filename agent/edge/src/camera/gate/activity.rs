//! Whether a stream's access units are of another complexity than they are when nothing happens.
//!
//! Under rate control plain sizes say nothing: the encoder spends what it may on sensor noise. What rises when somebody
//! walks is complexity, `size * 2^(QP/6)`: the quantiser's step doubles every six steps of QP (ITU-T H.264, 8.5.9; H.265,
//! 8.6.1), and half the step is twice the bits. It is compared in octaves, with what units of the same kind at the same
//! place in the group of pictures have when the scene is calm.

use std::time::{Duration, Instant};

use super::super::bitstream::{Kind, UnitFacts};

/// Places in the group of pictures that are learned one by one; those behind share one.
const PLACES: usize = 64;

/// Calm time, and calm keyframes, before the model has an opinion.
const LEARN: Duration = Duration::from_secs(8);
const LEARN_KEYFRAMES: u32 = 3;

/// Calm time after which its opinion is relied upon: somebody may have stood there while it learned, and what was learned of
/// him takes about as long to fade.
const RELY: Duration = Duration::from_secs(60);

/// Keyframes in a row that make a stream all-intra.
const ALL_INTRA: u32 = 10;

/// How far one unit moves what is usual at its place, once that is known: a group of two seconds forgets in a minute.
const FORGET: f32 = 0.03;

/// Deviations from usual, and octaves from usual, that count as activity: above, as a rule; below where somebody hides a
/// background that was more complex than he is, such as a noisy wall.
const DEVIATIONS: f32 = 2.5;
const OCTAVES: f32 = 0.02;

/// How far the bar rises after a false alarm, at most; how long it takes to come down again.
const CAUTION_MAX: f32 = 4.0;
const CAUTION_FADES: Duration = Duration::from_secs(600);

/// The model of one camera. It learns rate control, noise, night mode and the pattern of the group of pictures.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    places: [Vec<Option<Place>>; 3],
    /// Of the next unit, in units since the last keyframe; unknown after a gap.
    place: Option<usize>,
    last: Option<Instant>,
    /// A step into the picture shows within half a second; somebody far off only in the mean of two.
    short: Excess,
    long: Excess,
    caution: f32,
    learned: Duration,
    keyframes: u32,
    group: Option<Duration>,
    keyframe_at: Option<Instant>,
    /// Keyframes in a row.
    row: u32,
}

/// What is usual at one place, in octaves.
#[derive(Clone, Copy, Debug)]
struct Place {
    mean: f32,
    seen: u32,
}

/// What was above usual lately, and how much of that calm alone makes.
#[derive(Clone, Debug)]
struct Excess {
    memory: Duration,
    value: f32,
    calm_square: f32,
}

impl Excess {
    fn new(memory: Duration) -> Self {
        Self { memory, value: 0.0, calm_square: 0.02 }
    }

    fn add(&mut self, excess: f32, elapsed: Duration) {
        self.value +=
            (1.0 - (-elapsed.as_secs_f32() / self.memory.as_secs_f32()).exp()) * (excess - self.value);
    }

    fn learn(&mut self, elapsed: Duration) {
        // A minute's memory, or what was learned so far.
        let share = (elapsed.as_secs_f32() / 60.0).min(1.0);
        self.calm_square += share * (self.value * self.value - self.calm_square);
    }

    fn is_active(&self, caution: f32) -> bool {
        self.value.abs() > OCTAVES + caution * DEVIATIONS * self.calm_square.sqrt()
    }
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            places: [const { Vec::new() }; 3],
            place: None,
            last: None,
            short: Excess::new(Duration::from_millis(400)),
            long: Excess::new(Duration::from_secs(2)),
            caution: 1.0,
            learned: Duration::ZERO,
            keyframes: 0,
            group: None,
            keyframe_at: None,
            row: 0,
        }
    }

    /// Takes the next unit, and says whether the stream is active. `calm`: nothing happens in the picture, as far as
    /// anybody knows; only then is it learned from.
    pub(super) fn observe(&mut self, now: Instant, unit: &UnitFacts, calm: bool) -> bool {
        let elapsed = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        self.row = if unit.keyframe { self.row.saturating_add(1) } else { 0 };
        if unit.keyframe {
            self.place = Some(0);
            if let Some(before) = self.keyframe_at.replace(now) {
                self.group = Some(now.saturating_duration_since(before));
            }
        }
        let Some(place) = self.place else { return false };
        self.place = Some(place + 1);
        self.caution =
            1.0 + (self.caution - 1.0) * (-elapsed.as_secs_f32() / CAUTION_FADES.as_secs_f32()).exp();

        let complexity = (unit.bytes.max(1) as f32).log2() + unit.quantiser.unwrap_or(0.0) / 6.0;
        let kind = match unit.kind {
            Kind::Intra => 0,
            Kind::Predicted => 1,
            Kind::Bidirectional => 2,
        };
        let places = &mut self.places[kind];
        let index = place.min(PLACES - 1);
        if places.len() <= index {
            places.resize(index + 1, None);
        }
        let usual = places[index].get_or_insert(Place { mean: complexity, seen: 0 });
        let excess = complexity - usual.mean;
        if usual.seen > 0 {
            self.short.add(excess, elapsed);
            self.long.add(excess, elapsed);
        }
        let active =
            self.is_ready() && (self.short.is_active(self.caution) || self.long.is_active(self.caution));
        if calm && !active {
            self.learn(place, kind, excess, elapsed);
        }
        active
    }

    fn learn(&mut self, place: usize, kind: usize, excess: f32, elapsed: Duration) {
        if let Some(Some(usual)) = self.places[kind].get_mut(place.min(PLACES - 1)) {
            usual.seen += 1;
            usual.mean += excess * (1.0 / usual.seen as f32).max(FORGET);
        }
        self.learned += elapsed.min(Duration::from_secs(1));
        self.keyframes = self.keyframes.saturating_add(u32::from(place == 0));
        if self.keyframes > 1 {
            self.short.learn(elapsed);
            self.long.learn(elapsed);
        }
    }

    /// Whether it has seen enough calm to have an opinion.
    pub(super) fn is_ready(&self) -> bool {
        self.learned >= LEARN && self.keyframes >= LEARN_KEYFRAMES
    }

    /// Whether its opinion is enough, so that keyframes need not be compared as if there were none.
    pub(super) fn is_reliable(&self) -> bool {
        self.learned >= RELY
    }

    /// Whether nothing but keyframes comes.
    pub(super) fn is_all_intra(&self) -> bool {
        self.row >= ALL_INTRA
    }

    /// Time between the last two keyframes.
    pub(super) fn group(&self) -> Option<Duration> {
        self.group
    }

    /// Time since the last keyframe.
    pub(super) fn since_keyframe(&self, now: Instant) -> Option<Duration> {
        self.keyframe_at.map(|at| now.saturating_duration_since(at))
    }

    /// Units were lost or a connection began anew: the next keyframe says where the group of pictures stands.
    pub(super) fn gap(&mut self) {
        (self.place, self.last, self.keyframe_at) = (None, None, None);
        self.rest();
    }

    /// What was above usual is forgotten: it has been acted upon.
    pub(super) fn rest(&mut self) {
        (self.short.value, self.long.value) = (0.0, 0.0);
    }

    /// How much the bar has risen after false alarms.
    #[cfg(test)]
    pub(super) fn caution(&self) -> f32 {
        self.caution
    }

    /// Somebody looked, and there was nothing.
    pub(super) fn was_wrong(&mut self) {
        self.caution = (self.caution * 1.3).min(CAUTION_MAX);
    }

    /// Somebody looked, and there was something.
    pub(super) fn was_right(&mut self) {
        self.caution = (self.caution * 0.7).max(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The seconds of the room clip in which somebody is in it, by eye (tests/traces/README.md).
    const VISITS: [(f64, f64); 6] =
        [(6.0, 20.0), (23.0, 45.0), (51.0, 70.0), (74.0, 87.0), (93.0, 120.0), (124.0, 136.0)];

    fn trace(name: &str) -> Vec<UnitFacts> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/traces/{name}.trace"));
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        text.lines().map(unit).collect()
    }

    fn unit(line: &str) -> UnitFacts {
        let mut words = line.split(' ');
        let kind = words.next().unwrap();
        UnitFacts {
            keyframe: kind == "K",
            kind: match kind {
                "K" | "I" | "i" => Kind::Intra,
                "B" | "b" => Kind::Bidirectional,
                _ => Kind::Predicted,
            },
            bytes: words.next().unwrap().parse().unwrap(),
            quantiser: words.next().map(|quantiser| quantiser.parse().unwrap()),
            ..UnitFacts::default()
        }
    }

    /// Plays the clip of the room twice, learns where it is empty, and tells of the second time: the visits that were
    /// noticed within three seconds, and the active seconds of those in which the room was empty.
    fn watch(name: &str) -> (usize, u32) {
        let units = trace(name);
        let length = units.len() as f64 / 10.0;
        let mut activity = Activity::new();
        let start = Instant::now();
        let mut noticed = [false; VISITS.len()];
        let mut alarms = std::collections::BTreeSet::new();
        for round in 0..2 {
            for (index, unit) in units.iter().enumerate() {
                let second = index as f64 / 10.0;
                let now = start + Duration::from_secs_f64(length * f64::from(round) + second);
                // Somebody casts a shadow before and after.
                let visit = VISITS.iter().position(|(from, to)| (from - 1.0..to + 2.0).contains(&second));
                let active = activity.observe(now, unit, visit.is_none());
                if round == 0 || !active {
                    continue;
                }
                match visit {
                    Some(visit) if second < VISITS[visit].0 + 3.0 => noticed[visit] = true,
                    Some(_) => {}
                    None => drop(alarms.insert(second as u32)),
                }
            }
        }
        (noticed.into_iter().filter(|&seen| seen).count(), alarms.len() as u32)
    }

    #[test]
    fn visits_show_in_the_sizes_of_streams_that_say_something() {
        // Trace, visits noticed at least (of 6), empty seconds taken for active at most (of 29). A false alarm costs a look
        // at the picture; shadows, the lamp's flicker and a rate control that recovers from a visit cost several.
        for (name, least, most) in [
            ("room-360p-rate", 6, 1),
            ("room-360p-quality", 6, 10),
            ("room-360p-clean", 6, 10),
            ("room-360p-long-gop", 6, 3),
            ("room-360p-padded-4slices", 6, 1),
            ("room-360p-bframes", 6, 3),
            ("room-360p-h265-rate", 6, 14),
            ("room-360p-h265-quality", 6, 12),
            ("room-1080p-rate", 6, 0),
            // So much noise for what there is to see: what is missed here is the keyframes' to see.
            ("room-1080p-quality", 4, 0),
            ("room-1080p-long-gop", 4, 0),
            ("room-360p-rate-noisy", 5, 0),
        ] {
            let (noticed, alarms) = watch(name);
            assert!(
                noticed >= least && alarms <= most,
                "{name}: {noticed} of 6 visits, {alarms} false alarms"
            );
        }
    }

    #[test]
    fn an_all_intra_stream_is_recognised() {
        let mut activity = Activity::new();
        let start = Instant::now();
        for (index, unit) in trace("room-360p-intra-only").iter().take(20).enumerate() {
            activity.observe(start + Duration::from_millis(100 * index as u64), unit, true);
        }
        assert!(activity.is_all_intra());
    }
}
