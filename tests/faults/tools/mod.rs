//! The tools of the suite, each against something simple.

mod client;
mod faulty_broker;
mod link;
