//! ONNX Runtime, loaded at run time. The only file that names the crate `ort`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, SessionInputValue, SessionOutputs};
use ort::value::{DynValue, Outlet, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};
use serde::Serialize;

use crate::graph_cache::Cached;
use crate::settings::{DetectorOptions, Provider, listed};
use crate::tensor::Tensor;

/// The variable, and its value, without which [`Runtime::load`] refuses: ONNX Runtime's own builds since 1.29 write down what
/// machine they run on and which models, and send it to their maker. They begin before `with_telemetry(false)` can be
/// said, and ask the environment alone.
pub const TELEMETRY_OFF: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");

/// The loaded library. Cheap to clone; a process has one.
#[derive(Clone, Debug)]
pub struct Runtime {
    library: PathBuf,
    environment: Environment,
    version: String,
    providers: Vec<Provider>,
}

/// ONNX Runtime takes one environment per process and none after it, so that the first one is kept for good.
static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

impl Runtime {
    /// Loads ONNX Runtime's shared library. A second call with the same file yields the same runtime.
    pub fn load(library: &Path) -> Result<Self, OnnxError> {
        let (name, value) = TELEMETRY_OFF;
        if std::env::var_os(name).is_none_or(|set| set != value) {
            return Err(OnnxError::Telemetry);
        }
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

    /// The execution providers of interest that the library was built with.
    pub fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// Prepares a model to be run by `provider`, whatever the options prefer.
    pub fn session(
        &self,
        model: &[u8],
        provider: Provider,
        options: &DetectorOptions,
    ) -> Result<Session, OnnxError> {
        let builder = || -> ort::Result<SessionBuilder> {
            let builder = SessionBuilder::new(&self.environment)?
                .with_intra_threads(options.threads.max(1))?
                .with_inter_threads(1)?
                // Spinning threads answer a few microseconds earlier and heat the box for the rest of the second.
                .with_intra_op_spinning(false)?
                // Its warnings are about how graphs were exported, hundreds of lines of them for some.
                .with_log_level(LogLevel::Error)?;
            // What the provider cannot run, the processor does.
            let beside = (provider != Provider::Cpu).then(|| dispatch(provider, options));
            let cpu = dispatch(Provider::Cpu, options);
            let chosen: Vec<_> = beside.into_iter().chain([cpu]).map(|one| one.error_on_failure()).collect();
            Ok(builder.with_execution_providers(chosen)?)
        };
        let open = || -> ort::Result<Session> {
            // What another provider made of the graph cannot be written down.
            let folder = options.cache.as_deref().filter(|_| provider == Provider::Cpu);
            let cached = folder.map(|folder| Cached::of(folder, model, &self.version));
            let optimised = cached.and_then(|cached| {
                let optimise = |file: &Path| {
                    // Level 2 leaves out what holds on this very processor only: that is done when it is loaded.
                    let level = GraphOptimizationLevel::Level2;
                    let written = builder().and_then(|builder| {
                        let mut builder =
                            builder.with_optimization_level(level)?.with_optimized_model_path(file)?;
                        builder.commit_from_memory(model)
                    });
                    written.is_ok()
                };
                let graph = cached.read().or_else(|| cached.make(optimise))?;
                let session = builder().and_then(|mut builder| builder.commit_from_memory(&graph));
                // Another build of the same release may lack what this one put into the graph: the model is as good as before.
                session.inspect_err(|_| cached.remove()).ok()
            });
            let inner = match optimised {
                Some(session) => session,
                None => builder()?.commit_from_memory(model)?,
            };
            let inputs = inner.inputs().iter().map(TensorInfo::new).collect();
            let outputs = inner.outputs().iter().map(TensorInfo::new).collect();
            let metadata = {
                let metadata = inner.metadata()?;
                let keys = metadata.custom_keys()?;
                keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect()
            };
            Ok(Session {
                inner,
                inputs,
                outputs,
                metadata,
                interrupt: Interrupt(Arc::new(RunOptions::new()?)),
            })
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
    interrupt: Interrupt,
}

/// Ends what a session runs, from another thread, at its next node: that run fails, and all later ones do.
#[derive(Clone)]
pub struct Interrupt(Arc<RunOptions>);

impl Interrupt {
    /// Ends it.
    pub fn interrupt(&self) -> Result<(), OnnxError> {
        self.0.terminate().map_err(|error| OnnxError::Run(error.to_string()))
    }
}

impl Session {
    /// What ends its runs.
    pub fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

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

    /// Runs the graph.
    pub fn run(&mut self, inputs: &[Feed<'_>]) -> Result<Outputs<'_>, OnnxError> {
        let failed = |error: ort::Error| OnnxError::Run(error.to_string());
        let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for Feed { name, shape, numbers } in inputs {
            let shape = shape.to_vec();
            let value: SessionInputValue<'_> = match *numbers {
                Numbers::F32(numbers) => TensorRef::from_array_view((shape, numbers)).map_err(failed)?.into(),
                Numbers::F16(numbers) => TensorRef::from_array_view((shape, numbers)).map_err(failed)?.into(),
                Numbers::U8(numbers) => TensorRef::from_array_view((shape, numbers)).map_err(failed)?.into(),
                Numbers::I64(numbers) => TensorRef::from_array_view((shape, numbers)).map_err(failed)?.into(),
                Numbers::I32(numbers) => TensorRef::from_array_view((shape, numbers)).map_err(failed)?.into(),
                Numbers::Bool(numbers) => {
                    TensorRef::from_array_view((shape, numbers)).map_err(failed)?.into()
                }
            };
            values.push((name, value));
        }
        let outputs = self.inner.run_with_options(values, &self.interrupt.0).map_err(failed)?;
        Ok(Outputs(outputs))
    }
}

/// One input of one run.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a> {
    /// The graph's name for it.
    pub name: &'a str,
    /// Its sides.
    pub shape: &'a [usize],
    /// Its numbers, the last side fastest.
    pub numbers: Numbers<'a>,
}

/// Numbers of the types that detectors take.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the names say it
pub enum Numbers<'a> {
    F32(&'a [f32]),
    F16(&'a [half::f16]),
    U8(&'a [u8]),
    I64(&'a [i64]),
    I32(&'a [i32]),
    Bool(&'a [bool]),
}

/// What one run yielded.
pub struct Outputs<'s>(SessionOutputs<'s>);

impl Outputs<'_> {
    /// Every output in the graph's order. What is f32 is borrowed, other numbers are converted; one that holds no
    /// numbers has none.
    pub fn tensors(&self) -> Vec<Tensor<'_>> {
        self.0.keys().filter_map(|name| Some(tensor(name, self.0.get(name)?))).collect()
    }
}

fn tensor<'v>(name: &'v str, value: &'v DynValue) -> Tensor<'v> {
    /// Shape and numbers of a type that f32 can be made of.
    fn converted<T: PrimitiveTensorElementType + Copy>(
        value: &DynValue,
        convert: impl Fn(T) -> f32,
    ) -> Option<Cow<'_, [f32]>> {
        let (_, numbers) = value.try_extract_tensor::<T>().ok()?;
        Some(numbers.iter().map(|&number| convert(number)).collect())
    }
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Tensor { name, shape: Vec::new(), numbers: Cow::Borrowed(&[]) };
    };
    let shape: Vec<usize> = shape.iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
    // A list of no detections need not have memory that could be looked at.
    let numbers = match ty {
        _ if shape.contains(&0) => None,
        TensorElementType::Float32 => {
            value.try_extract_tensor::<f32>().ok().map(|(_, numbers)| Cow::Borrowed(numbers))
        }
        TensorElementType::Float16 => converted(value, half::f16::to_f32),
        TensorElementType::Float64 => converted(value, |number: f64| number as f32),
        TensorElementType::Int64 => converted(value, |number: i64| number as f32),
        TensorElementType::Int32 => converted(value, |number: i32| number as f32),
        TensorElementType::Uint8 => converted(value, |number: u8| number.into()),
        TensorElementType::Int8 => converted(value, |number: i8| number.into()),
        _ => None,
    };
    Tensor { name, shape, numbers: numbers.unwrap_or_default() }
}

/// One input or output of a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

    /// Whether its numbers are whole by their type.
    pub fn is_whole(&self) -> bool {
        !self.element.starts_with('f') && !self.element.starts_with("bf")
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

/// A provider with its options. Its registration fails where the library lacks it.
fn dispatch(provider: Provider, options: &DetectorOptions) -> ExecutionProviderDispatch {
    let threads = NonZeroUsize::new(options.threads).unwrap_or(NonZeroUsize::MIN);
    match provider {
        Provider::Cpu => ep::CPU::default().with_arena_allocator(options.arena).build(),
        Provider::Xnnpack => ep::XNNPACK::default().with_intra_op_num_threads(threads).build(),
        Provider::Acl => ep::ACL::default().build(),
        Provider::Rknpu => ep::RKNPU::default().build(),
        Provider::Qnn => ep::QNN::default().build(),
        Provider::VsiNpu => ep::VSINPU.build(),
        Provider::OpenVino => ep::OpenVINO::default().build(),
        Provider::Cuda => ep::CUDA::default().build(),
        Provider::TensorRt => ep::TensorRT::default().build(),
    }
}

/// Those that the loaded library was built with.
fn providers() -> ort::Result<Vec<Provider>> {
    let mut found = Vec::new();
    for provider in Provider::ALL {
        let is_available: fn() -> ort::Result<bool> = match provider {
            Provider::Cpu => ep::CPU::is_available,
            Provider::Xnnpack => ep::XNNPACK::is_available,
            Provider::Acl => ep::ACL::is_available,
            Provider::Rknpu => ep::RKNPU::is_available,
            Provider::Qnn => ep::QNN::is_available,
            Provider::VsiNpu => ep::VSINPU::is_available,
            Provider::OpenVino => ep::OpenVINO::is_available,
            Provider::Cuda => ep::CUDA::is_available,
            Provider::TensorRt => ep::TensorRT::is_available,
        };
        if is_available()? {
            found.push(provider);
        }
    }
    Ok(found)
}

/// ONNX Runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum OnnxError {
    #[error(
        "ONNX Runtime would report to its maker: start this process with {}={} in its environment",
        TELEMETRY_OFF.0, TELEMETRY_OFF.1
    )]
    Telemetry,
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
    #[error(
        "none of the providers {wanted} is in this ONNX Runtime library, which has {offered}; name one of these, or use another build of it",
        wanted = listed(wanted), offered = listed(offered)
    )]
    NoProvider { wanted: Vec<Provider>, offered: Vec<Provider> },
    #[error("ONNX Runtime cannot read the model: {0}")]
    Model(String),
    #[error("ONNX Runtime failed at running the model: {0}")]
    Run(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TinyElement, TinyModel, TinyOutput, runtime};

    #[test]
    fn inputs_and_outputs_pass_in_every_type_that_detectors_have() {
        let Some(runtime) = runtime() else { return };
        let halves = [0.5, -1.0].map(half::f16::from_f32);
        for (element, numbers, expected) in [
            (TinyElement::F32, Numbers::F32(&[0.5, -1.0]), [0.5, -1.0]),
            (TinyElement::F16, Numbers::F16(&halves), [0.5, -1.0]),
            (TinyElement::U8, Numbers::U8(&[7, 255]), [7.0, 255.0]),
            (TinyElement::I64, Numbers::I64(&[-1, 90]), [-1.0, 90.0]),
            (TinyElement::I32, Numbers::I32(&[-1, 90]), [-1.0, 90.0]),
        ] {
            let model = TinyModel {
                outputs: vec![TinyOutput::echo("echo", &[-1, 2], element)],
                ..TinyModel::new(&[1, 2], element)
            };
            let mut session =
                runtime.session(&model.to_bytes(), Provider::Cpu, &DetectorOptions::default()).unwrap();
            let feed = Feed { name: "images", shape: &[1, 2], numbers };
            let outputs = session.run(&[feed]).unwrap();
            let expected = Tensor { name: "echo", shape: vec![1, 2], numbers: expected.to_vec().into() };
            assert_eq!(outputs.tensors(), [expected]);
        }
    }

    #[test]
    fn a_kept_graph_that_cannot_be_loaded_gives_way_to_the_model() {
        let Some(runtime) = runtime() else { return };
        let model = TinyModel {
            outputs: vec![TinyOutput::new("boxes", &[1, 2], vec![0.5, 0.25])],
            ..TinyModel::new(&[1, 2], TinyElement::F32)
        };
        let (model, folder) = (model.to_bytes(), tempfile::tempdir().unwrap());
        let options = DetectorOptions { cache: Some(folder.path().to_owned()), ..DetectorOptions::default() };
        let cached = Cached::of(folder.path(), &model, runtime.version());
        assert!(cached.make(|file| std::fs::write(file, b"no graph").is_ok()).is_some());
        runtime.session(&model, Provider::Cpu, &options).unwrap();
        assert_eq!(cached.read(), None);
        runtime.session(&model, Provider::Cpu, &options).unwrap();
        assert!(cached.read().is_some_and(|graph| graph != b"no graph"), "it is made anew");
    }

    #[test]
    fn outputs_keep_the_graph_s_order_and_can_be_empty() {
        let Some(runtime) = runtime() else { return };
        let model = TinyModel {
            outputs: vec![
                TinyOutput::new("scores", &[1, 3], vec![0.5, 0.25, 0.125]),
                TinyOutput::new("boxes", &[1, 0, 4], vec![]),
            ],
            metadata: vec![("key", "value")],
            ..TinyModel::new(&[1, 3, 2, 2], TinyElement::F32)
        };
        let mut session =
            runtime.session(&model.to_bytes(), Provider::Cpu, &DetectorOptions::default()).unwrap();
        assert_eq!(session.inputs()[0].to_string(), "images f32 [1, 3, 2, 2]");
        assert_eq!(session.metadata()["key"], "value");
        let feed = |shape: &'static [usize], numbers| Feed { name: "images", shape, numbers };
        let outputs = session.run(&[feed(&[1, 3, 2, 2], Numbers::F32(&[0.0; 12]))]).unwrap();
        let found: Vec<_> =
            outputs.tensors().into_iter().map(|t| (t.name, t.shape, t.numbers.into_owned())).collect();
        assert_eq!(found, [("scores", vec![1, 3], vec![0.5, 0.25, 0.125]), ("boxes", vec![1, 0, 4], vec![])]);
        drop(outputs);
        let wrong = [feed(&[1, 3, 1, 1], Numbers::F32(&[0.0; 3]))];
        let error = session.run(&wrong).err().unwrap().to_string();
        assert!(error.starts_with("ONNX Runtime failed at running the model: "), "{error}");
    }
}
