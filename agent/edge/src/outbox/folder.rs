//! The outbox's folder: made, locked, opened, and a damaged database moved aside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::store::{SCHEMA, Store, StoreError};
use super::{OutboxError, OutboxOptions};

/// How long the lock of an agent that has just ended may outlive it: a child that it was starting holds a copy until
/// its own program runs.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Why the folder cannot be opened.
pub(super) enum OpenError {
    Fatal(OutboxError),
    Store(StoreError),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Makes, locks and opens a folder. A damaged database is moved aside, and what can be read of it is taken over.
pub(super) fn open(options: &OutboxOptions, held: &mut Option<File>) -> Result<Store, OpenError> {
    let folder = &options.folder;
    make(folder).map_err(StoreError::Io)?;
    if held.is_none() {
        *held = Some(lock(folder)?);
    }
    let file = folder.join("outbox.db");
    let store = match Store::open(options) {
        Err(error) if error.is_corrupt() => {
            move_aside(&file).map_err(StoreError::Io)?;
            Store::open(options)
        }
        result => result,
    };
    let mut store = store.map_err(|error| match error {
        StoreError::Newer(found) => OpenError::Fatal(OutboxError::Newer { file, found, known: SCHEMA }),
        error => OpenError::Store(error),
    })?;
    // Also what an earlier start moved aside and could not finish: the disk was full, or the power went.
    for damaged in damaged(folder) {
        let saved = store.salvage(&damaged)?;
        tracing::error!(
            alerts = saved.messages,
            open = saved.open,
            "took over what could be read of {}; what is missing shows as a gap in the sequence",
            damaged.display()
        );
        let done = PathBuf::from(format!("{}.read", damaged.display()));
        fs::rename(&damaged, done).map_err(StoreError::Io)?;
    }
    Ok(store)
}

/// Makes a folder, and those above it, so that a power cut does not take it with all that is in it: syncing what is in a
/// folder does not sync the folder's own entry in the one above.
fn make(folder: &Path) -> io::Result<()> {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let was_there = folder.is_dir();
    if !was_there {
        if !above.is_dir() {
            make(above)?;
        }
        fs::create_dir_all(folder)?;
    }
    let synced = File::open(above).and_then(|above| above.sync_all());
    // One that was there may have been made by an agent that was killed here, so it is synced, too. Where that is not
    // allowed somebody else made it, as systemd does.
    if was_there { Ok(()) } else { synced }
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    // Never deleted: a second file of that name would be a second lock. On a read-only disk an old one will do.
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.or_else(|error| File::open(&path).map_err(|_| error)).map_err(StoreError::Io)?;
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Fatal(OutboxError::Locked { folder: folder.to_owned() }));
            }
            Err(TryLockError::Error(error)) => return Err(OpenError::Store(StoreError::Io(error))),
        }
    }
}

/// Renames a damaged database with its log to `outbox.corrupt-<n>`. It is never deleted: what it holds was not
/// delivered, and somebody may be able to read more of it.
pub(super) fn move_aside(file: &Path) -> io::Result<()> {
    let with = |end: &str| PathBuf::from(format!("{}{end}", file.display()));
    let target = (1_u32..)
        .map(|n| file.with_file_name(format!("outbox.corrupt-{n}")))
        .find(|target| !target.exists() && !PathBuf::from(format!("{}.read", target.display())).exists())
        .expect("there are more numbers than files");
    // The log first: a crash in between leaves a database without it, which is found damaged or incomplete, not
    // a new database with an old log.
    for end in ["-wal", "-shm", ""] {
        let to = PathBuf::from(format!("{}{end}", target.display()));
        match fs::rename(with(end), to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    tracing::error!(
        "{} is damaged: moved to {}; a new one is made and counting goes on above all numbers given",
        file.display(),
        target.display()
    );
    Ok(())
}

/// Databases that were moved aside and not read yet, oldest first.
fn damaged(folder: &Path) -> Vec<PathBuf> {
    (1_u32..)
        .map(|n| folder.join(format!("outbox.corrupt-{n}")))
        .take_while(|file| file.exists() || PathBuf::from(format!("{}.read", file.display())).exists())
        .filter(|file| file.exists())
        .collect()
}
