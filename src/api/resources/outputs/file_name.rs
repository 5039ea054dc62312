//! What a file is called where it is saved: `Content-Disposition` (RFC 6266, RFC 8187).

use axum::http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The longest name, without its extension, in bytes: file systems take 255, and other programs add to
/// it.
const MAX_STEM_BYTES: usize = 150;

/// What RFC 8187 wants encoded: all but `attr-char`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// A file to be saved under a name made of what the output and the edition are called, which may be
/// anything: no part of a path comes of it, nothing that a system keeps to itself, and nothing that
/// turns the line around.
pub(super) fn attachment(output: &str, edition: &str, extension: &str) -> HeaderValue {
    let stem = stem(&format!("{output} - {edition}"));
    let name = format!("{stem}.{extension}");
    let plain: String = name
        .chars()
        .map(|char| match char {
            // Some decode what looks encoded.
            '%' => '_',
            char if char.is_ascii() => char,
            _ => '_',
        })
        .collect();
    let encoded = utf8_percent_encode(&name, ENCODED);
    let value = format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}");
    // Printable ASCII: always a header's text.
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("attachment"))
}

fn stem(text: &str) -> String {
    let kept: String = text
        .chars()
        .map(|char| if is_unsafe(char) { '_' } else { char })
        .collect();
    let kept = &kept[..kept.floor_char_boundary(MAX_STEM_BYTES)];
    // Neither hidden nor cut off by systems that drop these.
    let edge = |char: char| char == '.' || char.is_whitespace();
    match kept.trim_matches(edge) {
        "" => "output".to_owned(),
        kept => kept.to_owned(),
    }
}

fn is_unsafe(char: char) -> bool {
    char.is_control()
        || "/\\:*?\"<>|".contains(char)
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_given_plainly_and_as_it_is() {
        let value = attachment("Böard report", "April 100%", "pdf");
        assert_eq!(
            value,
            "attachment; filename=\"B_ard report - April 100_.pdf\"; \
             filename*=UTF-8''B%C3%B6ard%20report%20-%20April%20100%25.pdf"
        );
    }

    #[test]
    fn nothing_of_a_path_a_quote_or_a_line_is_left() {
        let value = attachment("../..\\a\"b", "c\r\nSet-Cookie: d", "csv");
        assert_eq!(
            value,
            "attachment; filename=\"_.._a_b - c__Set-Cookie_ d.csv\"; \
             filename*=UTF-8''_.._a_b%20-%20c__Set-Cookie_%20d.csv"
        );
        assert!(
            attachment("", "", "zip")
                .to_str()
                .unwrap()
                .contains("filename=\"-.zip\"")
        );
        assert!(
            attachment("..", "", "zip")
                .to_str()
                .unwrap()
                .contains("filename=\"-.zip\"")
        );
    }

    proptest! {
        #[test]
        fn any_names_make_a_safe_header(output in "(?s).{0,80}", edition in "(?s).{0,80}") {
            let value = attachment(&output, &edition, "xlsx");
            let text = value.to_str().unwrap();
            let (plain, encoded) = text
                .strip_prefix("attachment; filename=\"")
                .and_then(|rest| rest.split_once("\"; filename*=UTF-8''"))
                .unwrap();
            prop_assert!(!plain.contains(['"', '\\', '/', '%']), "{plain}");
            let name = percent_decode_str(encoded).decode_utf8().unwrap();
            prop_assert!(!name.contains(is_unsafe) && !name.starts_with('.'), "{name}");
            prop_assert!(name.len() <= MAX_STEM_BYTES + ".xlsx".len());
            prop_assert!(!encoded.contains([' ', '"', ';', ',', '\'']));
        }
    }
}
