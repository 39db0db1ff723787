//! What is drawn on a redacted frame: zones and lines, tracks with their scores, and below it gate and rules.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::geometry::Rect;
use sharp_eyes_vision::rules::Direction;
use sharp_eyes_vision::track::Track;
use sharp_eyes_vision::{Incident, Moment, Point, Polygon, Redacted, Rule, RuleKind, RuleState};

use super::canvas::{At, Canvas, Ink, Letters};
use super::report::clock;
use crate::config::View;

/// The long side of the frame in the film: letters are as readable on a small camera's as on a large one's.
const LONG_SIDE: f32 = 1280.0;

/// Height of the strip's first row and of each row of rules, and width of a rule, in pixels.
const HEAD: f32 = 36.0;
const ROW: f32 = 30.0;
const RULE: f32 = 318.0;
const MARGIN: f32 = 12.0;

/// How long an alarm is shown, and a foot's way.
const ALARM_STAYS: Duration = Duration::from_secs(4);
const TRAIL: Duration = Duration::from_secs(3);

const GROUND: Ink = Ink(18, 21, 26, 255);
const WHITE: Ink = Ink(236, 239, 241, 255);
const GREY: Ink = Ink(144, 156, 164, 255);
const TEAL: Ink = Ink(77, 208, 225, 255);
const GREEN: Ink = Ink(129, 212, 150, 255);
const AMBER: Ink = Ink(255, 193, 79, 255);
const RED: Ink = Ink(255, 94, 87, 255);
const SHADE: Ink = Ink(10, 12, 16, 170);

/// How large a picture is: the frame, and the strip below it. All are even, as encoders want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) strip: u32,
}

/// What a rule, a place or a track is about, the more urgent the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mood {
    Off,
    Ready,
    Waiting,
    Alarmed,
}

impl Mood {
    fn ink(self) -> Ink {
        match self {
            Self::Off => GREY,
            Self::Ready => TEAL,
            Self::Waiting => AMBER,
            Self::Alarmed => RED,
        }
    }
}

/// Draws the pictures of one camera.
pub(super) struct Painter {
    rules: Vec<Rule>,
    masks: Vec<Polygon>,
    states: Vec<RuleState>,
    /// When each rule alarmed last, and about what.
    alarms: HashMap<usize, (Duration, String)>,
    trails: HashMap<u64, VecDeque<(Duration, Point)>>,
}

impl Painter {
    pub(super) fn new(view: &View) -> Self {
        Self {
            rules: view.rules.clone(),
            masks: view.masks.clone(),
            states: Vec::new(),
            alarms: HashMap::new(),
            trails: HashMap::new(),
        }
    }

    /// Of the pictures of a camera whose first frame this is.
    pub(super) fn size(&self, redacted: &Redacted) -> Size {
        let (columns, rows, _) = redacted.rgb();
        let scale = LONG_SIDE / columns.max(rows) as f32;
        let even = |side: f32| ((side / 2.0).round() as u32).max(1) * 2;
        let (width, height) = (even(columns as f32 * scale), even(rows as f32 * scale));
        let rows = self.rules.len().div_ceil(columns_of(width as f32));
        Size { width, height, strip: even(HEAD + ROW * rows as f32) }
    }

    /// Takes what the frame of this moment changed.
    pub(super) fn learn(
        &mut self,
        now: Moment,
        tracks: &[Track],
        states: Vec<RuleState>,
        broken: &[Incident],
    ) {
        self.states = states;
        for incident in broken {
            let text = format!("{} {:.2}", incident.class, incident.confidence);
            self.alarms.insert(incident.rule, (now.monotonic, text));
        }
        self.trails.retain(|id, _| tracks.iter().any(|track| track.id() == *id));
        for track in tracks.iter().filter(|track| track.seen() == now.monotonic) {
            let trail = self.trails.entry(track.id()).or_default();
            trail.push_back((now.monotonic, track.bounds().foot()));
            while trail.front().is_some_and(|(at, _)| now.monotonic.saturating_sub(*at) > TRAIL) {
                trail.pop_front();
            }
        }
    }

