//! The tools of the suite, each against something simple.

mod client;
mod disk;
mod faulty_broker;
mod link;
mod sqlite;
