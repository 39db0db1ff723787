//! Mirrors that lie, and thieves with keys.

use super::*;

/// The target whose name ends like that.
fn target(repository: &Path, ending: &str) -> Result<PathBuf> {
    let mut files = fs::read_dir(repository.join("targets"))?.filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|file| file.to_string_lossy().ends_with(ending)).with_context(|| format!("no target {ending}"))
}

fn flip(file: PathBuf) -> Result<()> {
    let mut bytes = fs::read(&file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(fs::write(file, bytes)?)
}

#[test]
fn a_new_version_comes_as_a_patch_and_whole_where_that_is_damaged() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        let village = quiet(&folder.join("box"), &maintainer)?;
        maintainer.publish("1.1.0")?;
        maintainer::take(&village, &maintainer.repository)?;
        for (version, before, damage) in
            [("1.2.0", "1.1.0", &["-1.2.0.bundle"][..]), ("1.3.0", "1.2.0", &["-1.2.0.patch"])]
        {
            set_kept(&village)?;
            maintainer.publish(version)?;
            let mirror = folder.join(version);
            Tree::read(&maintainer.repository)?.write(&mirror)?;
            for ending in damage {
                flip(target(&mirror, ending)?)?;
            }
            let bytes = |ending: &str| Ok::<_, anyhow::Error>(fs::metadata(target(&mirror, ending)?)?.len());
            let patch = bytes(&format!("-{before}.patch"))?;
            ensure!(
                patch < bytes(&format!("-{version}.bundle"))? / 100,
                "a new manifest takes {patch} bytes"
            );
            let (taken, said) = maintainer::import(&village, &mirror)?;
            ensure!(taken && said.contains(&format!("{version} is the active model")), "{version}: {said}");
        }
        Ok(())
    });
}

/// What an attacker does to a copy of the repository, and what the box says to it.
type Attack<'a> = (&'a str, &'a dyn Fn(&Path) -> Result<()>, &'a [&'a str]);

#[test]
fn what_a_hostile_mirror_does_is_noticed_and_changes_nothing() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        maintainer.publish("1.1.0")?;
        let old = Tree::read(&maintainer.repository)?;
        let village = quiet(&folder.join("box"), &maintainer)?;
        maintainer::take(&village, &maintainer.repository)?;
        set_kept(&village)?;
        // The box has seen newer metadata since, and so knows what yesterday's are.
        maintainer.repo("refresh", &[])?;
        says(&maintainer::import(&village, &maintainer.repository)?.1, &["nothing for this box"])?;
        maintainer.publish("1.2.0")?;
        let metadata = |mirror: &Path, name: &str| mirror.join("metadata").join(name);
        // Without the patch that leads there, which would do as well.
        let newest_bundle = |mirror: &Path| -> Result<PathBuf> {
            if let Ok(patch) = target(mirror, ".patch") {
                fs::remove_file(patch)?;
            }
            target(mirror, "-1.2.0.bundle")
        };
        let attacks: [Attack; 11] = [
            ("a forged timestamp", &|m| flip(metadata(m, "timestamp.json")), &["timestamp"]),
            (
                "another maintainer's repository",
                &|m| {
                    fs::remove_dir_all(m)?;
                    let place = m.with_extension("theirs");
                    fs::create_dir(&place)?;
                    Ok(fs::rename(Maintainer::new(&place)?.repository, m)?)
                },
                &["refused", "timestamp", "signature threshold"],
            ),
            (
                "a thief with one key of three",
                &|m| {
                    let place = m.with_extension("loot");
                    fs::create_dir(&place)?;
                    for key in ["targets-2.key", "snapshot.key", "timestamp.key"] {
                        fs::copy(maintainer.keys.join(key), place.join(key))?;
                    }
                    steal(m, &place, &maintainer)
                },
                &["refused", "targets", "signature threshold"],
            ),
            (
                "an expired timestamp",
                &|m| {
                    let theirs = Maintainer { repository: m.to_owned(), ..maintainer.clone() };
                    theirs.repo("refresh", &["--timestamp-days".as_ref(), "0".as_ref()]).map(drop)
                },
                &["its timestamp expired on", "this box's clock says", "repo refresh"],
            ),
            ("metadata from yesterday", &|m| old.write(m), &["refused", "timestamp", "version"]),
            (
                "targets from yesterday with a snapshot from today",
                &|m| {
                    let names = names(m, ".targets.json")?;
                    let [.., before, last] = &names[..] else { anyhow::bail!("{names:?}") };
                    Ok(fs::copy(metadata(m, before), metadata(m, last)).map(drop)?)
                },
                &["refused", "targets.json", "hash"],
            ),
            ("a bundle with another bit", &|m| flip(newest_bundle(m)?), &["refused", "1.2.0.bundle", "hash"]),
            (
                "a bundle without its end",
                &|m| {
                    let file = newest_bundle(m)?;
                    let bytes = fs::read(&file)?;
                    Ok(fs::write(file, &bytes[..bytes.len() - 512])?)
                },
                &["refused", "1.2.0.bundle"],
            ),
            (
                "a bundle without an end",
                &|m| {
                    let file = newest_bundle(m)?;
                    fs::remove_file(&file)?;
                    Ok(std::os::unix::fs::symlink("/dev/zero", file)?)
                },
                &["refused", "Maximum size", "exceeded"],
            ),
            (
                "a timestamp without an end",
                &|m| {
                    let file = metadata(m, "timestamp.json");
                    fs::remove_file(&file)?;
                    Ok(std::os::unix::fs::symlink("/dev/zero", file)?)
                },
                &["refused", "max_timestamp_size"],
            ),
            ("no bundle", &|m| Ok(fs::remove_file(newest_bundle(m)?)?), &["1.2.0.bundle", "file not found"]),
        ];
        for (n, (attack, does, words)) in attacks.iter().enumerate() {
            let mirror = folder.join(format!("mirror-{n}"));
            Tree::read(&maintainer.repository)?.write(&mirror)?;
            does(&mirror).context(attack.to_string())?;
            let (taken, said) = maintainer::import(&village, &mirror)?;
            ensure!(!taken, "{attack}: {said}");
            says(&said, words).context(attack.to_string())?;
            let status = maintainer::status(&village)?;
            ensure!(status["active"]["release"]["model"] == "village-detector@1.1.0", "{attack}: {status}");
            ensure!(status["repository"].is_string(), "{attack} is not reported: {status}");
            ensure!(
                status["refused"].as_array().is_some_and(Vec::is_empty),
                "{attack} is no fault of the model"
            );
        }
        let (taken, said) = maintainer::import(&village, &maintainer.repository)?;
        ensure!(taken, "the honest repository after all that: {said}");
        Ok(())
    });
}

