//! Tracker and rules of one camera.

use crate::Moment;
use crate::detection::{Detection, Thresholds};
use crate::geometry::Rect;
use crate::nms;
use crate::rules::{Incident, Incidents, Rule, RuleState, Surroundings, Watch};
use crate::track::{Track, Tracker};

/// What one camera watches for.
#[derive(Clone, Debug)]
pub struct SceneOptions {
    /// The scores that count, per class: the model's.
    pub thresholds: Thresholds,
    /// The rules; an incident names one by its index.
    pub rules: Vec<Rule>,
    /// The site's time zone.
    pub time_zone: jiff::tz::TimeZone,
}

/// What is seen with so many times its threshold will be seen in the next frame, too.
const SURE: f32 = 1.5;

/// What lies to so much within another of its class, and covers so little of it, is a part of it.
const INSIDE: f32 = 0.9;
const PART: f32 = 0.15;

/// The memory of one camera: what is where for how long, as far as rules need it.
#[derive(Clone, Debug)]
pub struct Scene {
    tracker: Tracker,
    rules: Vec<Watch>,
    time_zone: jiff::tz::TimeZone,
    /// The number of the last incident.
    last: u64,
}

impl Scene {
    /// An empty scene.
    pub fn new(options: SceneOptions) -> Self {
        let rules = options.rules.into_iter().enumerate().map(|(index, rule)| Watch::new(index, rule));
        Self {
            tracker: Tracker::new(options.thresholds),
            rules: rules.collect(),
            time_zone: options.time_zone,
            last: 0,
        }
    }

    /// Takes what one frame showed, best score first, and says which rules it broke. Frames come in the order of
    /// the monotonic clock.
    pub fn observe(&mut self, now: Moment, detections: &[Detection]) -> Vec<Incident> {
        let is_whole = |detection: &&Detection| !self.is_part(detection, detections);
        let wholes: Vec<Detection> = detections.iter().filter(is_whole).copied().collect();
        self.tracker.observe(now.monotonic, &wholes);
        let mut incidents = Incidents { last: &mut self.last, new: Vec::new() };
        let (tracks, thresholds) = (self.tracker.tracks(), self.tracker.thresholds());
        let surroundings = Surroundings { tracks, thresholds, time_zone: &self.time_zone };
        for rule in &mut self.rules {
            rule.observe(now, &surroundings, &mut incidents);
        }
        incidents.new
    }

    /// Whether what passes for a whole is a part of something else: of somebody close by, his head is another small person.
    fn is_part(&self, small: &Detection, detections: &[Detection]) -> bool {
        let thresholds = self.tracker.thresholds();
        detections.iter().filter(|large| large.score >= thresholds.of(large.class)).any(|large| {
            large.class == small.class
                && small.bounds.area() <= PART * large.bounds.area()
                && small.bounds.shared_area(&large.bounds) >= INSIDE * small.bounds.area()
        })
    }

    /// The numbers of the incidents that are over since the last time. Asked also while no frames come: a camera falls
    /// asleep as soon as everybody has left.
    pub fn over(&mut self, now: Moment) -> Vec<u64> {
        self.rules.iter_mut().flat_map(|rule| rule.over(now.monotonic)).collect()
    }

