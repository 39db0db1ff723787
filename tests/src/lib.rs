//! A whole village on one machine: cameras, broker, agent and console as real processes, for tests, demo and bench.
//!
//! # Layout
//!
//! - [`places`]: where footage, models, libraries and binaries are;
//! - [`wait`]: waiting for a condition, the only way in which anything here waits;
//! - [`process`]: a child process that can be frozen, stopped and killed, and never outlives its test;
//! - [`camera`]: a camera simulator, [`broker`]: a mosquitto, [`agent`]: the agent, each as a process;
//! - [`alert_source`]: the agent without cameras, which decides alerts when it is told to;
//! - [`authority`]: certificates for them, good, expired and revoked ones;
//! - [`maintainer`]: who packs models, publishes them, and signs for it; [`bad_model`]: models that nobody should publish;
//! - [`mirror`]: a web server over what they publish;
//! - [`village`]: the configuration file that joins them;
//! - [`console`]: what a township sees: everything that the agent publishes;
//! - [`switching`]: a box whose models are updated and rolled back again and again;
//! - [`usage`]: what a process costs; [`shim`]: libraries that are preloaded into it;
//! - [`assignment`]: which track is which object's, so that all together fit best;
//! - [`precision`]: how well a detector finds objects;
//! - [`tracking`]: how well tracks follow the objects;
//! - [`link`]: a weak link, [`faulty_broker`]: a man in the middle who knows MQTT, [`faulty_camera`]: one who knows RTSP and
//!   RTP, [`disk`]: storage that fails, and what a power cut leaves of it.
//!
//! Invariants: every port is a free one, every file lies below a folder that the caller names, whatever was started
//! is gone when its value is dropped.

pub mod agent;
pub mod alert_source;
pub mod assignment;
pub mod authority;
pub mod bad_model;
pub mod broker;
pub mod camera;
pub mod console;
pub mod disk;
pub mod faulty_broker;
pub mod faulty_camera;
pub mod link;
pub mod maintainer;
pub mod mirror;
pub mod pipeline;
pub mod places;
pub mod precision;
pub mod process;
pub mod shim;
pub mod switching;
pub mod tracking;
pub mod usage;
pub mod village;
pub mod wait;
