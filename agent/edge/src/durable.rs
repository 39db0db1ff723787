//! Small files that say what is so: replaced in one step, so that a power cut leaves the one before or this one, and changed
//! by one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads a state out of JSON; where there is no file, or none that says anything, it is the state of the beginning.
pub fn read<T: DeserializeOwned + Default>(file: &Path) -> io::Result<T> {
    match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        bytes => Ok(serde_json::from_slice(&bytes?).unwrap_or_else(|error| {
            tracing::error!("{} is damaged ({error}): forgotten", file.display());
            T::default()
        })),
    }
}

/// Writes a state. Only under the [`Lock`] of its folder.
pub fn write<T: Serialize>(state: &T, _: &Lock, file: &Path) -> io::Result<()> {
    replace(file, &serde_json::to_vec_pretty(state)?)
}

/// Reads, changes and writes a state, if it is another one then; the folder is made for that.
pub fn change<T>(file: &Path, change: impl Fn(&mut T)) -> io::Result<T>
where
    T: Serialize + DeserializeOwned + Default + Clone + PartialEq,
{
    // Somebody may hold the lock for minutes; nobody waits for it who changes nothing.
    let mut state: T = read(file)?;
    let before = state.clone();
    change(&mut state);
    if state == before {
        return Ok(state);
    }
    let lock = Lock::wait(file.parent().unwrap_or(Path::new(".")))?;
    let mut state: T = read(file)?;
    change(&mut state);
    write(&state, &lock, file)?;
    Ok(state)
}

/// Held by whoever changes what is in a folder: the agent, or a command beside it.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] File); // unlocked when it is closed

impl Lock {
    /// Makes the folder and locks it; `None` where somebody else has it locked.
    pub fn take(folder: &Path) -> io::Result<Option<Self>> {
        let file = open(folder)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Makes the folder and waits for the lock.
    pub fn wait(folder: &Path) -> io::Result<Self> {
        let file = open(folder)?;
        file.lock()?;
        Ok(Self(file))
    }
}

fn open(folder: &Path) -> io::Result<File> {
    make(folder)?;
    OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock"))
}

/// Makes a folder, below a state folder that may not be there yet either.
pub fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    sync(folder.parent().unwrap_or(Path::new(".")))
}

/// Replaces a file in one step.
pub fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut writer = File::create(&fresh)?;
    writer.write_all(bytes)?;
    writer.sync_all()?;
    fs::rename(&fresh, file)?;
    sync(file.parent().unwrap_or(Path::new(".")))
}

/// Brings a folder's entries to the medium.
pub fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
