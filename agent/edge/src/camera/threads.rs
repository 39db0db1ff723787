//! Decoders give way: their threads come after everything else in the process when the processor has too much to do.
//!
//! Analysis is one thread and decoders are as many as cameras. With the same claim on the cores, 64 decoders leave the
//! one that looks at their frames hardly any time. Behind it, they share what is left: each falls behind, and its gate skips
//! to the next keyframe.
//!
//! GStreamer lends a thread to one element after the other, and one that gave way once does so for ever: these get threads of
//! their own, from a task pool.

use std::sync::LazyLock;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::TaskPoolFunction;
use gstreamer::subclass::prelude::*;

use crate::cores;

static POOL: LazyLock<GivingWay> = LazyLock::new(glib::Object::new);

/// Lets the streaming threads of a pipeline give way, when it is shown every message from the pipeline's bus at once.
pub(super) fn give_way(message: &gst::MessageRef) {
    if let gst::MessageView::StreamStatus(status) = message.view()
        && status.get().0 == gst::StreamStatusType::Create
        && let Some(Ok(task)) = status.stream_status_object().map(|object| object.get::<gst::Task>())
    {
        task.set_pool(&*POOL);
    }
}

glib::wrapper! {
    /// Gives each task a thread of its own, which gives way.
    pub struct GivingWay(ObjectSubclass<imp::GivingWay>) @extends gst::TaskPool, gst::Object;
}

mod imp {
    use super::*;

    #[derive(Default)]
    pub struct GivingWay;

    #[glib::object_subclass]
    impl ObjectSubclass for GivingWay {
        const NAME: &'static str = "SharpEyesGivingWay";
        type Type = super::GivingWay;
        type ParentType = gst::TaskPool;
    }

    impl ObjectImpl for GivingWay {}

    impl GstObjectImpl for GivingWay {}

    impl TaskPoolImpl for GivingWay {
        /// Whoever stops a task waits for the task, not for its thread.
        type Handle = ();

        fn push(&self, task: TaskPoolFunction) -> Result<Option<Self::Handle>, glib::Error> {
            let thread = std::thread::Builder::new().name("decode".into());
            let run = move || {
                cores::give_way();
                task.call();
            };
            match thread.spawn(run) {
                Ok(_) => Ok(None),
                Err(error) => Err(glib::Error::new(gst::CoreError::Thread, &error.to_string())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn only_the_threads_of_the_pipeline_that_asks_give_way() {
        gst::init().unwrap();
        let niceness = |asks: bool| {
            let pipeline = gst::parse::launch("fakesrc num-buffers=1 ! fakesink name=sink").unwrap();
            let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
            if asks {
                pipeline.bus().unwrap().set_sync_handler(|_, message| {
                    give_way(message);
                    gst::BusSyncReply::Drop
                });
            }
            let (tell, told) = channel();
            let sink = pipeline.by_name("sink").unwrap().static_pad("sink").unwrap();
            sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                let _ = tell.send(rustix::process::getpriority_process(None).unwrap());
                gst::PadProbeReturn::Ok
            });
            pipeline.set_state(gst::State::Playing).unwrap();
            let niceness = told.recv().unwrap();
            pipeline.set_state(gst::State::Null).unwrap();
            niceness
        };
        let usual = niceness(false);
        assert_eq!(niceness(true), cores::NICENESS.max(usual));
        assert_eq!(niceness(false), usual, "threads that are used again");
    }
}
