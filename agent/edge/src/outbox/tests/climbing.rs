//! Open alerts, commands and routes: the store in its own time, without waiting for any.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sharp_eyes_protocol::alert::{Alert, AlertEvent, AlertKind, AlertState, ClockTrust};
use sharp_eyes_protocol::command::{
    Answer, DismissReason, Dismissal, Done, OfAlert, PictureOf, Range, Refusal, Request, Resent,
};
use sharp_eyes_protocol::level::{Level, Severity};
use tempfile::TempDir;
use uuid::Uuid;

use super::{alert, asked, options, pictures, site};
use crate::outbox::inbox::Lost;
use crate::outbox::store::{Batch, Committed, Store};
use crate::outbox::{AlertChange, Asked, Change, NewAlert, NewEvidence, OutboxOptions, Row};

const MINUTE: u64 = 60_000;

/// A store whose time the test turns.
struct Box {
    folder: TempDir,
    options: OutboxOptions,
    store: Option<Store>,
    lived: u64,
    wall: Timestamp,
    trust: ClockTrust,
    /// For the next batch.
    changes: Vec<AlertChange>,
}

impl Box {
    fn new(change: impl FnOnce(&mut OutboxOptions)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut options = options(folder.path());
        change(&mut options);
        let store = Some(Store::open(&options).unwrap());
        let wall = "2026-11-23T08:00:00Z".parse().unwrap();
        Self { folder, options, store, lived: 0, wall, trust: ClockTrust::Unsynced, changes: Vec::new() }
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().unwrap()
    }

    fn restart(&mut self) {
        self.store = None;
        self.store = Some(Store::open(&self.options).unwrap());
        self.lived = self.store().lived();
    }

    fn commit(&mut self, alerts: &[NewAlert], evidence: &[NewEvidence], asked: &[Asked]) -> Committed {
        self.commit_with(alerts, evidence, asked, &BTreeSet::new(), &[])
    }

    fn commit_with(
        &mut self,
        alerts: &[NewAlert],
        evidence: &[NewEvidence],
        asked: &[Asked],
        acknowledged: &BTreeSet<(usize, Row)>,
        parked: &[(usize, Row, String)],
    ) -> Committed {
        let (lived, wall, trust) = (self.lived, self.wall, self.trust);
        let lost = Lost::default();
        let changes = std::mem::take(&mut self.changes);
        let changes = changes.as_slice();
        let batch =
            Batch { alerts, changes, evidence, acknowledged, parked, asked, lost, lived, wall, trust };
        let committed = self.store().commit(&site(), &batch).unwrap();
        self.lived = self.store().lived();
        committed
    }

    /// Lets time pass, to the next deadline and from there to the next, as the writer does.
    fn pass(&mut self, time: u64) {
        let end = self.lived + time;
        while let Some(at) = self.store().next_climb().filter(|at| *at <= end) {
            self.lived = self.lived.max(at);
            self.commit(&[], &[], &[]);
        }
        self.lived = end;
    }

    fn raise(&mut self, severity: Severity) -> Alert {
        self.commit(&[alert(severity)], &[], &[]);
        let sequence = self.store().health().sequence;
        self.messages().into_iter().find(|alert| alert.sequence == sequence).unwrap()
    }

    fn change(&mut self, id: Uuid, change: Change) {
        self.changes.push(AlertChange { id, change });
        self.commit(&[], &[], &[]);
    }

    fn ask(&mut self, counter: u64, request: Request) -> Answer {
        self.commit(&[], &[], &[asked("console-1", counter, request)]).answers.remove(0)
    }

    /// Whatever waits on the first route, by number.
    fn messages(&mut self) -> Vec<Alert> {
        self.waiting(0).iter().map(|(_, payload)| serde_json::from_slice(payload).unwrap()).collect()
    }

