//! Random schedules against a plain model of what an outbox is, and against a whole delivery with its window. A crash
//! is a copy of the files as they are at that moment: what is left when the process is killed after its last write.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use proptest::prelude::*;
use sharp_eyes_protocol::alert::{Alert, ClockTrust, seconds};
use sharp_eyes_protocol::level::Severity;
use tempfile::TempDir;

use super::{alert, options, pictures, site};
use crate::outbox::inbox::Lost;
use crate::outbox::store::{Batch, Store};
use crate::outbox::{NewAlert, NewEvidence, OutboxOptions, Row};
use crate::uplink::in_flight::InFlight;

const MAX_BYTES: u64 = 14_000;
const ROUTES: usize = 2;
const MAX_DELIVERED: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(Severity, Option<usize>)>),
    /// On a route, of what is given out there, the one at this place.
    Acknowledge(usize, usize),
    Park(usize, usize),
    Crash,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let severity = proptest::sample::select(Severity::ALL.to_vec());
    let new = (severity, proptest::option::of(100_usize..3_400));
    let place = || (0..ROUTES, 0_usize..8);
    let step = prop_oneof![
        4 => proptest::collection::vec(new, 1..4).prop_map(Step::Append),
        6 => place().prop_map(|(route, place)| Step::Acknowledge(route, place)),
        1 => place().prop_map(|(route, place)| Step::Park(route, place)),
        1 => Just(Step::Crash),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A row of the model.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    row: Row,
    rank: usize,
    large: bool,
    bytes: u64,
    waiting: BTreeSet<usize>,
    parked: bool,
}

impl Held {
    fn is_evidence(&self) -> bool {
        matches!(self.row, Row::Evidence(_))
    }

    fn is_delivered(&self) -> bool {
        self.waiting.is_empty() && !self.parked
    }
}

#[derive(Debug, Default)]
struct Model {
    held: Vec<Held>,
    given: u64,
    pictures: u64,
    evicted_alerts: u64,
    evicted_evidence: u64,
}

impl Model {
    fn bytes(&self) -> u64 {
        self.held.iter().map(|held| held.bytes).sum()
    }

    fn sending(&self, route: usize) -> Vec<Row> {
        let mut waiting: Vec<&Held> = self.held.iter().filter(|held| held.waiting.contains(&route)).collect();
        waiting.sort_by_key(|held| (held.is_evidence(), held.large, usize::MAX - held.rank, held.row));
        waiting.iter().map(|held| held.row).collect()
    }

    fn remove_first<K: Ord>(&mut self, of: impl Fn(&Held) -> bool, order: impl Fn(&Held) -> K) -> bool {
        let first = self.held.iter().filter(|held| of(held)).min_by_key(|held| order(held)).cloned();
        first.inspect(|first| self.held.retain(|held| held != first)).is_some()
    }

    fn forget(&mut self) -> bool {
        self.remove_first(|held| !held.is_evidence() && held.is_delivered(), |held| held.row)
    }

    fn evict_evidence(&mut self, up_to: usize) -> bool {
        let gone = self.remove_first(
            |held| held.is_evidence() && (held.parked || held.rank <= up_to),
            |held| {
                if held.parked {
                    (false, 0, false, held.row)
                } else {
                    (true, held.rank, !held.large, held.row)
                }
            },
        );
        self.evicted_evidence += u64::from(gone);
        gone
    }

    fn evict_alert(&mut self, up_to: usize) -> bool {
        let refused = |held: &Held| held.parked && held.waiting.is_empty();
        let gone = self.remove_first(
            |held| !held.is_evidence() && (refused(held) || !held.waiting.is_empty() && held.rank <= up_to),
            |held| (!refused(held), held.rank, held.row),
        );
        self.evicted_alerts += u64::from(gone);
        gone
    }

    fn fits(&self, bytes: u64) -> bool {
        self.bytes() + bytes <= MAX_BYTES
    }

    fn hold(&mut self, row: Row, rank: usize, large: bool, bytes: u64) {
        self.held.push(Held { row, rank, large, bytes, waiting: (0..ROUTES).collect(), parked: false });
    }

    fn append(&mut self, rank: usize, bytes: u64) {
        self.given += 1;
        while !self.fits(bytes) && (self.forget() || self.evict_evidence(9)) {}
        while !self.fits(bytes) && self.evict_alert(rank) {}
        match self.fits(bytes) {
            true => self.hold(Row::Alert(self.given), rank, false, bytes),
            false => self.evicted_alerts += 1,
        }
    }

    fn attach(&mut self, rank: usize, sizes: [u64; 2]) {
        for (large, bytes) in [(false, sizes[0]), (true, sizes[1])] {
            let small_enough = bytes <= MAX_BYTES / 4;
            while small_enough && !self.fits(bytes + 1024) && (self.forget() || self.evict_evidence(rank)) {}
            if small_enough && self.fits(bytes + 1024) {
                self.pictures += 1;
                self.hold(Row::Evidence(self.pictures), rank, large, bytes);
            } else {
                self.evicted_evidence += 1;
            }
        }
    }

