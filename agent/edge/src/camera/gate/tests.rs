use sharp_eyes_vision::{Colour, FrameView, PixelFormat, Plane};

use super::super::bitstream::Kind;
use super::*;

const FPS: u64 = 15;
const GROUP: u64 = 30;

/// A camera of 15 frames a second and two seconds between keyframes, in front of which something happens each second:
///
/// `.` nothing, `M` motion that sizes and pictures show, `s` motion that only sizes show (rain, a lamp), `p` a change that
/// only pictures show (somebody who came slowly), `d` something still that only the detector sees, `f` full house: `M` and
/// `d`. A shadow of what happened stays in the picture: `p` and `M` move a block on, `.` leaves it where it is.
struct Stage {
    gate: Gate,
    now: Instant,
    units: u64,
    dice: fastrand::Rng,
    block: usize,
    moved: bool,
    group: u64,
    all_intra: bool,
    keyframe_every: u64,
    /// There was no room for the units since the last keyframe.
    overflowed: bool,
    /// What the detector finds in what it is given.
    stirring: bool,
    shown: u64,
    /// Keyframes go into their decoder and never come back.
    glances_hang: bool,
    /// The decoder gives out nothing of what it is given.
    held_back: bool,
    /// Units in front of it, and by how much its pictures are late.
    waiting: u64,
    late: Duration,
}

impl Stage {
    fn new(mode: GateMode) -> Self {
        let now = Instant::now();
        // Audits come once an hour unless a test wants them.
        let (hold, audit) = (Duration::from_secs(5), Duration::from_secs(3600));
        let options = GateOptions { mode, hold, audit };
        Self::with(options, now)
    }

    fn with(options: GateOptions, now: Instant) -> Self {
        Self {
            gate: Gate::with_dice(options, now, fastrand::Rng::with_seed(7)),
            now,
            units: 0,
            dice: fastrand::Rng::with_seed(11),
            block: 0,
            moved: false,
            group: 0,
            all_intra: false,
            keyframe_every: GROUP,
            overflowed: false,
            stirring: false,
            shown: 0,
            glances_hang: false,
            held_back: false,
            waiting: 0,
            late: Duration::ZERO,
        }
    }

    /// Plays seconds, and says at the end of each whether the camera was awake (`W`), checking (`c`) or asleep (`.`).
    fn play(&mut self, seconds: &str) -> String {
        seconds.chars().map(|second| self.second(second)).collect()
    }

    fn second(&mut self, happens: char) -> char {
        let complex = "Msf".contains(happens);
        self.stirring = "df".contains(happens);
        for _ in 0..FPS {
            self.moved = "Mpf".contains(happens);
            if self.moved {
                self.block += 1;
            }
            self.unit(complex);
        }
        match self.gate.state {
            State::Awake(_) => 'W',
            State::Checking { .. } => 'c',
            State::Asleep(_) => '.',
        }
    }

    fn unit(&mut self, complex: bool) {
        let keyframe = self.all_intra || self.units.is_multiple_of(self.keyframe_every);
        // Rate control that swings with the place in the group, and a fifth of an octave of noise.
        let octaves = if keyframe { 17.0 } else { 13.0 + (self.units % GROUP) as f32 * 0.02 };
        let octaves = octaves + (self.dice.f32() - 0.5) * 0.4 + if complex { 1.0 } else { 0.0 };
        let unit = UnitFacts {
            keyframe,
            bytes: (octaves - 30.0 / 6.0).exp2() as usize,
            quantiser: Some(30.0),
            kind: if keyframe { Kind::Intra } else { Kind::Predicted },
            ..UnitFacts::default()
        };
        self.group = if keyframe { 1 } else { self.group + 1 };
        let group = if self.overflowed { 0 } else { self.group };
        match self.gate.unit(self.now, &unit, self.waiting, group) {
            Verdict::Decode | Verdict::Check | Verdict::Wake
                if self.units.is_multiple_of(3) && !self.held_back =>
            {
                self.show(Look::Live);
            }
            Verdict::Glance { audit } if !self.glances_hang => self.show(Look::Glance { audit }),
            _ => {}
        }
        self.units += 1;
        self.now += Duration::from_secs(1) / FPS as u32;
    }

