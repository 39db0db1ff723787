//! One decoded picture in the decoder's own planes.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use sharp_eyes_vision::{Colour, FrameView, Miniature, PixelFormat, Plane};

/// A picture that still lies in the decoder's memory: holding it keeps one buffer of the decoder's pool.
#[derive(Clone, Debug)]
pub struct Frame {
    buffer: gst::Buffer,
    info: gst_video::VideoInfo,
    arrived: Instant,
    late: bool,
    audit: bool,
    miniature: Option<Arc<Miniature>>,
    narrowed: Narrowed,
}

/// The upper eight of ten bits of all samples, plane by plane as they are mapped, once somebody has looked at them; empty
/// where samples have eight.
type Narrowed = Arc<OnceLock<Vec<u8>>>;

/// A frame cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum FrameError {
    #[error("the decoder's buffer cannot be mapped for reading")]
    Unmappable,
    #[error("the decoder delivers {0}; expected I420 or NV12, of eight or ten bits")]
    Format(String),
    #[error(transparent)]
    Planes(#[from] sharp_eyes_vision::frame::FrameError),
}

impl Frame {
    pub(super) fn new(buffer: gst::Buffer, info: gst_video::VideoInfo, arrived: Instant) -> Self {
        let narrowed = Narrowed::default();
        Self { buffer, info, arrived, late: false, audit: false, miniature: None, narrowed }
    }

    /// The same, of the time before its camera woke up.
    pub(super) fn late(self, late: bool) -> Self {
        Self { late, ..self }
    }

    /// The same, of a camera that sleeps on.
    pub(super) fn audit(self, audit: bool) -> Self {
        Self { audit, ..self }
    }

    /// The same, with its miniature, without what the camera's masks cover, if there is one.
    pub(super) fn with_miniature(self, miniature: Option<Arc<Miniature>>) -> Self {
        Self { miniature, ..self }
    }

    /// Its miniature, where the gate has asked for one.
    pub fn miniature(&self) -> Option<&Miniature> {
        self.miniature.as_deref()
    }

    /// Whether it is of the time before its camera woke up: there are several at once, and each tells something.
    pub fn is_late(&self) -> bool {
        self.late
    }

    /// Whether its camera sleeps on, and only wants to know what that hides.
    pub fn is_audit(&self) -> bool {
        self.audit
    }

    /// When the access unit that it was decoded from had arrived completely.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Maps the planes for as long as `look` runs.
    pub fn view<T>(&self, look: impl FnOnce(&FrameView<'_>) -> T) -> Result<T, FrameError> {
        Ok(look(&self.map()?.view()))
    }

    /// Maps the planes, without a copy where they are of eight bits.
    pub fn map(&self) -> Result<Picture, FrameError> {
        let mapped = gst_video::VideoFrame::from_buffer_readable(self.buffer.clone(), &self.info)
            .map_err(|_| FrameError::Unmappable)?;
        let shift = match mapped.format() {
            gst_video::VideoFormat::I42010le => Some(2),
            gst_video::VideoFormat::P01010le => Some(8),
            _ => None,
        };
        if let Some(shift) = shift.filter(|_| self.narrowed.get().is_none()) {
            let _ = self.narrowed.set(narrow(&mapped, shift)?); // or somebody else did at the same time
        }
        let picture = Picture { mapped, narrowed: self.narrowed.clone() };
        picture.planes()?;
        Ok(picture)
    }
}

/// Samples of ten bits, of which the upper eight begin at bit `shift`.
fn narrow(
    mapped: &gst_video::VideoFrame<gst_video::video_frame::Readable>,
    shift: u32,
) -> Result<Vec<u8>, FrameError> {
    let mut narrowed = Vec::with_capacity(mapped.buffer().size() / 2);
    for index in 0..mapped.n_planes() {
        let data = mapped.plane_data(index).map_err(|_| FrameError::Unmappable)?;
        let samples = data.as_chunks().0.iter().map(|sample| u16::from_le_bytes(*sample));
        narrowed.extend(samples.map(|sample| (sample >> shift) as u8));
    }
    Ok(narrowed)
}

/// The planes of a frame as they are looked at.
pub struct Picture {
    mapped: gst_video::VideoFrame<gst_video::video_frame::Readable>,
    narrowed: Narrowed,
}

impl Picture {
    /// Borrows them.
    pub fn view(&self) -> FrameView<'_> {
        self.planes().expect("the same planes as when they were mapped")
    }

