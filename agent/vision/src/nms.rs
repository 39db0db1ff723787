//! Non-maximum suppression: many boxes of one object to one.
