//! The outbox as its users see it, on real disks: full, read-only, taken, and damaged ones in [`damage`].

mod climbing;
mod damage;
mod model;

use std::fs;
use std::path::Path;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use sharp_eyes_protocol::alert::{Alert, AlertData, AlertKind, AlertState, ClockTrust, ModelName, Subject};
use sharp_eyes_protocol::command::Request;
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::topic::{Name, Site};
use tempfile::TempDir;

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn site() -> Site {
    Site {
        district: name("lan-xi"),
        township: name("yun-shan"),
        village: name("wang-cun"),
        box_name: name("box-1"),
    }
}

pub(crate) fn alert(severity: Severity) -> NewAlert {
    let data = AlertData {
        kind: AlertKind::Intrusion,
        severity,
        level: severity.first_level(),
        state: AlertState::Open,
        respond_s: None,
        over: false,
        count: None,
        tampering: None,
        cell: Some("B2".into()),
        class: None,
        confidence: Some(0.9),
        bounds: Some([0.1, 0.1, 0.2, 0.2]),
        model: Some(ModelName::new(name("test"), "1.0.0").unwrap()),
        clock: ClockTrust::Synced,
        boot: "0123abcd".into(),
        up_s: 7,
        evidence: true,
    };
    let subject = Subject { camera: name("gate"), zone: None };
    NewAlert { id: Uuid::now_v7(), time: Timestamp::now(), subject, data, arrived: Instant::now() }
}

/// A large picture of so many bytes and a small one of a tenth.
pub(super) fn pictures(of: &NewAlert, size: usize) -> NewEvidence {
    NewEvidence {
        alert: of.id,
        severity: of.data.severity,
        thumbnail: vec![0xee; size / 10],
        picture: vec![0xff; size],
    }
}

pub(crate) fn options(folder: &Path) -> OutboxOptions {
    OutboxOptions {
        folder: folder.to_owned(),
        max_bytes: 1 << 20,
        max_age: Duration::from_secs(86_400),
        max_delivered: 0,
        routes: vec!["township".into()],
        pictures_on_request: false,
        escalation: Escalation::default(),
    }
}

fn unsynced() -> WallClock {
    Arc::new(|| (Timestamp::now(), ClockTrust::Unsynced))
}

fn start(folder: &Path) -> Outbox {
    start_with(options(folder))
}

fn start_with(options: OutboxOptions) -> Outbox {
    Outbox::start(options, site(), unsynced()).unwrap()
}

/// An alert with its pictures, as the analysis hands them over.
fn raise(outbox: &Outbox, severity: Severity, size: usize) -> Uuid {
    let alert = alert(severity);
    let (id, evidence) = (alert.id, pictures(&alert, size));
    outbox.append(alert).unwrap();
    if size > 0 {
        outbox.attach(evidence);
    }
    id
}

async fn until(outbox: &Outbox, what: &str, wanted: impl Fn(&OutboxHealth) -> bool) -> OutboxHealth {
    let mut health = outbox.watch();
    let result = tokio::time::timeout(LONG, health.wait_for(|health| wanted(health))).await;
    result.unwrap_or_else(|_| panic!("no {what}: {:?}", outbox.stats())).unwrap().clone()
}

async fn stored(outbox: &Outbox, sequence: u64) {
    let mut stored = outbox.stored();
    let result = tokio::time::timeout(LONG, stored.wait_for(|last| *last >= sequence)).await;
    result.unwrap_or_else(|_| panic!("{sequence} is not stored: {:?}", outbox.stats())).unwrap();
}

/// Takes everything out, in the order in which it is given.
async fn drain(outbox: &Outbox) -> Vec<Waiting> {
    let mut all = Vec::new();
    loop {
        let next = outbox.next(0, Vec::new(), 10, true).await;
        if next.is_empty() {
            return all;
        }
        next.iter().for_each(|waiting| outbox.acknowledge(0, waiting.row));
        all.extend(next);
    }
}

fn parse(waiting: &Waiting) -> Alert {
    serde_json::from_slice(&waiting.payload).unwrap()
}

#[tokio::test]
async fn numbers_go_on_without_a_gap_over_restarts_and_emptied_tables() {
    let folder = TempDir::new().unwrap();
    let mut last = 0;
    for round in 0..4 {
        let outbox = start(folder.path());
        for _ in 0..5 {
            outbox.append(alert(Severity::Minor)).unwrap();
        }
        stored(&outbox, last + 5).await;
        if round % 2 == 0 {
            let numbers: Vec<u64> =
                drain(&outbox).await.iter().map(|waiting| parse(waiting).sequence).collect();
            assert_eq!(numbers, (last + 1..=last + 5).collect::<Vec<_>>());
        } else {
            drain(&outbox).await;
        }
        last += 5;
        assert_eq!(outbox.close(LONG).await, 0);
    }
}

