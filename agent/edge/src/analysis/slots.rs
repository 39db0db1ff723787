//! The newest frame of each camera that nobody has looked at yet, and whose turn it is.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    cameras: Vec<Place<F>>,
    closed: bool,
}

#[derive(Debug)]
struct Place<F> {
    frame: Option<F>,
    /// How often a frame of this camera should be taken.
    interval: Duration,
    /// When one was.
    taken: Instant,
    pressing: bool,
}

/// How much more often a camera is served that is pressing.
const PRESSING: f64 = 2.0;

impl<F> Place<F> {
    /// For how many of its intervals it has waited. Who has waited most is next: what is too much makes the frames of each
    /// camera fewer by the same factor, and none starves.
    fn urgency(&self, now: Instant) -> f64 {
        let waited = now.saturating_duration_since(self.taken).as_secs_f64();
        waited / self.interval.as_secs_f64() * if self.pressing { PRESSING } else { 1.0 }
    }
}

impl<F> Places<F> {
    /// Takes the most urgent frame of a camera that may have its turn.
    fn next(&mut self, now: Instant, may: impl Fn(usize) -> bool) -> Option<(usize, F)> {
        let waiting = self.cameras.iter().enumerate();
        let waiting = waiting.filter(|(camera, place)| place.frame.is_some() && may(*camera));
        let (camera, _) = waiting.max_by(|(_, a), (_, b)| a.urgency(now).total_cmp(&b.urgency(now)))?;
        let place = &mut self.cameras[camera];
        place.taken = now;
        Some((camera, place.frame.take()?))
    }
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
    /// Empty places, one for each camera, of which so many frames per second should be taken.
    pub fn new(analysed_fps: impl IntoIterator<Item = f32>) -> Self {
        let taken = Instant::now();
        let place = |fps: f32| {
            let interval = Duration::from_secs_f32(1.0 / fps.clamp(0.01, 1000.0));
            Place { frame: None, interval, taken, pressing: false }
        };
        Self {
            places: Mutex::new(Places {
                cameras: analysed_fps.into_iter().map(place).collect(),
                closed: false,
            }),
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
        let replaced = places.cameras[camera].frame.replace(frame);
        drop(places);
        self.filled.notify_one();
        replaced.is_some()
    }

    /// The same, after it waited for the place to be free: of a camera that has just woken up, each frame tells something.
    pub fn offer_in_turn(&self, camera: usize, frame: F, patience: Duration) -> bool {
        let taken = |places: &mut Places<F>| !places.closed && places.cameras[camera].frame.is_some();
        drop(self.emptied.wait_timeout_while(self.lock(), patience, taken));
        self.offer(camera, frame)
    }

    /// Whether something goes on at a camera that is worth more frames than the others', when there are too many.
    pub fn press(&self, camera: usize, pressing: bool) {
        self.lock().cameras[camera].pressing = pressing;
    }

    /// Waits for a frame of any camera, and takes that of the one whose turn it is.
    pub fn take(&self, patience: Duration) -> Taken<F> {
        let empty = |places: &mut Places<F>| {
            !places.closed && places.cameras.iter().all(|place| place.frame.is_none())
        };
        let (mut places, _) = self
            .filled
            .wait_timeout_while(self.lock(), patience, empty)
            .unwrap_or_else(PoisonError::into_inner);
        match places.next(Instant::now(), |_| true) {
            Some((camera, frame)) => {
                self.emptied.notify_all();
                Taken::Frame(camera, frame)
            }
            None if places.closed => Taken::Closed,
            None => Taken::Nothing,
        }
    }

    /// Takes one more frame if one waits already, of a camera that may have its turn.
    pub fn take_another(&self, may: impl Fn(usize) -> bool) -> Option<(usize, F)> {
        let another = self.lock().next(Instant::now(), may);
        self.emptied.notify_all();
        another
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
        let slots = Slots::new([5.0]);
        assert!(!slots.offer(0, "old"));
        assert!(slots.offer(0, "new"));
        assert_eq!(slots.take(NOW), Taken::Frame(0, "new"));
        assert_eq!(slots.take(NOW), Taken::Nothing);
    }

    /// How often each camera is served in 1000 turns of so many ms, if there always is a frame of each.
    fn served(fps: &[f32], pressing: &[usize], turn_ms: u64) -> Vec<u32> {
        let slots = Slots::new(fps.iter().copied());
        pressing.iter().for_each(|camera| slots.press(*camera, true));
        let (mut served, mut now) = (vec![0; fps.len()], Instant::now());
        for _ in 0..1000 {
            for camera in 0..fps.len() {
                slots.offer(camera, ());
            }
            now += Duration::from_millis(turn_ms);
            let (camera, ()) = slots.lock().next(now, |_| true).unwrap();
            served[camera] += 1;
        }
        served
    }

    #[test]
    fn too_many_frames_become_fewer_by_the_same_factor() {
        let close = |found: &[u32], expected: &[u32]| {
            let off = found.iter().zip(expected).map(|(found, expected)| found.abs_diff(*expected)).max();
            assert!(off.is_some_and(|off| off <= 15), "{found:?}, expected about {expected:?}");
        };
        close(&served(&[5.0; 4], &[], 50), &[250; 4]);
        close(&served(&[5.0, 5.0, 10.0], &[], 100), &[250, 250, 500]);
        close(&served(&[5.0; 5], &[2], 100), &[167, 167, 333, 167, 167]); // something goes on at one
        close(&served(&[5.0; 3], &[0, 1, 2], 100), &[333; 3]);
        let many = served(&[5.0; 64], &[0, 1, 2, 3], 30);
        assert!(many.iter().all(|served| *served >= 12), "one starves: {many:?}");
    }

    #[test]
    fn another_frame_is_one_that_waits_and_may() {
        let slots = Slots::new([5.0; 3]);
        assert_eq!(slots.take_another(|_| true), None);
        slots.offer(0, "a");
        slots.offer(2, "c");
        assert_eq!(slots.take_another(|camera| camera == 2), Some((2, "c")));
        assert_eq!(slots.take_another(|camera| camera == 2), None);
        assert_eq!(slots.take(NOW), Taken::Frame(0, "a"));
    }

    #[test]
    fn what_lies_in_the_slots_is_looked_at_before_the_end() {
        let slots = Slots::new([5.0; 2]);
        slots.offer(1, "last");
        slots.close();
        assert!(!slots.offer(0, "too late"));
        assert_eq!(slots.take(NOW), Taken::Frame(1, "last"));
        assert_eq!(slots.take(NOW), Taken::Closed);
    }
}
