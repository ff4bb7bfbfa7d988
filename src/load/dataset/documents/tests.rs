//! Files as the hub has them, written here or by Python, whole and damaged.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::basic::Compression as Codec;
use parquet::data_type::ByteArray;
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
    let documents = documents(path, usize::MAX, |_| true)?;
    assert!(documents.texts.is_sorted_by(|(a, _), (b, _)| a < b));
    Ok(documents.texts.into_iter().map(|(_, text)| text).collect())
}

/// The texts with the indices of their rows, and the rows without one.
fn found(path: &Path) -> (Vec<(usize, String)>, usize) {
    let documents = documents(path, usize::MAX, |_| true).unwrap();
    (documents.texts, documents.missing)
}

fn owned<const N: usize>(texts: [(usize, &str); N]) -> Vec<(usize, String)> {
    texts.map(|(index, text)| (index, text.to_owned())).to_vec()
}

const LINES: &str =
    "{\"text\": \"one\", \"url\": \"u\"}\n\n{\"url\": \"v\", \"text\": \"z\\u0077ei\\n\"}\r\n{\"text\": null}";

#[test]
fn lines_of_json_are_read_packed_or_not() {
    // Two packed parts after each other are one file.
    let (first, second) = LINES.split_at(40);
    let parts = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
    for (name, bytes) in [("a.jsonl", LINES.as_bytes()), ("a.json", LINES.as_bytes()), ("a.json.gz", &parts)] {
        let (_folder, path) = written(name, bytes);
        assert_eq!(found(&path), (owned([(0, "one"), (1, "zwei\n")]), 1));
        let all_sizes = sizes(&path, usize::MAX).unwrap();
        assert!(all_sizes.len() == 3 && all_sizes[0] >= 3 && all_sizes[1] >= 5, "{all_sizes:?}");
        let second = documents(&path, usize::MAX, |index| index == 1).unwrap();
        assert_eq!(second, Documents { texts: owned([(1, "zwei\n")]), missing: 0 });
        // Of the first rows only.
        assert_eq!(sizes(&path, 2).unwrap(), all_sizes[..2]);
        assert_eq!(documents(&path, 1, |_| true).unwrap().texts, owned([(0, "one")]));
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

/// `text` counts where any row has it, be it `null`; another column only where no row has.
#[test]
fn the_first_row_does_not_choose_the_column() {
    let lines = |rows: &[&str]| rows.join("\n");
    for (rows, texts, missing) in [
        (lines(&[r#"{"text": null, "url": "u"}"#, r#"{"text": "a", "url": "v"}"#]), owned([(1, "a")]), 1),
        (lines(&[r#"{"url": "u"}"#, r#"{"url": "v"}"#, r#"{"url": "w", "text": "a"}"#]), owned([(2, "a")]), 2),
        (lines(&[r#"{"content": "only"}"#, r#"{"content": "c", "text": "a"}"#]), owned([(1, "a")]), 1),
        (lines(&[r#"{"content": "a", "n": 1}"#, r#"{"n": 2}"#, r#"{"content": "b"}"#]), owned([(0, "a"), (2, "b")]), 1),
        (lines(&[r#"{"n": 1}"#, r#"{"content": "a"}"#]), owned([(1, "a")]), 1),
        (lines(&[r#"{"text": null, "url": "u"}"#]), owned([]), 1),
        (
            format!("[{}]", [r#"{"text": null, "url": "u"}"#, r#"{"text": "a", "url": "v"}"#].join(",")),
            owned([(1, "a")]),
            1,
        ),
    ] {
        let (_folder, path) = written("a.json", rows.as_bytes());
        assert_eq!(found(&path), (texts, missing), "{rows}");
    }
    let (_folder, path) = written("a.jsonl", b"{\"question\": \"x\"}\n{\"answer\": \"y\"}\n");
    assert!(all(&path).unwrap_err().to_string().ends_with("several of texts: `question`, `answer`"));
}

#[test]
fn what_python_writes_is_read() {
    let rows = "{\"text\": \"NaN, \\\"Infinity\\\" \\\\\", \"score\": NaN, \"a\": [Infinity, -Infinity, {\"b\": NaN}]}\n\
                {\"score\": -1e-5, \"text\": NaN}\n{\"text\": \"b\"}";
    let expected = (owned([(0, "NaN, \"Infinity\" \\"), (2, "b")]), 1);
    let marked = format!("\u{feff}{rows}");
    let array = format!("[{}]", rows.replace('\n', ",\n "));
    let spread = format!("\u{feff}\n[\n{}\n]\n", rows.replace('\n', "\n,\n").replace(", \"score\"", ",\n\"score\""));
    for (name, text) in [("a.jsonl", rows), ("a.jsonl", &marked), ("a.json", &array), ("a.json", &spread)] {
        let (_folder, path) = written(name, text.as_bytes());
        assert_eq!(found(&path), expected, "{text}");
        let (_folder, path) = written("a.json.gz", &gzip(text.as_bytes()));
        assert_eq!(found(&path), expected, "{text}");
    }
    for empty in ["", "\n\n", "\u{feff}", "[]", " [ ]\n"] {
        let (_folder, path) = written("a.json", empty.as_bytes());
        assert_eq!(found(&path), (owned([]), 0), "{empty:?}");
    }
}

#[test]
fn a_bad_row_is_named() {
    for (bad, reason) in [
        ("nonsense", "expected"),
        ("{\"text\": 1}", "something else"),
        ("{\"text\": \"\\ud83d\"}", "hex escape"),
        ("\"bare\"", "invalid type"),
        ("{\"text\": [NaN]}", "something else"),
        ("{\"text\": Nan}", "expected"),
    ] {
        let (_folder, path) = written("a.jsonl", format!("{{\"text\": \"x\"}}\n\n{bad}\n").as_bytes());
        let error = all(&path).unwrap_err().to_string();
        assert!(error.starts_with("line 3 of `") && error.contains(reason), "{error}");
        // What is not wanted is not looked at.
        assert_eq!(documents(&path, usize::MAX, |index| index == 0).unwrap().texts.len(), 1);
        let (_folder, path) = written("a.json", format!("[{{\"text\": \"x\"}}, {bad}]").as_bytes());
        assert!(all(&path).is_err(), "{bad}");
    }
    for bad in [
        "[{\"text\": \"x\"}",
        "[{\"text\": \"x\"},]",
        "[{\"text\": \"x\"}] 1",
        "[{\"text\": \"x\"",
        "[,]",
        "[}",
        "[\"x",
    ] {
        let (_folder, path) = written("a.json", bad.as_bytes());
        let error = all(&path).unwrap_err();
        assert!(matches!(error, DatasetError::Damaged { .. } | DatasetError::Row { .. }), "{bad}: {error}");
    }
    let (_folder, path) = written("a.json", b"{\n \"text\": \"x\"\n}");
    assert!(all(&path).unwrap_err().to_string().contains("line 1 of `"));
}

/// What unpacks to more than can be is refused while it is read, whatever it is packed in.
#[test]
fn what_a_file_unpacks_to_is_limited() {
    let within = |name: &str, bytes: &[u8], limits| {
        let (_folder, path) = written(name, bytes);
        documents_within(&path, usize::MAX, |_| true, limits).map(|documents| documents.texts.len())
    };
    let row = format!("{{\"text\": \"{}\"}}\n", "x".repeat(87));
    assert_eq!(row.len(), 100);
    let rows = row.repeat(10);
    let array = format!("[{}]", row.trim_end().repeat(10).replace("}{", "},{"));
    let limits = Limits { row: 100, array: array.len(), rows: 10, kept: 10 * (87 + OVERHEAD) };
    let table = parquet("text", &[vec![Some("x"); 4], vec![None; 6]], Codec::SNAPPY);
    let files = [
        ("a.jsonl", rows.clone().into_bytes()),
        ("a.json.gz", gzip(rows.as_bytes())),
        ("a.json", array.clone().into_bytes()),
    ];
    for (name, bytes) in &files {
        assert_eq!(within(name, bytes, limits).unwrap(), 10, "{name}");
        let few = within(name, bytes, Limits { rows: 9, ..limits }).unwrap_err();
        assert!(
            few.to_string().contains("more than the 9 rows") && few.hint().unwrap().contains("_documents"),
            "{few}"
        );
        let kept = within(name, bytes, Limits { kept: limits.kept - 1, ..limits }).unwrap_err();
        assert!(kept.to_string().contains("is too large: its texts take more than"), "{kept}");
    }
    for (name, bytes) in &files[..2] {
        let long = within(name, bytes, Limits { row: 99, ..limits }).unwrap_err();
        assert!(long.to_string().contains("is too large: it has a line of more than"), "{long}");
    }
    let long = within("a.json", array.as_bytes(), Limits { array: array.len() - 1, ..limits }).unwrap_err();
    assert!(long.to_string().contains("it has an array of more than"), "{long}");
    assert_eq!(within("a.parquet", &table, limits).unwrap(), 4);
    let many = within("a.parquet", &table, Limits { rows: 5, ..limits }).unwrap_err();
    assert!(matches!(many, DatasetError::TooLarge { what: "rows", .. } | DatasetError::Damaged { .. }), "{many}");
    // A line without an end, of which no more is unpacked than may be: 64 MB of `x` in 64 kB.
    let endless = gzip(&vec![b'x'; 64 << 20]);
    assert!(endless.len() < 1 << 20);
    assert!(matches!(within("a.json.gz", &endless, limits), Err(DatasetError::TooLarge { what: "line", .. })));
}

/// Counts that a page states are not believed. `lengths` and `prefixes` are four rows, `one`, `null`, nothing and
/// `two`, as pyarrow writes them with DELTA_LENGTH_BYTE_ARRAY and DELTA_BYTE_ARRAY; of the others a byte is changed.
#[test]
fn pages_that_ask_for_too_much_are_damaged() {
    let fixture = |name: &str| {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/datasets").join(name)).unwrap()
    };
    for name in ["lengths.parquet", "prefixes.parquet"] {
        let plain = fixture(name);
        let (_folder, path) = written("a.parquet", &plain);
        assert_eq!(found(&path), (owned([(0, "one"), (2, ""), (3, "two")]), 1), "{name}");
        // The headers of the lengths: blocks of 128 in four parts, and three of them. Now 2^35 - 1 of them.
        let headers = plain.windows(4).enumerate().filter(|(_, bytes)| *bytes == [0x80, 0x01, 0x04, 0x03]);
        for (at, _) in headers {
            let mut lying = plain.clone();
            lying[at + 3..at + 8].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x7f]);
            let (_folder, path) = written("a.parquet", &lying);
            let error = all(&path).unwrap_err();
            assert!(error.to_string().contains("texts are more than can be"), "{name} {at}: {error}");
        }
    }
    // Lengths of 2^32 texts, which would take 17 GB, and a dictionary of 63, in a few bytes.
    for name in ["many-lengths.parquet", "dictionary.parquet"] {
        let (_folder, path) = written("a.parquet", &fixture(name));
        let error = all(&path).unwrap_err();
        assert!(matches!(error, DatasetError::Damaged { format: "parquet", .. }), "{name}: {error}");
    }
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
        let error = sizes(&path, usize::MAX).unwrap_err();
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
        let (texts, missing) = found(&path);
        assert_eq!(texts[..3], owned([(0, "one"), (2, ""), (3, "text 0")]));
        assert_eq!((texts.len(), missing, &texts[3001]), (3002, 1, &(3002, "text 2999".to_owned())));
        assert_eq!(sizes(&path, usize::MAX).unwrap()[..4], [3, 0, 0, 6]);
        assert_eq!(sizes(&path, 2).unwrap(), [3, 0]);
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
        prop_assert!(sizes(&path, usize::MAX).unwrap().iter().zip(&texts).all(|(size, text)| *size >= text.len()));
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
