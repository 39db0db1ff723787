//! RTP that arrives in order, passed on at once.
//!
//! `rtspsrc` keeps a jitter buffer behind every stream, whose thread wakes up for each packet: 420 times a second at
//! 3 Mbit/s, which was a third of what a sleeping camera cost. Over TCP nothing arrives in disorder and nothing is to
//! be waited for: what the camera left out, the depayloader sees by the numbers of the packets. This element stands in
//! `rtpbin` where the jitter buffer would, and does what is left of its work on the receiving thread: time stamps.

use std::sync::{LazyLock, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;

use super::ingest::CLOCK_RATE;

/// Puts this element into the sessions of an `rtspsrc`.
pub(super) fn instead_of_jitter_buffers(source: &gst::Element) {
    source.connect("new-manager", false, |arguments| {
        let manager = arguments.get(1)?.get::<gst::Element>().ok()?;
        manager.connect("request-jitterbuffer", false, |_| {
            let element: InOrder = glib::Object::new();
            Some(element.upcast::<gst::Element>().to_value())
        });
        None
    });
}

glib::wrapper! {
    /// RTP in, the same with time stamps out.
    pub struct InOrder(ObjectSubclass<imp::InOrder>) @extends gst::Element, gst::Object;
}

/// By how much the time of the packets may differ from the time of their arrival, or from one to the next. Beyond that it
/// was set, or does not run at its rate.
const JUMP: gst::ClockTime = gst::ClockTime::from_seconds(10);

/// Time stamps of packets, as running time: they keep the distances that the camera gave them.
#[derive(Debug, Default)]
struct Stamps {
    last: Option<Stamp>,
}

#[derive(Clone, Copy, Debug)]
struct Stamp {
    /// Running time at which the first packet arrived.
    anchor: gst::ClockTime,
    /// Since the first packet, in steps of the camera's clock.
    ticks: i64,
    /// In the packet.
    rtp: u32,
}

impl Stamp {
    fn time(&self) -> gst::ClockTime {
        let nanoseconds = i128::from(self.ticks) * 1_000_000_000 / i128::from(CLOCK_RATE);
        let time = i128::from(self.anchor.nseconds()) + nanoseconds;
        gst::ClockTime::from_nseconds(u64::try_from(time.max(0)).unwrap_or(u64::MAX / 2))
    }
}

impl Stamps {
    /// The time stamp of a packet with this time, which arrives `now`.
    fn at(&mut self, rtp: u32, now: gst::ClockTime) -> gst::ClockTime {
        let anew = Stamp { anchor: now, ticks: 0, rtp };
        let next = self.last.map(|last| {
            let step = rtp.wrapping_sub(last.rtp).cast_signed(); // across its end
            Stamp { ticks: last.ticks + i64::from(step), rtp, ..last }
        });
        let far = |a: gst::ClockTime, b: gst::ClockTime| a.max(b) - a.min(b) > JUMP;
        let stamp = match (next, self.last) {
            (Some(next), Some(last)) if !far(next.time(), now) && !far(next.time(), last.time()) => next,
            _ => anew,
        };
        self.last = Some(stamp);
        stamp.time()
    }
}

/// The time in a packet's header (RFC 3550, 5.1).
fn rtp_time(packet: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?))
}

mod imp {
    use super::*;

    pub struct InOrder {
        sink: gst::Pad,
        src: gst::Pad,
        stamps: Mutex<Stamps>,
    }

    impl InOrder {
        fn packet(&self, mut buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
            let head = buffer.map_readable().ok().and_then(|bytes| rtp_time(&bytes));
            if let (Some(rtp), Some(now)) = (head, self.obj().current_running_time()) {
                let time = self.stamps.lock().unwrap_or_else(PoisonError::into_inner).at(rtp, now);
                let buffer = buffer.make_mut();
                buffer.set_pts(time);
                buffer.set_dts(None);
            }
            match self.src.push(buffer) {
                // Strays of a session that the camera forgot to end: nobody takes them, and the stream goes on.
                Err(gst::FlowError::NotLinked) => Ok(gst::FlowSuccess::Ok),
                pushed => pushed,
            }
        }
    }

    fn template(name: &str, direction: gst::PadDirection, presence: gst::PadPresence) -> gst::PadTemplate {
        gst::PadTemplate::new(name, direction, presence, &gst::Caps::new_any())
            .expect("the names of the jitter buffer's pads")
    }

    #[glib::object_subclass]
    impl ObjectSubclass for InOrder {
        const NAME: &'static str = "SharpEyesInOrder";
        type Type = super::InOrder;
        type ParentType = gst::Element;

