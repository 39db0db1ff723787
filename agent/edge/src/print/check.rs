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
    let models = config.models.iter().flat_map(|models| {
        let repository = models.repository.as_deref();
        let is_web = repository.is_some_and(|repository| repository.starts_with("https://"));
        let folder = repository.map(|repository| repository.strip_prefix("file://").unwrap_or(repository));
        let folder = folder.filter(|folder| folder.starts_with('/')).map(Path::new);
        [("the root of trust", models.root.as_path())]
            .into_iter()
            .chain(is_web.then_some(("the authorities of the repository's server", models.ca.as_path())))
            .chain(folder.map(|folder| ("the repository", folder)))
    });
    let streams = || config.cameras.iter().map(|camera| &camera.stream);
    let logins = streams().filter_map(|stream| stream.login.as_ref());
    let passwords = logins.map(|(_, file)| ("a camera's password", file));
    let authorities = streams().filter_map(|stream| stream.ca.as_ref()).map(|file| ("a camera's ca", file));
    let cameras = passwords.chain(authorities);
    let files = detector.into_iter().chain(brokers).chain(cameras);
    files.map(|(what, file)| (what, file.as_path())).chain(models).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_models_come_from_is_named() {
        let text = include_str!("../../../../config/agent.toml");
        let address = "https://models.lan-xi.example/detector";
        let named = |repository: &str| {
            let config = Config::parse(&text.replace(address, repository)).unwrap();
            let named = files(&config).into_iter().map(|(what, file)| format!("{what} {}", file.display()));
            named.filter(|named| named.contains("repository")).collect::<Vec<_>>()
        };
        let ca = "the authorities of the repository's server /etc/ssl/certs/ca-certificates.crt";
        assert_eq!(named(address), [ca]);
        assert!(named("http://models.lan-xi.example/detector").is_empty());
        assert_eq!(named("file:///srv/models"), ["the repository /srv/models"]);
        assert_eq!(named("/srv/models"), ["the repository /srv/models"]);
    }
}
