//! Files of the user's in `[[kernel]]` blocks: matrices on the CPU; kernels, as far as no GPU is needed.

use crate::support::{Lab, ROOT};
use std::path::Path;

/// Writes a safetensors file with one matrix.
fn matrix(lab: &Lab, name: &str, shape: [usize; 2], number: impl Fn(usize) -> f32) {
    let bytes: Vec<u8> = (0..shape[0] * shape[1]).flat_map(|at| number(at).to_le_bytes()).collect();
    let header =
        format!(r#"{{"m":{{"dtype":"F32","shape":[{},{}],"data_offsets":[0,{}]}}}}"#, shape[0], shape[1], bytes.len());
    lab.write(name, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat());
}

const FILES: &str = "name = 'e'\n[device]\nbackend = 'flex'\n[[kernel]]\nweight = 'w.safetensors'\ninput = 'x.safetensors'\n\
    format = ['dense', 'csr', 'bitmap']\nwarmup = 1\nrepeats = 3\n";

fn with_files() -> Lab {
    let lab = Lab::with(FILES);
    // A third of 24 x 40 is zero.
    matrix(&lab, "w.safetensors", [24, 40], |at| if at % 3 == 0 { 0.0 } else { (at % 17) as f32 - 8.5 });
    matrix(&lab, "x.safetensors", [5, 40], |at| (at % 13) as f32 - 6.5);
    lab
}

#[test]
fn a_matrix_of_a_file_is_timed_with_its_own_zeros() {
    let lab = with_files();
    lab.run(["run", "e.toml"]).exits(0).says(&["3 cells measured, 0 cached, 0 failed"]);
    let table = lab.read("results/e/tables/kernels.csv");
    let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let shown: Vec<_> = rows.iter().map(|row| (row[1], row[4], row[5], row[6])).collect();
    assert_eq!(shown, [("dense", "24", "40", "5"), ("csr", "24", "40", "5"), ("bitmap", "24", "40", "5")]);
    for sparse in &rows[1..] {
        let share: f64 = sparse[8].parse().unwrap();
        assert!((share - 1.0 / 3.0).abs() < 1e-9, "{sparse:?}");
    }
    lab.run(["run", "e.toml"]).exits(0).says(&["0 cells measured, 3 cached"]);
    // The names of files are not part of a cell's ID, what they hold is.
    std::fs::rename(lab.path("x.safetensors"), lab.path("y.safetensors")).unwrap();
    lab.write("e.toml", FILES.replace("x.safetensors", "y.safetensors"));
    lab.run(["run", "e.toml"]).exits(0).says(&["0 cells measured, 3 cached"]);
    matrix(&lab, "y.safetensors", [5, 40], |at| (at % 11) as f32 - 5.5);
    lab.run(["run", "e.toml"]).exits(0).says(&["3 cells measured, 0 cached"]);
}

#[test]
fn the_first_rows_of_an_input_are_as_many_tokens() {
    let lab = with_files();
    lab.write("e.toml", format!("{FILES}tokens = [2, 5]\n"));
    lab.run(["run", "e.toml"]).exits(0).says(&["6 cells measured, 0 cached, 0 failed"]);
    lab.write("e.toml", format!("{FILES}tokens = [2, 6]\n"));
    lab.run(["run", "e.toml"]).exits(2).says(&["`kernel.input`: `x.safetensors` has 5 rows, and `kernel.tokens` is 6"]);
}

#[test]
fn files_that_do_not_do_are_named() {
    let lab = with_files();
    matrix(&lab, "x.safetensors", [5, 39], |_| 1.0);
    lab.run(["plan", "e.toml"]).exits(2).says(&["`kernel.input`: `x.safetensors` has 39 columns, and the weight 40"]);
    matrix(&lab, "x.safetensors", [1, 40], |at| if at == 3 { f32::NAN } else { 1.0 });
    lab.run(["plan", "e.toml"]).exits(2).says(&["`kernel.input`", "has 1 numbers that are NaN or infinite"]);
    lab.write("w.safetensors", "no tensors");
    lab.run(["plan", "e.toml"]).exits(2).says(&["`kernel.weight`", "w.safetensors"]);
    std::fs::remove_file(lab.path("w.safetensors")).unwrap();
    lab.run(["plan", "e.toml"]).exits(2).says(&["`kernel.weight`: cannot read", "w.safetensors"]);
    // Whether files are there is no question of the file's grammar.
    lab.run(["check", "e.toml"]).exits(0);
}

#[test]
fn kernels_are_checked_without_a_gpu() {
    let folder = Path::new(ROOT).join("experiments/arena");
    let text = std::fs::read_to_string(folder.join("arena.toml")).unwrap();
    let lab = Lab::with(&text);
    lab.run(["check", "e.toml"]).exits(0);
    lab.write("e.toml", text.replacen("ceil_div(rows, 4)", "ceil_div(rows 4)", 1));
    lab.run(["check", "e.toml"])
        .exits(2)
        .says(&["`kernel.grid` `ceil_div(rows 4)` is no size", "`4` stands where `,` is expected"]);
    // Every function that the examples name is in its file.
    for entry in ["csr_warp", "bitmap_warp"] {
        let source = std::fs::read_to_string(folder.join(format!("{entry}.cu"))).unwrap();
        assert!(text.contains(&format!("entry = \"{entry}\"")) && source.contains(&format!("void {entry}(")));
    }
}
