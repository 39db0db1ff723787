//! RTSP to access units: receives, depayloads and parses, and never decodes.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_rtsp as gst_rtsp;
use tokio::sync::mpsc;

use super::bitstream::{Bitstream, Codec, UnitFacts};
use super::certificate::vouch_by;
use super::in_order::{CLOCK_RATE, instead_of_jitter_buffers};
use super::{CameraError, CameraOptions, bus};
use crate::secret::Secret;

/// What RTP runs over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Interleaved in the RTSP connection: passes firewalls, loses nothing, may stall.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// One coded picture, as the parser delivers it: byte stream, parameter sets before every keyframe.
///
/// A clone shares the bytes.
#[derive(Clone)]
pub(super) struct AccessUnit {
    sample: gst::Sample,
    arrived: Instant,
}

impl AccessUnit {
    /// A sample with a buffer and caps, and when it arrived.
    pub(super) fn new(sample: gst::Sample, arrived: Instant) -> Self {
        Self { sample, arrived }
    }

    /// Codec, profile, size.
    pub(super) fn caps(&self) -> &gst::CapsRef {
        self.sample.caps().expect("an appsink's sample has caps")
    }

    /// What it says of itself. Whether it is a keyframe, the parser knows best; what cannot be read is referred to.
    pub(super) fn facts(&self, bitstream: &mut Bitstream) -> UnitFacts {
        let unread = UnitFacts { reference: true, ..UnitFacts::default() };
        let Some(buffer) = self.sample.buffer() else { return unread };
        let facts = buffer.map_readable().map_or(unread, |bytes| bitstream.access_unit(&bytes));
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        UnitFacts { keyframe, reference: facts.reference || facts.slices == 0, ..facts }
    }

    /// How it is compressed.
    pub(super) fn codec(&self) -> Codec {
        match self.caps().structure(0).map(|structure| structure.name().as_str()) {
            Some("video/x-h265") => Codec::H265,
            _ => Codec::H264,
        }
    }

    /// Bytes of memory.
    pub(super) fn size(&self) -> usize {
        self.sample.buffer().map_or(0, |buffer| buffer.size())
    }

    pub(super) fn arrived(&self) -> Instant {
        self.arrived
    }

    pub(super) fn into_sample(self) -> gst::Sample {
        self.sample
    }
}

/// How long a camera may take to end a session. A hung one never does.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Streams of one connection that are looked into for access units.
const STREAMS_MAX: u32 = 4;

/// What is done with each access unit, on the receiving thread.
type OnUnit = Box<dyn FnMut(AccessUnit) -> Result<(), CameraError> + Send>;

/// A running ingest pipeline: `rtspsrc ! depayloader ! parser ! appsink`. Ends when dropped.
pub(super) struct Ingest {
    /// Until it is told to stop, which is once: a second time would wait for the first.
    pipeline: Option<gst::Pipeline>,
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if let Some(pipeline) = self.pipeline.take() {
            bus::flush_and_stop(pipeline);
        }
    }
}

impl Ingest {
    /// Ends the session in good order: cameras have few connections, and keep one that was not torn down for minutes.
    pub(super) async fn stop(mut self) {
        let Some(pipeline) = self.pipeline.take() else { return };
        let name = pipeline.name();
        let stopped = bus::flush_and_stop(pipeline);
        if tokio::time::timeout(STOP_GRACE, stopped).await.is_err() {
            tracing::warn!(pipeline = %name, "the camera does not let go: left behind");
        }
    }

    pub(super) fn start(
        options: &CameraOptions,
        login: Option<(String, Secret)>,
        on_unit: impl FnMut(AccessUnit) -> Result<(), CameraError> + Send + 'static,
        failed: mpsc::Sender<CameraError>,
    ) -> Result<Self, CameraError> {
        let pipeline = gst::Pipeline::builder().name(format!("ingest-{}", options.name)).build();
        let source = gst::ElementFactory::make("rtspsrc")
            .property("location", &options.url)
            .property("latency", u32::try_from(options.latency.as_millis()).unwrap_or(u32::MAX))
            .property_from_str(
                "protocols",
                match options.transport {
                    Transport::Tcp => "tcp",
                    Transport::Udp => "udp",
                },
            )
            .property("timeout", 0_u64) // no silent change from UDP to TCP: the watchdog decides
            .build()?;
        if let Some((user, password)) = login {
            source.set_property("user-id", user);
            source.set_property("user-pw", password.expose());
        }
        vouch_by(options.ca.clone(), &source, failed.clone());
        pipeline.add(&source)?;
        bus::forward(&pipeline, |_| {}, failed.clone(), describe);
        if options.transport == Transport::Tcp {
            instead_of_jitter_buffers(&source);
        }
        bound_streams(&source);
        take_one_video(&source);
        ask_twice_at_most(&source);

        // Packets of a session that the camera forgot to end make a stream of their own, and may come first: the one that
        // the first access unit comes out of is the camera's.
        let on_unit: Arc<Mutex<Option<OnUnit>>> = Arc::new(Mutex::new(Some(Box::new(on_unit))));
        let weak = pipeline.downgrade();
        let streams = AtomicU32::new(0);
        source.connect_pad_added(move |_, pad| {
            let Some(pipeline) = weak.upgrade() else { return };
            if streams.fetch_add(1, Ordering::Relaxed) >= STREAMS_MAX {
                return; // what comes out of it is dropped
            }
            if let Err(error) = attach(&pipeline, pad, on_unit.clone(), failed.clone()) {
                let _ = failed.try_send(error); // full: an earlier error ends the connection already
            }
        });
        let ingest = Self { pipeline: Some(pipeline.clone()) };
        pipeline.set_state(gst::State::Playing).map_err(|error| CameraError::GStreamer(error.to_string()))?;
        Ok(ingest)
    }
}

