//! The outbox as its users see it, on real disks: full, read-only, damaged, taken.

mod model;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sharp_eyes_protocol::alert::{Alert, AlertData, AlertState, Subject, AlertKind, ClockTrust, ModelName};
use sharp_eyes_protocol::level::Severity;
use sharp_eyes_protocol::topic::{Name, Site};
use tempfile::TempDir;

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(super) fn site() -> Site {
    Site {
        district: name("lan-xi"),
        township: name("yun-shan"),
        village: name("wang-cun"),
        box_name: name("box-1"),
    }
}

pub(super) fn alert(severity: Severity, picture: Option<usize>) -> NewAlert {
    let data = AlertData {
        kind: AlertKind::Intrusion,
        severity,
        level: severity.first_level(),
        state: AlertState::Open,
        respond_s: None,
        cell: "B2".into(),
        class: None,
        confidence: 0.9,
        bounds: [0.1, 0.1, 0.2, 0.2],
        model: ModelName::new(name("test"), "1.0.0").unwrap(),
        clock: ClockTrust::Synced,
        boot: "0123abcd".into(),
        up_s: 7,
        evidence: true,
    };
    NewAlert {
        id: Uuid::now_v7(),
        time: Timestamp::now(),
        subject: Subject { camera: name("gate"), zone: None },
        data,
        picture: picture.map(|size| vec![0xff; size]),
        arrived: Instant::now(),
    }
}

fn options(folder: &Path) -> OutboxOptions {
    OutboxOptions { folder: folder.to_owned(), max_bytes: 1 << 20, max_age: Duration::from_secs(86_400) }
}

