//! Named places where a debug build dies on request, so that tests can cut it down at every step of a kill.
//!
//! `REDBUTTON_CRASH_AT=nodemgr.after-freeze` aborts there. A release build knows nothing of it.

/// Aborts the process here when the environment asks for this place.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str) {
    use std::sync::OnceLock;
    static WANTED: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var_os("REDBUTTON_CRASH_AT"));
    if wanted.as_deref().is_some_and(|at| at == name) {
        std::process::abort();
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub(crate) fn point(_name: &str) {}