        fn with_class(class: &Self::Class) -> Self {
            let template = |name| class.pad_template(name).expect("a template of this element");
            let sink = gst::Pad::builder_from_template(&template("sink"))
                .chain_function(|_, element, buffer| {
                    Self::catch_panic_pad_function(
                        element,
                        || Err(gst::FlowError::Error),
                        |this| this.packet(buffer),
                    )
                })
                .flags(gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_SCHEDULING)
                .build();
            let src = gst::Pad::from_template(&template("src"));
            Self { sink, src, stamps: Mutex::default() }
        }
    }

    impl ObjectImpl for InOrder {
        /// `rtpbin` sets this one of every jitter buffer.
        fn properties() -> &'static [glib::ParamSpec] {
            static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> =
                LazyLock::new(|| vec![glib::ParamSpecUInt::builder("latency").write_only().build()]);
            &PROPERTIES
        }

        /// Nothing waits here.
        fn set_property(&self, _: usize, _: &glib::Value, _: &glib::ParamSpec) {}

        fn constructed(&self) {
            self.parent_constructed();
            for pad in [&self.sink, &self.src] {
                self.obj().add_pad(pad).expect("a new element has no pad of this name");
            }
        }
    }

    impl GstObjectImpl for InOrder {}

    impl ElementImpl for InOrder {
        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<[gst::PadTemplate; 3]> = LazyLock::new(|| {
                use gst::{PadDirection::*, PadPresence::*};
                [
                    template("sink", Sink, Always),
                    template("src", Src, Always),
                    template("sink_rtcp", Sink, Request),
                ]
            });
            &*TEMPLATES
        }

        /// For the sender's reports, which set streams in relation to one another: there is one.
        fn request_new_pad(
            &self,
            template: &gst::PadTemplate,
            _: Option<&str>,
            _: Option<&gst::Caps>,
        ) -> Option<gst::Pad> {
            let pad = gst::Pad::builder_from_template(template)
                .chain_function(|_, _, _| Ok(gst::FlowSuccess::Ok))
                .event_function(|_, _, _| true)
                .build();
            pad.set_active(true).ok()?;
            self.obj().add_pad(&pad).ok()?;
            Some(pad)
        }

        fn release_pad(&self, pad: &gst::Pad) {
            let _ = self.obj().remove_pad(pad); // it is gone already
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 90_000;

    /// Time stamps in ms of packets that the camera's clock says were made at `ms`, and that arrive at `now` ms.
    fn stamped(start: u32, packets: &[(u64, u64)]) -> Vec<u64> {
        let mut stamps = Stamps::default();
        let stamp = |(ms, now): &(u64, u64)| {
            let rtp = start.wrapping_add((ms * SECOND / 1000) as u32);
            stamps.at(rtp, gst::ClockTime::from_mseconds(*now)).mseconds()
        };
        packets.iter().map(stamp).collect()
    }

    #[test]
    fn frames_keep_the_distance_that_the_camera_gave_them_however_they_arrive() {
        for start in [0, 7, u32::MAX - 5_000, 1 << 31] {
            let even = stamped(start, &[(0, 50), (0, 50), (66, 120), (133, 190), (200, 500), (266, 501)]);
            assert_eq!(even, [50, 50, 116, 183, 250, 316], "from {start}");
            // B frames come after those that are shown later.
            assert_eq!(stamped(start, &[(100, 50), (300, 60), (200, 70)]), [50, 250, 150]);
        }
    }

    #[test]
    fn a_clock_that_was_set_or_runs_wrong_is_followed_by_the_time_of_arrival() {
        assert_eq!(stamped(5, &[(0, 50), (1_000_000, 90), (1_000_040, 130)]), [50, 90, 130], "set");
        let still = stamped(5, &[(0, 0), (0, 4_000), (0, 9_000), (0, 11_000), (0, 12_000)]);
        assert_eq!(still, [0, 0, 0, 11_000, 11_000], "it stands still");
        let fast = stamped(5, &[(0, 0), (9_000, 1_000), (18_000, 2_000), (18_040, 2_040)]);
        assert_eq!(fast, [0, 9_000, 2_000, 2_040], "it runs nine times too fast");
    }

    #[test]
    fn the_header_tells_the_time() {
        assert_eq!(rtp_time(&[0x80, 96, 0, 1, 1, 2, 3, 4, 9, 9, 9, 9]), Some(0x0102_0304));
        assert_eq!(rtp_time(&[0x80, 96, 0]), None);
    }
}
