//! What the disk has changed behind the outbox's back.

use std::collections::BTreeSet;

use sharp_eyes_protocol::command::OfAlert;

use super::*;

/// Does this to the database of a folder that no outbox has open.
fn change(folder: &Path, sql: &str) {
    store::Store::open(&options(folder)).unwrap().connection().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn of_a_damaged_database_everything_readable_is_sent_and_counting_goes_on_above() {
    let folder = TempDir::new().unwrap();
    let outbox = start(folder.path());
    for _ in 0..200 {
        raise(&outbox, Severity::Major, 2_000);
    }
    until(&outbox, "everything", |health| health.evidence == 400).await;
    outbox.close(LONG).await;
    let file = folder.path().join("outbox.db");
    let size = fs::metadata(&file).unwrap().len() as usize;
    let original = fs::read(&file).unwrap();
    let pages = size / 4096;
    // The header, whatever the last page holds, and a page in the middle; then half of everything.
    for (damage, least) in [
        (0..100, 0),
        ((pages - 1) * 4096..size, 190),
        (pages / 2 * 4096..(pages / 2 + 1) * 4096, 190),
        (size / 2..size, 20),
    ] {
        let copy = TempDir::new().unwrap();
        let mut bytes = original.clone();
        bytes[damage.clone()].fill(0xa5);
        fs::write(copy.path().join("outbox.db"), bytes).unwrap();
        fs::copy(folder.path().join("sequence"), copy.path().join("sequence")).unwrap();
        let outbox = start(copy.path());
        let receipt = outbox.append(alert(Severity::Critical)).unwrap();
        receipt.stored().await.unwrap();
        let mut found = Vec::new();
        // The damage may be met only while reading, and then everything begins anew.
        while outbox.stats().alerts > 0 || outbox.stats().failure.is_some() || found.is_empty() {
            found.extend(drain(&outbox).await);
            until(&outbox, "recovery", |health| health.failure.is_none()).await;
        }
        let numbers: BTreeSet<u64> = found
            .iter()
            .filter(|waiting| matches!(waiting.row, Row::Alert(_)))
            .map(|waiting| parse(waiting).sequence)
            .collect();
        assert!(numbers.last().is_some_and(|last| *last > 200), "{damage:?}: {numbers:?}");
        assert!(numbers.len() > least, "{damage:?}: {} of 200 are left", numbers.len() - 1);
        outbox.close(LONG).await;
    }
}

#[tokio::test]
async fn a_row_that_the_disk_changed_is_given_up_and_counted() {
    let folder = TempDir::new().unwrap();
    let outbox = start(folder.path());
    raise(&outbox, Severity::Major, 0);
    raise(&outbox, Severity::Major, 0);
    stored(&outbox, 2).await;
    outbox.close(LONG).await;
    change(folder.path(), "UPDATE message SET json = replace(json, 'major', 'minor') WHERE sequence = 1");
    let outbox = start(folder.path());
    let found = outbox.next(0, Vec::new(), 9, false).await;
    assert_eq!(found.iter().map(|waiting| waiting.row).collect::<Vec<_>>(), [Row::Alert(2)]);
    until(&outbox, "the loss", |health| health.evicted_alerts == 1 && health.alerts == 1).await;
}

#[tokio::test]
async fn an_open_alert_that_is_none_any_more_stops_no_other() {
    let folder = TempDir::new().unwrap();
    let outbox = start(folder.path());
    let (lost, other) = (raise(&outbox, Severity::Major, 0), raise(&outbox, Severity::Major, 0));
    stored(&outbox, 2).await;
    outbox.close(LONG).await;
    change(folder.path(), "UPDATE open_alert SET json = substr(json, 2), due = 0 WHERE number = 1");

    let outbox = start(folder.path());
    let receipt = outbox.append(alert(Severity::Critical)).unwrap();
    assert!(receipt.stored().await.is_some(), "{:?}", outbox.stats());
    until(&outbox, "recovery", |health| health.failure.is_none()).await;
    let open = outbox.lasting().await;
    let open: Vec<Uuid> = open.iter().map(|alert| alert.id).collect();
    assert!(open.contains(&other) && !open.contains(&lost), "{open:?}");
    assert_eq!((outbox.stats().evicted_alerts, outbox.stats().open), (1, 2));
    assert!(!folder.path().join("outbox.corrupt-1").exists(), "the rest of the database is whole");
}

#[tokio::test]
async fn what_somebody_has_acknowledged_is_open_in_the_next_database_and_does_not_climb_there() {
    let (old, new) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let outbox = start(old.path());
    let id = raise(&outbox, Severity::Major, 0);
    let acknowledge = Request::Acknowledge(OfAlert { alert: id, note: None });
    assert!(matches!(outbox.execute(asked("yun-shan-1", 1, acknowledge)).await, Answer::Done(_)));
    outbox.close(LONG).await;
    let mut store = store::Store::open(&options(new.path())).unwrap();
    assert_eq!(store.salvage(&old.path().join("outbox.db")).unwrap().open, 1);
    assert_eq!(store.health().open, 1);
    assert_eq!(store.next_climb(), None);
    assert_eq!(store.lasting().unwrap()[0].data.state, AlertState::Acknowledged);
}

#[tokio::test]
async fn rows_that_are_out_of_order_are_read_once() {
    let (old, new) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let outbox = start(old.path());
    for _ in 0..5 {
        raise(&outbox, Severity::Major, 0);
    }
    stored(&outbox, 5).await;
    outbox.close(LONG).await;
    let file = old.path().join("outbox.db");
    change(old.path(), "PRAGMA wal_checkpoint(TRUNCATE)");
    // Of a row as short as these, the byte before its header is its number: 5 becomes 2. The first column, the number itself,
    // has no type (0) and no bytes there.
    let mut bytes = fs::read(&file).unwrap();
    let mut renumbered = 0;
    for at in 1..bytes.len() - 2 {
        if bytes[at - 1] == 5 && (8..=12).contains(&bytes[at]) && bytes[at + 1] == 0 {
            bytes[at - 1] = 2;
            renumbered += 1;
        }
    }
    assert!(renumbered > 0);
    fs::write(&file, bytes).unwrap();
    let mut store = store::Store::open(&options(new.path())).unwrap();
    let saved = store.salvage(&file).unwrap();
    assert!(saved.messages <= 5 && saved.open <= 5, "{saved:?}");
}
