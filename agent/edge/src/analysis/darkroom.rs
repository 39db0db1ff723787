//! Redacted frames to JPEGs, on a thread of its own, because a JPEG takes as long as a look or two. Only what is redacted gets
//! here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::topic::Name;
use sharp_eyes_vision::{EvidenceError, Redacted};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::cores::give_way;
use crate::outbox::{NewEvidence, Outbox};
use crate::snapshots::Snapshot;

/// Frames that wait at most, of up to 4.9 MB each; one more is being worked on. Whoever brings another does the work himself,
/// so that none is lost.
const WAITING: usize = 4;

/// A redacted frame of which pictures are wanted.
pub(super) struct Order {
    pub(super) camera: Name,
    pub(super) redacted: Redacted,
    pub(super) wanted: Wanted,
}

/// Who wants them.
pub(super) enum Wanted {
    Evidence { alert: Uuid, severity: Severity },
    Snapshot(Vec<oneshot::Sender<Snapshot>>),
}

/// Where frames are brought. Once it is dropped, the thread ends after the last of them.
pub struct Darkroom {
    bring: SyncSender<Order>,
    developer: Developer,
}

impl Darkroom {
    /// Starts the thread. `picture_bytes`: most bytes of a large picture.
    pub fn open(outbox: Outbox, picture_bytes: usize) -> Result<(Self, JoinHandle<()>), std::io::Error> {
        let (bring, brought) = sync_channel(WAITING);
        let developer = Developer { outbox, picture_bytes };
        let worker = developer.clone();
        let work = move || {
            give_way();
            brought.into_iter().for_each(|order| worker.develop(order));
        };
        let thread = Builder::new().name("darkroom".into()).spawn(work)?;
        Ok((Self { bring, developer }, thread))
    }

    /// Has pictures made of a frame.
    pub(super) fn bring(&self, order: Order) {
        if let Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) = self.bring.try_send(order)
        {
            self.developer.develop(order);
        }
    }
}

/// Who makes pictures.
#[derive(Clone)]
struct Developer {
    outbox: Outbox,
    picture_bytes: usize,
}

impl Developer {
    /// Makes pictures of a frame and hands them over. Never panics.
    fn develop(&self, Order { camera, redacted, wanted }: Order) {
        let alert = match &wanted {
            Wanted::Evidence { alert, .. } => Some(*alert),
            Wanted::Snapshot(askers) if askers.iter().all(oneshot::Sender::is_closed) => return,
            Wanted::Snapshot(_) => None,
        };
        let lacks = |why: &str| match alert {
            Some(alert) => tracing::warn!(%camera, %alert, "alert without pictures: {why}"),
            None => tracing::warn!(%camera, "no snapshot: {why}"),
        };
        match catch_unwind(AssertUnwindSafe(|| self.make(&redacted, wanted))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => lacks(&error.to_string()),
            Err(_) => lacks("making them panicked"), // the panic itself is logged by the hook
        }
    }

    fn make(&self, redacted: &Redacted, wanted: Wanted) -> Result<(), EvidenceError> {
        let (thumbnail, picture) = (redacted.thumbnail()?, redacted.picture(self.picture_bytes)?);
        match wanted {
            Wanted::Evidence { alert, severity } => {
                self.outbox.attach(NewEvidence { alert, severity, thumbnail, picture });
            }
            Wanted::Snapshot(askers) => {
                let snapshot = Snapshot { thumbnail, picture };
                for asker in askers {
                    let _ = asker.send(snapshot.clone()); // he waited long enough: fine
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use sharp_eyes_protocol::alert::ClockTrust;
    use sharp_eyes_vision::{Colour, FrameView, PixelFormat, Plane};

    use super::*;
    use crate::outbox::tests::{options, site};

    fn redacted() -> Redacted {
        let (luma, chroma) = (vec![80; 320 * 240], vec![128; 320 * 120]);
        let planes = [Plane { data: &luma, stride: 320 }, Plane { data: &chroma, stride: 320 }];
        let frame = FrameView::new(320, 240, PixelFormat::Nv12, Colour::Bt601, false, &planes).unwrap();
        Redacted::of(&frame, &[], Some(&[]), None, "gate")
    }

    #[test]
    fn all_that_is_brought_becomes_pictures_also_more_than_may_wait_and_after_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let clock = || (Timestamp::UNIX_EPOCH, ClockTrust::Synced);
        let outbox = Outbox::start(options(folder.path()), site(), Arc::new(clock)).unwrap();
        let (darkroom, thread) = Darkroom::open(outbox, 64 * 1024).unwrap();
        let ask = || {
            let (asker, picture) = oneshot::channel();
            let order = Order {
                camera: "gate".parse().unwrap(),
                redacted: redacted(),
                wanted: Wanted::Snapshot(vec![asker]),
            };
            darkroom.bring(order);
            picture
        };
        drop(ask()); // who asked has gone meanwhile: nobody minds
        let pictures: Vec<_> = (0..3 * WAITING).map(|_| ask()).collect();
        drop(darkroom);
        thread.join().unwrap();
        for picture in pictures {
            let Snapshot { thumbnail, picture } = picture.blocking_recv().unwrap();
            assert!(thumbnail.starts_with(&[0xff, 0xd8]) && picture.starts_with(&[0xff, 0xd8]), "JPEGs");
        }
    }
}
