//! The folder of a maintainer: certificates by the very script that maintainers use, and brokers set up with them.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, ensure};
use sharp_eyes_protocol::topic::{Name, Site};
use sharp_eyes_tests::authority::Credentials;
use sharp_eyes_tests::broker::Broker;
use sharp_eyes_tests::places;
use sharp_eyes_tests::process::last_lines;

use crate::client::Client;

/// The ports of the files.
pub(crate) const BOXES: u16 = 8883;
pub(crate) const CONSOLES: u16 = 8884;
pub(crate) const BRIDGES: u16 = 8885;

/// Somebody who issues certificates and sets up brokers, all in one folder.
pub(crate) struct Office {
    pub(crate) folder: PathBuf,
}

/// Runs a test in a folder of its own. When it fails, the folder stays and the logs in it are printed.
pub(crate) fn play(test: impl FnOnce(&Office) -> Result<()>) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let office = Office { folder: folder.path().to_owned() };
    let outcome = catch_unwind(AssertUnwindSafe(|| office.script(&["start"]).and_then(|_| test(&office))));
    let Err(error) = outcome.unwrap_or_else(|_| Err(anyhow!("the test panicked"))) else { return };
    let folder = folder.keep();
    for broker in ["district", "yun-shan", "qing-he"] {
        if let Ok(text) = fs::read_to_string(folder.join(broker).join("mosquitto.log")) {
            println!("---- {broker}\n{}", last_lines(&text, 60));
        }
    }
    panic!("{error:#}\neverything is in {}", folder.display());
}

impl Office {
    /// Where the script keeps everything.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.folder.join("certificates")
    }

    /// Runs the script. The error is what it says.
    pub(crate) fn script(&self, arguments: &[&str]) -> Result<String> {
        let Output { status, stdout, stderr } =
            Command::new(places::repository().join("config/mosquitto/certificates.sh"))
                .arg(self.certificates())
                .args(arguments)
                .current_dir(&self.folder)
                .output()
                .context("running certificates.sh")?;
        ensure!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        Ok(String::from_utf8(stdout)?)
    }

    /// A box, and its certificate.
    pub(crate) fn village_box(&self, site: &Site) -> Result<Client> {
        let name = path(site);
        self.script(&["box", &name])?;
        Ok(self.client("box", &name.replace('/', ".")))
    }

    /// A console of a branch of the tree, and its certificate.
    pub(crate) fn console(&self, branch: &str) -> Result<Client> {
        self.script(&["console", branch, "desk-1"])?;
        Ok(self.client("console", &format!("{}.desk-1", branch.replace('/', "."))))
    }

    /// Somebody whose certificate the script has made.
    pub(crate) fn client(&self, kind: &str, name: &str) -> Client {
        let file = |ending: &str| self.certificates().join(kind).join(format!("{name}.{ending}"));
        Client::new(self.certificates().join("brokers.pem"), Some((file("pem"), file("key.pem"))))
    }

    /// Somebody with a certificate from elsewhere, who trusts our brokers.
    pub(crate) fn stranger(&self, credentials: &Credentials) -> Client {
        let Credentials { certificate, key, .. } = credentials.clone();
        Client::new(self.certificates().join("brokers.pem"), Some((certificate, key)))
    }

    /// The district's broker.
    pub(crate) fn district(&self) -> Result<Broker> {
        let folder = self.prepare("district")?;
        Broker::with_files(&folder, &["district.conf"], &[])
    }

    /// A township's broker that knows no other one.
    pub(crate) fn lone_township(&self) -> Result<Broker> {
        let folder = self.prepare("yun-shan")?;
        Broker::with_files(&folder, &["township.conf"], &[])
    }

    /// The broker of a township of lan-xi, with its bridge to the district's.
    pub(crate) fn township(&self, name: &str, district: &Broker) -> Result<Broker> {
        let branch = format!("lan-xi/{name}");
        let folder = self.prepare(name)?;
        self.script(&["bridge", &branch])?;
        for (issued, installed) in [("pem", "bridge.pem"), ("key.pem", "bridge.key.pem")] {
            let issued = self.certificates().join(format!("bridge/lan-xi.{name}.{issued}"));
            fs::copy(issued, folder.join("sharp-eyes").join(installed))?;
        }
        let address = format!("127.0.0.1:{}", district.listener(BRIDGES)?);
        let edits = [("mqtt.lan-xi.example:8885", address.as_str()), ("lan-xi/yun-shan", branch.as_str())];
        Broker::with_files(&folder, &["township.conf", "bridge.conf"], &edits)
    }

    /// What the files of a broker name, as brokers.md says where to put it.
    pub(crate) fn prepare(&self, name: &str) -> Result<PathBuf> {
        let (folder, own) = (self.folder.join(name), self.folder.join(name).join("sharp-eyes"));
        fs::create_dir_all(&own)?;
        for acl in ["acl-boxes", "acl-bridges", "acl-consoles"] {
            fs::copy(places::repository().join("config/mosquitto").join(acl), own.join(acl))?;
        }
        if !self.certificates().join("broker/127.0.0.1.pem").exists() {
            self.script(&["broker", "127.0.0.1", "localhost"])?;
        }
        fs::copy(self.certificates().join("broker/127.0.0.1.pem"), own.join("broker.pem"))?;
        fs::copy(self.certificates().join("broker/127.0.0.1.key.pem"), own.join("broker.key.pem"))?;
        fs::copy(self.certificates().join("brokers.pem"), own.join("brokers.pem"))?;
        for kind in ["boxes", "consoles", "bridges"] {
            fs::copy(self.certificates().join(format!("{kind}.pem")), own.join(format!("{kind}.pem")))?;
            self.hand_out_list(kind, &folder)?;
        }
        Ok(folder)
    }

    /// Copies a revocation list to the folder of a broker.
    pub(crate) fn hand_out_list(&self, kind: &str, folder: &Path) -> Result<()> {
        let list = format!("{kind}.crl.pem");
        fs::copy(self.certificates().join(&list), folder.join("sharp-eyes").join(&list))?;
        Ok(())
    }
}

/// A box of the district lan-xi.
pub(crate) fn site(township: &str, village: &str, box_name: &str) -> Site {
    let name = |text: &str| Name::new(text).expect("a name");
    Site {
        district: name("lan-xi"),
        township: name(township),
        village: name(village),
        box_name: name(box_name),
    }
}

/// A box's place in the tree: the common name of its certificate.
pub(crate) fn path(site: &Site) -> String {
    [&site.district, &site.township, &site.village, &site.box_name].map(Name::as_str).join("/")
}
