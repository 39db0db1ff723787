//! Which access units are decoded: access-unit facts in, verdicts out, no I/O and no clock.
//!
//! The gate stands between ingest and decode so that a sleeping camera costs no decoding. Today it knows one mode,
//! [`GateMode::Always`]; what it already does is to keep the decoder sane: nothing before the first keyframe, and
//! after an overload nothing until the next keyframe, because the frames between have lost their references.

/// When a camera's access units are decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GateMode {
    /// Always: no sleep.
    #[default]
    Always,
}

/// What the gate sees of an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnitFacts {
    /// Whether it can be decoded without any other.
    pub(super) keyframe: bool,
}

/// What becomes of an access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Decode,
    Skip,
}

/// Access units that may wait in front of the decoder: two seconds at 15 fps. A decoder that is further behind
/// than this will not catch up, and what it would deliver is old.
pub(super) const BACKLOG_MAX: u64 = 30;

/// The gate of one connection.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    mode: GateMode,
    in_step: bool,
}

impl Gate {
    pub(super) fn new(mode: GateMode) -> Self {
        Self { mode, in_step: false }
    }

    /// `backlog` counts the access units that wait in front of the decoder.
    pub(super) fn admit(&mut self, unit: UnitFacts, backlog: u64) -> Verdict {
        if backlog >= BACKLOG_MAX {
            self.in_step = false;
        } else if unit.keyframe {
            self.in_step = true;
        }
        match self.mode {
            GateMode::Always if self.in_step => Verdict::Decode,
            GateMode::Always => Verdict::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `K` keyframe, `p` delta unit, `!` a delta unit and `X` a keyframe while the decoder is full; the verdicts: `d` and `.`
    fn check(units: &str, verdicts: &str) {
        let mut gate = Gate::new(GateMode::Always);
        let seen: String = units
            .chars()
            .map(|unit| {
                let backlog = if "!X".contains(unit) { BACKLOG_MAX } else { 0 };
                match gate.admit(UnitFacts { keyframe: "KX".contains(unit) }, backlog) {
                    Verdict::Decode => 'd',
                    Verdict::Skip => '.',
                }
            })
            .collect();
        assert_eq!(seen, verdicts, "{units}");
    }

    #[test]
    fn decoding_starts_and_resumes_at_a_keyframe_only() {
        check("ppKppKp", "..ddddd");
        check("Kpp!ppKp", "ddd...dd");
        check("KXppKp", "d...dd");
    }
}