    /// A frame that the detector saw. `None` of one without any pixels.
    pub(super) fn awake(
        &self,
        redacted: &Redacted,
        size: Size,
        now: Moment,
        tracks: &[Track],
    ) -> Option<Canvas> {
        let mut canvas = Canvas::of(redacted, size.width, size.height, size.strip, GROUND)?;
        let mut sheet = Sheet { canvas: &mut canvas, size, labels: Vec::new() };
        self.places(&mut sheet, now.monotonic);
        for track in tracks {
            self.trail(&mut sheet, track, now.monotonic);
        }
        for track in tracks {
            self.track(&mut sheet, track, now.monotonic);
        }
        self.strip(&mut sheet, now.monotonic, None);
        Some(canvas)
    }

    /// The last frame of a camera that has fallen asleep.
    pub(super) fn asleep(&self, redacted: &Redacted, size: Size, now: Duration) -> Option<Canvas> {
        let mut canvas = Canvas::of(redacted, size.width, size.height, size.strip, GROUND)?;
        canvas.bar((0.0, 0.0), size.width as f32, size.height as f32, Ink(10, 14, 24, 150));
        let mut sheet = Sheet { canvas: &mut canvas, size, labels: Vec::new() };
        self.places(&mut sheet, now);
        self.strip(&mut sheet, now, Some("asleep: nothing is decoded"));
        Some(canvas)
    }

    fn mood(&self, rule: usize, now: Duration) -> Mood {
        let Some(state) = self.states.get(rule) else { return Mood::Ready };
        let alarmed = self.alarms.get(&rule).is_some_and(|(at, _)| now.saturating_sub(*at) < ALARM_STAYS);
        match state {
            _ if alarmed => Mood::Alarmed,
            state if !state.awake => Mood::Off,
            state if !state.waiting.is_empty() => Mood::Waiting,
            _ => Mood::Ready,
        }
    }

    fn places(&self, sheet: &mut Sheet<'_>, now: Duration) {
        for mask in &self.masks {
            let points: Vec<At> = mask.edges().map(|(from, _)| sheet.at(from)).collect();
            sheet.canvas.line(&points, true, 1.0, GREY.faint(120), None);
        }
        let mut drawn: Vec<&str> = Vec::new();
        for rule in &self.rules {
            let Some(name) = rule.zone.as_ref().map(Name::as_str) else { continue }; // it is about the whole picture
            if drawn.contains(&name) {
                continue;
            }
            drawn.push(name);
            let here = self.rules.iter().enumerate().filter(|(_, other)| other.zone == rule.zone);
            let mood = here.map(|(index, _)| self.mood(index, now)).max().unwrap_or(Mood::Ready);
            if let Some(polygon) = polygon_of(&rule.kind) {
                let points: Vec<At> = polygon.edges().map(|(from, _)| sheet.at(from)).collect();
                let fill = if mood >= Mood::Waiting { 34 } else { 16 };
                sheet.canvas.area(&points, mood.ink().faint(fill));
                sheet.canvas.line(&points, true, 1.5, mood.ink().faint(210), None);
                let slant = |point: &At| point.1 + point.0 / 4.0;
                let corner = points.iter().copied().min_by(|a, b| slant(a).total_cmp(&slant(b)));
                if let Some((x, y)) = corner {
                    sheet.label((x + 6.0, y + 6.0), name, mood.ink());
                }
            }
            if let RuleKind::Crossing { line, .. } = &rule.kind {
                let [from, to] = line.ends().map(|end| sheet.at(end));
                sheet.canvas.line(&[from, to], false, 2.0, mood.ink(), None);
                for other in self.rules.iter().filter(|other| other.zone == rule.zone) {
                    if let RuleKind::Crossing { direction, .. } = &other.kind {
                        sheet.arrows(from, to, *direction, mood.ink());
                    }
                }
                sheet.label((from.0 + 8.0, from.1 + 8.0), name, mood.ink());
            }
        }
    }

    fn track_ink(&self, track: &Track) -> Ink {
        let is = |ids: &dyn Fn(&RuleState) -> bool| self.states.iter().any(ids);
        match track.id() {
            id if is(&|state| state.alerted.contains(&id)) => RED,
            id if is(&|state| state.waiting.iter().any(|(waiting, _)| *waiting == id)) => AMBER,
            _ if track.is_confirmed() => GREEN,
            _ => GREY,
        }
    }

