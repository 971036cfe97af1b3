//! The version of this program, and the mark by which the controller reads it from the file without running it.

/// `cargo` knows the version; the words before it make it findable in the program's bytes. The controller's
/// `rollout::inspect` looks for them.
#[used]
static MARK: &str = concat!(
    "\0redbutton-software=redbutton-nodemgr ",
    env!("CARGO_PKG_VERSION"),
    "\0"
);
const BEFORE: usize = "\0redbutton-software=redbutton-nodemgr ".len();

/// The version of this program. A debug build can be told to pretend another one, so that a rollout can be tested
/// with one build: `REDBUTTON_PRETEND_VERSION`.
#[must_use]
pub fn version() -> &'static str {
    #[cfg(debug_assertions)]
    {
        use std::sync::OnceLock;
        static PRETENDED: OnceLock<Option<String>> = OnceLock::new();
        let pretended = PRETENDED.get_or_init(|| std::env::var("REDBUTTON_PRETEND_VERSION").ok());
        if let Some(version) = pretended {
            return version;
        }
    }
    &MARK[BEFORE..MARK.len() - 1]
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_what_the_package_says() {
        assert_eq!(super::version(), env!("CARGO_PKG_VERSION"));
    }
}
