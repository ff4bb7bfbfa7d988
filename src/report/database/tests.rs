//! Against a real `duckdb`, where there is one, and against scripts that only look like it.

use super::*;
use crate::config::query::{Picture, QueryPlot};
use crate::report::table::Value;

/// The program of this machine. Tests that need it say nothing where there is none.
fn program() -> Option<Program> {
    Program::find().ok()
}

fn query(sql: &str) -> Query {
    Query { id: "q".into(), sql: sql.into(), picture: None, timeout: 20 }
}

fn asked(database: &Database, sql: &str) -> Result<Table, Reason> {
    query::answer(database, &query(sql))
}

/// Every kind of value, in columns and under names of every kind.
fn mixed() -> Table {
    let mut table = Table::new("mixed \"table\"", ["seed", "method", "kl", "a \"b\"", "large", "scope", "perplexity"]);
    let rows: [[Value; 7]; 4] = [
        [1u64.into(), "wanda".into(), 0.1.into(), "".into(), u64::MAX.into(), Value::Missing, Value::Missing],
        [
            Value::Missing,
            "=1+1".into(),
            1e-300.into(),
            "a,\"b\"\n'c'".into(),
            0u64.into(),
            Value::Missing,
            Value::Missing,
        ],
        [3u64.into(), "ß 語".into(), Value::Missing, Value::Missing, 7u64.into(), Value::Missing, Value::Missing],
        [4u64.into(), "NULL".into(), (-2.0).into(), "12".into(), 8u64.into(), Value::Missing, Value::Missing],
    ];
    table.rows = rows.into_iter().map(Vec::from).collect();
    table
}

fn numbers() -> Table {
    let mut table = Table::new("numbers", ["n", "word", "x"]);
    table.rows =
        (0..50u64).map(|n| vec![(n * 7 % 50).into(), format!("w{}", n % 3).into(), (n as f64 / 10.0).into()]).collect();
    table
}

#[test]
fn every_value_comes_back_as_it_went_in() {
    let Some(program) = program() else { return };
    let (mixed, numbers) = (mixed(), numbers());
    let database = Database::of(program, &[&mixed, &numbers]).unwrap();
    let back = asked(&database, "SELECT * FROM \"mixed \"\"table\"\"\" ORDER BY large DESC").unwrap();
    assert_eq!(back.columns, mixed.columns);
    assert_eq!(back.rows, [0, 3, 2, 1].map(|row| mixed.rows[row].clone()));
    assert_eq!(asked(&database, "FROM numbers ORDER BY x").unwrap().rows, numbers.rows);
    // A column without values can be asked as what it would have been.
    let sums = "SELECT avg(perplexity) AS p, count(scope) AS s, max(scope || 'x') AS w FROM \"mixed \"\"table\"\"\"";
    assert_eq!(asked(&database, sums).unwrap().rows, [[Value::Missing, 0u64.into(), Value::Missing]]);
    let kinds = "SELECT typeof(seed) AS a, typeof(perplexity) AS b, typeof(scope) AS c, typeof(large) AS d FROM \"mixed \
                 \"\"table\"\"\" LIMIT 1";
    assert!(matches!(asked(&database, kinds), Err(Reason::Unordered)));
    let kinds = kinds.replace("LIMIT 1", "ORDER BY large LIMIT 1");
    assert_eq!(asked(&database, &kinds).unwrap().rows, [["BIGINT", "DOUBLE", "VARCHAR", "UBIGINT"].map(Value::from)]);
}

#[test]
fn results_have_types_and_names_of_their_own() {
    let Some(program) = program() else { return };
    let numbers = numbers();
    let database = Database::of(program, &[&numbers]).unwrap();
    let sql = "SELECT sum(n) AS total, -3 AS minus, 0.1 AS dec, 'nan'::DOUBLE AS nan, word, word, [1, 2] AS list, \
               n > 10 AS large FROM numbers WHERE n IN (3, 12) GROUP BY ALL ORDER BY total";
    let table = asked(&database, sql).unwrap();
    assert_eq!(table.columns, ["total", "minus", "dec", "nan", "word", "word_1", "list", "large"]);
    let [first, _] = &table.rows[..] else { panic!("{table:?}") };
    assert_eq!(first[..4], [3u64.into(), (-3.0).into(), 0.1.into(), Value::Missing]);
    assert_eq!(first[6..], [Value::from("[1, 2]"), "false".into()]);
    let none = asked(&database, "SELECT n, word FROM numbers WHERE n > 100").unwrap();
    assert_eq!((none.columns.len(), none.rows.len()), (2, 0));
}

