//! ONNX Runtime, loaded at run time. The only file that names the crate `ort`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::ExecutionProvider;
use ort::session::SessionOutputs;
use ort::session::builder::SessionBuilder;
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};

/// The loaded library. Cheap to clone; a process has one.
#[derive(Clone, Debug)]
pub struct Runtime {
    library: PathBuf,
    environment: Environment,
    version: String,
    providers: Vec<String>,
}

/// ONNX Runtime takes one environment per process and none after it, so that the first one is kept for good.
static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

impl Runtime {
    /// Loads ONNX Runtime's shared library. A second call with the same file yields the same runtime.
    pub fn load(library: &Path) -> Result<Self, OnnxError> {
        let path = library
            .canonicalize()
            .map_err(|source| OnnxError::Missing { library: library.to_owned(), source })?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            return if runtime.library == path {
                Ok(runtime.clone())
            } else {
                Err(OnnxError::Second { library: path, first: runtime.library.clone() })
            };
        }
        let unusable = |reason: String| OnnxError::Unusable { library: path.clone(), reason };
        let environment = ort::init_from(&path)
            .map_err(|error| unusable(error.to_string()))?
            .with_name("sharp-eyes")
            .with_telemetry(false)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let providers = providers().map_err(|error| unusable(error.to_string()))?;
        let version = version(&path).unwrap_or_else(|| ort::info().to_owned());
        let runtime = Self { library: path, environment, version, providers };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// The library's version, like `1.32.0`, or how it describes its build where it names none.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The execution providers of interest that the library was built with. Sessions use the CPU's.
    pub fn providers(&self) -> &[String] {
        &self.providers
    }

    /// Prepares a model to be run with `threads` threads.
    pub fn session(&self, model: &[u8], threads: usize) -> Result<Session, OnnxError> {
        let open = || -> ort::Result<Session> {
            let inner = SessionBuilder::new(&self.environment)?
                .with_intra_threads(threads)?
                .with_inter_threads(1)?
                // Spinning threads answer a few microseconds earlier and heat the box for the rest of the second.
                .with_intra_op_spinning(false)?
                .commit_from_memory(model)?;
            let inputs = inner.inputs().iter().map(TensorInfo::new).collect();
            let outputs = inner.outputs().iter().map(TensorInfo::new).collect();
            let metadata = {
                let metadata = inner.metadata()?;
                let keys = metadata.custom_keys()?;
                keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect()
            };
            Ok(Session { inner, inputs, outputs, metadata })
        };
        open().map_err(|error| OnnxError::Model(error.to_string()))
    }
}

/// A model, ready to run. Running needs it for itself: one per thread.
pub struct Session {
    inner: ort::session::Session,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    metadata: BTreeMap<String, String>,
}

impl Session {
    /// What the graph takes.
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// What the graph yields.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// The file's own key and value pairs.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Runs the graph on its one input.
    pub fn run(&mut self, input: &[f32], shape: [usize; 4]) -> Result<Outputs<'_>, OnnxError> {
        let input = TensorRef::from_array_view((shape, input)).map_err(|e| OnnxError::Run(e.to_string()))?;
        let outputs = self.inner.run(ort::inputs![input]).map_err(|e| OnnxError::Run(e.to_string()))?;
        Ok(Outputs(outputs))
    }
}

/// What one run yielded.
pub struct Outputs<'s>(SessionOutputs<'s>);

impl Outputs<'_> {
    /// The numbers of the only output, if it has exactly this shape.
    pub fn only(&self, shape: &[usize]) -> Result<&[f32], OnnxError> {
        let name = self.0.keys().next().unwrap_or_default();
        self.tensor(name, shape)
    }

    /// The numbers of one output, if it has exactly this shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<&[f32], OnnxError> {
        let unlike =
            |found: String| OnnxError::Output { name: name.to_owned(), shape: shape.to_vec(), found };
        let value = self.0.get(name).ok_or_else(|| unlike("no such output".into()))?;
        let (found, data) = value.try_extract_tensor::<f32>().map_err(|error| unlike(error.to_string()))?;
        if found.len() == shape.len() && found.iter().zip(shape).all(|(&found, &side)| found == side as i64) {
            Ok(data)
        } else {
            Err(unlike(found.to_string()))
        }
    }
}

/// One input or output of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The graph's name for it.
    pub name: String,
    /// Type of its elements, like `f32`; where it is no tensor, what it is instead.
    pub element: String,
    /// Its sides; -1 where the graph leaves one open.
    pub shape: Vec<i64>,
}

