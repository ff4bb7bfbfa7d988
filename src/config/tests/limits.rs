//! Files that are larger than anybody means: counted, refused and said, in little time and memory.

use super::*;

fn numbers(count: usize, of: impl Fn(usize) -> String) -> String {
    (0..count).map(of).collect::<Vec<_>>().join(", ")
}

fn fractions(count: usize) -> String {
    numbers(count, |i| format!("{}", i as f64 / count as f64))
}

#[test]
fn products_are_counted_before_they_are_made() {
    let block = |method: &str, sparsities: usize| {
        format!("[[prune]]\nmethod = {method}\nsparsity = [{}]\n", fractions(sparsities))
    };
    let three_million = format!("seed = [{}]\n", numbers(1000, |i| i.to_string()));
    let text = format!(
        "name = \"t\"\n{three_million}[model]\nsource = \"builtin:tiny-opt\"\n[execute]\nvariants = \"masked\"\n{}",
        block("\"random\"", 3000)
    );
    let found = errors_of(given(&text, &[]));
    assert!(found.contains("`[[prune]]` block 1 has 3,000,000 cells") && found.contains("at most 100,000"), "{found}");
    assert!(found.contains("e.toml:7:1"), "{found}");
    // Of two methods only one takes seeds; and blocks add up.
    one_error(&block("\"magnitude\"", 100_000), &["`[[prune]]` block 1 has 200,000 cells", "e.toml:4:1"]);
    let two = [block("\"magnitude\"", 40_000), block("\"magnitude\"", 10_001)].concat();
    one_error(&two, &["`[[prune]]` block 2 has 20,002 cells beside the 80,000 before it", "e.toml:7:1"]);
    let kernel = format!(
        "[[kernel]]\nshape = [8, 4]\nformat = \"csr\"\ntokens = [{}]\nsparsity = [{}]\n",
        numbers(400, |i| (i + 1).to_string()),
        fractions(300)
    );
    one_error(&kernel, &["`[[kernel]]` block 1 has 120,400 cells", "e.toml:4:1"]);
}

#[test]
fn what_fits_the_limit_is_accepted() {
    let part = |from: usize| numbers(25_000, |i| format!("{}", (from + i) as f64 / 50_000.0));
    let block = |from| format!("[[prune]]\nmethod = \"magnitude\"\nsparsity = [{}]\n", part(from));
    let experiment = with(&[block(0), block(25_000)].concat()).unwrap_or_else(|found| panic!("{found}"));
    assert_eq!(experiment.prune.iter().map(|block| block.points().len()).sum::<usize>(), 50_000);
    assert_eq!(experiment.prune[0].size(), Some(25_000));
}

#[test]
fn counting_does_not_overflow() {
    let axis = |count: usize| numbers(count, |i| (i + 1).to_string());
    let text = format!(
        "seed = [{0}]\n[[kernel]]\nshape = [{1}]\nformat = [\"csr\", \"bitmap\"]\ntokens = [{0}]\nsparsity = [{2}]\n",
        axis(90_000),
        numbers(40_000, |i| format!("[{}, 1]", i + 1)),
        fractions(90_000)
    );
    let found = errors_of(given(&format!("name = \"t\"\n{text}"), &[]));
    assert!(found.contains("`[[kernel]]` block 1 has more cells than can be counted"), "{found}");
}

#[test]
fn long_lists_are_refused() {
    let block = |key: &str| format!("[[prune]]\nmethod = \"magnitude\"\nsparsity = [0.3, 0.5]\n{key}\n");
    let skips = numbers(20_000, |i| format!("{{ sparsity = {} }}", i as f64 / 20_000.0));
    one_error(&block(&format!("skip = [{skips}]")), &["`prune.skip` has 20,000 entries", "expected at most 1,000"]);
    let globs = numbers(300, |i| format!("\"layer{i}\""));
    one_error(&block(&format!("exclude = [{globs}]")), &["`prune.exclude` has 300 globs", "expected at most 256"]);
    let expect = "[[expect]]\nmetric = \"sparsity\"\nvalue = 0\ntolerance = 0\n".repeat(10_001);
    one_error(&(block("") + &expect), &["`expect` has 10,001 blocks", "expected at most 10,000"]);
    let seeds = format!(
        "name = \"t\"\nseed = [{}]\n[model]\nsource = \"builtin:tiny-opt\"\n",
        numbers(100_001, |i| i.to_string())
    );
    assert!(errors_of(given(&seeds, &[])).contains("`seed` has 100,001 values"));
    let latency = |batch: usize| {
        let sizes = numbers(batch, |i| (i + 1).to_string());
        format!("[measure]\nmetrics = \"latency\"\nbatch = [{sizes}]\nprompt = [1, 2, 4, 8, 16, 32, 64, 128]\n")
    };
    with(&latency(125)).unwrap();
    one_error(&latency(126), &["`measure.batch` and `measure.prompt` have 1,008 pairs", "at most 1,000"]);
}

#[test]
fn many_mistakes_are_counted() {
    let keys = (0..20_000).map(|i| format!("sparsty{i} = 1\n")).collect::<String>();
    let text = errors_of(given(&format!("{keys}{MINIMAL}"), &[]));
    assert_eq!(text.matches("unknown key").count(), Diagnostics::SHOWN, "{text}");
    assert!(text.ends_with("and 19,980 more problems"), "{text}");
    let twice = format!("[[prune]]\nmethod = \"magnitude\"\nsparsity = [{}]\n", numbers(50_000, |_| "0.5".into()));
    let warnings = with(&twice).unwrap().warnings.to_string();
    assert!(warnings.contains("has `0.5` twice") && warnings.ends_with("and 49,979 more problems"), "{warnings}");
    let lines = "x\n".repeat(20_000);
    assert_eq!(errors_of(given(&lines, &[])).matches("the file is not TOML").count(), 5);
}

#[test]
fn names_say_which_letters_they_take() {
    let named = |name: &str| {
        let written = name.replace('\u{1b}', "\\u001b");
        given(&MINIMAL.replace("\"t\"", &format!("\"{written}\"")), &[])
    };
    for (name, letter) in [("опыт", "о"), ("étude", "é"), ("a b", " "), ("a\u{1b}[31m", "\\u{1b}")] {
        let text = errors_of(named(name));
        assert!(text.contains("the letters a to z and A to Z, digits, `.`, `_` and `-`"), "{text}");
        assert!(text.contains(&format!(", not `{letter}`")) && !text.contains('\u{1b}'), "{text}");
        assert_eq!(text.contains("`title` takes any letters"), letter.chars().all(char::is_alphabetic), "{text}");
    }
    assert!(named(&"n".repeat(128)).is_ok());
    for length in [129, 300] {
        let text = errors_of(named(&"n".repeat(length)));
        assert!(text.contains(&format!("`name` has {length} letters")) && text.contains("at most 128"), "{text}");
    }
}

#[test]
fn blocks_that_are_wrong_everywhere_are_looked_at_once_each() {
    // Every block has a key that is taken out, which each rule asks about.
    let blocks = "[[prune]]\nmethod = \"magnitud\"\nsparsity = 0.5\n".repeat(20_000);
    let text = errors_of(with(&blocks));
    assert!(text.contains("did you mean `magnitude`?") && text.ends_with("and 19,980 more problems"), "{text}");
}