    fn show(&mut self, look: Look) {
        let (width, height) = (160_usize, 90_usize);
        let left = self.block * 4 % (width - 24);
        let mut luma = vec![80_u8; width * height];
        if self.block > 0 {
            for row in 30..70 {
                luma[row * width + left..][..16].fill(200);
            }
        }
        let chroma = vec![128_u8; width * height / 4];
        let planes = [(&luma, width), (&chroma, width / 2), (&chroma, width / 2)]
            .map(|(data, stride)| Plane { data, stride });
        let (w, h) = (width as u32, height as u32);
        let view = FrameView::new(w, h, PixelFormat::I420, Colour::Bt601, false, &planes).unwrap();
        let arrived = self.now - self.late;
        if self.gate.frame(arrived, look, &Miniature::of(&view, &[])) {
            self.shown += 1;
            match look {
                Look::Live if self.stirring => self.gate.analysed(arrived, Sight::Stirring),
                Look::Live => self.gate.analysed(arrived, Sight::Calm),
                Look::Glance { .. } => self.gate.audited(self.now, self.stirring),
            }
        }
    }
}

/// Plays seconds after twenty calm ones, at whose end an adaptive camera sleeps.
fn check(mode: GateMode, seconds: &str, expected: &str) {
    let mut stage = Stage::new(mode);
    stage.play(&".".repeat(20));
    assert_eq!(stage.play(seconds), expected, "{mode:?} {seconds}");
}

#[test]
fn a_camera_learns_for_some_seconds_and_then_sleeps() {
    assert_eq!(Stage::new(GateMode::Adaptive).play("...................."), "WWWWWWWWW...........");
    assert_eq!(Stage::new(GateMode::Keyframes).play("..........."), "WWWWW......");
    assert_eq!(Stage::new(GateMode::Always).play("..........."), "WWWWWWWWWWW");
}

#[test]
fn motion_wakes_it_within_the_second_and_it_holds() {
    // The hold time begins when what moved last has become part of the background, after a second or two.
    check(GateMode::Adaptive, "..MMM...........", "..WWWWWWWWW.....");
    check(GateMode::Adaptive, "..M..M..........", "..WWWWWWWWWW....");
    check(GateMode::Always, "..MMM...........", "WWWWWWWWWWWWWWWW");
}

#[test]
fn what_only_sizes_show_is_checked_and_never_analysed() {
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.play(&".".repeat(20));
    let shown = stage.shown;
    let states = stage.play("..ss......ss....");
    assert!(!states.contains('W'), "{states}");
    assert!(stage.gate.checks >= 2);
    assert_eq!(stage.shown, shown, "the detector is not asked");
}

#[test]
fn what_nobody_has_seen_yet_is_waited_for_and_was_no_false_alarm() {
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.play(&".".repeat(20));
    stage.held_back = true;
    assert_eq!(stage.play("ss......"), "cccccWWW");
    assert_eq!((stage.gate.activity.caution(), stage.gate.wakes()), (1.0, 1));
    // A decoder that catches up shows what happened, late.
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.play(&".".repeat(20));
    (stage.held_back, stage.waiting) = (true, 29);
    assert_eq!(stage.play("sss"), "ccc");
    stage.held_back = false;
    assert_eq!(stage.play("M"), "W");
}

#[test]
fn a_keyframe_shows_what_sizes_do_not() {
    // Keyframes are compared every 20 seconds, or with every one where they are the watch, or the camera is new.
    check(GateMode::Adaptive, "p.........", "WWWWWWW...");
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.play(&".".repeat(80));
    let states = stage.play(&format!("p{}", ".".repeat(20)));
    assert!(states.starts_with("....") && states.contains('W'), "{states}");
    check(GateMode::Keyframes, "p.........", "WWWWWWW...");
}

#[test]
fn a_keyframe_whose_decoder_hangs_wakes_it() {
    let mut stage = Stage::new(GateMode::Keyframes);
    stage.play(&".".repeat(20));
    stage.glances_hang = true;
    let states = stage.play("..........");
    assert!(states.starts_with("....") && states.ends_with("WWW"), "{states}");
}

#[test]
fn somebody_still_in_a_zone_keeps_it_awake_until_a_rule_has_decided() {
    check(GateMode::Adaptive, "MMdddddddddd.........", "WWWWWWWWWWWWWWWWW....");
}

#[test]
fn pictures_that_a_decoder_holds_back_are_waited_for() {
    let mut stage = Stage::new(GateMode::Adaptive);
    assert_eq!(stage.play("....................M..."), "WWWWWWWWW...........WWWW");
    stage.held_back = true;
    assert_eq!(stage.play("......"), "WWWWWW");
    stage.held_back = false;
    assert_eq!(stage.play("..."), "...");
}

