//! Pictures that operators ask for: the analysis redacts the next frame for them, because only it knows what to redact.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sharp_eyes_protocol::topic::Name;
use tokio::sync::oneshot;

use crate::board::Board;

/// What a camera sees now, redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// A small JPEG.
    pub thumbnail: Vec<u8>,
    /// A large one.
    pub picture: Vec<u8>,
}

/// Who waits for a picture of which camera.
#[derive(Debug)]
pub struct Snapshots {
    board: Arc<Board>,
    /// By camera. Bounded by the askers, who wait for one at a time.
    wanted: Mutex<Vec<Vec<oneshot::Sender<Snapshot>>>>,
}

impl Snapshots {
    /// Nobody waits yet.
    pub fn new(board: Arc<Board>) -> Self {
        let wanted = Mutex::new(board.cameras.iter().map(|_| Vec::new()).collect());
        Self { board, wanted }
    }

    /// The camera's place among all.
    pub fn index_of(&self, camera: &Name) -> Option<usize> {
        self.board.cameras.iter().position(|card| card.name == *camera)
    }

    /// Redacted pictures of the camera's next frame. `None`: none could be made of it.
    pub async fn take(&self, index: usize) -> Option<Snapshot> {
        let (sender, picture) = oneshot::channel();
        self.wanted().get_mut(index)?.push(sender);
        self.board.cameras[index].gate().call(); // one that sleeps has no next frame
        picture.await.ok()
    }

    /// Whether somebody waits for a picture of this camera.
    pub(crate) fn are_wanted(&self, index: usize) -> bool {
        self.wanted()[index].iter().any(|sender| !sender.is_closed())
    }

    /// Whoever waits for a picture of this camera and is to get the one that is made now.
    pub(crate) fn take_askers(&self, index: usize) -> Vec<oneshot::Sender<Snapshot>> {
        let mut waiting = std::mem::take(&mut self.wanted()[index]);
        waiting.retain(|sender| !sender.is_closed());
        waiting
    }

    fn wanted(&self) -> MutexGuard<'_, Vec<Vec<oneshot::Sender<Snapshot>>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
