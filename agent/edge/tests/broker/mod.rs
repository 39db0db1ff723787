//! A real mosquitto on a free port, a subscriber, a gate between agent and broker, and certificates.

#![allow(dead_code)] // the tests of the uplink, of its client and of TLS each use a part

pub(crate) mod rogue;

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::ChildStdout;
use tokio::sync::watch;

const LONG: Duration = Duration::from_secs(30);

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A broker of its own.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    folder: TempDir,
    process: Option<Child>,
}

impl Mosquitto {
    /// Starts one with these lines of configuration. `{folder}` holds `passwords` (user `box`, password `rosebud`) and `acl`.
    pub(crate) async fn start(lines: &str) -> Self {
        let mut broker = Self::reserve(lines);
        broker.run().await;
        broker
    }

    /// Not started yet.
    pub(crate) fn reserve(lines: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().display().to_string();
        let port = free_port();
        let lines = lines.replace("{folder}", &path);
        let config = format!("user root\nlistener {port} localhost\n{lines}\n");
        fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
        run("mosquitto_passwd", &["-c", "-b", &format!("{path}/passwords"), "box", "rosebud"]);
        let acl = "topic read #\npattern write sharp-eyes/1/d/t/v/b/alert/village\n\
                   pattern write sharp-eyes/1/d/t/v/b/thumbnail/+\n\
                   topic write sharp-eyes/1/d/t/v/b/alert/township\ntopic write sharp-eyes/1/d/t/v/b/evidence/#\n\
                   topic write sharp-eyes/1/d/t/v/b/status\ntopic write sharp-eyes/1/d/t/v/b/health\n\
                   topic write sharp-eyes/1/d/t/v/b/models\n";
        fs::write(folder.path().join("acl"), acl).unwrap();
        Self { port, folder, process: None }
    }

