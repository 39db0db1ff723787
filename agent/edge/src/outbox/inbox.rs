//! What waits for the writer thread: new alerts and pictures from the cameras, commands from the uplinks.
//!
//! A mutex and a condition instead of a channel: the bounds are on alerts and on bytes of pictures, commands overtake
//! alerts that a full disk holds up, and the thread can wait for both with a timeout. The lock is held for a
//! push or a pop, never over I/O.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sharp_eyes_protocol::alert::Alert;
use sharp_eyes_protocol::command::Answer;
use sharp_eyes_protocol::level::Severity;
use tokio::sync::oneshot;

use super::{AlertChange, Asked, Change, Full, NewAlert, NewEvidence, Row, Waiting};

/// Alerts that may wait for the disk: 17 minutes at an alert a second. Beyond it the mildest is given up and counted.
pub(super) const MAX_ALERTS: usize = 1024;

/// Changes of alerts that may wait for the disk. Beyond it the oldest is given up and counted.
const MAX_CHANGES: usize = 1024;

/// Bytes of pictures that may wait with them: about a hundred. Beyond it pictures are given up and counted.
pub(super) const MAX_PICTURE_BYTES: usize = 8 << 20;

/// Where alerts and commands wait.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    alerts: VecDeque<Queued>,
    changes: VecDeque<AlertChange>,
    evidence: VecDeque<NewEvidence>,
    picture_bytes: usize,
    /// The writer is storing so many alerts and changes from the front: they keep their places.
    handed: usize,
    handed_changes: usize,
    lost: Lost,
    /// Bounded by the askers: one read for each uplink, one answer for each row of its window, and the commands of
    /// consoles, which the uplinks take one at a time.
    commands: Vec<Command>,
    closing: Option<Closing>,
    /// The writer is gone.
    closed: bool,
}

#[derive(Debug)]
struct Queued {
    alert: NewAlert,
    since: Instant,
    receipt: oneshot::Sender<u64>,
}

/// What did not fit since the writer last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) alerts: u64,
    pub(super) evidence: u64,
}

/// What the uplinks ask for.
#[derive(Debug)]
pub(super) enum Command {
    Next { route: usize, skip: Vec<Row>, limit: usize, evidence: bool, reply: oneshot::Sender<Vec<Waiting>> },
    Acknowledge(usize, Row),
    Park(usize, Row, String),
    Execute(Box<Asked>, oneshot::Sender<Answer>),
    Lasting(oneshot::Sender<Vec<Alert>>),
}

/// The last command.
#[derive(Debug)]
struct Closing {
    deadline: Instant,
    /// Several may wait for the end; each is told how many alerts were lost.
    replies: Vec<oneshot::Sender<usize>>,
}

/// When the writer may take alerts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    /// The disk works: critical alerts at once, others from this moment.
    From(Instant),
    /// The disk failed: all of them from this moment.
    Retry(Instant),
}

/// What the writer is woken for.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) commands: Vec<Command>,
    /// Alerts that wait, up to the number asked for. They count as waiting until [`Inbox::stored`].
    pub(super) alerts: Vec<NewAlert>,
    /// The same for what becomes of alerts, once all alerts before them are handed out.
    pub(super) changes: Vec<AlertChange>,
    /// The same for pictures.
    pub(super) evidence: Vec<NewEvidence>,
    pub(super) lost: Lost,
    /// Nothing new comes any more; what waits is to be stored until then.
    pub(super) close_by: Option<Instant>,
}

