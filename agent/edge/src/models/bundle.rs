//! A bundle: one file that holds a model, its manifest and its golden pictures.
//!
//! It is a tar without compression: weights of a detector shrink by 8 % at most, JPEGs not at all, and nothing can be
//! packed into a small file that fills a disk. Whatever is no plain file under one of the known names is refused, so
//! that a bundle can write nowhere but into the folder that is made for it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sharp_eyes_vision::model::MODEL_MAX_BYTES;
use tar::{Archive, EntryType, Header};

/// Largest manifest, and largest expectation of a golden picture.
const TEXT_MAX_BYTES: u64 = 256 << 10;

/// Largest golden picture.
const PICTURE_MAX_BYTES: u64 = 4 << 20;

/// Most golden pictures: each is run on the box before the model is used.
const PICTURES_MAX: usize = 32;

/// Largest bundle.
pub const BUNDLE_MAX_BYTES: u64 =
    MODEL_MAX_BYTES + (PICTURES_MAX as u64) * (PICTURE_MAX_BYTES + TEXT_MAX_BYTES);

/// A golden picture and what is expected in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoldenFiles {
    /// A JPEG.
    pub picture: PathBuf,
    /// JSON of the same name, which need not be there yet.
    pub expected: PathBuf,
}

impl GoldenFiles {
    /// What the picture is called.
    pub fn name(&self) -> String {
        self.picture.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Writes a folder's model, manifest and golden pictures as a bundle. The same folder yields the same bytes.
pub fn pack(folder: &Path, bundle: &mut impl Write) -> Result<(), BundleError> {
    let mut tar = tar::Builder::new(bundle);
    let mut append = |name: &str, file: &Path| -> Result<(), BundleError> {
        let reading = |source| BundleError::Read { file: file.to_owned(), source };
        let bytes = read(file, limit(name).unwrap_or(0))?;
        let mut header = Header::new_ustar();
        header.set_path(name).map_err(reading)?;
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, bytes.as_slice()).map_err(BundleError::Write)
    };
    for name in ["manifest.toml", "model.onnx"] {
        append(name, &folder.join(name))?;
    }
    for golden in golden_files(folder)? {
        for file in [&golden.picture, &golden.expected] {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            append(&format!("golden/{name}"), file)?;
        }
    }
    tar.into_inner().and_then(Write::flush).map_err(BundleError::Write)
}

/// Unpacks a bundle into a folder that is not there yet. All of it is on the medium when this returns.
pub fn unpack(bundle: impl Read, folder: &Path) -> Result<(), BundleError> {
    let writing = |source| BundleError::Unpack { folder: folder.to_owned(), source };
    fs::create_dir(folder).map_err(writing)?;
    fs::create_dir(folder.join("golden")).map_err(writing)?;
    let mut archive = Archive::new(bundle);
    // Raw: headers that lend an entry another name or size are entries like any other, and refused.
    for entry in archive.entries().map_err(BundleError::Damaged)?.raw(true) {
        let mut entry = entry.map_err(BundleError::Damaged)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let size = entry.header().size().map_err(BundleError::Damaged)?;
        if entry.header().entry_type() != EntryType::Regular {
            return Err(BundleError::NoFile(name));
        }
        let limit = limit(&name).ok_or_else(|| BundleError::Unknown(name.clone()))?;
        if size > limit {
            return Err(BundleError::TooLarge { name, size, limit });
        }
        let file = match File::create_new(folder.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(BundleError::Twice(name));
            }
            file => file.map_err(writing)?,
        };
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let copied = io::copy(&mut entry, &mut file).map_err(writing)?;
        if copied != size {
            return Err(BundleError::Damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        let file = file.into_inner().map_err(|error| writing(error.into_error()))?;
        file.sync_all().map_err(writing)?;
    }
    for name in ["manifest.toml", "model.onnx"] {
        if !folder.join(name).is_file() {
            return Err(BundleError::Missing(name));
        }
    }
    golden_files(folder)?;
    for folder in [folder.join("golden"), folder.to_owned()] {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(writing)?;
    }
    Ok(())
}

/// The golden pictures of a folder, sorted. Anything else in `golden` is refused.
pub fn golden_files(folder: &Path) -> Result<Vec<GoldenFiles>, BundleError> {
    let golden = folder.join("golden");
    let reading = |source| BundleError::Read { file: golden.clone(), source };
    let (mut pictures, mut texts) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(&golden).map_err(reading)? {
        let path = entry.map_err(reading)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match limit(&format!("golden/{name}")) {
            Some(PICTURE_MAX_BYTES) => pictures.push(path),
            Some(_) => texts.push(path),
            None => return Err(BundleError::Unknown(format!("golden/{name}"))),
        }
    }
    pictures.sort();
    if pictures.len() > PICTURES_MAX {
        return Err(BundleError::ManyPictures(pictures.len()));
    }
    if let Some(text) = texts.iter().find(|text| !pictures.contains(&text.with_extension("jpg"))) {
        return Err(BundleError::Unknown(text.display().to_string()));
    }
    let files = |picture: PathBuf| GoldenFiles { expected: picture.with_extension("json"), picture };
    Ok(pictures.into_iter().map(files).collect())
}

/// The most bytes of an entry; `None` if no entry may have that name.
fn limit(name: &str) -> Option<u64> {
    match name {
        "manifest.toml" => return Some(TEXT_MAX_BYTES),
        "model.onnx" => return Some(MODEL_MAX_BYTES),
        _ => {}
    }
    let (stem, extension) = name.strip_prefix("golden/")?.rsplit_once('.')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !(1..=64).contains(&stem.len()) || !stem.bytes().all(plain) {
        return None;
    }
    match extension {
        "jpg" => Some(PICTURE_MAX_BYTES),
        "json" => Some(TEXT_MAX_BYTES),
        _ => None,
    }
}

/// A file of limited size.
pub(super) fn read(file: &Path, limit: u64) -> Result<Vec<u8>, BundleError> {
    let reading = |source| BundleError::Read { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(file).map_err(reading)?.take(limit + 1).read_to_end(&mut bytes).map_err(reading)?;
    if bytes.len() as u64 > limit {
        let name = file.display().to_string();
        return Err(BundleError::TooLarge { name, size: bytes.len() as u64, limit });
    }
    Ok(bytes)
}

/// This is no bundle, or a folder that makes none.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum BundleError {
    #[error(
        "{}: {source}; a bundle is made of manifest.toml, model.onnx and golden/ with NAME.jpg and NAME.json",
        file.display()
    )]
    Read { file: PathBuf, source: io::Error },
    #[error("the bundle cannot be written: {0}")]
    Write(io::Error),
    #[error("the bundle cannot be unpacked to {}: {source}", folder.display())]
    Unpack { folder: PathBuf, source: io::Error },
    #[error("the bundle is damaged: {0}")]
    Damaged(io::Error),
    #[error(
        "the bundle holds {0:?}, which it may not: only manifest.toml, model.onnx and golden/NAME.jpg with NAME.json, NAME of a-z, A-Z, 0-9, - and _"
    )]
    Unknown(String),
    #[error("{0:?} in the bundle is no plain file")]
    NoFile(String),
    #[error("{0:?} is twice in the bundle")]
    Twice(String),
    #[error("the bundle holds no {0}")]
    Missing(&'static str),
    #[error("{name:?} has {size} bytes; {limit} are the limit")]
    TooLarge { name: String, size: u64, limit: u64 },
    #[error("{0} golden pictures; {PICTURES_MAX} are the limit")]
    ManyPictures(usize),
}

