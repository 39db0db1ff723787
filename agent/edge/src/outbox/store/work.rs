//! What one transaction may do to messages and pictures: take in, write off, park, and give up what does not fit.

use rusqlite::{OptionalExtension, Transaction, params};
use sharp_eyes_protocol::alert::Alert;
use sharp_eyes_protocol::level::{Level, Severity};
use uuid::Uuid;

use super::{Meta, Pictures, TURN_OF_PICTURES, TURN_OF_REQUESTED, TURN_OF_THUMBNAILS, checksum, rank};
use crate::outbox::{NewEvidence, OutboxOptions, Row};

/// One transaction, with the totals as they will be.
pub(super) struct Work<'a> {
    pub(super) tx: &'a Transaction<'a>,
    pub(super) meta: Meta,
    pub(super) options: &'a OutboxOptions,
    pub(super) routes: &'a [i64],
    /// Where the disk is full: no picture is taken in above it.
    pub(super) pictures_up_to: u64,
}

/// Bytes of a row beside its payload, roughly: counted before a picture is taken in.
const OVERHEAD: u64 = 1024;

/// What a message or a picture is, beside its payload.
struct Held {
    turn: i64,
    waiting: i64,
    parked: i64,
    bytes: u64,
}

impl Work<'_> {
    /// A message with the next number, waiting on all routes. Where all that is kept matters more, it is given up, and
    /// its number is a gap that says so.
    pub(super) fn publish(
        &mut self,
        severity: Severity,
        level: Level,
        json: &str,
    ) -> Result<(), rusqlite::Error> {
        let rank = rank(severity);
        let bytes = json.len() as u64;
        let sequence = self.meta.sequence as i64;
        if !self.make_room(bytes)? && !self.make_room_of_alerts(bytes, rank)? {
            self.meta.totals.evicted_alerts += 1;
            return Ok(());
        }
        self.tx
            .prepare_cached(
                "INSERT INTO message (sequence, rank, level, lived, waiting, parked, crc, json)
                 VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
            )?
            .execute(params![
                sequence,
                rank,
                level.name(),
                self.meta.lived as i64,
                self.routes.len() as i64,
                checksum(json.as_bytes()),
                json
            ])?;
        for route in self.routes {
            self.wait(*route, turn_of_message(rank), sequence)?;
        }
        self.meta.totals.alerts += 1;
        self.meta.totals.bytes += bytes;
        Ok(())
    }

    /// The next sequence number.
    pub(super) fn number(&mut self) -> u64 {
        self.meta.sequence += 1;
        self.meta.sequence
    }

    /// The pictures of an alert. They displace only pictures that matter no more than they do.
    pub(super) fn attach(&mut self, new: &NewEvidence, pictures: Pictures) -> Result<(), rusqlite::Error> {
        let rank = rank(new.severity);
        for (small, jpeg) in [(true, &new.thumbnail), (false, &new.picture)] {
            let turn = if small { TURN_OF_THUMBNAILS } else { TURN_OF_PICTURES } + 2 - rank;
            let waits = small || !self.options.pictures_on_request;
            let fits = pictures == Pictures::Stored
                && jpeg.len() as u64 <= self.options.max_bytes / 4
                && self.make_room_of_pictures(jpeg.len() as u64 + OVERHEAD, rank)?;
            if fits {
                self.keep(new.alert, jpeg, rank, small, turn, waits)?;
            } else {
                self.meta.totals.evicted_evidence += 1;
            }
        }
        Ok(())
    }

    /// A picture that somebody asked for. `false`: there is no room for it.
    pub(super) fn attach_requested(&mut self, id: Uuid, jpeg: &[u8]) -> Result<bool, rusqlite::Error> {
        let rank = rank(Severity::Critical);
        let fits = self.make_room_of_pictures(jpeg.len() as u64 + OVERHEAD, rank)?;
        if fits {
            self.keep(id, jpeg, rank, false, TURN_OF_REQUESTED, true)?;
        }
        Ok(fits)
    }

    fn keep(
        &mut self,
        id: Uuid,
        jpeg: &[u8],
        rank: i64,
        small: bool,
        turn: i64,
        waits: bool,
    ) -> Result<(), rusqlite::Error> {
        self.meta.picture += 1;
        let number = self.meta.picture as i64;
        let routes = if waits { self.routes } else { &[] };
        self.tx
            .prepare_cached(
                "INSERT INTO evidence (number, rank, small, turn, alert, lived, waiting, parked, crc, jpeg)
                 VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
            )?
            .execute(params![
                number,
                rank,
                small,
                turn,
                id.to_string(),
                self.meta.lived as i64,
                routes.len() as i64,
                checksum(jpeg),
                jpeg
            ])?;
        for route in routes {
            self.wait(*route, turn, number)?;
        }
        self.meta.totals.evidence += u64::from(waits);
        self.meta.totals.bytes += jpeg.len() as u64;
        Ok(())
    }

    /// The large picture of an alert is sent before all others, on one route. `false`: it is not here.
    pub(super) fn request_picture(&mut self, id: Uuid, route: usize) -> Result<bool, rusqlite::Error> {
        let found = self
            .tx
            .prepare_cached("SELECT number FROM evidence WHERE alert = ? AND small = 0")?
            .query_row([id.to_string()], |row| row.get::<_, i64>(0))
            .optional()?;
        let Some(number) = found else { return Ok(false) };
        let row = Row::Evidence(number as u64);
        let Some(held) = self.held(row)? else { return Ok(false) };
        for route in self.routes {
            if self.waits_no_more(*route, held.turn, number)? {
                self.wait(*route, TURN_OF_REQUESTED, number)?;
            }
        }
        let added = i64::from(self.wait(self.routes[route], TURN_OF_REQUESTED, number)?);
        self.tx
            .prepare_cached("UPDATE evidence SET turn = ?, parked = 0 WHERE number = ?")?
            .execute([TURN_OF_REQUESTED, number])?;
        self.settle(row, held.waiting + added, 0, &Held { turn: TURN_OF_REQUESTED, ..held })?;
        Ok(true)
    }

    /// A message waits again on one route.
    pub(super) fn send_again(&mut self, sequence: u64, route: usize) -> Result<(), rusqlite::Error> {
        let row = Row::Alert(sequence);
        let Some(held) = self.held(row)? else { return Ok(()) };
        if self.wait(self.routes[route], held.turn, sequence as i64)? {
            self.settle(row, held.waiting + 1, 0, &held)?;
        }
        Ok(())
    }

    /// True where it did not wait there already.
    fn wait(&self, route: i64, turn: i64, number: i64) -> Result<bool, rusqlite::Error> {
        let sql = "INSERT OR IGNORE INTO waiting (route, turn, number) VALUES (?, ?, ?)";
        Ok(self.tx.prepare_cached(sql)?.execute([route, turn, number])? == 1)
    }

    /// True where it waited there.
    fn waits_no_more(&self, route: i64, turn: i64, number: i64) -> Result<bool, rusqlite::Error> {
        let sql = "DELETE FROM waiting WHERE route = ? AND turn = ? AND number = ?";
        Ok(self.tx.prepare_cached(sql)?.execute([route, turn, number])? == 1)
    }

    fn held(&self, row: Row) -> Result<Option<Held>, rusqlite::Error> {
        let (sql, number) = match row {
            Row::Alert(n) => {
                ("SELECT 2 - rank, waiting, parked, length(json) FROM message WHERE sequence = ?", n)
            }
            Row::Evidence(n) => {
                ("SELECT turn, waiting, parked, length(jpeg) FROM evidence WHERE number = ?", n)
            }
        };
        let read = |row: &rusqlite::Row<'_>| {
            let bytes = row.get::<_, i64>(3)? as u64;
            Ok(Held { turn: row.get(0)?, waiting: row.get(1)?, parked: row.get(2)?, bytes })
        };
        self.tx.prepare_cached(sql)?.query_row([number as i64], read).optional()
    }

    /// The broker of a route has it.
    pub(super) fn acknowledge(&mut self, route: usize, row: Row) -> Result<(), rusqlite::Error> {
        let Some(held) = self.held(row)? else { return Ok(()) };
        if self.waits_no_more(self.routes[route], held.turn, number_of(row))? {
            self.settle(row, held.waiting - 1, held.parked, &held)?;
        }
        Ok(())
    }

    /// The broker of a route does not want it.
    pub(super) fn park(&mut self, route: usize, row: Row, reason: &str) -> Result<(), rusqlite::Error> {
        let Some(held) = self.held(row)? else { return Ok(()) };
        if self.waits_no_more(self.routes[route], held.turn, number_of(row))? {
            if let Row::Alert(sequence) = row {
                self.tx
                    .prepare_cached("UPDATE message SET reason = ? WHERE sequence = ?")?
                    .execute(params![reason, sequence as i64])?;
            }
            self.meta.totals.parked_reason = Some(reason.to_owned());
            self.settle(row, held.waiting - 1, held.parked + 1, &held)?;
        }
        Ok(())
    }

    /// Writes down for how many routes a row waits and on how many it was refused. A picture that is delivered is
    /// deleted; a message that is delivered is kept among the newest.
    fn settle(&mut self, row: Row, waiting: i64, parked: i64, before: &Held) -> Result<(), rusqlite::Error> {
        if matches!(row, Row::Evidence(_)) && waiting == 0 && parked == 0 {
            return self.delete(row).map(drop);
        }
        let sql = match row {
            Row::Alert(_) => "UPDATE message SET waiting = ?, parked = ? WHERE sequence = ?",
            Row::Evidence(_) => "UPDATE evidence SET waiting = ?, parked = ? WHERE number = ?",
        };
        self.tx.prepare_cached(sql)?.execute([waiting, parked, number_of(row)])?;
        self.count(row, before.waiting, before.parked, false);
        self.count(row, waiting, parked, true);
        while self.meta.totals.delivered > self.options.max_delivered && self.forget_delivered()? {}
        Ok(())
    }

    /// One row more or less in the totals.
    fn count(&mut self, row: Row, waiting: i64, parked: i64, more: bool) {
        let totals = &mut self.meta.totals;
        let change = |total: &mut u64, by: bool| {
            *total = if more { *total + u64::from(by) } else { *total - u64::from(by) };
        };
        change(&mut totals.parked, parked > 0);
        match row {
            Row::Alert(_) => {
                change(&mut totals.alerts, waiting > 0);
                change(&mut totals.delivered, waiting == 0 && parked == 0);
            }
            Row::Evidence(_) => change(&mut totals.evidence, waiting > 0),
        }
    }

    fn delete(&mut self, row: Row) -> Result<bool, rusqlite::Error> {
        let Some(held) = self.held(row)? else { return Ok(false) };
        for route in self.routes {
            self.waits_no_more(*route, held.turn, number_of(row))?;
        }
        let sql = match row {
            Row::Alert(_) => "DELETE FROM message WHERE sequence = ?",
            Row::Evidence(_) => "DELETE FROM evidence WHERE number = ?",
        };
        self.tx.prepare_cached(sql)?.execute([number_of(row)])?;
        self.meta.totals.bytes -= held.bytes;
        self.count(row, held.waiting, held.parked, false);
        Ok(true)
    }

    /// The oldest message that was delivered is kept no longer.
    pub(super) fn forget_delivered(&mut self) -> Result<bool, rusqlite::Error> {
        let sql = "SELECT sequence FROM message WHERE waiting = 0 AND parked = 0 ORDER BY sequence LIMIT 1";
        let oldest = self.tx.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).optional()?;
        oldest.map_or(Ok(false), |sequence| self.delete(Row::Alert(sequence as u64)))
    }

    /// Gives up what was kept longer than `max_age`: pictures, messages, open alerts.
    pub(super) fn expire(&mut self) -> Result<(), rusqlite::Error> {
        let Some(oldest) = self.options.oldest(self.meta.lived) else { return Ok(()) };
        for (table, number) in [("evidence", "number"), ("message", "sequence")] {
            let sql =
                format!("SELECT {number}, lived, waiting + parked FROM {table} ORDER BY {number} LIMIT 1");
            loop {
                let read = |row: &rusqlite::Row<'_>| {
                    let number = row.get::<_, i64>(0)? as u64;
                    Ok((number, row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)?))
                };
                let first = self.tx.prepare_cached(&sql)?.query_row([], read).optional()?;
                let Some((number, lived, wanted)) = first.filter(|(_, lived, _)| *lived < oldest) else {
                    break;
                };
                debug_assert!(lived < oldest);
                match (table, wanted) {
                    ("message", 0) => drop(self.delete(Row::Alert(number))?), // it was delivered
                    ("message", _) => drop(self.evict(Row::Alert(number))?),
                    _ => drop(self.evict(Row::Evidence(number))?),
                }
            }
        }
        self.expire_open(oldest)
    }

    /// Gives up delivered messages and then pictures, the mildest first and of those the oldest, until `bytes` more fit.
    /// With no picture left and nothing to add, alerts go too.
    pub(super) fn make_room(&mut self, bytes: u64) -> Result<bool, rusqlite::Error> {
        while self.meta.totals.bytes + bytes > self.options.max_bytes {
            let more = self.forget_delivered()?
                || self.evict_evidence(None)?
                || bytes == 0 && self.evict_alert(i64::MAX)?;
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives up delivered messages and pictures up to `rank` until a picture of `bytes` fits.
    fn make_room_of_pictures(&mut self, bytes: u64, rank: i64) -> Result<bool, rusqlite::Error> {
        while self.meta.totals.bytes + bytes > self.pictures_up_to {
            if !self.forget_delivered()? && !self.evict_evidence(Some(rank))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// No picture is left: gives up alerts up to `rank`, the mildest first and of those the oldest.
    fn make_room_of_alerts(&mut self, bytes: u64, rank: i64) -> Result<bool, rusqlite::Error> {
        while self.meta.totals.bytes + bytes > self.options.max_bytes {
            if !self.evict_alert(rank)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a broker refused goes first, whatever its rank; then the mildest, of those large pictures before small ones,
    /// then the oldest.
    pub(super) fn evict_evidence(&mut self, up_to: Option<i64>) -> Result<bool, rusqlite::Error> {
        let sql = "SELECT number FROM evidence WHERE parked > 0 ORDER BY number LIMIT 1";
        let mut found = self.tx.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).optional()?;
        if found.is_none() {
            let sql = "SELECT number FROM evidence WHERE parked = 0 AND rank <= ? ORDER BY rank, small, number LIMIT 1";
            let up_to = up_to.unwrap_or(i64::MAX);
            found = self.tx.prepare_cached(sql)?.query_row([up_to], |row| row.get::<_, i64>(0)).optional()?;
        }
        found.map_or(Ok(false), |number| self.evict(Row::Evidence(number as u64)))
    }

    /// What every broker refused goes first: nobody will ever get it.
    fn evict_alert(&mut self, up_to: i64) -> Result<bool, rusqlite::Error> {
        let sql =
            "SELECT sequence FROM message WHERE parked > 0 AND waiting = 0 ORDER BY rank, sequence LIMIT 1";
        let refused = self.tx.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).optional()?;
        if let Some(sequence) = refused {
            return self.evict(Row::Alert(sequence as u64));
        }
        let sql = "SELECT min(number) FROM waiting WHERE route = ? AND turn = ?";
        for rank in (0..=2).take_while(|rank| *rank <= up_to) {
            let mut oldest = None;
            for route in self.routes {
                let first: Option<i64> = self
                    .tx
                    .prepare_cached(sql)?
                    .query_row([*route, turn_of_message(rank)], |row| row.get(0))?;
                oldest = oldest.into_iter().chain(first).min();
            }
            if let Some(sequence) = oldest {
                return self.evict(Row::Alert(sequence as u64));
            }
        }
        Ok(false)
    }

    /// A counted loss.
    pub(super) fn evict(&mut self, row: Row) -> Result<bool, rusqlite::Error> {
        let gone = self.delete(row)?;
        match row {
            Row::Alert(_) => self.meta.totals.evicted_alerts += u64::from(gone),
            Row::Evidence(_) => self.meta.totals.evicted_evidence += u64::from(gone),
        }
        Ok(gone)
    }
}

/// An alert as it was written; the store wrote it, so anything else is damage.
pub(super) fn parse(json: &str) -> Result<Alert, rusqlite::Error> {
    serde_json::from_str(json).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn turn_of_message(rank: i64) -> i64 {
    2 - rank
}

fn number_of(row: Row) -> i64 {
    match row {
        Row::Alert(number) | Row::Evidence(number) => number as i64,
    }
}
