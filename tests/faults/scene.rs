//! What most tests of faults stand on: a box without cameras, a township that listens, and what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sharp_eyes_protocol::alert::AlertEvent;
use sharp_eyes_tests::alert_source::{AlertSource, Stored};
use sharp_eyes_tests::broker::{Broker, BrokerOptions};
use sharp_eyes_tests::console::{Console, Received};
use sharp_eyes_tests::faulty_broker::{Direction, Fate, FaultyBroker, Kind, rule};
use sharp_eyes_tests::village::Village;
use sharp_eyes_tests::wait;

use crate::stage::township;

/// The root of the box's topics.
pub(crate) const BOX: &str = "sharp-eyes/1/lan-xi/yun-shan/wang-cun/box-1";

/// A broker, a console at it, a man in the middle before it, and the village of a box that meets only him.
pub(crate) struct Scene {
    pub(crate) village: Village,
    pub(crate) between: FaultyBroker,
    pub(crate) console: Console,
    pub(crate) broker: Broker,
}

impl Scene {
    pub(crate) fn set(folder: &Path) -> Result<Self> {
        Self::with(folder, &BrokerOptions::default())
    }

    pub(crate) fn with(folder: &Path, options: &BrokerOptions) -> Result<Self> {
        let (broker, console) = township(folder, options)?;
        let between = FaultyBroker::start(broker.port())?;
        let village = AlertSource::village(folder, between.port())?;
        Ok(Self { village, between, console, broker })
    }

    /// A box that is connected and has said how it is, so that only alerts are still to come.
    pub(crate) fn box_at_rest(&self) -> Result<AlertSource> {
        let mut source = AlertSource::start(&self.village)?;
        source.health_when("status, health and models to be acknowledged", wait::PATIENCE, |health| {
            (health.uplinks[0].acknowledged >= 3).then_some(())
        })?;
        Ok(source)
    }

    /// Starts a killed broker again. The box meets it when the console is back: a broker without memory forgets whoever is
    /// away, and tells the box that it has the message.
    pub(crate) fn restart_broker(&mut self) -> Result<()> {
        self.between.set_rule(rule::each(Direction::ToBroker, Kind::Connect, 1, Fate::Cut));
        self.console.await_loss()?;
        self.broker.restart()?;
        self.console.await_connection()?;
        self.between.heal();
        Ok(())
    }

    /// Waits until the box has delivered everything, and checks that the console has what was promised.
    pub(crate) fn everything_arrives(&self, mut source: AlertSource) -> Result<()> {
        source.await_delivery()?;
        let promised = source.stop()?;
        arrive(&self.console, &promised)
    }
}

/// Waits until what was promised is at the console, and checks all that it has: every promise is there under its number, no
/// number is missing, none stands for two messages, no alert was raised twice.
pub(crate) fn arrive(console: &Console, promised: &[Stored]) -> Result<()> {
    let last = promised.iter().map(|stored| stored.sequence).max().unwrap_or(0);
    console.wait_for(&format!("alert {last}"), 2 * wait::PATIENCE, |seen| {
        let all: BTreeSet<u64> = seen.alerts.iter().map(|received| received.alert.sequence).collect();
        promised.iter().all(|stored| all.contains(&stored.sequence)).then_some(())
    })?;
    console.seen(|seen| {
        ensure!(seen.nonsense.is_empty(), "{:?}", seen.nonsense);
        check(&seen.alerts, promised)
    })
}

fn check(received: &[Received], promised: &[Stored]) -> Result<()> {
    let mut messages = BTreeMap::<u64, &Received>::new();
    let mut raised = BTreeSet::new();
    for found in received {
        let number = found.alert.sequence;
        match messages.insert(number, found) {
            Some(first) => ensure!(first.json == found.json, "number {number} stands for two messages"),
            None if found.alert.event == AlertEvent::Raised => {
                ensure!(raised.insert(found.alert.id), "alert {} was raised twice", found.alert.id);
            }
            None => {}
        }
    }
    for stored in promised {
        let found = messages.get(&stored.sequence).with_context(|| format!("{stored:?} never arrived"))?;
        ensure!(found.alert.id == stored.id, "{stored:?} arrived as {}", found.json);
    }
    let gap = messages.keys().zip(1..).find(|(found, expected)| **found != *expected);
    ensure!(
        gap.is_none(),
        "of the numbers up to {}, {} is missing",
        messages.len(),
        gap.map_or(0, |gap| gap.1)
    );
    Ok(())
}

/// How often a message arrived.
pub(crate) fn times(console: &Console, sequence: u64) -> usize {
    console.seen(|seen| seen.alerts.iter().filter(|received| received.alert.sequence == sequence).count())
}

/// Plays cases beside each other, each in a folder of its own: most of their time is waiting.
pub(crate) fn beside<T: Sync>(
    folder: &Path,
    cases: &[(&str, T)],
    test: impl Fn(&Path, &T) -> Result<()> + Sync,
) -> Result<()> {
    let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
        let play = |n: usize| {
            let (test, (name, case)) = (&test, &cases[n]);
            let folder = folder.join(n.to_string());
            scope.spawn(move || {
                std::fs::create_dir_all(&folder)?;
                test(&folder, case).with_context(|| format!("{name} (in {})", folder.display()))
            })
        };
        let running: Vec<_> = (0..cases.len()).map(play).collect();
        let end = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a case panicked")))
        };
        running.into_iter().map(end).collect()
    });
    outcomes.into_iter().collect()
}
