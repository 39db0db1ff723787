//! What an access unit says of itself without being decoded: sizes and slice headers, of H.264 and H.265.
//!
//! Runs for every access unit of every sleeping camera, so it reads the parameter sets, the first bytes of each slice,
//! and of all the rest only where NAL units begin. No I/O, no GStreamer. Sources: ITU-T H.264 (08/2021) and H.265
//! (08/2021); clauses are named where they are read.
//!
//! # Layout
//!
//! - [`nal`]: a byte stream into NAL units;
//! - [`bits`]: the bits of a NAL unit, Exp-Golomb among them;
//! - [`h264`], [`h265`]: parameter sets and slice headers, as far as the slice quantiser.
//!
//! No crate on offer reads both: h264-reader stops at H.264, and those for H.265 stop at parameter sets or keep the slice
//! header to themselves.

mod bits;
mod h264;
mod h265;
mod nal;
#[cfg(test)]
mod tests;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// ITU-T H.264, MPEG-4 AVC.
    H264,
    /// ITU-T H.265, HEVC.
    H265,
}

/// What a picture's slices may refer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// To nothing else: I slices only.
    Intra,
    /// To other pictures, one for each block: P slices, and perhaps I slices. Also where the slices do not say it.
    #[default]
    Predicted,
    /// To two pictures at once: at least one B slice. H.265 encoders use these for pictures of the past alone, too.
    Bidirectional,
}

/// What one access unit says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitFacts {
    /// Decoding can begin here: an IDR picture (H.264), an IRAP picture (H.265).
    pub keyframe: bool,
    /// A recovery point is announced (SEI message): decoding that begins here becomes right after some pictures, as
    /// with cameras that refresh gradually and send no keyframe but the first.
    pub recovery_point: bool,
    /// What its slices may refer to.
    pub kind: Kind,
    /// Whether other pictures may refer to it.
    pub reference: bool,
    /// Bytes of its slices, headers included. The complexity of the picture, other than parameter sets, SEI messages,
    /// delimiters and padding.
    pub bytes: usize,
    /// Bytes that only keep a constant rate: filler data and padding zeros.
    pub filler: usize,
    /// Its slices, dependent slice segments included.
    pub slices: u16,
    /// Mean quantiser parameter of its slices, weighted by their bytes: 26 + init + delta. An encoder may change it within
    /// a slice, which only decoding would tell. `None` where no slice header could be read, for instance because its
    /// parameter sets have not come by.
    pub quantiser: Option<f32>,
}

/// A stream's parameter sets so far.
#[derive(Clone, Debug)]
pub struct Bitstream(ParameterSets);

#[derive(Clone, Debug)]
enum ParameterSets {
    H264(h264::ParameterSets),
    H265(h265::ParameterSets),
}

impl Bitstream {
    /// Of a stream that begins.
    pub fn new(codec: Codec) -> Self {
        Self(match codec {
            Codec::H264 => ParameterSets::H264(h264::ParameterSets::default()),
            Codec::H265 => ParameterSets::H265(h265::ParameterSets::default()),
        })
    }

    /// Reads one access unit in the byte stream format (Annex B of either standard). What cannot be read is left out.
    pub fn access_unit(&mut self, bytes: &[u8]) -> UnitFacts {
        let mut sum = Sum::default();
        for (unit, padding) in nal::units(bytes) {
            sum.facts.filler += padding;
            match &mut self.0 {
                ParameterSets::H264(sets) => sets.read(unit, &mut sum),
                ParameterSets::H265(sets) => sets.read(unit, &mut sum),
            }
        }
        sum.done()
    }
}

/// One slice's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slice {
    kind: Kind,
    quantiser: Option<i32>,
}

/// An access unit that is being read.
#[derive(Debug, Default)]
struct Sum {
    facts: UnitFacts,
    kind: Option<Kind>,
    /// Of the slice before: a dependent slice segment goes on with it.
    last: Option<Slice>,
    quantised_bytes: f64,
    weighted: f64,
}

impl Sum {
    /// Counts a slice of so many bytes, whose header may have been unreadable.
    fn slice(&mut self, bytes: usize, header: Option<Slice>) {
        self.facts.bytes += bytes;
        self.facts.slices = self.facts.slices.saturating_add(1);
        self.last = header;
        let Some(header) = header else { return };
        self.kind = self.kind.max(Some(header.kind));
        if let Some(quantiser) = header.quantiser {
            self.quantised_bytes += bytes as f64;
            self.weighted += bytes as f64 * f64::from(quantiser);
        }
    }

    fn done(mut self) -> UnitFacts {
        let unknown = if self.facts.keyframe { Kind::Intra } else { Kind::Predicted };
        self.facts.kind = self.kind.unwrap_or(unknown);
        self.facts.quantiser =
            (self.quantised_bytes > 0.0).then(|| (self.weighted / self.quantised_bytes) as f32);
        self.facts
    }
}
