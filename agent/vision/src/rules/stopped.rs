//! A vehicle stands where it must not.

use std::time::Duration;

use super::place::{Place, Places};
use super::share_done;
use crate::geometry::Polygon;

/// The zone, and for how long a vehicle may stand in it.
#[derive(Clone, Debug)]
pub(super) struct Stopped {
    polygon: Polygon,
    time: Duration,
    /// Since when the rule has been awake: only that counts.
    awake: Option<Duration>,
}

impl Stopped {
    pub(super) fn new(polygon: Polygon, time: Duration) -> Self {
        Self { polygon, time, awake: None }
    }

    /// Takes note of whether the rule is awake.
    pub(super) fn rest(&mut self, now: Duration, awake: bool) {
        self.awake = awake.then(|| self.awake.unwrap_or(now));
    }

    /// When a vehicle in this place has stood for long enough, if it stands in the zone.
    fn due(&self, place: &Place) -> Option<Duration> {
        let inside = self.polygon.contains(place.bounds().foot());
        self.awake.filter(|_| inside).map(|awake| place.since().max(awake) + self.time)
    }

    /// The vehicles that are being waited for, and when each has stood for long enough.
    pub(super) fn waiting<'a>(&'a self, places: &'a Places) -> impl Iterator<Item = (u64, Duration)> + 'a {
        let seen = places.iter().filter(|place| place.is_in_sight() && place.alarmed.is_none());
        seen.filter_map(|place| self.due(place).map(|due| (place.track(), due)))
    }

    /// The same, and how much of the time each has done, 0 to 1.
    pub(super) fn progress<'a>(
        &'a self,
        now: Duration,
        places: &'a Places,
    ) -> impl Iterator<Item = (u64, f32)> + 'a {
        self.waiting(places).map(move |(track, due)| (track, share_done(now, due, self.time)))
    }

    /// The mean score since the vehicle came to rest, where it has stood for long enough.
    pub(super) fn see(&self, now: Duration, place: &Place) -> Option<f32> {
        self.due(place).filter(|due| now >= *due && !place.is_leaving()).map(|_| place.score())
    }
}
