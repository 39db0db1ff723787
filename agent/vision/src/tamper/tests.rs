//! Pictures of a street of our own making, and what is done to them.

use super::*;
use crate::frame::PixelFormat;
use crate::motion::Miniature;
use crate::testing::{TestFrame, noise};

const WIDTH: usize = 640;
const HEIGHT: usize = 360;

const OPTIONS: TamperOptions = TamperOptions {
    after: Duration::from_secs(10),
    frozen_after: Duration::from_secs(60),
    unchanged_after: None,
};

/// Luma of a picture, row by row.
type Luma = Vec<u8>;

/// Houses, a road and leaves: patches of all sizes with sharp edges, and texture on them.
fn street(seed: usize) -> Luma {
    let patch =
        |x: usize, y: usize, size: usize| i32::from(noise(x / size + 977 * seed, y / size + 31 * size)) - 128;
    let pixel = |at: usize| {
        let (x, y) = (at % WIDTH, at / WIDTH);
        let sum = 2 * patch(x, y, 120) + 2 * patch(x, y, 44) + patch(x, y, 17) + patch(x, y, 6);
        (110 + sum / 8 + patch(x, y, 1) / 24).clamp(0, 255) as u8
    };
    (0..WIDTH * HEIGHT).map(pixel).collect()
}

fn each(luma: &Luma, change: impl Fn(usize, usize, f32) -> f32) -> Luma {
    let changed = |(at, &luma): (usize, &u8)| change(at % WIDTH, at / WIDTH, f32::from(luma)) as u8;
    luma.iter().enumerate().map(changed).collect()
}

fn moved(luma: &Luma, dx: usize, dy: usize) -> Luma {
    (0..WIDTH * HEIGHT)
        .map(|at| luma[(at / WIDTH + dy) % HEIGHT * WIDTH + (at % WIDTH + dx) % WIDTH])
        .collect()
}

/// The mean of `2 * radius + 1` pixels in both directions.
fn blurred(luma: &Luma, radius: usize) -> Luma {
    let along = |luma: &Luma, step: usize| -> Luma {
        let mean = |at: usize| {
            let near =
                (0..=2 * radius).filter_map(|by| luma.get((at + by * step).checked_sub(radius * step)?));
            let (sum, count) = near.fold((0, 0), |(sum, count), pixel| (sum + u32::from(*pixel), count + 1));
            (sum / count.max(1)) as u8
        };
        (0..luma.len()).map(mean).collect()
    };
    along(&along(luma, 1), WIDTH)
}

/// A camera, its sensor's noise, and the time.
struct Camera {
    tamper: Tamper,
    now: Duration,
    looks: usize,
    noise: u8,
    colour: bool,
    /// Three quarters of each side, the rest cut off.
    smaller: bool,
}

impl Camera {
    fn new() -> Self {
        Self {
            tamper: Tamper::new(OPTIONS),
            now: Duration::ZERO,
            looks: 0,
            noise: 3,
            colour: true,
            smaller: false,
        }
    }

    /// One that has seen a picture for two minutes.
    fn used_to(luma: &Luma) -> Self {
        let mut camera = Self::new();
        assert_eq!(camera.sees(luma, 120), None);
        camera
    }

    fn look(&mut self, luma: &Luma, later: Duration) {
        self.now += later;
        self.looks += 1;
        let chroma = if self.colour { 118 } else { 128 };
        let side = |whole: usize| if self.smaller { whole / 4 * 3 } else { whole } as u32;
        let frame = TestFrame::new(side(WIDTH), side(HEIGHT), PixelFormat::I420, |x, y| {
            let noise = if self.noise > 0 { noise(x + WIDTH * self.looks, y) % self.noise } else { 0 };
            [luma[y * WIDTH + x].saturating_add(noise), chroma, 140 - (128 - chroma)]
        });
        let miniature = Miniature::of(&frame.view(), &[]);
        self.tamper.observe(self.now, &Impression::of(&frame.view(), miniature));
    }

    /// Shows a picture for so many seconds, one look every five, and says what was found in the end.
    fn sees(&mut self, luma: &Luma, seconds: u64) -> Option<Tampering> {
        for _ in 0..seconds / 5 {
            self.look(luma, Duration::from_secs(5));
        }
        self.tamper.found()
    }
}

fn lamp(x: usize, y: usize) -> f32 {
    let (dx, dy) = (x as f32 - 500.0, y as f32 - 80.0);
    (180.0 - 0.8 * dx.hypot(dy)).max(0.0)
}

