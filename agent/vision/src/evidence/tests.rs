use std::time::Duration;

use image::RgbImage;
use sharp_eyes_protocol::alert::AlertKind;
use sharp_eyes_protocol::class::ObjectClass;
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::topic::Name;

use super::*;
use crate::Moment;
use crate::detection::Detection;
use crate::frame::PixelFormat;
use crate::geometry::{Point, Polygon, Rect};
use crate::rules::Incident;
use crate::testing::{TestFrame, noise};

fn incident(class: ObjectClass, [left, top, width, height]: [f32; 4]) -> Incident {
    Incident {
        rule: 0,
        kind: AlertKind::Intrusion,
        severity: Severity::Major,
        number: 1,
        zone: Name::new("yard").ok(),
        class,
        confidence: 0.87,
        bounds: Rect { left, top, width, height },
        track: 1,
        at: Moment::new(Duration::ZERO, jiff::Timestamp::UNIX_EPOCH),
        evidence: true,
    }
}

fn seen(class: ObjectClass, score: f32, [left, top, width, height]: [f32; 4]) -> Detection {
    Detection { class, score, bounds: Rect { left, top, width, height } }
}

fn far_away() -> Incident {
    incident(ObjectClass::Car, [0.9, 0.9, 0.08, 0.08])
}

/// A picture, and which part of the frame it shows.
struct Shown {
    picture: RgbImage,
    part: Rect,
}

impl Shown {
    fn picture(redacted: &Redacted, max_bytes: usize) -> Self {
        Self::new(&redacted.picture(max_bytes).unwrap(), redacted.whole(), redacted)
    }

    fn thumbnail(redacted: &Redacted) -> Self {
        Self::new(&redacted.thumbnail().unwrap(), redacted.surroundings(), redacted)
    }

    fn new(jpeg: &[u8], part: Region, redacted: &Redacted) -> Self {
        let (columns, rows) = (redacted.whole().width() as f32, redacted.whole().height() as f32);
        let part = Rect {
            left: part.left as f32 / columns,
            top: part.top as f32 / rows,
            width: part.width() as f32 / columns,
            height: part.height() as f32 / rows,
        };
        Self { picture: image::load_from_memory(jpeg).unwrap().to_rgb8(), part }
    }

    /// The pixel that shows a point of the frame.
    fn at(&self, x: f32, y: f32) -> (u32, u32) {
        let (width, height) = self.picture.dimensions();
        let (x, y) = ((x - self.part.left) / self.part.width, (y - self.part.top) / self.part.height);
        ((x * width as f32) as u32, (y * height as f32) as u32)
    }

    fn pixel(&self, x: f32, y: f32) -> [u8; 3] {
        let (x, y) = self.at(x, y);
        self.picture.get_pixel(x, y).0
    }

    fn black(&self, x: f32, y: f32) -> bool {
        self.pixel(x, y).iter().all(|&channel| channel < 24)
    }

    fn amber(&self) -> usize {
        self.picture.pixels().filter(|pixel| is_amber(pixel.0)).count()
    }

    /// Mean difference between neighbours in a part of the frame: how much fine detail there is.
    fn detail(&self, [left, top, width, height]: [f32; 4]) -> f32 {
        let ((left, top), (right, bottom)) = (self.at(left, top), self.at(left + width, top + height));
        let (mut sum, mut count) = (0.0, 0.0);
        for y in top..bottom {
            for x in left..right - 1 {
                let (a, b) = (self.picture.get_pixel(x, y).0[1], self.picture.get_pixel(x + 1, y).0[1]);
                sum += f32::from(a.abs_diff(b));
                count += 1.0;
            }
        }
        sum / count
    }
}

fn is_amber([r, g, b]: [u8; 3]) -> bool {
    r > 170 && g > 120 && b < 120
}

