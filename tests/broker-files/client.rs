//! Somebody with a certificate, or without: mosquitto's own clients, which know nothing of our code.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use sharp_eyes_tests::process::Process;
use sharp_eyes_tests::wait;

/// The reason code of MQTT 5 for "not authorized".
pub(crate) const NOT_AUTHORIZED: u8 = 0x87;

/// Publishes, and starts listeners.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    trusted: Option<PathBuf>,
    credentials: Option<(PathBuf, PathBuf)>,
}

/// Somebody who has subscribed.
pub(crate) struct Listener {
    process: Process,
    lines: Receiver<String>,
    /// What waited for it in its session, which comes before the answer to the subscription.
    early: RefCell<VecDeque<String>>,
}

/// What a listener gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
    /// Quality of service, whether it had been retained, seconds to its expiry, response topic, correlation data,
    /// content type: as text, "" for none.
    pub(crate) about: [String; 6],
}

/// Before each message that mosquitto_sub prints, so that it differs from what else it says.
const MARK: &str = "message\t";

impl Client {
    /// Trusts brokers that an authority vouches for, and shows a certificate with its key.
    pub(crate) fn new(trusted: PathBuf, credentials: Option<(PathBuf, PathBuf)>) -> Self {
        Self { trusted: Some(trusted), credentials }
    }

    /// The same without a certificate.
    pub(crate) fn without_certificate(&self) -> Self {
        Self { credentials: None, ..self.clone() }
    }

    /// Without TLS at all.
    pub(crate) fn in_the_clear() -> Self {
        Self { trusted: None, credentials: None }
    }

    /// The same who trusts another authority.
    pub(crate) fn trusting(&self, authority: &Path) -> Self {
        Self { trusted: Some(authority.to_owned()), ..self.clone() }
    }

    /// Publishes at QoS 1 and returns the reason code of the answer, 0 for success.
    /// An error is a connection that was not let in.
    pub(crate) fn publish(&self, port: u16, topic: &str, payload: &str) -> Result<u8> {
        self.publish_with(port, topic, &["-m", payload])
    }

    /// The same with what mosquitto_pub is to do in its own words.
    pub(crate) fn publish_with(&self, port: u16, topic: &str, options: &[&str]) -> Result<u8> {
        let mut command = self.command("mosquitto_pub", port);
        command.args(["-d", "-q", "1", "-t", topic]).args(options);
        let Output { stdout, stderr, .. } = command.output().context("running mosquitto_pub")?;
        let said = String::from_utf8_lossy(&stdout);
        match said.split_once("received PUBACK (").and_then(|(_, rest)| rest.split_once("RC:")) {
            Some((_, rest)) => Ok(rest.split(')').next().unwrap_or_default().parse()?),
            None => bail!("no PUBACK: {said}{}", String::from_utf8_lossy(&stderr)),
        }
    }

    /// Whether a broker lets it in at all.
    pub(crate) fn enters(&self, port: u16) -> Result<bool> {
        match self.publish(port, "door/bell", "anybody there?") {
            Ok(reason) => {
                ensure!(reason == NOT_AUTHORIZED, "the topic of nobody: reason code {reason:#x}");
                Ok(true)
            }
            Err(error) => {
                ensure!(!format!("{error:#}").contains("refused"), "there is no broker: {error:#}");
                Ok(false)
            }
        }
    }

    /// Publishes numbers from 1 on as texts, on one connection.
    pub(crate) fn publish_numbers(&self, port: u16, topic: &str, last: u32) -> Result<()> {
        let mut command = self.command("mosquitto_pub", port);
        command.args(["-q", "1", "-t", topic, "-l"]).stdin(Stdio::piped());
        let mut child = command.spawn().context("running mosquitto_pub")?;
        let numbers: String = (1..=last).map(|number| format!("{number}\n")).collect();
        let mut pipe = child.stdin.take().context("its standard input")?;
        std::io::Write::write_all(&mut pipe, numbers.as_bytes())?;
        drop(pipe);
        ensure!(child.wait()?.success(), "mosquitto_pub failed");
        Ok(())
    }

