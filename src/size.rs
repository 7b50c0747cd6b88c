//! Sizes as people write them: `10G`, `512M`, `4KiB`, `1048576`.
//!
//! Units are powers of 1024, as everywhere around block devices, whatever the spelling.

use thiserror::Error;

/// Why a text is not a size.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SizeError {
    /// No digits at its beginning.
    #[error("a size begins with a number, such as 10G or 512M")]
    NoNumber,
    /// Something follows the number that is no unit.
    #[error("the unit of a size is one of K, M, G, T, P, with iB or B after it if you like")]
    Unit,
    /// 2^64 bytes or more.
    #[error("the size is too large")]
    TooLarge,
}

/// Reads a size in bytes: a whole number, then nothing, `B`, or one of `K M G T P` in either
/// case, to which `B` or `iB` may be added.
///
/// # Errors
/// [`SizeError`] says what is wrong.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::NoNumber);
    }
    let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
    number.checked_mul(factor(unit)?).ok_or(SizeError::TooLarge)
}

fn factor(unit: &str) -> Result<u64, SizeError> {
    let unit = unit.trim_start().to_ascii_uppercase();
    if unit.is_empty() || unit == "B" {
        return Ok(1);
    }
    let (letter, rest) = unit.split_at_checked(1).ok_or(SizeError::Unit)?;
    let power = "KMGTP".find(letter).ok_or(SizeError::Unit)? + 1;
    match rest {
        "" | "B" | "IB" => Ok(1 << (10 * power)),
        _ => Err(SizeError::Unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("512B", 512),
            ("4k", 4096),
            ("512M", 512 << 20),
            ("10G", 10 << 30),
            ("10 GiB", 10 << 30),
            (" 2TB\n", 2 << 40),
            ("1P", 1 << 50),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_its_reason() {
        for text in ["", "G", "-1", "x10"] {
            assert_eq!(parse_size(text), Err(SizeError::NoNumber), "{text}");
        }
        for text in ["10X", "10KiBs", "1.5G", "10µ", "1KK"] {
            assert_eq!(parse_size(text), Err(SizeError::Unit), "{text}");
        }
        for text in ["16384P", "99999999999999999999", "18446744073709551616"] {
            assert_eq!(parse_size(text), Err(SizeError::TooLarge), "{text}");
        }
    }
}
