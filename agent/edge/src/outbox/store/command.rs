//! What consoles ask for: done once, answered the same every time, and written into the audit log.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::Serialize;
use sharp_eyes_protocol::alert::{AlertState, ClockTrust};
use sharp_eyes_protocol::command::{
    Answer, BoxStatus, Command, Done, LIST_MAX, Range, Refusal, Refused, Request, Resent,
};
use uuid::Uuid;

use super::schema::{AUDIT_BYTES, AUDIT_LINES};
use super::work::Work;
use crate::outbox::Asked;

/// Consoles whose counters are remembered at most: more than a box will ever have, and no more than fits.
const MAX_CONSOLES: i64 = 256;

/// Numbers that one `resend` looks at; the answer says where to go on.
const RESEND_REACH: u64 = 10_000;

/// Longer answers stand in the audit log in a short form, and in full for as long as this many are newer.
const LONG_ANSWER: usize = 512;
const LONG_ANSWERS: i64 = 256;

/// Runs of missing numbers in a short answer.
const SHORT_LIST: usize = 8;

/// Lines by which a log of too many bytes is cut in one transaction, at most.
const CUT_MAX: usize = 64;

impl Work<'_> {
    /// Does what is asked for, unless it was done before.
    pub(super) fn execute(
        &mut self,
        asked: &Asked,
        wall: Timestamp,
        trust: ClockTrust,
    ) -> Result<Answer, rusqlite::Error> {
        let (console, person, request) = match &asked.command {
            Ok(command) => {
                let request = serde_json::to_string(&command.request)
                    .expect("a command holds nothing that JSON cannot say");
                (command.console.as_str(), command.by.as_str(), request)
            }
            Err((_, text)) => ("", "", text.clone()),
        };
        if let Some(answer) = self.answered_before(console, &asked.correlation)? {
            return Ok(answer);
        }
        let answer = match &asked.command {
            Ok(command) => match self.count_up(command)? {
                Ok(()) => self.perform(command, asked, wall, trust)?,
                Err(refused) => Answer::Refused(refused),
            },
            Err((refused, _)) => Answer::Refused(refused.clone()),
        };
        let json = |answer: &Answer| {
            serde_json::to_string(answer).expect("an answer holds nothing that JSON cannot say")
        };
        let full = json(&answer);
        let short = (full.len() > LONG_ANSWER).then(|| json(&shortened(&answer)));
        self.tx
            .prepare_cached(
                "INSERT INTO audit (wall, clock, console, person, correlation, request, answer)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                wall.as_millisecond(),
                serde_json::to_value(trust).ok().and_then(|trust| trust.as_str().map(str::to_owned)),
                console,
                person,
                asked.correlation,
                request,
                short.as_ref().unwrap_or(&full),
            ])?;
        let newest = self.tx.last_insert_rowid();
        if short.is_some() {
            self.tx
                .prepare_cached("INSERT INTO answer (number, json) VALUES (?, ?)")?
                .execute(params![newest, full])?;
            let sql = "DELETE FROM answer WHERE number IN
                (SELECT number FROM answer ORDER BY number DESC LIMIT 8 OFFSET ?)";
            self.tx.prepare_cached(sql)?.execute([LONG_ANSWERS])?;
        }
        self.cut_audit(newest)?;
        Ok(answer)
    }

    /// The oldest lines go, where there are too many of them or too many bytes.
    fn cut_audit(&self, newest: i64) -> Result<(), rusqlite::Error> {
        self.tx
            .prepare_cached("DELETE FROM audit WHERE number <= ?")?
            .execute([newest - AUDIT_LINES as i64])?;
        let sql = "DELETE FROM audit WHERE number = (SELECT min(number) FROM audit)
            AND (SELECT audit_bytes FROM meta) > ?";
        let mut oldest = self.tx.prepare_cached(sql)?;
        for _ in 0..CUT_MAX {
            if oldest.execute([AUDIT_BYTES as i64])? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn answered_before(&self, console: &str, correlation: &[u8]) -> Result<Option<Answer>, rusqlite::Error> {
        let sql = "SELECT coalesce(json, answer) FROM audit LEFT JOIN answer USING (number)
            WHERE correlation = ? AND console = ? ORDER BY number LIMIT 1";
        let found: Option<String> = self
            .tx
            .prepare_cached(sql)?
            .query_row(params![correlation, console], |row| row.get(0))
            .optional()?;
        Ok(found.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// Takes the counter of a command, unless it or a higher one was used.
    fn count_up(&self, command: &Command) -> Result<Result<(), Refused>, rusqlite::Error> {
        let name = command.console.as_str();
        let used: Option<i64> = self
            .tx
            .prepare_cached("SELECT counter FROM console WHERE name = ?")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        if let Some(used) = used.map(|used| used as u64).filter(|used| command.counter <= *used) {
            let message = format!("counter {} was used up: the next is above {used}", command.counter);
            return Ok(Err(Refused { counter: Some(used), ..Refused::new(Refusal::Stale, message) }));
        }
        if used.is_none() {
            let known: i64 = self.tx.query_row("SELECT count(*) FROM console", [], |row| row.get(0))?;
            if known >= MAX_CONSOLES {
                let message =
                    format!("this box knows {MAX_CONSOLES} consoles already: use one of their names");
                return Ok(Err(Refused::new(Refusal::TooOften, message)));
            }
        }
        self.tx
            .prepare_cached("INSERT OR REPLACE INTO console (name, counter) VALUES (?, ?)")?
            .execute(params![name, command.counter as i64])?;
        Ok(Ok(()))
    }

    fn perform(
        &mut self,
        command: &Command,
        asked: &Asked,
        wall: Timestamp,
        trust: ClockTrust,
    ) -> Result<Answer, rusqlite::Error> {
        let done = match &command.request {
            Request::Acknowledge(of) => self.on_alert(of.alert, AlertState::Acknowledged)?,
            Request::Resolve(of) => self.on_alert(of.alert, AlertState::Resolved)?,
            Request::Dismiss(dismissal) => self.on_alert(dismissal.alert, AlertState::Dismissed)?,
            Request::Resend(range) => Ok(Done::Resend(self.resend(*range, asked.route)?)),
            Request::Picture(of) => match self.request_picture(of.alert, asked.route)? {
                true => Ok(Done::Picture(of.alert)),
                false => Err(Refused::new(
                    Refusal::NoPicture,
                    format!(
                        "the box has no picture of {} (any more): it was sent, or gave way to others",
                        of.alert
                    ),
                )),
            },
            Request::Snapshot(_) => match &asked.snapshot {
                Some(Ok((id, jpeg))) if self.attach_requested(*id, jpeg)? => Ok(Done::Snapshot(*id)),
                Some(Ok(_)) => {
                    Err(Refused::new(Refusal::Storage, "no room for a snapshot: the disk is full"))
                }
                Some(Err(refused)) => Err(refused.clone()),
                None => Err(Refused::new(Refusal::NoPicture, "no picture was taken")),
            },
            Request::CheckUpdates => asked.no_updates.clone().map_or(Ok(Done::CheckUpdates), Err),
            Request::Status => Ok(Done::Status(BoxStatus {
                time: wall,
                clock: trust,
                sequence: self.meta.sequence,
                open: self.open_alerts(LIST_MAX)?,
                open_total: self.meta.totals.open,
            })),
        };
        Ok(done.map_or_else(Answer::Refused, Answer::Done))
    }

    fn on_alert(&mut self, id: Uuid, state: AlertState) -> Result<Result<Done, Refused>, rusqlite::Error> {
        Ok(match self.answer(id, state)? {
            Some(Ok(open)) => Ok(Done::Alert(open)),
            Some(Err(ended)) => {
                Err(Refused::new(Refusal::AlreadyEnded, format!("alert {id} is {} already", ended.state)))
            }
            None => Err(Refused::new(
                Refusal::UnknownAlert,
                format!("this box knows no alert {id}: it was never here, or was over long ago"),
            )),
        })
    }

    fn resend(&mut self, Range { from, to }: Range, route: usize) -> Result<Resent, rusqlite::Error> {
        let last = to.unwrap_or(u64::MAX).min(self.meta.sequence);
        let mut resent = Resent { to: last.min(from.saturating_add(RESEND_REACH - 1)), ..Resent::default() };
        let there: Vec<u64> = {
            let sql = "SELECT sequence FROM message WHERE sequence BETWEEN ? AND ? ORDER BY sequence";
            let mut statement = self.tx.prepare_cached(sql)?;
            let range = [from.min(i64::MAX as u64) as i64, resent.to as i64];
            let rows = statement.query_map(range, |row| row.get::<_, i64>(0))?;
            rows.map(|number| number.map(|number| number as u64)).collect::<Result<_, _>>()?
        };
        let mut next = from;
        for sequence in there {
            if next < sequence {
                if resent.missing.len() == LIST_MAX {
                    resent.to = next - 1;
                    return Ok(resent);
                }
                resent.missing.push((next, sequence - 1));
            }
            self.send_again(sequence, route)?;
            resent.messages += 1;
            next = sequence + 1;
        }
        if next <= resent.to {
            resent.missing.push((next, resent.to));
        }
        Ok(resent)
    }
}

/// The same answer without what makes it long: what it leaves out it speaks of no more, or counts.
fn shortened(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    match &mut answer {
        Answer::Done(Done::Status(status)) => status.open.clear(),
        Answer::Done(Done::Resend(resent)) if resent.missing.len() > SHORT_LIST => {
            resent.to = resent.missing[SHORT_LIST].0 - 1;
            resent.missing.truncate(SHORT_LIST);
        }
        _ => {}
    }
    answer
}

/// One line of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditEntry {
    /// Its number.
    pub number: u64,
    /// When, by the box's clock.
    pub time: Timestamp,
    /// How far that clock was to be trusted.
    pub clock: String,
    /// Which console.
    pub console: String,
    /// Who, as the console says.
    pub by: String,
    /// What for; the start of the text where it was no command.
    pub request: serde_json::Value,
    /// What became of it.
    pub answer: serde_json::Value,
}

/// The audit log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file.
    #[error("cannot read the audit log in {file}: {why}")]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        why: String,
    },
    /// Whoever takes the lines.
    #[error(transparent)]
    Taken(#[from] io::Error),
}

/// See [`super::super::Outbox::audit`].
pub(in crate::outbox) fn read_audit(
    folder: &Path,
    mut each: impl FnMut(AuditEntry) -> io::Result<()>,
) -> Result<(), AuditError> {
    let file = folder.join("outbox.db");
    let unreadable = |error: rusqlite::Error| AuditError::Unreadable {
        file: file.display().to_string(),
        why: error.to_string(),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(&file, flags).map_err(unreadable)?;
    let sql = "SELECT number, wall, clock, console, person, request, answer FROM audit ORDER BY number";
    let mut statement = db.prepare(sql).map_err(unreadable)?;
    let mut rows = statement.query([]).map_err(unreadable)?;
    while let Some(row) = rows.next().map_err(unreadable)? {
        each(entry(row).map_err(unreadable)?)?;
    }
    Ok(())
}

fn entry(row: &rusqlite::Row<'_>) -> Result<AuditEntry, rusqlite::Error> {
    let json = |text: String| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
    Ok(AuditEntry {
        number: row.get::<_, i64>(0)? as u64,
        time: Timestamp::from_millisecond(row.get(1)?).unwrap_or_default(),
        clock: row.get(2)?,
        console: row.get(3)?,
        by: row.get(4)?,
        request: json(row.get(5)?),
        answer: json(row.get(6)?),
    })
}