impl TensorInfo {
    fn new(outlet: &Outlet) -> Self {
        let name = outlet.name().to_owned();
        match outlet.dtype() {
            ValueType::Tensor { ty, shape, .. } => {
                Self { name, element: ty.to_string(), shape: shape.to_vec() }
            }
            other => Self { name, element: other.to_string(), shape: Vec::new() },
        }
    }

    /// Whether it holds numbers of the type that this crate computes with.
    pub fn is_f32(&self) -> bool {
        self.element == TensorElementType::Float32.to_string()
    }
}

impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.name, self.element, self.shape)
    }
}

/// The release that a library calls itself. `ort` keeps the version to itself, but every Linux build of ONNX
/// Runtime exports its symbols under the version `VERS_<release>`, which stands near the start of the file.
fn version(library: &Path) -> Option<String> {
    const MARK: &[u8] = b"VERS_";
    let mut start = Vec::new();
    File::open(library).ok()?.take(4 << 20).read_to_end(&mut start).ok()?;
    let release = start.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let release: String = start[release..]
        .iter()
        .map(|&b| char::from(b))
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    (!release.is_empty()).then_some(release)
}

/// Declares execution providers by name alone. `ort` knows more of each, behind features that would tie this crate
/// to one kind of board; whether the loaded library has it takes no more than the name.
macro_rules! providers {
    ($($provider:ident = $name:literal,)*) => {
        fn providers() -> ort::Result<Vec<String>> {
            let mut found = Vec::new();
            $(
                struct $provider;
                impl ExecutionProvider for $provider {
                    const NAME: &'static str = $name;
                    fn register(&self, _: &mut SessionBuilder) -> ort::Result<()> {
                        Ok(())
                    }
                }
                if $provider::is_available()? {
                    found.push($name.to_owned());
                }
            )*
            Ok(found)
        }
    };
}

providers! {
    Cpu = "CPUExecutionProvider",
    Xnnpack = "XnnpackExecutionProvider",
    Acl = "ACLExecutionProvider",
    Rknpu = "RknpuExecutionProvider",
    Qnn = "QNNExecutionProvider",
    VsiNpu = "VSINPUExecutionProvider",
    OpenVino = "OpenVINOExecutionProvider",
    Cuda = "CUDAExecutionProvider",
    TensorRt = "TensorrtExecutionProvider",
}

/// ONNX Runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum OnnxError {
    #[error(
        "ONNX Runtime library {library:?}: {source}; it is capi/libonnxruntime.so.* of the PyPI wheel onnxruntime, 1.31 or later"
    )]
    Missing { library: PathBuf, source: std::io::Error },
    #[error(
        "ONNX Runtime library {library:?} cannot be used: {reason}; version 1.31 or later for this processor is needed"
    )]
    Unusable { library: PathBuf, reason: String },
    #[error(
        "ONNX Runtime library {library:?}: this process has already loaded {first:?}; restart it to change the library"
    )]
    Second { library: PathBuf, first: PathBuf },
    #[error("ONNX Runtime cannot read the model: {0}")]
    Model(String),
    #[error("ONNX Runtime failed at running the model: {0}")]
    Run(String),
    #[error("output {name:?}: expected f32 {shape:?}, found {found}")]
    Output { name: String, shape: Vec<usize>, found: String },
}

#[cfg(test)]
mod tests {
    use crate::testing::{TinyModel, TinyOutput, runtime};

    #[test]
    fn outputs_are_given_out_in_the_expected_shape_only() {
        let Some(runtime) = runtime() else { return };
        let model = TinyModel {
            input: vec![1, 3, 2, 2],
            outputs: vec![TinyOutput::new("scores", &[1, 3], vec![0.5, 0.25, 0.125])],
            metadata: vec![("key", "value")],
        };
        let mut session = runtime.session(&model.to_bytes(), 1).unwrap();
        assert_eq!(session.inputs()[0].to_string(), "images f32 [1, 3, 2, 2]");
        assert_eq!(session.metadata()["key"], "value");
        let outputs = session.run(&[0.0; 12], [1, 3, 2, 2]).unwrap();
        assert_eq!(outputs.only(&[1, 3]).unwrap(), [0.5, 0.25, 0.125]);
        for (name, shape, error) in [
            ("scores", &[1, 4][..], r#"output "scores": expected f32 [1, 4], found [1, 3]"#),
            ("scores", &[3], r#"output "scores": expected f32 [3], found [1, 3]"#),
            ("boxes", &[1, 3], r#"output "boxes": expected f32 [1, 3], found no such output"#),
        ] {
            assert_eq!(outputs.tensor(name, shape).unwrap_err().to_string(), error);
        }
        drop(outputs);
        let error = session.run(&[0.0; 3], [1, 3, 1, 1]).err().unwrap().to_string();
        assert!(error.starts_with("ONNX Runtime failed at running the model: "), "{error}");
    }
}