    /// Subscribes, and returns once the broker has acknowledged that. `log` is a new file for what goes wrong.
    pub(crate) fn listen(&self, port: u16, filter: &str, log: &Path) -> Result<Listener> {
        self.listen_with(port, filter, log, &[])
    }

    /// The same with options of mosquitto_sub.
    pub(crate) fn listen_with(
        &self,
        port: u16,
        filter: &str,
        log: &Path,
        options: &[&str],
    ) -> Result<Listener> {
        // By the line, or a pipe gets nothing until a buffer is full.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub"]);
        self.introduce(&mut command, port);
        let format = format!("{MARK}%t\t%q\t%r\t%E\t%R\t%D\t%C\t%p");
        command.args(["-d", "-q", "1", "-t", filter, "-F", &format]).args(options).stdout(Stdio::piped());
        let mut process = Process::start("mosquitto_sub", command, log)?;
        let (_, output) = process.take_pipes();
        let output = BufReader::new(output.context("its standard output")?);
        let (send, lines) = channel(); // holds no more than what one test publishes
        std::thread::spawn(move || {
            // By bytes, for a picture is no text.
            for line in output.split(b'\n').map_while(Result::ok) {
                if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return; // nobody listens any more
                }
            }
        });
        let listener = Listener { process, lines, early: RefCell::default() };
        let early = listener.lines_until("Subscribed (mid")?;
        listener.early.replace(early.into());
        Ok(listener)
    }

    fn command(&self, program: &str, port: u16) -> Command {
        let mut command = Command::new(program);
        self.introduce(&mut command, port);
        command
    }

    /// Where it goes, and what it shows there.
    fn introduce(&self, command: &mut Command, port: u16) {
        command.args(["-h", "127.0.0.1", "-V", "5", "-p", &port.to_string()]);
        if let Some(trusted) = &self.trusted {
            command.arg("--cafile").arg(trusted);
        }
        if let Some((certificate, key)) = &self.credentials {
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
    }
}

impl Listener {
    /// Everything up to the message on a topic, that one included.
    pub(crate) fn until(&self, topic: &str) -> Result<Vec<Message>> {
        let lines = self.lines_until(&format!("{MARK}{topic}\t"))?;
        lines.iter().filter_map(|line| line.strip_prefix(MARK)).map(Message::parse).collect()
    }

    /// One message.
    pub(crate) fn next(&self) -> Result<Message> {
        let lines = self.lines_until(MARK)?;
        Message::parse(lines.last().and_then(|line| line.strip_prefix(MARK)).unwrap_or_default())
    }

    /// Leaves without a word, so that the broker publishes its last will.
    pub(crate) fn vanish(self) -> Result<()> {
        self.process.kill()
    }

    fn lines_until(&self, beginning: &str) -> Result<Vec<String>> {
        let deadline = Instant::now() + wait::PATIENCE;
        let mut lines = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let early = self.early.borrow_mut().pop_front();
            match early.map_or_else(|| self.lines.recv_timeout(left), Ok) {
                Ok(line) => {
                    let found = line.starts_with(beginning);
                    lines.push(line);
                    if found {
                        return Ok(lines);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("waited in vain for {beginning:?}; got {lines:?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!(
                        "mosquitto_sub ended before {beginning:?}: {lines:?} {}",
                        self.process.last_words(5)
                    )
                }
            }
        }
    }
}

impl Message {
    fn parse(line: &str) -> Result<Self> {
        let mut fields = line.splitn(8, '\t').map(str::to_owned);
        let mut next = || fields.next().with_context(|| format!("too few fields in {line:?}"));
        Ok(Self {
            topic: next()?,
            about: [next()?, next()?, next()?, next()?, next()?, next()?],
            payload: next()?,
        })
    }
}
