//! The one integration binary. Each module says in a sentence what it shows.

/// The shape of the source tree: layers, documentation, words.
mod tidy;
