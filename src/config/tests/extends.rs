//! Files that extend others, and files as they are resolved.

use super::*;

/// A folder with files, and an experiment of one of them.
fn read(files: &[(&str, &str)], overrides: &[&str]) -> Result<Experiment, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    load(&folder.path().join("e.toml"), &overrides)
}

/// What is left of two experiments when the texts and places that they come from are put aside.
fn meaning(experiment: Experiment) -> Experiment {
    let (path, origin) = (Default::default(), Origin::default());
    Experiment { path, origin, text: String::new(), warnings: Diagnostics::default(), ..experiment }
}

#[track_caller]
fn same(files: &[(&str, &str)], overrides: &[&str], whole: &str) -> Experiment {
    let extended = read(files, overrides).unwrap_or_else(|error| panic!("{error}"));
    let expected = read(&[("e.toml", whole)], &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(meaning(extended.clone()), meaning(expected));
    extended
}

const BASE: &str = "name = 'base'\ntitle = 'B'\nseed = [0, 1]\n[model]\nsource = 'builtin:tiny-opt'\n[data]\ncontext = 128\n\
                    perplexity_windows = 4\n[[prune]]\nmethod = 'random'\nsparsity = 0.5\n[[prune]]\nmethod = 'magnitude'\n\
                    sparsity = [0.1, 0.2]\nscope = 'layer'\n[measure]\nmetrics = ['latency']\nbatch = { from = 1, to = 3, step = 1 }\n";

#[test]
fn sections_are_merged_and_blocks_are_one_files() {
    let child = "extends = 'b.toml'\nname = 'x'\nseed = 7\n[data]\ncontext = 64\n[[prune]]\nmethod = 'random'\nsparsity = 0.9\n";
    let whole = "name = 'x'\nseed = 7\n[model]\nsource = 'builtin:tiny-opt'\n[data]\ncontext = 64\nperplexity_windows = 4\n\
                 [[prune]]\nmethod = 'random'\nsparsity = 0.9\n[measure]\nmetrics = ['latency']\nbatch = [1, 2, 3]\n";
    same(&[("b.toml", BASE), ("e.toml", child)], &[], whole);
    // A range is a value: none of its keys comes from another file.
    let child = "extends = 'b.toml'\nname = 'x'\nprune = []\n[execute]\nvariants = 'dense'\n[measure]\nbatch = { from = 2, to = 4, step = 2 }\n";
    let whole = "name = 'x'\nseed = [0, 1]\n[model]\nsource = 'builtin:tiny-opt'\n[data]\ncontext = 128\nperplexity_windows = 4\n\
                 [execute]\nvariants = 'dense'\n[measure]\nmetrics = ['latency']\nbatch = [2, 4]\n";
    same(&[("b.toml", BASE), ("e.toml", child)], &[], whole);
    let cut = child.replace(", step = 2", "");
    let error = read(&[("b.toml", BASE), ("e.toml", &cut)], &[]).unwrap_err().to_string();
    assert!(error.contains("`measure.batch` lacks `step`"), "{error}");
}

#[test]
fn overrides_lie_above_both_files() {
    let child = "extends = 'b.toml'\nname = 'x'\n[data]\ncontext = 64\n";
    let overrides = ["data.context=32", "prune.1.sparsity=0.7", "data.perplexity_windows=2"];
    let whole = BASE.replace("name = 'base'\ntitle = 'B'", "name = 'x'").replace("[0.1, 0.2]", "0.7");
    let whole = whole.replace("context = 128", "context = 32").replace("windows = 4", "windows = 2");
    let extended = same(&[("b.toml", BASE), ("e.toml", child)], &overrides, &whole);
    assert!(extended.text.starts_with("# "), "{}", extended.text);
    let header = extended.text.lines().next().unwrap();
    assert!(header.contains("b.toml -s 'data.context=32'"), "{header}");
}

#[test]
fn the_kept_text_stands_alone() {
    for child in [
        "extends = 'b.toml'\nname = 'x'\n",
        "extends = 'b.toml'\nname = 'y'\n[[prune]]\nmethod = 'wanda'\nsparsity = 0.5\n",
    ] {
        let extended = read(&[("b.toml", BASE), ("e.toml", child)], &[]).unwrap();
        assert!(!extended.text.contains("extends"), "{}", extended.text);
        let alone = read(&[("e.toml", &extended.text)], &[]).unwrap();
        assert_eq!(meaning(alone), meaning(extended));
    }
}

#[test]
fn a_base_that_cannot_be_read_is_no_mistake_of_syntax() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("e.toml");
    std::fs::create_dir(folder.path().join("folder.toml")).unwrap();
    std::fs::write(folder.path().join("latin.toml"), b"title = '\xe9'").unwrap();
    let large = std::fs::File::create(folder.path().join("large.toml")).unwrap();
    large.set_len(input::SMALL + 1).unwrap();
    for (base, says) in [
        ("missing.toml", "put the file there"),
        ("folder.toml", "not a folder"),
        ("latin.toml", "UTF-8"),
        ("large.toml", "a TOML file of some lines"),
    ] {
        std::fs::write(&file, format!("extends = '{base}'\nname = 'x'\n")).unwrap();
        let error = load(&file, &[]).unwrap_err();
        assert!(matches!(error, ConfigError::Base(_)), "{base}: {error}");
        let text = error.to_string();
        assert!(text.contains(&format!("{base}`, which `extends` names")) && text.contains(says), "{text}");
        assert!(text.contains("e.toml:1:11"), "{text}");
    }
}

