//! Which numbers a workbook keeps as they are. Its numbers are doubles, of which it shows 15 digits.

/// The most digits of a whole number that a workbook shows.
const SHOWN_DIGITS: usize = 15;

/// The double that is this number (in JSON's spelling), if a workbook gives its digits back:
/// the double must be written as them, and a whole number must be shown with all of them.
pub fn exact(text: &str) -> Option<f64> {
    let wanted = Decimal::read(text)?;
    if wanted.is_whole() && wanted.digits.len() > SHOWN_DIGITS {
        return None;
    }
    let double: f64 = text.parse().ok()?;
    let kept = Decimal::read(&format!("{double:e}"))?;
    (double.is_finite() && kept == wanted).then_some(double)
}

/// A decimal number in one spelling: `0.DIGITS × 10^magnitude`, no zero at either end of the
/// digits. Zero has none.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    magnitude: i64,
}

impl Decimal {
    fn read(text: &str) -> Option<Self> {
        let unsigned = text.trim_start_matches('-');
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let from_first = all.trim_start_matches('0');
        let digits = from_first.trim_end_matches('0').to_owned();
        if !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        if digits.is_empty() {
            return Some(Self {
                negative: false,
                digits,
                magnitude: 0,
            });
        }
        let leading = i64::try_from(all.len() - from_first.len()).ok()?;
        let before_point = i64::try_from(whole.len()).ok()?;
        Some(Self {
            negative: text.starts_with('-'),
            magnitude: (before_point - leading).checked_add(exponent)?,
            digits,
        })
    }

    fn is_whole(&self) -> bool {
        i64::try_from(self.digits.len()).is_ok_and(|digits| digits <= self.magnitude)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_double_does_not_give_back_is_refused() {
        for (text, expected) in [
            ("0", Some(0.0)),
            ("-0.00", Some(0.0)),
            ("1.500", Some(1.5)),
            ("0.1", Some(0.1)),
            ("-12.5e-3", Some(-0.0125)),
            ("0.30000000000000004", Some(0.300_000_000_000_000_04)),
            ("33.333333333333336", Some(33.333_333_333_333_336)),
            ("999999999999999", Some(999_999_999_999_999.0)),
            ("1e300", Some(1e300)),
            // Shown as ...450 and, once it was edited, kept so.
            ("1234567890123456", None),
            ("9007199254740993", None),
            ("-9223372036854775808", None),
            ("12345678901234567890.1", None),
            ("0.1234567890123456789", None),
            ("1e400", None),
            ("1e-400", None),
            ("1e99999999999999999999", None),
        ] {
            assert_eq!(exact(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_reads_back_as_the_same_decimal(text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?") {
            if let Some(double) = exact(&text) {
                prop_assert_eq!(Decimal::read(&format!("{double}")), Decimal::read(&text));
            }
        }

        #[test]
        fn every_double_that_is_no_long_whole_number_is_taken(double in -1e15..1e15f64) {
            prop_assert_eq!(exact(&format!("{double}")), Some(double));
        }
    }
}
