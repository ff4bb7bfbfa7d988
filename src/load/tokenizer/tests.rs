//! Tokenizers from files as people have them, beside what transformers 5.24.0 (tokenizers 0.23.3) makes of the same
//! files, and from files that nobody should have.

use super::*;
use serde_json::json;
use tempfile::TempDir;

const END: &str = "<|endoftext|>";

/// A folder with files.
fn folder(files: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// The tokenizer of a folder, for a model of this type.
fn open(folder: &TempDir, model_type: &str) -> Result<Tokenizer, LoadError> {
    let find = |name: &str| Ok(Some(folder.path().join(name)).filter(|path| path.exists()));
    TokenizerFiles::find(&find, &json!({ "model_type": model_type }), "path:m")?.expect("a tokenizer").open()
}

/// Byte-level BPE: the 256 bytes, whose ids are their values, the merges `1 2` (256) and `Ġ t` (257), and more tokens.
fn byte_level(more: &[&str]) -> Vec<(&'static str, String)> {
    let plain = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut odd = 256..;
    let mut symbol = |byte| char::from_u32(if plain(byte) { byte } else { odd.next().unwrap() }).unwrap().to_string();
    let mut tokens: Vec<String> = (0..256).map(&mut symbol).collect();
    tokens.extend(["12".into(), "Ġt".into()]);
    tokens.extend(more.iter().map(|token| (*token).to_owned()));
    let vocab: serde_json::Map<String, Value> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
    vec![("vocab.json", Value::Object(vocab).to_string()), ("merges.txt", "#version: 0.2\n1 2\nĠ t\n".to_owned())]
}

/// Such a tokenizer with files beside it.
fn two_files(model_type: &str, more: &[&str], files: &[(&'static str, Value)]) -> Result<Tokenizer, LoadError> {
    let mut all = byte_level(more);
    all.extend(files.iter().map(|(name, value)| (*name, value.to_string())));
    open(&folder(&all), model_type)
}

fn ids(tokenizer: Result<Tokenizer, LoadError>, text: &str) -> Vec<u32> {
    tokenizer.unwrap().encode(text).unwrap()
}

#[test]
fn tokens_end_where_the_text_that_they_stand_for_does() {
    let tokenizer = two_files("gpt2", &[END], &[]).unwrap();
    // Two tokens of a byte each make up a letter; both end where it does.
    for text in ["12 the", "12 Gr\u{fc}\u{df}e\n\n \u{4e16}", ""] {
        let Encoded { ids, ends } = tokenizer.encode_with_ends(text).unwrap();
        assert_eq!(ids, tokenizer.encode(text).unwrap());
        assert_eq!((ids.len(), ends.last().copied().unwrap_or(0)), (ends.len(), text.len()));
        assert!(ends.is_sorted() && ends.iter().all(|end| text.is_char_boundary(*end)), "{ends:?}");
    }
    assert_eq!(tokenizer.encode_with_ends("12 the").unwrap().ends, [2, 4, 5, 6]);
}

#[test]
fn the_class_says_how_a_text_is_cut() {
    let class = |name: &str| ("tokenizer_config.json", json!({ "tokenizer_class": name }));
    let of = |model_type: &str, files: &[(&'static str, Value)], text| ids(two_files(model_type, &[END], files), text);
    let (gpt2, qwen2) =
        (vec![256, 32, 256, 51, 52, 53, 257, 104, 101], vec![49, 50, 32, 49, 50, 51, 52, 53, 257, 104, 101]);
    const TEXT: &str = "12 12345 the";
    for name in ["GPT2Tokenizer", "GPT2TokenizerFast", "GPTNeoXTokenizer"] {
        assert_eq!(of("llama", &[class(name)], TEXT), gpt2, "{name}");
        // Whatever a repository of Qwen2's family states.
        assert_eq!(of("qwen2", &[class(name)], TEXT), qwen2, "{name}");
    }
    assert_eq!(of("opt", &[class("Qwen2TokenizerFast")], TEXT), qwen2);
    for model_type in ["opt", "gpt2", "gpt_neox"] {
        assert_eq!(of(model_type, &[], TEXT), gpt2, "{model_type}");
    }
    assert_eq!(of("qwen2", &[], "12"), [49, 50]);
    // Composed before it is cut, by all but GPT-2; and line ends.
    assert_eq!(
        of("qwen2", &[], "12 12345 e\u{301} the\n\n<|endoftext|> a")[8..],
        [32, 195, 169, 257, 104, 101, 10, 10, 258, 32, 97]
    );
    assert_eq!(of("gpt_neox", &[], "e\u{301}"), [195, 169]);
    assert_eq!(of("gpt2", &[], "e\u{301}"), [101, 204, 129]);
    assert_eq!(of("gpt_neox", &[], "  12  the\n \n"), [32, 32, 256, 32, 257, 104, 101, 10, 32, 10]);
    let prefix = ("tokenizer_config.json", json!({ "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": true }));
    assert_eq!(of("gpt2", &[prefix], "12"), [32, 256]);
    let prefix = ("tokenizer_config.json", json!({ "tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": true }));
    assert_eq!(of("qwen2", &[prefix], "12"), [32, 49, 32, 50]);
}

#[test]
fn a_class_that_is_not_known_is_refused() {
    for (model_type, config, stated) in [
        ("llama", json!({ "tokenizer_class": "LlamaTokenizer" }), "`tokenizer_class = LlamaTokenizer`"),
        ("opt", json!({ "tokenizer_class": "RobertaTokenizer" }), "`tokenizer_class = RobertaTokenizer`"),
        ("qwen2", json!({ "tokenizer_class": "Foo" }), "`tokenizer_class = Foo`"),
        ("mistral", json!({}), "no `tokenizer_class`"),
    ] {
        let error = two_files(model_type, &[END], &[("tokenizer_config.json", config)]).unwrap_err();
        assert!(error.to_string().contains(stated) && error.to_string().contains("`GPT2Tokenizer`"), "{error}");
        assert!(error.hint().unwrap().contains("save_pretrained"), "{error}");
    }
}

#[test]
fn tokens_beside_the_vocabulary_are_registered() {
    let class = |name: &str| json!({ "tokenizer_class": name });
    let with = |name: &str, key: &str, value: Value| {
        let mut config = class(name);
        config[key] = value;
        ("tokenizer_config.json", config)
    };
    let (gpt2, qwen2) = ("GPT2Tokenizer", "Qwen2Tokenizer");
    let of = |model_type: &str, more: &[&str], files: &[(&'static str, Value)], text| {
        ids(two_files(model_type, more, files), text)
    };
    // The defaults, in the vocabulary or after it.
    assert_eq!(of("gpt2", &[], &[], "12 the<|endoftext|>x")[4..], [258, 120]);
    assert_eq!(of("gpt_neox", &[], &[], "<|padding|>x"), [259, 120]);
    let added = ("added_tokens.json", json!({ "<new>": 260, "<|im_start|>": 259 }));
    let extra = with(qwen2, "additional_special_tokens", json!(["<|im_start|>"]));
    assert_eq!(of("qwen2", &[END], &[extra, added.clone()], "12<|im_start|>x<new>"), [49, 50, 259, 120, 260]);
    assert_eq!(of("gpt2", &[END], &[added], "12<|im_start|>x<new>"), [256, 259, 120, 260]);
    let decoder = json!({
        "tokenizer_class": qwen2, "additional_special_tokens": ["<|im_start|>", "<new>"],
        "added_tokens_decoder": {
            "259": { "content": "<|im_start|>", "special": true, "normalized": false },
            "260": { "content": "<l>", "lstrip": true, "rstrip": true, "normalized": false, "special": false },
        },
    });
    let decoder = ("tokenizer_config.json", decoder);
    assert_eq!(of("qwen2", &[END], &[decoder], "12<|im_start|>x<new> <l> t"), [49, 50, 259, 120, 261, 260, 116]);
    let map = ("special_tokens_map.json", json!({ "bos_token": "<|x|>", "additional_special_tokens": ["<y>"] }));
    assert_eq!(of("gpt2", &[END], &[map], "12<|x|><y>x"), [256, 259, 260, 120]);
    for extra in [json!(["<y>"]), json!({ "y_token": "<y>" })] {
        assert_eq!(of("gpt2", &[END], &[with(gpt2, "extra_special_tokens", extra)], "12<y>x"), [256, 259, 120]);
    }
    assert_eq!(of("gpt2", &[END], &[with(gpt2, "image_token", json!("<img>"))], "12<img>x"), [256, 259, 120]);
}

#[test]
fn a_token_in_front_is_put_where_it_is_said() {
    let opt = |flag: Value| {
        let config = json!({ "tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "eos_token": "</s>",
                             "unk_token": "</s>", "pad_token": "<pad>", "add_bos_token": flag });
        two_files("opt", &["</s>", "<pad>"], &[("tokenizer_config.json", config)])
    };
    assert_eq!(ids(opt(json!(true)), "12"), [258, 256]);
    assert_eq!(opt(json!(true)).unwrap().front().unwrap(), [258]);
    assert_eq!(ids(opt(json!(false)), "12"), [256]);
    assert_eq!(ids(opt(Value::Null), "12"), [256]);
    let bos = json!({ "__type": "AddedToken", "content": "<s>", "lstrip": false, "normalized": true, "rstrip": false });
    let config = json!({ "tokenizer_class": "GPT2Tokenizer", "add_bos_token": true, "bos_token": bos });
    let both = two_files("gpt2", &[], &[("tokenizer_config.json", config)]).unwrap();
    assert_eq!(both.encode("12<|endoftext|>x").unwrap(), [258, 256, 259, 120]);
    // Qwen2 has none that could be put.
    let config = json!({ "tokenizer_class": "Qwen2Tokenizer", "add_bos_token": true });
    assert_eq!(ids(two_files("qwen2", &[END], &[("tokenizer_config.json", config)]), "12"), [49, 50]);
}

#[test]
fn files_that_contradict_each_other_are_refused() {
    for (file, value, said) in [
        ("added_tokens.json", json!({ "<new>": 300 }), "has id 300 in its files, but 259 after the vocabulary"),
        ("added_tokens.json", json!({ "<new>": 65 }), "has id 65 in its files"),
        ("added_tokens.json", json!(["<new>"]), "no object of tokens and ids"),
        ("added_tokens.json", json!({ "<new>": -1 }), "no object of tokens and ids"),
        ("tokenizer_config.json", json!({ "added_tokens_decoder": { "x": "<new>" } }), "`added_tokens_decoder`"),
        ("vocab.json", json!({ "a": "b" }), "no valid JSON"),
        ("vocab.json", json!({ "a": 0 }), "vocab.json` is no usable tokenizer"),
        ("merges.txt", json!("a b c"), "is no pair of tokens"),
    ] {
        let error = two_files("gpt2", &[END], &[(file, value)]).unwrap_err().to_string();
        assert!(error.contains(said), "{file}: {error}");
    }
}

#[test]
fn other_tokenizers_are_known_by_their_files() {
    for (name, kind) in [("tokenizer.model", "SentencePiece"), ("tekken.json", "tekken"), ("vocab.txt", "WordPiece")] {
        let error = open(&folder(&[(name, String::new())]), "llama").unwrap_err();
        assert!(error.to_string().contains(kind) && error.to_string().contains(&format!("`{name}`")), "{error}");
        assert!(error.hint().unwrap().contains("save_pretrained"), "{error}");
    }
    let nothing = |_: &str| Ok(None);
    assert!(TokenizerFiles::find(&nothing, &json!({ "model_type": "llama" }), "path:m").unwrap().is_none());
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 9085657\n".to_owned();
    for files in
        [vec![("tokenizer.json", pointer.clone())], vec![("vocab.json", pointer.clone()), ("merges.txt", pointer)]]
    {
        let error = open(&folder(&files), "gpt2").unwrap_err();
        assert!(
            matches!(error, LoadError::Pointer { .. }) && error.hint().unwrap().contains("git lfs pull"),
            "{error}"
        );
    }
}

/// A `tokenizer.json` of three tokens with other parts.
fn parts(parts: Value) -> String {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2, "c": 3 }, "merges": ["a b"] },
    });
    file.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    file.to_string()
}

fn of_json(content: String) -> Result<Vec<u32>, LoadError> {
    let folder = folder(&[("tokenizer.json", content)]);
    open(&folder, "llama")?.encode("abé b c")
}

#[test]
fn settings_of_calls_and_of_training_are_off() {
    let plain = of_json(parts(json!({}))).unwrap();
    assert_eq!(plain, [2, 1, 3]);
    let truncation =
        |length: usize| json!({ "direction": "Right", "max_length": length, "strategy": "LongestFirst", "stride": 9 });
    let padding = |strategy: Value| json!({ "strategy": strategy, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 1, "pad_type_id": 0, "pad_token": "b" });
    for changed in [
        json!({ "truncation": truncation(1) }),
        json!({ "truncation": truncation(0) }),
        json!({ "padding": padding(json!("BatchLongest")) }),
        json!({ "padding": padding(json!({ "Fixed": 1_000_000_000_000_u64 })) }),
        json!({ "padding": padding(json!({ "Fixed": 40 })), "truncation": truncation(2) }),
    ] {
        assert_eq!(of_json(parts(changed.clone())).unwrap(), plain, "{changed}");
    }
    for dropout in [1.0, 0.5] {
        let model = json!({ "type": "BPE", "dropout": dropout, "vocab": { "a": 0, "b": 1, "ab": 2, "c": 3 }, "merges": ["a b"] });
        for _ in 0..8 {
            assert_eq!(of_json(parts(json!({ "model": model }))).unwrap(), plain);
        }
    }
}

/// Files that make the library panic, fail, or neither: the program must go on in any case.
#[test]
fn files_that_nobody_should_have_are_errors_at_most() {
    let model = |model: Value| json!({ "model": model });
    let before = |part: Value| json!({ "pre_tokenizer": part });
    let behind = |single: Value, tokens: Value| json!({ "post_processor": { "type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens } });
    let sequence = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let special = json!({ "SpecialToken": { "id": "X", "type_id": 0 } });
    let bad = [
        json!({ "normalizer": { "type": "Precompiled", "precompiled_charsmap": "!!" } }),
        json!({ "normalizer": { "type": "Precompiled", "precompiled_charsmap": "" } }),
        json!({ "normalizer": { "type": "Precompiled", "precompiled_charsmap": 5 } }),
        // An empty tree, and one that points out of itself.
        json!({ "normalizer": { "type": "Precompiled", "precompiled_charsmap": "AAAAAGFiAA==" } }),
        json!({ "normalizer": { "type": "Precompiled", "precompiled_charsmap": "BAAAAP//DwBhYgA=" } }),
        json!({ "normalizer": { "type": "Replace", "pattern": { "Regex": "(" }, "content": "x" } }),
        json!({ "normalizer": { "type": "Bert" } }),
        json!({ "normalizer": 5 }),
        model(json!({ "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": ["a b"] })),
        model(json!({ "type": "BPE", "vocab": { "a": 0 }, "merges": [], "unk_token": "zz" })),
        model(json!({ "type": "BPE", "vocab": { "a": 0, "é": 1, "aé": 2 }, "merges": ["a é"],
                      "continuing_subword_prefix": "x" })),
        model(json!({ "type": "Unigram", "unk_id": null, "vocab": [["a", -1.0]] })),
        model(json!({ "type": "Unigram", "unk_id": 7, "vocab": [["a", -1.0]] })),
        model(json!({ "type": "Unigram", "unk_id": 0, "vocab": [] })),
        model(json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": { "a": 0 } })),
        model(json!({ "type": "WordLevel", "unk_token": "[UNK]", "vocab": { "a": 0 } })),
        model(json!({ "type": "Banana" })),
        model(Value::Null),
        before(json!({ "type": "FixedLength", "length": 0 })),
        before(json!({ "type": "Metaspace", "replacement": "", "prepend_scheme": "always" })),
        behind(json!([special, sequence("A")]), json!({})),
        behind(json!([sequence("B")]), json!({})),
        json!({ "version": "2.0" }),
    ];
    for parts_of_it in bad {
        let error = of_json(parts(parts_of_it.clone())).err();
        let error = error.unwrap_or_else(|| panic!("{parts_of_it} is taken"));
        assert!(matches!(error, LoadError::Tokenizer { .. }), "{parts_of_it}: {error}");
        assert!(error.to_string().contains("tokenizer.json`"), "{error}");
    }
    for text in [
        "",
        "{\"version\":\"1.0\",\"decoder\":{",
        "{\"version\":\"1.0\",\"pre_tokenizer\":{",
        "{\"version\":\"1.0\",\"model\":[",
        "nonsense",
        "{}",
        "[]",
        "{\"version\":\"1.0\"}",
    ] {
        assert!(of_json(text.to_owned()).is_err(), "{text}");
    }
    // Odd, but of use.
    for odd in [
        json!({ "normalizer": { "type": "Replace", "pattern": { "String": "" }, "content": "x" } }),
        json!({ "normalizer": { "type": "Replace", "pattern": { "Regex": "b*" }, "content": "x" } }),
        before(json!({ "type": "Split", "pattern": { "String": "" }, "behavior": "Isolated", "invert": false })),
        before(json!({ "type": "Split", "pattern": { "Regex": "" }, "behavior": "MergedWithNext", "invert": true })),
        model(json!({ "type": "BPE", "vocab": { "a": 4_294_967_295_u32, "b": 1 }, "merges": [] })),
        model(json!({ "type": "Unigram", "unk_id": 0, "vocab": [["", 0.0], ["a", -1.0]] })),
        json!({ "added_tokens": [{ "id": 3, "content": "", "single_word": false, "lstrip": false, "rstrip": false,
                                   "normalized": false, "special": true }] }),
    ] {
        let _ = of_json(parts(odd));
    }
}

#[test]
fn a_text_that_grows_is_measured_before_it_is_cut() {
    let twice = |times: usize| {
        let replace = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aa" });
        json!({ "normalizer": { "type": "Sequence", "normalizers": vec![replace; times] } })
    };
    let tokenizer = |times| open(&folder(&[("tokenizer.json", parts(twice(times)))]), "llama");
    assert_eq!(tokenizer(3).unwrap().encode("ab").unwrap(), [0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(tokenizer(10).unwrap().normalised(&"ab".repeat(100)).unwrap(), 100 * 1025);
    // In pieces that end between characters.
    let long = "é".repeat(PIECE);
    assert_eq!(tokenizer(10).unwrap().normalised(&long).unwrap(), long.len());
    assert!(tokenizer(40).unwrap_err().to_string().contains("more than the 1024 that are allowed"));
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_read() {
    let fifo = |path: &Path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    for name in ["tokenizer.json", "vocab.json", "tokenizer_config.json"] {
        let folder = folder(&byte_level(&[]));
        let path = folder.path().join(name);
        let _ = std::fs::remove_file(&path);
        fifo(&path);
        let error = open(&folder, "gpt2").unwrap_err();
        assert!(matches!(&error, LoadError::Read { path: named, .. } if *named == path), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("tokenizer.json")).unwrap();
    assert!(matches!(open(&folder, "gpt2"), Err(LoadError::Read { .. })));
}
