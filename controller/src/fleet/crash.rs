//! Where a test can kill the controller as kill -9 would: `REDBUTTON_CRASH_AT=controller.after-send`. Debug builds
//! only; a release build has no trace of it. The two points around the commit are the store's.

/// A step of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    AfterSend,
    BeforeRecord,
    AfterRecord,
}

/// Dies here, without a destructor, when the environment says so.
#[cfg(debug_assertions)]
pub(crate) fn point(at: Point) {
    use std::sync::OnceLock;
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    let name = match at {
        Point::AfterSend => "controller.after-send",
        Point::BeforeRecord => "controller.before-record",
        Point::AfterRecord => "controller.after-record",
    };
    if WANTED
        .get_or_init(|| std::env::var("REDBUTTON_CRASH_AT").ok())
        .as_deref()
        == Some(name)
    {
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(crate) const fn point(_at: Point) {}
