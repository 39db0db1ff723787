//! One keyframe of a sleeping camera to a picture: its decoder is let go at once, so that sleep costs neither time nor memory.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use super::decode::{Kind, choose, planes, tune};
use super::frame::Frame;
use super::ingest::AccessUnit;
use super::threads::give_way;
use super::{CameraError, bus};

/// One keyframe of a sleeping camera on its way through a decoder. Given up when dropped.
pub(super) struct Glance {
    pipeline: UnderWay,
    /// Disconnected when it has been seen. Nothing is ever sent.
    unseen: Receiver<()>,
}

impl Glance {
    /// Whether the picture has been seen, or none came out. Waits for it.
    pub(super) fn settled(&self, patience: Duration) -> bool {
        self.unseen.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

impl Drop for Glance {
    fn drop(&mut self) {
        self.pipeline.stop();
    }
}

/// A pipeline until it is stopped. Nobody keeps it after that: its appsink holds on to the last picture.
#[derive(Clone)]
struct UnderWay(Arc<Mutex<Option<gst::Pipeline>>>);

impl UnderWay {
    fn stop(&self) {
        if let Some(pipeline) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bus::stop(pipeline);
        }
    }
}

/// Decodes one keyframe alone, on threads of its own, and hands it to `seen`; `None` where nothing came out.
///
/// By software wherever there is some: hardware decoders leak memory at each start (rockchip-linux/gstreamer-rockchip 69),
/// and one picture is cheap.
pub(super) fn glance(
    decoder: Option<&str>,
    unit: AccessUnit,
    name: &str,
    seen: impl FnOnce(Option<Frame>) + Send + 'static,
) -> Result<Glance, CameraError> {
    let caps = unit.caps().to_owned();
    let decoder = choose(None, &caps, Kind::Software).or_else(|_| choose(decoder, &caps, Kind::Any))?;
    tune(&decoder);
    let pipeline = gst::Pipeline::builder().name(format!("glance-{name}")).build();
    // Holds one access unit.
    let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).build();
    let convert = gst::ElementFactory::make("videoconvert").build()?;
    let sink = planes();
    let chain = [source.upcast_ref::<gst::Element>(), &decoder, &convert, sink.upcast_ref()];
    pipeline.add_many(chain)?;
    gst::Element::link_many(chain)?;

    // Whichever comes first: the picture, or the end without one.
    let (waiting, unseen) = channel();
    let seen = Arc::new(Mutex::new(Some((seen, waiting))));
    let see = move |frame| {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((seen, _waiting)) = seen {
            seen(frame);
        }
    };
    let arrived = unit.arrived();
    let on_sample = see.clone();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let info = sample.caps().and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
                on_sample(
                    sample.buffer_owned().zip(info).map(|(buffer, info)| Frame::new(buffer, info, arrived)),
                );
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    let under_way = UnderWay(Arc::new(Mutex::new(Some(pipeline.clone()))));
    let glance = Glance { pipeline: under_way.clone(), unseen };
    bus::ended(&pipeline, give_way, move || {
        see(None);
        under_way.stop();
    });
    let failed = |error: &dyn std::fmt::Display| CameraError::Decode(error.to_string());
    pipeline.set_state(gst::State::Playing).map_err(|error| failed(&error))?;
    if let Some(buffer) = unit.into_sample().buffer_owned() {
        source.push_buffer(buffer).map_err(|error| failed(&error))?;
    }
    source.end_of_stream().map_err(|error| failed(&error))?;
    Ok(glance)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_glance_lets_go_of_its_decoder_and_its_picture_once_that_was_seen() {
        gst::init().unwrap();
        let line = "videotestsrc num-buffers=1 ! video/x-raw,width=64,height=48 ! x264enc ! h264parse ! \
                    video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=units";
        let camera = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
        camera.set_state(gst::State::Playing).unwrap();
        let units = camera.by_name("units").and_downcast::<gst_app::AppSink>().unwrap();
        let unit = AccessUnit::new(units.pull_sample().unwrap(), Instant::now());
        camera.set_state(gst::State::Null).unwrap();

        let (tell, told) = channel();
        let glance = glance(None, unit, "gate", move |frame| tell.send(frame.is_some()).unwrap()).unwrap();
        let patience = Duration::from_secs(60);
        assert_eq!(told.recv_timeout(patience), Ok(true));
        assert!(glance.settled(patience));
        let (began, kept) = (Instant::now(), || glance.pipeline.0.lock().unwrap().is_some());
        while kept() {
            assert!(began.elapsed() < patience, "it is kept");
            std::thread::yield_now();
        }
    }
}