impl State {
    fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.changes.is_empty() && self.evidence.is_empty()
    }

    /// When what waits may be stored.
    fn due(&self, takes: Takes) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        match takes {
            Takes::Retry(at) => Some(at),
            Takes::From(_) if self.alerts.iter().any(|q| q.alert.data.severity == Severity::Critical) => {
                Some(self.alerts.front().map_or_else(Instant::now, |first| first.since))
            }
            Takes::From(at) => Some(at),
        }
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below panics between two writes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn append(&self, alert: NewAlert) -> Result<oneshot::Receiver<u64>, Full> {
        let mut state = self.lock();
        if state.closing.is_some() {
            state.lost.alerts += 1;
            return Err(Full);
        }
        if state.alerts.len() >= MAX_ALERTS {
            state.lost.alerts += 1; // it, or one that matters less
            let severity = alert.data.severity;
            let free = state.alerts.iter().enumerate().skip(state.handed);
            let mildest = free.min_by_key(|(place, queued)| (queued.alert.data.severity, *place));
            match mildest.filter(|(_, queued)| queued.alert.data.severity < severity).map(|(place, _)| place)
            {
                Some(place) => drop(state.alerts.remove(place)),
                None => return Err(Full),
            }
        }
        let (receipt, stored) = oneshot::channel();
        state.alerts.push_back(Queued { alert, since: Instant::now(), receipt });
        self.changed.notify_one();
        Ok(stored)
    }

    pub(super) fn change(&self, change: AlertChange) {
        let mut state = self.lock();
        if state.closing.is_some() {
            state.lost.alerts += 1;
            return;
        }
        let handed = state.handed_changes;
        let many = |known: &AlertChange| matches!(known.change, Change::Many(_)) && known.id == change.id;
        match state.changes.iter().skip(handed).position(many) {
            // Only how it stands in the end matters.
            Some(at) if matches!(change.change, Change::Many(_)) => state.changes[handed + at] = change,
            _ => state.changes.push_back(change),
        }
        if state.changes.len() > MAX_CHANGES && state.changes.remove(handed).is_some() {
            state.lost.alerts += 1;
        }
        self.changed.notify_one();
    }

    pub(super) fn attach(&self, evidence: NewEvidence) {
        let mut state = self.lock();
        let size = size_of(&evidence);
        if state.picture_bytes + size > MAX_PICTURE_BYTES || state.closing.is_some() {
            state.lost.evidence += 1;
            return;
        }
        state.picture_bytes += size;
        state.evidence.push_back(evidence);
        self.changed.notify_one();
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
        if state.closed {
            return; // its asker reads an empty answer
        }
        let deadline = Instant::now() + grace;
        let closing = state.closing.get_or_insert(Closing { deadline, replies: Vec::new() });
        closing.replies.extend(reply);
        self.changed.notify_one();
    }

    /// Waits until there is something to do or `until` is over. At most `limit` alerts and as many pairs of pictures are
    /// handed out, as soon as `takes` lets them; they stay at the head until [`Inbox::stored`].
    pub(super) fn wait(&self, limit: usize, until: Instant, takes: Takes) -> Work {
        let mut state = self.lock();
        (state.handed, state.handed_changes) = (0, 0);
        loop {
            let now = Instant::now();
            let close_by = state.closing.as_ref().map(|closing| closing.deadline);
            let at = match (state.due(takes), takes) {
                (Some(_), Takes::From(_)) if close_by.is_some() => Some(now),
                (at, _) => at,
            };
            let due = at.is_some_and(|at| now >= at);
            let give_up = close_by.is_some_and(|by| state.is_empty() || now >= by);
            if due || !state.commands.is_empty() || give_up || now >= until {
                let mut work = Work {
                    commands: std::mem::take(&mut state.commands),
                    lost: std::mem::take(&mut state.lost),
                    close_by,
                    ..Work::default()
                };
                if due {
                    // Copies, so that what a failed or panicked transaction did not store is still at its place.
                    work.alerts =
                        state.alerts.iter().take(limit).map(|queued| queued.alert.clone()).collect();
                    work.evidence = state.evidence.iter().take(limit / 8).cloned().collect();
                    state.handed = work.alerts.len();
                    if state.handed == state.alerts.len() {
                        work.changes = state.changes.iter().take(limit).cloned().collect();
                        state.handed_changes = work.changes.len();
                    }
                }
                return work;
            }
            let next = [Some(until), at, close_by];
            let wait = next.into_iter().flatten().min().unwrap_or(until).saturating_duration_since(now);
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first `alerts` alerts, numbered from `first` on, the first `changes`, and the first `evidence` pairs of
    /// pictures are on disk.
    pub(super) fn stored(&self, first: u64, alerts: usize, changes: usize, evidence: usize) {
        let mut state = self.lock();
        (state.handed, state.handed_changes) = (0, 0);
        state.changes.drain(..changes);
        for (sequence, queued) in (first..).zip(state.alerts.drain(..alerts)) {
            let _ = queued.receipt.send(sequence); // most do not wait for it: fine
        }
        let bytes: usize = state.evidence.drain(..evidence).map(|evidence| size_of(&evidence)).sum();
        state.picture_bytes -= bytes;
    }

    /// Messages about alerts, and pairs of pictures, that wait in memory.
    pub(super) fn depth(&self) -> (usize, usize) {
        let state = self.lock();
        (state.alerts.len() + state.changes.len(), state.evidence.len())
    }

    /// The end of the writer: whoever waits for it learns what was lost.
    pub(super) fn closed(&self) {
        let mut state = self.lock();
        let lost = state.alerts.len();
        state.closed = true;
        let deadline = Instant::now();
        let closing = state.closing.get_or_insert(Closing { deadline, replies: Vec::new() });
        for reply in closing.replies.drain(..) {
            let _ = reply.send(lost); // nobody waits any more: fine
        }
        state.changes.clear();
        state.alerts.clear(); // their receipts say that they were not stored
        state.commands.clear();
    }
}

fn size_of(evidence: &NewEvidence) -> usize {
    evidence.thumbnail.len() + evidence.picture.len()
}