#[tokio::test]
async fn the_worst_comes_first_then_the_oldest_then_small_pictures_then_large_ones() {
    let folder = TempDir::new().unwrap();
    let outbox = start(folder.path());
    for (severity, size) in
        [(Severity::Minor, 100), (Severity::Critical, 100), (Severity::Major, 0), (Severity::Critical, 0)]
    {
        raise(&outbox, severity, size);
    }
    until(&outbox, "everything", |health| health.alerts == 4 && health.evidence == 4).await;
    stored(&outbox, 4).await;
    let next = outbox.next(0, vec![Row::Alert(2)], 2, true).await;
    assert_eq!(next.iter().map(|waiting| waiting.row).collect::<Vec<_>>(), [Row::Alert(4), Row::Alert(3)]);
    assert!(next[0].topic.ends_with("/box-1/alert/district"), "{}", next[0].topic);
    assert!(next[0].arrived.is_some());
    let all = drain(&outbox).await;
    let kinds: Vec<String> =
        all.iter().map(|waiting| waiting.topic.split('/').skip(6).collect::<Vec<_>>().join("/")).collect();
    assert_eq!(kinds[..4], ["alert/district", "alert/district", "alert/township", "alert/village"]);
    for (kind, expected) in kinds[4..].iter().zip(["thumbnail/", "thumbnail/", "evidence/", "evidence/"]) {
        assert!(kind.starts_with(expected), "{kinds:?}");
    }
    assert_eq!(
        all[4].topic.split('/').next_back(),
        all[6].topic.split('/').next_back(),
        "the critical one's"
    );
    let health = until(&outbox, "empty outbox", |health| health.alerts + health.evidence == 0).await;
    assert_eq!((health.bytes, health.open), (0, 4), "they are delivered, and open: {health:?}");
}

#[tokio::test]
async fn what_the_broker_refuses_is_kept_and_given_out_no_more() {
    let folder = TempDir::new().unwrap();
    let outbox = start(folder.path());
    outbox.append(alert(Severity::Critical)).unwrap();
    outbox.append(alert(Severity::Minor)).unwrap();
    stored(&outbox, 2).await;
    outbox.park(0, Row::Alert(1), "NotAuthorized");
    assert_eq!(outbox.next(0, Vec::new(), 9, true).await[0].row, Row::Alert(2));
    until(&outbox, "parked alert", |health| health.parked == 1 && health.alerts == 1).await;
    outbox.close(LONG).await;
    let outbox = start(folder.path());
    assert_eq!(outbox.stats().parked, 1);
    assert_eq!(outbox.next(0, Vec::new(), 9, true).await.len(), 1);
}

#[tokio::test]
async fn pictures_make_room_before_any_alert_does_and_all_is_counted() {
    let folder = TempDir::new().unwrap();
    let options = OutboxOptions { max_bytes: 40_000, ..options(folder.path()) };
    let outbox = start_with(options.clone());
    for severity in [Severity::Critical, Severity::Minor, Severity::Minor, Severity::Major] {
        raise(&outbox, severity, 7_000);
    }
    until(&outbox, "pictures", |health| health.evidence == 8).await;
    raise(&outbox, Severity::Major, 7_000); // displaces the oldest minor picture
    let health = until(&outbox, "eviction", |health| health.evicted_evidence > 0).await;
    assert_eq!((health.alerts, health.evidence, health.evicted_evidence), (5, 9, 1));
    for _ in 0..120 {
        raise(&outbox, Severity::Major, 0);
    }
    stored(&outbox, 125).await;
    let health = outbox.stats();
    assert!(health.bytes <= 40_000, "{health:?}");
    assert_eq!(health.evidence, 0);
    assert!(health.evicted_alerts > 0 && health.alerts + health.evicted_alerts == 125, "{health:?}");
    let left: Vec<Alert> = outbox.next(0, Vec::new(), 100, false).await.iter().map(parse).collect();
    assert_eq!(left[0].sequence, 1, "the critical one stays");
    assert!(left.iter().all(|alert| alert.data.severity > Severity::Minor));
    outbox.close(LONG).await;
    assert_eq!(start_with(options).stats().evicted_alerts, health.evicted_alerts, "counters last");
}