fn start(folder: &Path) -> Outbox {
    Outbox::start(options(folder), site()).unwrap()
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
        let next = outbox.next(Vec::new(), 10, true).await;
        if next.is_empty() {
            return all;
        }
        next.iter().for_each(|waiting| outbox.acknowledge(waiting.row));
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
            outbox.append(alert(Severity::Minor, None)).unwrap();
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
async fn the_worst_comes_first_then_the_oldest_then_the_pictures() {
    let folder = TempDir::new().unwrap();
    let outbox = start(folder.path());
    for (severity, picture) in [
        (Severity::Minor, Some(100)),
        (Severity::Critical, Some(100)),
        (Severity::Major, None),
        (Severity::Critical, None),
    ] {
        outbox.append(alert(severity, picture)).unwrap();
    }
    stored(&outbox, 4).await;
    let flying = vec![Row::Alert(2)];
    let next = outbox.next(flying, 2, true).await;
    assert_eq!(next.iter().map(|waiting| waiting.row).collect::<Vec<_>>(), [Row::Alert(4), Row::Alert(3)]);
    assert!(next[0].topic.ends_with("/box-1/alert/district"), "{}", next[0].topic);
    assert!(next[0].arrived.is_some());
    let rows: Vec<Row> = drain(&outbox).await.iter().map(|waiting| waiting.row).collect();
    use Row::{Alert, Evidence};
    assert_eq!(rows, [Alert(2), Alert(4), Alert(3), Alert(1), Evidence(2), Evidence(1)]);
    let health = until(&outbox, "empty outbox", |health| health.alerts + health.evidence == 0).await;
    assert_eq!(health, OutboxHealth::default());
}

#[tokio::test]
async fn what_the_broker_refuses_is_kept_and_given_out_no_more() {
    let folder = TempDir::new().unwrap();
    let outbox = start(folder.path());
    outbox.append(alert(Severity::Critical, None)).unwrap();
    outbox.append(alert(Severity::Minor, None)).unwrap();
    stored(&outbox, 2).await;
    outbox.park(Row::Alert(1), "NotAuthorized");
    assert_eq!(outbox.next(Vec::new(), 9, true).await[0].row, Row::Alert(2));
    until(&outbox, "parked alert", |health| health.parked == 1 && health.alerts == 1).await;
    outbox.close(LONG).await;
    let outbox = start(folder.path());
    assert_eq!(outbox.stats().parked, 1);
    assert_eq!(outbox.next(Vec::new(), 9, true).await.len(), 1);
}

#[tokio::test]
async fn pictures_make_room_before_any_alert_does_and_all_is_counted() {
    let folder = TempDir::new().unwrap();
    let mut options = options(folder.path());
    options.max_bytes = 20_000;
    let outbox = Outbox::start(options, site()).unwrap();
    for severity in [Severity::Critical, Severity::Minor, Severity::Minor, Severity::Major] {
        outbox.append(alert(severity, Some(4_000))).unwrap();
    }
    stored(&outbox, 4).await;
    outbox.append(alert(Severity::Major, Some(4_000))).unwrap(); // displaces the oldest minor picture
    stored(&outbox, 5).await;
    let health = outbox.stats();
    assert_eq!((health.alerts, health.evidence, health.evicted_evidence), (5, 4, 1));
    outbox.append(alert(Severity::Minor, Some(4_999))).unwrap(); // displaces the other, and no more: it must go bare
    stored(&outbox, 6).await;
    let all = outbox.next(Vec::new(), 9, false).await;
    let bare = all.iter().map(parse).find(|alert| alert.sequence == 6).unwrap();
    assert!(!bare.data.evidence, "it says that a picture follows");
    for _ in 0..80 {
        outbox.append(alert(Severity::Major, None)).unwrap();
    }
    stored(&outbox, 86).await;
    let health = outbox.stats();
    assert!(health.bytes <= 20_000, "{health:?}");
    assert_eq!(health.evidence, 0);
    assert!(health.evicted_alerts > 0 && health.alerts + health.evicted_alerts == 86, "{health:?}");
    let left: Vec<Alert> = outbox.next(Vec::new(), 100, false).await.iter().map(parse).collect();
    assert_eq!(left[0].sequence, 1, "the critical one stays");
    assert!(left.iter().all(|alert| alert.data.severity > Severity::Minor));
    outbox.close(LONG).await;
    assert_eq!(start(folder.path()).stats().evicted_alerts, health.evicted_alerts, "counters last");
}

#[tokio::test]
async fn a_second_agent_on_the_folder_is_refused() {
    let folder = TempDir::new().unwrap();
    let first = start(folder.path());
    let error = Outbox::start(options(folder.path()), site()).unwrap_err();
    assert!(matches!(error, OutboxError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    first.close(LONG).await;
    start(folder.path());
}

#[tokio::test]
async fn a_database_of_a_newer_agent_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    start(folder.path()).close(LONG).await;
    let store = store::Store::open(folder.path(), 1, LONG).unwrap();
    store.connection().pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let error = Outbox::start(options(folder.path()), site()).unwrap_err();
    assert!(error.to_string().contains("schema 99"), "{error}");
}

#[tokio::test]
async fn a_damaged_database_is_moved_aside_and_counting_goes_on_above() {
    let folder = TempDir::new().unwrap();
    let outbox = start(folder.path());
    for _ in 0..200 {
        outbox.append(alert(Severity::Major, Some(2_000))).unwrap();
    }
    stored(&outbox, 200).await;
    outbox.close(LONG).await;
    let file = folder.path().join("outbox.db");
    let size = fs::metadata(&file).unwrap().len() as usize;
    let original = fs::read(&file).unwrap();
    let mut highest = 200;
    for (n, damage) in [0..100, 4096..8192, size / 2..size].into_iter().enumerate() {
        let mut bytes = original.clone();
        bytes[damage].fill(0xa5);
        fs::write(&file, bytes).unwrap();
        let outbox = start(folder.path());
        outbox.append(alert(Severity::Critical, None)).unwrap();
        stored(&outbox, highest + 1).await;
        let next = outbox.next(Vec::new(), 1, false).await;
        highest = parse(&next[0]).sequence;
        assert!(highest > 200);
        assert!(folder.path().join(format!("outbox.corrupt-{}", n + 1)).exists(), "{n}");
        outbox.close(LONG).await;
    }
}

#[tokio::test]
async fn alerts_wait_in_memory_for_a_folder_that_cannot_be_written() {
    let folder = TempDir::new().unwrap();
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, "a file where the folder should be").unwrap();
    let outbox = start(&blocked.join("state"));
    let failure = outbox.stats().failure.unwrap();
    assert!(failure.contains("blocked/state") && failure.contains("check that the folder"), "{failure}");
    for _ in 0..MAX_WAITING {
        outbox.append(alert(Severity::Major, Some(64_000))).unwrap();
    }
    assert_eq!(outbox.append(alert(Severity::Critical, None)), Err(Full));
    assert!(outbox.next(Vec::new(), 9, true).await.is_empty(), "nobody is told what is not on disk");
    let health = until(&outbox, "waiting", |health| health.alerts == MAX_WAITING as u64).await;
    assert!(health.failure.is_some());
    fs::remove_file(&blocked).unwrap();
    let health = until(&outbox, "recovery", |health| health.failure.is_none()).await;
    assert_eq!(health.evicted_alerts, 1);
    stored(&outbox, MAX_WAITING as u64).await;
    let waiting = drain(&outbox).await;
    let pictures = waiting.iter().filter(|waiting| matches!(waiting.row, Row::Evidence(_))).count();
    assert_eq!(waiting.len() - pictures, MAX_WAITING);
}
const MAX_WAITING: usize = inbox::MAX_ALERTS;

/// A small file system of its own, where the tests run as root.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mounted = Command::new("mount")
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
            Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(target).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_costs_pictures_and_no_alert() {
    let Some(disk) = SmallDisk::mount() else { return };
    let outbox =
        Outbox::start(OutboxOptions { max_bytes: 1 << 30, ..options(disk.0.path()) }, site()).unwrap();
    let mut sent = 0;
    while outbox.stats().evicted_evidence == 0 && outbox.stats().failure.is_none() {
        outbox.append(alert(Severity::Major, Some(30_000))).unwrap();
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
        outbox.append(alert(Severity::Critical, Some(30_000))).unwrap();
    }
    sent += 40;
    tokio::time::timeout(Duration::from_millis(500), std::future::pending::<()>()).await.unwrap_err();
    fs::remove_file(&hog).unwrap();
    stored(&outbox, sent).await;
    let health = until(&outbox, "recovery", |health| health.failure.is_none()).await;
    assert_eq!(health.alerts, sent, "{health:?}");
    let mut numbers: Vec<u64> =
        outbox.next(Vec::new(), 1000, false).await.iter().map(|waiting| parse(waiting).sequence).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=sent).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_disk_that_turns_read_only_is_named_and_used_again_afterwards() {
    let Some(disk) = SmallDisk::mount() else { return };
    let outbox = start(disk.0.path());
    outbox.append(alert(Severity::Major, None)).unwrap();
    stored(&outbox, 1).await;
    outbox.close(LONG).await;
    disk.remount("ro");
    let outbox = start(disk.0.path());
    outbox.append(alert(Severity::Major, Some(1000))).unwrap();
    let health = until(&outbox, "failure", |health| health.failure.is_some()).await;
    let failure = health.failure.unwrap();
    assert!(failure.contains(&disk.0.path().display().to_string()), "{failure}");
    disk.remount("rw");
    stored(&outbox, 2).await;
    until(&outbox, "recovery", |health| health.failure.is_none()).await;
    assert_eq!(drain(&outbox).await.len(), 3);
}
