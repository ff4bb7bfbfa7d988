//! Texts and tokenizers as the program meets them: files of Windows, of Python, of nobody's making.

use crate::support::{Lab, Model, Outcome, THREE_CELLS};
use serde_json::{Value, json};

const USAGE: i32 = 2;
const INPUT: i32 = 3;

/// The tiny experiment, with perplexity.
fn experiment() -> String {
    THREE_CELLS
        .replace("[data]\n", "[data]\nperplexity = \"file:text.txt\"\ncontext = 8\n")
        .replace("\"agreement\"]", "\"agreement\", \"perplexity\"]")
}

/// The tiny checkpoint and two texts, of which the tokenizer's file is changed.
fn lab(change: impl FnOnce(&mut Value)) -> Lab {
    let lab = Lab::tiny(&experiment());
    let mut model = Model::tiny();
    change(&mut model.tokenizer);
    model.save(&lab.path("model"));
    lab.write("text.txt", "the cat sat on the mat\na dog ran\n".repeat(4));
    lab
}

#[track_caller]
fn summary(lab: &Lab) -> String {
    lab.run(["run", "e.toml"]).exits(0);
    lab.read("results/e/tables/summary.csv")
}

#[test]
fn truncation_and_padding_of_the_file_are_off() {
    let whole = summary(&lab(|_| ()));
    let truncation = json!({ "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 });
    let padding = |strategy: Value| {
        json!({ "strategy": strategy, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 1, "pad_type_id": 0,
                "pad_token": "the" })
    };
    assert_eq!(summary(&lab(|tokenizer| tokenizer["truncation"] = truncation)), whole);
    for strategy in [json!({ "Fixed": 12 }), json!({ "Fixed": 1_000_000_000_000_u64 })] {
        assert_eq!(summary(&lab(|tokenizer| tokenizer["padding"] = padding(strategy))), whole);
    }
}

/// `run` of a lab whose tokenizer is this file.
fn run_with_tokenizer(content: &[u8]) -> Outcome {
    let lab = lab(|_| ());
    lab.write("model/tokenizer.json", content);
    lab.run(["run", "e.toml"])
}

#[test]
fn tokenizers_that_the_library_panics_at_are_errors() {
    let with = |key: &str, value: Value| {
        let mut tokenizer = Model::tiny().tokenizer;
        tokenizer[key] = value;
        tokenizer.to_string()
    };
    let replace = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aa" });
    for (content, said) in [
        ("{\"version\":\"1.0\",\"decoder\":{".to_owned(), "EOF while parsing"),
        (
            with("normalizer", json!({ "type": "Precompiled", "precompiled_charsmap": "/P///2FiAA==" })),
            "4294967292 bytes follow",
        ),
        (with("normalizer", json!({ "type": "Sequence", "normalizers": vec![replace; 40] })), "more than the 1024"),
        (with("pre_tokenizer", json!({ "type": "FixedLength", "length": 0 })), "stops at it"),
        (
            with(
                "post_processor",
                json!({ "type": "TemplateProcessing", "pair": [], "special_tokens": {},
                                        "single": [{ "Sequence": { "id": "B", "type_id": 0 } }] }),
            ),
            "stops at it",
        ),
        (with("model", json!({ "type": "Unigram", "unk_id": null, "vocab": [["a", -1.0]] })), "`unk_id` is missing"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_owned(), "pointer of Git-LFS"),
    ] {
        let outcome = run_with_tokenizer(content.as_bytes());
        outcome.exits(INPUT).prints_nothing().says(&["error: ", "model/tokenizer.json`", said, "hint: "]);
        assert!(outcome.stderr.lines().count() < 8, "{}", outcome.stderr);
    }
}

#[test]
fn an_agreement_text_without_tokens_is_an_error() {
    // No token in either text: every word of the one is taken out; the other is of nothing but blanks and signs.
    let empty = |tokenizer: &mut Value| {
        tokenizer["normalizer"] = json!({ "type": "Replace", "pattern": { "Regex": "[a-z!]" }, "content": "" });
    };
    for text in ["the cat\n", "!!!\n\n  !\n"] {
        let lab = lab(empty);
        lab.write("e.toml", THREE_CELLS);
        lab.write("texts.txt", text);
        lab.run(["run", "e.toml"]).exits(INPUT).says(&["makes no token of `file:texts.txt`", "hint: "]);
    }
    // The token in front of every text is none of it.
    let lab = lab(|tokenizer| {
        empty(tokenizer);
        tokenizer["post_processor"] = json!({
            "type": "TemplateProcessing", "pair": [],
            "single": [{ "SpecialToken": { "id": "b", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "special_tokens": { "b": { "id": "b", "ids": [9], "tokens": ["b"] } },
        });
    });
    lab.write("e.toml", THREE_CELLS);
    lab.run(["run", "e.toml"]).exits(INPUT).says(&["makes no token of `file:texts.txt`"]);
}

/// The numbers of a text are those of Python's text mode: all line ends are `\n`, and a mark in front stays.
#[test]
fn line_ends_of_texts_are_one() {
    // A tokenizer that sees line ends: words are cut at blanks and stay with what is around.
    let cut = |tokenizer: &mut Value| {
        tokenizer["pre_tokenizer"] =
            json!({ "type": "Split", "pattern": { "String": " " }, "behavior": "Removed", "invert": false });
        tokenizer["model"]["vocab"]["mat\na"] = json!(3);
    };
    let text = "the cat sat on the mat\na dog ran the mat\na cat\n".repeat(4);
    let table = |text: &str, agreement: &str| {
        let lab = lab(cut);
        lab.write("text.txt", text);
        lab.write("texts.txt", agreement);
        let outcome = lab.run(["run", "e.toml"]);
        outcome.exits(0);
        (lab.read("results/e/tables/summary.csv"), outcome.stderr)
    };
    let (plain, said) = table(&text, "the cat\na dog\n");
    assert!(!said.contains("byte order mark"), "{said}");
    for end in ["\r\n", "\r"] {
        assert_eq!(table(&text.replace('\n', end), &"the cat\na dog\n".replace('\n', end)).0, plain, "{end:?}");
    }
    let (_, said) = table(&format!("\u{feff}{text}"), "the cat\na dog\n");
    assert!(said.contains("`file:text.txt` begins with a byte order mark"), "{said}");
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_texts_and_tokenizers() {
    let fifo = |lab: &Lab, name: &str| {
        let _ = std::fs::remove_file(lab.path(name));
        assert!(std::process::Command::new("mkfifo").arg(lab.path(name)).status().unwrap().success());
    };
    for name in ["texts.txt", "text.txt", "model/tokenizer.json"] {
        let lab = lab(|_| ());
        fifo(&lab, name);
        lab.run(["run", "e.toml"]).exits(INPUT).says(&["failed to read `", name, "a device, pipe or socket"]);
    }
    let lab = lab(|_| ());
    lab.write("e.toml", experiment().replace("file:text.txt", "file:/dev/zero"));
    lab.run(["run", "e.toml"]).exits(INPUT).says(&["failed to read `/dev/zero`", "not a regular file"]);
}

#[test]
fn a_tilde_is_the_users_folder() {
    let lab = lab(|_| ());
    std::fs::rename(lab.path("model"), lab.path("home-model")).unwrap();
    let experiment =
        experiment().replace("path:model", "path:~/home-model").replace("file:text.txt", "file:~/text.txt");
    lab.write("sub/e.toml", experiment.replace("file:texts.txt", "file:../texts.txt"));
    let mut command = lab.command(["run", "sub/e.toml"]);
    let outcome = lab.outcome(command.env("HOME", lab.path("")).output().unwrap());
    outcome.exits(0);
    // Another user's folder is not looked for.
    let experiment = experiment.replace("file:~/", "file:");
    lab.write("e.toml", experiment.replace("~/home-model", "~somebody/m"));
    lab.run(["run", "e.toml"]).exits(INPUT).says(&["no checkpoint folder", "~somebody/m"]);
    lab.write("e.toml", experiment.replace("path:~/home-model", "~/home-model"));
    lab.run(["check", "e.toml"]).exits(USAGE).says(&["did you mean `path:~/home-model`?"]);
}

#[test]
fn other_tokenizers_have_their_next_step() {
    let pair = |lab: &Lab| {
        lab.write("model/vocab.json", "{\"a\":0}");
        lab.write("model/merges.txt", "#version: 0.2\n");
        lab.write("model/tokenizer_config.json", "{\"tokenizer_class\":\"BartTokenizer\"}");
    };
    for (of_two_files, said) in [(false, "is SentencePiece, `tokenizer.model`"), (true, "BartTokenizer")] {
        let lab = lab(|_| ());
        std::fs::remove_file(lab.path("model/tokenizer.json")).unwrap();
        if of_two_files {
            pair(&lab)
        } else {
            lab.write("model/tokenizer.model", [10, 0])
        }
        lab.run(["run", "e.toml"]).exits(INPUT).says(&[said, "hint: ", "save_pretrained"]);
    }
}
