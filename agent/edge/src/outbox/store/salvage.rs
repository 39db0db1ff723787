//! What can be read of a damaged database is taken over: its messages that wait, and its open alerts.
//!
//! A damaged page hides the rows on it, and those that are found through it. So a table is read from its first row up
//! to the damage, from its last row down to it, and in between number by number. Numbers that are out of order are damage:
//! SQLite goes round in circles there.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::work::parse;
use super::{Store, StoreError, checksum};

/// Numbers that are tried one by one between two damages.
const PROBES: i64 = 200_000;

/// How much was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct Saved {
    pub(in crate::outbox) messages: u64,
    pub(in crate::outbox) open: u64,
}

struct Message {
    sequence: i64,
    rank: i64,
    level: String,
    crc: i64,
    json: String,
}

struct Open {
    number: i64,
    rank: i64,
    top: bool,
    climbs: bool,
    repeats: i64,
    json: String,
}

impl Store {
    /// Takes over what a damaged database still holds. Whatever had been acknowledged there without its knowing comes a
    /// second time. Deadlines start anew.
    pub(in crate::outbox) fn salvage(&mut self, damaged: &Path) -> Result<Saved, StoreError> {
        let Ok(old) = Connection::open(damaged) else { return Ok(Saved::default()) };
        let messages =
            read_all(&old, "message", "sequence", "sequence, rank, level, crc, json", "waiting > 0", |row| {
                Ok(Message {
                    sequence: row.get(0)?,
                    rank: row.get(1)?,
                    level: row.get(2)?,
                    crc: row.get(3)?,
                    json: row.get(4)?,
                })
            });
        let open = read_all(
            &old,
            "open_alert",
            "number",
            "number, rank, top, due IS NOT NULL, repeats, json",
            "ended = 0",
            |row| {
                Ok(Open {
                    number: row.get(0)?,
                    rank: row.get(1)?,
                    top: row.get(2)?,
                    climbs: row.get(3)?,
                    repeats: row.get(4)?,
                    json: row.get(5)?,
                })
            },
        );
        let mut saved = Saved::default();
        let tx = self.db.unchecked_transaction()?; // of one connection: there is no other of ours inside it
        let mut meta = self.meta.clone();
        for message in messages {
            let whole = checksum(message.json.as_bytes()) == message.crc && (0..=2).contains(&message.rank);
            if !whole {
                continue;
            }
            let inserted = tx
                .prepare_cached(
                    "INSERT OR IGNORE INTO message (sequence, rank, level, lived, waiting, parked, crc, json)
                     VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
                )?
                .execute(params![
                    message.sequence,
                    message.rank,
                    message.level,
                    meta.lived as i64,
                    self.routes.len() as i64,
                    message.crc,
                    message.json
                ])?;
            if inserted == 1 {
                for route in &self.routes {
                    let sql = "INSERT OR IGNORE INTO waiting (route, turn, number) VALUES (?, ?, ?)";
                    tx.prepare_cached(sql)?.execute([*route, 2 - message.rank, message.sequence])?;
                }
                meta.totals.alerts += 1;
                meta.totals.bytes += message.json.len() as u64;
                meta.sequence = meta.sequence.max(message.sequence as u64);
                saved.messages += 1;
            }
        }
        for open in open {
            let Ok(alert) = parse(&open.json) else { continue };
            let within = alert.data.respond_s.unwrap_or(0);
            let inserted = tx
                .prepare_cached(
                    "INSERT OR IGNORE INTO open_alert (number, id, rank, top, due, repeats, lived, ended, json)
                     VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
                )?
                .execute(params![
                    open.number,
                    alert.id.to_string(),
                    open.rank,
                    open.top,
                    open.climbs.then(|| (meta.lived + u64::from(within) * 1000) as i64),
                    open.repeats,
                    meta.lived as i64,
                    open.json
                ])?;
            if inserted == 1 {
                meta.totals.open += 1;
                saved.open += 1;
            }
        }
        meta.totals.sequence = meta.sequence;
        meta.write(&tx)?;
        tx.commit()?;
        self.meta = meta;
        self.next_climb = self.read_next_climb()?;
        Ok(saved)
    }
}

/// Every row of a table that can be read, by its integer key.
fn read_all<T>(
    db: &Connection,
    table: &str,
    key: &str,
    columns: &str,
    condition: &str,
    read: impl Fn(&Row<'_>) -> Result<T, rusqlite::Error>,
) -> Vec<T> {
    let sql = |how: &str| {
        format!("SELECT {columns}, {key} AS its_key, ({condition}) AS wanted FROM {table} WHERE {key} {how}")
    };
    let mut found = Vec::new();
    // `Err`: damage; `Ok(None)`: the end.
    let step = |how: &str, from: i64, found: &mut Vec<T>| -> Result<Option<i64>, rusqlite::Error> {
        let mut statement = db.prepare_cached(&sql(how))?;
        let row = statement.query_row([from], |row| {
            Ok((row.get::<_, i64>("its_key")?, row.get::<_, bool>("wanted")?, read(row)))
        });
        let Some((number, wanted, value)) = row.optional()? else { return Ok(None) };
        match value {
            Ok(value) if wanted => found.push(value),
            _ => {}
        }
        Ok(Some(number))
    };
    let mut low = i64::MIN;
    loop {
        match step(&format!("> ? ORDER BY {key} LIMIT 1"), low, &mut found) {
            Ok(Some(number)) if number > low => low = number,
            Ok(None) => return found, // all of it, without damage
            _ => break,
        }
    }
    let mut high = i64::MAX;
    loop {
        match step(&format!("< ? ORDER BY {key} DESC LIMIT 1"), high, &mut found) {
            Ok(Some(number)) if number > low && number < high => high = number,
            _ => break,
        }
    }
    let start = low.max(0);
    for number in (start + 1..high).take(PROBES as usize) {
        let _ = step("= ?", number, &mut found); // what cannot be read is what was lost
    }
    found
}
