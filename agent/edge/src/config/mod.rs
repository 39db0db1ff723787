//! The one configuration file: strict, with every problem reported at once.
//!
//! A file becomes the options of each component here and nowhere else; the components know nothing of TOML.
//! Nothing is tried while reading: no file that the configuration names is opened, no host is looked up.

mod calendar;
mod camera;
mod models;
mod overlay;
mod reader;
mod remote;
mod rule;
mod units;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use sharp_eyes_protocol::topic::{Name, Site};

pub(crate) use camera::CAMERAS_MAX;
pub use camera::{CameraConfig, View};
pub use models::ModelsConfig;
pub use overlay::Overlay;
pub use reader::Problem;
use sharp_eyes_vision::schedule::Dates;
use sharp_eyes_vision::{DetectorOptions, Provider};

use reader::{Bytes, Document, Section, WithinOrNever};
pub use remote::RemoteConfig;
pub use rule::{CameraRule, CameraRuleKind};

use crate::cores::Cores;
use crate::escalation::Escalation;

/// Everything that an installer can say.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the box stands in the tree.
    pub site: Site,
    /// The time zone that schedules are judged in.
    pub time_zone: TimeZone,
    /// Section `[calendar]`: the days that schedules call holidays.
    pub holidays: Option<Arc<[Dates]>>,
    /// Where alerts wait for the broker.
    pub state: StateConfig,
    /// The brokers that they wait for, the first one first. At least one.
    pub brokers: Vec<BrokerConfig>,
    /// What each of them gets.
    pub delivery: DeliveryConfig,
    /// When alerts climb that nobody answers.
    pub escalation: Escalation,
    /// What looks at frames.
    pub detector: DetectorConfig,
    /// Where other models come from, if they do.
    pub models: Option<ModelsConfig>,
    /// Whether cameras, rules and brokers may come from there, too.
    pub remote: Option<RemoteConfig>,
    /// Where metrics are served, if at all.
    pub metrics: Option<SocketAddr>,
    /// At least one camera.
    pub cameras: Vec<CameraConfig>,
}

/// Section `[state]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    /// Folder of the outbox.
    pub folder: PathBuf,
    /// Most bytes of alerts and pictures on disk.
    pub max_size: u64,
    /// Longest time that anything is kept for the broker.
    pub max_age: Duration,
    /// Delivered messages that are kept to be sent again on request.
    pub keep_delivered: u64,
}

/// Section `[delivery]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryConfig {
    /// Every broker gets everything; else the first that is there.
    pub all_brokers: bool,
    /// Bytes of pictures a second.
    pub evidence_rate: u64,
    /// How long a broker keeps a picture for consoles that are away.
    pub evidence_expiry: Duration,
    /// Large pictures are sent only when a console asks for them.
    pub pictures_on_request: bool,
}

/// Section `[broker]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// In health reports.
    pub name: Name,
    /// Host name or address.
    pub host: String,
    /// Port: 1883 without TLS, 8883 with it.
    pub port: u16,
    /// User name.
    pub user: Option<String>,
    /// File with the password and nothing else.
    pub password_file: Option<PathBuf>,
    /// MQTT keep-alive.
    pub keep_alive: Duration,
    /// Section `[broker.tls]`.
    pub tls: Option<TlsConfig>,
}

/// Section `[broker.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file with the authorities that the broker's certificate is checked against.
    pub ca: PathBuf,
    /// PEM files with the box's own certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Where the package puts ONNX Runtime.
pub const DEFAULT_RUNTIME: &str = "/usr/lib/sharp-eyes/libonnxruntime.so";

/// Section `[detector]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetectorConfig {
    /// Folder with `manifest.toml` and `model.onnx`; in development, an ONNX file.
    pub model: PathBuf,
    /// ONNX Runtime's shared library.
    pub runtime: PathBuf,
    /// How it is run.
    pub options: DetectorOptions,
    /// How many frames are looked at at the same time, each in a session of its own.
    pub sessions: usize,
    /// On which cores.
    pub cores: Cores,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read at all.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file was read; these are all its problems.
    #[error("{}", Problems { path, problems })]
    Invalid {
        /// The file.
        path: PathBuf,
        /// At least one.
        problems: Vec<Problem>,
    },
}

struct Problems<'a> {
    path: &'a Path,
    problems: &'a [Problem],
}

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{count} {noun} in {}", self.path.display())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// Reads a text, or says all that is wrong with it in the order of the text.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        Document::read(text, read)
    }

    /// What a schedule lacks to be judged.
    pub fn lacks_holidays(&self) -> Option<String> {
        if self.holidays.is_some() { None } else { calendar::unlisted(&self.cameras) }
    }
}

