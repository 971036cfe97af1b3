//! The hash chain of decisions: entries, heads, verification.
