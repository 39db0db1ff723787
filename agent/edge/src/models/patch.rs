//! A bundle as what is new in it: zstd with the bundle before for a dictionary, as `zstd --patch-from` makes it.
//!
//! Both are held in memory while it is made and while it is applied; larger bundles travel whole. A patch is trusted no more
//! than any other file: what comes out of it is compared with what is signed for the bundle.

use std::io::{self, BufRead, Read, Write};

use zstd::stream::{read, write};

/// Bundles that are patched: two of them fit into the memory of the smallest box.
pub const PATCHED_MAX_BYTES: u64 = 64 << 20;

/// A patch has to be shorter than this part of the bundle: else it is not worth its place in the repository.
const WORTH: f64 = 0.7;

/// Higher ones take minutes for a few percent.
const LEVEL: i32 = 12;

/// What leads from one bundle to the next, if that is worth it.
pub fn make(old: &[u8], new: &[u8]) -> io::Result<Option<Vec<u8>>> {
    if old.len().max(new.len()) as u64 > PATCHED_MAX_BYTES {
        return Ok(None);
    }
    let mut encoder = write::Encoder::with_ref_prefix(Vec::new(), LEVEL, old)?;
    encoder.window_log(window(old.len() + new.len()))?;
    encoder.long_distance_matching(true)?;
    encoder.write_all(new)?;
    let patch = encoder.finish()?;
    Ok(Some(patch).filter(|patch| (patch.len() as f64) < WORTH * new.len() as f64))
}

/// Writes what a patch leads to, and no more than `length` bytes of it.
pub fn apply(old: &[u8], patch: impl BufRead, length: u64, new: &mut impl Write) -> io::Result<()> {
    let mut decoder = read::Decoder::with_ref_prefix(patch, old)?;
    decoder.window_log_max(window(2 * PATCHED_MAX_BYTES as usize))?;
    let written = io::copy(&mut decoder.take(length), new)?;
    if written < length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{written} of {length} bytes")));
    }
    Ok(())
}

/// The logarithm of a window that reaches back over so many bytes.
fn window(bytes: usize) -> u32 {
    bytes.next_power_of_two().ilog2().clamp(10, 27)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights that do not repeat.
    fn weights(seed: u64, bytes: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..bytes).map(|_| random.u8(..)).collect()
    }

    fn applied(old: &[u8], patch: &[u8], length: u64) -> io::Result<Vec<u8>> {
        let mut new = Vec::new();
        apply(old, patch, length, &mut new).map(|()| new)
    }

    #[test]
    fn a_patch_leads_to_the_bundle_and_is_as_long_as_what_is_new() {
        let old = weights(1, 3 << 20);
        let mut new = old.clone();
        new[1 << 20..][..300_000].copy_from_slice(&weights(2, 300_000)); // a layer that was trained on
        new.splice(100..100, *b"a longer manifest");
        let patch = make(&old, &new).unwrap().unwrap();
        assert!((300_000..310_000).contains(&patch.len()), "{} bytes", patch.len());
        assert_eq!(applied(&old, &patch, new.len() as u64).unwrap(), new);
        assert_eq!(make(&old, &weights(3, 3 << 20)).unwrap(), None, "nothing in common");
    }

    #[test]
    fn a_patch_for_another_bundle_or_of_another_length_is_no_way_to_fill_a_disk() {
        let old = weights(1, 1 << 20);
        let patch = make(&old, &[&old[..], b"more"].concat()).unwrap().unwrap();
        let length = old.len() as u64 + 4;
        assert!(applied(&old, &patch[..patch.len() / 2], length).is_err());
        assert!(applied(&old, &patch, length + 1).is_err());
        assert_eq!(applied(&old, &patch, 10).unwrap().len(), 10);
        // Another base yields something else, or nothing: the hash of the bundle tells.
        assert!(applied(&weights(2, 1 << 20), &patch, length).map_or(true, |new| new[..100] != old[..100]));
        let endless = make(&[], &vec![0; 50 << 20]).unwrap().unwrap();
        assert!(endless.len() < 10_000);
        assert_eq!(applied(&[], &endless, 1000).unwrap().len(), 1000);
    }
}