/// Two of three keys of targets, and those of snapshot and timestamp, are stolen: the thief's model is one like any other
/// until the keys are replaced. Then every box goes back to what the maintainer vouches for, and hears no more of the thief,
/// however high he raised his versions.
#[test]
fn a_box_recovers_from_stolen_keys_when_the_maintainer_replaces_them() {
    play(|folder| {
        let maintainer = Maintainer::new(folder)?;
        maintainer.publish("1.1.0")?;
        let village = quiet(&folder.join("box"), &maintainer)?;
        let takes = |repository: &Path| maintainer::import(&village, repository);
        ensure!(takes(&maintainer.repository)?.0, "1.1.0");
        set_kept(&village)?;

        let place = folder.join("thief");
        let thief =
            Maintainer { repository: place.join("mirror"), keys: place.join("loot"), folder: place.clone() };
        fs::create_dir_all(&thief.keys)?;
        for key in ["targets-1.key", "targets-2.key", "snapshot.key", "timestamp.key"] {
            fs::copy(maintainer.keys.join(key), thief.keys.join(key))?;
        }
        Tree::read(&maintainer.repository)?.write(&thief.repository)?;
        publish_unchecked(&thief, &thief.model("6.6.6", str::to_owned)?, "6.6.6")?;
        for _ in 0..9 {
            thief.repo("refresh", &[])?;
        }
        let (taken, said) = takes(&thief.repository)?;
        ensure!(taken && said.contains("6.6.6 is the active model"), "{said}");
        set_kept(&village)?;
        says(&takes(&maintainer.repository)?.1, &["refused", "timestamp", "version"])?;

        for (role, key) in [
            ("targets", "targets-1"),
            ("targets", "targets-2"),
            ("snapshot", "snapshot"),
            ("timestamp", "timestamp"),
        ] {
            let old = maintainer.keys.join(format!("{key}.key"));
            let new = maintainer.keys.join(format!("{key}-2026.key"));
            let arguments: [&OsStr; 5] =
                [role.as_ref(), "--old".as_ref(), old.as_ref(), "--new".as_ref(), new.as_ref()];
            says(&maintainer.repo("rotate-key", &arguments)?, &["signs no more"])?;
            fs::remove_file(old)?;
        }
        let (taken, said) = takes(&maintainer.repository)?;
        ensure!(taken, "{said}");
        says(&said, &["taken back", "does not know it any more"])?;
        ensure!(maintainer::status(&village)?["active"]["release"]["model"] == "village-detector@1.1.0");
        maintainer.repo("refresh", &[])?;
        says(&takes(&maintainer.repository)?.1, &["nothing for this box"])?;
        thief.repo("refresh", &[])?;
        says(&takes(&thief.repository)?.1, &["refused", "threshold"])?;
        // A box that knows nothing but the first root.
        let verified = maintainer.does([
            OsStr::new("repo"),
            "verify".as_ref(),
            maintainer.repository.as_ref(),
            "--root".as_ref(),
            maintainer.root().as_ref(),
        ])?;
        says(&verified, &["1 releases, all as signed"])
    });
}

/// The files of a repository's metadata with an ending, by their version.
fn names(repository: &Path, ending: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(repository.join("metadata"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(ending) {
            names.push(name);
        }
    }
    names.sort_by_key(|name| name.split('.').next().and_then(|version| version.parse::<u64>().ok()));
    Ok(names)
}

/// A thief has one of the keys of targets, and those of snapshot and timestamp. He makes a repository of his own whose root
/// is content with one signature, in the place of the true one, and raises its versions above those of the true one.
fn steal(mirror: &Path, loot: &Path, victim: &Maintainer) -> Result<()> {
    fs::remove_dir_all(mirror)?;
    let all = loot.join("all");
    fs::create_dir(&all)?;
    for entry in fs::read_dir(&victim.keys)? {
        let file = entry?.path();
        fs::copy(&file, all.join(file.file_name().context("a key without a name")?))?;
    }
    let thief = Maintainer { repository: mirror.to_owned(), keys: loot.to_owned(), ..victim.clone() };
    let init: [&OsStr; 7] = [
        "repo".as_ref(),
        "init".as_ref(),
        mirror.as_ref(),
        "--threshold".as_ref(),
        "1".as_ref(),
        "--keys".as_ref(),
        all.as_ref(),
    ];
    thief.does(init)?;
    let model = thief.model("6.6.6", str::to_owned)?;
    publish_unchecked(&thief, &model, "6.6.6")?;
    for _ in 0..8 {
        thief.rollout("6.6.6", &["--stable", "100"])?;
    }
    Ok(())
}
