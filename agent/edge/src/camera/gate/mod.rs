//! Whether a camera sleeps: access-unit facts and small pictures in, verdicts out; no I/O and no clock.
//!
//! The gate stands between ingest and decode, so that a camera that sees nothing costs no decoding:
//!
//! ```text
//!            the picture and the detector were calm for the hold time
//!   Awake ────────────────────────────────────────────────────────────► Asleep ◄─┐
//!     ▲  ▲                                                               │  │    │ nothing changed
//!     │  └── a keyframe differs from the background, or an audit ────────┘  │    │ after all
//!     │      found something                                                ▼    │
//!     └────── a frame differs from the background ◄──────────────────── Checking ┘
//!                                                       access units became complex
//! ```
//!
//! Asleep, nothing is decoded but a keyframe now and then. Checking and awake, everything is, from the keyframe of the
//! current group of pictures on, so that what woke the camera is seen; but only an awake camera's frames go to the
//! detector. A check in which nobody saw a frame ends awake, and what units announced is seen before sleep. A random audit
//! gives the detector a sleeping keyframe, and reports what sleep hid.
//!
//! - [`activity`]: whether access units became complex; [`standing`]: how far a stream is believed; [`ring`]: the current
//!   group of pictures.

mod activity;
mod ring;
mod standing;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use sharp_eyes_protocol::report::{GateHealth, GateState};
use sharp_eyes_vision::{Background, Miniature};

use super::bitstream::UnitFacts;
use activity::Activity;
pub(super) use ring::Ring;
use standing::Standing;

/// When a camera's access units are decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GateMode {
    /// While something happens, by the complexity of access units; keyframes now and then are the safety net.
    #[default]
    Adaptive,
    /// While something happens, by keyframes alone: for streams whose sizes say nothing.
    Keyframes,
    /// Always: no sleep.
    Always,
}

/// How one camera's gate judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateOptions {
    /// When access units are decoded.
    pub mode: GateMode,
    /// How long a scene must have been calm before the camera sleeps.
    pub hold: Duration,
    /// How often the detector looks at a sleeping picture, on average.
    pub audit: Duration,
}

impl Default for GateOptions {
    fn default() -> Self {
        Self { mode: GateMode::default(), hold: Duration::from_secs(2), audit: Duration::from_secs(60) }
    }
}

/// Time between the keyframes that are compared while access units are believed.
const GLANCE: Duration = Duration::from_secs(20);

/// The same where keyframes alone are the watch, or sizes were not learned for long. An all-intra stream has more than
/// anybody needs.
const GLANCE_OFTEN: Duration = Duration::from_secs(1);

/// A keyframe that was to be looked at and did not come back from its decoder within this long never will.
const GLANCE_TAKES: Duration = Duration::from_secs(5);

/// Frames in which a checking camera has to see a change, and how long it may take.
const CHECK_FRAMES: u32 = 3;
const CHECK_TAKES: Duration = Duration::from_millis(1500);

/// How long it waits where nobody has seen a frame yet, or more of them are on their way: a decoder that has a long group
/// of pictures to catch up with, or holds some back, shows them late.
const CHECK_WAITS: Duration = Duration::from_secs(5);

/// How long after units became complex a calm picture says that it was nothing.
const ACTIVITY_SHOWS: Duration = Duration::from_millis(500);

/// Frames a second that show enough of what is checked, where fewer are analysed.
pub(super) const CHECK_FPS: f32 = 2.0;

/// How much before its awakening a camera's frames are looked at: what made it wake took time to show in sizes.
pub(super) const LOOK_BACK: Duration = Duration::from_secs(1);

/// Access units that may wait in front of the decoder: two seconds at 15 fps. A decoder that is further behind
/// than this will not catch up, and what it would deliver is old.
pub(super) const BACKLOG_MAX: u64 = 30;

/// Access units in front of a decoder that keeps up: with more, what happens now is yet to be seen.
const BEHIND_MAX: u64 = 1;

/// How much longer a camera has to be calm whose decoder does not keep up. No longer: a box on which too many are awake
/// comes to rest only because they fall asleep.
const BEHIND_HOLD: Duration = Duration::from_secs(5);

