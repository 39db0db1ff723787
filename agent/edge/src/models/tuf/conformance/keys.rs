//! Keys that are replaced, and who takes advantage of it.

use std::num::NonZeroU64;

use super::super::KeyRole::{self, Root, Snapshot, Targets, Timestamp};
use super::*;

#[tokio::test]
async fn a_box_follows_every_rotation_at_once_or_step_by_step() {
    let stories: [&[(KeyRole, &str)]; 7] = [
        &[(Root, "root-1")],
        &[(Root, "root-1"), (Root, "root-2"), (Root, "root-3"), (Root, "root-1-next")], // nothing of the first is left
        &[(Targets, "targets-1"), (Targets, "targets-2"), (Targets, "targets-3")],
        &[(Snapshot, "snapshot")],
        &[(Timestamp, "timestamp")],
        &[(Timestamp, "timestamp"), (Snapshot, "snapshot"), (Timestamp, "timestamp-next")],
        &[(Root, "root-3"), (Targets, "targets-2"), (Snapshot, "snapshot"), (Root, "root-2")],
    ];
    for rotations in stories {
        for asks_meanwhile in [true, false] {
            let case = format!("{rotations:?}, asks meanwhile: {asks_meanwhile}");
            let mut story = Story::new().await;
            check(&story.says().await, &[], &case);
            for (role, old) in rotations {
                story.rotate(*role, old).await;
                if asks_meanwhile {
                    check(&story.says().await, &[], &case);
                }
            }
            check(&story.says().await, &[], &case);
            assert_eq!(story.trusted("root"), 1 + rotations.len() as u64, "{case}");
            story.refresh().await;
            check(&story.says().await, &[], &case);
            let reopened = Editor::open(&story.repository()).await.unwrap();
            assert_eq!(reopened.root.version.get(), 1 + rotations.len() as u64, "{case}");
        }
    }
}

#[tokio::test]
async fn a_key_that_was_replaced_signs_nothing_more() {
    for (role, old) in [(Targets, "targets-1"), (Snapshot, "snapshot"), (Timestamp, "timestamp")] {
        let mut story = Story::new().await;
        let before = story.editor.root.clone();
        story.rotate(role, old).await;
        // A thief has the old key, and one of the other two of targets.
        story.editor.root = before;
        let keys = story.place.path().join("keys");
        for honest in [format!("{old}-next.key"), "targets-2.key".to_owned()] {
            fs::remove_file(keys.join(honest)).unwrap();
        }
        story.editor.targets.version = story.editor.targets.version.saturating_add(1);
        let files = story.keys.load().unwrap();
        write(&story.editor.sign_all(&files, EXPIRY).await.unwrap()).unwrap();
        check(&story.says().await, &["refused", old.trim_end_matches("-1"), "signature threshold"], old);
        assert_eq!(story.trusted("root"), 2, "the root counts, whatever is wrong with the rest");
    }
}