#[test]
fn a_camera_whose_decoder_is_behind_sleeps_later() {
    let awake = |waiting| {
        let mut stage = Stage::new(GateMode::Adaptive);
        stage.play(&".".repeat(20));
        stage.play("M");
        stage.waiting = waiting;
        stage.play(&".".repeat(20)).matches('W').count()
    };
    assert_eq!([awake(0), awake(1), awake(2), awake(29)].map(|seconds| seconds - awake(0)), [0, 0, 5, 5]);
}

#[test]
fn what_access_units_announce_is_seen_before_it_sleeps() {
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.gate.keep_awake(true);
    stage.play(&".".repeat(20));
    stage.held_back = true;
    stage.play("M");
    stage.gate.keep_awake(false);
    assert_eq!(stage.play("MM"), "WW");
    stage.held_back = false;
    assert_eq!(stage.play("MM"), "WW");
    // What goes on and on without being seen keeps nobody awake.
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.gate.keep_awake(true);
    stage.play(&".".repeat(20));
    stage.gate.keep_awake(false);
    assert!(!stage.play("ss").ends_with('W'));
    // Nor does it where pictures come late.
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.gate.keep_awake(true);
    stage.play(&".".repeat(20));
    (stage.late, stage.waiting) = (Duration::from_secs(2), 29);
    stage.gate.keep_awake(false);
    assert!(!stage.play("ssss").ends_with('W'));
}

#[test]
fn audits_find_what_sleep_hid_and_a_stream_loses_its_standing() {
    let options = GateOptions { audit: Duration::from_secs(4), ..GateOptions::default() };
    let mut stage = Stage::with(options, Instant::now());
    stage.play(&".".repeat(20));
    assert_eq!(stage.gate.missed, 0);
    // Something that neither sizes nor pictures show, such as what was there before.
    stage.play(&"dddddddddddddddddddd..........".repeat(4));
    let health = stage.gate.health(stage.now);
    assert!(health.missed >= 3 && health.audits > health.missed, "{health:?}");
    assert_eq!(health.doubt.as_deref(), Some(standing::Doubt::Missed.text()));
    assert_eq!(stage.gate.standing.mode(), GateMode::Keyframes);
}

#[test]
fn an_all_intra_stream_is_watched_by_its_keyframes() {
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.all_intra = true;
    assert_eq!(stage.play("..............p........"), "WWWWW.........WWWWWWW..");
    assert_eq!(stage.gate.health(stage.now).doubt.as_deref(), Some(standing::Doubt::AllIntra.text()));
}

#[test]
fn sleep_and_awakenings_are_counted() {
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.play(&".".repeat(40));
    let health = stage.gate.health(stage.now);
    assert_eq!((health.state, health.wakes), (GateState::Asleep, 0));
    assert!((28..=31).contains(&health.asleep_s), "{health:?}");
    assert_eq!(stage.gate.take_woken(), None);
    let began = stage.now;
    stage.play("MMM");
    let woken = stage.gate.take_woken().expect("motion wakes it");
    assert!(woken - began < Duration::from_secs(1));
    assert_eq!(stage.gate.take_woken(), None, "once");
    let health = stage.gate.health(stage.now);
    assert_eq!((health.state, health.wakes), (GateState::Awake, 1));
    // A new connection begins awake, and remembers.
    stage.gate.connected(stage.now);
    stage.units = 0;
    assert_eq!(stage.play("........"), "WWWWWW..");
}

#[test]
fn whoever_calls_is_shown_a_frame_whatever_the_camera_is_doing() {
    // Awake and about to sleep, asleep, checking, and asleep again.
    for units in (FPS * 8..FPS * 26).step_by(2) {
        let mut stage = Stage::new(GateMode::Adaptive);
        for unit in 0..units {
            stage.unit((FPS * 22..FPS * 23).contains(&unit));
        }
        let (shown, state) = (stage.shown, format!("{:?}", stage.gate.state));
        stage.gate.call();
        stage.play(".");
        assert!(stage.shown > shown, "nothing within a second of unit {units}: {state}");
        assert!(stage.play(&".".repeat(10)).ends_with('.'), "no sleep after unit {units}");
    }
}

#[test]
fn a_camera_that_is_kept_awake_wakes_and_sleeps_only_when_it_is_let_go() {
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.play(&".".repeat(20));
    stage.gate.keep_awake(true);
    assert_eq!(stage.play(&".".repeat(20)), "W".repeat(20));
    stage.gate.keep_awake(false);
    assert!(stage.play("..").ends_with('.'), "it was calm for long");
}

