//! Metadata that are old, wrong, missing, or hostile though they are signed.

use std::collections::HashMap;
use std::num::NonZeroU64;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tough::TargetName;
use tough::schema::{DelegatedRole, Delegations, Hashes, Metafile, PathPattern, PathSet};

use super::super::editor::meta_of;
use super::super::keys::SigningKey;
use super::*;

#[tokio::test]
async fn whatever_has_expired_is_refused_by_its_name() {
    for role in ["targets", "snapshot", "timestamp"] {
        let days = |this: &str| if role == this { 0 } else { 30 };
        let expiry = Expiry {
            targets_days: days("targets"),
            snapshot_days: days("snapshot"),
            timestamp_days: days("timestamp"),
        };
        let mut story = Story::new().await;
        let files = story.keys.load().unwrap();
        story.editor.targets.version = NonZeroU64::new(2).unwrap();
        let signed = story.editor.sign_all(&files, expiry).await.unwrap();
        write(&signed).unwrap();
        let words = [&format!("its {role} expired on")[..], "this box's clock was taken", "repo refresh"];
        check(&story.says().await, &words, role);
        story.editor.targets.version = NonZeroU64::new(3).unwrap();
        write(&story.editor.sign_all(&files, EXPIRY).await.unwrap()).unwrap();
        check(&story.says().await, &[], role);
    }
}

#[tokio::test]
async fn no_version_goes_back_though_it_is_signed() {
    type Back = fn(&mut Editor);
    let cases: [(&str, Back, &[&str]); 6] = [
        ("nothing", |_| {}, &[]),
        ("timestamp", |e| e.timestamp.version = NonZeroU64::MIN, &["refused", "timestamp", "version"]),
        (
            "snapshot, in a newer timestamp",
            |e| {
                e.snapshot.version = NonZeroU64::MIN;
                e.timestamp.meta.get_mut("snapshot.json").unwrap().version = NonZeroU64::MIN;
            },
            &["refused", "snapshot"],
        ),
        (
            "targets, in a newer snapshot",
            |e| {
                e.targets.version = NonZeroU64::MIN;
                e.snapshot.meta.get_mut("targets.json").unwrap().version = NonZeroU64::MIN;
            },
            &["refused", "targets"],
        ),
        (
            "a snapshot that is not the one that the timestamp names",
            |e| {
                e.timestamp.meta.get_mut("snapshot.json").unwrap().version =
                    e.snapshot.version.saturating_add(7);
            },
            &["snapshot", "file not found"],
        ),
        (
            "a snapshot that forgets the targets",
            |e| drop(e.snapshot.meta.remove("targets.json")),
            &["refused", "targets.json"],
        ),
    ];
    for (case, back, words) in cases {
        let mut story = Story::new().await;
        story.rotate(KeyRole::Targets, "targets-1").await; // version 2 of each
        check(&story.says().await, &[], case);
        let newer = |version: NonZeroU64| version.saturating_add(1);
        let editor = &mut story.editor;
        (editor.snapshot.version, editor.timestamp.version) =
            (newer(editor.snapshot.version), newer(editor.timestamp.version));
        let unhashed = |version| Metafile { length: None, hashes: None, version, _extra: HashMap::new() };
        editor.timestamp.meta.insert("snapshot.json".to_owned(), unhashed(editor.snapshot.version));
        editor.snapshot.meta.insert("targets.json".to_owned(), unhashed(editor.targets.version));
        back(editor);
        story.publish_as_it_is().await;
        check(&story.says().await, words, case);
        let trusted = ["timestamp", "snapshot", "targets"].map(|role| story.trusted(role));
        assert_eq!(trusted, if words.is_empty() { [3, 3, 2] } else { [2, 2, 2] }, "{case}");
    }
}

#[tokio::test]
async fn lengths_and_hashes_count_where_they_are_said() {
    type Wrong = fn(&mut Metafile);
    let cases: [(&str, Wrong, bool); 6] = [
        ("as it is", |_| {}, true),
        ("no length", |meta| meta.length = None, true),
        ("no hash", |meta| meta.hashes = None, true),
        ("a length that is too small", |meta| meta.length = meta.length.map(|length| length - 1), false),
        (
            "another hash",
            |meta| meta.hashes = Some(Hashes { sha256: vec![7; 32].into(), _extra: HashMap::new() }),
            false,
        ),
        ("another version", |meta| meta.version = meta.version.saturating_add(1), false),
    ];
    for (case, wrong, good) in cases {
        for file in ["snapshot.json", "targets.json"] {
            let mut story = Story::new().await;
            let files = story.keys.load().unwrap();
            let Story { editor, .. } = &mut story;
            let root = editor.root.clone();
            if file == "targets.json" {
                let targets = sign(&root, editor.targets.clone(), &files).await.unwrap();
                let mut meta = meta_of(&targets);
                wrong(&mut meta);
                let [snapshot, timestamp] = editor.sign_snapshot(Some(meta), &files, EXPIRY).await.unwrap();
                write(&[editor.file(&targets), snapshot, timestamp]).unwrap();
            } else {
                let [snapshot, _] = editor.sign_snapshot(None, &files, EXPIRY).await.unwrap();
                wrong(editor.timestamp.meta.get_mut(file).unwrap());
                let timestamp = sign(&root, editor.timestamp.clone(), &files).await.unwrap();
                write(&[snapshot, editor.file(&timestamp)]).unwrap();
            }
            let said = story.says().await;
            assert_eq!(said.is_empty(), good, "{case} of {file}: {said}");
            assert!(good || said.contains(file.trim_end_matches(".json")), "{case} of {file}: {said}");
        }
    }
}

