//! Where a test can end the controller as kill -9 would, at every step of an order:
//! `REDBUTTON_CRASH_AT=controller.after-commit`. Debug builds only; a release build has no trace of it.

/// Dies here, without a destructor, when the environment names this point.
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
pub(crate) const fn point(_name: &str) {}
