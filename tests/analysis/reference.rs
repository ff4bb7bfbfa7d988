//! Reading the reference, and comparing with it.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use sparsify_exp::analysis::{Axis, Mask};
use sparsify_exp::sparse::Pattern;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A whole number, as a label or a place.
pub type Row = HashMap<String, String>;

/// A tensor of numbers.
pub struct Tensor {
    pub shape: Vec<usize>,
    pub numbers: Vec<f32>,
}

impl Tensor {
    /// What is not 0.
    pub fn pattern(&self) -> Pattern {
        Pattern::keep_where(self.shape[0], self.shape[1], &self.numbers, |_, weight| weight != 0.0)
    }
}

/// The reference in a folder.
pub struct Reference {
    folder: PathBuf,
    pub matrices: BTreeMap<String, Tensor>,
    /// Explicit masks: of `source/component`.
    pub masks: BTreeMap<String, Tensor>,
}

impl Reference {
    pub fn open() -> Self {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/analysis");
        let folder = std::env::var_os("ANALYSIS_REFERENCE").map_or(own, PathBuf::from);
        let matrices = tensors(&folder, "matrices.safetensors");
        let masks = tensors(&folder, "masks.safetensors").into_iter();
        // Keys are source/layerN-component.
        let masks = masks.map(|(key, mask)| {
            let (source, module) = key.split_once('/').unwrap();
            (format!("{source}/{}", module.split_once('-').unwrap().1), mask)
        });
        Self { masks: masks.collect(), folder, matrices }
    }

    pub fn matrix(&self, source: &str, component: &str) -> &Tensor {
        let key = format!("{source}/{component}");
        self.matrices.get(&key).unwrap_or_else(|| panic!("the reference has no {key}"))
    }

    /// The explicit mask where `mask_source` says so, else what is not 0.
    pub fn pattern(&self, source: &str, component: &str, mask_source: &str) -> Pattern {
        match mask_source {
            "explicit" => self.masks[&format!("{source}/{component}")].pattern(),
            _ => self.matrix(source, component).pattern(),
        }
    }

    pub fn mask(&self, source: &str, component: &str, axis: Axis) -> Mask {
        Mask::of(&self.matrix(source, component).pattern(), axis)
    }

    pub fn tensors(&self, name: &str) -> BTreeMap<String, Tensor> {
        tensors(&self.folder, name)
    }

    pub fn csv(&self, name: &str) -> Vec<Row> {
        let bytes = read(&self.folder.join("expected"), name);
        let mut reader = csv::Reader::from_reader(&bytes[..]);
        let rows: Vec<Row> = reader.deserialize().collect::<Result<_, _>>().unwrap();
        assert!(!rows.is_empty(), "{name} is empty");
        rows
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&read(&self.folder.join("expected"), name)).unwrap()
    }

    pub fn expected_tensors(&self, name: &str) -> BTreeMap<String, Tensor> {
        tensors(&self.folder.join("expected"), name)
    }
}

/// A file, plain or compressed by gzip.
fn read(folder: &Path, name: &str) -> Vec<u8> {
    if let Ok(bytes) = std::fs::read(folder.join(name)) {
        return bytes;
    }
    let packed = folder.join(format!("{name}.gz"));
    let file = std::fs::File::open(&packed).unwrap_or_else(|error| panic!("{}: {error}", packed.display()));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

fn tensors(folder: &Path, name: &str) -> BTreeMap<String, Tensor> {
    let bytes = read(folder, name);
    let of = |(key, view): (String, safetensors::tensor::TensorView)| {
        let numbers: Vec<f32> = match view.dtype() {
            Dtype::F32 => view.data().chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::U16 => view.data().chunks(2).map(|b| f32::from(u16::from_le_bytes([b[0], b[1]]))).collect(),
            Dtype::U8 => view.data().iter().map(|&b| f32::from(b)).collect(),
            other => panic!("{key} is of {other:?}"),
        };
        (key, Tensor { shape: view.shape().to_vec(), numbers })
    };
    SafeTensors::deserialize(&bytes).unwrap().tensors().into_iter().map(of).collect()
}

/// The axis of a row: `residual` is resolved by the row.
pub fn axis(row: &Row) -> Axis {
    let name = match row["feature_axis"].as_str() {
        "residual" => row["resolved_axis"].as_str(),
        name => name,
    };
    match name {
        "in" => Axis::In,
        "out" => Axis::Out,
        other => panic!("axis {other}"),
    }
}

pub fn number(row: &Row, key: &str) -> usize {
    row[key].parse().unwrap_or_else(|_| panic!("{key}: {row:?}"))
}

/// A scalar of JSON as CSV has it.
pub fn cells(value: &Value) -> Row {
    let cell = |value: &Value| match value {
        Value::Null => Some(String::new()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    };
    value.as_object().unwrap().iter().filter_map(|(key, value)| Some((key.clone(), cell(value)?))).collect()
}

pub fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

pub fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap_or(f64::NAN)).collect()
}

/// What floats made from counts may differ by.
pub const COUNTED: f64 = 1e-12;
/// What sums of floats may differ by.
pub const SUMMED: f64 = 1e-9;

/// Compares and counts; differences are told when it is dropped, all at once.
pub struct Check {
    name: &'static str,
    compared: usize,
    worst: f64,
    wrong: Vec<String>,
}

impl Check {
    pub fn new(name: &'static str) -> Self {
        Self { name, compared: 0, worst: 0.0, wrong: Vec::new() }
    }

    fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// A count, a flag or a name: the same text.
    pub fn same(&mut self, row: &Row, key: &str, found: impl ToString) {
        self.compared += 1;
        let (expected, found) = (&row[key], found.to_string());
        if *expected != found {
            self.wrong(format!("{key}: {found}, not {expected}, {row:?}"));
        }
    }

    /// A number that is near; empty stands for undefined.
    pub fn near(&mut self, row: &Row, key: &str, found: f64, within: f64) {
        let expected = match row[key].as_str() {
            "" => f64::NAN,
            text => text.parse().unwrap_or_else(|_| panic!("{key}: {row:?}")),
        };
        if !self.close(expected, found, within) {
            self.wrong(format!("{key}: {found}, not {expected}, {row:?}"));
        }
    }

    pub fn near_value(&mut self, what: &str, expected: f64, found: f64, within: f64) {
        if !self.close(expected, found, within) {
            self.wrong(format!("{what}: {found}, not {expected}"));
        }
    }

    fn close(&mut self, expected: f64, found: f64, within: f64) -> bool {
        self.compared += 1;
        if expected.is_nan() || found.is_nan() {
            return expected.is_nan() && found.is_nan();
        }
        let difference = (expected - found).abs() / expected.abs().max(1.0);
        self.worst = self.worst.max(difference);
        difference <= within
    }

    /// Lists that are the same, number for number.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, expected: &[T], found: &[T]) {
        self.compared += expected.len();
        if expected != found {
            self.wrong(format!("{what}: {found:?}, not {expected:?}"));
        }
    }

    /// Something else that has to hold.
    pub fn holds(&mut self, what: &str, holds: bool) {
        self.compared += 1;
        if !holds {
            self.wrong(what.to_owned());
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        let Self { name, compared, worst, wrong } = self;
        println!("{name}: {compared} values compared, largest difference {worst:.1e}, {} wrong", wrong.len());
        if !std::thread::panicking() {
            assert!(*compared > 0, "{name}: nothing was compared");
            assert!(wrong.is_empty(), "{name}:\n{}", wrong[..wrong.len().min(20)].join("\n"));
        }
    }
}
