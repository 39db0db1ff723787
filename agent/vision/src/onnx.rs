//! ONNX Runtime, loaded at run time. The only file that names the crate `ort`.

use std::path::Path;

/// The loaded library. Cheap to clone; a process has one.
#[derive(Clone, Debug)]
pub struct Runtime {}

impl Runtime {
    /// Loads ONNX Runtime's shared library.
    pub fn load(_library: &Path) -> Result<Self, OnnxError> {
        todo!()
    }

    /// The library's version, like `1.32.0`.
    pub fn version(&self) -> &str {
        todo!()
    }

    /// The execution providers that the library was built with, in its own order of preference.
    pub fn providers(&self) -> &[String] {
        todo!()
    }
}

/// ONNX Runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {}