#[tokio::test]
async fn a_second_agent_on_the_folder_is_refused() {
    let folder = TempDir::new().unwrap();
    let first = start(folder.path());
    let error = Outbox::start(options(folder.path()), site(), unsynced()).unwrap_err();
    assert!(matches!(error, OutboxError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    first.close(LONG).await;
    start(folder.path());
}

#[tokio::test]
async fn a_database_of_a_newer_agent_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    start(folder.path()).close(LONG).await;
    let store = store::Store::open(&options(folder.path())).unwrap();
    store.connection().pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let error = Outbox::start(options(folder.path()), site(), unsynced()).unwrap_err();
    assert!(error.to_string().contains("schema 99"), "{error}");
}

#[tokio::test]
async fn alerts_wait_in_memory_for_a_folder_that_cannot_be_written_the_worst_to_the_last() {
    let folder = TempDir::new().unwrap();
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, "a file where the folder should be").unwrap();
    let outbox = start_with(OutboxOptions { max_bytes: 64 << 20, ..options(&blocked.join("state")) });
    let failure = outbox.stats().failure.unwrap();
    assert!(failure.contains("blocked/state") && failure.contains("check that the folder"), "{failure}");
    for _ in 0..MAX_WAITING {
        raise(&outbox, Severity::Major, 64_000);
    }
    assert_eq!(outbox.append(alert(Severity::Major)).unwrap_err(), Full);
    let receipt = outbox.append(alert(Severity::Critical)).unwrap(); // in the place of a major one
    assert!(outbox.next(0, Vec::new(), 9, true).await.is_empty(), "nobody is told what is not on disk");
    let health = until(&outbox, "waiting", |health| health.alerts == MAX_WAITING as u64).await;
    assert!(health.failure.is_some());
    let asked = asked("console-1", 1, Request::Status);
    let Answer::Refused(refused) = outbox.execute(asked).await else { panic!("executed without a disk") };
    assert_eq!(refused.code, Refusal::Storage);
    fs::remove_file(&blocked).unwrap();
    let health = until(&outbox, "recovery", |health| health.failure.is_none()).await;
    assert_eq!(health.evicted_alerts, 2);
    assert_eq!(receipt.stored().await, Some(MAX_WAITING as u64));
    let waiting = drain(&outbox).await;
    let alerts = waiting.iter().filter(|waiting| matches!(waiting.row, Row::Alert(_))).count();
    assert_eq!(alerts, MAX_WAITING);
}

/// A question as the uplink hands it over.
pub(super) fn asked(console: &str, counter: u64, request: Request) -> Asked {
    let command = ConsoleCommand { console: name(console), counter, by: "李伟".into(), request };
    Asked {
        route: 0,
        correlation: counter.to_be_bytes().to_vec(),
        command: Ok(command),
        snapshot: None,
        no_updates: None,
    }
}

const MAX_WAITING: usize = inbox::MAX_ALERTS;

/// A small file system of its own, where the tests run as root.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mounted = Process::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("not tested here: mounting a small file system needs root");
        }
        mounted.then_some(Self(folder))
    }

    fn remount(&self, how: &str) {
        let target = self.0.path();
        let done =
            Process::new("mount").args(["-o", &format!("remount,{how}")]).arg(target).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Process::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_costs_pictures_and_no_alert() {
    let Some(disk) = SmallDisk::mount() else { return };
    let outbox = start_with(OutboxOptions { max_bytes: 1 << 30, ..options(disk.0.path()) });
    let mut sent = 0;
    while outbox.stats().evicted_evidence == 0 && outbox.stats().failure.is_none() {
        raise(&outbox, Severity::Major, 30_000);
        sent += 1;
        let mut health = outbox.watch();
        let changed = health.wait_for(|health| health.alerts >= sent && health.failure.is_none());
        let _ = tokio::time::timeout(Duration::from_secs(1), changed).await;
        assert!(sent < 400, "the disk is not full: {:?}", outbox.stats());
    }
    // Somebody else takes what is left, and gives it back.
    let hog = disk.0.path().join("hog");
    let _ = fs::write(&hog, vec![0; 5 << 20]);
    for _ in 0..40 {
        raise(&outbox, Severity::Critical, 30_000);
    }
    sent += 40;
    tokio::time::timeout(Duration::from_millis(500), std::future::pending::<()>()).await.unwrap_err();
    fs::remove_file(&hog).unwrap();
    stored(&outbox, sent).await;
    let health = until(&outbox, "recovery", |health| health.failure.is_none()).await;
    assert_eq!(health.alerts, sent, "{health:?}");
    let mut numbers: Vec<u64> =
        outbox.next(0, Vec::new(), 1000, false).await.iter().map(|waiting| parse(waiting).sequence).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=sent).collect::<Vec<_>>());
}

#[test]
fn numbers_go_on_on_a_disk_without_room_for_a_file_more() {
    let Some(disk) = SmallDisk::mount() else { return };
    let mut ledger = ledger::Ledger::open(disk.0.path()).unwrap();
    ledger.cover(1).unwrap();
    let _ = fs::write(disk.0.path().join("hog"), vec![0; 5 << 20]);
    assert!(fs::write(disk.0.path().join("more"), [0; 4096]).is_err(), "the disk is not full");
    let last = 10 * ledger::BLOCK;
    ledger.cover(last).unwrap();
    assert!(ledger::Ledger::open(disk.0.path()).unwrap().last(None) >= last);
}

#[tokio::test]
async fn a_disk_that_turns_read_only_is_named_and_used_again_afterwards() {
    let Some(disk) = SmallDisk::mount() else { return };
    let outbox = start(disk.0.path());
    raise(&outbox, Severity::Major, 0);
    stored(&outbox, 1).await;
    outbox.close(LONG).await;
    disk.remount("ro");
    let outbox = start(disk.0.path());
    raise(&outbox, Severity::Major, 1000);
    let health = until(&outbox, "failure", |health| health.failure.is_some()).await;
    let failure = health.failure.unwrap();
    assert!(failure.contains(&disk.0.path().display().to_string()), "{failure}");
    disk.remount("rw");
    stored(&outbox, 2).await;
    until(&outbox, "recovery", |health| health.failure.is_none()).await;
    assert_eq!(drain(&outbox).await.len(), 4);
}
