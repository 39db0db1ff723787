//! One beat for all who look around again and again: to wake up an idle processor costs more than what it is woken for.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Waits for the next beat of those that come every `period`. Periods that are multiples of one another fall together.
pub async fn rest(period: Duration) {
    let start = *START;
    sleep_until(start + next(start.elapsed(), period)).await;
}

/// The first whole multiple of `period` after `now`.
fn next(now: Duration, period: Duration) -> Duration {
    let into = now.as_nanos() % period.as_nanos();
    now + period - Duration::from_nanos(into as u64) // less than a period, and those are short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_fall_together_and_are_never_now() {
        let ms = Duration::from_millis;
        for (now, half, whole) in [(0, 500, 1000), (1, 500, 1000), (499, 500, 1000), (500, 1000, 1000)] {
            assert_eq!(next(ms(now), ms(500)), ms(half), "after {now} ms");
            assert_eq!(next(ms(now), ms(1000)), ms(whole), "after {now} ms");
        }
        assert_eq!(next(Duration::from_nanos(1_999_999_999), ms(1000)), ms(2000));
    }
}
