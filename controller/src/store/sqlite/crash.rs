//! Dies on purpose where a test asked for it: `REDBUTTON_CRASH_AT=controller.before-commit`. Debug builds only.

/// Ends the process without any cleaning up if the environment names this point.
#[cfg(debug_assertions)]
pub(super) fn at(point: &str) {
    if std::env::var_os("REDBUTTON_CRASH_AT").is_some_and(|wanted| wanted == point) {
        std::process::abort();
    }
}

/// Nothing: this is a release build.
#[cfg(not(debug_assertions))]
pub(super) const fn at(_point: &str) {}
