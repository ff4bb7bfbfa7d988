//! Rows of parquet.
//!
//! ```text
//!   file ──> row groups ──> pages of the column of texts ──Checked──> the library's decoders ──> texts
//! ```
//!
//! The library trusts the counts that pages state, and takes memory for them: 499 bytes may ask for 17 GB, which
//! ends the program. So every page is looked at between its unpacking and its decoding. Where damaged pages make a
//! decoder panic, the panic is caught.

use super::DatasetError;
use super::delta::counts_fit;
use super::documents::{Limits, Reader, Seen, only_or_text};
use crate::{input, panics};
use parquet::basic::{ConvertedType, Encoding, LogicalType, PageType};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::fs::File;
use std::path::Path;

/// Rows that are decoded at a time.
const ROWS: usize = 1024;

/// Why a scan stopped.
enum Stop {
    Parquet(ParquetError),
    Dataset(DatasetError),
}

impl From<ParquetError> for Stop {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

impl From<DatasetError> for Stop {
    fn from(error: DatasetError) -> Self {
        Self::Dataset(error)
    }
}

/// Reads a file of row groups.
pub(super) fn scan_parquet(
    path: &Path,
    most: usize,
    reader: &mut dyn Reader,
    limits: Limits,
) -> Result<Seen, DatasetError> {
    let damaged = |message: &dyn std::fmt::Display| DatasetError::damaged(path, "parquet", &message.to_string());
    match panics::caught(|| scan(path, most, reader, limits)) {
        Ok(Ok(seen)) => Ok(seen),
        Ok(Err(Stop::Dataset(error))) => Err(error),
        Ok(Err(Stop::Parquet(error))) => Err(damaged(&error)),
        Err(panic) => Err(damaged(&format!("its pages are damaged: {panic}"))),
    }
}

fn scan(path: &Path, most: usize, reader: &mut dyn Reader, limits: Limits) -> Result<Seen, Stop> {
    let file = input::open(path).map_err(ParquetError::from)?;
    let file = SerializedFileReader::new(file)?;
    let column = text_column(path, &file)?;
    let description = file.metadata().file_metadata().schema_descr().column(column);
    let mut rows = Rows { path, index: 0, most, limits, seen: Seen::default() };
    for group in 0..file.num_row_groups() {
        let pages = file.get_row_group(group)?.get_column_page_reader(column)?;
        let pages = Checked { pages, optional: description.max_def_level() > 0, limits };
        let texts = get_column_reader(description.clone(), Box::new(pages));
        if !rows.of_group(texts, reader)? {
            break;
        }
    }
    Ok(rows.seen)
}

/// The place of the column of texts: top-level strings only.
fn text_column(path: &Path, reader: &SerializedFileReader<File>) -> Result<usize, DatasetError> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let is_text = |index: &usize| {
        let column = schema.column(*index);
        let utf8 = matches!(column.logical_type_ref(), Some(LogicalType::String))
            || column.converted_type() == ConvertedType::UTF8;
        utf8 && column.max_rep_level() == 0 && column.path().parts().len() == 1
    };
    let texts: Vec<usize> = (0..schema.num_columns()).filter(is_text).collect();
    let names: Vec<String> = texts.iter().map(|&index| schema.column(index).name().to_owned()).collect();
    let wanted = only_or_text(path, names)?;
    let found = texts.into_iter().find(|&index| schema.column(index).name() == wanted);
    found.ok_or_else(|| DatasetError::NoText { path: path.to_owned(), columns: Vec::new() })
}

/// Where a scan is.
struct Rows<'a> {
    path: &'a Path,
    index: usize,
    most: usize,
    limits: Limits,
    seen: Seen,
}

impl Rows<'_> {
    /// Reads the rows of a group; says whether there may be more.
    fn of_group(&mut self, texts: ColumnReader, reader: &mut dyn Reader) -> Result<bool, Stop> {
        let ColumnReader::ByteArrayColumnReader(mut texts) = texts else {
            return Err(ParquetError::General("its texts are no byte arrays".into()).into());
        };
        let (mut values, mut levels) = (Vec::<ByteArray>::with_capacity(ROWS), Vec::with_capacity(ROWS));
        loop {
            values.clear();
            levels.clear();
            let (rows, present, _) = texts.read_records(ROWS, Some(&mut levels), None, &mut values)?;
            if rows == 0 {
                return Ok(true);
            }
            let mut values = values.iter().take(present);
            for row in 0..rows {
                if self.index == self.most {
                    return Ok(false);
                }
                if self.index == self.limits.rows {
                    return Err(DatasetError::too_large(self.path, "rows", self.limits.rows).into());
                }
                // A required column has no levels.
                let text = if present == rows || levels.get(row) == Some(&1) { values.next() } else { None };
                if reader.wants(self.index, text.map_or(0, ByteArray::len)) {
                    match text {
                        Some(text) => reader.takes(self.index, utf8(text)?.to_owned())?,
                        None => self.seen.missing += 1,
                    }
                }
                self.index += 1;
            }
        }
    }
}

fn utf8(text: &ByteArray) -> Result<&str, ParquetError> {
    std::str::from_utf8(text.data()).map_err(|error| ParquetError::General(error.to_string()))
}

/// Pages whose counts can be.
pub(super) struct Checked {
    pub pages: Box<dyn PageReader>,
    /// Whether texts may be `null`, which levels in front of a page say.
    pub optional: bool,
    pub limits: Limits,
}

impl Checked {
    fn check(&self, page: &Page) -> Result<(), ParquetError> {
        let wrong = |message: &str| Err(ParquetError::General(message.to_owned()));
        let values = page.num_values() as usize;
        match page.page_type() {
            // Each of its texts has a length of four bytes in front.
            PageType::DICTIONARY_PAGE if values > page.buffer().len() / 4 => {
                wrong(&format!("a dictionary of {values} texts in {} bytes", page.buffer().len()))
            }
            // Texts may be `null` or empty, and take nearly nothing.
            PageType::DATA_PAGE | PageType::DATA_PAGE_V2 if values > self.limits.rows => {
                wrong(&format!("a page of {values} texts"))
            }
            PageType::DICTIONARY_PAGE | PageType::DATA_PAGE | PageType::DATA_PAGE_V2 | PageType::INDEX_PAGE => {
                let (lists, taken) = match page.encoding() {
                    Encoding::DELTA_LENGTH_BYTE_ARRAY => (1, 0),
                    // A text may begin with all of the text before it.
                    Encoding::DELTA_BYTE_ARRAY => (2, values.min(ROWS).saturating_mul(page.buffer().len())),
                    _ => return Ok(()),
                };
                let fits = self.values(page).is_some_and(|bytes| counts_fit(bytes, lists, values));
                if fits && taken <= self.limits.kept {
                    Ok(())
                } else {
                    wrong("a page whose texts are more than can be")
                }
            }
        }
    }

    /// What stands after the levels of a page.
    fn values<'a>(&self, page: &'a Page) -> Option<&'a [u8]> {
        let buffer = page.buffer();
        let levels = match page {
            // After their own length.
            Page::DataPage { def_level_encoding: Encoding::RLE, .. } if self.optional => {
                (u32::from_le_bytes(*buffer.first_chunk::<4>()?) as usize).checked_add(4)?
            }
            Page::DataPage { .. } if self.optional => return None,
            Page::DataPage { .. } | Page::DictionaryPage { .. } => 0,
            Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
                (*def_levels_byte_len as usize).checked_add(*rep_levels_byte_len as usize)?
            }
        };
        buffer.get(levels..)
    }
}

impl Iterator for Checked {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Checked {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.pages.at_record_boundary()
    }
}