/// How long what stays takes to belong to the background of an awake camera, and the share of one keyframe asleep.
const SETTLE: Duration = Duration::from_millis(600);
const SETTLE_ASLEEP: f32 = 0.1;

/// Time between the frames that the detector sees while it is sure of all that it knows and no rule has to decide: at five
/// analysed frames a second it is spared every other one.
const SPARE: Duration = Duration::from_millis(350);

/// What becomes of an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes to the decoder.
    Decode,
    /// The same of a camera that is checking: enough frames are looked at, however few are analysed.
    Check,
    /// It does not.
    Skip,
    /// The decoder is given all of the ring, this unit included. It decodes from now on.
    Wake,
    /// This keyframe is decoded alone, and comes back as [`Look::Glance`], or as an audit.
    Glance { audit: bool },
    /// The decoder is let go.
    Sleep,
}

/// What a frame was decoded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// An awake or checking camera.
    Live,
    /// A keyframe of a sleeping one.
    Glance { audit: bool },
}

/// What the detector made of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nobody, or only what is surely known.
    Calm,
    /// Somebody whom the detector is not sure of: it needs every frame to follow him.
    Unsure,
    /// Something that a rule has yet to decide about.
    Stirring,
}

/// The gate of one camera. It outlives connections, so that what it learned does.
#[derive(Clone, Debug)]
pub struct Gate {
    hold: Duration,
    audit: Duration,
    standing: Standing,
    activity: Activity,
    background: Option<Background>,
    state: State,
    /// Whether the decoder has what the next unit refers to.
    in_step: bool,
    /// Since when it has waited for a keyframe to have that, if it is awake.
    lacks_keyframe: Option<Instant>,
    /// Units of the ring that the decoder was given at once and may take its time for.
    catching_up: u64,
    /// Somebody waits for the detector to see a frame: the camera wakes up, and stays awake, until it did.
    called: bool,
    /// A rule wants it to be awake.
    kept: bool,
    dice: fastrand::Rng,
    /// When what woke it arrived, until the detector has seen a frame since.
    woken: Option<Instant>,
    wakes: u64,
    checks: u64,
    audits: u64,
    missed: u64,
    spared: u64,
    asleep: Duration,
}

#[derive(Clone, Debug)]
enum State {
    Awake(Awake),
    Checking { since: Instant, calm_frames: u32 },
    Asleep(Asleep),
}

#[derive(Clone, Copy, Debug)]
struct Awake {
    /// When something last moved or mattered.
    stirred: Instant,
    /// When access units became complex, until somebody has seen that.
    announced: Option<Instant>,
    /// When a frame was last compared, and last analysed.
    compared: Option<Instant>,
    analysed: Option<Instant>,
    /// When a frame was last given to the detector, and what it made of the last one that it has looked at.
    shown: Option<Instant>,
    sight: Sight,
}

#[derive(Clone, Copy, Debug)]
struct Asleep {
    since: Instant,
    glance_due: Instant,
    audit_due: Instant,
    /// A keyframe is being decoded since then.
    glancing: Option<Instant>,
    /// It showed something: the next unit wakes the camera.
    alarmed: bool,
}

impl Gate {
    /// Awake, and without experience.
    pub fn new(options: GateOptions, now: Instant) -> Self {
        Self::with_dice(options, now, fastrand::Rng::new())
    }

    /// The same with dice that fall as somebody says: when it audits is all that is left to chance.
    pub(crate) fn with_dice(options: GateOptions, now: Instant, dice: fastrand::Rng) -> Self {
        Self {
            hold: options.hold,
            audit: options.audit,
            standing: Standing::new(options.mode),
            activity: Activity::new(),
            background: None,
            state: State::Awake(Awake::new(now)),
            in_step: false,
            lacks_keyframe: None,
            catching_up: 0,
            called: false,
            kept: false,
            dice,
            woken: None,
            wakes: 0,
            checks: 0,
            audits: 0,
            missed: 0,
            spared: 0,
            asleep: Duration::ZERO,
        }
    }

