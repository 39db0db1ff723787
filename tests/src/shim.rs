//! Libraries that are preloaded into a process to stand between it and another library, built from C when first wanted.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The library of a source, built if it is not there yet: in cargo's folder for temporary files, under a name that changes
/// with the source, put there in one step, because several test processes may want it at once.
pub fn build(name: &str, source: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running binary")?;
    let target = own.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let folder = target.context("finding cargo's target folder")?.join("tmp");
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    let library = folder.join(format!("{name}-shim-{:016x}.so", hasher.finish()));
    if library.exists() {
        return Ok(library);
    }
    fs::create_dir_all(&folder)?;
    let workshop = tempfile::tempdir_in(&folder).context("a folder to build a shim in")?;
    let (file, built) = (workshop.path().join("shim.c"), workshop.path().join("shim.so"));
    fs::write(&file, source)?;
    let mut compile = Command::new("cc");
    compile.args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "-o"]);
    let output = compile.arg(&built).arg(&file).output().context("running cc (Debian: gcc, libc6-dev)")?;
    ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&built, &library)?;
    Ok(library)
}
