//! Open alerts: from the first message until somebody resolves or dismisses them.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use sharp_eyes_protocol::alert::{Alert, AlertData, AlertState, seconds};
use sharp_eyes_protocol::command::OpenAlert;
use sharp_eyes_protocol::topic::Site;
use uuid::Uuid;

use super::work::{Work, parse};
use super::{Store, StoreError, rank};
use crate::outbox::{Change, NewAlert};

/// Alerts that climb in one transaction at most.
pub(super) const MAX_CLIMBS: usize = 64;

/// Alerts that are given up for their age in one transaction at most: one of each severity.
pub(super) const MAX_EXPIRED: usize = 3;

/// Alerts that are kept open at most, beside the limit on bytes: 6 MB. Beyond it the mildest and oldest is given up as
/// unanswered, counted, and said so.
const MAX_OPEN: u64 = 10_000;

/// Alerts that are over and still known, so that a late answer is told so.
const MAX_ENDED: i64 = 1000;

/// Milliseconds between two messages that only tell the highest level again, over all alerts.
const REPEAT_SPACING: u64 = 10_000;

impl Work<'_> {
    /// A new alert: its first message, and its deadline.
    pub(super) fn raise(&mut self, site: &Site, new: &NewAlert) -> Result<(), rusqlite::Error> {
        let within = self.options.escalation.respond_within(new.data.severity);
        let mut data = new.data.clone();
        data.respond_s = within.map(seconds);
        let sequence = self.number();
        let alert = Alert::raised(site, new.id, sequence, new.time, new.subject.clone(), data);
        let json = alert.to_json();
        self.publish(alert.data.severity, alert.data.level, &json)?;
        let due = within.map(|within| (self.meta.lived + within.as_millis() as u64) as i64);
        let inserted = self
            .tx
            .prepare_cached(
                "INSERT OR IGNORE INTO open_alert (number, id, rank, top, due, repeats, lived, ended, json)
                 VALUES (?, ?, ?, ?, ?, 0, ?, 0, ?)",
            )?
            .execute(params![
                sequence as i64,
                alert.id.to_string(),
                rank(alert.data.severity),
                alert.data.level.above().is_none(),
                due,
                self.meta.lived as i64,
                json
            ])?;
        if inserted == 1 {
            self.meta.totals.open += 1;
        }
        if self.meta.totals.open > MAX_OPEN {
            self.give_up_mildest()?;
        }
        Ok(())
    }

    /// Whatever is due climbs by one level, at most [`MAX_CLIMBS`]; at the highest level one alert is told again.
    pub(super) fn climb(&mut self) -> Result<(), rusqlite::Error> {
        let lived = self.meta.lived as i64;
        let sql = "SELECT number FROM open_alert WHERE top = ? AND due <= ? ORDER BY due LIMIT ?";
        let repeats = i64::from(self.meta.lived >= self.meta.next_repeat);
        for (top, limit) in [(0, MAX_CLIMBS as i64 - 1), (1, repeats)] {
            let due: Vec<i64> = {
                let mut statement = self.tx.prepare_cached(sql)?;
                let rows = statement.query_map([top, lived, limit], |row| row.get(0))?;
                rows.collect::<Result<_, _>>()?
            };
            for number in due {
                self.climb_one(number)?;
            }
        }
        Ok(())
    }

    fn climb_one(&mut self, number: i64) -> Result<(), rusqlite::Error> {
        let (json, repeats): (String, u32) = self
            .tx
            .prepare_cached("SELECT json, repeats FROM open_alert WHERE number = ?")?
            .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let Some(alert) = self.readable(number, &json)? else { return Ok(()) };
        let climb = self.options.escalation.climb(alert.data.severity, alert.data.level, repeats);
        let sequence = self.number();
        let next = alert.escalated(sequence, climb.level, climb.within);
        let fresh = next.to_json();
        self.publish(next.data.severity, next.data.level, &fresh)?;
        let due = climb.within.map(|within| (self.meta.lived + within.as_millis() as u64) as i64);
        self.tx
            .prepare_cached("UPDATE open_alert SET top = ?, due = ?, repeats = ?, json = ? WHERE number = ?")?
            .execute(params![
                climb.level.above().is_none(),
                due,
                repeats + u32::from(climb.repeated),
                fresh,
                number
            ])?;
        if climb.repeated {
            self.meta.next_repeat = self.meta.lived + REPEAT_SPACING;
        } else {
            self.meta.totals.escalated += 1;
        }
        Ok(())
    }

    /// An alert of the register. One that the disk has changed is none any more: it is given up, and counted.
    fn readable(&mut self, number: i64, json: &str) -> Result<Option<Alert>, rusqlite::Error> {
        let error = match parse(json) {
            Ok(alert) => return Ok(Some(alert)),
            Err(error) => error,
        };
        tracing::error!(
            number,
            "the disk has changed an open alert: given up, and counted as evicted: {error}"
        );
        let sql = "DELETE FROM open_alert WHERE number = ? RETURNING ended";
        let ended: bool = self.tx.prepare_cached(sql)?.query_row([number], |row| row.get(0))?;
        self.meta.totals.open = self.meta.totals.open.saturating_sub(u64::from(!ended));
        self.meta.totals.evicted_alerts += 1;
        Ok(None)
    }

    /// Somebody answered. `Err`: how the alert stands, where nothing changes; `None`: there is no such alert.
    pub(super) fn answer(
        &mut self,
        id: Uuid,
        state: AlertState,
    ) -> Result<Option<Result<OpenAlert, OpenAlert>>, rusqlite::Error> {
        let found: Option<(i64, String)> = self
            .tx
            .prepare_cached("SELECT number, json FROM open_alert WHERE id = ?")?
            .query_row([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((number, json)) = found else { return Ok(None) };
        let Some(alert) = self.readable(number, &json)? else { return Ok(None) };
        if alert.data.state.is_ended() {
            return Ok(Some(Err(open_alert(&alert))));
        }
        if alert.data.state == state {
            return Ok(Some(Ok(open_alert(&alert)))); // two operators acknowledge the same: both are right
        }
        self.change(number, &alert, state).map(|open| Some(Ok(open)))
    }

    /// What the cameras say of an alert after it was raised. Nothing, where it is not there or over already.
    pub(super) fn follow(&mut self, id: Uuid, change: &Change) -> Result<(), rusqlite::Error> {
        let found: Option<(i64, Option<i64>, u32, String)> = self
            .tx
            .prepare_cached("SELECT number, due, repeats, json FROM open_alert WHERE id = ?")?
            .query_row([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((number, due, repeats, json)) = found else { return Ok(()) };
        let Some(alert) = self.readable(number, &json)? else { return Ok(()) };
        if alert.data.state.is_ended() || alert.data.over {
            return Ok(());
        }
        let lived = self.meta.lived as i64;
        let left = |due: Option<i64>| due.map(|due| Duration::from_millis((due - lived).max(0) as u64));
        let sequence = self.number();
        let (next, due, repeats) = match change {
            Change::Over => {
                let over = alert.over(sequence, left(due));
                let due = due.filter(|_| !over.data.state.is_ended());
                (over, due, repeats)
            }
            Change::Many(count) => {
                let respond_s = left(due).map(seconds);
                let data = AlertData { count: Some(*count), respond_s, ..alert.data.clone() };
                (alert.updated(sequence, data), due, repeats)
            }
        };
        let json = next.to_json();
        self.publish(next.data.severity, next.data.level, &json)?;
        let ended = next.data.state.is_ended();
        self.tx
            .prepare_cached(
                "UPDATE open_alert SET rank = ?, top = ?, due = ?, repeats = ?, ended = ?, json = ? WHERE number = ?",
            )?
            .execute(params![
                rank(next.data.severity),
                next.data.level.above().is_none(),
                due,
                repeats,
                ended,
                json,
                number
            ])?;
        if ended {
            self.meta.totals.open -= 1;
            self.forget_ended()?;
        }
        Ok(())
    }

    fn change(
        &mut self,
        number: i64,
        alert: &Alert,
        state: AlertState,
    ) -> Result<OpenAlert, rusqlite::Error> {
        let sequence = self.number();
        let next = alert.answered(sequence, state);
        let json = next.to_json();
        self.publish(next.data.severity, next.data.level, &json)?;
        self.tx
            .prepare_cached("UPDATE open_alert SET due = NULL, ended = ?, json = ? WHERE number = ?")?
            .execute(params![state.is_ended(), json, number])?;
        if state.is_ended() {
            self.meta.totals.open -= 1;
            self.forget_ended()?;
        }
        Ok(open_alert(&next))
    }

    /// Open alerts that were raised before a moment: nobody will answer them any more.
    pub(super) fn expire_open(&mut self, oldest: u64) -> Result<(), rusqlite::Error> {
        let sql =
            "SELECT number, lived, json FROM open_alert WHERE ended = 0 AND rank = ? ORDER BY number LIMIT 1";
        for rank in 0..=2 {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64, row.get(2)?));
            let first: Option<(i64, u64, String)> =
                self.tx.prepare_cached(sql)?.query_row([rank], read).optional()?;
            if let Some((number, _, json)) = first.filter(|(_, lived, _)| *lived < oldest) {
                self.give_up_open(number, &json)?;
            }
        }
        Ok(())
    }

    fn give_up_mildest(&mut self) -> Result<(), rusqlite::Error> {
        let sql = "SELECT number, json FROM open_alert WHERE ended = 0 ORDER BY rank, number LIMIT 1";
        let (number, json) = self
            .tx
            .prepare_cached(sql)?
            .query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        self.give_up_open(number, &json)
    }

    fn give_up_open(&mut self, number: i64, json: &str) -> Result<(), rusqlite::Error> {
        let Some(alert) = self.readable(number, json)? else { return Ok(()) };
        self.change(number, &alert, AlertState::Unanswered)?;
        self.meta.totals.unanswered += 1;
        Ok(())
    }

    fn forget_ended(&mut self) -> Result<(), rusqlite::Error> {
        let sql = "DELETE FROM open_alert WHERE number IN
            (SELECT number FROM open_alert WHERE ended = 1 ORDER BY number DESC LIMIT 8 OFFSET ?)";
        self.tx.prepare_cached(sql)?.execute([MAX_ENDED]).map(drop)
    }

    /// Open alerts, the most severe and oldest first.
    pub(super) fn open_alerts(&self, limit: usize) -> Result<Vec<OpenAlert>, rusqlite::Error> {
        let sql = "SELECT json FROM open_alert WHERE ended = 0 ORDER BY rank DESC, number LIMIT ?";
        let mut statement = self.tx.prepare_cached(sql)?;
        let rows = statement.query_map([limit as i64], |row| row.get::<_, String>(0))?;
        let open =
            |json: Result<String, _>| json.map(|json| parse(&json).ok().map(|alert| open_alert(&alert)));
        rows.filter_map(|json| open(json).transpose()).collect()
    }
}

impl Store {
    /// See [`crate::outbox::Outbox::lasting`].
    pub(in crate::outbox) fn lasting(&self) -> Result<Vec<Alert>, StoreError> {
        let mut statement =
            self.db.prepare_cached("SELECT json FROM open_alert WHERE ended = 0 ORDER BY number")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let mut found = Vec::new();
        for json in rows {
            let Ok(alert) = parse(&json?) else { continue }; // whoever changes it next gives it up
            if !alert.data.over {
                found.push(alert);
            }
        }
        Ok(found)
    }

    /// Whether an alert has been open for so long that it is given up.
    pub(super) fn expires(&self, lived: u64) -> Result<bool, StoreError> {
        let sql = "SELECT lived FROM open_alert WHERE ended = 0 ORDER BY number LIMIT 1";
        let first: Option<i64> = self.db.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
        Ok(first.zip(self.options.oldest(lived)).is_some_and(|(first, oldest)| (first as u64) < oldest))
    }

    pub(super) fn read_next_climb(&self) -> Result<Option<u64>, StoreError> {
        let first = |top: i64| -> Result<Option<u64>, rusqlite::Error> {
            let sql = "SELECT min(due) FROM open_alert WHERE top = ? AND due IS NOT NULL";
            let due: Option<i64> = self.db.prepare_cached(sql)?.query_row([top], |row| row.get(0))?;
            Ok(due.map(|due| due as u64))
        };
        let repeat = first(1)?.map(|due| due.max(self.meta.next_repeat));
        Ok(first(0)?.into_iter().chain(repeat).min())
    }
}

fn open_alert(alert: &Alert) -> OpenAlert {
    OpenAlert {
        id: alert.id,
        state: alert.data.state,
        level: alert.data.level,
        severity: alert.data.severity,
    }
}
