//! The counts in parquet's delta encodings of texts, looked at before the library takes memory for them.
//!
//! ```text
//!   DELTA_LENGTH_BYTE_ARRAY   lengths | the texts
//!   DELTA_BYTE_ARRAY          lengths of what is as in the text before | lengths of the rest | the rest
//!   lengths                   size of a block | its parts | COUNT | first | blocks
//!   a block                   least difference | a width for every part | the parts, bit-packed
//! ```
//!
//! Sizes, counts and differences are in groups of seven bits. COUNT can be 2^63 in ten bytes.

/// The largest block that is believed; writers take 128.
const BLOCK: u64 = 1 << 20;

/// Whether `lists` lists of lengths, one after the other, have at most `most` entries each.
pub(super) fn counts_fit(bytes: &[u8], lists: usize, most: usize) -> bool {
    let mut rest = bytes;
    (0..lists).all(|_| match lengths(rest, most as u64) {
        Some(end) => {
            rest = end;
            true
        }
        None => false,
    })
}

/// What stands after a list of lengths, unless it has more than `most` or is cut off.
fn lengths(bytes: &[u8], most: u64) -> Option<&[u8]> {
    let mut rest = bytes;
    let (size, parts, count) = (varint(&mut rest)?, varint(&mut rest)?, varint(&mut rest)?);
    varint(&mut rest)?;
    if size > BLOCK || parts == 0 || size / parts == 0 || count > most {
        return None;
    }
    let per_part = size / parts;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        varint(&mut rest)?;
        let (widths, packed) = rest.split_at_checked(usize::try_from(parts).ok()?)?;
        rest = packed;
        for width in widths {
            // The parts after the last entry are not there, whatever their widths.
            if left > 0 {
                rest = rest.get(usize::try_from(u64::from(*width) * per_part / 8).ok()?..)?;
            }
            left = left.saturating_sub(per_part);
        }
    }
    Some(rest)
}

/// Takes a number in groups of seven bits, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of 128 in four parts; `count` lengths, the first 0; blocks.
    fn list(count: &[u8], blocks: &[u8]) -> Vec<u8> {
        [&[0x80, 0x01, 0x04], count, &[0], blocks].concat()
    }

    #[test]
    fn lists_are_walked_to_their_ends() {
        // One entry has no block; 33 fill a part of width 1, which is four bytes, and need a second of width 2.
        let one = list(&[1], &[]);
        let many = list(&[34], &[&[0, 1, 2, 9, 9][..], &[0xff; 4], &[0xff; 8]].concat());
        assert_eq!(lengths(&[&one[..], b"texts"].concat(), 1), Some(&b"texts"[..]));
        assert_eq!(lengths(&[&many[..], b"texts"].concat(), 34), Some(&b"texts"[..]));
        assert!(counts_fit(&[&many[..], &one].concat(), 2, 34));
        assert!(counts_fit(&list(&[0], &[]), 1, 0));
        assert!(!counts_fit(&many, 1, 33) && !counts_fit(&many[..many.len() - 1], 1, 34));
        assert!(!counts_fit(&many, 2, 34));
        let huge = list(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], &[]);
        assert!(!counts_fit(&huge, 1, 1 << 24) && !counts_fit(&[&one[..], &huge].concat(), 2, 1 << 24));
        for odd in [&[][..], &[0x80, 0x01, 0, 1, 0], &[0, 1, 1, 0], &[0xff; 20]] {
            assert!(!counts_fit(odd, 1, 100), "{odd:?}");
        }
    }
}