#[test]
fn each_kind_of_tampering_is_found_after_its_time_and_is_over_when_it_is_undone() {
    let street = street(1);
    use Tampering::{Covered, Defocused, TurnedAway};
    let cases: Vec<(&str, Luma, Tampering)> = vec![
        ("a black cloth", each(&street, |_, _, _| 16.0), Covered),
        ("a white bag with a fold", each(&street, |x, _, _| 180.0 + x as f32 / 30.0), Covered),
        (
            "light at the edge of a hand",
            each(&street, |x, _, luma| if x > 560 { luma } else { 20.0 }),
            Covered,
        ),
        (
            "paint on most of the glass",
            each(&street, |x, y, luma| if x + y < 700 { 90.0 } else { luma }),
            Covered,
        ),
        ("a lens out of focus", blurred(&street, 4), Defocused),
        ("a lens a little out of focus", blurred(&street, 2), Defocused),
        ("turned by a quarter", moved(&street, 160, 0), TurnedAway),
        ("turned by a tenth", moved(&street, 64, 20), TurnedAway),
        ("turned to another street", self::street(2), TurnedAway),
    ];
    for (name, luma, expected) in cases {
        let mut camera = Camera::used_to(&street);
        assert_eq!(camera.sees(&luma, 10), None, "{name}: too soon");
        assert_eq!(camera.sees(&luma, 60), Some(expected), "{name}");
        assert_eq!(camera.tamper.is_displaced(), expected == TurnedAway, "{name}");
        assert_eq!(camera.sees(&street, 10), Some(expected), "{name}: over too soon");
        assert_eq!(camera.sees(&street, 10), None, "{name} is over");
        assert!(!camera.tamper.is_displaced());
    }
}

#[test]
fn what_light_weather_and_wind_do_is_no_tampering() {
    let street = street(1);
    let snow = |x: usize, y: usize, luma: f32| if noise(x / 3, y / 3 + 999) < 20 { 230.0 } else { luma };
    let rain = |x: usize, y: usize, luma: f32| if noise(x, y / 24) < 18 { luma + 40.0 } else { luma };
    let cases: Vec<(&str, Luma)> = vec![
        ("half the exposure", each(&street, |_, _, luma| luma * 0.5)),
        ("nearly twice the exposure", each(&street, |_, _, luma| (luma * 1.8).min(255.0))),
        ("a lamp in the picture", each(&street, |x, y, luma| (luma + lamp(x, y)).min(255.0))),
        ("a shadow over a half", each(&street, |x, _, luma| if x < 320 { luma * 0.4 } else { luma })),
        ("snow", each(&street, snow)),
        ("rain", each(&street, rain)),
        ("a mast that sways", moved(&street, 6, 3)),
        ("a bus in front of a half", each(&street, |x, _, luma| if x < 320 { 60.0 } else { luma })),
        ("fog", each(&street, |_, _, luma| 140.0 + (luma - 140.0) * 0.5)),
    ];
    for (name, luma) in cases {
        let mut camera = Camera::used_to(&street);
        assert_eq!(camera.sees(&luma, 120), None, "{name}");
        assert!(!camera.tamper.is_displaced(), "{name}");
        assert_eq!(camera.sees(&street, 120), None, "after {name}");
    }
}

#[test]
fn a_light_that_is_switched_on_in_the_dark_is_no_tampering() {
    let street = street(1);
    let dark = each(&street, |_, _, luma| 16.0 + luma * 0.12);
    let mut camera = Camera { noise: 12, ..Camera::new() };
    assert_eq!(camera.sees(&dark, 120), None);
    assert_eq!(camera.sees(&street, 120), None);
    camera.noise = 4;
    assert_eq!(camera.sees(&each(&street, |x, y, luma| (luma + lamp(x, y)).min(255.0)), 120), None);
}

#[test]
fn a_change_to_infrared_light_is_no_tampering_and_a_cover_at_night_is() {
    let street = street(1);
    // The lamp at the camera lights up what is near, at the bottom, and what reflects it differs from what is bright.
    let lit =
        |x: usize, y: usize| (y as f32 / 200.0).min(1.2) * (0.6 + f32::from(noise(x / 60, y / 60)) / 320.0);
    let infrared = each(&street, |x, y, luma| 16.0 + luma * lit(x, y) * 0.7);
    let mut camera = Camera::used_to(&street);
    (camera.colour, camera.noise) = (false, 14);
    assert_eq!(camera.sees(&infrared, 180), None, "the first night");
    assert_eq!(camera.sees(&each(&street, |_, _, _| 16.0), 30), Some(Tampering::Covered));
    assert_eq!(camera.sees(&infrared, 30), None);
    (camera.colour, camera.noise) = (true, 6);
    assert_eq!(camera.sees(&street, 60), None, "in the morning");
    camera.colour = false;
    assert_eq!(camera.sees(&each(&street, |_, _, _| 16.0), 30), Some(Tampering::Covered));
}