impl BundleError {
    /// Whether the bundle is at fault, and will be the next time. Else this box could not read or write just now.
    pub fn is_of_the_bundle(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Damaged(error) => error.raw_os_error().is_none(),
            Self::Write(_) | Self::Unpack { .. } => false,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("golden")).unwrap();
        for (name, content) in [
            ("manifest.toml", "name"),
            ("model.onnx", "graph"),
            ("golden/a.jpg", "jpeg"),
            ("golden/a.json", "{}"),
        ] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    #[test]
    fn what_is_packed_is_unpacked_and_packs_to_the_same_bytes() {
        let (from, to) = (folder(), tempfile::tempdir().unwrap());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        pack(from.path(), &mut first).unwrap();
        unpack(first.as_slice(), &to.path().join("slot")).unwrap();
        pack(&to.path().join("slot"), &mut second).unwrap();
        assert_eq!(first, second);
        assert_eq!(fs::read(to.path().join("slot/golden/a.jpg")).unwrap(), b"jpeg");
    }

    #[test]
    fn a_folder_that_makes_no_bundle_is_refused_with_what_is_wrong() {
        for (name, content, said) in [
            ("golden/who is it.jpg", "", "golden/who is it.jpg"),
            ("golden/b.json", "{}", "b.json"),
            ("golden/b.png", "", "golden/b.png"),
        ] {
            let folder = folder();
            fs::write(folder.path().join(name), content).unwrap();
            let error = pack(folder.path(), &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let folder = folder();
        fs::remove_file(folder.path().join("model.onnx")).unwrap();
        let error = pack(folder.path(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("model.onnx") && error.contains("a bundle is made of"), "{error}");
    }

    /// A tar of entries as an attacker may write them: name, type, size that the header claims, content.
    fn tar(entries: &[(&str, EntryType, u64, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, kind, size, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(*size);
            header.set_mode(0o644);
            header.set_cksum();
            bytes.extend(header.as_bytes());
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.extend([0; 1024]);
        bytes
    }

    #[test]
    fn a_hostile_bundle_writes_nothing_outside_and_is_refused_with_its_reason() {
        use EntryType::{Link, Regular, Symlink, XHeader};
        let good: [(&str, EntryType, u64, &[u8]); 2] =
            [("manifest.toml", Regular, 1, b"m"), ("model.onnx", Regular, 1, b"o")];
        let with = |entry: (&'static str, EntryType, u64, &'static [u8])| tar(&[good[0], good[1], entry]);
        let whole = tar(&good);
        for (bundle, said) in [
            (whole.clone(), ""),
            (with(("../evil", Regular, 1, b"x")), "\"../evil\", which it may not"),
            (with(("/tmp/evil", Regular, 1, b"x")), "\"/tmp/evil\", which it may not"),
            (with(("golden/../../evil.jpg", Regular, 1, b"x")), "which it may not"),
            (with(("golden/a/b.jpg", Regular, 1, b"x")), "which it may not"),
            (with(("golden/.jpg", Regular, 1, b"x")), "which it may not"),
            (with(("run.sh", Regular, 1, b"x")), "which it may not"),
            (with(("golden/a.jpg", Symlink, 0, b"")), "no plain file"),
            (with(("golden/a.jpg", Link, 0, b"")), "no plain file"),
            (with(("golden/a.jpg", XHeader, 1, b"x")), "no plain file"),
            (with(("model.onnx", Regular, 1, b"x")), "twice"),
            (with(("golden/a.jpg", Regular, 1 << 40, b"x")), "bytes; 4194304 are the limit"),
            (with(("golden/a.jpg", Regular, 4000, b"x")), "damaged"),
            (with(("golden/a.json", Regular, 1, b"x")), "a.json"),
            (tar(&good[..1]), "holds no model.onnx"),
            (whole[..700].to_vec(), "damaged"),
            (whole[..1024].to_vec(), "holds no model.onnx"),
            (b"<html>not found</html>".to_vec(), "damaged"),
            (Vec::new(), "holds no manifest.toml"),
        ] {
            let place = tempfile::tempdir().unwrap();
            let slot = place.path().join("above/slot");
            fs::create_dir(place.path().join("above")).unwrap();
            let error = unpack(bundle.as_slice(), &slot).err();
            assert!(error.as_ref().is_none_or(BundleError::is_of_the_bundle), "{error:?}");
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(said) && error.is_empty() == said.is_empty(), "{error:?} is not {said:?}");
            for outside in [place.path().join("evil"), place.path().join("above/evil"), "/tmp/evil".into()] {
                assert!(!outside.exists(), "{}", outside.display());
            }
        }
    }

    /// A medium that fails after some bytes, as EIO does.
    struct Failing<'a>(&'a [u8]);

    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::Error::from_raw_os_error(5)) } else { self.0.read(buffer) }
        }
    }

    #[test]
    fn what_the_disk_does_is_not_the_bundles_fault() {
        let (from, place) = (folder(), tempfile::tempdir().unwrap());
        let mut bundle = Vec::new();
        pack(from.path(), &mut bundle).unwrap();
        let nowhere = place.path().join("above/slot");
        let mut errors = vec![unpack(bundle.as_slice(), &nowhere).unwrap_err()];
        for bytes in [100, 700] {
            let slot = place.path().join(bytes.to_string());
            errors.push(unpack(Failing(&bundle[..bytes]), &slot).unwrap_err());
        }
        for error in errors {
            assert!(!error.is_of_the_bundle(), "{error}");
        }
    }
}
