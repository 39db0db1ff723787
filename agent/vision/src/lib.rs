//! Pixels to incidents.