#[test]
fn dusk_without_any_light_is_no_tampering() {
    let street = street(1);
    let mut camera = Camera::used_to(&street);
    for minute in 0..80_u64 {
        let light = (1.0 - minute as f32 / 60.0).max(0.0).powi(2);
        let dusk = each(&street, |_, _, luma| 16.0 + (luma - 16.0).max(0.0) * light);
        for _ in 0..4 {
            camera.look(&dusk, Duration::from_secs(15));
            assert_eq!(camera.tamper.found(), None, "minute {minute}");
        }
    }
}

#[test]
fn a_picture_that_stands_still_is_found_though_a_clock_runs_in_it_and_a_still_street_is_not() {
    let street = street(1);
    let mut camera = Camera::used_to(&street);
    assert_eq!(camera.sees(&street, 600), None, "noise is life");
    camera.noise = 0;
    assert_eq!(camera.sees(&street, 55), None);
    assert_eq!(camera.sees(&street, 15), Some(Tampering::Frozen));
    camera.noise = 6;
    assert_eq!(camera.sees(&street, 20), None, "it goes on");
    camera.noise = 0;
    for second in 0..20_usize {
        let digit = |x: usize, y: usize| (20..140).contains(&x) && (10..34).contains(&y);
        let clock = each(
            &street,
            |x, y, luma| if digit(x, y) { f32::from(noise(x / 8, y / 8 + second)) } else { luma },
        );
        camera.look(&clock, Duration::from_secs(5));
    }
    assert_eq!(camera.tamper.found(), Some(Tampering::Frozen));
    // What stands still in the dark may be the dark.
    let mut camera = Camera { noise: 0, ..Camera::new() };
    assert_eq!(camera.sees(&each(&street, |_, _, _| 16.0), 600), None);
}

#[test]
fn a_picture_that_is_encoded_anew_each_time_is_frozen_when_nothing_in_it_has_changed_for_long() {
    let street = street(1);
    let hour = Duration::from_secs(3600);
    let new = || {
        let tamper = Tamper::new(TamperOptions { unchanged_after: Some(hour), ..OPTIONS });
        Camera { tamper, ..Camera::new() }
    };
    // What is found in 90 minutes of looks every 50 seconds, with noise as an encoder makes it.
    let found = |change: &dyn Fn(usize, usize, usize, f32) -> f32| {
        let mut camera = new();
        (0..108).for_each(|look| {
            camera.look(&each(&street, |x, y, luma| change(look, x, y, luma)), Duration::from_secs(50));
        });
        camera.tamper.found()
    };
    let clock = |look: usize, x: usize, y: usize| {
        ((20..140).contains(&x) && (10..34).contains(&y)).then(|| f32::from(noise(x / 8, y / 8 + look)))
    };
    assert_eq!(found(&|look, x, y, luma| clock(look, x, y).unwrap_or(luma)), Some(Tampering::Frozen));
    assert_eq!(found(&|look, _, _, luma| luma + (look / 30) as f32), None, "the light changes");
    let somebody = |x: usize, y: usize| (300..340).contains(&x) && (150..230).contains(&y);
    let passes = |look, x, y, luma| if look % 40 == 7 && somebody(x, y) { 20.0 } else { luma };
    assert_eq!(found(&passes), None, "somebody passes");
    assert_eq!(found(&|_, _, _, _| 16.0), None, "what stands still in the dark may be the dark");
    // It goes on, and pictures that are missing are no proof.
    let mut camera = new();
    let looks = |camera: &mut Camera, count: usize, luma: &Luma| {
        (0..count).for_each(|_| camera.look(luma, Duration::from_secs(50)));
        camera.tamper.found()
    };
    assert_eq!(looks(&mut camera, 40, &street), None);
    camera.look(&street, Duration::from_secs(1800));
    assert_eq!(looks(&mut camera, 70, &street), None);
    assert_eq!(looks(&mut camera, 5, &street), Some(Tampering::Frozen));
    assert_eq!(looks(&mut camera, 5, &each(&street, |_, _, luma| luma + 4.0)), None);
}

