//! The newest frame of each camera that nobody has looked at yet.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// One place per camera. A frame that finds its place taken replaces the older one: a slow detector makes frames
/// fewer, never late, and never slows a camera.
#[derive(Debug)]
pub struct Slots<F> {
    places: Mutex<Places<F>>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug)]
struct Places<F> {
    frames: Vec<Option<F>>,
    /// Who is asked first: the camera after the one served last, so that none starves.
    next: usize,
    closed: bool,
}

/// What a wait for a frame ended with.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<F> {
    /// A frame, and the index of its camera.
    Frame(usize, F),
    /// Nothing came in time.
    Nothing,
    /// No more frames will come, and none is left.
    Closed,
}

impl<F> Slots<F> {
    /// Empty places for this many cameras.
    pub fn new(cameras: usize) -> Self {
        let frames = std::iter::repeat_with(|| None).take(cameras).collect();
        Self {
            places: Mutex::new(Places { frames, next: 0, closed: false }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Places<F>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a camera's newest frame in its place; true where an older one was dropped for it.
    pub fn offer(&self, camera: usize, frame: F) -> bool {
        let mut places = self.lock();
        if places.closed {
            return false;
        }
        let replaced = places.frames[camera].replace(frame);
        drop(places);
        self.filled.notify_one();
        replaced.is_some()
    }

    /// The same, after it waited for the place to be free: of a camera that has just woken up, each frame tells something.
    pub fn offer_in_turn(&self, camera: usize, frame: F, patience: Duration) -> bool {
        let taken = |places: &mut Places<F>| !places.closed && places.frames[camera].is_some();
        drop(self.emptied.wait_timeout_while(self.lock(), patience, taken));
        self.offer(camera, frame)
    }

    /// Waits for a frame of any camera, in turn.
    pub fn take(&self, patience: Duration) -> Taken<F> {
        let empty = |places: &mut Places<F>| !places.closed && places.frames.iter().all(Option::is_none);
        let (mut places, _) = self
            .filled
            .wait_timeout_while(self.lock(), patience, empty)
            .unwrap_or_else(PoisonError::into_inner);
        let count = places.frames.len();
        for step in 0..count {
            let camera = (places.next + step) % count;
            if let Some(frame) = places.frames[camera].take() {
                places.next = (camera + 1) % count;
                self.emptied.notify_all();
                return Taken::Frame(camera, frame);
            }
        }
        if places.closed { Taken::Closed } else { Taken::Nothing }
    }

    /// Waits out a time, or until [`Slots::close`]; true where it was closed.
    pub fn wait_closed(&self, patience: Duration) -> bool {
        let open = |places: &mut Places<F>| !places.closed;
        let waited = self.filled.wait_timeout_while(self.lock(), patience, open);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// Takes no more frames. What lies here is still looked at.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn the_newest_frame_wins_and_the_drop_is_told() {
        let slots = Slots::new(1);
        assert!(!slots.offer(0, "old"));
        assert!(slots.offer(0, "new"));
        assert_eq!(slots.take(NOW), Taken::Frame(0, "new"));
        assert_eq!(slots.take(NOW), Taken::Nothing);
    }

    #[test]
    fn cameras_take_turns() {
        let slots = Slots::new(3);
        let mut served = Vec::new();
        for round in 0..6 {
            // Camera 0 is so busy that it always has a frame; 1 and 2 have one now and then.
            slots.offer(0, round);
            if round % 2 == 0 {
                slots.offer(1, round);
                slots.offer(2, round);
            }
            if let Taken::Frame(camera, _) = slots.take(NOW) {
                served.push(camera);
            }
        }
        assert_eq!(served, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn what_lies_in_the_slots_is_looked_at_before_the_end() {
        let slots = Slots::new(2);
        slots.offer(1, "last");
        slots.close();
        assert!(!slots.offer(0, "too late"));
        assert_eq!(slots.take(NOW), Taken::Frame(1, "last"));
        assert_eq!(slots.take(NOW), Taken::Closed);
    }
}