#[test]
fn rows_come_in_an_order_that_is_always_the_same() {
    let Some(program) = program() else { return };
    let numbers = numbers();
    let database = Database::of(program, &[&numbers]).unwrap();
    let sorted = asked(&database, "SELECT word, count(*) AS rows FROM numbers GROUP BY ALL").unwrap();
    let expected = [("w0", 17), ("w1", 17), ("w2", 16)].map(|(word, rows)| vec![word.into(), Value::Int(rows)]);
    assert_eq!(sorted.rows, expected);
    let counts = asked(&database, "SELECT n FROM numbers WHERE n < 12").unwrap();
    assert_eq!(counts.rows, (0..12u64).map(|n| vec![n.into()]).collect::<Vec<_>>(), "2 comes before 10");
    let asked_for = asked(&database, "SELECT n FROM numbers WHERE n < 12 ORDER BY n DESC LIMIT 2").unwrap();
    assert_eq!(asked_for.rows, [[Value::Int(11)], [Value::Int(10)]]);
    let inner = asked(&database, "SELECT n FROM (SELECT n FROM numbers ORDER BY n DESC LIMIT 3)").unwrap();
    assert_eq!(inner.rows, [[Value::Int(47)], [Value::Int(48)], [Value::Int(49)]]);
    for unordered in ["SELECT n FROM numbers LIMIT 3", "(SELECT n FROM numbers) UNION ALL SELECT 1 LIMIT 5"] {
        assert!(matches!(asked(&database, unordered), Err(Reason::Unordered)), "{unordered}");
    }
    for unsteady in ["SELECT random() AS r", "SELECT uuid()::VARCHAR AS u", "SELECT now()::VARCHAR AS t"] {
        assert!(matches!(asked(&database, unsteady), Err(Reason::Unsteady)), "{unsteady}");
    }
}

/// What a query must not do, with what the error says.
const REFUSED: &[(&str, &str)] = &[
    ("SELECT * FROM read_csv('/etc/passwd')", "Permission Error"),
    ("SELECT content FROM read_text('/etc/passwd')", "Permission Error"),
    ("SELECT * FROM read_blob('/etc/passwd')", "Permission Error"),
    ("SELECT * FROM glob('/etc/*')", "Permission Error"),
    ("SELECT * FROM '/etc/passwd'", "Error"),
    ("SELECT * FROM 'input.sql'", "Error"),
    ("FROM read_csv('0.csv')", "Permission Error"),
    ("SELECT getenv('PATH') AS p", "Error"),
    ("COPY numbers TO 'stolen.csv'", "single SELECT statement"),
    ("COPY (SELECT 1) TO '/tmp/stolen.csv'", "single SELECT statement"),
    ("ATTACH 'other.db' AS other", "single SELECT statement"),
    ("INSTALL httpfs", "single SELECT statement"),
    ("LOAD httpfs", "single SELECT statement"),
    ("SET enable_external_access = true", "single SELECT statement"),
    ("PRAGMA enable_profiling", "single SELECT statement"),
    ("CREATE TABLE x AS SELECT 1", "single SELECT statement"),
    ("DROP TABLE numbers", "single SELECT statement"),
    ("DELETE FROM numbers", "single SELECT statement"),
    ("EXPORT DATABASE 'x'", "single SELECT statement"),
    ("SELECT 1; DROP TABLE numbers", "single SELECT statement"),
    ("SELECT 1'); COPY numbers TO 'stolen.csv'; SELECT ('", "Parser Error"),
    ("SELECT * FROM query('COPY numbers TO ''stolen.csv''')", "single SELECT statement"),
    ("SELECT 1;\n.shell touch stolen.csv", "Parser Error"),
    (".shell touch stolen.csv", "Parser Error"),
    ("\n.output stolen.csv\nSELECT 1", "Parser Error"),
    ("SELECT $$;\n.shell touch stolen.csv\n$$ AS x FROM nothing", "Catalog Error"),
];

