//! What one transaction may do: take in, delete, park, and give up what does not fit.

use std::time::Duration;

use rusqlite::{OptionalExtension, Transaction, params};
use sharp_eyes_protocol::alert::Alert;
use sharp_eyes_protocol::topic::Site;

use super::{Meta, Pictures, rank};
use crate::outbox::{NewAlert, Row};

/// One transaction, with the totals as they will be.
pub(super) struct Work<'a> {
    pub(super) tx: &'a Transaction<'a>,
    pub(super) meta: Meta,
    pub(super) max_bytes: u64,
    /// Where the disk is full: no picture is taken in above it.
    pub(super) pictures_up_to: u64,
}

impl Work<'_> {
    pub(super) fn insert(
        &mut self,
        site: &Site,
        new: &NewAlert,
        pictures: Pictures,
    ) -> Result<(), rusqlite::Error> {
        let rank = rank(new.data.severity);
        self.meta.sequence += 1;
        let mut data = new.data.clone();
        let mut picture = new.picture.as_deref();
        if let Some(jpeg) = picture {
            // A picture displaces only pictures that matter no more than it does.
            let fits = pictures == Pictures::Stored
                && jpeg.len() as u64 <= self.max_bytes / 4
                && self.make_room(jpeg.len() as u64 + 1024, Some(rank))?;
            if !fits {
                self.meta.waiting.evicted_evidence += 1;
                picture = None;
            }
        }
        data.evidence = picture.is_some();
        let level = data.level.to_string();
        let json = Alert::raised(site, new.id, self.meta.sequence, new.time, new.subject.clone(), data).to_json();
        let sequence = self.meta.sequence as i64;
        let ran = self.meta.ran as i64;
        let bytes = (json.len() + picture.map_or(0, <[u8]>::len)) as u64;
        if !self.make_room(bytes, None)? && !self.make_room_of_alerts(bytes, rank)? {
            self.meta.waiting.evicted_alerts += 1; // all that waits matters more
            self.meta.waiting.evicted_evidence += u64::from(picture.is_some());
            return Ok(());
        }
        self.tx
            .prepare_cached("INSERT INTO alert (sequence, rank, level, ran, json) VALUES (?, ?, ?, ?, ?)")?
            .execute(params![sequence, rank, level, ran, json])?;
        if let Some(jpeg) = picture {
            self.tx
                .prepare_cached(
                    "INSERT INTO evidence (sequence, rank, alert, ran, jpeg) VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![sequence, rank, new.id.to_string(), ran, jpeg])?;
            self.meta.waiting.evidence += 1;
        }
        self.meta.waiting.alerts += 1;
        self.meta.waiting.bytes += bytes;
        Ok(())
    }

    pub(super) fn delete(&mut self, row: Row) -> Result<bool, rusqlite::Error> {
        let (sql, number) = match row {
            Row::Alert(n) => {
                ("DELETE FROM alert WHERE sequence = ? RETURNING length(json), parked IS NOT NULL", n)
            }
            Row::Evidence(n) => ("DELETE FROM evidence WHERE sequence = ? RETURNING length(jpeg), 0", n),
        };
        let gone = self
            .tx
            .prepare_cached(sql)?
            .query_row([number as i64], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, bool>(1)?)))
            .optional()?;
        let Some((bytes, parked)) = gone else { return Ok(false) };
        let waiting = &mut self.meta.waiting;
        waiting.bytes -= bytes;
        match row {
            Row::Alert(_) if parked => waiting.parked -= 1,
            Row::Alert(_) => waiting.alerts -= 1,
            Row::Evidence(_) => waiting.evidence -= 1,
        }
        Ok(true)
    }

    pub(super) fn park(&mut self, row: Row, reason: &str) -> Result<(), rusqlite::Error> {
        let (sql, number) = match row {
            Row::Alert(n) => ("UPDATE alert SET parked = ? WHERE sequence = ? AND parked IS NULL", n),
            Row::Evidence(n) => ("UPDATE evidence SET parked = ? WHERE sequence = ? AND parked IS NULL", n),
        };
        let changed = self.tx.prepare_cached(sql)?.execute(params![reason, number as i64])?;
        if changed == 1 && matches!(row, Row::Alert(_)) {
            self.meta.waiting.alerts -= 1;
            self.meta.waiting.parked += 1;
        }
        Ok(())
    }

    /// Gives up what waited longer than `max_age`: pictures, then alerts.
    pub(super) fn expire(&mut self, max_age: Duration) -> Result<(), rusqlite::Error> {
        let Some(oldest) = self.meta.ran.checked_sub(max_age.as_secs()) else { return Ok(()) };
        for evidence in [true, false] {
            let table = if evidence { "evidence" } else { "alert" };
            let sql = format!("SELECT sequence, ran FROM {table} ORDER BY sequence LIMIT 1");
            loop {
                let mut first = self.tx.prepare_cached(&sql)?;
                let read = |row: &rusqlite::Row<'_>| {
                    Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
                };
                match first.query_row([], read).optional()? {
                    Some((sequence, ran)) if ran < oldest => {
                        self.evict(if evidence { Row::Evidence(sequence) } else { Row::Alert(sequence) })?;
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Gives up pictures, the mildest first and of those the oldest, until `bytes` more fit; with `rank` only pictures
    /// up to it. With no picture left and nothing to add, alerts go too.
    pub(super) fn make_room(&mut self, bytes: u64, rank: Option<i64>) -> Result<bool, rusqlite::Error> {
        let limit = if rank.is_some() { self.pictures_up_to } else { self.max_bytes };
        while self.meta.waiting.bytes + bytes > limit {
            let more = self.evict_evidence(rank)? || bytes == 0 && self.evict_alert(None)?;
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// No picture is left: gives up alerts up to `rank`, the mildest first and of those the oldest.
    fn make_room_of_alerts(&mut self, bytes: u64, rank: i64) -> Result<bool, rusqlite::Error> {
        while self.meta.waiting.bytes + bytes > self.max_bytes {
            if !self.evict_alert(Some(rank))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn evict_evidence(&mut self, up_to: Option<i64>) -> Result<bool, rusqlite::Error> {
        match self.first_to_go("evidence", up_to)? {
            Some(sequence) => self.evict(Row::Evidence(sequence)),
            None => Ok(false),
        }
    }

    fn evict_alert(&mut self, up_to: Option<i64>) -> Result<bool, rusqlite::Error> {
        match self.first_to_go("alert", up_to)? {
            Some(sequence) => self.evict(Row::Alert(sequence)),
            None => Ok(false),
        }
    }

    /// What the broker refused goes first, whatever its rank: nobody will ever get it.
    fn first_to_go(&self, table: &str, up_to: Option<i64>) -> Result<Option<u64>, rusqlite::Error> {
        for (parked, up_to) in [("NOT NULL", i64::MAX), ("NULL", up_to.unwrap_or(i64::MAX))] {
            let sql = format!(
                "SELECT sequence FROM {table} WHERE parked IS {parked} AND rank <= ? ORDER BY rank, sequence LIMIT 1"
            );
            let found =
                self.tx.prepare_cached(&sql)?.query_row([up_to], |row| row.get::<_, i64>(0)).optional()?;
            if let Some(sequence) = found {
                return Ok(Some(sequence as u64));
            }
        }
        Ok(None)
    }

    fn evict(&mut self, row: Row) -> Result<bool, rusqlite::Error> {
        let gone = self.delete(row)?;
        match row {
            Row::Alert(_) => self.meta.waiting.evicted_alerts += u64::from(gone),
            Row::Evidence(_) => self.meta.waiting.evicted_evidence += u64::from(gone),
        }
        Ok(gone)
    }

    pub(super) fn finish(self) -> Result<Meta, rusqlite::Error> {
        let meta = self.meta;
        let waiting = &meta.waiting;
        self.tx
            .prepare_cached(
                "UPDATE meta SET sequence = ?, ran = ?, evicted_evidence = ?, evicted_alerts = ?",
            )?
            .execute(
                [meta.sequence, meta.ran, waiting.evicted_evidence, waiting.evicted_alerts].map(|n| n as i64),
            )?;
        Ok(meta)
    }
}
