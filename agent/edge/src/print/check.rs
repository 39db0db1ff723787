//! `check`: a configuration without problems, and what it needs of this machine.

use std::path::Path;

use crate::config::Config;

/// Says that there are no problems, and which files that it names are not here: whoever checks it elsewhere than on its box
/// may well lack them.
pub fn check(file: &Path, config: &Config) {
    let cameras = match config.cameras.len() {
        1 => "1 camera".to_owned(),
        count => format!("{count} cameras"),
    };
    println!("{}: no problems; {} for {cameras}", file.display(), config.site);
    for (what, path) in files(config) {
        if !path.is_absolute() {
            println!("  {what} {} is looked for from where the agent is started", path.display());
        }
        if !path.exists() {
            println!("  {what} {} is not on this machine", path.display());
        }
    }
}

/// The files that it names.
fn files(config: &Config) -> Vec<(&'static str, &Path)> {
    let detector = [("the model", &config.detector.model), ("ONNX Runtime", &config.detector.runtime)];
    let brokers = config.brokers.iter().flat_map(|broker| {
        let password = broker.password_file.iter().map(|file| ("a broker's password", file));
        let tls = broker.tls.iter().flat_map(|tls| {
            let client = tls.client.iter().flat_map(|(certificate, key)| {
                [("the box's certificate", certificate), ("the box's key", key)]
            });
            [("a broker's authority", &tls.ca)].into_iter().chain(client)
        });
        password.chain(tls)
    });
    let models = config.models.iter().map(|models| ("the root of trust", &models.root));
    let streams = || config.cameras.iter().map(|camera| &camera.stream);
    let logins = streams().filter_map(|stream| stream.login.as_ref());
    let passwords = logins.map(|(_, file)| ("a camera's password", file));
    let authorities = streams().filter_map(|stream| stream.ca.as_ref()).map(|file| ("a camera's ca", file));
    let cameras = passwords.chain(authorities);
    let all = detector.into_iter().chain(brokers).chain(models).chain(cameras);
    all.map(|(what, file)| (what, file.as_path())).collect()
}
