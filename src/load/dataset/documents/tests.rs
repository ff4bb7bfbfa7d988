//! Files as the hub has them, written here or by Python, whole and damaged.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::basic::Compression as Codec;
use parquet::data_type::ByteArrayType;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A file in a folder of its own.
fn written(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A parquet file of one column of texts that may be missing, in row groups.
fn parquet(column: &str, groups: &[Vec<Option<&str>>], codec: Codec) -> Vec<u8> {
    let schema = parse_message_type(&format!("message schema {{ OPTIONAL BYTE_ARRAY {column} (UTF8); }}")).unwrap();
    let properties = WriterProperties::builder().set_compression(codec).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties)).unwrap();
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
        let values: Vec<ByteArray> = rows.iter().flatten().map(|text| ByteArray::from(*text)).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn all(path: &Path) -> Result<Vec<String>, DatasetError> {
    let documents = documents(path, |_| true)?;
    assert!(documents.iter().enumerate().all(|(place, (index, _))| place == *index));
    Ok(documents.into_iter().map(|(_, text)| text).collect())
}

const LINES: &str =
    "{\"text\": \"one\", \"url\": \"u\"}\n\n{\"url\": \"v\", \"text\": \"z\\u0077ei\\n\"}\r\n{\"text\": null}";

#[test]
fn lines_of_json_are_read_packed_or_not() {
    // Two packed parts behind each other are one file.
    let (first, second) = LINES.split_at(40);
    let parts = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
    for (name, bytes) in [("a.jsonl", LINES.as_bytes()), ("a.json", LINES.as_bytes()), ("a.json.gz", &parts)] {
        let (_folder, path) = written(name, bytes);
        assert_eq!(all(&path).unwrap(), ["one", "zwei\n", ""]);
        let sizes = sizes(&path).unwrap();
        assert!(sizes.len() == 3 && sizes[0] >= 3 && sizes[1] >= 5, "{sizes:?}");
        assert_eq!(documents(&path, |index| index == 1).unwrap(), [(1, "zwei\n".to_owned())]);
    }
}

#[test]
fn the_column_is_text_or_the_only_one_of_texts() {
    let (_folder, path) = written("a.jsonl", b"{\"id\": 1, \"content\": \"x\"}\n{\"content\": \"y\"}\n");
    assert_eq!(all(&path).unwrap(), ["x", "y"]);
    let (_folder, path) = written("a.jsonl", b"{\"question\": \"x\", \"answer\": \"y\"}\n");
    let error = all(&path).unwrap_err();
    let expected = "has no column `text`, and several of texts: `question`, `answer`";
    assert!(error.to_string().ends_with(expected), "{error}");
    let (_folder, path) = written("a.jsonl", b"{\"id\": 1}\n");
    assert!(all(&path).unwrap_err().to_string().ends_with("and no other of texts"));
}

#[test]
fn a_bad_line_is_named() {
    for (bad, reason) in [("nonsense", "expected"), ("{\"text\": 1}", "something else"), ("{}", "it is missing")] {
        let (_folder, path) = written("a.jsonl", format!("{{\"text\": \"x\"}}\n\n{bad}\n").as_bytes());
        let error = all(&path).unwrap_err().to_string();
        assert!(error.starts_with("line 3 of `") && error.contains(reason), "{error}");
        // What is not wanted is not looked at.
        assert_eq!(documents(&path, |index| index == 0).unwrap().len(), 1);
    }
    let (_folder, path) = written("a.json", b"[{\"text\": \"x\"}]");
    assert!(all(&path).unwrap_err().to_string().contains("line 1 of `"));
}

#[test]
fn damaged_files_are_errors() {
    let packed = gzip(LINES.repeat(100).as_bytes());
    let rows = vec![Some("one"), None, Some("")];
    let table = parquet("text", &[rows], Codec::SNAPPY);
    for (name, bytes) in [
        ("a.json.gz", &packed[..packed.len() / 2]),
        ("a.json.gz", &packed[..packed.len() - 4]),
        ("a.json.gz", LINES.as_bytes()),
        ("a.parquet", &table[..table.len() - 5]),
        ("a.parquet", &table[4..]),
        ("a.parquet", b"PAR1"),
        ("a.parquet", b""),
    ] {
        let (_folder, path) = written(name, bytes);
        let error = sizes(&path).unwrap_err();
        assert!(matches!(error, DatasetError::Damaged { .. }), "{error}");
        assert!(error.hint().unwrap().starts_with("delete `"), "{error}");
    }
}