    fn trail(&self, sheet: &mut Sheet<'_>, track: &Track, now: Duration) {
        let Some(trail) = self.trails.get(&track.id()) else { return };
        let ink = self.track_ink(track);
        for (from, to) in trail.iter().zip(trail.iter().skip(1)) {
            let age = now.saturating_sub(to.0).as_secs_f32() / TRAIL.as_secs_f32();
            let ink = ink.faint((150.0 * (1.0 - age)).clamp(0.0, 255.0) as u8);
            let step = [sheet.at(from.1), sheet.at(to.1)];
            sheet.canvas.line(&step, false, 1.5, ink, None);
        }
    }

    /// Its box, dashed where this frame does not show it, and its foot point, which is what rules judge.
    fn track(&self, sheet: &mut Sheet<'_>, track: &Track, now: Duration) {
        let seen = track.seen() == now;
        let ink = self.track_ink(track).faint(if seen { 255 } else { 130 });
        let Rect { left, top, width, height } = track.bounds().clamped();
        let corner = |x: f32, y: f32| sheet.at(Point { x, y });
        let corners = [
            corner(left, top),
            corner(left + width, top),
            corner(left + width, top + height),
            corner(left, top + height),
        ];
        sheet.canvas.line(&corners, true, 1.5, ink, (!seen).then_some(5.0));
        if seen {
            let foot = sheet.at(track.bounds().foot());
            sheet.canvas.dot(foot, 3.0, ink);
            let text = format!("{} {:.2} #{}", track.class(), track.score(), track.id());
            let above = (corners[0].0, corners[0].1 - Letters::Small.height() - 4.0);
            let below = (corners[3].0, corners[3].1 + 4.0);
            sheet.label_at(&[above, below], &text, ink);
        }
    }

    fn strip(&self, sheet: &mut Sheet<'_>, now: Duration, gate: Option<&str>) {
        let top = sheet.size.height as f32;
        let line = top + (HEAD - Letters::Large.height()) / 2.0;
        sheet.canvas.text((MARGIN, line), &clock(now), Letters::Large, WHITE);
        let right = MARGIN + Letters::Large.width("00:00.0") + 2.0 * MARGIN;
        let (ink, text) = gate.map_or((GREEN, "awake"), |asleep| (GREY, asleep));
        sheet.canvas.dot((right, top + HEAD / 2.0), 5.0, ink);
        sheet.canvas.text((right + MARGIN, line), text, Letters::Large, ink);

        let columns = columns_of(sheet.canvas.width());
        for (index, rule) in self.rules.iter().enumerate() {
            let left = MARGIN + (index % columns) as f32 * RULE;
            let top = top + HEAD + (index / columns) as f32 * ROW;
            let mood = self.mood(index, now);
            let text_top = top + (ROW - Letters::Small.height()) / 2.0 - 2.0;
            sheet.canvas.dot((left + 5.0, text_top + Letters::Small.height() / 2.0), 4.0, mood.ink());
            let name = rule.name.as_str();
            sheet.canvas.text((left + 16.0, text_top), name, Letters::Small, WHITE);
            let after = left + 16.0 + Letters::Small.width(name) + MARGIN;
            let (text, done) = self.says(index, rule, mood, now);
            sheet.canvas.text((after, text_top), &text, Letters::Small, mood.ink());
            if let Some(done) = done {
                let (width, y) = (RULE - 2.0 * MARGIN, top + ROW - 6.0);
                sheet.canvas.bar((left, y), width, 2.0, GREY.faint(90));
                sheet.canvas.bar((left, y), width * done, 2.0, mood.ink());
            }
        }
    }

    /// What a rule is doing, and how far the one who breaks it next has got.
    fn says(&self, index: usize, rule: &Rule, mood: Mood, now: Duration) -> (String, Option<f32>) {
        let Some(state) = self.states.get(index) else { return (String::new(), None) };
        let done = state.waiting.iter().map(|(_, done)| *done).max_by(f32::total_cmp);
        match (mood, &rule.kind) {
            (Mood::Alarmed, _) => {
                let about = self.alarms.get(&index).map(|(_, about)| about.clone());
                (format!("ALARM {}", about.unwrap_or_default()), None)
            }
            (Mood::Off, _) => ("schedule off".to_owned(), None),
            (
                Mood::Waiting,
                RuleKind::Intrusion { dwell: time, .. } | RuleKind::StoppedVehicle { time, .. },
            ) => {
                let (done, time) = (done.unwrap_or(0.0), time.as_secs_f32());
                let quiet = if state.quiet > Duration::ZERO { " quiet" } else { "" };
                (format!("{:.1} of {time} s{quiet}", done * time), Some(done))
            }
            (Mood::Waiting, RuleKind::Hazard { seen, .. }) => {
                let done = done.unwrap_or(0.0);
                (format!("seen in {:.0} of {seen} frames", done * *seen as f32), Some(done))
            }
            _ if !state.quiet.is_zero() && self.alarms.contains_key(&index) => {
                // Counted on while the camera sleeps, too.
                let (at, _) = &self.alarms[&index];
                let left = (*at + rule.cooldown).saturating_sub(now);
                (format!("quiet {:.0} s", left.as_secs_f32().ceil()), None)
            }
            _ => ("ready".to_owned(), None),
        }
    }
}