#[test]
fn a_sleeping_camera_is_judged_by_a_look_every_quarter_of_a_minute() {
    let street = street(1);
    let mut camera = Camera::used_to(&street);
    let black = each(&street, |_, _, _| 16.0);
    for _ in 0..3 {
        camera.look(&black, Duration::from_secs(15));
    }
    assert_eq!(camera.tamper.found(), Some(Tampering::Covered));
    let mut camera = Camera { noise: 0, ..Camera::used_to(&street) };
    for _ in 0..5 {
        assert_eq!(camera.tamper.found(), None);
        camera.look(&street, Duration::from_secs(15));
    }
    assert_eq!(camera.tamper.found(), Some(Tampering::Frozen));
}

#[test]
fn a_passing_van_and_a_break_raise_nothing_and_a_new_view_is_accepted_after_a_day() {
    let (street, other) = (street(1), street(2));
    let mut camera = Camera::used_to(&street);
    assert_eq!(camera.sees(&other, 10), None);
    assert_eq!(camera.sees(&street, 10), None);
    assert_eq!(camera.sees(&other, 5), None);
    camera.now += Duration::from_secs(3600);
    assert_eq!(camera.sees(&other, 10), None, "nobody saw the hour between");
    assert_eq!(camera.sees(&other, 10), Some(Tampering::TurnedAway));
    for _ in 0..24 {
        camera.look(&other, Duration::from_secs(3600));
    }
    assert_eq!(camera.sees(&other, 120), None);
    assert_eq!(camera.sees(&street, 30), Some(Tampering::TurnedAway), "the new view is the usual one");
}

#[test]
fn what_covers_or_blurs_a_camera_is_never_its_usual_picture() {
    use Tampering::{Covered, Defocused, TurnedAway};
    let street = street(1);
    let black = each(&street, |_, _, _| 16.0);
    for (luma, expected) in [(&black, Covered), (&blurred(&street, 4), Defocused)] {
        let mut camera = Camera::used_to(&street);
        assert_eq!(camera.sees(luma, 60), Some(expected));
        for _ in 0..25 {
            camera.look(luma, Duration::from_secs(3600));
        }
        assert_eq!(camera.sees(luma, 120), Some(expected), "a day later");
        assert_eq!(camera.sees(&street, 20), None, "it is over");
    }
    // Somebody uncovers it and leaves it turned away: that is another thing, and lasts for a day of its own.
    let mut camera = Camera::used_to(&street);
    camera.sees(&black, 60);
    camera.now += Duration::from_secs(90_000);
    assert_eq!(camera.sees(&self::street(2), 5), Some(Covered));
    assert_eq!(camera.sees(&self::street(2), 15), Some(TurnedAway));
    assert_eq!(camera.sees(&black, 60), Some(TurnedAway), "at night");
    assert_eq!(camera.sees(&street, 20), None);
}

#[test]
fn pictures_of_another_size_end_nothing_until_a_day_has_passed_and_they_show_something() {
    let (street, black) = (street(1), vec![16; WIDTH * HEIGHT]);
    for tampered in [&self::street(2), &black] {
        let mut camera = Camera::used_to(&street);
        let found = camera.sees(tampered, 60);
        camera.smaller = true;
        assert_eq!(camera.sees(tampered, 120), found);
        assert_eq!(camera.tamper.is_displaced(), found == Some(Tampering::TurnedAway));
        camera.smaller = false;
        assert_eq!(camera.sees(&street, 20), None, "as before");
        camera.sees(tampered, 60);
        camera.smaller = true;
        camera.now += Duration::from_secs(90_000);
        assert_eq!(camera.sees(&black, 120), found, "nothing can be told");
        assert_eq!(camera.sees(&street, 5), None);
        camera.sees(&street, 60);
        assert_eq!(camera.sees(&black, 60), Some(Tampering::Covered), "the new size is known by now");
    }
}

#[test]
fn nothing_is_said_of_pictures_that_are_too_small_or_masked_and_of_another_size_it_learns_anew() {
    let mut tamper = Tamper::new(OPTIONS);
    let everything = crate::geometry::Polygon::new(
        [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
            .map(|(x, y)| crate::geometry::Point { x, y })
            .to_vec(),
    );
    let masks = [everything.unwrap()];
    for (look, (width, height)) in
        [(3, 3), (40, 30), (640, 360), (320, 180)].into_iter().cycle().take(200).enumerate()
    {
        let frame =
            TestFrame::new(width, height, PixelFormat::Nv12, |x, y| [noise(x / 9, y / 9 + look), 128, 128]);
        let masks = if width == 640 { &masks[..] } else { &[] };
        let miniature = Miniature::of(&frame.view(), masks);
        tamper.observe(Duration::from_secs(5 * look as u64), &Impression::of(&frame.view(), miniature));
        assert_eq!(tamper.found(), None);
    }
}