/// The configuration, if each part of it could be read; what could not has been reported.
fn read(root: Section<'_>) -> Option<Config> {
    let site = root.required_section("site").and_then(site);
    let state = root.required_section("state").and_then(state);
    let brokers = brokers(&root);
    let delivery = root.read_section("delivery", delivery).map(Option::unwrap_or_default);
    let escalation = root.read_section("escalation", escalation).map(Option::unwrap_or_default);
    let detector = root.required_section("detector").and_then(detector);
    let models = root.read_section("models", models::models);
    let remote = root.read_section("remote", remote::remote);
    if root.has("remote") && !root.has("models") {
        root.problem("remote", "has no [models], which says whose signature a configuration has to bear");
    }
    let metrics = root.read_section("metrics", metrics);
    let holidays = root.read_section("calendar", calendar::holidays);
    let mut cameras = camera::cameras(&root);
    match (&mut cameras, &holidays) {
        (Some(cameras), Some(Some(holidays))) => calendar::tell(cameras, holidays),
        (Some(cameras), Some(None)) => {
            calendar::unlisted(cameras).into_iter().for_each(|problem| root.problem("calendar", problem));
        }
        _ => {}
    }
    root.finish();
    let (site, time_zone) = site?;
    Some(Config {
        site,
        time_zone,
        holidays: holidays?,
        state: state?,
        brokers: brokers?,
        delivery: delivery?,
        escalation: escalation?,
        detector: detector?,
        models: models?,
        remote: remote?,
        metrics: metrics?,
        cameras: cameras?,
    })
}

fn site(section: Section<'_>) -> Option<(Site, TimeZone)> {
    let district = section.required::<Name>("district");
    let township = section.required::<Name>("township");
    let village = section.required::<Name>("village");
    let box_name = section.required::<Name>("box");
    let zone_name = section.required::<String>("time_zone");
    let time_zone = zone_name.and_then(|name| {
        let zone = TimeZone::get(&name);
        if zone.is_err() {
            section.problem(
                "time_zone",
                format!("{name:?} is no time zone; expected one such as \"Asia/Shanghai\""),
            );
        }
        zone.ok()
    });
    section.finish();
    let site = Site { district: district?, township: township?, village: village?, box_name: box_name? };
    Some((site, time_zone?))
}

fn state(section: Section<'_>) -> Option<StateConfig> {
    let folder = section.required("folder");
    let Bytes(max_size) = section.or("max_size", Bytes(512 << 20));
    let max_age = section.or("max_age", Duration::from_secs(30 * 86_400));
    if max_size < 4 << 20 {
        section.problem("max_size", "is too small for the database itself; expected at least \"4MB\"");
    }
    if max_age < Duration::from_secs(3600) {
        section.problem("max_age", "expected at least \"1h\": what waits for longer is given up");
    }
    let keep_delivered = u64::from(section.or::<u16>("keep_delivered", 10_000));
    section.finish();
    Some(StateConfig { folder: folder?, max_size, max_age, keep_delivered })
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            all_brokers: false,
            evidence_rate: 64 << 10,
            evidence_expiry: Duration::from_secs(86_400),
            pictures_on_request: false,
        }
    }
}

fn delivery(section: Section<'_>) -> Option<DeliveryConfig> {
    let brokers = section.or("brokers", "first".to_owned());
    if !["first", "all"].contains(&brokers.as_str()) {
        section.problem("brokers", format!("{brokers:?} is neither \"first\" nor \"all\""));
    }
    let pictures = section.or("pictures", "always".to_owned());
    if !["always", "on-request"].contains(&pictures.as_str()) {
        section.problem("pictures", format!("{pictures:?} is neither \"always\" nor \"on-request\""));
    }
    let default = DeliveryConfig::default();
    let Bytes(evidence_rate) = section.or("evidence_rate", Bytes(default.evidence_rate));
    if evidence_rate < 256 {
        section.problem("evidence_rate", "expected at least \"256B\" a second");
    }
    let evidence_expiry = section.or("evidence_expiry", default.evidence_expiry);
    if evidence_expiry < Duration::from_secs(60) {
        section.problem("evidence_expiry", "expected at least \"1min\"");
    }
    section.finish();
    Some(DeliveryConfig {
        all_brokers: brokers == "all",
        evidence_rate,
        evidence_expiry,
        pictures_on_request: pictures == "on-request",
    })
}

fn escalation(section: Section<'_>) -> Option<Escalation> {
    let default = Escalation::default();
    let time = |key: &'static str, default: Option<Duration>| match section.optional::<WithinOrNever>(key) {
        Some(WithinOrNever(within)) => within,
        None => default,
    };
    let minor = time("minor", default.minor);
    let major = time("major", default.major);
    let critical = time("critical", default.critical);
    let repeat = section.or("repeat", default.repeat);
    for (key, within) in
        [("minor", minor), ("major", major), ("critical", critical), ("repeat", Some(repeat))]
    {
        if within.is_some_and(|within| !(Duration::from_secs(5)..=DAY).contains(&within)) {
            section.problem(key, "expected \"5s\" to \"24h\"");
        }
    }
    section.finish();
    Some(Escalation { minor, major, critical, repeat })
}

