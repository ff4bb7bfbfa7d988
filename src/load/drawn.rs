//! Perplexity's windows as GPTQ's code draws them from the validation split of C4.
//!
//! ```text
//!   random.seed(0)
//!   for each window:   documents are drawn until one has at least `length` tokens
//!                      its window starts at a random place; the document's last token is in none
//! ```
//! `get_c4` in `datautils.py` of IST-DASLab/gptq at 2d65066e, with Python's random numbers. That code stops at a document
//! of exactly `length` tokens, which is passed over here. Knows texts and how they are encoded.

use super::LoadError;
use super::mersenne::Mersenne;
use super::tokenizer::{Encoded, Tokenizer};
use super::windows::Windows;

/// Special tokens in front of a text, at most: a document has no more tokens than bytes and these.
const SPECIAL: usize = 8;

/// `count` windows of `length` tokens; none where no document is longer than that.
///
/// # Errors
/// When a document can't be encoded.
pub(super) fn windows(
    documents: &[String],
    tokenizer: &Tokenizer,
    count: usize,
    length: usize,
) -> Result<Windows, LoadError> {
    of_documents(documents, &|text| tokenizer.encode_with_ends(text), count, length)
}

fn of_documents(
    documents: &[String],
    encode: &dyn Fn(&str) -> Result<Encoded, LoadError>,
    count: usize,
    length: usize,
) -> Result<Windows, LoadError> {
    let mut random = Mersenne::seeded(0);
    let mut windows = Windows::default();
    // Of each document, whether it is known to be too short.
    let mut short: Vec<bool> = documents.iter().map(|text| text.len() + SPECIAL < length).collect();
    let mut left = short.iter().filter(|short| !**short).count();
    while windows.tokens.len() < count && left > 0 {
        let document = random.below(documents.len() as u32) as usize;
        if short[document] {
            continue;
        }
        let Encoded { ids, ends } = encode(&documents[document])?;
        if ids.len() <= length {
            short[document] = true;
            left -= 1;
            continue;
        }
        let start = random.below((ids.len() - length) as u32) as usize;
        windows.bytes += ends[start + length - 1] - ends[start];
        windows.tokens.push(ids[start..start + length].to_vec());
    }
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token a byte; a document of `n` bytes at place `d` has the tokens `1000 d ..`.
    fn draw(lengths: &[usize], count: usize, length: usize) -> Windows {
        let documents: Vec<String> =
            lengths.iter().enumerate().map(|(d, &n)| char::from(b'a' + d as u8).to_string().repeat(n)).collect();
        let encode = |text: &str| {
            let first = text.bytes().next().map_or(0, |byte| u32::from(byte - b'a') * 1000);
            Ok(Encoded { ids: (first..first + text.len() as u32).collect(), ends: (1..=text.len()).collect() })
        };
        of_documents(&documents, &encode, count, length).unwrap()
    }

    /// What the loop of `get_c4` draws with Python 3.11 from these documents.
    #[test]
    fn windows_are_those_of_the_published_code() {
        let lengths = [3, 9, 40, 12, 8, 25];
        let starts = |length| draw(&lengths, 12, length).tokens.iter().map(|window| window[0]).collect::<Vec<u32>>();
        assert_eq!(starts(10), [3001, 2016, 3001, 2015, 2018, 2004, 2029, 5012, 2003, 5001, 5005, 3000]);
        assert_eq!(starts(7), [3003, 2032, 3003, 2030, 2013, 4000, 2008, 4000, 4000, 2006, 5002, 5010]);
        let drawn = draw(&lengths, 5, 10);
        assert!(drawn.tokens.iter().all(|window| window.len() == 10) && (drawn.overlap, drawn.bytes) == (0, 5 * 9));
    }

    #[test]
    fn where_no_document_is_long_enough_there_is_no_window() {
        for lengths in [vec![], vec![3, 10, 9], vec![2; 30]] {
            assert_eq!(draw(&lengths, 4, 10), Windows::default(), "{lengths:?}");
        }
    }
}
