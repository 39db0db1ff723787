//! One decoded picture in the decoder's own planes.

use std::time::Instant;

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use sharp_eyes_vision::{Colour, FrameView, PixelFormat, Plane};

/// A picture that still lies in the decoder's memory: holding it keeps one buffer of the decoder's pool.
#[derive(Clone, Debug)]
pub struct Frame {
    buffer: gst::Buffer,
    info: gst_video::VideoInfo,
    arrived: Instant,
    late: bool,
    audit: bool,
}

/// A frame cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum FrameError {
    #[error("the decoder's buffer cannot be mapped for reading")]
    Unmappable,
    #[error("the decoder delivers {0}; expected I420 or NV12")]
    Format(String),
    #[error(transparent)]
    Planes(#[from] sharp_eyes_vision::frame::FrameError),
}

impl Frame {
    pub(super) fn new(buffer: gst::Buffer, info: gst_video::VideoInfo, arrived: Instant) -> Self {
        Self { buffer, info, arrived, late: false, audit: false }
    }

    /// The same, of the time before its camera woke up.
    pub(super) fn late(self, late: bool) -> Self {
        Self { late, ..self }
    }

    /// The same, of a camera that sleeps on.
    pub(super) fn audit(self, audit: bool) -> Self {
        Self { audit, ..self }
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

    /// Maps the planes, without a copy, for as long as `look` runs.
    pub fn view<T>(&self, look: impl FnOnce(&FrameView<'_>) -> T) -> Result<T, FrameError> {
        Ok(look(&self.map()?.view()))
    }

    /// Maps the planes, without a copy.
    pub fn map(&self) -> Result<Picture, FrameError> {
        let mapped = gst_video::VideoFrame::from_buffer_readable(self.buffer.clone(), &self.info)
            .map_err(|_| FrameError::Unmappable)?;
        let picture = Picture(mapped);
        picture.planes()?;
        Ok(picture)
    }
}

/// The mapped planes of a frame.
pub struct Picture(gst_video::VideoFrame<gst_video::video_frame::Readable>);

impl Picture {
    /// Borrows them.
    pub fn view(&self) -> FrameView<'_> {
        self.planes().expect("the same planes as when they were mapped")
    }

    fn planes(&self) -> Result<FrameView<'_>, FrameError> {
        let (mapped, info) = (&self.0, self.0.info());
        let format = match info.format() {
            gst_video::VideoFormat::I420 => PixelFormat::I420,
            gst_video::VideoFormat::Nv12 => PixelFormat::Nv12,
            other => return Err(FrameError::Format(other.to_string())),
        };
        let mut planes = [Plane { data: &[], stride: 0 }; 3];
        for index in 0..mapped.n_planes() {
            let data = mapped.plane_data(index).map_err(|_| FrameError::Unmappable)?;
            let stride = usize::try_from(mapped.plane_stride()[index as usize]).unwrap_or(0);
            planes[index as usize] = Plane { data, stride };
        }
        let colorimetry = info.colorimetry();
        let colour = match colorimetry.matrix() {
            gst_video::VideoColorMatrix::Bt709 => Colour::Bt709,
            _ => Colour::Bt601,
        };
        let full_range = colorimetry.range() == gst_video::VideoColorRange::Range0_255;
        let planes = &planes[..mapped.n_planes() as usize];
        Ok(FrameView::new(mapped.width(), mapped.height(), format, colour, full_range, planes)?)
    }
}
