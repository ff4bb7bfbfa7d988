//! Thresholded inputs.

use crate::reference::{COUNTED, Check, Reference, Row, SUMMED, Tensor, cells};
use serde_json::Value;
use sparsify_exp::analysis::{ActivationRow, Linear, activation_sparsity, input_thresholds};
use std::collections::BTreeMap;

/// The figures of a threshold.
pub fn check_row(check: &mut Check, expected: &Value, found: &ActivationRow) {
    let row: Row = cells(expected);
    check.same(&row, "kept_total", found.kept_total);
    check.same(&row, "weights_touched", found.weights_touched);
    let floats = [
        ("achieved_mean", found.achieved_mean, COUNTED),
        ("achieved_p5", found.achieved_p5, COUNTED),
        ("achieved_p95", found.achieved_p95, COUNTED),
        ("weights_touched_fraction", found.weights_touched_fraction, COUNTED),
        ("weights_touched_of_kept", found.weights_touched_of_kept, COUNTED),
        ("rel_output_error", found.rel_output_error, SUMMED),
        ("rel_output_error_token_mean", found.rel_output_error_token_mean, SUMMED),
    ];
    floats.into_iter().for_each(|(key, value, within)| check.near(&row, key, value, within));
    for (batch, share) in &found.batch_union_kept {
        check.near_value("union", expected["batch_union_kept"][batch.to_string()].as_f64().unwrap(), *share, COUNTED);
    }
}

pub fn batches(expected: &Value) -> Vec<usize> {
    expected["batch_union_kept"].as_object().unwrap().keys().map(|batch| batch.parse().unwrap()).collect()
}

fn inputs_of<'a>(name: &str, calibration: &'a BTreeMap<String, Tensor>) -> &'a Tensor {
    let component = name.split_once('/').unwrap().1;
    let mut found = calibration.iter().filter(|(key, _)| key.ends_with(&format!("-{component}")));
    found.next().unwrap().1
}

#[test]
fn thresholds_and_what_they_cost() {
    let reference = Reference::open();
    let (calibration, tiny) =
        (reference.tensors("calibration.safetensors"), reference.tensors("activation.safetensors"));
    let mut check = Check::new("activation_sparsity");
    for expected in reference.json("activation_sparsity.json")["cases"].as_array().unwrap() {
        let name = expected["case"].as_str().unwrap();
        let (inputs, weights) = match name.split_once('/') {
            None => (&tiny["tiny.x"], &tiny["tiny.w"]),
            Some((source, component)) => (inputs_of(name, &calibration), reference.matrix(source, component)),
        };
        let row = cells(expected);
        let threshold = row["threshold"].parse().unwrap();
        if let Ok(target) = row["target"].parse() {
            check.near(&row, "threshold", input_thresholds(&inputs.numbers, &[target])[0], COUNTED);
        }
        let pattern = weights.pattern();
        let linear = Linear { inputs: &inputs.numbers, weights: &weights.numbers, pattern: &pattern };
        check_row(&mut check, expected, &activation_sparsity(&linear, &[threshold], &batches(expected))[0]);
    }
}
