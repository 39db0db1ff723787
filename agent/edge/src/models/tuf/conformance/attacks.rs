//! The attacks that Uptane's demonstration names, against the client of a box, and where each is tried:
//!
//! | attack | tried by |
//! | --- | --- |
//! | arbitrary software | below, for configurations; `tests/e2e/updates/hostile.rs` for models: a forged timestamp, another maintainer's repository, one key of three, another bit |
//! | rollback | [`super::metadata`]: `no_version_goes_back_though_it_is_signed`; [`super::keys`]: `a_mirror_cannot_take_a_box_back_behind_a_rotation` |
//! | fast-forward | [`super::keys`]: `a_box_that_was_fast_forwarded_recovers_when_the_keys_are_replaced` |
//! | freeze | [`super::metadata`]: `whatever_has_expired_is_refused_by_its_name` |
//! | endless data | `hostile.rs`: a bundle and a timestamp without an end; here: a configuration |
//! | slow retrieval | here |
//! | mix-and-match, mixed bundles | [`super::metadata`]: `lengths_and_hashes_count_where_they_are_said`; `hostile.rs`: targets from yesterday with a snapshot from today; here: one box's configuration for another |
//! | a stolen key | `hostile.rs`: `a_box_recovers_from_stolen_keys_when_the_maintainer_replaces_them`; [`super::keys`]: `a_key_that_was_replaced_signs_nothing_more` |

use std::time::{Duration, Instant};

use super::super::transport::Pace;
use super::*;

/// A box, and a repository with a configuration for it and one for its neighbour.
async fn configured() -> (Story, Repository) {
    let mut story = Story::new().await;
    let Story { editor, keys, place } = &mut story;
    for name in ["box-1", "box-2"] {
        let file = place.path().join(format!("{name}.toml"));
        fs::write(&file, format!("[delivery] # of {name}\npictures = \"always\"\n")).unwrap();
        let boxes = format!("lan-xi/yun-shan/wang-cun/{name}").parse().unwrap();
        editor.configure(name, boxes, &file, keys, EXPIRY).await.unwrap();
    }
    let repository = story.ask().await.unwrap();
    assert_eq!(repository.configurations.len(), 2);
    (story, repository)
}

async fn fetches(story: &Story, repository: &Repository, name: &str) -> Result<String, String> {
    let offer = repository.configurations.iter().find(|offer| offer.name == name).unwrap();
    let file = story.place.path().join("fetched");
    let fetch = Fetch { rate: None, progress: &mut |_| {} };
    let fetched = repository.fetch_configuration(offer, &file, fetch).await;
    fetched.map_err(|error| error.to_string()).map(|()| fs::read_to_string(&file).unwrap())
}

fn target(story: &Story, name: &str) -> PathBuf {
    let files = fs::read_dir(story.repository().join("targets")).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path());
    files.find(|file| file.to_string_lossy().contains(name)).unwrap()
}

#[tokio::test]
async fn arbitrary_software_and_mix_and_match_a_configuration_is_what_was_signed_for_this_box() {
    let (story, repository) = configured().await;
    let own = fetches(&story, &repository, "box-1").await.unwrap();
    assert!(own.contains("of box-1"), "{own}");
    fs::write(target(&story, ".box-1-"), own.replace("always", "never!")).unwrap();
    check(
        &fetches(&story, &repository, "box-1").await.unwrap_err(),
        &["refused", "box-1", "hash"],
        "another bit",
    );
    fs::copy(target(&story, ".box-2-"), target(&story, ".box-1-")).unwrap();
    check(
        &fetches(&story, &repository, "box-1").await.unwrap_err(),
        &["refused", "box-1", "hash"],
        "its neighbour's",
    );
}

#[tokio::test]
async fn endless_data_a_configuration_ends_where_it_was_signed_to_end() {
    let (story, repository) = configured().await;
    let file = target(&story, ".box-1-");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    check(&fetches(&story, &repository, "box-1").await.unwrap_err(), &["refused", "maximum size"], "no end");
}

#[test]
fn slow_retrieval_a_server_that_trickles_is_given_up() {
    let start = Instant::now();
    let gives_up = |bytes: u64, every: u64| {
        let mut pace = Pace { since: start, bytes: 0 };
        let mut seconds = (1..600).map(|n| n * every).take_while(|second| *second < 600);
        seconds.find(|second| pace.is_too_slow(bytes, start + Duration::from_secs(*second)))
    };
    for (bytes, every, given_up) in [
        (1, 1, Some(60)),
        (1, 29, Some(87)), // faster than any patience with silence
        (272, 1, Some(60)),
        (1024, 1, None), // the slowest rate that a box may be told
        (8000, 29, None),
    ] {
        assert_eq!(gives_up(bytes, every), given_up, "{bytes} bytes every {every} s");
    }
}