#[tokio::test]
async fn a_root_counts_only_with_both_thresholds_and_as_the_next_version() {
    type Damage = fn(&Story, &dyn Fn(&[&str], &mut Value));
    let cases: [(&str, Damage, &[&str]); 10] = [
        ("as it is", |_, _| {}, &[]),
        // Two of three of the old keys, and two of three of the new ones.
        ("enough", |s, without| edit(&s.metadata("2.root.json"), |v| without(&["root-2"], v)), &[]),
        (
            "too few old ones",
            |s, without| edit(&s.metadata("2.root.json"), |v| without(&["root-1", "root-2"], v)),
            &["refused", "root", "threshold"],
        ),
        (
            "too few new ones",
            |s, without| edit(&s.metadata("2.root.json"), |v| without(&["root-1-next", "root-2"], v)),
            &["refused", "root", "threshold"],
        ),
        (
            "one key twice",
            |s, without| {
                edit(&s.metadata("2.root.json"), |v| {
                    without(&["root-1", "root-2"], v);
                    let signatures = v["signatures"].as_array_mut().unwrap();
                    signatures.extend(signatures.clone());
                });
            },
            &["refused", "root", "duplicate"],
        ),
        (
            "a word more",
            |s, _| edit(&s.metadata("2.root.json"), |v| v["signed"]["evil"] = true.into()),
            &["refused", "root", "threshold"],
        ),
        (
            "a version left out",
            |s, _| fs::copy(s.metadata("3.root.json"), s.metadata("2.root.json")).map(drop).unwrap(),
            &["refused", "root"],
        ),
        (
            "the first again",
            |s, _| fs::copy(s.metadata("1.root.json"), s.metadata("2.root.json")).map(drop).unwrap(),
            &["refused", "root", "version"],
        ),
        (
            "without an end",
            |s, _| {
                fs::remove_file(s.metadata("2.root.json")).unwrap();
                std::os::unix::fs::symlink("/dev/zero", s.metadata("2.root.json")).unwrap();
            },
            &["refused", "max_root_size"],
        ),
        (
            "no metadata",
            |s, _| fs::write(s.metadata("2.root.json"), "<html>not found</html>").unwrap(),
            &["refused", "root"],
        ),
    ];
    for (case, damage, words) in cases {
        let mut story = Story::new().await;
        check(&story.says().await, &[], case);
        story.rotate(Root, "root-1").await;
        let mut ids = std::collections::HashMap::new();
        for key in story.keys.load().unwrap() {
            let name = key.file.file_stem().unwrap().to_string_lossy().into_owned();
            ids.insert(name, hex::encode(key.id));
        }
        story.rotate(Root, "root-3").await;
        damage(&story, &|names, root| {
            let is_of = |signature: &Value| names.iter().any(|name| signature["keyid"] == *ids[*name]);
            root["signatures"].as_array_mut().unwrap().retain(|signature| !is_of(signature));
        });
        check(&story.says().await, words, case);
        assert_eq!(story.trusted("root"), if words.is_empty() { 3 } else { 1 }, "{case}");
    }
}

#[tokio::test]
async fn an_expired_root_leads_on_to_one_that_holds() {
    let mut story = Story::new().await;
    story.rotate_for(Root, "root-1", 0).await;
    check(&story.says().await, &["its root expired on"], "the last one expired");
    assert_eq!(story.trusted("root"), 2, "it was verified all the same");
    story.rotate(Root, "root-2").await;
    check(&story.says().await, &[], "one in the middle expired");
}

#[tokio::test]
async fn more_roots_than_are_taken_at_once_are_taken_one_check_after_the_other() {
    let mut story = Story::new().await;
    check(&story.says().await, &[], "the first");
    let mut key = "root-1".to_owned();
    for _ in 0..300 {
        story.rotate(Root, &key).await;
        fs::remove_file(story.place.path().join("keys").join(format!("{key}.key"))).unwrap();
        let next = story.place.path().join("keys").join(format!("{key}-next.key"));
        fs::rename(next, story.place.path().join("keys/current.key")).unwrap();
        key = "current".to_owned();
    }
    check(&story.says().await, &["maximum root updates"], "256 of them");
    check(&story.says().await, &[], "the rest");
    assert_eq!(story.trusted("root"), 301);
}