#[test]
fn a_query_reads_the_tables_and_nothing_else() {
    let Some(program) = program() else { return };
    let numbers = numbers();
    let database = Database::of(program, &[&numbers]).unwrap();
    let before = std::fs::read(database.path()).unwrap();
    for (sql, expected) in REFUSED {
        match asked(&database, sql) {
            Err(Reason::Sql(said)) => assert!(said.contains(expected), "{sql}: {said}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
    let stolen = |folder: &Path| folder.join("stolen.csv").exists();
    assert!(!stolen(database.folder.path()) && !stolen(Path::new("/tmp")) && !stolen(Path::new(".")));
    assert!(std::fs::read(database.path()).unwrap() == before, "nothing was changed");
    // Lines that the program would take for commands, within a text.
    let text = asked(&database, "SELECT $$;\n.shell touch stolen.csv\n$$ AS x").unwrap();
    assert_eq!(text.rows, [[Value::from(";\n.shell touch stolen.csv\n")]]);
    assert!(!stolen(database.folder.path()));
}

#[test]
fn what_is_wrong_is_said_of_the_query_and_not_of_our_sql() {
    let Some(program) = program() else { return };
    let numbers = numbers();
    let database = Database::of(program, &[&numbers]).unwrap();
    for (sql, expected) in [
        ("SELEC 1", "Parser Error: syntax error at or near \"SELEC\""),
        ("SELECT * FROM number", "Catalog Error: Table with name number does not exist! Did you mean \"numbers\"?"),
        ("SELECT m FROM numbers", "Binder Error: Referenced column \"m\" not found in FROM clause!"),
        ("SELECT word::INTEGER AS w FROM numbers", "Conversion Error: Could not convert string 'w0' to INT32"),
        ("", ""),
    ] {
        let Err(Reason::Sql(said)) = asked(&database, sql) else { panic!("{sql}") };
        assert!(said.starts_with(expected) && !said.contains("__first") && !said.contains("LINE"), "{sql}: {said}");
    }
}

#[test]
fn a_query_without_end_is_stopped() {
    let Some(program) = program() else { return };
    let numbers = numbers();
    let database = Database::of(program, &[&numbers]).unwrap();
    for sql in [
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT * FROM r",
        "SELECT count(*) AS n FROM range(10000000000) a, range(1000000000) b WHERE a.range * b.range = 7",
    ] {
        let answer = query::answer(&database, &Query { timeout: 1, ..query(sql) });
        assert!(matches!(answer, Err(Reason::Late(1))), "{sql}: {answer:?}");
    }
    assert!(matches!(asked(&database, "SELECT * FROM range(1000001)"), Err(Reason::TooLarge)));
}

#[test]
fn the_file_has_every_table_and_every_answer() {
    if program().is_none() {
        return;
    }
    let numbers = numbers();
    let picture = Some(Picture { plot: QueryPlot::Bar, x: None, y: None, series: None });
    let counts =
        Query { id: "counts".into(), picture, ..query("SELECT word, count(*) AS rows FROM numbers GROUP BY ALL") };
    let wrong = Query { id: "numbers".into(), ..query("SELECT 1") };
    let answers = answers(&[&numbers], &[counts, wrong], Path::new("e/experiment.toml"), true);
    let names: Vec<&str> = answers.section.tables.iter().map(|table| &*table.name).collect();
    assert_eq!(names, ["counts", "queries"]);
    assert_eq!(answers.section.figures.len(), 1);
    let errors: Vec<String> = answers.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["query `numbers` of `e/experiment.toml` has the name of a table of the report"]);
    let list = answers.section.tables[1].csv();
    assert!(list.starts_with("id,rows,sql\ncounts,3,") && list.contains("\nnumbers,,SELECT 1\n"), "{list}");
    let file = answers.file.unwrap();
    let again = Database { program: program().unwrap(), folder: tempfile::tempdir().unwrap() };
    std::fs::write(again.path(), file).unwrap();
    let tables =
        asked(&again, "SELECT table_name AS t, estimated_size AS n FROM duckdb_tables() WHERE NOT temporary").unwrap();
    let tables: Vec<String> = tables.rows.iter().map(|row| row[0].rounded() + " " + &row[1].rounded()).collect();
    assert_eq!(tables, ["counts 3", "numbers 50", "queries 2"]);
}

/// A script in the program's place.
#[cfg(unix)]
fn script(folder: &Path, body: &str) -> Program {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("duckdb");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    Program::among(None, Some(folder.into())).unwrap()
}

#[cfg(unix)]
#[test]
fn a_program_that_is_not_duckdb_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (body, expected) in [
        ("echo v0.10.2 1601d94f94", "is not DuckDB 1.1 or later: v0.10.2 1601d94f94"),
        ("echo hello; echo world", "is not DuckDB 1.1 or later: hello"),
        ("echo 'no such option' >&2; exit 1", "is not DuckDB 1.1 or later: no such option"),
        ("true", "is not DuckDB 1.1 or later: it said nothing"),
    ] {
        let error = script(folder.path(), body).check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(script(folder.path(), "echo v1.4.0 abc").check().is_ok());
}

#[cfg(unix)]
#[test]
fn whatever_the_program_does_the_query_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = numbers();
    // Tables are read in without `-readonly`, queries asked with it.
    let answer = |body: &str| {
        let body = format!("case \"$*\" in *-readonly*) {body};; esac");
        let database = Database::of(script(folder.path(), &body), &[&numbers]).unwrap();
        query::answer(&database, &Query { timeout: 1, ..query("SELECT 1") }).map_err(|reason| reason.to_string())
    };
    let columns = r#"echo '[{"name":"n","type":"BIGINT"}]'"#;
    let tree = r#"echo '[{"tree":"{\"statements\":[{\"node\":{\"modifiers\":[]}}]}"}]'"#;
    let rows = r#"echo '[{"n":"1"}]'"#;
    let whole = answer(&format!("{columns}; {tree}; {rows}; {rows}")).unwrap();
    assert_eq!(whole.rows, [[Value::Int(1)]]);
    for (body, expected) in [
        ("echo 'Out of Memory Error: no more' >&2; exit 1".into(), "failed: Out of Memory Error: no more"),
        ("exit 3".into(), "failed: `duckdb` does not say why"),
        ("sleep 30".into(), "had not ended after 1 s"),
        ("while :; do :; done".into(), "had not ended after 1 s"),
        ("echo hello".into(), "in a form that this program does not read"),
        ("true".into(), "does not read: no columns"),
        (columns.into(), "does not read: no syntax tree"),
        (format!("{columns}; {tree}; echo '[{{\"m\":\"1\"}}]'"), "does not read: a row without a column"),
        (format!("{columns}; {tree}; {rows}"), "gives another result every time"),
    ] {
        let error = answer(&body).unwrap_err();
        assert!(error.contains(expected), "{body}: {error}");
    }
}

/// A table of the reference of the analyses. What reads as a number is one, except in columns of words.
fn reference(name: &str) -> Table {
    let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(open(&format!("{name}.csv.gz"))));
    let columns: Vec<String> = reader.headers().unwrap().iter().map(Into::into).collect();
    let value = |text: &str| match (text, text.parse::<u64>(), text.parse::<f64>()) {
        ("", ..) => Value::Missing,
        (_, Ok(count), _) => count.into(),
        (_, _, Ok(number)) => number.into(),
        (text, ..) => text.into(),
    };
    let rows = reader.records().map(|row| row.unwrap().iter().map(value).collect());
    Table { rows: rows.collect(), ..Table::new(name.to_owned(), columns) }
}