#[test]
fn no_head_keeps_its_detail_however_faint_the_person() {
    use ObjectClass::{Bicycle, Car, Dog, Motorcycle, Person};
    // class, score, box, the part that must be gone
    let rows = [
        (Person, 0.9, [0.05, 0.3, 0.05, 0.3], Some([0.05, 0.3, 0.05, 0.08])),
        (Person, 0.04, [0.2, 0.3, 0.05, 0.3], Some([0.2, 0.3, 0.05, 0.08])),
        (Person, 0.5, [0.3, 0.3, 0.15, 0.2], Some([0.3, 0.3, 0.15, 0.19])), // a bust: nearly all of it
        (Person, 0.5, [0.5, 0.4, 0.2, 0.1], Some([0.5, 0.4, 0.2, 0.1])),    // lying
        (Person, 0.5, [0.8, -0.05, 0.05, 0.3], Some([0.8, 0.0, 0.05, 0.04])), // cut off by the edge
        (Motorcycle, 0.5, [0.05, 0.7, 0.1, 0.25], Some([0.05, 0.7, 0.1, 0.07])),
        (Bicycle, 0.5, [0.2, 0.7, 0.1, 0.25], Some([0.2, 0.7, 0.1, 0.07])),
        (Car, 0.5, [0.4, 0.7, 0.1, 0.25], None),
        (Dog, 0.5, [0.6, 0.7, 0.1, 0.25], None),
    ];
    let detections: Vec<_> =
        rows.iter().map(|&(class, score, bounds, _)| seen(class, score, bounds)).collect();
    for (width, height) in [(640, 480), (1600, 900)] {
        // As fine as survives JPEG and scaling: two pixels of the picture.
        let cell = width as usize / 320;
        let fine = |x: usize, y: usize| [if noise(x / cell, y / cell) > 127 { 235 } else { 16 }, 128, 128];
        let frame = TestFrame::new(width, height, PixelFormat::Nv12, fine);
        for incident in [Some(far_away()), None] {
            let redacted = Redacted::of(&frame.view(), &[], Some(&detections), incident.as_ref(), "x");
            let shown = Shown::picture(&redacted, EVIDENCE_MAX_BYTES);
            let open = shown.detail([0.4, 0.7, 0.1, 0.2]);
            assert!(open > 5.0, "the frame has detail to lose: {open}");
            for (class, _, bounds, gone) in rows {
                let left = shown.detail(gone.unwrap_or(bounds));
                let kept = if gone.is_some() { left < open / 4.0 } else { left > open / 2.0 };
                assert!(kept, "{width}x{height} {class} at {bounds:?}: {left} of {open}");
            }
        }
    }
}

#[test]
fn no_head_is_finer_in_a_thumbnail() {
    let people = [[0.40, 0.40, 0.04, 0.16], [0.46, 0.42, 0.04, 0.16]];
    for (width, height) in [(640u32, 480u32), (1920, 1080)] {
        // Two people as rough as a thumbnail can show, before a wall.
        let cell = width as usize / 320;
        let inside = |x: usize, y: usize| {
            let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
            people
                .iter()
                .any(|&[left, top, w, h]| (left..left + w).contains(&x) && (top..top + h).contains(&y))
        };
        let rough = |x: usize, y: usize| {
            let white = inside(x, y) && noise(x / cell, y / cell) > 127;
            [if white { 235 } else { 60 }, 128, 128]
        };
        let frame = TestFrame::new(width, height, PixelFormat::I420, rough);
        let second = seen(ObjectClass::Person, 0.04, people[1]);
        let first = incident(ObjectClass::Person, people[0]);
        let redacted = Redacted::of(&frame.view(), &[], Some(&[second]), Some(&first), "x");
        let shown = Shown::thumbnail(&redacted);
        for [left, top, w, h] in people {
            // Clear of the box's own lines.
            let head = shown.detail([left + 0.2 * w, top + 0.08 * h, 0.6 * w, 0.2 * h]);
            let legs = shown.detail([left + 0.2 * w, top + 0.5 * h, 0.6 * w, 0.4 * h]);
            assert!(legs > 10.0, "there is detail to lose: {legs}");
            assert!(head < legs / 4.0, "{width}x{height} {left}: {head} of {legs}");
        }
    }
}