/// A codec that is not built in is said to be one; of bytes that only claim it nothing is read.
#[test]
fn an_unknown_compression_is_told_from_damage() {
    let error = DatasetError::damaged(Path::new("a"), "parquet", &"Disabled feature at compile time: zstd");
    assert!(error.hint().unwrap().contains("snappy, gzip"), "{error}");
}

#[test]
fn row_groups_and_missing_texts_keep_their_places() {
    let many: Vec<String> = (0..3000).map(|row| format!("text {row}")).collect();
    let second: Vec<Option<&str>> = many.iter().map(|text| Some(text.as_str())).collect();
    let groups = [vec![Some("one"), None, Some("")], second];
    for codec in [Codec::UNCOMPRESSED, Codec::SNAPPY, Codec::GZIP(Default::default())] {
        let (_folder, path) = written("a.parquet", &parquet("sentence", &groups, codec));
        let texts = all(&path).unwrap();
        assert_eq!(texts[..4], ["one", "", "", "text 0"]);
        assert_eq!((texts.len(), texts[3002].as_str()), (3003, "text 2999"));
        assert_eq!(sizes(&path).unwrap()[..4], [3, 0, 0, 6]);
    }
}

#[test]
fn columns_that_are_no_texts_are_no_texts() {
    let schema = "message schema { REQUIRED INT64 id; OPTIONAL BYTE_ARRAY raw; REPEATED BYTE_ARRAY words (UTF8); \
                  OPTIONAL group meta { OPTIONAL BYTE_ARRAY url (UTF8); } }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::builder().build())).unwrap();
    let (_folder, path) = written("a.parquet", &writer.into_inner().unwrap());
    assert!(matches!(all(&path), Err(DatasetError::NoText { columns, .. }) if columns.is_empty()));
}

/// As Python writes it: `pyarrow.parquet.write_table` of two columns, snappy, with a dictionary.
#[test]
fn a_file_of_python_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/datasets/pyarrow.parquet");
    let texts = all(&path).unwrap();
    assert_eq!(texts.len(), 200);
    assert_eq!(texts[..3], ["", " = Heading 1 = \n", " Row 2: naïve – ok \n"]);
    assert_eq!(texts[199], " Row 199: naïve – ok \n");
}

proptest! {
    #[test]
    fn what_is_written_is_read(texts in proptest::collection::vec(".{0,40}", 1..30), packed: bool) {
        let lines: Vec<String> = texts.iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
        let bytes = lines.join("\n").into_bytes();
        let (name, bytes) = if packed { ("a.json.gz", gzip(&bytes)) } else { ("a.jsonl", bytes) };
        let (_folder, path) = written(name, &bytes);
        prop_assert_eq!(&all(&path).unwrap(), &texts);
        prop_assert!(sizes(&path).unwrap().iter().zip(&texts).all(|(size, text)| *size >= text.len()));
        let rows = texts.iter().map(|text| Some(text.as_str())).collect();
        let (_folder, path) = written("a.parquet", &parquet("text", &[rows], Codec::SNAPPY));
        prop_assert_eq!(&all(&path).unwrap(), &texts);
    }

    /// Whatever a damaged file gives, it is no panic.
    #[test]
    fn damage_is_survived(at in 0usize..4000, bit in 0u8..8, cut: bool) {
        let rows: Vec<Option<&str>> = (0..50).map(|row| (row % 3 > 0).then_some("some text of a row")).collect();
        let mut table = parquet("text", &[rows.clone(), rows], Codec::SNAPPY);
        let at = at % table.len();
        table[at] ^= 1 << bit;
        if cut {
            table.truncate(at);
        }
        let (_folder, path) = written("a.parquet", &table);
        let _ = all(&path);
    }
}
