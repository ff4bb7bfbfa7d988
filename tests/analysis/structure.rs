//! Densities, N:M, costs and features.

use crate::reference::{COUNTED, Check, Reference, Row, SUMMED, axis, number};
use sparsify_exp::analysis::{Axis, Profile, Structure, density_profile, features, nm_conformance, structure};
use std::collections::HashMap;

/// The figures of a row of `structure`.
pub fn check_structure(check: &mut Check, row: &Row, found: &Structure) {
    let counts = [
        ("nnz", found.nnz),
        ("total", found.total),
        ("kept_zeros", found.kept_zeros),
        ("flops_per_token_dense", found.flops_per_token_dense),
        ("flops_per_token_sparse", found.flops_per_token_sparse),
        ("bytes_dense", found.bytes_dense),
        ("bytes_csr", found.bytes_csr),
        ("bytes_csr_i32", found.bytes_csr_i32),
        ("bytes_csr_i64", found.bytes_csr_i64),
        ("bytes_bitmask", found.bytes_bitmask),
        ("bytes_bitmask_with_offsets", found.bytes_bitmask_with_offsets),
        ("dead_rows", found.dead_rows as u64),
        ("dead_cols", found.dead_cols as u64),
        ("full_rows", found.full_rows as u64),
        ("full_cols", found.full_cols as u64),
    ];
    counts.into_iter().for_each(|(key, count)| check.same(row, key, count));
    check.near(row, "sparsity", found.sparsity, COUNTED);
    for (side, spread) in [("row", found.row_density), ("col", found.col_density)] {
        let parts = [("mean", spread.mean), ("sd", spread.sd), ("min", spread.min), ("max", spread.max)];
        parts.into_iter().for_each(|(part, value)| check.near(row, &format!("{side}_density_{part}"), value, COUNTED));
    }
}

#[test]
fn structures() {
    let reference = Reference::open();
    let inputs = reference.csv("inputs.csv");
    let bytes = |row: &Row| {
        let own = |input: &&Row| input["source"] == row["source"] && input["component"] == row["component"];
        match inputs.iter().find(own).unwrap()["dtype"].as_str() {
            "float32" => 4,
            _ => 2,
        }
    };
    let mut totals: HashMap<String, u64> = HashMap::new();
    for input in &inputs {
        let total = (number(input, "out_features") * number(input, "in_features")) as u64;
        *totals.entry(input["source"].clone()).or_default() += total;
    }
    let mut check = Check::new("structure");
    for row in reference.csv("structure.csv") {
        let weights = &reference.matrix(&row["source"], &row["component"]).numbers;
        let pattern = reference.pattern(&row["source"], &row["component"], &row["mask_source"]);
        let found = structure(&pattern, Some(weights), bytes(&row), totals[&row["source"]]);
        check_structure(&mut check, &row, &found);
        check.near(&row, "param_frac", found.param_frac, COUNTED);
    }
}

#[test]
fn density_profiles() {
    let reference = Reference::open();
    let mut check = Check::new("density_profile");
    let mut found = HashMap::new();
    for row in reference.csv("density_profile.csv") {
        let (source, component) = (row["source"].clone(), row["component"].clone());
        let profile = match row["axis"].as_str() {
            "row" => Profile::Row,
            "col" => Profile::Col,
            "head" if component.ends_with("o_proj") => Profile::Head(Axis::In, 32),
            "head" => Profile::Head(Axis::Out, 32),
            block => Profile::ColBlock(block.strip_prefix("colblock").unwrap().parse().unwrap()),
        };
        let key = (source.clone(), component.clone(), row["axis"].clone());
        let rows = found
            .entry(key)
            .or_insert_with(|| density_profile(&reference.pattern(&source, &component, "nonzero"), profile));
        let found = rows[number(&row, "index")];
        check.same(&row, "count", found.count);
        check.same(&row, "size", found.size);
        check.near(&row, "density", found.density, COUNTED);
        if !row["complete"].is_empty() {
            check.same(&row, "complete", found.complete);
        }
    }
}

#[test]
fn nm_conformances() {
    let reference = Reference::open();
    let mut check = Check::new("nm_conformance");
    for row in reference.csv("nm_conformance.csv") {
        let pattern = reference.pattern(&row["source"], &row["component"], "nonzero");
        let found = nm_conformance(&pattern, number(&row, "n"), number(&row, "m"));
        check.same(&row, "groups", found.groups);
        check.same(&row, "conforming", found.conforming);
        check.near(&row, "conforming_fraction", found.conforming_fraction, COUNTED);
        check.near(&row, "exact_fraction", found.exact_fraction, COUNTED);
        check.same(&row, "max_kept", found.max_kept.map_or(String::new(), |kept| kept.to_string()));
        check.same(&row, "remainder_columns", found.remainder_columns);
        check.same(&row, "remainder_kept", found.remainder_kept);
        let histogram: Vec<String> = found.kept_histogram.iter().map(u64::to_string).collect();
        check.same(&row, "kept_histogram", histogram.join(" "));
    }
}

#[test]
fn feature_tables() {
    let reference = Reference::open();
    let calibration = reference.tensors("calibration.safetensors");
    let mut check = Check::new("features");
    let mut found = HashMap::new();
    for row in reference.csv("features.csv") {
        let axis = axis(&row);
        let key = (row["source"].clone(), row["module"].clone(), axis == Axis::In);
        let rows = found.entry(key).or_insert_with(|| {
            let matrix = reference.matrix(&row["source"], &row["module"]);
            let inputs = &calibration[&format!("layer{}-{}", row["layer"], row["module"])];
            let mut norms = vec![0.0; matrix.shape[1]];
            for token in inputs.numbers.chunks(norms.len()) {
                norms.iter_mut().zip(token).for_each(|(norm, &x)| *norm += f64::from(x) * f64::from(x));
            }
            norms.iter_mut().for_each(|norm| *norm = norm.sqrt());
            features(&matrix.pattern(), &matrix.numbers, Some(&norms), axis)
        });
        let found = rows[number(&row, "feature")];
        check.near(&row, "density", found.density, COUNTED);
        check.near(&row, "l2_norm", found.l2_norm, SUMMED);
        check.near(&row, "wanda_score", found.wanda_score, SUMMED);
        check.same(&row, "is_dead", found.is_dead);
        check.same(&row, "is_full", found.is_full);
    }
}