#[test]
fn nothing_keeps_its_detail_where_the_model_knows_no_people() {
    for (width, height) in [(1600, 900), (480, 640)] {
        let cell = width as usize / 80;
        let rough = |x: usize, y: usize| [if noise(x / cell, y / cell) > 127 { 235 } else { 16 }, 128, 128];
        let frame = TestFrame::new(width, height, PixelFormat::Nv12, rough);
        let fire = incident(ObjectClass::Fire, [0.45, 0.45, 0.1, 0.1]);
        for incident in [Some(&fire), None] {
            let of = |everybody| Redacted::of(&frame.view(), &[], everybody, incident, "");
            let (open, coarse) = (of(Some(&[])), of(None));
            // Clear of the box's own lines.
            for part in [[0.02, 0.02, 0.96, 0.4], [0.02, 0.58, 0.96, 0.4]] {
                let detail = |redacted: &Redacted| Shown::picture(redacted, EVIDENCE_MAX_BYTES).detail(part);
                let (before, after) = (detail(&open), detail(&coarse));
                assert!(after < before / 8.0, "{width}x{height} {part:?}: {after} of {before}");
            }
            let (thumbnail, part) = (Shown::thumbnail(&coarse), [0.46, 0.46, 0.08, 0.08]);
            assert!(thumbnail.detail(part) < 4.0, "{}", thumbnail.detail(part));
        }
    }
}

#[test]
fn no_head_keeps_its_detail_in_a_crowd_and_nothing_does_where_heads_fill_the_picture() {
    let fine = |x: usize, y: usize| [if noise(x / 2, y / 2) > 127 { 235 } else { 16 }, 128, 128];
    let frame = TestFrame::new(640, 480, PixelFormat::Nv12, fine);
    let detail = |everybody: &[Detection], part: [f32; 4]| {
        let redacted = Redacted::of(&frame.view(), &[], Some(everybody), None, "");
        Shown::picture(&redacted, EVIDENCE_MAX_BYTES).detail(part)
    };
    // Fifty boxes on each of thirty people, a little apart from each other, and somebody far away.
    let of_crowd = |at: usize| {
        let (place, off) = (at % 30, (at / 30) as f32 * 1e-4);
        let (column, row) = ((place % 10) as f32, (place / 10) as f32);
        seen(ObjectClass::Person, 0.9, [0.02 + 0.1 * column + off, 0.05 + 0.2 * row, 0.04 + off, 0.15])
    };
    let lone = seen(ObjectClass::Person, 0.06, [0.5, 0.8, 0.03, 0.1]);
    let crowd: Vec<_> = (0..1500).map(of_crowd).chain([lone]).collect();
    let open = detail(&[], [0.5, 0.65, 0.1, 0.1]);
    assert!(open > 5.0, "the frame has detail to lose: {open}");
    assert!(detail(&crowd, [0.5, 0.65, 0.1, 0.1]) > open / 2.0, "what is nobody's head is shown");
    assert!(detail(&crowd, [0.5, 0.8, 0.03, 0.03]) < open / 4.0);
    for place in 0..30 {
        let Rect { left, top, .. } = of_crowd(place).bounds;
        assert!(detail(&crowd, [left, top, 0.04, 0.04]) < open / 4.0, "{place}");
    }
    // Too many heads to pixelate, each a little lower than the one before.
    let lower = |at: usize| seen(ObjectClass::Person, 0.5, [0.35, 0.0021 * at as f32, 0.5, 0.5]);
    let all: Vec<_> = (0..220).map(lower).collect();
    assert!(detail(&all[..20], [0.02, 0.05, 0.2, 0.9]) > open / 2.0);
    assert!(detail(&all, [0.02, 0.05, 0.2, 0.9]) < open / 8.0);
}

#[test]
fn the_incident_itself_is_redacted_even_if_this_frame_does_not_show_it() {
    // Somebody rough before a wall: a picture all of noise is too much for a thumbnail, which shows little of it then.
    let frame = TestFrame::new(640, 480, PixelFormat::I420, |x, y| {
        let inside = (256..320).contains(&x) && (144..384).contains(&y);
        [if inside { noise(x / 8, y / 8) } else { 128 }, 128, 128]
    });
    let person = incident(ObjectClass::Person, [0.4, 0.3, 0.1, 0.5]);
    let redacted = Redacted::of(&frame.view(), &[], Some(&[]), Some(&person), "x");
    for shown in [Shown::picture(&redacted, EVIDENCE_MAX_BYTES), Shown::thumbnail(&redacted)] {
        let (head, body) = (shown.detail([0.42, 0.32, 0.06, 0.1]), shown.detail([0.42, 0.55, 0.06, 0.1]));
        assert!(head < body / 4.0, "{head} of {body}");
    }
}