/// A camera that says with each packet that it is another stream gets no more elements for them.
fn bound_streams(source: &gst::Element) {
    source.connect("new-manager", false, |arguments| {
        arguments.get(1)?.get::<gst::Element>().ok()?.set_property("max-streams", STREAMS_MAX);
        None
    });
}

/// Audio, metadata and a second video stream are not even asked of the camera.
fn take_one_video(source: &gst::Element) {
    let taken = AtomicBool::new(false);
    source.connect("select-stream", false, move |arguments| {
        let caps = arguments.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let is_video = caps
            .as_ref()
            .and_then(|caps| caps.structure(0))
            .and_then(|structure| structure.get::<&str>("media").ok())
            .is_some_and(|media| media == "video");
        Some((is_video && !taken.swap(true, Ordering::Relaxed)).to_value())
    });
}

/// Left alone, `rtspsrc` shows a refused password eight times at each attempt, which is enough to lock an account. Once
/// more is right: the number that the camera gave for the digest may have been used up.
fn ask_twice_at_most(source: &gst::Element) {
    let repeated = AtomicU32::new(0);
    source.connect("before-send", false, move |arguments| {
        let request =
            arguments.get(1).and_then(|value| value.get::<gst_rtsp::rtsp_message::RTSPMessage>().ok());
        // Passwords are added after this: a request that holds one was sent with it, and was refused.
        let again = request.is_some_and(|request| !request.parse_auth_credentials().is_empty());
        if !again {
            repeated.store(0, Ordering::Relaxed);
        }
        Some((!again || repeated.fetch_add(1, Ordering::Relaxed) == 0).to_value())
    });
}

/// Puts depayloader, parser and sink behind a pad that carries video. Its first access unit takes `on_unit`; where another
/// stream has that, its units are dropped.
fn attach(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    on_unit: Arc<Mutex<Option<OnUnit>>>,
    failed: mpsc::Sender<CameraError>,
) -> Result<(), CameraError> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let encoding = caps.structure(0).and_then(|structure| structure.get::<String>("encoding-name").ok());
    let (depayloader, parser, media) = match encoding.as_deref() {
        Some("H264") => ("rtph264depay", "h264parse", "video/x-h264"),
        Some("H265") => ("rtph265depay", "h265parse", "video/x-h265"),
        other => return Err(CameraError::Encoding(other.unwrap_or("an unknown encoding").to_owned())),
    };
    let clock_rate = caps.structure(0).and_then(|structure| structure.get::<i32>("clock-rate").ok());
    if let Some(rate) = clock_rate.filter(|rate| *rate != CLOCK_RATE) {
        return Err(CameraError::ClockRate(rate));
    }
    let depayloader = gst::ElementFactory::make(depayloader).build()?;
    // Parameter sets before every keyframe: whoever starts there needs nothing from before.
    let parser = gst::ElementFactory::make(parser).property("config-interval", -1).build()?;
    let units =
        gst::Caps::builder(media).field("stream-format", "byte-stream").field("alignment", "au").build();
    // The callback consumes each unit on the receiving thread, so that the one buffer allowed here never waits. No stream
    // waits for the first unit of another.
    let sink = gst_app::AppSink::builder().caps(&units).sync(false).async_(false).max_buffers(1).build();
    let mut taken = None;
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                if sample.buffer().is_none() || sample.caps().is_none() {
                    return Ok(gst::FlowSuccess::Ok);
                }
                if taken.is_none() {
                    taken = on_unit.lock().ok().and_then(|mut slot| slot.take());
                }
                let Some(on_unit) = &mut taken else { return Ok(gst::FlowSuccess::Ok) };
                on_unit(AccessUnit::new(sample, Instant::now())).map(|()| gst::FlowSuccess::Ok).map_err(
                    |error| {
                        let _ = failed.try_send(error); // full: an earlier error ends the connection already
                        gst::FlowError::Error
                    },
                )
            })
            .build(),
    );
    let chain = [&depayloader, &parser, sink.upcast_ref::<gst::Element>()];
    pipeline.add_many(chain)?;
    gst::Element::link_many(chain)?;
    for element in chain {
        element.sync_state_with_parent()?;
    }
    let entry = depayloader.static_pad("sink").expect("a depayloader has a sink pad");
    pad.link(&entry)
        .map_err(|error| CameraError::GStreamer(format!("cannot link the depayloader: {error}")))?;
    Ok(())
}

fn describe(error: &bus::Failure<'_>) -> CameraError {
    let text = error.text();
    match (error.rtsp_status(), error.kind::<gst::ResourceError>()) {
        // Some say 403 of an account that they have locked.
        (Some(401 | 403), _) | (_, Some(gst::ResourceError::NotAuthorized)) => CameraError::Refused(text),
        (Some(453 | 503), _) => CameraError::Busy(text),
        (_, Some(_)) => CameraError::Unreachable(text),
        (_, None) => CameraError::GStreamer(text),
    }
}