    /// A connection begins: awake, with a decoder that has nothing yet.
    pub(super) fn connected(&mut self, now: Instant) {
        self.count_sleep(now);
        self.activity.gap();
        self.state = State::Awake(Awake::new(now));
        (self.in_step, self.lacks_keyframe) = (false, None);
        self.catching_up = 0;
        self.woken = None;
    }

    /// Whether it ever sleeps as things stand; otherwise nobody need read units or compare frames.
    pub(super) fn is_watching(&self) -> bool {
        self.standing.mode() != GateMode::Always || self.standing.doubt().is_some()
    }

    /// Takes the next access unit. `waiting` counts the access units in front of the decoder, `group` those in the ring,
    /// from the keyframe to this unit.
    pub(super) fn unit(&mut self, now: Instant, unit: &UnitFacts, waiting: u64, group: u64) -> Verdict {
        if !self.is_watching() {
            return self.pass(now, unit, waiting);
        }
        let calm = match &self.state {
            State::Awake(awake) => awake.is_calm(now),
            State::Checking { .. } => false,
            State::Asleep(asleep) => !asleep.alarmed,
        };
        let active = self.activity.observe(now, unit, calm);
        if unit.keyframe {
            let all_intra = self.activity.is_all_intra();
            self.standing.keyframe(now, self.activity.group(), all_intra);
        } else if let Some(since) = self.activity.since_keyframe(now) {
            self.standing.no_keyframe(now, since);
        }
        let mode = if self.kept { GateMode::Always } else { self.standing.mode() };
        let active = active && mode == GateMode::Adaptive;
        let keeps_up = waiting <= BEHIND_MAX;
        match &mut self.state {
            State::Awake(awake) => {
                let hold = if keeps_up { self.hold } else { self.hold + BEHIND_HOLD };
                let calm = awake.has_seen_activity(now, active) && !self.called && awake.may_sleep(hold);
                if !calm || !self.would_wake(mode) {
                    return self.pass(now, unit, waiting);
                }
                self.fall_asleep(now);
                Verdict::Sleep
            }
            State::Checking { since, calm_frames } => {
                let (checked, seen) = (now.saturating_duration_since(*since), *calm_frames);
                let patience = if seen > 0 && keeps_up { CHECK_TAKES } else { CHECK_WAITS };
                if seen < CHECK_FRAMES && checked < patience {
                    return match self.pass(now, unit, waiting) {
                        Verdict::Decode => Verdict::Check,
                        other => other,
                    };
                }
                if seen == 0 {
                    // Nobody knows what it was. Whether its decoder hangs is the watchdog's to say.
                    self.wakes += 1;
                    self.state = State::Awake(Awake::new(now));
                    return self.pass(now, unit, waiting);
                }
                self.activity.was_wrong();
                self.fall_asleep(now);
                Verdict::Sleep
            }
            State::Asleep(asleep) => {
                if asleep.glancing.is_some_and(|since| now.saturating_duration_since(since) > GLANCE_TAKES) {
                    // Its decoder hangs: the camera wakes up, so that this is seen.
                    (asleep.glancing, asleep.alarmed) = (None, true);
                }
                let woken = asleep.alarmed || self.called || mode == GateMode::Always;
                if woken {
                    self.wakes += 1;
                    self.wake(now, State::Awake(Awake::new(now)), group);
                    // Without a whole group it waits for the next one awake, so that its want is seen.
                    if group > 0 { Verdict::Wake } else { self.pass(now, unit, waiting) }
                } else if group > 0 && active {
                    self.checks += 1;
                    self.wake(now, State::Checking { since: now, calm_frames: 0 }, group);
                    Verdict::Wake
                } else if unit.keyframe && asleep.glancing.is_none() && now >= asleep.glance_due {
                    let audit = now >= asleep.audit_due;
                    asleep.glancing = Some(now);
                    asleep.glance_due = now + glance_interval(mode, &self.activity);
                    if audit {
                        asleep.audit_due = now + exponential(self.audit, &mut self.dice);
                    }
                    Verdict::Glance { audit }
                } else {
                    Verdict::Skip
                }
            }
        }
    }

