//! Whether somebody has tampered with a camera: covered, sprayed, put out of focus, turned away, or fed with a picture
//! that stands still.
//!
//! # Layout
//!
//! - [`impression`]: a frame as far as tampering shows in it;
//! - [`memory`]: what the camera usually shows, and how far a picture is from it;
//! - [`frozen`]: pictures that are the same, but for a clock;
//! - [`Tamper`]: what these say, held against time, so that a passing van raises nothing.
//!
//! Everything is judged against the camera's own past. It follows what changes slowly, is kept apart for colour and
//! monochrome pictures (day and infrared light), and is recognised by the patterns of brightness in small blocks, which
//! neither exposure nor a light that is switched on changes in most of the picture.

mod frozen;
mod impression;
mod memory;
#[cfg(test)]
mod tests;

use std::time::Duration;

use sharp_eyes_protocol::alert::Tampering;

use frozen::Frozen;
pub use impression::Impression;
use memory::Memory;

/// When something is tampering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TamperOptions {
    /// How long it has to last, and how long the picture has to be as before for it to be over.
    pub after: Duration,
    /// How long a picture has to stand still.
    pub frozen_after: Duration,
    /// How long nothing may have changed in it, however it is encoded; for ever if not given.
    pub unchanged_after: Option<Duration>,
}

impl TamperOptions {
    /// How long pictures of a camera of which nothing is known have to come until it can be said that nothing was done to it.
    pub fn settles_after(&self) -> Duration {
        memory::LEARNS.max(self.frozen_after) + self.after
    }
}

/// Looks in which it has to be seen, however rare they are, and after which it is over.
const LOOKS: u32 = 3;

/// Pictures that come farther apart than this are no sequence.
const GAP: Duration = Duration::from_secs(60);

/// How long a camera may be turned away until what it shows is what it usually shows: somebody has aimed it anew.
const ACCEPTED: Duration = Duration::from_secs(86_400);

/// Covered: so many blocks are flat, and so few show the same.
const COVERED: (f32, f32) = (0.6, 0.3);

/// Turned away: fewer blocks show the same. Measured on five clips (street, road, room, city and infrared at night): 0.72
/// to 0.97 of the blocks show the same in the clip itself, 0.05 to 0.26 in another clip or in this one moved by 15 %.
const TURNED: f32 = 0.3;

/// The same two against a memory of the other kind of light: much may be dark then, and little look the same.
const COVERED_IN_OTHER_LIGHT: (f32, f32) = (0.9, 0.05);
const TURNED_IN_OTHER_LIGHT: f32 = 0.05;

/// Out of focus: the median block has less than this part of its usual sharpness, and is as soft as this. Sharp pictures
/// of any kind have twice that, so that noise that ceases is no blur.
const BLURRED: (f32, f32) = (0.5, 0.06);

/// Watches one camera.
#[derive(Clone, Debug)]
pub struct Tamper {
    options: TamperOptions,
    /// Of colour pictures, and of monochrome ones.
    memories: [Option<Memory>; 2],
    frozen: Frozen,
    state: State,
    observed: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Usual,
    Suspected { what: Tampering, since: Duration, looks: u32 },
    Found { what: Tampering, since: Duration, instead: Option<Instead> },
}

/// What a picture alone looks like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Judged {
    Usual,
    /// Nothing can be told: no memory is of pictures like this one, or it shows too little.
    Unknown,
    Found(Tampering),
}

/// What pictures have looked like since they no longer look like what was found.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Instead {
    judged: Judged,
    since: Duration,
    looks: u32,
}

impl Tamper {
    /// Without experience: the first half minute of pictures is taken for usual.
    pub fn new(options: TamperOptions) -> Self {
        Self {
            options,
            memories: [None, None],
            frozen: Frozen::default(),
            state: State::Usual,
            observed: None,
        }
    }

    /// Takes a picture. They may come at any rate, in the order of time.
    pub fn observe(&mut self, now: Duration, seen: &Impression) {
        let passed = self.observed.replace(now).map_or(Duration::ZERO, |last| now.saturating_sub(last));
        if passed > GAP {
            self.frozen.gap();
            if let State::Suspected { .. } = self.state {
                self.state = State::Usual;
            }
        }
        let TamperOptions { frozen_after, unchanged_after, .. } = self.options;
        let frozen = self.frozen.observe(now, &seen.miniature, frozen_after, unchanged_after);
        let judged = self.judge(seen);
        self.state = match (self.state, judged) {
            (State::Found { what: Tampering::Frozen, .. }, _) if frozen => self.state,
            // That took its time already.
            (State::Usual | State::Suspected { .. }, Judged::Usual | Judged::Unknown) if frozen => {
                State::Found { what: Tampering::Frozen, since: now, instead: None }
            }
            (State::Usual | State::Suspected { .. }, Judged::Usual | Judged::Unknown) => {
                self.learn(seen, passed);
                State::Usual
            }
            (State::Usual, Judged::Found(what)) => State::Suspected { what, since: now, looks: 1 },
            (State::Suspected { since, looks, .. }, Judged::Found(what)) => {
                if looks + 1 >= LOOKS && now.saturating_sub(since) >= self.options.after {
                    State::Found { what, since, instead: None }
                } else {
                    State::Suspected { what, since, looks: looks + 1 }
                }
            }
            (State::Found { what, since, .. }, judged)
                if now.saturating_sub(since) >= ACCEPTED && self.is_new_usual(what, judged, seen) =>
            {
                self.memories = [None, None];
                State::Usual
            }
            (State::Found { what, since, instead }, judged) => self.last(now, (what, since), instead, judged),
        };
    }

