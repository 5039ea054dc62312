//! Which part of a file is asked for (RFC 9110 §14): one range of bytes, or all of it.

use std::ops::Range;

use axum::http::header::{CONTENT_RANGE, IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue};
use http_range_header::{SyntacticallyCorrectRange, parse_range_header};

use crate::api::etag::Tag;
use crate::api::problem_type::ProblemType;
use crate::api::{Problem, Result};

/// The most bytes of a file that one answer carries.
pub(super) const MAX_PART_BYTES: u64 = 10_000_000;

/// What of a file goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// These bytes, which lie within it.
    Bytes(Range<u64>),
}

impl Part {
    /// What is asked for of a file of so many bytes, which this tag stands for. A range is shortened to
    /// what one answer carries; a file that is longer is given in parts only.
    ///
    /// A `Range` that is none, or several, is as good as not there (§14.2), and so is one for another
    /// file than this (`If-Range`).
    pub(super) fn asked(headers: &HeaderMap, tag: &Tag, size: u64) -> Result<Self> {
        let asked = only_range(headers).filter(|_| is_of_this(headers, tag));
        let bytes = match asked {
            None => None,
            Some(range) => Some(within(range, size).ok_or_else(|| unsatisfiable(size))?),
        };
        match bytes {
            // The end of an empty file is all of it.
            Some(bytes) if !bytes.is_empty() => {
                let end = bytes.end.min(bytes.start.saturating_add(MAX_PART_BYTES));
                Ok(Self::Bytes(bytes.start..end))
            }
            _ if size > MAX_PART_BYTES => Err(range_required(size)),
            _ => Ok(Self::Whole),
        }
    }