#[test]
fn mistakes_are_shown_in_the_file_that_has_them() {
    let child = "extends = 'b.toml'\nname = 'x'\n[data]\nagreement = 's3:x'\n";
    let base = BASE.replace("context = 128", "\n\ncontxt = 128").replace("'random'", "'randm'");
    let text = read(&[("b.toml", &base), ("e.toml", child)], &[]).unwrap_err().to_string();
    assert!(text.contains("b.toml:9:1") && text.contains("unknown key `data.contxt`"), "{text}");
    assert!(text.contains("b.toml:12:10") && text.contains("unknown value `randm`"), "{text}");
    assert!(text.contains("e.toml:4:13"), "{text}");
}

fn resolved_of(files: &[(&str, &str)], overrides: &[&str]) -> (Experiment, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let file = folder.path().join("e.toml");
    let (experiment, page) = resolved(&file, Origin::of(&file), &overrides).unwrap_or_else(|error| panic!("{error}"));
    let page = page.replace(&folder.path().display().to_string(), "DIR");
    (experiment, page)
}

#[test]
fn each_resolved_line_says_whose_it_is() {
    let child = "extends = 'b.toml'\nname = 'x'\n[data]\ncontext = 64\n";
    let (_, page) = resolved_of(&[("b.toml", BASE), ("e.toml", child)], &["device.threads=1"]);
    for line in [
        "name = \"x\"\n",
        "seed = [0, 1]  # DIR/b.toml\n",
        "context = 64\n",
        "perplexity_windows = 4  # DIR/b.toml\n",
        "[[prune]]  # DIR/b.toml\nmethod = \"random\"  # DIR/b.toml\n",
        "batch = [1, 2, 3]  # DIR/b.toml\n",
        "threads = 1  # command line\n",
        "calibration_samples = 128  # default\n",
        "pattern = \"unstructured\"  # default\n",
        "scope = \"global\"  # default\n",
        "# calibration_length: `context`\n",
    ] {
        assert!(page.contains(&format!("\n{line}")), "no `{line}` in\n{page}");
    }
    assert!(!page.contains("title") && !page.contains("damping") && !page.contains("extends"), "{page}");
}

#[test]
fn a_resolved_file_is_the_same_experiment() {
    let folder = Path::new("experiments");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let (experiment, page) = resolved(&file, Origin::of(&file), &[]).unwrap_or_else(|error| panic!("{error}"));
        let again = parse(&file, &page, &[]).unwrap_or_else(|found| panic!("{}: {found}\n{page}", file.display()));
        assert_eq!(
            resolved::bare(again),
            resolved::bare(Experiment { path: file.clone(), ..experiment }),
            "{}",
            file.display()
        );
        count += 1;
    }
    assert!(count > 5);
}
