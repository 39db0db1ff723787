//! Output tensors to candidate boxes, one plain function per layout.
