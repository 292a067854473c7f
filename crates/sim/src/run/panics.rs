//! Panics of the code under test are findings: their message is kept instead of printed.

use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

static INSTALL: Once = Once::new();

/// Does `work` without anything being printed if this thread panics in it.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> T {
    INSTALL.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_QUIET.get() {
                let place = info.location().map(|at| format!(" ({}:{})", at.file(), at.line()));
                let payload = info.payload();
                let text = payload.downcast_ref::<&str>().copied();
                let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                let what = text.unwrap_or("a panic without a message");
                let text = format!("{what}{}", place.unwrap_or_default()).replace('\n', " ");
                LAST.set(text);
            } else {
                usual(info);
            }
        }));
    });
    IS_QUIET.set(true);
    let result = work();
    IS_QUIET.set(false);
    result
}

/// What the last panic of this thread said, and where.
pub(super) fn last() -> String {
    LAST.with_borrow(String::clone)
}