    /// Whether enough is known of the stream to wake up by it.
    fn would_wake(&self, mode: GateMode) -> bool {
        match mode {
            GateMode::Adaptive => self.activity.is_ready(),
            GateMode::Keyframes => self.activity.group().is_some(),
            GateMode::Always => false,
        }
    }

    /// Takes what a decoded frame, which arrived `now`, looks like, and says whether the detector is to see it.
    pub(super) fn frame(&mut self, now: Instant, look: Look, miniature: &Miniature) -> bool {
        let moved =
            self.background.as_ref().is_none_or(|background| background.compare(miniature).is_motion());
        let background = self.background.get_or_insert_with(|| Background::of(miniature));
        match (&mut self.state, look) {
            (State::Awake(awake), Look::Live) => {
                let elapsed = awake.compared.map_or(SETTLE, |before| now.saturating_duration_since(before));
                background.learn(miniature, 1.0 - (-elapsed.as_secs_f32() / SETTLE.as_secs_f32()).exp());
                awake.compared = Some(now);
                if moved {
                    awake.stirred = awake.stirred.max(now);
                }
                let shown = awake.wants_analysis(now);
                self.spared += u64::from(!shown);
                shown
            }
            (State::Checking { .. }, Look::Live) if moved => {
                self.activity.was_right();
                self.wakes += 1;
                self.standing.woken(now, true);
                self.state = State::Awake(Awake::new(now));
                true
            }
            (State::Checking { since, calm_frames }, Look::Live) => {
                // What arrived before says nothing about what woke the camera.
                *calm_frames += u32::from(now >= *since);
                false
            }
            (State::Asleep(asleep), Look::Glance { audit }) => {
                asleep.glancing = None;
                if moved {
                    asleep.alarmed = true;
                    if self.activity.is_reliable() {
                        self.standing.woken(now, false);
                    }
                } else {
                    background.learn(miniature, SETTLE_ASLEEP);
                }
                // One that wakes the camera comes again with its group of pictures.
                audit && !moved
            }
            // The state changed while the frame was being decoded.
            (State::Asleep(_), Look::Live) | (_, Look::Glance { .. }) => false,
        }
    }

    /// Takes what the detector made of a frame that it was given, which arrived `now`.
    pub fn analysed(&mut self, now: Instant, sight: Sight) {
        if let State::Awake(awake) = &mut self.state {
            (awake.analysed, awake.sight) = (Some(now), sight);
            self.called = false;
            if sight == Sight::Stirring {
                awake.stirred = awake.stirred.max(now);
            }
        }
    }

    /// Takes what the detector made of a sleeping picture: whether it found what nobody knew of.
    pub fn audited(&mut self, now: Instant, missed: bool) {
        self.audits += 1;
        self.missed += u64::from(missed);
        self.standing.audited(now, missed);
        if let State::Asleep(asleep) = &mut self.state {
            asleep.alarmed |= missed;
        }
    }

    /// A keyframe could not be decoded: the camera wakes, so that its failure is seen.
    pub(super) fn glance_failed(&mut self) {
        if let State::Asleep(asleep) = &mut self.state {
            asleep.glancing = None;
        }
        self.call();
    }

    /// Somebody wants the detector to see a frame of now, whatever the camera is doing.
    pub fn call(&mut self) {
        self.called = true;
    }

    /// It does not sleep until it is told otherwise.
    pub fn keep_awake(&mut self, kept: bool) {
        self.kept = kept;
    }

    /// Since when no keyframe has come that an awake camera's decoder needs to go on.
    pub(super) fn lacks_keyframe(&self) -> Option<Instant> {
        self.lacks_keyframe
    }

    /// When what woke the camera arrived, once for each awakening.
    pub fn take_woken(&mut self) -> Option<Instant> {
        self.woken.take()
    }

    /// How often the camera woke up: whoever follows objects knows by it that time passed in which nothing happened.
    pub fn wakes(&self) -> u64 {
        self.wakes
    }