    /// The bytes of a file of this size.
    pub(super) fn range(&self, size: u64) -> Range<u64> {
        match self {
            Self::Whole => 0..size,
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

fn only_range(headers: &HeaderMap) -> Option<SyntacticallyCorrectRange> {
    let mut values = headers.get_all(RANGE).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let ranges = parse_range_header(value.to_str().ok()?).ok()?.into_ranges();
    match ranges[..] {
        [only] => Some(only),
        _ => None,
    }
}

/// Whether the range is meant for this very file: by its tag. A date tells files of one second apart
/// from nothing, and none is given out.
fn is_of_this(headers: &HeaderMap, tag: &Tag) -> bool {
    headers
        .get(IF_RANGE)
        .is_none_or(|given| tag.is(given.as_bytes()))
}

/// The bytes of the range, as far as the file goes; `None` where it has none of them.
fn within(range: SyntacticallyCorrectRange, size: u64) -> Option<Range<u64>> {
    let (start, end) = match range {
        SyntacticallyCorrectRange::FromStart(start) => (start, size),
        SyntacticallyCorrectRange::Indexed(start, last) => {
            (start, last.saturating_add(1).min(size))
        }
        SyntacticallyCorrectRange::FromLast(0) => return None,
        SyntacticallyCorrectRange::FromLast(length) => {
            return Some(size.saturating_sub(length)..size);
        }
    };
    (start < size).then_some(start..end)
}

fn unsatisfiable(size: u64) -> Problem {
    let problem = Problem::new(ProblemType::RangeNotSatisfiable).detail(format!(
        "The file has {size} bytes, none of which is in the range."
    ));
    match HeaderValue::try_from(format!("bytes */{size}")) {
        Ok(length) => problem.header(CONTENT_RANGE, length),
        Err(_) => problem,
    }
}

fn range_required(size: u64) -> Problem {
    Problem::new(ProblemType::RangeRequired).detail(format!(
        "The file has {size} bytes, more than the {MAX_PART_BYTES} of one answer: send `Range: \
         bytes=0-{}`, and go on behind it.",
        MAX_PART_BYTES - 1
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(range: &[&str], if_range: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in range {
            headers.append(RANGE, HeaderValue::try_from(*value).unwrap());
        }
        if let Some(tag) = if_range {
            headers.insert(IF_RANGE, HeaderValue::try_from(tag).unwrap());
        }
        headers
    }

    fn asked(range: &str, size: u64) -> Result<Part> {
        Part::asked(&headers(&[range], None), &Tag::of_content("abc"), size)
    }

    #[test]
    fn one_range_is_cut_to_the_file() {
        for (range, size, expected) in [
            ("bytes=0-0", 10, 0..1),
            ("bytes=2-4", 10, 2..5),
            ("bytes=2-", 10, 2..10),
            ("bytes=2-99", 10, 2..10),
            ("bytes=9-18446744073709551615", 10, 9..10),
            ("bytes=-3", 10, 7..10),
            ("bytes=-99", 10, 0..10),
            ("Bytes=1-1", 10, 1..2),
            ("bytes=0-", 30_000_000, 0..10_000_000),
            ("bytes=5-20000000", 30_000_000, 5..10_000_005),
            ("bytes=-20000000", 30_000_000, 10_000_000..20_000_000),
        ] {
            assert_eq!(
                asked(range, size).unwrap(),
                Part::Bytes(expected),
                "{range}"
            );
        }
    }

    #[test]
    fn what_is_no_single_range_is_ignored() {
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=--1",
            "lines=0-1",
            "bytes=0-1,3-4",
            "bytes=0-1 3",
        ] {
            assert_eq!(asked(range, 10).unwrap(), Part::Whole, "{range}");
        }
        let twice = headers(&["bytes=0-1", "bytes=0-1"], None);
        let part = Part::asked(&twice, &Tag::of_content("abc"), 10).unwrap();
        assert_eq!(part, Part::Whole);
        assert_eq!(asked("bytes=-1", 0).unwrap(), Part::Whole);
    }

    #[test]
    fn a_range_behind_the_end_is_refused_with_the_length() {
        for (range, size) in [
            ("bytes=10-", 10),
            ("bytes=10-11", 10),
            ("bytes=-0", 10),
            ("bytes=0-", 0),
        ] {
            let problem = asked(range, size).unwrap_err();
            assert_eq!(problem.kind(), ProblemType::RangeNotSatisfiable, "{range}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_for_one_answer_needs_a_range() {
        let none = HeaderMap::new();
        let tag = Tag::of_content("abc");
        assert_eq!(Part::asked(&none, &tag, 10_000_000).unwrap(), Part::Whole);
        let problem = Part::asked(&none, &tag, 10_000_001).unwrap_err();
        assert_eq!(problem.kind(), ProblemType::RangeRequired);
        assert!(problem.told().contains("10000001 bytes"));
        let several = asked("bytes=0-1,3-4", 10_000_001).unwrap_err();
        assert_eq!(several.kind(), ProblemType::RangeRequired);
    }

    #[test]
    fn a_range_of_another_file_is_ignored() {
        let tag = Tag::of_content("abc");
        for (given, part) in [
            ("\"abc\"", Part::Bytes(1..3)),
            ("\"abd\"", Part::Whole),
            ("W/\"abc\"", Part::Whole),
            ("Fri, 01 May 2026 09:00:00 GMT", Part::Whole),
        ] {
            let headers = headers(&["bytes=1-2"], Some(given));
            assert_eq!(Part::asked(&headers, &tag, 10).unwrap(), part, "{given}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_lies_within_the_file(
            range in "(bytes=)?[0-9]{0,20}-[0-9]{0,20}|\\PC{0,20}",
            size in prop_oneof![0_u64..20, Just(12_000_000), any::<u64>()],
        ) {
            let Ok(value) = HeaderValue::try_from(range.as_str()) else { return Ok(()) };
            let headers = HeaderMap::from_iter([(RANGE, value)]);
            if let Ok(part) = Part::asked(&headers, &Tag::of_content("abc"), size) {
                let bytes = part.range(size);
                prop_assert!(bytes.end <= size && bytes.start <= bytes.end, "{part:?}");
                prop_assert!(bytes.end - bytes.start <= MAX_PART_BYTES);
                prop_assert!(part == Part::Whole || !bytes.is_empty());
            }
        }
    }
}