/// Where a rule looks, if that is an area.
fn polygon_of(kind: &RuleKind) -> Option<&Polygon> {
    match kind {
        RuleKind::Intrusion { polygon, .. } | RuleKind::StoppedVehicle { polygon, .. } => Some(polygon),
        RuleKind::Hazard { polygon, .. } => polygon.as_ref(),
        RuleKind::Crossing { .. } => None,
    }
}

/// Rules side by side in a strip of this width.
fn columns_of(width: f32) -> usize {
    ((width - MARGIN) / RULE).floor().max(1.0) as usize
}

/// A canvas, and where on it labels are.
struct Sheet<'a> {
    canvas: &'a mut Canvas,
    size: Size,
    /// Left, top, right, bottom.
    labels: Vec<[f32; 4]>,
}

impl Sheet<'_> {
    fn at(&self, point: Point) -> At {
        (point.x * self.size.width as f32, point.y * self.size.height as f32)
    }

    fn label(&mut self, at: At, text: &str, ink: Ink) {
        self.label_at(&[at], text, ink);
    }

    /// Writes on a dark ground at the first of these places that no other label covers, or else at the first.
    fn label_at(&mut self, places: &[At], text: &str, ink: Ink) {
        const PAD: f32 = 3.0;
        let (width, height) = (Letters::Small.width(text) + 2.0 * PAD, Letters::Small.height() + 2.0);
        let boxes = places.iter().map(|&(x, y)| {
            let left = x.clamp(0.0, (self.size.width as f32 - width).max(0.0)).round();
            let top = y.clamp(0.0, (self.size.height as f32 - height).max(0.0)).round();
            [left, top, left + width, top + height]
        });
        let boxes: Vec<_> = boxes.collect();
        let free = |new: &&[f32; 4]| {
            let apart =
                |old: &[f32; 4]| new[0] > old[2] || new[2] < old[0] || new[1] > old[3] || new[3] < old[1];
            self.labels.iter().all(apart)
        };
        let Some(&place) = boxes.iter().find(free).or(boxes.first()) else { return };
        self.labels.push(place);
        self.canvas.bar((place[0], place[1]), width, height, SHADE);
        self.canvas.text((place[0] + PAD, place[1] + 1.0), text, Letters::Small, ink);
    }

    /// From the middle of a line to the side that must not be crossed to.
    fn arrows(&mut self, from: At, to: At, direction: Direction, ink: Ink) {
        const LENGTH: f32 = 22.0;
        const HEAD: f32 = 6.0;
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy).max(1.0);
        // To the right of somebody who walks from the first point to the second, with y downwards.
        let right = (-dy / length, dx / length);
        let middle = ((from.0 + to.0) / 2.0, (from.1 + to.1) / 2.0);
        let sides: &[f32] = match direction {
            Direction::ToRight => &[1.0],
            Direction::ToLeft => &[-1.0],
            Direction::Both => &[1.0, -1.0],
        };
        for side in sides {
            let way = (right.0 * side, right.1 * side);
            let tip = (middle.0 + way.0 * LENGTH, middle.1 + way.1 * LENGTH);
            self.canvas.line(&[middle, tip], false, 2.0, ink, None);
            let back = (tip.0 - way.0 * HEAD, tip.1 - way.1 * HEAD);
            let barb = |turn: f32| (back.0 - way.1 * HEAD * turn, back.1 + way.0 * HEAD * turn);
            self.canvas.area(&[tip, barb(0.7), barb(-0.7)], ink);
        }
    }
}
