//! Zero-shot tasks, item by item, against lm-evaluation-harness 0.4.13: see `tests/fixtures/tasks/README.md`.

use crate::{checkpoint, experiment, fixture, loader};
use burn::backend::Flex;
use burn::tensor::DType;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sparsify_exp::load::{Request, TaskItem, TaskSets, TaskTokens};
use sparsify_exp::measure::{
    Asked, Scored, Writing, likeliest, likeliest_by_length, mean_and_error, score, write_greedily,
};
use sparsify_exp::model::{Batch, Decoder, DecoderError, KvCache, Node, Tree};
use std::sync::Arc;

/// Tasks of the fixtures.
const NAMES: &str = "[\"boolq\", \"rte\", \"hellaswag\", \"winogrande\", \"arc_easy\", \"arc_challenge\", \"openbookqa\", \
                     \"piqa\", \"lambada_openai\", \"mmlu\"]";

fn tasks(model: &str, names: &str, keys: &str) -> Vec<TaskTokens> {
    tasks_of("datasets", model, names, keys)
}

fn tasks_of(datasets: &str, model: &str, names: &str, keys: &str) -> Vec<TaskTokens> {
    let folder = fixture(&format!("golden/{model}/model"));
    let path = fixture(&format!("tasks/{datasets}"));
    let rest =
        format!("[measure]\nmetrics = [\"tasks\"]\n[tasks]\nnames = {names}\npath = \"{}\"\n{keys}\n", path.display());
    let settings = experiment(&folder, &rest).tasks;
    let (files, checkpoint) = checkpoint(&folder);
    let architecture = checkpoint.architecture();
    let sets = TaskSets::read(&settings, &loader()).unwrap();
    sets.encode(&files.tokenizer().unwrap(), "m", architecture.max_positions, architecture.vocabulary).unwrap()
}

fn decoder(model: &str) -> Decoder<Flex> {
    decoder_of(&format!("golden/{model}/model"))
}

fn decoder_of(folder: &str) -> Decoder<Flex> {
    let (_, checkpoint) = checkpoint(&fixture(folder));
    let read = |module, part| checkpoint.read(module, part);
    Decoder::load(checkpoint.architecture().clone(), DType::F32, &Default::default(), read).unwrap()
}

fn scores(decoder: &mut Decoder<Flex>, task: &TaskTokens) -> Vec<Vec<Scored>> {
    let asked = |item: &TaskItem| -> Vec<(Vec<u32>, Vec<u32>)> {
        item.requests.iter().map(|request| (request.input.clone(), request.targets.clone())).collect()
    };
    let items: Vec<Vec<(Vec<u32>, Vec<u32>)>> = task.items.iter().map(asked).collect();
    let asked: Vec<Vec<Asked<'_>>> =
        items.iter().map(|item| item.iter().map(|(input, targets)| Asked { input, targets }).collect()).collect();
    score(decoder, &asked, |_| ()).unwrap()
}

/// The digest of what the model sees and what is scored, as the fixture has it.
fn digest(Request { input, targets, .. }: &Request) -> String {
    let mut hasher = Sha256::new();
    let numbers = input.iter().chain(targets.last()).copied().chain([targets.len() as u32]);
    numbers.for_each(|number| hasher.update(number.to_le_bytes()));
    hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The largest difference of a log-likelihood.
fn compare(task: &TaskTokens, scores: &[Vec<Scored>], expected: &Value) -> f64 {
    let name = task.task;
    let items = expected["items"].as_array().unwrap();
    assert_eq!(items.len(), task.items.len(), "{name}");
    let mut largest = 0.0_f64;
    let (mut right, mut right_by_length) = (Vec::new(), Vec::new());
    for ((item, scores), expected) in task.items.iter().zip(scores).zip(items) {
        let at = format!("{name} row {}", item.row);
        for (index, (request, scored)) in item.requests.iter().zip(scores).enumerate() {
            assert_eq!(digest(request), expected["ids"][index].as_str().unwrap(), "{at} choice {index}");
            let difference = (scored.log_likelihood - expected["ll"][index].as_f64().unwrap()).abs();
            assert!(difference < 1e-3, "{at} choice {index}: {difference}");
            largest = largest.max(difference);
            assert_eq!(scored.greedy, expected["greedy"][index].as_bool().unwrap(), "{at} choice {index}");
        }
        let values: Vec<f64> = scores.iter().map(|scored| scored.log_likelihood).collect();
        if values.len() == 1 {
            right.push(f64::from(u8::from(scores[0].greedy)));
            continue;
        }
        let choice = likeliest(&values);
        if let Some(expected) = expected["pred"].as_u64() {
            assert_eq!(choice as u64, expected, "{at}");
        }
        right.push(f64::from(u8::from(choice == item.gold)));
        if item.characters.is_empty() {
            continue;
        }
        let choice = likeliest_by_length(&values, &item.characters);
        if let Some(expected) = expected["pred_norm"].as_u64() {
            assert_eq!(choice as u64, expected, "{at}");
        }
        right_by_length.push(f64::from(u8::from(choice == item.gold)));
    }
    let metrics = &expected["metrics"];
    for (metric, right) in [("acc", right), ("acc_norm", right_by_length)] {
        let Some(expected) = metrics[metric].as_f64() else { continue };
        let error = metrics[format!("{metric}_stderr")].as_f64();
        // To the last digit.
        assert_eq!(mean_and_error(&right), (expected, error), "{name} {metric}");
    }
    largest
}

fn expected(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(&format!("tasks/{file}.json"))).unwrap()).unwrap()
}