    fn settle(&mut self, route: usize, row: Row, parked: bool) {
        let held = self.held.iter_mut().find(|held| held.row == row).unwrap();
        held.waiting.remove(&route);
        held.parked |= parked;
        self.held.retain(|held| !(held.is_evidence() && held.is_delivered()));
        let delivered = |held: &Held| !held.is_evidence() && held.is_delivered();
        while self.held.iter().filter(|held| delivered(held)).count() > MAX_DELIVERED && self.forget() {}
    }

    fn check(&self, store: &mut Store, after: &Step) -> Result<(), TestCaseError> {
        let health = store.health().clone();
        prop_assert_eq!(health.sequence, self.given, "{:?}", after);
        prop_assert_eq!(health.bytes, self.bytes(), "{:?}", after);
        prop_assert!(health.bytes <= MAX_BYTES);
        prop_assert_eq!(health.evicted_alerts, self.evicted_alerts, "{:?}", after);
        prop_assert_eq!(health.evicted_evidence, self.evicted_evidence, "{:?}", after);
        for route in 0..ROUTES {
            let (mut sent, mut skip) = (Vec::new(), BTreeSet::new());
            loop {
                let next = store.next(&site(), route, &skip, 3, true).unwrap();
                if next.is_empty() {
                    break;
                }
                skip.extend(next.iter().map(|waiting| waiting.row));
                sent.extend(next.iter().map(|waiting| waiting.row));
            }
            prop_assert_eq!(sent, self.sending(route), "{:?}", after);
        }
        let count = |of: &dyn Fn(&Held) -> bool| self.held.iter().filter(|held| of(held)).count() as u64;
        prop_assert_eq!(health.parked, count(&|held| held.parked));
        prop_assert_eq!(health.alerts, count(&|held| !held.is_evidence() && !held.waiting.is_empty()));
        prop_assert_eq!(health.evidence, count(&|held| held.is_evidence() && !held.waiting.is_empty()));
        prop_assert_eq!(health.delivered, count(&|held| !held.is_evidence() && held.is_delivered()));
        Ok(())
    }
}

fn small(folder: &Path) -> OutboxOptions {
    OutboxOptions {
        max_bytes: MAX_BYTES,
        max_delivered: MAX_DELIVERED as u64,
        routes: vec!["township".into(), "district".into()],
        ..options(folder)
    }
}

fn commit(
    store: &mut Store,
    alerts: &[NewAlert],
    evidence: &[NewEvidence],
    acknowledged: &BTreeSet<(usize, Row)>,
    parked: &[(usize, Row, String)],
) {
    let batch = Batch {
        changes: &[],
        alerts,
        evidence,
        acknowledged,
        parked,
        asked: &[],
        lost: Lost::default(),
        lived: 0,
        wall: Timestamp::UNIX_EPOCH,
        trust: ClockTrust::Unsynced,
    };
    store.commit(&site(), &batch).unwrap();
}

