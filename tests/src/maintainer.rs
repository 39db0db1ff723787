//! A maintainer who packs models and publishes them, by the agent's own commands.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::places;
use crate::village::Village;

/// A desk with a repository, its keys, and a golden picture.
#[derive(Clone, Debug)]
pub struct Maintainer {
    /// The repository.
    pub repository: PathBuf,
    /// All of its keys.
    pub keys: PathBuf,
    /// Where models, pictures and bundles are made.
    pub folder: PathBuf,
}

impl Maintainer {
    /// Makes a repository in a folder that has to exist.
    pub fn new(folder: &Path) -> Result<Self> {
        let maintainer = Self {
            repository: folder.join("repository"),
            keys: folder.join("keys"),
            folder: folder.to_owned(),
        };
        let Self { repository, keys, .. } = &maintainer;
        maintainer.does([
            OsStr::new("repo"),
            "init".as_ref(),
            repository.as_ref(),
            "--keys".as_ref(),
            keys.as_ref(),
        ])?;
        Ok(maintainer)
    }

    /// What boxes trust.
    pub fn root(&self) -> PathBuf {
        self.repository.join("metadata/1.root.json")
    }

    /// A folder with the built-in model under another version, its manifest edited, and a golden picture of the footage
    /// with what the model of the original manifest sees in it.
    pub fn model(&self, version: &str, edit: impl FnOnce(&str) -> String) -> Result<PathBuf> {
        let folder = self.folder.join(format!("model-{version}"));
        fs::create_dir_all(folder.join("golden"))?;
        let builtin = places::builtin_model()?;
        fs::copy(builtin.join("model.onnx"), folder.join("model.onnx"))?;
        let manifest = fs::read_to_string(builtin.join("manifest.toml"))?;
        let manifest = manifest.replace("version = \"1.0.0\"", &format!("version = {version:?}"));
        ensure!(
            manifest.contains(&format!("version = {version:?}")),
            "the built-in manifest has another version"
        );
        fs::write(folder.join("manifest.toml"), &manifest)?;
        fs::copy(self.street()?, folder.join("golden/street.jpg"))?;
        let runtime = places::onnx_runtime()?;
        let bundle = self.folder.join("looked-over.bundle");
        self.does([
            OsStr::new("model"),
            "pack".as_ref(),
            folder.as_ref(),
            "--write-expected".as_ref(),
            "--runtime".as_ref(),
            runtime.as_ref(),
            "-o".as_ref(),
            bundle.as_ref(),
        ])?;
        fs::write(folder.join("manifest.toml"), edit(&manifest))?;
        Ok(folder)
    }

    /// A picture of the street.
    fn street(&self) -> Result<PathBuf> {
        let picture = self.folder.join("street.jpg");
        if !picture.exists() {
            let mut command = Command::new("gst-launch-1.0");
            command.arg("-q").arg("filesrc").arg(format!("location={}", places::footage()?.display()));
            command.args("! decodebin ! videoconvert ! jpegenc snapshot=true ! filesink".split(' '));
            command.arg(format!("location={}", picture.display()));
            let output = command.output().context("running gst-launch-1.0")?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(picture)
    }

    /// Packs a folder.
    pub fn pack(&self, model: &Path) -> Result<PathBuf> {
        let bundle = model.with_extension("bundle");
        let runtime = places::onnx_runtime()?;
        self.does([
            OsStr::new("model"),
            "pack".as_ref(),
            model.as_ref(),
            "-o".as_ref(),
            bundle.as_ref(),
            "--runtime".as_ref(),
            runtime.as_ref(),
        ])?;
        Ok(bundle)
    }

    /// Publishes a good model for all boxes of both channels.
    pub fn publish(&self, version: &str) -> Result<()> {
        let bundle = self.pack(&self.model(version, str::to_owned)?)?;
        let runtime = places::onnx_runtime()?;
        self.repo("add", &[bundle.as_ref(), "--runtime".as_ref(), runtime.as_ref()])?;
        self.rollout(version, &["--stable", "100", "--canary", "100"])
    }

    /// Says who gets a version.
    pub fn rollout(&self, version: &str, arguments: &[&str]) -> Result<()> {
        let model = format!("village-detector@{version}");
        let arguments: Vec<&OsStr> =
            std::iter::once(model.as_str()).chain(arguments.iter().copied()).map(OsStr::new).collect();
        self.repo("channel", &arguments).map(drop)
    }

    /// `repo COMMAND` on this repository, signed with all keys.
    pub fn repo(&self, command: &str, arguments: &[&OsStr]) -> Result<String> {
        let first = [OsStr::new("repo"), command.as_ref(), self.repository.as_ref()];
        let keys = [OsStr::new("--keys"), self.keys.as_ref()];
        self.does(first.iter().chain(arguments).chain(&keys))
    }

    /// Runs the agent's binary, and returns what it printed. The error has what it said.
    pub fn does(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        let output = run(arguments)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{}: {out}{err}", output.status);
        Ok(out.into_owned())
    }

    /// The section of a box's configuration that trusts this maintainer. Its models do not look beside the active one,
    /// which takes a while, unless the lines say so.
    pub fn section(&self, lines: &str) -> String {
        let shadow = if lines.contains("shadow") { "" } else { "shadow = \"0s\"\n" };
        format!("[models]\nroot = {:?}\n{shadow}{lines}\n", self.root().display().to_string())
    }
}

/// Runs the agent's binary to its end.
fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
    let mut command = Command::new(places::binary("sharp-eyes-agent")?);
    command.args(arguments).env("RUST_LOG", "info").output().context("running sharp-eyes-agent")
}

/// `model import` on a box: whether it succeeded, and all that it printed.
pub fn import(village: &Village, repository: &Path) -> Result<(bool, String)> {
    let output = import_command(village, repository)?.output().context("running model import")?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// The same with what a repository must have for the box.
pub fn take(village: &Village, repository: &Path) -> Result<()> {
    let (taken, said) = import(village, repository)?;
    ensure!(taken, "{said}");
    Ok(())
}

/// The command of [`import`].
pub fn import_command(village: &Village, repository: &Path) -> Result<Command> {
    let mut command = Command::new(places::binary("sharp-eyes-agent")?);
    command.args(["model", "import"]).arg(repository).arg("--config").arg(village.write()?);
    Ok(command)
}

/// `model status --json` of a box.
pub fn status(village: &Village) -> Result<serde_json::Value> {
    let config = village.write()?;
    let output = run([
        OsStr::new("model"),
        "status".as_ref(),
        "--json".as_ref(),
        "--config".as_ref(),
        config.as_ref(),
    ])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