/// A thief has the keys of timestamp and snapshot, and raises versions so far that the maintainer's own ones look old.
#[tokio::test]
async fn a_box_that_was_fast_forwarded_recovers_when_the_keys_are_replaced() {
    for (case, rotations, power_cut, recovers) in [
        ("nothing is replaced", &[][..], false, false),
        ("a key of root", &[(Root, "root-1")], false, false),
        ("a key of targets", &[(Targets, "targets-1")], false, false),
        ("the timestamp's", &[(Timestamp, "timestamp")], false, true),
        ("the snapshot's", &[(Snapshot, "snapshot")], false, true),
        ("both", &[(Timestamp, "timestamp"), (Snapshot, "snapshot")], false, true),
        ("a power cut after the root", &[(Timestamp, "timestamp")], true, true),
        ("a power cut after the root, the snapshot's", &[(Snapshot, "snapshot")], true, true),
    ] {
        let mut story = Story::new().await;
        check(&story.says().await, &[], case);
        let honest = (story.editor.snapshot.clone(), story.editor.timestamp.clone());
        let far = NonZeroU64::new(1_000_000).unwrap();
        (story.editor.snapshot.version, story.editor.timestamp.version) = (far, far);
        story.refresh().await;
        check(&story.says().await, &[], "a thief with the keys is believed");
        assert_eq!((story.trusted("timestamp"), story.trusted("snapshot")), (1_000_001, 1_000_001));

        (story.editor.snapshot, story.editor.timestamp) = honest;
        story.refresh().await;
        check(&story.says().await, &["refused", "timestamp", "1000001"], case);
        for (role, old) in rotations {
            story.rotate(*role, old).await;
        }
        if power_cut {
            let trust = fs::read_dir(story.place.path().join("box/trust")).unwrap().next().unwrap().unwrap();
            fs::copy(story.metadata("2.root.json"), trust.path().join("root.json")).unwrap();
        }
        let words: &[&str] = if recovers { &[] } else { &["refused", "timestamp", "1000001"] };
        check(&story.says().await, words, case);
        if recovers {
            assert!(story.trusted("timestamp") < 10 && story.trusted("snapshot") < 10, "{case}");
            story.refresh().await;
            check(&story.says().await, &[], case);
        }
    }
}

#[tokio::test]
async fn a_mirror_cannot_take_a_box_back_behind_a_rotation() {
    let mut story = Story::new().await;
    let old = story.place.path().join("old");
    fs::create_dir(&old).unwrap();
    for name in ["1.root.json", "1.targets.json", "1.snapshot.json", "timestamp.json"] {
        fs::copy(story.metadata(name), old.join(name)).unwrap();
    }
    story.rotate(Timestamp, "timestamp").await;
    check(&story.says().await, &[], "the new timestamp");
    fs::remove_dir_all(story.metadata("")).unwrap();
    fs::rename(&old, story.repository().join("metadata")).unwrap();
    check(&story.says().await, &["refused", "timestamp", "threshold"], "from before the rotation");
}

#[tokio::test]
async fn a_rotation_that_cannot_be_signed_changes_nothing_and_says_why() {
    let mut story = Story::new().await;
    let keys = story.place.path().join("keys");
    let id = hex::encode(story.keys.open(&keys.join("targets-2.key")).unwrap().id);
    let new = keys.join("new.key");
    let rotation = |role, old: Option<&str>, new: &Path| Rotation {
        role,
        old: old.map(str::to_owned),
        new: new.to_owned(),
        passphrase: None,
        root_days: 30,
    };
    let taken = keys.join("targets-1.key");
    for (rotation, words) in [
        (rotation(Targets, None, &new), &["which key goes", "targets-2.key", id.as_str()][..]),
        (rotation(Targets, Some("zz"), &new), &["\"zz\" is none of its keys"]),
        (rotation(Targets, Some(""), &new), &["none of its keys"]),
        (rotation(Targets, keys.join("root-1.key").to_str(), &new), &["none of its keys"]),
        (rotation(Targets, Some(&id), &taken), &["targets-1.key is a key of targets already"]),
    ] {
        let said = story.editor.rotate(&rotation, &story.keys, EXPIRY).await.unwrap_err().to_string();
        check(&said, words, "a rotation");
    }
    fs::remove_file(keys.join("root-1.key")).unwrap();
    let lost = rotation(Targets, Some(&id[..8]), &new);
    story.editor.rotate(&lost, &story.keys, EXPIRY).await.unwrap(); // by id, and two of three are enough
    fs::remove_file(keys.join("root-2.key")).unwrap();
    let again = rotation(Snapshot, None, &keys.join("snapshot-2.key"));
    let said = story.editor.rotate(&again, &story.keys, EXPIRY).await.unwrap_err().to_string();
    check(&said, &["root", "2 keys", "only 1"], "too few keys of root");
    assert!(!story.metadata("3.root.json").exists());
    check(&story.says().await, &[], "what was there before");
}
