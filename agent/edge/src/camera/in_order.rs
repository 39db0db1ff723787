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

/// Of the time stamps of H.264 and H.265 in RTP (RFC 6184, 8.2.1; RFC 7798, 7.1), a second.
pub(super) const CLOCK_RATE: i32 = 90_000;

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
///
/// The packets of a picture share its time: the clock is read once for all of them.
#[derive(Debug, Default)]
struct Stamps {
    last: Option<Stamp>,
    /// The picture of the last packet goes on.
    goes_on: bool,
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
    /// The time stamp of a packet that arrives `now`; none where nobody knows what time it is.
    fn at(&mut self, head: Head, now: impl FnOnce() -> Option<gst::ClockTime>) -> Option<gst::ClockTime> {
        let Head { rtp, last: is_last } = head;
        let goes_on = std::mem::replace(&mut self.goes_on, !is_last);
        if let Some(last) = self.last.filter(|last| goes_on && last.rtp == rtp) {
            return Some(last.time());
        }
        let now = now()?;
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
        Some(stamp.time())
    }
}

/// What the header of a packet says (RFC 3550, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    rtp: u32,
    /// Of its picture: the marker bit of H.264 and H.265 (RFC 6184, 5.1; RFC 7798, 4.1).
    last: bool,
}

impl Head {
    fn of(packet: &[u8]) -> Option<Self> {
        let rtp = u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?);
        Some(Self { rtp, last: packet[1] & 0x80 != 0 })
    }
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
            let head = buffer.map_readable().ok().and_then(|bytes| Head::of(&bytes));
            let time = head.and_then(|head| {
                let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
                stamps.at(head, || self.obj().current_running_time())
            });
            if let Some(time) = time {
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
            let now = gst::ClockTime::from_mseconds(*now);
            stamps.at(Head { rtp, last: true }, || Some(now)).unwrap().mseconds()
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
    fn the_clock_is_read_once_for_a_picture() {
        let mut stamps = Stamps::default();
        let mut read = 0;
        // Of the second picture the last packet is missing.
        for (rtp, last) in [(7, false), (7, false), (7, true), (8, false), (9, false), (9, true), (9, true)] {
            let time = stamps.at(Head { rtp, last }, || {
                read += 1;
                Some(gst::ClockTime::from_mseconds(50))
            });
            assert!(time.is_some());
        }
        assert_eq!(read, 4, "three pictures, and one with the time of another");
        assert_eq!(Stamps::default().at(Head { rtp: 7, last: true }, || None), None);
    }

    #[test]
    fn the_header_tells_the_time_and_the_end_of_a_picture() {
        let head = |second| Head::of(&[0x80, second, 0, 1, 1, 2, 3, 4, 9, 9, 9, 9]);
        assert_eq!(head(96), Some(Head { rtp: 0x0102_0304, last: false }));
        assert_eq!(head(0x80 | 96), Some(Head { rtp: 0x0102_0304, last: true }));
        assert_eq!(Head::of(&[0x80, 96, 0]), None);
    }
}