fn open(file: &str) -> std::fs::File {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/analysis/sql");
    std::fs::File::open(folder.join(file)).unwrap()
}

/// The queries of the reference and their results, made elsewhere: see the fixture's README.
#[test]
fn the_queries_of_the_reference_give_its_results() {
    let Some(program) = program() else { return };
    let tables = ["features", "groups", "mask_similarity", "matrices", "nm_conformance"].map(reference);
    let database = Database::of(program, &tables.iter().collect::<Vec<_>>()).unwrap();
    let mut compared = 0;
    for (name, rows) in [
        ("1_density_histogram", 136),
        ("1b_histogram_function", 119),
        ("2_top_features_by_wanda_score", 70),
        ("3_join_of_two_methods", 7),
        ("4_compat_nearest_neighbor_metrics", 22),
        ("5_compat_feature_view", 12),
        ("6_groups_against_chance", 18),
        ("7_dead_full_and_conformance", 14),
    ] {
        let sql = std::io::read_to_string(open(&format!("{name}.sql"))).unwrap();
        let (found, expected) = (asked(&database, &sql).unwrap(), reference(name));
        assert_eq!(found.columns, expected.columns, "{name}");
        assert_eq!((found.rows.len(), expected.rows.len()), (rows, rows), "{name}");
        let cells = found.rows.iter().zip(&expected.rows).flat_map(|(found, expected)| found.iter().zip(expected));
        // There is no time in our tables: equal results are equal bytes.
        let timeless = cells.zip(found.columns.iter().cycle()).filter(|(_, column)| *column != "timestamp");
        for ((found, expected), column) in timeless {
            assert!(alike(found, expected), "{name}, {column}: {found:?} {expected:?}");
            compared += 1;
        }
    }
    assert_eq!(compared, 2021);
}

/// Equal, or as near as sums in another order are.
fn alike(found: &Value, expected: &Value) -> bool {
    match (found.number(), expected.number()) {
        (Some(found), Some(expected)) => (found - expected).abs() <= 1e-9 * expected.abs().max(1e-9),
        _ => found == expected,
    }
}