    pub(crate) async fn run(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let process = Command::new("mosquitto")
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("mosquitto is installed");
        self.process = Some(process);
        let up = async {
            while TcpStream::connect(("localhost", self.port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        tokio::time::timeout(LONG, up)
            .await
            .unwrap_or_else(|_| panic!("mosquitto does not start: {}", log()));
    }

    /// The process stands still; its kernel still takes bytes.
    pub(crate) fn freeze(&self) {
        let process = self.process.as_ref().expect("it runs");
        run("kill", &["-STOP", &process.id().to_string()]);
    }

    /// Publishes as a console does, with QoS 1, and returns when the broker has it. `more` are arguments of `mosquitto_pub`.
    pub(crate) fn publish(&self, topic: &str, payload: &str, more: &[&str]) {
        let port = self.port.to_string();
        let mut arguments =
            vec!["-h", "localhost", "-p", &port, "-V", "5", "-q", "1", "-t", topic, "-m", payload];
        arguments.extend(more);
        run("mosquitto_pub", &arguments);
    }

    /// As with `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A message as it reached a subscriber.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) topic: String,
    pub(crate) retained: bool,
    pub(crate) content_type: String,
    /// What is left of the time that the broker may keep it.
    pub(crate) expiry_s: Option<u32>,
    pub(crate) correlation: String,
    pub(crate) payload: Vec<u8>,
}

impl Received {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// `mosquitto_sub` on everything, with QoS 0: the broker then writes a message to it before it acknowledges it to the
/// agent. With QoS 1 it queues what is beyond its window of 20, and a broker killed with -9 takes that along, after the
/// agent was told that it has arrived.
pub(crate) struct Subscriber {
    _process: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
    all: Vec<Received>,
}

impl Subscriber {
    /// Returns when the subscription stands.
    pub(crate) async fn start(port: u16) -> Self {
        let mut process = tokio::process::Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub"]) // line by line into a pipe too
            .args(["-h", "localhost", "-p", &port.to_string(), "-V", "5", "-q", "0", "-t", "#", "-d"])
            .args(["-F", "message|%t|%r|%C|%E|%D|%x"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("coreutils and mosquitto-clients are installed");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut subscriber = Self { _process: process, lines, all: Vec::new() };
        let subscribed = async {
            while let Some(line) = subscriber.lines.next_line().await.unwrap() {
                if line.contains("SUBACK") || line.contains("Subscribed") {
                    return;
                }
            }
            panic!("the subscriber ended");
        };
        tokio::time::timeout(LONG, subscribed).await.expect("a subscription");
        subscriber
    }

    fn take(&mut self, line: &str) {
        let mut parts = line.strip_prefix("message|").into_iter().flat_map(|line| line.split('|'));
        let mut next = || parts.next();
        let (Some(topic), Some(retained), Some(content_type)) = (next(), next(), next()) else {
            return; // a debug line
        };
        let (Some(expiry), Some(correlation), Some(hex)) = (next(), next(), next()) else {
            panic!("{line}");
        };
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        self.all.push(Received {
            topic: topic.into(),
            retained: retained == "1",
            content_type: content_type.into(),
            expiry_s: expiry.parse().ok(),
            correlation: correlation.into(),
            payload: (0..hex.len() / 2).map(|n| byte(2 * n)).collect(),
        });
    }

    /// All messages so far, once they are as wanted.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&[Received]) -> bool) -> &[Received] {
        let deadline = tokio::time::Instant::now() + LONG;
        while !wanted(&self.all) {
            match tokio::time::timeout_at(deadline, self.lines.next_line()).await {
                Ok(Ok(Some(line))) => self.take(&line),
                other => panic!("no {what}: {other:?} after {} messages", self.all.len()),
            }
        }
        &self.all
    }

    /// All messages, after what was already on its way has come.
    pub(crate) async fn rest(&mut self) -> &[Received] {
        let quiet = Duration::from_millis(300);
        while let Ok(Ok(Some(line))) = tokio::time::timeout(quiet, self.lines.next_line()).await {
            self.take(&line);
        }
        &self.all
    }
}

/// A slow link to the broker: so many bytes a second from the agent, any number back. Returns its port.
pub(crate) async fn slow_link(to: u16, bytes_per_second: usize) -> u16 {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((agent, _)) = listener.accept().await {
            let broker = TcpStream::connect(("localhost", to)).await.unwrap();
            let ((mut from_agent, mut to_agent), (mut from_broker, mut to_broker)) =
                (agent.into_split(), broker.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_broker, &mut to_agent).await });
            tokio::spawn(async move {
                let mut bytes = vec![0; bytes_per_second / 20];
                let mut tick = tokio::time::interval(Duration::from_millis(50));
                while let Ok(count @ 1..) = from_agent.read(&mut bytes).await {
                    tick.tick().await;
                    if to_broker.write_all(&bytes[..count]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

/// A door before the broker, shut at first: the agent meets it only when the subscriber is there to see all.
pub(crate) struct Gate {
    pub(crate) port: u16,
    open: watch::Sender<bool>,
}

impl Gate {
    pub(crate) async fn start(to: u16) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, state) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut agent, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    if !*state.borrow() {
                        return;
                    }
                    let Ok(mut broker) = TcpStream::connect(("localhost", to)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut agent, &mut broker) => {}
                        _ = state.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { port, open }
    }

    pub(crate) fn open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

/// Two authorities, a server and a box of the first.
pub(crate) struct Certificates {
    pub(crate) folder: TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let folder = TempDir::new().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        for authority in ["ca", "other"] {
            let (pem, private) = (file(&format!("{authority}.pem")), file(&format!("{authority}.key")));
            let subject = format!("/CN={authority}");
            let mut arguments = vec!["req", "-x509", "-subj", &subject, "-keyout", &private, "-out", &pem];
            arguments.extend(key);
            run("openssl", &arguments);
        }
        fs::write(file("extensions"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
        for name in ["server", "box"] {
            let (request, private) = (file("request"), file(&format!("{name}.key")));
            let subject = format!("/CN={name}");
            let mut arguments = vec!["req", "-new", "-subj", &subject, "-keyout", &private, "-out", &request];
            arguments.extend(&key[..5]);
            run("openssl", &arguments);
            let (ca, ca_key, pem, extensions) =
                (file("ca.pem"), file("ca.key"), file(&format!("{name}.pem")), file("extensions"));
            run(
                "openssl",
                &[
                    "x509",
                    "-req",
                    "-in",
                    &request,
                    "-CA",
                    &ca,
                    "-CAkey",
                    &ca_key,
                    "-CAcreateserial",
                    "-days",
                    "2",
                    "-extfile",
                    &extensions,
                    "-out",
                    &pem,
                ],
            );
        }
        Self { folder }
    }
}