#[test]
fn items_are_those_of_lm_eval() {
    let cases = [
        ("datasets", "tiny-llama", "tiny-llama", "", 129 + 12),
        ("datasets", "tiny-opt", "tiny-opt", "", 129 + 12),
        ("datasets", "tiny-opt", "tiny-opt.no-bos", "bos = false", 129 + 12),
        ("awkward", "tiny-gptneox", "awkward.tiny-gptneox", "", 61 + 6),
        ("awkward", "tiny-gptneox", "awkward.tiny-gptneox.bos", "bos = true", 61 + 6),
        ("awkward", "tiny-llama", "awkward.tiny-llama", "", 61 + 6),
    ];
    for (datasets, model, file, keys, items) in cases {
        let mut decoder = decoder(model);
        let expected = expected(file);
        let (mut compared, mut largest) = (0, 0.0_f64);
        let examples = format!("shots = 5\n{keys}");
        for (names, keys, suffix) in [(NAMES, keys, ""), ("\"mmlu\"", &examples, ".5-shot")] {
            for task in tasks_of(datasets, model, names, keys) {
                let of_task = &expected[format!("{}{suffix}", task.task)];
                largest = largest.max(compare(&task, &scores(&mut decoder, &task), of_task));
                compared += task.items.len();
            }
        }
        assert_eq!(compared, items, "{file}");
        assert!(largest > 0.0);
    }
}

#[test]
fn what_shares_a_pass_has_no_say() {
    let mut decoder = decoder("tiny-llama");
    for task in tasks("tiny-llama", "[\"hellaswag\", \"mmlu_global_facts\"]", "") {
        let together = scores(&mut decoder, &task);
        for (item, together) in task.items.iter().zip(&together) {
            let alone = TaskTokens { items: vec![item.clone()], ..task.clone() };
            for (a, b) in scores(&mut decoder, &alone)[0].iter().zip(together) {
                assert!((a.log_likelihood - b.log_likelihood).abs() < 1e-4 && a.greedy == b.greedy);
            }
        }
    }
}

/// More texts than are written at once, of prompts with and without a common beginning, each as it is written alone.
#[test]
fn what_is_written_beside_a_text_has_no_say() {
    for model in ["tiny-llama", "tiny-opt"] {
        let mut decoder = decoder(model);
        let ids = |start: u32, count: u32| (start..start + count).map(|i| 5 + i * 7 % 150).collect::<Vec<u32>>();
        for front in [0, 20] {
            let prompts: Vec<Vec<u32>> =
                (0..23).map(|prompt| [ids(3, front), ids(31 * prompt, 1 + prompt * 5 % 9)].concat()).collect();
            let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
            let ends = |written: &[u32]| written.iter().sum::<u32>() % 7 == 3;
            let done = std::cell::RefCell::new(Vec::new());
            let told = |count| done.borrow_mut().push(count);
            let writing = Writing { prompts: &prompts, most: 12 };
            let together = write_greedily(&mut decoder, writing, &ends, &told).unwrap();
            assert_eq!(done.into_inner(), (1..=23).collect::<Vec<usize>>());
            for (prompt, together) in prompts.iter().zip(&together) {
                let mut cache = KvCache::new(decoder.architecture(), 1, prompt.len() + 12);
                let (mut next, mut alone) = (prompt.to_vec(), Vec::new());
                while alone.len() < 12 && !ends(&alone) {
                    let hidden = decoder.extend(&Batch::new([&next[..]]), &mut cache).unwrap();
                    let last =
                        decoder.logits(hidden.narrow(0, next.len() - 1, 1)).into_data().into_vec::<f32>().unwrap();
                    let logits: Vec<f64> = last.into_iter().map(f64::from).collect();
                    next = vec![likeliest(&logits) as u32];
                    alone.push(next[0]);
                }
                assert_eq!(together, &alone, "{model} behind {front}");
            }
            let lengths: std::collections::BTreeSet<usize> = together.iter().map(Vec::len).collect();
            assert!(lengths.len() > 1, "all texts are of {lengths:?} tokens, which tests little");
        }
    }
}