    /// Another model looks from the next frame on. What is in sight stays what it is.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.tracker.set_thresholds(thresholds);
    }

    /// The camera slept until now, because nothing changed in front of it.
    pub fn resume(&mut self, now: Moment) {
        self.tracker.resume(now.monotonic);
    }

    /// Whether some rule has yet to decide about something that is there: the camera must not sleep meanwhile.
    pub fn is_undecided(&self, now: Moment) -> bool {
        self.rules.iter().any(|rule| rule.is_undecided(now))
    }

    /// Whether some rule keeps the camera awake at this moment, whatever happens in front of it.
    pub fn is_wakeful(&self, now: Moment) -> bool {
        self.rules.iter().any(|rule| rule.is_wakeful(now, &self.time_zone))
    }

    /// Whether the last frame, of this moment and with these detections, showed every object clearly: all that are known, and
    /// nothing that could become one.
    pub fn is_sure(&self, now: Moment, detections: &[Detection]) -> bool {
        let thresholds = self.tracker.thresholds();
        let clear = |class| SURE * thresholds.of(class);
        let known =
            |bounds: &Rect| self.tracks().iter().any(|track| track.bounds().iou(bounds) > nms::OVERLAP);
        let seen = |track: &Track| track.seen() == now.monotonic && track.score() >= clear(track.class());
        let faint = |d: &Detection| d.score < thresholds.of(d.class) / 2.0;
        self.tracks().iter().all(seen)
            && detections.iter().all(|d| faint(d) || known(&d.bounds) || self.is_part(d, detections))
    }

    /// Whether a frame of a camera that sleeps shows something that this scene does not know of: a new object, or one
    /// that a rule has to decide about by now.
    pub fn would_learn(&self, now: Moment, detections: &[Detection]) -> bool {
        let known = |id| self.tracks().iter().any(|track| track.id() == id);
        let mut trial = self.clone();
        trial.resume(now);
        let broken = !trial.observe(now, detections).is_empty();
        broken || trial.is_undecided(now) || trial.tracks().iter().any(|track| !known(track.id()))
    }

    /// What each rule is about, after the frame of this moment.
    pub fn rules(&self, now: Moment) -> Vec<RuleState> {
        self.rules.iter().map(|rule| rule.state(now, &self.time_zone)).collect()
    }

    /// The objects in sight.
    pub fn tracks(&self) -> &[Track] {
        self.tracker.tracks()
    }

    /// How many detections were not tracked because there were too many at once.
    pub fn overflow(&self) -> u64 {
        self.tracker.overflow()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::tz::TimeZone;
    use sharp_eyes_protocol::class::ObjectClass;
    use sharp_eyes_protocol::level::Severity;
    use sharp_eyes_protocol::topic::Name;

    use super::*;
    use crate::geometry::{Point, Polygon, Rect};
    use crate::rules::{Direction, RuleKind, Tripwire};

    /// Plays a scene of 5 frames per second, and compares its incidents.
    ///
    /// `rules` has a line per rule: `key=value` of dwell, cooldown (seconds), min, height, classes (`a+b`), schedule
    /// (`_` for space). All zones are the square 0.4 to 0.6 of the picture. With `line=X,Y>X,Y` it is a crossing,
    /// whose `way` is left, right or both; with `time` one about stopped cars; with `fire=K/N` one about fire anywhere,
    /// and with the word `zoned` in the zone.
    ///
    /// `frames` has lines of `FROM-TO class X,Y SCORE [HEIGHT] [| class X,Y SCORE]`: from one second up to another an
    /// object with its foot there; `A>B` for X walks. A stretch without objects is just `FROM-TO`; one without frames is
    /// left out. `expected` lists `second rule#track class`.
    fn check(rules: &str, frames: &str, expected: &[&str]) {
        let lines = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
        };
        let mut scene = Scene::new(SceneOptions {
            thresholds: Thresholds::default(),
            rules: lines(rules).iter().map(|line| rule(line)).collect(),
            time_zone: TimeZone::UTC,
        });
        let start: jiff::Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let mut found = Vec::new();
        for line in lines(frames) {
            let (times, objects) = line.split_once(' ').unwrap_or((&line, ""));
            let (from, to) = range(times, '-');
            let steps = ((to - from) * 5.0).round() as u32;
            for step in 0..steps {
                let done = f64::from(step) / f64::from(steps);
                let mut detections: Vec<_> =
                    objects.split('|').filter_map(|object| detection(object.trim(), done)).collect();
                detections.sort_by(|a, b| b.score.total_cmp(&a.score));
                let monotonic = Duration::from_millis((from * 1000.0).round() as u64 + u64::from(step) * 200);
                let now = Moment::new(monotonic, start + jiff::SignedDuration::try_from(monotonic).unwrap());
                for incident in scene.observe(now, &detections) {
                    assert_eq!(incident.at, now);
                    found.push(format!(
                        "{} {}#{} {}",
                        monotonic.as_secs_f64(),
                        incident.rule,
                        incident.track,
                        incident.class
                    ));
                }
            }
        }
        assert_eq!(found, expected, "\n{rules}\n{frames}");
    }

    fn range(text: &str, separator: char) -> (f64, f64) {
        let (from, to) = text.split_once(separator).unwrap_or((text, text));
        (from.parse().unwrap(), to.parse().unwrap())
    }

    fn detection(object: &str, done: f64) -> Option<Detection> {
        let mut words = object.split_whitespace();
        let class: ObjectClass = words.next()?.parse().unwrap();
        let (x, y) = words.next().unwrap().split_once(',').unwrap();
        let (from, to) = range(x, '>');
        let (x, y) = ((from + (to - from) * done) as f32, y.parse::<f32>().unwrap());
        let score = words.next().unwrap().parse().unwrap();
        let height = words.next().map_or(0.16, |height| height.parse().unwrap());
        let width = if class.is_hazard() { 0.08 } else { 0.06 }; // no small thing
        Some(Detection {
            class,
            score,
            bounds: Rect { left: x - width / 2.0, top: y - height, width, height },
        })
    }

    fn rule(text: &str) -> Rule {
        let square = [(0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6)].map(|(x, y)| Point { x, y });
        let mut rule = Rule {
            name: Name::new("rule").unwrap(),
            zone: Name::new("yard").ok(),
            kind: RuleKind::Intrusion {
                polygon: Polygon::new(square.to_vec()).unwrap(),
                dwell: Duration::from_secs(2),
            },
            classes: vec![ObjectClass::Person],
            cooldown: Duration::ZERO,
            severity: Severity::Major,
            schedule: "always".parse().unwrap(),
            min_score: None,
            min_height: 0.0,
            evidence: true,
            wakeful: false,
        };
        let point = |text: &str| {
            let (x, y) = text.split_once(',').unwrap();
            Point { x: x.parse().unwrap(), y: y.parse().unwrap() }
        };
        for (key, value) in text.split_whitespace().filter_map(|setting| setting.split_once('=')) {
            let seconds = || Duration::from_secs_f64(value.parse().unwrap());
            match (key, &mut rule.kind) {
                ("dwell", RuleKind::Intrusion { dwell, .. }) => *dwell = seconds(),
                ("time", kind) => {
                    let RuleKind::Intrusion { polygon, .. } = kind.clone() else { panic!("{text}") };
                    *kind = RuleKind::StoppedVehicle { polygon, time: seconds() };
                    rule.classes = vec![ObjectClass::Car];
                }
                ("fire", kind) => {
                    let (seen, frames) = value.split_once('/').unwrap();
                    let (seen, frames) = (seen.parse().unwrap(), frames.parse().unwrap());
                    let RuleKind::Intrusion { polygon, .. } = kind.clone() else { panic!("{text}") };
                    let polygon = text.contains("zoned").then_some(polygon);
                    *kind = RuleKind::Hazard { polygon, seen, frames };
                    rule.classes = vec![ObjectClass::Fire, ObjectClass::Smoke];
                }
                ("line", kind) => {
                    let (from, to) = value.split_once('>').unwrap();
                    let line = Tripwire::new(point(from), point(to)).unwrap();
                    *kind = RuleKind::Crossing { line, direction: Direction::Both };
                }
                ("way", RuleKind::Crossing { direction, .. }) => {
                    *direction = match value {
                        "left" => Direction::ToLeft,
                        "right" => Direction::ToRight,
                        _ => Direction::Both,
                    }
                }
                ("cooldown", _) => rule.cooldown = seconds(),
                ("min", _) => rule.min_score = Some(value.parse().unwrap()),
                ("height", _) => rule.min_height = value.parse().unwrap(),
                ("classes", _) => {
                    rule.classes = value.split('+').map(|class| class.parse().unwrap()).collect();
                }
                ("schedule", _) => rule.schedule = value.replace('_', " ").parse().unwrap(),
                _ => panic!("no setting {key:?}"),
            }
        }
        rule
    }

    #[test]
    fn whoever_stays_for_the_dwell_time_alarms_once() {
        check("dwell=2", "0-60 person .5,.5 .9", &["2 0#1 person"]);
        check("dwell=0", "0-60 person .5,.5 .9", &["0 0#1 person"]);
        check("dwell=2", "0-1.8 person .5,.5 .9", &[]);
        check("dwell=2", "0-60 person .5,.7 .9", &[]);
        check("dwell=2", "0-60 person .5,.5 .45", &[]);
        // Even after leaving and coming back, as long as it was in sight.
        check(
            "dwell=2",
            "0-5 person .5,.5 .9
             5-6 person .5>.7,.5 .9
             6-9 person .7,.5 .9
             9-10 person .7>.5,.5 .9
             10-20 person .5,.5 .9",
            &["2 0#1 person"],
        );
    }

    #[test]
    fn the_stay_begins_where_the_foot_enters() {
        check("dwell=2", "0-4 person .2>.5,.5 .9\n4-8 person .5,.5 .9", &["4.8 0#1 person"]);
        check("dwell=2", "0-8 person .11>.91,.5 .9", &[]);
        check("dwell=1", "0-8 person .11>.91,.5 .9", &["4 0#1 person"]);
    }

    #[test]
    fn the_stay_begins_with_a_faint_sighting_just_before_the_first_clear_one() {
        check("dwell=2", "0-0.4 person .5,.5 .3\n0.4-9 person .5,.5 .9", &["2 0#1 person"]);
        // However long that was: a bush that is faint for an hour and clear for a moment has not stayed.
        check("dwell=2", "0-8 person .5,.5 .3\n8-15 person .5,.5 .9", &["9.8 0#1 person"]);
        check("dwell=2", "0-8 person .5,.5 .3\n8-8.4 person .5,.5 .9\n8.4-20 person .5,.5 .3", &[]);
        check("dwell=2", "0-0.4 person .62,.5 .3\n0.4-9 person .58,.5 .9", &["2.4 0#1 person"]);
        check("dwell=0", "0-9 person .5,.5 .3", &[]);
    }

    #[test]
    fn a_flicker_outside_does_not_restart_the_stay_but_leaving_does() {
        check(
            "dwell=2",
            "0-1 person .58,.5 .9\n1-1.8 person .62,.5 .9\n1.8-9 person .58,.5 .9",
            &["2 0#1 person"],
        );
        check(
            "dwell=2",
            "0-1 person .58,.5 .9\n1-2.2 person .62,.5 .9\n2.2-9 person .58,.5 .9",
            &["4.2 0#1 person"],
        );
    }

    #[test]
    fn a_gap_in_sight_is_bridged_for_two_seconds() {
        // Without frames, with empty frames, and with a score too low to start but not to go on.
        check("dwell=4", "0-2 person .5,.5 .9\n3.8-9 person .5,.5 .9", &["4 0#1 person"]);
        check("dwell=4", "0-2 person .5,.5 .9\n2-3.6\n3.6-9 person .5,.5 .9", &["4 0#1 person"]);
        check("dwell=4 min=.3", "0-1 person .5,.5 .9\n1-9 person .5,.5 .3", &["4 0#1 person"]);
        check("dwell=4", "0-2 person .5,.5 .9\n2-5\n5-12 person .5,.5 .9", &["9 0#2 person"]);
        // Nobody is there when the dwell time is over: no alarm until they are seen again.
        check("dwell=3", "0-2.8 person .5,.5 .9\n2.8-4\n4-5 person .5,.5 .9", &["4 0#1 person"]);
    }

    #[test]
    fn the_cooldown_holds_back_a_rule_not_an_intruder() {
        check(
            "dwell=1 cooldown=10",
            "0-3 person .45,.5 .9
             3-6 person .45,.5 .9 | person .57,.5 .8
             6-20 person .57,.5 .8",
            &["1 0#1 person", "11 0#2 person"],
        );
        check("dwell=1 cooldown=10", "0-5 person .5,.5 .9\n5-30", &["1 0#1 person"]);
        check(
            "dwell=1 cooldown=60\ndwell=3 cooldown=60",
            "0-9 person .5,.5 .9",
            &["1 0#1 person", "3 1#1 person"],
        );
    }

    #[test]
    fn a_rule_of_the_night_is_awake_while_nobody_knows_the_hour() {
        for (wrong, found) in [(true, 1), (false, 0)] {
            let mut scene = Scene::new(SceneOptions {
                thresholds: Thresholds::default(),
                rules: vec![rule("schedule=daily_19:00-07:00 dwell=0")],
                time_zone: TimeZone::UTC,
            });
            let person = detection("person .5,.5 .9", 0.0).unwrap();
            let noon = jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(12);
            let frame = |at: u64| Moment { wrong, ..Moment::new(Duration::from_millis(200 * at), noon) };
            let incidents = (0..5).flat_map(|at| scene.observe(frame(at), &[person])).count();
            assert_eq!(incidents, found);
        }
    }

    #[test]
    fn a_rule_sleeps_outside_of_its_schedule() {
        // The scene begins at 12:00 on a Monday.
        check("schedule=daily_12:01-13:00 dwell=2", "0-90 person .5,.5 .9", &["62 0#1 person"]);
        check("schedule=daily_11:00-12:01 dwell=2", "0-50\n58.6-90 person .5,.5 .9", &[]);
        check("schedule=tue_11:00-13:00 dwell=2", "0-90 person .5,.5 .9", &[]);
    }

    #[test]
    fn the_mean_score_of_the_stay_is_held_against_min_score_or_the_threshold_of_the_class() {
        check("dwell=2", "0-1 person .5,.5 .9\n1-9 person .5,.5 .3", &["2 0#1 person"]);
        check("dwell=2", "0-0.2 person .5,.5 .9\n0.2-9 person .5,.5 .3", &[]);
        check("dwell=2 min=0.7", "0-9 person .5,.5 .75", &["2 0#1 person"]);
        check("dwell=2 min=0.7", "0-9 person .5,.5 .65", &[]);
        check("dwell=2 min=0.7", "0-0.2 person .5,.5 .99\n0.2-9 person .5,.5 .6", &[]);
        check("dwell=2 min=0.7", "0-2 person .5,.5 .6\n2-9 person .5,.5 .87", &["3 0#1 person"]);
    }

    #[test]
    fn a_class_is_what_most_of_the_frames_say() {
        check("dwell=2 classes=truck", "0-0.4 car .5,.5 .9\n0.4-9 truck .5,.5 .9", &["2.6 0#1 truck"]);
        check("dwell=2 classes=car", "0-5 truck .5,.5 .9 | car .5,.5 .6", &[]);
        check(
            "dwell=2 classes=person+dog",
            "0-5 person .42,.5 .9 | dog .58,.5 .9",
            &["2 0#1 person", "2 0#2 dog"],
        );
        check("dwell=2 classes=person", "0-5 person .5,.5 .9 | bicycle .5,.5 .8", &["2 0#1 person"]);
    }

    #[test]
    fn what_is_too_low_does_not_count() {
        check("dwell=2 height=.15", "0-9 person .5,.5 .9", &["2 0#1 person"]);
        check("dwell=2 height=.17", "0-9 person .5,.5 .9", &[]);
    }

    #[test]
    fn who_crosses_a_line_the_forbidden_way_alarms_once_clear_of_it() {
        // Upwards, so that its right is the picture's. Three frames for a box width; clear is 0.15 of it.
        let line = "line=.5,.7>.5,.3";
        check(line, "0-10 person .3>.7,.5 .9", &["5.4 0#1 person"]);
        check(&format!("{line} way=right"), "0-10 person .3>.7,.5 .9", &["5.4 0#1 person"]);
        check(&format!("{line} way=left"), "0-10 person .3>.7,.5 .9", &[]);
        check(&format!("{line} way=left"), "0-10 person .7>.3,.5 .9", &["5.4 0#1 person"]);
        check("line=.5,.3>.5,.7 way=right", "0-10 person .7>.3,.5 .9", &["5.4 0#1 person"]);
        check(&format!("{line} classes=dog"), "0-10 person .3>.7,.5 .9", &[]);
        check(&format!("{line} min=.95"), "0-10 person .3>.7,.5 .9", &[]);
    }

    #[test]
    fn who_touches_a_line_or_stands_astride_has_not_crossed_it() {
        let line = "line=.5,.7>.5,.3";
        check(line, "0-5 person .3>.5,.5 .9\n5-10 person .5>.3,.5 .9", &[]);
        check(line, "0-5 person .3>.505,.5 .9\n5-10 person .505>.3,.5 .9", &[]);
        check(line, "0-5 person .3>.5,.5 .9\n5-60 person .5,.5 .9", &[]);
        // Over and back again, and over for good.
        check(
            line,
            "0-5 person .3>.505,.5 .9\n5-6 person .505>.4,.5 .9\n6-9 person .4>.6,.5 .9",
            &["7.8 0#1 person"],
        );
    }

    #[test]
    fn who_passes_the_end_of_a_line_has_not_crossed_it() {
        check("line=.5,.7>.5,.55", "0-10 person .3>.7,.5 .9", &[]);
        check("line=.5,.45>.5,.3", "0-10 person .3>.7,.5 .9", &[]);
    }

    #[test]
    fn who_is_hidden_while_crossing_has_crossed_and_who_crosses_while_the_rule_sleeps_has_not() {
        let line = "line=.5,.7>.5,.3";
        check(line, "0-4.6 person .3>.484,.5 .9\n4.6-5.8\n5.8-9 person .532>.66,.5 .9", &["5.8 0#1 person"]);
        check(
            &format!("{line} schedule=daily_12:01-13:00"),
            "56-66 person .3>.7,.5 .9",
            &["61.4 0#1 person"],
        );
        check(&format!("{line} schedule=daily_12:01-13:00"), "54-64 person .3>.7,.5 .9", &[]);
    }

    #[test]
    fn who_does_not_count_for_a_moment_while_crossing_has_crossed() {
        let line = "line=.5,.7>.5,.3 height=.15";
        let low = |until: f32| {
            let low = format!("5.2-{until} person .508>.516,.5 .9 .1");
            format!("0-5.2 person .3>.508,.5 .9\n{low}\n{until}-10 person .516>.7,.5 .9")
        };
        check(line, &low(5.4), &["5.4 0#1 person"]);
        check(line, &low(6.0), &["6 0#1 person"]);
        check(line, &low(6.4), &[]);
        // What most of its frames say it is may change back and forth, too.
        check(
            "line=.5,.7>.5,.3 classes=car",
            "0-.4 car .48>.496,.5 .9\n.4-.8 truck .496>.512,.5 .9\n.8-5 car .512>.7,.5 .9",
            &["0.8 0#1 car"],
        );
    }

    #[test]
    fn a_vehicle_that_stands_for_the_time_alarms_once() {
        check("time=10", "0-90 car .5,.5 .9", &["10 0#1 car"]);
        check("time=10", "0-90 car .5,.7 .9", &[]);
        check("time=10", "0-9.8 car .5,.5 .9\n9.8-12 car .5>.9,.5 .9", &[]);
        // Its time begins where it comes to rest; who drives through slowly does not stop.
        check("time=10", "0-5 car .1>.5,.5 .9\n5-30 car .5,.5 .9", &["14.8 0#1 car"]);
        check("time=10", "0-40 car .3>.9,.5 .9", &[]);
        check("time=10", "0-90 person .5,.5 .9", &[]);
        check("time=10", "0-90 car .5,.5 .9 | car .45,.58 .8", &["10 0#1 car", "10 0#2 car"]);
        check("time=10 min=.95", "0-90 car .5,.5 .9", &[]);
        check("time=10 schedule=daily_12:01-13:00", "0-90 car .5,.5 .9", &["70 0#1 car"]);
    }

    #[test]
    fn a_stopped_vehicle_that_is_hidden_or_not_found_for_a_while_is_the_same() {
        // For less than the tracker bridges, for longer, and after it has alarmed for minutes.
        check("time=30", "0-10 car .5,.5 .9\n10-11.6\n11.6-60 car .5,.5 .9", &["30 0#1 car"]);
        check("time=30", "0-10 car .5,.5 .9\n10-30\n30-60 car .5,.5 .9", &["30.2 0#2 car"]);
        check("time=30", "0-10 car .5,.5 .9\n10-45\n45-90 car .5,.5 .9", &["75 0#2 car"]);
        check(
            "time=10",
            "0-20 car .5,.5 .9\n20-300\n300-500 car .5,.5 .9\n500-900\n900-990 car .51,.5 .9",
            &["10 0#1 car"],
        );
        check("time=10", "0-20 car .5,.5 .9\n20-640\n640-700 car .5,.5 .9", &["10 0#1 car", "650 0#2 car"]);
        // One bad box is no move.
        check("time=30", "0-10 car .5,.5 .9\n10-10.4 car .53,.5 .9\n10.4-60 car .5,.5 .9", &["30 0#1 car"]);
    }

    #[test]
    fn a_vehicle_that_moves_on_alarms_anew_where_it_stops_and_makes_room_for_another() {
        check(
            "time=10",
            "0-20 car .5,.5 .9\n20-23 car .5>.56,.5 .9\n23-60 car .56,.5 .9",
            &["10 0#1 car", "33 0#1 car"],
        );
        check(
            "time=10",
            "0-20 car .5,.5 .9\n20-25 car .5>.9,.5 .9\n25-30\n30-35 car .1>.5,.5 .9\n35-60 car .5,.5 .9",
            &["10 0#1 car", "44.8 0#2 car"],
        );
    }

    #[test]
    fn a_scarecrow_that_is_lost_now_and_then_alarms_once_and_who_comes_after_it_alarms() {
        let flickers =
            "0-60 person .5,.5 .9\n60-70\n70-130 person .5,.5 .9\n130-300\n300-400 person .5,.5 .9";
        check("dwell=2", flickers, &["2 0#1 person"]);
        // Two who stand at one door for a moment, one after the other, are two.
        check(
            "dwell=2",
            "0-10 person .5,.5 .9\n10-20\n20-30 person .5,.5 .9",
            &["2 0#1 person", "22 0#2 person"],
        );
    }

    #[test]
    fn whoever_has_alarmed_and_is_found_again_does_not_alarm_anew_where_he_goes() {
        let (stands, goes) = ("0-60 person .45,.5 .9", "90-93 person .45>.55,.5 .9");
        let lost_twice = "93-130 person .55,.5 .9\n130-140\n140-170 person .55,.5 .9";
        let lost_first = format!("{stands}\n60-70\n70-90 person .45,.5 .9\n{goes}\n{lost_twice}");
        check("dwell=2", &lost_first, &["2 0#1 person"]);
        check(
            "dwell=2",
            &format!("{stands}\n60-90 person .45,.5 .9\n{goes}\n{lost_twice}"),
            &["2 0#1 person"],
        );
    }

    #[test]
    fn a_camera_stays_awake_while_a_vehicle_is_waited_for_and_sleeps_when_it_has_alarmed() {
        let mut scene = Scene::new(SceneOptions {
            thresholds: Thresholds::default(),
            rules: vec![rule("time=10")],
            time_zone: TimeZone::UTC,
        });
        let car = detection("car .5,.5 .9", 0.0);
        let mut undecided = Vec::new();
        for second in 0..14 {
            let now = Moment::new(Duration::from_secs(second), jiff::Timestamp::UNIX_EPOCH);
            scene.observe(now, car.as_slice());
            undecided.push(scene.is_undecided(now));
        }
        assert_eq!(undecided, [vec![true; 10], vec![false; 4]].concat());
        // Hours later a random look at the sleeping camera finds nothing new.
        let now = Moment::new(Duration::from_secs(20_000), jiff::Timestamp::UNIX_EPOCH);
        assert!(!scene.would_learn(now, car.as_slice()));
    }

    #[test]
    fn fire_is_what_is_seen_in_enough_frames_at_one_place() {
        check("fire=5/10", "0-9 fire .5,.5 .9", &["0.8 0#1 fire"]);
        check("fire=5/10", "0-9 smoke .5>.55,.5 .9", &["0.8 0#1 smoke"]);
        check("fire=5/10", "0-.8 fire .5,.5 .9", &[]);
        check("fire=5/10", "0-.4 fire .5,.5 .9\n.4-1.2\n1.2-2 fire .5,.5 .9", &["1.6 0#1 fire"]);
        check("fire=5/6", "0-.4 fire .5,.5 .9\n.4-1.2\n1.2-1.8 fire .5,.5 .9", &[]);
        check("fire=5/10", "0-9 person .5,.5 .9", &[]);
        // The lights of a car go on, and a fire that is seen badly is one all the same.
        check("fire=5/10", "0-3 fire .1>.9,.5 .9", &[]);
        check("fire=5/10", "0-1 fire .5,.5 .9\n1-5 fire .5,.5 .3", &["0.8 0#1 fire"]);
        check("fire=5/10 min=.6", "0-5 fire .5,.5 .55", &[]);
    }

    #[test]
    fn a_flame_that_flickers_over_the_edge_of_its_zone_burns_there() {
        let flickers = |out: u32| {
            let frame = |frame: u32| {
                let y = if frame.is_multiple_of(out + 1) { ".59" } else { ".61" };
                format!("{}-{} fire .5,{y} .9", f64::from(frame) / 5.0, f64::from(frame + 1) / 5.0)
            };
            (0..40).map(frame).collect::<Vec<_>>().join("\n")
        };
        check("zoned fire=5/10", &flickers(1), &["1.6 0#1 fire"]);
        check("zoned fire=3/20", &flickers(4), &["2 0#1 fire"]);
        check("zoned fire=3/20", &flickers(6), &[]);
    }

    /// Shows a small fire in 40 frames, whose box is so many parts of itself off at random.
    fn burns(spread: f32, size: f32) -> bool {
        let mut scene = Scene::new(SceneOptions {
            thresholds: Thresholds::default(),
            rules: vec![rule("fire=5/10")],
            time_zone: TimeZone::UTC,
        });
        (0..40_usize).any(|frame| {
            let off =
                |side: usize| spread * size * (f32::from(crate::testing::noise(frame, side)) / 128.0 - 1.0);
            let bounds =
                Rect { left: 0.5 + off(0), top: 0.3 + off(1), width: size + off(2), height: size + off(3) };
            let monotonic = Duration::from_millis(200 * frame as u64);
            let now = Moment::new(monotonic, jiff::Timestamp::UNIX_EPOCH);
            let fire = Detection { class: ObjectClass::Fire, score: 0.8, bounds };
            !scene.observe(now, &[fire]).is_empty()
        })
    }

    #[test]
    fn what_is_small_and_never_changes_does_not_burn() {
        assert!(!burns(0.02, 0.04), "a lamp, a traffic cone");
        assert!(burns(0.2, 0.04), "a small flame");
        assert!(burns(0.02, 0.3), "a large fire");
    }

    #[test]
    fn the_head_of_somebody_close_by_is_not_another_person() {
        let scene = Scene::new(SceneOptions {
            thresholds: Thresholds::default(),
            rules: Vec::new(),
            time_zone: TimeZone::UTC,
        });
        let person = |left, top, width, height, score| Detection {
            class: ObjectClass::Person,
            score,
            bounds: Rect { left, top, width, height },
        };
        let (close, head) = (person(0.3, 0.0, 0.4, 1.0, 0.6), person(0.53, 0.0, 0.09, 0.15, 0.7));
        let (beside, faint) = (person(0.65, 0.3, 0.09, 0.15, 0.7), person(0.3, 0.0, 0.4, 1.0, 0.1));
        let tracks = |seen: &[Detection]| {
            let frame = |at: u64| Moment::new(Duration::from_millis(200 * at), jiff::Timestamp::UNIX_EPOCH);
            let mut scene = scene.clone();
            (0..5).for_each(|at| drop(scene.observe(frame(at), seen)));
            scene.tracks().len()
        };
        assert_eq!(tracks(&[head, close]), 1, "one person");
        assert_eq!(tracks(&[beside, close]), 2, "somebody behind him, half hidden");
        assert_eq!(tracks(&[head, faint]), 1, "the large one hardly is one: who is there is the small one");
    }

    #[test]
    fn an_incident_is_over_when_nobody_has_broken_its_rule_for_a_while_or_the_vehicle_has_moved() {
        let over = |rules: &str, frames: &[(u64, u64, &str)]| {
            let mut scene = Scene::new(SceneOptions {
                thresholds: Thresholds::default(),
                rules: rules.lines().map(rule).collect(),
                time_zone: TimeZone::UTC,
            });
            let mut told = Vec::new();
            for tick in 0..2000_u64 {
                let monotonic = Duration::from_millis(200 * tick);
                let now = Moment::new(monotonic, jiff::Timestamp::UNIX_EPOCH);
                let shown = frames.iter().find(|(from, to, _)| (from * 5..to * 5).contains(&tick));
                if let Some((_, _, object)) = shown {
                    let seen = detection(object, 0.0);
                    let new = scene.observe(now, seen.as_slice());
                    told.extend(
                        new.iter().map(|incident| format!("{} begins {}", tick / 5, incident.number)),
                    );
                }
                told.extend(scene.over(now).iter().map(|number| format!("{} over {number}", tick / 5)));
            }
            told
        };
        let inside = "person .5,.5 .9";
        assert_eq!(over("dwell=1", &[(0, 20, inside), (20, 60, "")]), ["1 begins 1", "32 over 1"]);
        // A camera that falls asleep as soon as everybody has left has no more frames; one with somebody in it waits.
        assert_eq!(over("dwell=1", &[(0, 20, inside), (20, 24, "")]), ["1 begins 1", "32 over 1"]);
        assert_eq!(over("dwell=1", &[(0, 20, inside)]), ["1 begins 1"]);
        // Out of the zone, but in sight; and lost for a moment only.
        assert_eq!(
            over("dwell=1", &[(0, 20, inside), (20, 60, "person .5,.7 .9")]),
            ["1 begins 1", "32 over 1"]
        );
        assert_eq!(
            over("dwell=1", &[(0, 40, inside), (40, 46, ""), (46, 80, inside), (80, 99, "")]),
            ["1 begins 1", "92 over 1"]
        );
        let parked = "car .5,.5 .9";
        assert_eq!(over("time=10", &[(0, 20, parked), (20, 99, "")]), ["10 begins 1"]);
        assert_eq!(
            over("time=10", &[(0, 20, parked), (20, 30, "car .55,.5 .9")]),
            ["10 begins 1", "22 over 1"]
        );
    }

    #[test]
    fn tracks_keep_apart_while_people_pass_each_other() {
        check("dwell=3", "0-8 person .5,.5 .9 | person .1>.9,.55 .8", &["3 0#1 person"]);
        // Two walk in opposite directions through the zone: neither stays.
        check("dwell=4", "0-6 person .2>.8,.5 .9 | person .8>.2,.42 .8", &[]);
    }

    #[test]
    fn the_number_of_tracks_is_bounded_and_the_rest_counted() {
        let mut scene = Scene::new(SceneOptions {
            thresholds: Thresholds::default(),
            rules: vec![],
            time_zone: TimeZone::UTC,
        });
        let at = |index: usize| Rect { left: index as f32, top: 0.0, width: 0.1, height: 0.1 };
        let crowd: Vec<_> = (0..crate::track::TRACKS_MAX + 3)
            .map(|index| Detection { class: ObjectClass::Sheep, score: 0.9, bounds: at(index * 10) })
            .collect();
        let now = |seconds| Moment::new(Duration::from_secs(seconds), jiff::Timestamp::UNIX_EPOCH);
        scene.observe(now(0), &crowd);
        assert_eq!((scene.tracks().len(), scene.overflow()), (crate::track::TRACKS_MAX, 3));
        scene.observe(now(3), &[]);
        assert_eq!(scene.tracks().len(), 0);
    }
}