    /// What was found goes on until pictures have looked otherwise for its time: as usual, or in another wrong way.
    fn last(
        &self,
        now: Duration,
        (what, since): (Tampering, Duration),
        instead: Option<Instead>,
        judged: Judged,
    ) -> State {
        let judged = match judged {
            // That it moves again is known without a memory.
            Judged::Unknown if what == Tampering::Frozen => Judged::Usual,
            Judged::Unknown => return State::Found { what, since, instead },
            // A camera that was turned away looks covered at night, and is turned away all the same.
            Judged::Found(other) if other == what || what == Tampering::TurnedAway => {
                return State::Found { what, since, instead: None };
            }
            judged => judged,
        };
        let first = Instead { judged, since: now, looks: 0 };
        let mut instead = instead.filter(|instead| instead.judged == judged).unwrap_or(first);
        instead.looks += 1;
        if instead.looks < LOOKS || now.saturating_sub(instead.since) < self.options.after {
            return State::Found { what, since, instead: Some(instead) };
        }
        match judged {
            Judged::Found(what) => State::Found { what, since: instead.since, instead: None },
            Judged::Usual | Judged::Unknown => State::Usual,
        }
    }

    /// Whether what has been found for so long may be what the camera shows from now on: where it was aimed anew, or sends
    /// pictures of another size, with which no memory can be compared. What covers or blurs a lens never is: it would be
    /// learned, and a black picture says nothing ever again. So a covered camera whose pictures change their size for good
    /// stays covered until one of them shows more than a covered one: by day at the latest, once it is uncovered.
    fn is_new_usual(&self, what: Tampering, judged: Judged, seen: &Impression) -> bool {
        match judged {
            Judged::Found(Tampering::TurnedAway) => what == Tampering::TurnedAway,
            Judged::Unknown => {
                let sharp = seen.sharpness.iter().flatten().filter(|sharpness| **sharpness > BLURRED.1);
                let fits = self.memories.iter().flatten().any(|memory| memory.fits(seen));
                !fits && sharp.count() as f32 > (1.0 - COVERED.0) * seen.sharpness.len() as f32
            }
            Judged::Usual | Judged::Found(_) => false,
        }
    }

    /// What was found, until it is over.
    pub fn found(&self) -> Option<Tampering> {
        match self.state {
            State::Found { what, .. } => Some(what),
            _ => None,
        }
    }

    /// Whether places in the picture are not where they were: also while that is only suspected, because a camera that is
    /// being turned shows people at wrong places at once.
    pub fn is_displaced(&self) -> bool {
        match self.state {
            State::Usual => false,
            State::Suspected { what, looks, .. } => what == Tampering::TurnedAway && looks > 1,
            State::Found { what, .. } => what == Tampering::TurnedAway,
        }
    }

    fn learn(&mut self, seen: &Impression, passed: Duration) {
        let memory = &mut self.memories[usize::from(seen.monochrome)];
        match memory {
            Some(memory) if memory.fits(seen) => memory.learn(seen, passed),
            _ => *memory = Some(Memory::of(seen)),
        }
    }

    /// What this picture alone looks like.
    fn judge(&self, seen: &Impression) -> Judged {
        let of = |light: bool| {
            let memory = self.memories[usize::from(light)].as_ref();
            memory.filter(|memory| memory.is_ready() && memory.fits(seen))
        };
        let (memory, (flat, other), turned, own) = match (of(seen.monochrome), of(!seen.monochrome)) {
            (Some(memory), _) => (memory, COVERED, TURNED, true),
            (None, Some(memory)) => (memory, COVERED_IN_OTHER_LIGHT, TURNED_IN_OTHER_LIGHT, false),
            (None, None) => return Judged::Unknown,
        };
        let Some(found) = memory.compare(seen) else { return Judged::Unknown };
        let blurred = |(sharpness, part): (f32, f32)| part < BLURRED.0 && sharpness < BLURRED.1;
        if found.flat >= flat && found.same < other {
            Judged::Found(Tampering::Covered)
        } else if found.same < turned {
            Judged::Found(Tampering::TurnedAway)
        } else if own && found.sharpness.is_some_and(blurred) {
            Judged::Found(Tampering::Defocused)
        } else {
            Judged::Usual
        }
    }
}