#[tokio::test]
async fn what_is_missing_is_named_and_changes_nothing() {
    for (name, good) in [
        ("timestamp.json", false),
        ("2.snapshot.json", false),
        ("1.targets.json", false),
        ("1.root.json", true),
    ] {
        let mut story = Story::new().await;
        check(&story.says().await, &[], name);
        story.refresh().await;
        fs::remove_file(story.metadata(name)).unwrap();
        let words: &[&str] = if good { &[] } else { &[name, "file not found"] };
        check(&story.says().await, words, name);
        assert_eq!(story.trusted("timestamp"), if good { 2 } else { 1 }, "{name}");
    }
}

/// Names that the maintainer signs for, or whoever has his keys: none leads out of a folder.
#[tokio::test]
async fn hostile_names_of_targets_are_no_releases_and_of_roles_write_nothing_outside() {
    let mut story = Story::new().await;
    let bundle = story.place.path().join("a.bundle");
    fs::write(&bundle, "bundle").unwrap();
    let custom = serde_json::json!({"model": "detector@1", "release": 1, "attempt": 1});
    let target = || async {
        let mut target = Target::from_path(&bundle).await.unwrap();
        target.custom = serde_json::from_value(custom.clone()).unwrap();
        target
    };
    for name in [
        "../../evil.bundle",
        "a/../../evil.bundle",
        "/etc/evil.bundle",
        ".evil.bundle",
        "evil",
        "Evil.bundle",
        "a b.bundle",
        "a\\b.bundle",
        "a\n.bundle",
        "%2e%2e%2fevil.bundle",
        "%00.bundle",
        "\u{202e}.bundle",
        ".bundle",
    ] {
        let Ok(name) = TargetName::new(name) else { continue };
        story.editor.targets.add_target(name, target().await);
    }
    story.editor.targets.add_target(TargetName::new("good-1.bundle").unwrap(), target().await);
    let names = ["../../evil", "/etc/evil", "..", ".", "a\\b", "a\u{202e}b", "root", "con:"];
    let SigningKey { id, key, .. } = story.keys.open(&story.place.path().join("keys/targets-1.key")).unwrap();
    let roles = names.map(|name| DelegatedRole {
        name: name.to_owned(),
        keyids: vec![id.clone()],
        threshold: NonZeroU64::MIN,
        paths: PathSet::Paths(vec![PathPattern::new("x/*").unwrap()]),
        terminating: false,
        targets: None,
    });
    story.editor.targets.version = NonZeroU64::new(2).unwrap();
    let files = story.keys.load().unwrap();
    write(&story.editor.sign_all(&files, EXPIRY).await.unwrap()).unwrap();
    let repository = story.ask().await.unwrap();
    let taken: Vec<_> = repository.releases.iter().map(|release| release.target.as_str()).collect();
    assert_eq!(taken, ["good-1.bundle"]);
    assert!(repository.ignored.len() >= 10, "{:?}", repository.ignored);

    for role in roles {
        let name = role.name.clone();
        let delegated = Delegations { keys: HashMap::from([(id.clone(), key.clone())]), roles: vec![role] };
        story.editor.targets.delegations = Some(delegated);
        story.editor.targets.version = story.editor.targets.version.saturating_add(1);
        let version = NonZeroU64::MIN;
        let meta = Metafile { length: None, hashes: None, version, _extra: HashMap::new() };
        story.editor.snapshot.meta.retain(|name, _| name == "targets.json");
        story.editor.snapshot.meta.insert(format!("{name}.json"), meta);
        write(&story.editor.sign_all(&files, EXPIRY).await.unwrap()).unwrap();
        let _ = story.ask().await; // believed or refused
    }
    let mut found: Vec<_> = walk(story.place.path())
        .into_iter()
        .filter(|file| !file.starts_with("repository") && !file.starts_with("keys"))
        .collect();
    found.retain(|file| !["a.bundle", "shipped.json"].contains(&file.as_str()));
    assert!(
        found.iter().all(|file| file.starts_with("box/trust/") && file.matches('/').count() == 3),
        "{found:?}"
    );
    assert!(!Path::new("/etc/evil.json").exists() && !Path::new("/tmp/evil.json").exists());
}

/// All files below a folder, by their paths in it.
fn walk(folder: &Path) -> Vec<String> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    files
}

/// A web server that has an answer of its own for one file, and the repository for the rest.
#[tokio::test]
async fn a_web_server_that_answers_something_else_changes_nothing() {
    for (answer, file, words) in [
        ("200 OK", "", &[][..]),
        ("404 Not Found", "/metadata/2.root.json", &[]),
        ("403 Forbidden", "/metadata/2.root.json", &[]), // an object store
        ("404 Not Found", "/metadata/timestamp.json", &["timestamp.json", "404"]),
        ("500 Internal Server Error", "/metadata/timestamp.json", &["timestamp.json", "500"]),
        ("302 Found", "/metadata/timestamp.json", &["timestamp.json", "302"]),
        ("404 Not Found", "/metadata/1.snapshot.json", &["snapshot.json", "404"]),
        ("410 Gone", "/metadata/1.targets.json", &["targets.json", "410"]),
    ] {
        let story = Story::new().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let repository = story.repository();
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap();
                let found = fs::read(repository.join(&path[1..])).ok();
                let (status, body) = match found {
                    _ if path == file => (answer, Vec::new()),
                    Some(bytes) => ("200 OK", bytes),
                    None => ("404 Not Found", Vec::new()),
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
            }
        });
        let said = story.ask_at(&address).await.err().map(|error| error.to_string()).unwrap_or_default();
        check(&said, words, &format!("{answer} for {file}"));
        server.abort();
    }
}