    fn planes(&self) -> Result<FrameView<'_>, FrameError> {
        let (mapped, info) = (&self.mapped, self.mapped.info());
        let format = match info.format() {
            gst_video::VideoFormat::I420 | gst_video::VideoFormat::I42010le => PixelFormat::I420,
            gst_video::VideoFormat::Nv12 | gst_video::VideoFormat::P01010le => PixelFormat::Nv12,
            other => return Err(FrameError::Format(other.to_string())),
        };
        let mut planes = [Plane { data: &[], stride: 0 }; 3];
        let mut narrowed = self.narrowed.get().map_or(&[][..], Vec::as_slice);
        let ten_bits = !narrowed.is_empty();
        for index in 0..mapped.n_planes() {
            let mut data = mapped.plane_data(index).map_err(|_| FrameError::Unmappable)?;
            let mut stride = usize::try_from(mapped.plane_stride()[index as usize]).unwrap_or(0);
            if ten_bits {
                (data, narrowed) = narrowed.split_at(data.len() / 2);
                stride /= 2;
            }
            planes[index as usize] = Plane { data, stride };
        }
        let colorimetry = info.colorimetry();
        let colour = match colorimetry.matrix() {
            gst_video::VideoColorMatrix::Bt709 | gst_video::VideoColorMatrix::Bt2020 => Colour::Bt709,
            _ => Colour::Bt601,
        };
        let full_range = colorimetry.range() == gst_video::VideoColorRange::Range0_255;
        let planes = &planes[..mapped.n_planes() as usize];
        Ok(FrameView::new(mapped.width(), mapped.height(), format, colour, full_range, planes)?)
    }
}

#[cfg(test)]
mod tests {
    use gstreamer_app as gst_app;

    use super::*;

    fn picture(format: &str) -> Picture {
        gst::init().unwrap();
        let line = format!(
            "videotestsrc num-buffers=1 ! video/x-raw,format={format},width=66,height=50,colorimetry=bt709 ! \
             appsink name=sink"
        );
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("sink").and_downcast::<gst_app::AppSink>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let sample = sink.pull_sample().unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        Frame::new(sample.buffer_owned().unwrap(), info, Instant::now()).map().unwrap()
    }

    #[test]
    fn ten_bits_show_what_eight_do() {
        for (ten, eight) in [("I420_10LE", "I420"), ("P010_10LE", "NV12")] {
            let (ten, eight) = (picture(ten), picture(eight));
            let (ten, view) = (ten.view(), eight.view());
            assert_eq!((ten.format(), ten.colour()), (view.format(), view.colour()));
            assert_eq!(ten.planes().len(), view.planes().len());
            let (mut most, mut least) = (0, 255);
            for (index, (ten, eight)) in ten.planes().iter().zip(view.planes()).enumerate() {
                let (columns, rows, bytes) = view.plane_size(index);
                for row in 0..rows as usize {
                    for column in 0..columns as usize * bytes {
                        let (a, b) =
                            (ten.data[row * ten.stride + column], eight.data[row * eight.stride + column]);
                        assert!(a.abs_diff(b) <= 1, "plane {index}, {column},{row}: {a} and {b}");
                        (most, least) = (most.max(b), least.min(b));
                    }
                }
            }
            assert!(most > 200 && least < 40, "there is something in the picture");
        }
    }
}
