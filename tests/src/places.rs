//! Where footage, models, libraries and binaries are.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The root of the repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// What `tests/setup.sh` brought; not in the repository.
pub fn cache() -> PathBuf {
    repository().join(".cache")
}

/// A street with pedestrians: 768x576, 10 frames a second, 79.5 s.
pub fn footage() -> Result<PathBuf> {
    there(cache().join("footage/vtest.avi"), "tests/setup.sh footage")
}

/// ONNX Runtime's library.
pub fn onnx_runtime() -> Result<PathBuf> {
    there(cache().join("onnxruntime/libonnxruntime.so"), "tests/setup.sh runtime")
}

/// AsyncAPI's parser, one file of JavaScript.
pub fn asyncapi_parser() -> Result<PathBuf> {
    there(cache().join("asyncapi/parser.js"), "tests/setup.sh asyncapi")
}

/// The bundle of the built-in model.
pub fn builtin_model() -> Result<PathBuf> {
    there(repository().join("models/builtin"), "git checkout models/builtin")
}

/// A binary of this workspace, built beside the one that asks.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the running binary")?;
    let folder =
        own.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).context("finding its folder")?;
    there(folder.join(name), "cargo build --workspace --bins")
}

/// A folder of test data that is not part of the repository, where somebody has put it beside the repository.
pub fn shared_data() -> Option<PathBuf> {
    let folder = repository().parent()?.join("shared/data");
    folder.is_dir().then_some(folder)
}

/// A port on the loopback interface that nobody listens on now.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

fn there(path: PathBuf, bring: &str) -> Result<PathBuf> {
    ensure!(path.exists(), "{} is missing: run {bring}", path.display());
    Ok(path)
}