/// Where the model ends, a text does.
#[test]
fn a_text_ends_where_the_model_has_no_position_left() {
    let mut decoder = decoder("tiny-opt");
    let positions = decoder.architecture().max_positions;
    let prompts: Vec<Vec<u32>> = [positions - 3, 2, positions].map(|count| vec![7; count]).into();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let written = write_greedily(&mut decoder, Writing { prompts: &prompts, most: 5 }, &|_| false, &|_| ()).unwrap();
    assert_eq!(written.iter().map(Vec::len).collect::<Vec<_>>(), [3, 5, 0]);
}

/// Rows of a tree, and of the whole sequences.
#[test]
fn a_tree_gives_what_its_sequences_give() {
    let golden = ["tiny-llama", "tiny-opt", "tiny-gptneox"].map(|model| format!("golden/{model}/model"));
    // Windows, experts, fused rows, and angles that are stretched.
    let families = ["mistral-window", "olmoe", "phi3", "llama3-rope"].map(|model| format!("families/{model}"));
    for model in golden.into_iter().chain(families) {
        let mut decoder = decoder_of(&model);
        let ids = |start: u32, count: u32| (start..start + count).map(|i| 5 + i * 7 % 150).collect::<Vec<u32>>();
        let (shared, stems) = (ids(3, 19), [ids(100, 9), ids(50, 1), ids(7, 14)]);
        let twigs = [(0, ids(1, 4)), (0, ids(20, 1)), (2, ids(30, 6)), (2, ids(44, 2)), (2, ids(90, 9))];
        let of_stem = |ids: &Vec<u32>| Node { above: None, ids: ids.clone() };
        let of_twig = |(above, ids): &(usize, Vec<u32>)| Node { above: Some(*above), ids: ids.clone() };
        let tree = Tree { waves: vec![stems.iter().map(of_stem).collect(), twigs.iter().map(of_twig).collect()] };
        for front in [vec![], shared] {
            let root = (!front.is_empty()).then(|| {
                let mut cache = KvCache::new(decoder.architecture(), 1, front.len() + 3);
                decoder.extend(&Batch::new([&front[..]]), &mut cache).unwrap();
                Arc::new(cache)
            });
            let hidden = decoder.hidden_of_tree(&tree, root.as_ref()).unwrap();
            let mut start = 0;
            for (above, node) in tree.waves.iter().flatten().map(|node| (node.above, &node.ids)) {
                let above = above.map_or_else(Vec::new, |above| stems[above].clone());
                let whole = [front.clone(), above, node.clone()].concat();
                let alone = decoder.hidden(&Batch::new([&whole[..]])).unwrap();
                let alone = alone.narrow(0, whole.len() - node.len(), node.len());
                let here = hidden.clone().narrow(0, start, node.len());
                let difference = (alone - here).abs().max().into_scalar();
                assert!(difference < 2e-5, "{model} {start}: {difference}");
                start += node.len();
            }
            assert_eq!(start, hidden.dims()[0]);
        }
    }
}

#[test]
fn what_does_not_fit_the_model_is_an_error() {
    let mut decoder = decoder("tiny-llama");
    let node = |above, count| Node { above, ids: vec![1; count] };
    let tree = Tree { waves: vec![vec![node(None, 100)], vec![node(Some(0), 29)]] };
    let error = decoder.hidden_of_tree(&tree, None).unwrap_err();
    assert_eq!(error, DecoderError::TooLong { length: 129, positions: 128 });
    assert_eq!(decoder.hidden_of_tree(&Tree::default(), None).unwrap_err(), DecoderError::Empty);
}
