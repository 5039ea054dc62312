//! Which representation a client wants: `Accept` (RFC 9110 §12.5.1).

use std::cmp::Reverse;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use super::problem_type::ProblemType;
use super::{Problem, Result};

/// A representation that there is: what it is here, and its media type.
pub type Offer<T> = (T, &'static str);

/// A media range that a client named.
struct Range {
    /// `text/csv`, `text/*` or `*/*`, in small letters.
    name: String,
    /// In thousandths.
    quality: u16,
}

/// How well a range meets a type: by the most precise words that meet it at all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Anything,
    Kind,
    Exact,
}

/// The offer that the client likes best; of those that it likes alike the one that it names more
/// precisely, then that it names first, then the first one. Parameters of types are not looked at.
pub fn choose<T: Copy>(headers: &HeaderMap, offers: &[Offer<T>]) -> Result<T> {
    let ranges = ranges(headers);
    let rank = |media_type: &str| {
        let mut met = ranges.iter().enumerate().filter_map(|(place, range)| {
            let precision = range.meets(media_type)?;
            Some((precision, Reverse(place), range.quality))
        });
        let none_given = (1_000, Precision::Anything, Reverse(0));
        if ranges.is_empty() {
            return Some(none_given);
        }
        let first = met.next()?;
        let (precision, place, quality) = met.fold(first, |best, one| {
            if (one.0, one.1) > (best.0, best.1) {
                one
            } else {
                best
            }
        });
        (quality > 0).then_some((quality, precision, place))
    };
    let ranked = offers
        .iter()
        .filter_map(|(offer, media_type)| Some((rank(media_type)?, *offer)));
    // The last of the greatest is taken: from the end on it is the first.
    let ranked: Vec<_> = ranked.collect();
    let best = ranked.into_iter().rev().max_by_key(|(rank, _)| *rank);
    best.map(|(_, offer)| offer).ok_or_else(|| {
        let types: Vec<String> = offers.iter().map(|(_, it)| format!("`{it}`")).collect();
        Problem::new(ProblemType::NotAcceptable)
            .detail(format!("This is there as {}.", types.join(", ")))
    })
}

/// What the header names. What is malformed in it is passed over.
fn ranges(headers: &HeaderMap) -> Vec<Range> {
    let values = headers.get_all(ACCEPT).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(Range::read)
        .collect()
}

impl Range {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        name.split_once('/')?;
        let weight = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
        });
        let quality = weight.map_or(Some(1_000), quality)?;
        Some(Self { name, quality })
    }

    fn meets(&self, media_type: &str) -> Option<Precision> {
        if self.name == media_type {
            return Some(Precision::Exact);
        }
        if self.name == "*/*" {
            return Some(Precision::Anything);
        }
        let kind = self.name.strip_suffix('*')?;
        (kind.ends_with('/') && media_type.starts_with(kind)).then_some(Precision::Kind)
    }
}

/// A weight (RFC 9110 §12.4.2), in thousandths.
fn quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok().filter(|_| digits)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const OFFERS: [Offer<&str>; 3] = [
        ("json", "application/json"),
        ("csv", "text/csv"),
        ("ndjson", "application/x-ndjson"),
    ];

    fn chosen(accept: &[&str]) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, HeaderValue::try_from(*value).unwrap());
        }
        choose(&headers, &OFFERS).ok()
    }

    #[test]
    fn what_is_liked_best_is_given() {
        for (accept, expected) in [
            (&[] as &[&str], "json"),
            (&[""], "json"),
            (&["nonsense"], "json"),
            (&["*/*"], "json"),
            (&["text/csv"], "csv"),
            (&["Text/CSV; header=present"], "csv"),
            (&["text/*"], "csv"),
            (&["text/csv, application/json"], "csv"),
            (&["text/csv;q=0.9, application/json"], "json"),
            (&["text/csv;q=0.001, application/json;q=0"], "csv"),
            (&["*/*, text/csv"], "csv"),
            (&["*/*;q=0.1", "application/x-ndjson ; Q=0.2"], "ndjson"),
            (&["application/json;q=0, */*"], "csv"),
            (&["application/*, application/json;q=0.5"], "ndjson"),
            (&["text/html, */*;q=0.8"], "json"),
            (
                &["text/csv;q=2, text/csv;q=1.001, text/csv;q=0.0001, application/x-ndjson;q=0.5"],
                "ndjson",
            ),
        ] {
            assert_eq!(chosen(accept), Some(expected), "{accept:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_told() {
        for accept in [
            "text/html",
            "*/*;q=0",
            "text/csv;q=0.000",
            "application/json5",
            "a/*",
        ] {
            assert_eq!(chosen(&[accept]), None, "{accept}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/html"));
        let refused = choose(&headers, &OFFERS).unwrap_err();
        assert_eq!(refused.kind(), ProblemType::NotAcceptable);
        assert!(refused.told().contains("`text/csv`"), "{}", refused.told());
    }
}
