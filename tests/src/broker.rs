//! A mosquitto as a process, on a port of its own: it has nothing to do with one that runs as a service.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use rustix::process::Signal;

use crate::process::Process;
use crate::{places, wait};

/// What kind of broker.
#[derive(Clone, Debug, Default)]
pub struct BrokerOptions {
    /// Whether it keeps sessions, queues and retained messages over a kill.
    pub persistent: bool,
    /// Who may connect to [`Broker::port`]; anybody where `None`.
    pub login: Option<(String, String)>,
    /// A second listener that speaks TLS and wants a client certificate.
    pub tls: Option<TlsFiles>,
    /// More lines of the configuration, for all listeners.
    pub lines: &'static str,
}

/// PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Who signs both sides' certificates.
    pub ca: PathBuf,
    /// The broker's.
    pub certificate: PathBuf,
    /// The broker's.
    pub key: PathBuf,
    /// Which client certificates are revoked.
    pub revoked: Option<PathBuf>,
}

/// A running or killed broker.
#[derive(Debug)]
pub struct Broker {
    port: u16,
    tls_port: u16,
    listeners: BTreeMap<u16, u16>,
    configuration: PathBuf,
    data: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Broker {
    /// Returns once it accepts connections.
    pub fn start(folder: &Path, options: &BrokerOptions) -> Result<Self> {
        let mut broker = Self {
            port: places::free_port()?,
            tls_port: places::free_port()?,
            listeners: BTreeMap::new(),
            configuration: folder.join("mosquitto.conf"),
            data: folder.join("mosquitto"),
            log: folder.join("mosquitto.log"),
            process: None,
        };
        std::fs::write(&broker.configuration, broker.configure(folder, options)?)?;
        broker.restart()?;
        Ok(broker)
    }

    /// One that runs with files of `config/mosquitto`, included by a mosquitto.conf that says what Debian's does.
    ///
    /// Only what cannot be the same on this machine is replaced: `/etc/mosquitto/` is `folder`, where the caller has put
    /// what the files name; each listener gets a free port of 127.0.0.1, see [`Broker::listener`]; and `edits` are what
    /// the installer of a township changes, each as (what stands there, what it becomes).
    pub fn with_files(folder: &Path, files: &[&str], edits: &[(&str, &str)]) -> Result<Self> {
        let (included, data) = (folder.join("conf.d"), folder.join("data"));
        std::fs::create_dir_all(&included)?;
        std::fs::create_dir_all(&data)?;
        let mut listeners = BTreeMap::new();
        for file in files {
            let source = places::repository().join("config/mosquitto").join(file);
            let text =
                std::fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
            let mut lines = String::new();
            for line in text.lines() {
                let line = match line.strip_prefix("listener ") {
                    Some(port) => {
                        let free = places::free_port()?;
                        listeners.insert(port.parse().context("the port of a listener")?, free);
                        format!("listener {free} 127.0.0.1")
                    }
                    None => {
                        let edited =
                            edits.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to));
                        edited.replace("/etc/mosquitto/", &format!("{}/", folder.display()))
                    }
                };
                lines += &line;
                lines.push('\n');
            }
            std::fs::write(included.join(file), lines)?;
        }
        // Without `user root`, a mosquitto started by root becomes another user, who may not enter the folder.
        let main = format!(
            "user root\npersistence true\npersistence_location {}/\nlog_dest stderr\ninclude_dir {}\n",
            data.display(),
            included.display()
        );
        let mut broker = Self {
            port: *listeners.values().next().context("these files have no listener")?,
            tls_port: 0,
            listeners,
            configuration: folder.join("mosquitto.conf"),
            data,
            log: folder.join("mosquitto.log"),
            process: None,
        };
        std::fs::write(&broker.configuration, main)?;
        broker.restart()?;
        Ok(broker)
    }

    /// Where it listens, on 127.0.0.1, instead of at the port that its files name.
    pub fn listener(&self, port: u16) -> Result<u16> {
        self.listeners.get(&port).copied().with_context(|| format!("no listener {port} in the files"))
    }

    /// Has it read its files again (SIGHUP), and returns once it has.
    pub fn reload(&mut self) -> Result<()> {
        let process = self.process()?;
        let reloads = |log: &str| log.matches("Reloading config.").count();
        let before = reloads(&process.log());
        process.signal(Signal::HUP)?;
        wait::until("mosquitto to reload", wait::PATIENCE, || {
            (reloads(&process.log()) > before).then_some(())
        })
    }

    /// Has one that is persistent write its sessions, queues and what is retained to disk (SIGUSR1), as it does from time
    /// to time, and returns once it has.
    pub fn save(&mut self) -> Result<()> {
        let saved = self.data.join("mosquitto.db");
        match std::fs::remove_file(&saved) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => self.process()?.signal(Signal::USR1)?,
        }
        // It is written under another name first.
        wait::until("mosquitto to save", wait::PATIENCE, || saved.exists().then_some(()))
    }

    /// Where it listens without TLS, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens with TLS, on 127.0.0.1, if it does.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// Its process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the broker was killed")
    }

    /// Pulls the plug.
    pub fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Starts it again on the ports that it had, with the configuration that it had.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let mut command = Command::new(mosquitto());
        command.arg("-c").arg(&self.configuration).stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Process::start("mosquitto", command, &self.log)?;
        let address = ("127.0.0.1", self.port);
        wait::until("mosquitto to listen", wait::PATIENCE, || {
            (process.ended().is_some() || TcpStream::connect(address).is_ok()).then_some(())
        })?;
        if process.ended().is_some() {
            bail!("mosquitto does not start: {}", process.last_words(5));
        }
        self.process = Some(process);
        Ok(())
    }

    fn configure(&self, folder: &Path, options: &BrokerOptions) -> Result<String> {
        // Without `user root`, a mosquitto started by root becomes another user, who may not enter the folder.
        let mut text =
            String::from("user root\nper_listener_settings true\nlog_dest stderr\nmax_queued_messages 0\n");
        writeln!(text, "{}", options.lines)?;
        if options.persistent {
            std::fs::create_dir_all(&self.data)?;
            writeln!(text, "persistence true\npersistence_location {}/", self.data.display())?;
            text += "autosave_on_changes true\nautosave_interval 1\n";
        }
        writeln!(text, "listener {} 127.0.0.1", self.port)?;
        match &options.login {
            Some((user, password)) => {
                let file = folder.join("mosquitto.passwords");
                let mut make = Command::new("mosquitto_passwd");
                make.args(["-b", "-c"]).arg(&file).args([user, password]).stderr(Stdio::null());
                ensure!(
                    make.status().context("running mosquitto_passwd")?.success(),
                    "mosquitto_passwd failed"
                );
                writeln!(text, "allow_anonymous false\npassword_file {}", file.display())?;
            }
            None => text += "allow_anonymous true\n",
        }
        if let Some(TlsFiles { ca, certificate, key, revoked }) = &options.tls {
            writeln!(text, "listener {} 127.0.0.1\nallow_anonymous true", self.tls_port)?;
            writeln!(text, "cafile {}\ncertfile {}", ca.display(), certificate.display())?;
            writeln!(text, "keyfile {}\nrequire_certificate true", key.display())?;
            if let Some(list) = revoked {
                writeln!(text, "crlfile {}", list.display())?;
            }
        }
        Ok(text)
    }
}

/// Debian puts it where only root looks.
fn mosquitto() -> &'static Path {
    let debian = Path::new("/usr/sbin/mosquitto");
    if debian.exists() { debian } else { Path::new("mosquitto") }
}