#[test]
fn nobody_is_woken_without_a_whole_group_of_pictures() {
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.play(&".".repeat(80));
    let unit = |keyframe, bytes| UnitFacts {
        keyframe,
        bytes,
        quantiser: Some(30.0),
        kind: Kind::Predicted,
        ..UnitFacts::default()
    };
    assert_eq!(stage.gate.unit(stage.now, &unit(true, 4096), 0, 0), Verdict::Skip);
    for step in 1..20 {
        let now = stage.now + Duration::from_millis(66 * step);
        assert_eq!(stage.gate.unit(now, &unit(false, 4096), 0, 0), Verdict::Skip);
    }
    assert_eq!(stage.gate.checks, 0, "there is nothing that could be looked at");
    let now = stage.now + Duration::from_secs(2);
    assert_eq!(stage.gate.unit(now, &unit(true, 4096), 0, 1), Verdict::Wake);
}

#[test]
fn a_stream_whose_keyframes_are_too_far_apart_never_sleeps() {
    for mode in [GateMode::Keyframes, GateMode::Adaptive] {
        let mut stage = Stage::new(mode);
        stage.keyframe_every = 60 * FPS;
        assert_eq!(stage.play(&".".repeat(200)), "W".repeat(200), "{mode:?}");
        assert_eq!(stage.gate.health(stage.now).doubt.as_deref(), Some(standing::Doubt::LongGroups.text()));
    }
}

#[test]
fn keyframes_that_stop_coming_wake_it_before_it_can_no_longer_wake() {
    for mode in [GateMode::Keyframes, GateMode::Adaptive] {
        let mut stage = Stage::new(mode);
        stage.play(&".".repeat(20));
        stage.keyframe_every = 3600 * FPS;
        assert_eq!(stage.play("................"), "..........WWWWWW", "{mode:?}");
        assert_eq!(stage.gate.lacks_keyframe(), None, "{mode:?}");
    }
}

#[test]
fn without_a_whole_group_of_pictures_it_waits_for_one_awake() {
    let mut stage = Stage::new(GateMode::Adaptive);
    stage.play(&".".repeat(20));
    stage.unit(false);
    (stage.overflowed, stage.held_back) = (true, true);
    stage.gate.call();
    let began = stage.now;
    assert_eq!(stage.play("."), "W");
    assert_eq!(stage.gate.lacks_keyframe(), Some(began));
    stage.play(".");
    assert_eq!(stage.gate.lacks_keyframe(), None);
}

/// `K` keyframe, `p` delta unit, `!` a delta unit and `X` a keyframe while the decoder is full; the verdicts: `d` and `.`
fn check_step(units: &str, verdicts: &str) {
    let options = GateOptions { mode: GateMode::Always, ..GateOptions::default() };
    let now = Instant::now();
    let mut gate = Gate::new(options, now);
    let seen: String = units
        .chars()
        .map(|unit| {
            let waiting = if "!X".contains(unit) { BACKLOG_MAX } else { 0 };
            let facts = UnitFacts { keyframe: "KX".contains(unit), ..UnitFacts::default() };
            match gate.unit(now, &facts, waiting, 0) {
                Verdict::Decode => 'd',
                Verdict::Skip => '.',
                other => panic!("{other:?}"),
            }
        })
        .collect();
    assert_eq!(seen, verdicts, "{units}");
}

#[test]
fn the_want_of_a_keyframe_begins_anew_with_each_that_the_decoder_had_no_room_for() {
    let start = Instant::now();
    let mut gate = Gate::new(GateOptions { mode: GateMode::Always, ..GateOptions::default() }, start);
    let full = BACKLOG_MAX;
    for (second, keyframe, waiting, since) in [
        (1, false, 0, Some(1)),
        (2, false, 0, Some(1)),
        (3, true, 0, None),
        (4, false, full, Some(4)),
        (5, false, 0, Some(4)),
        (6, true, full, Some(6)),
        (7, false, full, Some(6)),
        (8, true, 0, None),
    ] {
        let at = |second| start + Duration::from_secs(second);
        gate.unit(at(second), &UnitFacts { keyframe, ..UnitFacts::default() }, waiting, 0);
        assert_eq!(gate.lacks_keyframe(), since.map(at), "second {second}");
    }
}

#[test]
fn decoding_starts_and_resumes_at_a_keyframe_only() {
    check_step("ppKppKp", "..ddddd");
    check_step("Kpp!ppKp", "ddd...dd");
    check_step("KXppKp", "d...dd");
}
