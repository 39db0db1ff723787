//! The file that keeps an encoded clip: one line of JSON, then for each access unit its length (4 bytes, little endian),
//! whether it is a keyframe and, times two, its delay (1 byte), and its bytes.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{AccessUnit, Codec, Encoding, Footage, Reel};

/// Part of the name of a cache file: change it when the way of encoding changes.
const RECIPE: u32 = 3;

/// Unlike for another clip, another version of the clip, or another way of encoding it.
pub(super) fn name(clip: &Path, reel: &Reel, encoding: &Encoding) -> Result<PathBuf> {
    let about = clip.metadata()?;
    let way = format!("{reel} {encoding:?}");
    let mut hash = DefaultHasher::new();
    (RECIPE, clip.canonicalize()?, about.len(), about.modified()?, way).hash(&mut hash);
    let stem = clip.file_stem().unwrap_or_default().to_string_lossy();
    Ok(format!("{stem}-{:016x}.access-units", hash.finish()).into())
}

pub(super) fn write(footage: &Footage, file: &Path) -> Result<()> {
    let folder = file.parent().context("a cache file lies in a folder")?;
    std::fs::create_dir_all(folder)?;
    let mut out = BufWriter::new(tempfile::NamedTempFile::new_in(folder)?);
    let head = serde_json::json!({
        "frame_time_ns": footage.frame_time.as_nanos() as u64, "width": footage.size.0, "height": footage.size.1,
        "access_units": footage.access_units.len(),
    });
    writeln!(out, "{head}")?;
    for unit in &footage.access_units {
        out.write_all(&(unit.bytes.len() as u32).to_le_bytes())?;
        out.write_all(&[u8::from(unit.keyframe) | unit.delay << 1])?;
        out.write_all(&unit.bytes)?;
    }
    // Several cameras may encode the same clip at once: the last one wins, and no reader sees half a file.
    out.into_inner()?.persist(file)?;
    Ok(())
}

pub(super) fn read(file: &Path, codec: Codec) -> Result<Footage> {
    let mut input = BufReader::new(File::open(file)?);
    let head: serde_json::Value = {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut input, &mut line)?;
        serde_json::from_str(&line)?
    };
    let number = |key: &str| head[key].as_u64().with_context(|| format!("no {key}"));
    let mut access_units = Vec::new();
    for _ in 0..number("access_units")? {
        let mut about = [0; 5];
        input.read_exact(&mut about)?;
        let [a, b, c, d, flags] = about;
        let mut bytes = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
        input.read_exact(&mut bytes)?;
        access_units.push(AccessUnit { keyframe: flags & 1 == 1, delay: flags >> 1, bytes });
    }
    let size = (number("width")? as u32, number("height")? as u32);
    Ok(Footage { codec, frame_time: Duration::from_nanos(number("frame_time_ns")?), size, access_units })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_gives_back_what_it_got() {
        let unit = |n: u8| AccessUnit {
            keyframe: n.is_multiple_of(4),
            delay: n % 3,
            bytes: vec![n; usize::from(n)],
        };
        let access_units = (0..10).map(unit).collect();
        let footage = Footage {
            codec: Codec::H265,
            frame_time: Duration::from_millis(100),
            size: (4, 2),
            access_units,
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deeper/x.access-units");
        write(&footage, &file).unwrap();
        let read = read(&file, Codec::H265).unwrap();
        assert_eq!(read.access_units, footage.access_units);
        assert_eq!((read.frame_time, read.size), (footage.frame_time, footage.size));
    }
}
