//! The tables, and how a database of an older agent, or for other routes, becomes one of this agent's.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Meta, StoreError, checksum};

/// `PRAGMA user_version`.
pub(crate) const SCHEMA: i64 = 3;

const CREATE: &str = "
    CREATE TABLE meta (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        sequence INTEGER NOT NULL,              -- the last one given to a message
        picture INTEGER NOT NULL DEFAULT 0,     -- the last one given to a picture
        lived INTEGER NOT NULL DEFAULT 0,       -- milliseconds that this outbox has lived: see Store::lived
        wall INTEGER,                           -- a trusted wall clock's milliseconds since 1970 ...
        wall_lived INTEGER,                     -- ... when `lived` was this
        next_repeat INTEGER NOT NULL DEFAULT 0, -- the highest level is told again no earlier than this
        -- Totals, so that opening a million rows takes no time.
        alerts INTEGER NOT NULL DEFAULT 0,
        evidence INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        parked INTEGER NOT NULL DEFAULT 0,
        parked_reason TEXT,
        delivered INTEGER NOT NULL DEFAULT 0,
        open INTEGER NOT NULL DEFAULT 0,
        escalated INTEGER NOT NULL DEFAULT 0,
        unanswered INTEGER NOT NULL DEFAULT 0,
        audit_bytes INTEGER NOT NULL DEFAULT 0, -- of the audit log; triggers count them
        evicted_evidence INTEGER NOT NULL DEFAULT 0,
        evicted_alerts INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE route (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    -- Every message about an alert: waiting, refused, or delivered and kept to be sent again.
    CREATE TABLE message (
        sequence INTEGER PRIMARY KEY,
        rank INTEGER NOT NULL,                  -- severity, mildest 0
        level TEXT NOT NULL,                    -- who is called
        lived INTEGER NOT NULL,                 -- meta.lived when it came
        waiting INTEGER NOT NULL,               -- routes that have not delivered it
        parked INTEGER NOT NULL,                -- routes on which it was refused
        reason TEXT,                            -- why
        crc INTEGER NOT NULL,
        json TEXT NOT NULL
    ) STRICT;
    CREATE INDEX message_delivered ON message (sequence) WHERE waiting = 0 AND parked = 0;
    CREATE INDEX message_parked ON message (rank) WHERE parked > 0;
    CREATE TABLE evidence (
        number INTEGER PRIMARY KEY,
        rank INTEGER NOT NULL,
        small INTEGER NOT NULL,                 -- 1: a thumbnail
        turn INTEGER NOT NULL,                  -- of its rows in waiting
        alert TEXT NOT NULL,                    -- of an alert, or of a snapshot
        lived INTEGER NOT NULL,
        waiting INTEGER NOT NULL,               -- 0: kept until somebody asks for it
        parked INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        jpeg BLOB NOT NULL                      -- last: the columns before it are read without it
    ) STRICT;
    CREATE INDEX evidence_order ON evidence (parked, rank, small);
    CREATE INDEX evidence_alert ON evidence (alert);
    -- The order of sending: turn 0 to 2 messages, 3 to 5 thumbnails, 6 pictures that were asked for, 7 to 9 pictures.
    CREATE TABLE waiting (
        route INTEGER NOT NULL,
        turn INTEGER NOT NULL,
        number INTEGER NOT NULL,                -- message.sequence or evidence.number
        PRIMARY KEY (route, turn, number)
    ) STRICT, WITHOUT ROWID;
    -- Alerts until they are resolved or dismissed, and the newest of those that are.
    CREATE TABLE open_alert (
        number INTEGER PRIMARY KEY,             -- sequence of its first message
        id TEXT NOT NULL UNIQUE,
        rank INTEGER NOT NULL,
        top INTEGER NOT NULL,                   -- 1: nobody is above
        due INTEGER,                            -- when it climbs, in meta.lived
        repeats INTEGER NOT NULL,
        lived INTEGER NOT NULL,
        ended INTEGER NOT NULL,
        json TEXT NOT NULL                      -- the last message about it
    ) STRICT;
    CREATE INDEX open_due ON open_alert (top, due) WHERE due IS NOT NULL;
    CREATE INDEX open_live ON open_alert (rank, number) WHERE ended = 0;
    CREATE INDEX open_ended ON open_alert (number) WHERE ended = 1;
    CREATE TABLE console (
        name TEXT PRIMARY KEY,
        counter INTEGER NOT NULL                -- the highest that it has used
    ) STRICT, WITHOUT ROWID;
    -- Who asked for what, when, and what became of it. Also the memory that answers a repeated question.
    CREATE TABLE audit (
        number INTEGER PRIMARY KEY,
        wall INTEGER NOT NULL,                  -- milliseconds since 1970
        clock TEXT NOT NULL,                    -- how far that is to be trusted
        console TEXT NOT NULL,
        person TEXT NOT NULL,
        correlation BLOB NOT NULL,
        request TEXT NOT NULL,
        answer TEXT NOT NULL
    ) STRICT;
    CREATE INDEX audit_correlation ON audit (correlation);
    CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
        BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
";

/// What bounds the audit log, beside the tables.
const AUDIT: &str = "
    -- The newest answers in full, where the log holds a short form.
    CREATE TABLE answer (
        number INTEGER PRIMARY KEY,             -- of the line in audit
        json TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER audit_keeps BEFORE DELETE ON audit
        WHEN old.number > (SELECT max(number) FROM audit) - 100000 AND (SELECT audit_bytes FROM meta) <= 20000000
        BEGIN SELECT raise(ABORT, 'the audit log is append-only'); END;
    CREATE TRIGGER audit_grows AFTER INSERT ON audit BEGIN
        UPDATE meta SET audit_bytes = audit_bytes + length(new.correlation) + 64
            + length(CAST(new.console || new.person || new.request || new.answer AS BLOB));
    END;
    CREATE TRIGGER audit_shrinks AFTER DELETE ON audit BEGIN
        UPDATE meta SET audit_bytes = audit_bytes - length(old.correlation) - 64
            - length(CAST(old.console || old.person || old.request || old.answer AS BLOB));
    END;
";

/// A database whose audit log was bounded in lines only.
const FROM_SECOND: &str = "
    ALTER TABLE meta ADD COLUMN audit_bytes INTEGER NOT NULL DEFAULT 0;
    UPDATE meta SET audit_bytes = (SELECT coalesce(sum(length(correlation) + 64
        + length(CAST(console || person || request || answer AS BLOB))), 0) FROM audit);
    DROP TRIGGER audit_keeps;
";

/// Lines of the audit log that are kept, and bytes, as the trigger says: years of work.
pub(super) const AUDIT_LINES: u64 = 100_000;
pub(super) const AUDIT_BYTES: u64 = 20_000_000;

/// Makes the tables, or those of an older agent into these. Returns the routes' ids, in the order of `routes`.
pub(super) fn prepare(
    db: &mut Connection,
    first_sequence: u64,
    routes: &[String],
) -> Result<Vec<i64>, StoreError> {
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > SCHEMA {
        return Err(StoreError::Newer(version));
    }
    let known = if version < 2 { Vec::new() } else { known_routes(db)? };
    if version == SCHEMA
        && let Some(ids) = all_known(&known, routes)
        && ids.len() == known.len()
    {
        return Ok(ids); // as nearly always: nothing is written
    }
    let tx = db.transaction()?;
    if version < SCHEMA {
        if version == 1 {
            tx.execute_batch(
                "ALTER TABLE meta RENAME TO meta_1; ALTER TABLE alert RENAME TO alert_1;
                 ALTER TABLE evidence RENAME TO evidence_1; DROP INDEX alert_waiting; DROP INDEX alert_parked;
                 DROP INDEX evidence_waiting; DROP INDEX evidence_parked;",
            )?;
        }
        if version == 2 {
            tx.execute_batch(FROM_SECOND)?;
        } else {
            tx.execute_batch(CREATE)?;
            tx.execute("INSERT INTO meta (only, sequence) VALUES (1, ?)", [first_sequence as i64])?;
        }
        tx.execute_batch(AUDIT)?;
        tx.pragma_update(None, "user_version", SCHEMA)?;
    }
    for route in routes {
        tx.execute("INSERT OR IGNORE INTO route (name) VALUES (?)", [route])?;
    }
    let now = known_routes(&tx)?;
    let ids = all_known(&now, routes).expect("they have just been inserted");
    for (gone, _) in now.iter().filter(|(id, _)| !ids.contains(id)) {
        hand_over(&tx, *gone, ids[0])?;
    }
    if version == 1 {
        take_over_first_schema(&tx, ids[0])?;
    }
    tx.commit()?;
    Ok(ids)
}

fn known_routes(db: &Connection) -> Result<Vec<(i64, String)>, rusqlite::Error> {
    let mut statement = db.prepare("SELECT id, name FROM route ORDER BY id")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// The ids of the routes, if all are there.
fn all_known(known: &[(i64, String)], routes: &[String]) -> Option<Vec<i64>> {
    let id = |name: &String| known.iter().find(|(_, known)| known == name).map(|(id, _)| *id);
    routes.iter().map(id).collect()
}

/// What waited for a route that is no more waits for another one: nothing is given up because a broker was renamed.
fn hand_over(tx: &Transaction<'_>, gone: i64, to: i64) -> Result<(), rusqlite::Error> {
    // Where it waits for the other one already, one wait is left of the two.
    for (table, number, turns) in [("message", "sequence", "turn < 3"), ("evidence", "number", "turn >= 3")] {
        tx.execute(
            &format!(
                "UPDATE {table} SET waiting = waiting - 1 WHERE {number} IN (
                    SELECT a.number FROM waiting a JOIN waiting b USING (turn, number)
                    WHERE a.route = ?1 AND b.route = ?2 AND a.{turns})"
            ),
            [gone, to],
        )?;
    }
    tx.execute("UPDATE OR IGNORE waiting SET route = ?2 WHERE route = ?1", [gone, to])?;
    tx.execute("DELETE FROM waiting WHERE route = ?1", [gone])?;
    tx.execute("DELETE FROM route WHERE id = ?1", [gone])?;
    Ok(())
}

/// Alerts of the first agent, which had one broker, no thumbnails and no open alerts.
fn take_over_first_schema(tx: &Transaction<'_>, route: i64) -> Result<(), StoreError> {
    let mut meta = Meta::read(tx)?;
    let (sequence, ran): (i64, i64) =
        tx.query_row("SELECT sequence, ran FROM meta_1", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    meta.sequence = meta.sequence.max(sequence as u64);
    meta.lived = ran as u64 * 1000;
    let mut alerts = tx.prepare("SELECT sequence, rank, level, ran, json, parked FROM alert_1")?;
    let mut rows = alerts.query([])?;
    while let Some(row) = rows.next()? {
        let (sequence, rank, ran): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(3)?);
        let (level, json, reason): (String, String, Option<String>) = (row.get(2)?, row.get(4)?, row.get(5)?);
        let parked = i64::from(reason.is_some());
        meta.totals.bytes += json.len() as u64;
        *if reason.is_some() { &mut meta.totals.parked } else { &mut meta.totals.alerts } += 1;
        tx.execute(
            "INSERT INTO message (sequence, rank, level, lived, waiting, parked, reason, crc, json)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                sequence,
                rank,
                level,
                ran * 1000,
                1 - parked,
                parked,
                reason,
                checksum(json.as_bytes()),
                json
            ],
        )?;
        if parked == 0 {
            tx.execute("INSERT INTO waiting VALUES (?, ?, ?)", [route, 2 - rank, sequence])?;
        }
    }
    drop(rows);
    let mut pictures = tx.prepare("SELECT rank, alert, ran, jpeg FROM evidence_1 WHERE parked IS NULL")?;
    let mut rows = pictures.query([])?;
    while let Some(row) = rows.next()? {
        let (rank, alert, ran): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let jpeg: Vec<u8> = row.get(3)?;
        meta.picture += 1;
        meta.totals.bytes += jpeg.len() as u64;
        meta.totals.evidence += 1;
        let number = meta.picture as i64;
        tx.execute(
            "INSERT INTO evidence (number, rank, small, turn, alert, lived, waiting, parked, crc, jpeg)
             VALUES (?, ?, 0, ?, ?, ?, 1, 0, ?, ?)",
            params![number, rank, 9 - rank, alert, ran * 1000, checksum(&jpeg), jpeg],
        )?;
        tx.execute("INSERT INTO waiting VALUES (?, ?, ?)", [route, 9 - rank, number])?;
    }
    drop(rows);
    drop((alerts, pictures));
    meta.write(tx)?;
    tx.execute_batch("DROP TABLE meta_1; DROP TABLE alert_1; DROP TABLE evidence_1;")?;
    Ok(())
}

impl Meta {
    /// The one row of `meta`.
    pub(super) fn read(db: &Connection) -> Result<Self, rusqlite::Error> {
        let mut statement = db.prepare_cached("SELECT * FROM meta WHERE only = 1")?;
        let row = statement.query_row([], |row| {
            let number = |column: &str| row.get::<_, i64>(column).map(|n| n as u64);
            let mut meta = Self {
                sequence: number("sequence")?,
                picture: number("picture")?,
                lived: number("lived")?,
                wall: row.get::<_, Option<i64>>("wall")?.zip(row.get::<_, Option<i64>>("wall_lived")?),
                next_repeat: number("next_repeat")?,
                ..Self::default()
            };
            let totals = &mut meta.totals;
            (totals.alerts, totals.evidence) = (number("alerts")?, number("evidence")?);
            (totals.bytes, totals.parked) = (number("bytes")?, number("parked")?);
            totals.parked_reason = row.get("parked_reason")?;
            (totals.delivered, totals.open) = (number("delivered")?, number("open")?);
            (totals.escalated, totals.unanswered) = (number("escalated")?, number("unanswered")?);
            totals.evicted_evidence = number("evicted_evidence")?;
            totals.evicted_alerts = number("evicted_alerts")?;
            Ok(meta)
        });
        // One row and no more, whoever edited the file.
        row.optional()?.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    pub(super) fn write(&self, tx: &Connection) -> Result<(), rusqlite::Error> {
        let n = |number: u64| number as i64;
        let totals = &self.totals;
        let (wall, wall_lived) = self.wall.unzip();
        tx.prepare_cached(
            "UPDATE meta SET sequence = ?, picture = ?, lived = ?, wall = ?, wall_lived = ?, next_repeat = ?,
                alerts = ?, evidence = ?, bytes = ?, parked = ?, parked_reason = ?, delivered = ?, open = ?,
                escalated = ?, unanswered = ?, evicted_evidence = ?, evicted_alerts = ?",
        )?
        .execute(params![
            n(self.sequence),
            n(self.picture),
            n(self.lived),
            wall,
            wall_lived,
            n(self.next_repeat),
            n(totals.alerts),
            n(totals.evidence),
            n(totals.bytes),
            n(totals.parked),
            totals.parked_reason,
            n(totals.delivered),
            n(totals.open),
            n(totals.escalated),
            n(totals.unanswered),
            n(totals.evicted_evidence),
            n(totals.evicted_alerts),
        ])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::outbox::Row;
    use crate::outbox::store::Store;
    use crate::outbox::tests::{options, site};

    #[test]
    fn alerts_of_the_first_agent_are_taken_over() {
        let folder = TempDir::new().unwrap();
        let db = Connection::open(folder.path().join("outbox.db")).unwrap();
        db.execute_batch(
            "CREATE TABLE meta (only INTEGER PRIMARY KEY CHECK (only = 1), sequence INTEGER NOT NULL,
                ran INTEGER NOT NULL DEFAULT 0, evicted_evidence INTEGER NOT NULL DEFAULT 0,
                evicted_alerts INTEGER NOT NULL DEFAULT 0) STRICT;
             CREATE TABLE alert (sequence INTEGER PRIMARY KEY, rank INTEGER NOT NULL, level TEXT NOT NULL,
                ran INTEGER NOT NULL, json TEXT NOT NULL, parked TEXT) STRICT;
             CREATE TABLE evidence (sequence INTEGER PRIMARY KEY, rank INTEGER NOT NULL, alert TEXT NOT NULL,
                ran INTEGER NOT NULL, parked TEXT, jpeg BLOB NOT NULL) STRICT;
             CREATE INDEX alert_waiting ON alert (rank) WHERE parked IS NULL;
             CREATE INDEX alert_parked ON alert (rank) WHERE parked IS NOT NULL;
             CREATE INDEX evidence_waiting ON evidence (rank) WHERE parked IS NULL;
             CREATE INDEX evidence_parked ON evidence (rank) WHERE parked IS NOT NULL;
             INSERT INTO meta VALUES (1, 41, 100, 0, 0);
             INSERT INTO alert VALUES (40, 1, 'township', 90, '{}', NULL), (41, 2, 'district', 95, '{}', 'no');
             INSERT INTO evidence VALUES (40, 1, '01a20a8e-3cf1-7e11-8f3a-5b0c8f6a2b11', 90, NULL, x'ffd8');
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(db);
        let mut store = Store::open(&options(folder.path())).unwrap();
        let health = store.health().clone();
        assert_eq!((health.alerts, health.parked, health.evidence, health.sequence), (1, 1, 1, 41));
        let next = |store: &mut Store, skip: &[Row]| {
            let skip = skip.iter().copied().collect();
            store.next(&site(), 0, &skip, 9, true).unwrap().into_iter().map(|w| w.row).collect::<Vec<_>>()
        };
        assert_eq!(next(&mut store, &[]), [Row::Alert(40)]);
        assert_eq!(next(&mut store, &[Row::Alert(40)]), [Row::Evidence(1)]);
    }
}
