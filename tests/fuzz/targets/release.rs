//! What a repository says of a bundle, and whether a box takes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharp_eyes_agent::models::choice::{Choice, choose, withdrawn};
use sharp_eyes_agent::models::release::{Channel, Release};
use sharp_eyes_agent::models::state::State;

fuzz_target!(|bytes: &[u8]| {
    let Ok(release) = serde_json::from_slice::<Release>(bytes) else { return };
    let (releases, nothing) = (std::slice::from_ref(&release), State::default());
    for place in 0..100 {
        let choice = choose(releases, &[], Channel::Stable, place, &nothing);
        let offered = place < release.rollout.stable && release.revoked.is_none() && release.number > 0;
        assert_eq!(matches!(choice, Choice::Install(_)), offered, "{choice:?}");
    }
    let why = withdrawn(releases, &[], &release);
    assert!(why.is_some() || release.revoked.is_none(), "what is revoked may not run");
});
