//! How a model is run: what of ONNX Runtime may be chosen.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What can run a model: the processor, or what a board has beside it. ONNX Runtime calls it execution provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // ONNX Runtime's own names
pub enum Provider {
    Cpu,
    Xnnpack,
    Acl,
    Rknpu,
    Qnn,
    VsiNpu,
    OpenVino,
    Cuda,
    TensorRt,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Cpu,
        Self::Xnnpack,
        Self::Acl,
        Self::Rknpu,
        Self::Qnn,
        Self::VsiNpu,
        Self::OpenVino,
        Self::Cuda,
        Self::TensorRt,
    ];

    /// What the configuration calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Xnnpack => "xnnpack",
            Self::Acl => "acl",
            Self::Rknpu => "rknpu",
            Self::Qnn => "qnn",
            Self::VsiNpu => "vsinpu",
            Self::OpenVino => "openvino",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names of providers, for people.
pub fn listed(providers: &[Provider]) -> String {
    let names: Vec<_> = providers.iter().map(|provider| provider.name()).collect();
    names.join(", ")
}

/// No [`Provider`] is called so.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no execution provider; those that can be named are {known}", known = listed(&Provider::ALL))]
pub struct UnknownProvider(String);

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, UnknownProvider> {
        let named = Self::ALL.into_iter().find(|provider| provider.name() == text);
        named.ok_or_else(|| UnknownProvider(text.to_owned()))
    }
}

/// How a model is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectorOptions {
    /// Threads of one inference. One thread per camera answers more frames than many threads per frame.
    pub threads: usize,
    /// What runs the model: the first of these that the loaded library has and the model runs on. Not empty.
    pub providers: Vec<Provider>,
    /// Whether the memory of one inference is kept for the next: a little quicker, and larger at rest.
    pub arena: bool,
    /// A folder for what the processor's provider makes of a model's graph, by the model's digest, so that the next start
    /// need not do it again. Where it cannot be written, each start does.
    pub cache: Option<PathBuf>,
}

impl Default for DetectorOptions {
    fn default() -> Self {
        Self { threads: 1, providers: vec![Provider::Cpu], arena: true, cache: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_have_one_name_in_the_configuration_and_on_the_command_line() {
        for provider in Provider::ALL {
            assert_eq!(provider.name().parse(), Ok(provider));
            let json = serde_json::to_string(&provider).unwrap();
            assert_eq!(json, format!("\"{provider}\""));
        }
        let unknown = "gpu".parse::<Provider>().unwrap_err().to_string();
        assert!(
            unknown.starts_with("\"gpu\" is no execution provider") && unknown.contains("rknpu"),
            "{unknown}"
        );
    }
}
