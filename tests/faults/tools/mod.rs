//! The tools of the suite, each against something simple.

mod link;
