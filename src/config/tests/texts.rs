//! Texts and how they are measured: `[data]`, and the keys of `latency`.

use super::*;

#[test]
fn perplexity_keys() {
    let out_of_range = "`data.perplexity_stride` is out of range";
    one_error("[data]\nperplexity_stride = 0\n", &[out_of_range, "at least 1"]);
    one_error("[data]\ncontext = 8\nperplexity_stride = 9\n", &[out_of_range, "from 1 to 8", "tokens of a window"]);
    assert!(with("[data]\ncontext = 8\nperplexity_stride = 8\n").is_ok());
    one_error("[data]\nperplexity_bos = \"window\"\n", &["unknown value", "did you mean `windows`?"]);
    one_error("[data]\nperplexity = \"hf:a/b\"\n", &["not a split of a dataset", "`hf:a/b/default/train`"]);
}

#[test]
fn documents_are_joined_as_said_or_as_published() {
    let data = |text: &str| with(&format!("[data]\n{text}")).unwrap().data;
    let joining = |join: &str, documents| Joining { join: join.into(), documents };
    let c4 = "perplexity = \"hf:allenai/c4/en/validation\"\ncalibration = \"hf:Salesforce/wikitext/wikitext-2-raw-v1/train\"\n";
    assert_eq!(data(c4).perplexity_joining, joining(" ", 1100));
    assert_eq!(data(c4).calibrations[0].joining, joining(" ", 0));
    let said = data(&format!(
        "{c4}perplexity_join = \"\\n\"\nperplexity_documents = 0\ncalibration_join = \"\"\ncalibration_documents = 7\ncalibration_bos = true\n"
    ));
    assert_eq!(
        (said.perplexity_joining.clone(), said.calibrations[0].joining.clone()),
        (joining("\n", 0), joining("", 7))
    );
    assert!(said.calibration_bos && !data(c4).calibration_bos);
    assert_eq!(data("").perplexity_joining, joining("\n\n", 0));
    one_warning(
        "[data]\nperplexity_join = \" \"\n",
        &["`data.perplexity_join` has no effect on `builtin:heldout`", "one text already"],
    );
    one_warning(
        "[data]\ncalibration = \"file:a.txt\"\ncalibration_documents = 3\n",
        &["`data.calibration_documents` has no effect on `file:a.txt`"],
    );
    one_error("[data]\ncalibration_bos = \"yes\"\n", &["`data.calibration_bos`"]);
    one_error("[data]\nperplexity_documents = -1\n", &["`data.perplexity_documents`"]);
}

#[test]
fn windows_are_drawn_from_documents() {
    let c4 = "perplexity = \"hf:allenai/c4/en/validation\"\n";
    let gptq = |text: &str| format!("[data]\n{text}perplexity_drawing = \"gptq\"\n");
    let data = |text: &str| with(text).unwrap().data;
    let of = |data: Data| (data.perplexity_drawing, data.perplexity_windows, data.perplexity_joining.documents);
    assert_eq!(of(data(&format!("[data]\n{c4}"))), (Drawing::InOrder, 0, 1100));
    assert_eq!(of(data(&gptq(c4))), (Drawing::Gptq, 256, 0));
    let said = format!("{c4}perplexity_windows = 8\nperplexity_documents = 1100\n");
    assert_eq!(of(data(&gptq(&said))), (Drawing::Gptq, 8, 1100));
    one_error(&gptq(""), &["not available for `builtin:heldout`", "have documents"]);
    one_error(
        &gptq(&format!("{c4}perplexity_stride = 8\n")),
        &["`data.perplexity_stride` is not available with `gptq`"],
    );
    one_error(&gptq(&format!("{c4}perplexity_bos = \"windows\"\n")), &["`data.perplexity_bos` is not available"]);
    one_warning(
        &gptq(&format!("{c4}perplexity_join = \" \"\n")),
        &["`data.perplexity_join` has no effect with `gptq`"],
    );
    one_error("[data]\nperplexity_drawing = \"gtpq\"\n", &["unknown value", "did you mean `gptq`?"]);
}

#[test]
fn of_words_or_others_all_are_named() {
    let tasks = |bos: &str| format!("[measure]\nmetrics = [\"tasks\"]\n[tasks]\nnames = \"boolq\"\nbos = {bos}\n");
    for bos in ["\"yes\"", "3", "\"True\""] {
        one_error(&tasks(bos), &["`tasks.bos`", "expected `tokenizer` or `true` or `false`"]);
    }
    one_error("[device]\nworkers = \"many\"\n", &["`device.workers`", "integer", "`all`"]);
}

#[test]
fn calibration_keys() {
    let out_of_range = |key: &str| format!("`data.calibration_{key}` is out of range");
    one_error("[data]\ncalibration_samples = 0\n", &[&out_of_range("samples"), "at least 1"]);
    one_error("[data]\ncalibration_samples = 65537\n", &[&out_of_range("samples"), "from 1 to 65536"]);
    one_error("[data]\ncalibration_length = 0\n", &[&out_of_range("length"), "at least 1"]);
    one_error("[data]\ncalibration = \"calibration\"\n", &["did you mean `builtin:calibration`?"]);
}

#[test]
fn latency_keys() {
    let measured = "[measure]\nmetrics = [\"latency\"]\n";
    one_error(&format!("{measured}batch = 0\n"), &["`measure.batch` is out of range", "from 1 to 65536"]);
    one_error(&format!("{measured}batch = [1, 65537]\n"), &["`measure.batch` is out of range"]);
    one_error(&format!("{measured}prompt = [0, 8]\n"), &["`measure.prompt` is out of range", "at least 1"]);
    one_error(&format!("{measured}generate = 0\n"), &["`measure.generate` is out of range", "at least 1"]);
    one_error(&format!("{measured}[execute]\nrepeats = 0\n"), &["`execute.repeats` is out of range", "at least 1"]);
    one_warning(&format!("{measured}batch = [2, 2]\n"), &["`measure.batch` has `2` twice"]);
    let unused = "only `latency` uses it, which is not measured";
    for (section, key) in [
        ("execute", "warmup"),
        ("execute", "repeats"),
        ("measure", "batch"),
        ("measure", "prompt"),
        ("measure", "generate"),
    ] {
        let text = format!("[{section}]\n{key} = 2\n");
        one_warning(&text, &[&format!("`{section}.{key}` has no effect"), unused]);
    }
    // One mistake is enough to tell.
    one_error("[measure]\nmetrics = \"latancy\"\nbatch = 2\n", &["did you mean `latency`?"]);
}

#[test]
fn calibrations_are_the_product_of_their_axes() {
    let keys = "[data]\ncalibration = [\"file:a.txt\", \"hf:allenai/c4/en/train\"]\ncalibration_samples = [8, 16]\n\
                calibration_length = { from = 64, to = 256, step = 96 }\n";
    let data = with(keys).unwrap().data;
    let all: Vec<String> = data.calibrations.iter().map(|calibration| calibration.choice().to_string()).collect();
    assert_eq!(all.len(), 12);
    assert_eq!((all[0].as_str(), all[4].as_str()), ("file:a.txt, 8 × 64", "file:a.txt, 16 × 160"));
    assert_eq!(all[11], "hf:allenai/c4/en/train, 16 × 256");
    assert_eq!(data.calibrations[11].joining, Joining::published(&data.calibrations[11].text));
    assert_eq!(data.choices().len(), 12);
    assert_eq!(with("").unwrap().data.choices(), [None]);
    one_warning("[data]\ncalibration_samples = [8, 16, 8]\n", &["`data.calibration_samples` has `8` twice"]);
}
