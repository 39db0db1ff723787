//! Random schedules against a plain model of what an outbox is. A crash is a copy of the files as they are at that
//! moment: what a power cut leaves after the last durable write.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use sharp_eyes_protocol::level::Severity;
use tempfile::TempDir;

use super::{alert, site};
use crate::outbox::inbox::Lost;
use crate::outbox::store::{Batch, Store};
use crate::outbox::{NewAlert, Row};

const MAX_BYTES: u64 = 12_000;
const AGE: Duration = Duration::from_secs(1000);

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(Severity, Option<usize>)>),
    /// Of what is given out, the one at this place.
    Acknowledge(usize),
    Park(usize),
    Crash,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let severity = proptest::sample::select(Severity::ALL.to_vec());
    let new = (severity, proptest::option::of(100_usize..3_500));
    let step = prop_oneof![
        4 => proptest::collection::vec(new, 1..4).prop_map(Step::Append),
        4 => (0_usize..8).prop_map(Step::Acknowledge),
        1 => (0_usize..8).prop_map(Step::Park),
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A row of the model: number, rank, bytes, whether parked.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    row: Row,
    rank: usize,
    bytes: u64,
    parked: bool,
}

#[derive(Debug, Default)]
struct Model {
    held: Vec<Held>,
    given: u64,
    evicted_alerts: u64,
    evicted_evidence: u64,
}

impl Model {
    fn bytes(&self) -> u64 {
        self.held.iter().map(|held| held.bytes).sum()
    }

    fn sending(&self) -> Vec<Row> {
        let mut waiting: Vec<&Held> = self.held.iter().filter(|held| !held.parked).collect();
        waiting.sort_by_key(|held| (matches!(held.row, Row::Evidence(_)), usize::MAX - held.rank, held.row));
        waiting.iter().map(|held| held.row).collect()
    }

    /// The first to go of one kind up to a rank: refused ones, then the mildest, then the oldest.
    fn evict(&mut self, evidence: bool, up_to: usize) -> bool {
        let first = self
            .held
            .iter()
            .filter(|held| {
                matches!(held.row, Row::Evidence(_)) == evidence && (held.parked || held.rank <= up_to)
            })
            .min_by_key(|held| (!held.parked, held.rank, held.row))
            .cloned();
        let Some(first) = first else { return false };
        self.held.retain(|held| *held != first);
        *if evidence { &mut self.evicted_evidence } else { &mut self.evicted_alerts } += 1;
        true
    }

    fn append(&mut self, severity: Severity, picture: Option<usize>, json: impl Fn(bool) -> u64) {
        self.given += 1;
        let rank = Severity::ALL.iter().position(|s| *s == severity).unwrap();
        let mut picture = picture.map(|size| size as u64);
        if let Some(size) = picture {
            let small = size <= MAX_BYTES / 4;
            while small && self.bytes() + size + 1024 > MAX_BYTES && self.evict(true, rank) {}
            if !small || self.bytes() + size + 1024 > MAX_BYTES {
                self.evicted_evidence += 1;
                picture = None;
            }
        }
        let alert = json(picture.is_some());
        let bytes = alert + picture.unwrap_or(0);
        while self.bytes() + bytes > MAX_BYTES && self.evict(true, 9) {}
        while self.bytes() + bytes > MAX_BYTES && self.evict(false, rank) {}
        if self.bytes() + bytes > MAX_BYTES {
            self.evicted_alerts += 1;
            return;
        }
        self.held.push(Held { row: Row::Alert(self.given), rank, bytes: alert, parked: false });
        if let Some(bytes) = picture {
            self.held.push(Held { row: Row::Evidence(self.given), rank, bytes, parked: false });
        }
    }

    fn check(&self, store: &Store, after: &Step) -> Result<(), TestCaseError> {
        let health = store.health();
        prop_assert_eq!(store.sequence(), self.given, "{:?}", after);
        prop_assert_eq!(health.bytes, self.bytes(), "{:?}", after);
        prop_assert!(health.bytes <= MAX_BYTES);
        prop_assert_eq!(health.evicted_alerts, self.evicted_alerts, "{:?}", after);
        prop_assert_eq!(health.evicted_evidence, self.evicted_evidence, "{:?}", after);
        let (mut sent, mut skip) = (Vec::new(), BTreeSet::new());
        loop {
            let next = store.next(&site(), &skip, 3, true).unwrap();
            if next.is_empty() {
                break;
            }
            skip.extend(next.iter().map(|waiting| waiting.row));
            sent.extend(next.iter().map(|waiting| waiting.row));
        }
        prop_assert_eq!(sent, self.sending(), "{:?}", after);
        let parked_alerts =
            self.held.iter().filter(|held| held.parked && matches!(held.row, Row::Alert(_))).count();
        prop_assert_eq!(health.parked, parked_alerts as u64);
        Ok(())
    }
}

fn open(folder: &Path) -> Store {
    Store::open(folder, MAX_BYTES, AGE).unwrap()
}

fn commit(store: &mut Store, alerts: &[NewAlert], acknowledged: &BTreeSet<Row>, parked: &[(Row, String)]) {
    store.commit(&site(), &Batch { alerts, acknowledged, parked, lost: Lost::default(), ran: 0 }).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_outbox_is_its_model(steps in steps()) {
        let mut folder = TempDir::new().unwrap();
        let mut store = open(folder.path());
        let mut model = Model::default();
        for step in &steps {
            match step {
                Step::Append(new) => {
                    let alerts: Vec<NewAlert> =
                        new.iter().map(|(severity, picture)| alert(*severity, *picture)).collect();
                    for new in &alerts {
                        let sequence = model.given + 1;
                        let json = |evidence| {
                            let mut data = new.data.clone();
                            data.evidence = evidence;
                            let alert = super::Alert::raised(&site(), new.id, sequence, new.time, data);
                            alert.to_json().len() as u64
                        };
                        model.append(new.data.severity, new.picture.as_ref().map(Vec::len), json);
                    }
                    commit(&mut store, &alerts, &BTreeSet::new(), &[]);
                }
                Step::Acknowledge(place) => {
                    if let Some(row) = model.sending().get(*place).copied() {
                        model.held.retain(|held| held.row != row);
                        commit(&mut store, &[], &BTreeSet::from([row]), &[]);
                    }
                }
                Step::Park(place) => {
                    if let Some(row) = model.sending().get(*place).copied() {
                        model.held.iter_mut().find(|held| held.row == row).unwrap().parked = true;
                        commit(&mut store, &[], &BTreeSet::new(), &[(row, "NotAuthorized".into())]);
                    }
                }
                Step::Crash => {
                    let copy = TempDir::new().unwrap();
                    for entry in fs::read_dir(folder.path()).unwrap() {
                        let entry = entry.unwrap();
                        if entry.file_name() != "outbox.db-shm" { // memory: lost with the power
                            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
                        }
                    }
                    drop(store);
                    folder = copy;
                    store = open(folder.path());
                }
                Step::Restart => {
                    drop(store);
                    store = open(folder.path());
                }
            }
            model.check(&store, step)?;
        }
    }
}