    /// What it did so far.
    pub fn health(&self, now: Instant) -> GateHealth {
        let (state, asleep) = match &self.state {
            State::Asleep(asleep) => (GateState::Asleep, now.saturating_duration_since(asleep.since)),
            _ => (GateState::Awake, Duration::ZERO),
        };
        GateHealth {
            state,
            doubt: self.standing.doubt().map(|doubt| doubt.text().to_owned()),
            asleep_s: (self.asleep + asleep).as_secs(),
            wakes: self.wakes,
            checks: self.checks,
            audits: self.audits,
            missed: self.missed,
            spared: self.spared,
        }
    }

    fn fall_asleep(&mut self, now: Instant) {
        self.activity.rest();
        self.woken = None;
        (self.in_step, self.lacks_keyframe) = (false, None);
        let audit_due = now + exponential(self.audit, &mut self.dice);
        let glance_due = now + glance_interval(self.standing.mode(), &self.activity);
        self.state =
            State::Asleep(Asleep { since: now, glance_due, audit_due, glancing: None, alarmed: false });
    }

    fn wake(&mut self, now: Instant, state: State, group: u64) {
        self.count_sleep(now);
        self.activity.rest();
        self.woken = Some(now);
        self.state = state;
        self.in_step = group > 0;
        self.catching_up = group;
    }

    fn count_sleep(&mut self, now: Instant) {
        if let State::Asleep(asleep) = &self.state {
            self.asleep += now.saturating_duration_since(asleep.since);
        }
    }

    /// What an awake camera does with a unit: nothing before the first keyframe, and after an overload nothing until the
    /// next one, because the frames between have lost their references.
    fn pass(&mut self, now: Instant, unit: &UnitFacts, waiting: u64) -> Verdict {
        if waiting < BACKLOG_MAX {
            self.catching_up = 0;
        }
        if waiting >= BACKLOG_MAX + self.catching_up {
            self.in_step = false;
        } else if unit.keyframe {
            self.in_step = true;
        }
        if self.in_step {
            self.lacks_keyframe = None;
            return Verdict::Decode;
        }
        // One that came while the decoder was full was of no use, but it came.
        let since = self.lacks_keyframe.filter(|_| !unit.keyframe);
        self.lacks_keyframe = Some(since.unwrap_or(now));
        Verdict::Skip
    }
}

impl Awake {
    fn new(now: Instant) -> Self {
        Self {
            stirred: now,
            announced: None,
            compared: None,
            analysed: None,
            shown: None,
            sight: Sight::Stirring,
        }
    }

    /// Whether the detector is to see a frame. It sees all of them while it is unsure or a rule has something to decide.
    fn wants_analysis(&mut self, now: Instant) -> bool {
        let rest = if self.sight == Sight::Calm { SPARE } else { Duration::ZERO };
        let wanted = self.shown.is_none_or(|shown| now.saturating_duration_since(shown) >= rest);
        if wanted {
            self.shown = Some(now);
        }
        wanted
    }

    /// Nothing moved for a second, as far as anybody looked.
    fn is_calm(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.stirred) >= Duration::from_secs(1)
            && self.compared > Some(self.stirred)
    }

    /// Whether somebody has seen what access units announced, this one included. What goes on for longer is announced anew
    /// by the next one: of activity that no picture shows there are moments at which all of it was seen.
    fn has_seen_activity(&mut self, now: Instant, active: bool) -> bool {
        let announced = self.announced.or(active.then_some(now));
        let seen = announced.is_none_or(|since| self.compared >= Some(since + ACTIVITY_SHOWS));
        self.announced = announced.filter(|_| !seen);
        seen
    }

    /// Somebody saw it calm for that long since something last moved, and the detector looked, too. A decoder that holds back
    /// pictures shows them late.
    fn may_sleep(&self, hold: Duration) -> bool {
        self.compared.is_some_and(|compared| compared.saturating_duration_since(self.stirred) >= hold)
            && self.analysed > Some(self.stirred)
    }
}

fn glance_interval(mode: GateMode, activity: &Activity) -> Duration {
    match mode {
        GateMode::Adaptive if activity.is_reliable() => GLANCE,
        _ => GLANCE_OFTEN,
    }
}

/// Times between events that come at random, so that no habit of a scene hides from audits.
fn exponential(mean: Duration, dice: &mut fastrand::Rng) -> Duration {
    mean.mul_f64(-(1.0 - dice.f64()).ln())
}