    fn waiting(&mut self, route: usize) -> Vec<(Row, Vec<u8>)> {
        let found = self.store().next(&site(), route, &BTreeSet::new(), 10_000, false).unwrap();
        let mut rows: Vec<_> = found.into_iter().map(|waiting| (waiting.row, waiting.payload)).collect();
        rows.sort();
        rows
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn story(messages: &[Alert]) -> Vec<(AlertEvent, Level, AlertState, Option<u32>)> {
    messages.iter().map(|a| (a.event, a.data.level, a.data.state, a.data.respond_s)).collect()
}

#[test]
fn an_alert_that_is_over_says_so_once_and_climbs_until_somebody_answers() {
    use AlertEvent::{Ended, Escalated, Raised, Updated};
    use AlertState::{Acknowledged, Open, Resolved};
    let mut b = Box::new(|_| {});
    let id = b.raise(Severity::Major).id;
    b.pass(4 * MINUTE);
    b.change(id, Change::Over);
    b.change(id, Change::Over);
    b.pass(6 * MINUTE);
    b.ask(1, Request::Acknowledge(OfAlert { alert: id, note: None }));
    b.ask(2, Request::Resolve(OfAlert { alert: id, note: None }));
    b.change(id, Change::Over);
    b.change(Uuid::now_v7(), Change::Over);
    let messages = b.messages();
    assert_eq!(
        story(&messages),
        [
            (Raised, Level::Township, Open, Some(600)),
            (Ended, Level::Township, Open, Some(360)),
            (Escalated, Level::District, Open, Some(3600)),
            (Updated, Level::District, Acknowledged, None),
            (Ended, Level::District, Resolved, None),
        ]
    );
    assert_eq!(messages.iter().map(|a| a.data.over).collect::<Vec<_>>(), [false, true, true, true, true]);
    assert_eq!(b.store().health().open, 0);
}

#[test]
fn an_alert_about_an_outage_is_cleared_when_it_is_over_and_until_then_it_lasts() {
    let mut b = Box::new(|_| {});
    let mut offline = alert(Severity::Minor);
    offline.data.kind = AlertKind::Offline;
    let id = offline.id;
    let other = alert(Severity::Minor);
    let other_id = other.id;
    b.commit(&[offline, other], &[], &[]);
    let lasting = |b: &mut Box| b.store().lasting().unwrap().iter().map(|a| a.id).collect::<Vec<_>>();
    assert_eq!(lasting(&mut b), [id, other_id]);
    b.restart();
    assert_eq!(lasting(&mut b), [id, other_id]);
    b.change(id, Change::Over);
    assert_eq!(lasting(&mut b), [other_id]);
    assert_eq!(b.store().health().open, 1, "the other one");
    b.pass(40 * MINUTE);
    let told = b.messages().into_iter().filter(|a| a.id == id).collect::<Vec<_>>();
    assert_eq!((told.len(), told[1].event, told[1].data.state), (2, AlertEvent::Ended, AlertState::Cleared));
}

#[test]
fn an_alert_that_stands_for_more_is_told_anew_and_climbs_as_before() {
    use AlertEvent::{Escalated, Raised, Updated};
    use AlertState::{Acknowledged, Open};
    let mut b = Box::new(|_| {});
    let raised = b.raise(Severity::Minor);
    b.pass(10 * MINUTE);
    b.change(raised.id, Change::Many(2));
    b.pass(20 * MINUTE);
    b.ask(1, Request::Acknowledge(OfAlert { alert: raised.id, note: None }));
    b.change(raised.id, Change::Many(3));
    b.pass(60 * MINUTE);
    let mut numbered = b.messages();
    numbered.sort_by_key(|a| a.sequence);
    assert_eq!(
        story(&numbered),
        [
            (Raised, Level::Village, Open, Some(1800)),
            (Updated, Level::Village, Open, Some(1200)),
            (Escalated, Level::Township, Open, Some(1800)),
            (Updated, Level::Township, Acknowledged, None),
            (Updated, Level::Township, Acknowledged, None),
        ]
    );
    assert_eq!(
        numbered.iter().map(|a| a.data.count).collect::<Vec<_>>(),
        [None, Some(2), Some(2), Some(2), Some(3)]
    );
}

#[test]
fn an_alert_that_nobody_answers_climbs_to_the_top_and_is_repeated_there() {
    let mut b = Box::new(|_| {});
    let raised = b.raise(Severity::Minor);
    b.pass(4 * 60 * MINUTE);
    let messages = b.messages();
    use AlertEvent::{Escalated, Raised};
    use AlertState::Open;
    assert_eq!(
        story(&messages),
        [
            (Raised, Level::Village, Open, Some(1800)),
            (Escalated, Level::Township, Open, Some(1800)),
            (Escalated, Level::District, Open, Some(3600)),
            (Escalated, Level::District, Open, Some(7200)), // after 2 h, again after 4 h, then after 8 h
            (Escalated, Level::District, Open, Some(14_400)),
        ]
    );
    assert!(messages.iter().all(|message| message.id == raised.id && message.time == raised.time));
    let numbers: Vec<u64> = messages.iter().map(|message| message.sequence).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert_eq!((b.store().health().open, b.store().health().escalated), (1, 2));
}

#[test]
fn deadlines_survive_a_restart_with_and_without_a_trusted_clock() {
    for (trusted, late) in [(false, true), (true, false)] {
        let mut b = Box::new(|_| {});
        b.trust = if trusted { ClockTrust::Synced } else { ClockTrust::Unsynced };
        b.raise(Severity::Major); // ten minutes
        b.pass(4 * MINUTE);
        b.commit(&[], &[], &[]);
        b.wall += Duration::from_secs(4 * 60);
        b.restart();
        b.wall += Duration::from_secs(5 * 60); // so long the power was away
        b.commit(&[], &[], &[]);
        b.pass(2 * MINUTE);
        assert_eq!(b.messages().len(), if late { 1 } else { 2 }, "trusted: {trusted}");
        b.pass(5 * MINUTE);
        assert!(b.messages().len() >= 2);
    }
}

#[test]
fn a_clock_that_jumps_moves_no_deadline() {
    for jump in ["1970-01-01T00:00:10Z", "2099-01-01T00:00:00Z"] {
        let mut b = Box::new(|_| {});
        b.raise(Severity::Major);
        b.wall = jump.parse().unwrap();
        b.pass(9 * MINUTE);
        b.restart();
        assert_eq!(b.messages().len(), 1, "{jump}");
        b.pass(10 * MINUTE);
        assert_eq!(b.messages().len(), 2, "{jump}");
    }
}

#[test]
fn whoever_acknowledges_stops_the_climb_and_whoever_resolves_ends_it() {
    let mut b = Box::new(|_| {});
    let id = b.raise(Severity::Major).id;
    let of = |note: Option<&str>| OfAlert { alert: id, note: note.map(str::to_owned) };
    let Answer::Done(Done::Alert(open)) = b.ask(1, Request::Acknowledge(of(None))) else { panic!() };
    assert_eq!(open.state, AlertState::Acknowledged);
    b.pass(60 * MINUTE);
    assert_eq!(b.messages().len(), 2, "it climbs no more");
    let Answer::Done(Done::Status(status)) = b.ask(2, Request::Status) else { panic!() };
    assert_eq!((status.open.len(), status.open_total, status.sequence), (1, 1, 2));
    let Answer::Done(_) = b.ask(3, Request::Acknowledge(of(Some("me too")))) else { panic!() };
    assert_eq!(b.messages().len(), 2, "it was acknowledged already: nothing to tell");
    let Answer::Done(Done::Alert(over)) = b.ask(4, Request::Resolve(of(None))) else { panic!() };
    assert_eq!(over.state, AlertState::Resolved);
    assert_eq!(b.messages().last().unwrap().event, AlertEvent::Ended);
    let dismissal = Dismissal { alert: id, reason: DismissReason::Drill, note: None };
    let Answer::Refused(refused) = b.ask(5, Request::Dismiss(dismissal)) else { panic!() };
    assert_eq!(refused.code, Refusal::AlreadyEnded);
    assert!(refused.message.contains("resolved"), "{}", refused.message);
    let unknown = OfAlert { alert: uuid::Uuid::now_v7(), note: None };
    let Answer::Refused(refused) = b.ask(6, Request::Resolve(unknown)) else { panic!() };
    assert_eq!(refused.code, Refusal::UnknownAlert);
    assert_eq!(b.store().health().open, 0);
}

#[test]
fn a_command_is_executed_once_and_an_old_one_never() {
    let mut b = Box::new(|_| {});
    let id = b.raise(Severity::Major).id;
    let resolve = Request::Resolve(OfAlert { alert: id, note: None });
    let first = b.ask(7, resolve.clone());
    for _ in 0..2 {
        b.restart();
        assert_eq!(b.ask(7, resolve.clone()), first, "redelivered: the same answer");
    }
    assert_eq!(b.messages().len(), 2, "and nothing happened");
    let replayed = Asked { correlation: b"another".to_vec(), ..asked("console-1", 7, resolve) };
    let Answer::Refused(refused) = b.commit(&[], &[], &[replayed]).answers.remove(0) else { panic!() };
    assert_eq!((refused.code, refused.counter), (Refusal::Stale, Some(7)));
    let other = b.commit(&[], &[], &[asked("console-2", 1, Request::Status)]).answers.remove(0);
    assert!(matches!(other, Answer::Done(_)), "each console counts for itself");
    let mut log = Vec::new();
    crate::outbox::Outbox::audit(b.path(), |entry| {
        log.push((entry.console, entry.by, entry.request.to_string()));
        Ok(())
    })
    .unwrap();
    assert_eq!(log.len(), 3, "one line for what was executed, refused, and asked by the other: {log:?}");
    assert!(log[0].1 == "李伟" && log[0].2.contains("resolve"), "{log:?}");
}

#[test]
fn the_audit_log_can_only_grow() {
    let mut b = Box::new(|_| {});
    b.ask(1, Request::Status);
    for sql in ["UPDATE audit SET person = 'x'", "DELETE FROM audit"] {
        let error = b.store().connection().execute(sql, []).unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

#[test]
fn a_console_that_asks_all_day_how_things_are_does_not_fill_the_disk() {
    let mut b = Box::new(|_| {});
    let alerts: Vec<_> = (0..64).map(|_| alert(Severity::Minor)).collect();
    b.commit(&alerts, &[], &[]);
    let first = b.ask(1, Request::Status);
    let Answer::Done(Done::Status(status)) = &first else { panic!() };
    assert_eq!(status.open.len(), 64);
    assert_eq!(b.ask(1, Request::Status), first, "the same in full");
    for batch in 0..40 {
        let asked: Vec<_> =
            (0..50).map(|n| asked("console-1", 2 + 50 * batch + n, Request::Status)).collect();
        b.commit(&[], &[], &asked);
    }
    let bytes = |b: &mut Box, sql: &str| -> i64 {
        b.store().connection().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert!(bytes(&mut b, "SELECT sum(length(answer)) FROM audit") < 2001 * 200);
    assert_eq!(bytes(&mut b, "SELECT count(*) FROM answer"), 256);
    let Answer::Done(Done::Status(late)) = b.ask(1, Request::Status) else { panic!() };
    assert_eq!((late.open.len(), late.open_total), (0, 64), "long ago: how many, but not which");
}

#[test]
fn an_audit_log_of_the_second_agent_that_is_too_long_is_cut_little_by_little() {
    let mut b = Box::new(|_| {});
    let make_second =
        "DROP TABLE answer; DROP TRIGGER audit_keeps; DROP TRIGGER audit_grows; DROP TRIGGER audit_shrinks;
         ALTER TABLE meta DROP COLUMN audit_bytes;
         CREATE TRIGGER audit_keeps BEFORE DELETE ON audit
            BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
         INSERT INTO audit (wall, clock, console, person, correlation, request, answer)
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
            SELECT 0, 'synced', 'a', 'b', x'01', '\"status\"', printf('%.*c', 100000, 'x') FROM n;
         PRAGMA user_version = 2;";
    b.store().connection().execute_batch(make_second).unwrap();
    b.restart();
    let read = |b: &mut Box| -> (i64, i64) {
        let sql = "SELECT count(*), audit_bytes FROM audit, meta";
        b.store().connection().query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    for (counter, left) in [(1, 237), (2, 201)] {
        assert!(matches!(b.ask(counter, Request::Status), Answer::Done(_)));
        assert_eq!(read(&mut b).0, left);
    }
    let (_, bytes) = read(&mut b);
    assert!((19_900_000..=20_000_000).contains(&bytes), "{bytes}");
}

#[test]
fn what_was_delivered_is_sent_again_and_what_is_gone_is_named() {
    let mut b = Box::new(|options| options.max_delivered = 5);
    for _ in 0..10 {
        b.raise(Severity::Minor);
    }
    let all: BTreeSet<(usize, Row)> = (1..=8).map(|n| (0, Row::Alert(n))).collect();
    b.commit_with(&[], &[], &[], &all, &[(0, Row::Alert(9), "NotAuthorized".into())]);
    assert_eq!(b.waiting(0).len(), 1, "only the tenth waits");
    let Answer::Done(Done::Resend(resent)) = b.ask(1, Request::Resend(Range { from: 2, to: None })) else {
        panic!()
    };
    assert_eq!(resent, Resent { messages: 7, missing: vec![(2, 3)], to: 10 });
    let rows: Vec<Row> = b.waiting(0).into_iter().map(|(row, _)| row).collect();
    assert_eq!(rows, (4..=10).map(Row::Alert).collect::<Vec<_>>(), "the refused one is tried again, too");
    let Answer::Done(Done::Resend(resent)) = b.ask(2, Request::Resend(Range { from: 50, to: Some(60) }))
    else {
        panic!()
    };
    assert_eq!(resent, Resent { messages: 0, missing: vec![], to: 10 }, "no such number was given yet");
}

#[test]
fn pictures_that_wait_for_a_request_are_sent_when_it_comes() {
    let mut b = Box::new(|options| options.pictures_on_request = true);
    let new = alert(Severity::Minor);
    let id = new.id;
    let evidence = pictures(&new, 3_000);
    b.commit(&[new], &[evidence], &[]);
    b.commit_with(&[], &[], &[], &BTreeSet::from([(0, Row::Alert(1)), (0, Row::Evidence(1))]), &[]);
    let next = |b: &mut Box| b.store().next(&site(), 0, &BTreeSet::new(), 9, true).unwrap();
    assert!(next(&mut b).is_empty(), "the small one is delivered, the large one waits");
    assert!(matches!(b.ask(1, Request::Picture(PictureOf { alert: id })), Answer::Done(Done::Picture(_))));
    let found = next(&mut b);
    assert!(found[0].topic.ends_with(&format!("/evidence/{id}")) && found[0].payload.len() == 3_000);
    b.commit_with(&[], &[], &[], &BTreeSet::from([(0, found[0].row)]), &[]);
    let Answer::Refused(refused) = b.ask(2, Request::Picture(PictureOf { alert: id })) else { panic!() };
    assert_eq!(refused.code, Refusal::NoPicture);
    assert_eq!(b.store().health().evidence, 0);
}

#[test]
fn each_route_has_a_cursor_of_its_own_and_a_removed_one_hands_over() {
    let mut b = Box::new(|options| options.routes = vec!["township".into(), "district".into()]);
    for _ in 0..4 {
        b.raise(Severity::Major);
    }
    b.commit_with(&[], &[], &[], &BTreeSet::from([(0, Row::Alert(1)), (0, Row::Alert(2))]), &[]);
    b.commit_with(&[], &[], &[], &BTreeSet::from([(1, Row::Alert(3)), (0, Row::Alert(3))]), &[]);
    assert_eq!((b.waiting(0).len(), b.waiting(1).len()), (1, 3));
    assert_eq!(b.store().health().alerts, 3);
    b.options.routes = vec!["renamed".into(), "township".into()];
    b.restart();
    let rows = |b: &mut Box, route| b.waiting(route).into_iter().map(|(row, _)| row).collect::<Vec<_>>();
    assert_eq!(
        rows(&mut b, 0),
        [Row::Alert(1), Row::Alert(2), Row::Alert(4)],
        "what waited for the district"
    );
    assert_eq!(rows(&mut b, 1), [Row::Alert(4)]);
    let both = |n| [(0, Row::Alert(n)), (1, Row::Alert(n))];
    b.commit_with(&[], &[], &[], &both(1).into_iter().chain(both(2)).chain(both(4)).collect(), &[]);
    assert_eq!((b.store().health().alerts, b.waiting(0).len(), b.waiting(1).len()), (0, 0, 0));
}

#[test]
fn so_many_open_alerts_as_nobody_can_answer_are_repeated_slowly_and_given_up_in_the_end() {
    let mut b = Box::new(|options| options.max_age = Duration::from_secs(30 * 86_400));
    let storm: Vec<NewAlert> = (0..40).map(|_| alert(Severity::Critical)).collect();
    b.commit(&storm, &[], &[]);
    b.pass(4 * MINUTE); // all were to be answered after three
    let repeated = b.messages().len() - 40;
    assert!((5..=8).contains(&repeated), "one every ten seconds: {repeated}");
    b.pass(31 * 24 * 60 * MINUTE);
    b.commit(&[], &[], &[]);
    while b.store().health().open > 0 {
        b.commit(&[], &[], &[]);
    }
    assert_eq!(b.store().health().unanswered, 40);
}
