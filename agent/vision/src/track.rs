//! Detections of one object over time, within one camera and one visit.
