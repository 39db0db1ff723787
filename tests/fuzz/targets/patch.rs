//! What leads from one bundle to the next, from a mirror: no more comes out of it than its metadata say, in whatever memory
//! it asks for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sharp_eyes_agent::models::patch;

fuzz_target!(|input: (&[u8], &[u8], u16)| {
    let (old, bytes, length) = input;
    let mut new = Vec::new();
    let applied = patch::apply(old, bytes, u64::from(length), &mut new);
    assert!(new.len() <= usize::from(length), "{} of {length} bytes", new.len());
    assert_eq!(applied.is_ok(), new.len() == usize::from(length), "{applied:?}");
    let Ok(Some(made)) = patch::make(old, bytes) else { return };
    let mut again = Vec::new();
    patch::apply(old, made.as_slice(), bytes.len() as u64, &mut again).expect("what was made can be applied");
    assert_eq!(again, bytes);
});
