//! Texts that a spreadsheet would take for formulas (OWASP: CSV injection).

use std::borrow::Cow;

/// Whether a spreadsheet would take a cell with this text for a formula.
pub fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// Whether apostrophes and a formula behind them make up the text.
fn needs_guard(text: &str) -> bool {
    is_formula(text.trim_start_matches('\''))
}

/// The text of a cell that no spreadsheet takes for a formula: an apostrophe goes before it. Also
/// before those that begin with one already, so that [`unguarded`] gives back what was there.
pub fn guarded(text: &str) -> Cow<'_, str> {
    if needs_guard(text) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text that was guarded.
pub(super) fn unguarded(cell: &str) -> &str {
    match cell.strip_prefix('\'') {
        Some(text) if needs_guard(text) => text,
        _ => cell,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_guard_is_taken_off_again(text in "['=+@\\-\t\ra]{0,4}") {
            let cell = guarded(&text);
            prop_assert!(!is_formula(&cell));
            prop_assert_eq!(unguarded(&cell), &text);
        }
    }
}
