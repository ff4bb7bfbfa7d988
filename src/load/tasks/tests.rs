//! Rows, splits and items of small sets, and what is wrong with others.

use super::*;
use crate::load::Loader;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

fn read(folder: &Path, names: &[&str], shots: Option<usize>) -> Result<TaskSets, LoadError> {
    let loader = Loader::new(true, Arc::new(|_: &str, _, _| ControlFlow::Continue(())));
    let settings = TaskSettings {
        names: names.iter().flat_map(|name| TaskName::of(name).unwrap()).collect(),
        whole_mmlu: names.contains(&"mmlu"),
        shots,
        path: Some(folder.to_owned()),
        ..TaskSettings::default()
    };
    TaskSets::read(&settings, &loader)
}

fn write(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

const ROW: &str = "{\"question\": \"q\", \"passage\": \"p\", \"label\": 1}\n";

#[test]
fn a_folder_has_the_layout_of_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let missing = read(folder.path(), &["boolq"], None).unwrap_err().to_string();
    assert!(missing.starts_with("no dataset") && missing.contains("aps/super_glue"), "{missing}");
    write(folder.path(), "aps/super_glue/rte/validation.jsonl", ROW);
    let missing = read(folder.path(), &["boolq"], None).unwrap_err().to_string();
    assert!(missing.contains("no configuration `boolq`"), "{missing}");
    write(folder.path(), "aps/super_glue/boolq/validation.jsonl", &ROW.repeat(3));
    let sets = read(folder.path(), &["boolq"], None).unwrap();
    assert_eq!(sets.tasks[0].questions.len(), 3);
    write(folder.path(), "aps/super_glue/boolq/validation_more.jsonl", ROW);
    let several = read(folder.path(), &["boolq"], None).unwrap_err().to_string();
    assert!(several.contains("in several files") && several.contains("validation_more.jsonl"), "{several}");
}

#[test]
fn a_split_in_parts_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    for (part, rows) in [(1, 2), (0, 3)] {
        let file = format!("aps/super_glue/boolq/validation-0000{part}-of-00002.jsonl");
        write(folder.path(), &file, &ROW.repeat(rows));
    }
    let sets = read(folder.path(), &["boolq"], None).unwrap();
    let rows: Vec<usize> = sets.tasks[0].questions.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, [1, 2, 3, 1, 2]);
}

#[test]
fn subjects_that_a_folder_lacks_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let row = "{\"question\": \"q\", \"choices\": [\"a\", \"b\", \"c\", \"d\"], \"answer\": 1}\n";
    for subject in ["virology", "anatomy"] {
        write(folder.path(), &format!("cais/mmlu/{subject}/test.jsonl"), row);
    }
    let sets = read(folder.path(), &["mmlu"], None).unwrap();
    assert_eq!(sets.tasks.len(), 2);
    assert!(sets.warnings()[0].contains("has 2 of the 57 subjects"), "{:?}", sets.warnings());
    // Asked for by its name, a subject must be there.
    assert!(read(folder.path(), &["mmlu_sociology"], None).is_err());
    write(folder.path(), "cais/mmlu/virology/dev.jsonl", row);
    let few = read(folder.path(), &["mmlu_virology"], Some(2)).unwrap_err();
    assert!(few.to_string().contains("`tasks.shots` is 2") && few.hint().unwrap().contains("to 1 or less"), "{few}");
    assert!(read(folder.path(), &["mmlu_virology"], Some(1)).is_ok());
}

#[test]
fn a_malformed_row_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    for (row, message) in [("{\"question\": \"q\", \"label\": 0}\n", "no column `passage`"), ("{}\n", "has none")] {
        write(folder.path(), "aps/super_glue/boolq/validation.jsonl", &format!("{ROW}{row}"));
        let error = read(folder.path(), &["boolq"], None).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("row 2 of `") && text.contains("validation.jsonl") && text.contains(message),
            "{text}"
        );
        assert!(error.hint().is_some());
    }
    write(folder.path(), "aps/super_glue/boolq/validation.jsonl", "");
    assert!(read(folder.path(), &["boolq"], None).unwrap_err().to_string().ends_with("has no rows"));
}