#[test]
fn what_is_masked_is_black_in_every_picture() {
    let mask =
        |points: &[(f32, f32)]| Polygon::new(points.iter().map(|&(x, y)| Point { x, y }).collect()).unwrap();
    let masks = [
        mask(&[(0.1, 0.1), (0.4, 0.1), (0.4, 0.5), (0.1, 0.5)]),
        mask(&[(0.5, 0.5), (0.8, 0.5), (0.65, 0.9)]),
    ];
    // A head half under the mask must not bring anything out from below it.
    let person = seen(ObjectClass::Person, 0.9, [0.35, 0.3, 0.1, 0.4]);
    let frame = TestFrame::new(1000, 600, PixelFormat::I420, |_, _| [235, 128, 128]);
    let of =
        |incident: Option<&Incident>| Redacted::of(&frame.view(), &masks, Some(&[person]), incident, "x");
    let (alert, snapshot) = (of(Some(&far_away())), of(None));
    for shown in [
        Shown::picture(&alert, EVIDENCE_MAX_BYTES),
        Shown::picture(&alert, EVIDENCE_MIN_BYTES),
        Shown::picture(&snapshot, EVIDENCE_MAX_BYTES),
        Shown::thumbnail(&snapshot),
    ] {
        for (x, y, black) in [
            (0.11, 0.12, true),
            (0.39, 0.35, true),
            (0.39, 0.49, true),
            (0.65, 0.6, true),
            (0.65, 0.88, true),
            (0.05, 0.3, false),
            (0.43, 0.35, false),
            (0.52, 0.8, false),
        ] {
            assert_eq!(shown.black(x, y), black, "{x}, {y}: {:?}", shown.pixel(x, y));
        }
    }

    // The part around an incident that stands before the mask.
    let before = of(Some(&incident(ObjectClass::Car, [0.35, 0.4, 0.1, 0.1])));
    let shown = Shown::thumbnail(&before);
    assert!(shown.black(0.33, 0.45) && shown.black(0.37, 0.45));
    assert!(!shown.black(0.42, 0.45) && !shown.black(0.5, 0.45));
}

#[test]
fn every_frame_makes_pictures_within_the_limits() {
    use PixelFormat::{I420, Nv12};
    for (width, height, format) in [
        (1, 1, I420),
        (3, 5, Nv12),
        (16, 9, I420),
        (333, 777, Nv12),
        (1280, 720, I420),
        (2560, 1440, Nv12),
        (8000, 20, I420),
        (2, 9000, Nv12),
    ] {
        // White noise is the worst that a camera can send.
        let colours = |x: usize, y: usize| [noise(x, y), noise(y, x), noise(x + 7, y)];
        let frame = TestFrame::new(width, height, format, colours);
        let person = seen(ObjectClass::Person, 0.5, [0.9, 0.9, 0.3, 0.3]);
        let label = "intrusion yard person 0.87 院子";
        let small = incident(ObjectClass::Car, [0.5, 0.5, 0.01, 0.01]);
        let outside = incident(ObjectClass::Person, [1.2, -0.5, 0.1, 0.2]);
        for incident in [Some(&far_away()), Some(&small), Some(&outside), None] {
            let redacted = Redacted::of(&frame.view(), &[], Some(&[person]), incident, label);
            let sizes = |jpeg: &[u8]| image::load_from_memory(jpeg).unwrap().to_rgb8().dimensions();
            for (asked, limit) in [
                (0, EVIDENCE_MIN_BYTES),
                (EVIDENCE_MIN_BYTES, EVIDENCE_MIN_BYTES),
                (30_000, 30_000),
                (usize::MAX, EVIDENCE_MAX_BYTES),
            ] {
                let jpeg = redacted.picture(asked).unwrap();
                assert!(jpeg.len() <= limit, "{width}x{height}: {} bytes of {limit}", jpeg.len());
                let found = sizes(&jpeg);
                assert!(found.0.max(found.1) <= 1280);
                if width.max(height) <= 16 {
                    assert_eq!(found, (width, height));
                }
            }
            let jpeg = redacted.thumbnail().unwrap();
            assert!(jpeg.len() <= THUMBNAIL_MAX_BYTES, "{width}x{height}: {} bytes", jpeg.len());
            let found = sizes(&jpeg);
            assert!(found.0.max(found.1) <= THUMBNAIL_LONG_SIDE);
        }
    }
}

