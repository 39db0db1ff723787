//! Opens what an agent left, by the outbox's own code, and looks for what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use sharp_eyes_agent::clock::Clock;
use sharp_eyes_agent::escalation::Escalation;
use sharp_eyes_agent::outbox::{Asked, Outbox, OutboxOptions, Row};
use sharp_eyes_protocol::alert::{Alert, ClockTrust};
use sharp_eyes_protocol::command::{Answer, Command, Done, Range, Request};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::topic::{Name, Site};
use sharp_eyes_tests::alert_source::{Stored, new_alert};
use uuid::Uuid;

/// How long an outbox may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn name(text: &str) -> Name {
    Name::new(text).expect("lower-case letters are a name")
}

/// An outbox as the daemon opens it for one broker.
fn options(folder: &Path) -> OutboxOptions {
    OutboxOptions {
        folder: folder.to_owned(),
        max_bytes: 512 << 20,
        max_age: Duration::from_secs(30 * 86_400),
        max_delivered: 10_000,
        routes: vec!["*".into()],
        pictures_on_request: false,
        escalation: Escalation::default(),
    }
}

fn site() -> Site {
    Site {
        district: name("lan-xi"),
        township: name("yun-shan"),
        village: name("wang-cun"),
        box_name: name("box-1"),
    }
}

/// An outbox opens there at once, holds all that was promised under its numbers, misses no number, and gives the next one
/// to the next alert.
pub(crate) fn holds(folder: &Path, promised: &[Stored]) -> Result<()> {
    holds_or(folder, promised, |forgotten| bail!("{forgotten:?} is missing"))
}

/// The same, but what it holds no more is asked about.
pub(crate) fn holds_or(
    folder: &Path,
    promised: &[Stored],
    forgotten: impl Fn(&Stored) -> Result<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let checked = check(folder, promised, forgotten);
        tokio::time::timeout(PATIENCE, checked).await.context("the outbox does not open")?
    })
}

/// The ids of all messages there, delivered ones included.
pub(crate) fn readable(folder: &Path) -> Result<BTreeSet<Uuid>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let outbox = open(folder)?;
        let (found, _) = all_messages(&outbox).await?;
        outbox.close(PATIENCE).await;
        Ok(found.into_values().collect())
    })
}

fn open(folder: &Path) -> Result<Outbox> {
    let wall = Arc::new(|| (Timestamp::now(), ClockTrust::Unsynced));
    Ok(Outbox::start(options(folder), site(), wall)?)
}

async fn check(folder: &Path, promised: &[Stored], forgotten: impl Fn(&Stored) -> Result<()>) -> Result<()> {
    let outbox = open(folder)?;
    let health = outbox.stats();
    ensure!(health.failure.is_none(), "{:?}", health.failure);
    let new = new_alert(&name("gate"), Severity::Critical, &Clock::start(folder), false);
    let id = new.id;
    let number = outbox.append(new)?.stored().await.context("a new alert is not stored")?;
    let (found, missing) = all_messages(&outbox).await?;
    let missing: BTreeSet<u64> = missing.into_iter().flat_map(|(from, to)| from..=to).collect();
    for number in &missing {
        let stored = promised.iter().find(|stored| stored.sequence == *number);
        forgotten(stored.with_context(|| format!("number {number} is missing"))?)?;
    }
    let numbers: BTreeSet<u64> = found.keys().chain(&missing).copied().collect();
    ensure!(numbers.iter().copied().eq(1..=number), "of the numbers up to {number}, there are {numbers:?}");
    ensure!(found[&number] == id, "the number {number} stands for another alert");
    let ids: BTreeSet<&Uuid> = found.values().collect();
    ensure!(ids.len() == found.len(), "an alert stands there twice: {found:?}");
    for stored in promised.iter().filter(|stored| !missing.contains(&stored.sequence)) {
        let there = found.get(&stored.sequence);
        ensure!(there == Some(&stored.id), "promised: {stored:?}; found: {there:?}");
    }
    ensure!(!folder.join("outbox.corrupt-1.read").exists(), "the database was taken to be damaged");
    ensure!(outbox.stats().evicted_alerts == 0, "{:?}", outbox.stats());
    outbox.close(PATIENCE).await;
    Ok(())
}

/// Also those that were delivered: they are sent again when somebody asks for them.
/// With the numbers that are missing.
async fn all_messages(outbox: &Outbox) -> Result<(BTreeMap<u64, Uuid>, Vec<(u64, u64)>)> {
    let request = Request::Resend(Range { from: 1, to: None });
    let command = Command { console: name("console"), counter: 1, by: "Li Wei".into(), request };
    let asked = Asked {
        route: 0,
        correlation: b"1".to_vec(),
        command: Ok(command),
        snapshot: None,
        no_updates: None,
    };
    let answer = outbox.execute(asked).await;
    let Answer::Done(Done::Resend(resent)) = answer else { bail!("{answer:?}") };
    let waiting = outbox.next(0, Vec::new(), 10_000, false).await;
    let read = |waiting: &sharp_eyes_agent::outbox::Waiting| -> Result<(u64, Uuid)> {
        let alert: Alert = serde_json::from_slice(&waiting.payload)?;
        ensure!(waiting.row == Row::Alert(alert.sequence), "{:?} is {alert:?}", waiting.row);
        Ok((alert.sequence, alert.id))
    };
    let found: Result<_> = waiting.iter().map(read).collect();
    Ok((found?, resent.missing))
}
