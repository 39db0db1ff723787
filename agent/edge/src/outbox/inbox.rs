//! What waits for the writer thread: new alerts from the cameras, commands from the uplink.
//!
//! A mutex and a condition instead of a channel: the bounds are on alerts and on bytes of pictures, commands overtake
//! alerts that a full disk holds up, and the thread can wait for both with a timeout. The lock is held for a
//! push or a pop, never over I/O.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Full, NewAlert, Row, Waiting};

/// Alerts that may wait for the disk: 17 minutes at an alert a second. Beyond it an alert is refused and counted.
pub(super) const MAX_ALERTS: usize = 1024;

/// Bytes of pictures that may wait with them: about a hundred. Beyond it an alert goes without its picture, counted.
pub(super) const MAX_PICTURE_BYTES: usize = 8 << 20;

/// Where alerts and commands wait.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    alerts: VecDeque<NewAlert>,
    picture_bytes: usize,
    lost: Lost,
    /// Bounded by the askers: one read for each uplink, one answer for each row of its window.
    commands: Vec<Command>,
    closing: Option<Closing>,
}

/// What did not fit since the writer last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) alerts: u64,
    pub(super) evidence: u64,
}

/// What the uplink asks for.
#[derive(Debug)]
pub(super) enum Command {
    Next { skip: Vec<Row>, limit: usize, evidence: bool, reply: oneshot::Sender<Vec<Waiting>> },
    Acknowledge(Row),
    Park(Row, String),
}

/// The last command.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) deadline: Instant,
    /// Several may wait for the end; each is told how many alerts were lost.
    pub(super) replies: Vec<oneshot::Sender<usize>>,
}

/// What the writer is woken for.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) commands: Vec<Command>,
    /// Alerts that wait, up to the number asked for. They count as waiting until [`Inbox::stored`].
    pub(super) alerts: Vec<NewAlert>,
    pub(super) lost: Lost,
    /// Nothing new comes any more; what waits is to be stored until then.
    pub(super) close_by: Option<Instant>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below panics between two writes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn append(&self, mut alert: NewAlert) -> Result<(), Full> {
        let mut state = self.lock();
        if state.alerts.len() >= MAX_ALERTS || state.closing.is_some() {
            state.lost.alerts += 1;
            return Err(Full);
        }
        let size = alert.picture.as_ref().map_or(0, Vec::len);
        if state.picture_bytes + size > MAX_PICTURE_BYTES || state.alerts.len() >= MAX_ALERTS / 2 && size > 0
        {
            alert.picture = None;
            state.lost.evidence += 1;
        } else {
            state.picture_bytes += size;
        }
        state.alerts.push_back(alert);
        self.changed.notify_one();
        Ok(())
    }

    pub(super) fn command(&self, command: Command) {
        let mut state = self.lock();
        if state.closing.is_none() {
            state.commands.push(command); // else it is dropped, and its asker reads an empty answer
            self.changed.notify_one();
        }
    }

    pub(super) fn close(&self, grace: Duration, reply: Option<oneshot::Sender<usize>>) {
        let mut state = self.lock();
        let deadline = Instant::now() + grace;
        let closing = state.closing.get_or_insert(Closing { deadline, replies: Vec::new() });
        closing.replies.extend(reply);
        self.changed.notify_one();
    }

    /// Waits until there is something to do or `until` is over. With `retry_at` the disk failed: alerts wait until then,
    /// commands do not. At most `limit` alerts are handed out; they stay at the head until [`Inbox::stored`].
    pub(super) fn wait(&self, limit: usize, until: Instant, retry_at: Option<Instant>) -> Work {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let due = retry_at.is_none_or(|at| now >= at);
            let close_by = state.closing.as_ref().map(|closing| closing.deadline);
            let alerts_due = due && !state.alerts.is_empty();
            let give_up = close_by.is_some_and(|by| state.alerts.is_empty() || now >= by);
            if alerts_due || !state.commands.is_empty() || give_up || now >= until {
                // A copy, so that an alert whose transaction fails or panics is still at its place.
                let alerts =
                    if due { state.alerts.iter().take(limit).cloned().collect() } else { Vec::new() };
                let commands = std::mem::take(&mut state.commands);
                let lost = std::mem::take(&mut state.lost);
                return Work { commands, alerts, lost, close_by };
            }
            let next = [Some(until), retry_at.filter(|_| !due), close_by];
            let wait = next.into_iter().flatten().min().unwrap_or(until).saturating_duration_since(now);
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first `count` alerts are on disk.
    pub(super) fn stored(&self, count: usize) {
        let mut state = self.lock();
        let bytes: usize =
            state.alerts.drain(..count).map(|alert| alert.picture.as_ref().map_or(0, Vec::len)).sum();
        state.picture_bytes -= bytes;
    }

    /// Alerts that wait in memory.
    pub(super) fn depth(&self) -> usize {
        self.lock().alerts.len()
    }

    /// The end of the writer: whoever waits for it learns what was lost.
    pub(super) fn closed(&self) {
        let mut state = self.lock();
        let lost = state.alerts.len();
        let deadline = Instant::now();
        let closing = state.closing.get_or_insert(Closing { deadline, replies: Vec::new() });
        for reply in closing.replies.drain(..) {
            let _ = reply.send(lost); // nobody waits any more: fine
        }
        state.commands.clear();
    }
}