/// What a killed process leaves behind.
fn crash(folder: &TempDir) -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "outbox.db-shm" {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

fn rank(severity: Severity) -> usize {
    Severity::ALL.iter().position(|s| *s == severity).unwrap()
}

fn json_of(new: &NewAlert, sequence: u64, options: &OutboxOptions) -> String {
    let mut data = new.data.clone();
    data.respond_s = options.escalation.respond_within(data.severity).map(seconds);
    Alert::raised(&site(), new.id, sequence, new.time, new.subject.clone(), data).to_json()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_outbox_is_its_model(steps in steps()) {
        let mut folder = TempDir::new().unwrap();
        let mut store = Store::open(&small(folder.path())).unwrap();
        let mut model = Model::default();
        for step in &steps {
            match step {
                Step::Append(new) => {
                    let alerts: Vec<NewAlert> = new.iter().map(|(severity, _)| alert(*severity)).collect();
                    let evidence: Vec<NewEvidence> = alerts
                        .iter()
                        .zip(new)
                        .filter_map(|(alert, (_, size))| size.map(|size| pictures(alert, size)))
                        .collect();
                    for new in &alerts {
                        let json = json_of(new, model.given + 1, &small(folder.path()));
                        model.append(rank(new.data.severity), json.len() as u64);
                    }
                    for new in &evidence {
                        let sizes = [&new.thumbnail, &new.picture].map(|jpeg| jpeg.len() as u64);
                        model.attach(rank(new.severity), sizes);
                    }
                    commit(&mut store, &alerts, &evidence, &BTreeSet::new(), &[]);
                }
                Step::Acknowledge(route, place) => {
                    if let Some(row) = model.sending(*route).get(*place).copied() {
                        model.settle(*route, row, false);
                        commit(&mut store, &[], &[], &BTreeSet::from([(*route, row)]), &[]);
                    }
                }
                Step::Park(route, place) => {
                    if let Some(row) = model.sending(*route).get(*place).copied() {
                        model.settle(*route, row, true);
                        commit(&mut store, &[], &[], &BTreeSet::new(), &[(*route, row, "NotAuthorized".into())]);
                    }
                }
                Step::Crash => {
                    let copy = crash(&folder);
                    drop(store);
                    folder = copy;
                    store = Store::open(&small(folder.path())).unwrap();
                }
                Step::Restart => {
                    drop(store);
                    store = Store::open(&small(folder.path())).unwrap();
                }
            }
            model.check(&mut store, step)?;
        }
    }
}

/// A step of a whole delivery.
#[derive(Clone, Debug)]
enum Event {
    Decide(Severity),
    /// The client sends what was handed over longest ago, and the broker has it.
    Publish,
    /// The broker answers one of those that it has, in any order; the answer may be a refusal.
    Answer(usize, bool),
    /// The connection ends: the window is forgotten.
    Disconnect,
    /// The agent is killed.
    Crash,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => proptest::sample::select(Severity::ALL.to_vec()).prop_map(Event::Decide),
        6 => Just(Event::Publish),
        6 => (any::<usize>(), proptest::bool::weighted(0.1)).prop_map(|(place, refuses)| Event::Answer(place, refuses)),
        1 => Just(Event::Disconnect),
        1 => Just(Event::Crash),
    ];
    proptest::collection::vec(event, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens between the outbox, the window and the broker: what was decided is, in the end, at the broker, or
    /// counted as evicted; nothing is written off that the broker does not have.
    #[test]
    fn what_was_decided_arrives_or_is_counted(events in events(), window in 1_usize..6, max_bytes in 5_000_u64..60_000) {
        let mut folder = TempDir::new().unwrap();
        let bounded = |folder: &Path| OutboxOptions { max_bytes, max_delivered: 0, ..options(folder) };
        let mut store = Store::open(&bounded(folder.path())).unwrap();
        let mut flight = InFlight::<Row>::new(window);
        let (mut decided, mut next_id) = (0_u64, 0_u16);
        // What the broker has; what it has and did not answer yet.
        let (mut arrived, mut unanswered) = (BTreeMap::<u64, String>::new(), Vec::<(u16, Row)>::new());
        let mut refused = BTreeSet::new();
        let drain = (0..600).map(|n| if n % 2 == 0 { Event::Publish } else { Event::Answer(n, false) });
        for event in events.into_iter().chain([Event::Disconnect]).chain(drain) {
            let skip: BTreeSet<Row> = flight.iter().copied().collect();
            if flight.room() > 0 {
                for waiting in store.next(&site(), 0, &skip, flight.room(), false).unwrap() {
                    flight.hand_over(waiting.row);
                }
            }
            match event {
                Event::Decide(severity) => {
                    decided += 1;
                    commit(&mut store, &[alert(severity)], &[], &BTreeSet::new(), &[]);
                }
                Event::Publish => {
                    let id = next_id % window as u16 + 1;
                    if let Some(row) = flight.published(id).copied() {
                        next_id += 1;
                        unanswered.push((id, row));
                    }
                }
                Event::Answer(place, refuses) if !unanswered.is_empty() => {
                    let (id, row) = unanswered.remove(place % unanswered.len());
                    prop_assert_eq!(flight.acknowledged(id), Some(row));
                    let Row::Alert(sequence) = row else { panic!("no picture was attached") };
                    if refuses {
                        refused.insert(sequence);
                        commit(&mut store, &[], &[], &BTreeSet::new(), &[(0, row, "QuotaExceeded".into())]);
                    } else {
                        arrived.insert(sequence, String::new());
                        commit(&mut store, &[], &[], &BTreeSet::from([(0, row)]), &[]);
                    }
                }
                Event::Answer(..) => {}
                Event::Disconnect | Event::Crash => {
                    if matches!(event, Event::Crash) {
                        let copy = crash(&folder);
                        drop(store);
                        folder = copy;
                        store = Store::open(&bounded(folder.path())).unwrap();
                    }
                    flight = InFlight::new(window);
                    next_id = 0;
                    // The broker may well have what it did not answer: it comes a second time.
                    for (_, row) in unanswered.drain(..) {
                        let Row::Alert(sequence) = row else { panic!("no picture was attached") };
                        arrived.insert(sequence, String::new());
                    }
                }
            }
        }
        let health = store.health();
        prop_assert_eq!(health.sequence, decided, "numbers have no gap");
        prop_assert_eq!(health.alerts, 0, "everything was sent: {:?}", health);
        let known: BTreeSet<u64> = arrived.keys().copied().chain(refused).collect();
        let missing = decided - known.len() as u64;
        prop_assert!(missing <= health.evicted_alerts, "{} missing, {:?}", missing, health);
        prop_assert!(known.iter().all(|sequence| (1..=decided).contains(sequence)));
    }
}
