//! Names that are made out of a blueprint's: it may call a section anything.

use std::collections::HashSet;

/// The longest name of a sheet, in UTF-16 units as Excel counts them.
const MAX_SHEET_NAME: usize = 31;

/// What Excel does not take in the name of a sheet.
const NOT_IN_SHEET_NAMES: [char; 7] = ['[', ']', ':', '*', '?', '/', '\\'];

/// The longest part of a file's name that comes from a section's, in bytes.
const MAX_STEM_BYTES: usize = 64;

/// Hands out names for the sheets of one workbook: such as Excel takes, all different from one
/// another whatever their case.
#[derive(Debug, Default)]
pub(super) struct SheetNames {
    taken: HashSet<String>,
}

impl SheetNames {
    /// The name for a sheet that is to be called `title`.
    pub(super) fn name(&mut self, title: &str) -> String {
        let plain: String = title
            .chars()
            .map(|char| match char {
                char if char.is_control() || NOT_IN_SHEET_NAMES.contains(&char) => '_',
                char => char,
            })
            .collect();
        let mut wanted = cut(&plain, MAX_SHEET_NAME);
        // Excel keeps this name to itself.
        if wanted.is_empty() || wanted.eq_ignore_ascii_case("history") {
            wanted.push('_');
        }
        let mut name = wanted.clone();
        let mut copy = 1;
        while !self.taken.insert(name.to_lowercase()) {
            copy += 1;
            let suffix = format!(" ({copy})");
            name = cut(&wanted, MAX_SHEET_NAME - suffix.len());
            name.push_str(&suffix);
        }
        name
    }
}

/// The beginning of a name, without what it may not begin or end with.
fn cut(name: &str, most: usize) -> String {
    let edge = |char: char| char == '\'' || char.is_whitespace();
    let mut kept = String::new();
    let mut units = 0;
    for char in name.trim_matches(edge).chars() {
        units += char.len_utf16();
        if units > most {
            break;
        }
        kept.push(char);
    }
    kept.trim_end_matches(edge).to_owned()
}

/// The name of a section's file in a zip: numbered, so that they stand in the order of the report
/// and are different from one another, and of letters that every system takes in a name.
pub(super) fn file_in_zip(place: usize, of: usize, section: &str) -> String {
    let width = of.to_string().len();
    let stem: String = section
        .chars()
        .map(|char| match char {
            char if char.is_alphanumeric() || matches!(char, '-' | '_') => char,
            _ => '_',
        })
        .collect();
    let stem = &stem[..stem.floor_char_boundary(MAX_STEM_BYTES)];
    format!("{:0width$}-{stem}.csv", place + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sheets_have_names_that_excel_takes() {
        let mut names = SheetNames::default();
        for (title, expected) in [
            ("Costs", "Costs"),
            ("costs", "costs (2)"),
            ("COSTS", "COSTS (3)"),
            ("'Q1/Q2' [all]", "Q1_Q2' _all_"),
            ("", "_"),
            ("''", "_ (2)"),
            ("History", "History_"),
            (
                "A title that is longer than a sheet's name",
                "A title that is longer than a s",
            ),
            (
                "A title that is longer than a shelf",
                "A title that is longer than (2)",
            ),
        ] {
            assert_eq!(names.name(title), expected, "{title}");
        }
    }

    #[test]
    fn files_are_in_order_and_cannot_leave_their_directory() {
        assert_eq!(file_in_zip(0, 9, "costs"), "1-costs.csv");
        assert_eq!(file_in_zip(1, 10, "../../etc/x"), "02-______etc_x.csv");
        assert_eq!(file_in_zip(1, 2, "Überblick"), "2-Überblick.csv");
    }

    proptest! {
        #[test]
        fn any_titles_give_names_that_differ(titles in proptest::collection::vec("(?s).{0,40}|[aA']{0,3}", 1..20)) {
            let mut names = SheetNames::default();
            let mut seen = HashSet::new();
            for title in &titles {
                let name = names.name(title);
                let units = name.encode_utf16().count();
                prop_assert!((1..=MAX_SHEET_NAME).contains(&units), "{name}");
                prop_assert!(!name.contains(NOT_IN_SHEET_NAMES), "{name}");
                prop_assert!(!name.starts_with('\'') && !name.ends_with('\''), "{name}");
                prop_assert!(seen.insert(name.to_lowercase()), "{name}");
            }
        }
    }
}
