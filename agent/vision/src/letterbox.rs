//! A decoder's planes to a model's tensor.