#[test]
fn more_bytes_make_a_better_picture() {
    let frame = TestFrame::new(1280, 720, PixelFormat::I420, |x, y| [noise(x / 8, y / 8), 128, 128]);
    let redacted = Redacted::of(&frame.view(), &[], Some(&[]), None, "");
    let sizes = [12_288, 20_000, 40_000, 65_536].map(|bytes| redacted.picture(bytes).unwrap().len());
    assert!(sizes.is_sorted_by(|a, b| a < b), "{sizes:?}");
}

#[test]
fn a_thumbnail_shows_the_incident_with_what_is_around_it() {
    let frame = TestFrame::new(1920, 1080, PixelFormat::I420, |_, _| [126, 128, 128]);
    // box, the long side of the shown part in 0..1 of the frame
    for ([left, top, width, height], part) in [
        ([0.5, 0.5, 0.02, 0.05], 0.25), // as small a part as has 320 pixels
        ([0.0, 0.9, 0.02, 0.1], 0.25),
        ([0.95, 0.0, 0.05, 0.2], 0.4), // twice the incident
        ([0.3, 0.3, 0.4, 0.2], 0.8),
        ([0.2, 0.1, 0.3, 0.8], 1.0), // the whole
        ([-0.1, 0.8, 0.2, 0.4], 0.4),
    ] {
        let car = incident(ObjectClass::Car, [left, top, width, height]);
        let redacted = Redacted::of(&frame.view(), &[], Some(&[]), Some(&car), "x");
        let shown = Shown::thumbnail(&redacted);
        let bounds = car.bounds.clamped();
        assert!((shown.part.width - part).abs() < 0.01, "{bounds:?}: {:?}", shown.part);
        assert!((shown.part.height - part).abs() < 0.01, "{bounds:?}: {:?}", shown.part);
        let inside = Rect {
            left: shown.part.left - 1e-3,
            top: shown.part.top - 1e-3,
            width: shown.part.width + 2e-3,
            height: shown.part.height + 2e-3,
        };
        assert!(inside.left <= bounds.left && inside.right() >= bounds.right(), "{bounds:?}: {inside:?}");
        assert!(inside.top <= bounds.top && inside.bottom() >= bounds.bottom(), "{bounds:?}: {inside:?}");
        let middle = bounds.left + bounds.width / 2.0;
        let (x, y) = shown.at(middle, bounds.bottom() - 1e-3);
        let foot = (y.saturating_sub(2)..=y).any(|y| is_amber(shown.picture.get_pixel(x, y).0));
        assert!(foot, "the box's lower side is at {x}, {y}: {bounds:?}");
    }
}

#[test]
fn box_and_label_are_drawn() {
    let frame = TestFrame::new(640, 480, PixelFormat::I420, |_, _| [126, 128, 128]);
    let car = incident(ObjectClass::Car, [0.25, 0.25, 0.5, 0.5]);
    let redacted = Redacted::of(&frame.view(), &[], Some(&[]), Some(&car), "HI");
    let shown = Shown::picture(&redacted, EVIDENCE_MAX_BYTES);
    let amber = |x: u32, y: u32| is_amber(shown.picture.get_pixel(x, y).0);
    for (x, y) in [(160, 240), (478, 240), (320, 121), (320, 358)] {
        assert!(amber(x, y), "the box's side at {x}, {y}: {:?}", shown.picture.get_pixel(x, y));
    }
    assert!(!amber(320, 240), "the box is not filled");
    let text = (161..177).flat_map(|x| (110..119).map(move |y| (x, y))).filter(|&(x, y)| amber(x, y)).count();
    assert!((15..80).contains(&text), "{text} pixels of \"HI\"");
}

#[test]
fn a_snapshot_has_its_label_and_no_box() {
    let frame = TestFrame::new(640, 480, PixelFormat::I420, |_, _| [126, 128, 128]);
    let car = seen(ObjectClass::Car, 0.9, [0.25, 0.25, 0.5, 0.5]);
    let snapshot = |label| Redacted::of(&frame.view(), &[], Some(&[car]), None, label);
    let labelled = Shown::picture(&snapshot("HI"), EVIDENCE_MAX_BYTES);
    assert!((15..80).contains(&labelled.amber()), "{} pixels of \"HI\"", labelled.amber());
    assert_eq!(Shown::picture(&snapshot(""), EVIDENCE_MAX_BYTES).amber(), 0);
    assert_eq!(Shown::thumbnail(&snapshot("HI")).amber(), 0);
}