/// The longest wait for an answer.
const DAY: Duration = Duration::from_secs(86_400);

/// Most brokers of one box: each keeps what it did not get yet on the disk.
const BROKERS_MAX: usize = 4;

/// The brokers, if each could be read.
fn brokers(root: &Section<'_>) -> Option<Vec<BrokerConfig>> {
    let sections = root.section_or_sections("broker");
    if root.lacks("broker") {
        root.problem("broker", "missing; expected a table [broker], or several [[broker]]");
    }
    if sections.len() > BROKERS_MAX {
        root.problem("broker", format!("{} brokers; expected at most {BROKERS_MAX}", sections.len()));
    }
    let several = sections.len() > 1;
    let mut names = BTreeSet::new();
    let brokers: Vec<_> = sections.into_iter().map(|section| broker(section, several, &mut names)).collect();
    brokers.into_iter().collect()
}

fn broker(section: Section<'_>, several: bool, names: &mut BTreeSet<String>) -> Option<BrokerConfig> {
    let name = match several {
        true => section.required::<Name>("name"),
        false => section.optional("name").or_else(|| Name::new("broker").ok()),
    };
    if let Some(name) = &name
        && !names.insert(name.to_string())
    {
        section.problem("name", format!("another broker is called {name} already"));
    }
    let host = section.required::<String>("host");
    if host.as_ref().is_some_and(|host| host.contains(['/', '@', ' '])) {
        section.problem(
            "host",
            "expected a host name or address alone, such as \"mqtt.example.org\"; port, user and password have keys of their own",
        );
    }
    let user = section.optional::<String>("user");
    let password_file = section.optional("password_file");
    if password_file.is_some() && user.is_none() && !section.has("user") {
        section.problem("password_file", "has no user; set user as well");
    }
    let keep_alive = section.or("keep_alive", Duration::from_secs(5));
    if !(Duration::from_secs(5)..=Duration::from_secs(600)).contains(&keep_alive) {
        section.problem("keep_alive", "expected \"5s\" to \"10min\"");
    }
    let tls = match section.section("tls") {
        Some(section) => tls(section).map(Some),
        None => Some(None),
    };
    let port = section.or("port", if section.has("tls") { 8883 } else { 1883 });
    if port == 0 {
        section.problem("port", "expected 1 to 65535");
    }
    let plain = !section.has("tls");
    if plain && user.is_some() && host.as_deref().is_some_and(|host| !is_loopback(host)) {
        section.problem("user", "a password would cross the network in the clear; add [broker.tls]");
    }
    section.finish();
    Some(BrokerConfig { name: name?, host: host?, port, user, password_file, keep_alive, tls: tls? })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn tls(section: Section<'_>) -> Option<TlsConfig> {
    let ca = section.required("ca");
    let certificate = section.optional("certificate");
    let key = section.optional("key");
    if section.has("certificate") != section.has("key") {
        section.problem("certificate", "certificate and key belong together; set both or neither");
    }
    section.finish();
    Some(TlsConfig { ca: ca?, client: certificate.zip(key) })
}

fn detector(section: Section<'_>) -> Option<DetectorConfig> {
    let model = section.required("model");
    let runtime = section.or("runtime", PathBuf::from(DEFAULT_RUNTIME));
    let threads = section.or::<u16>("threads", 1);
    if !(1..=64).contains(&threads) {
        section.problem("threads", "expected 1 to 64");
    }
    let sessions = section.or::<u16>("sessions", 1);
    if !(1..=16).contains(&sessions) {
        section.problem("sessions", "expected 1 to 16");
    }
    let providers = section.or("providers", vec![Provider::Cpu]);
    if providers.is_empty() {
        section.problem("providers", "is empty; leave the key out for the processor alone");
    }
    let arena = section.or("arena", true);
    let cache = section.optional("cache");
    let cores = section.or("cores", Cores::All);
    section.finish();
    let options = DetectorOptions { threads: usize::from(threads), providers, arena, cache };
    Some(DetectorConfig { model: model?, runtime, options, sessions: usize::from(sessions), cores })
}

fn metrics(section: Section<'_>) -> Option<SocketAddr> {
    let listen = section.or("listen", SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)));
    if !listen.ip().is_loopback() {
        section.problem("listen", "metrics are served on loopback only; expected \"127.0.0.1:PORT\"");
    }
    section.finish();
    Some(listen)
}

#[cfg(test)]
mod tests;
