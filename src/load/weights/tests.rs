//! The store against files: `torch.save`'s own (see `tests/fixtures/pickle/make.py`), made ones and damaged ones.

use std::collections::HashMap;
use std::fs;
use std::io::{Cursor, Write};

use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pickle/", $name)).as_slice()
    };
}

fn open(bytes: &'static [u8]) -> Result<Weights, WeightsError> {
    Weights::from_static(bytes, "file.bin")
}

fn problem(bytes: &[u8]) -> FileProblem {
    match tensors(Path::new("file.bin"), bytes) {
        Err(WeightsError::File { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

/// The fixtures' source of values.
fn base(i: usize) -> f32 {
    i as f32 * 0.5 - 3.0
}

fn check_state_dict(weights: &Weights) {
    let read = |name: &str| weights.read_f32(name).unwrap().into_owned();
    let shape = |name: &str| weights.info(name).unwrap().shape.clone();
    let values = |indices: &[usize]| indices.iter().map(|&i| base(i)).collect::<Vec<_>>();
    let all: Vec<f32> = (0..24).map(base).collect();

    assert_eq!(read("weight"), all[..6]);
    assert_eq!(read("tied"), all[..6]);
    assert_eq!(read("bias"), all[6..8]);
    assert_eq!(read("parameter"), all[6..8]);
    for (name, dtype, extents) in
        [("f16", Dtype::F16, &[4, 6][..]), ("bf16", Dtype::BF16, &[2, 3, 4]), ("f64", Dtype::F64, &[24])]
    {
        assert_eq!(read(name), all);
        assert_eq!(*weights.info(name).unwrap(), TensorInfo { dtype, shape: extents.to_vec() });
    }
    assert_eq!((read("scalar"), shape("scalar")), (vec![2.5], vec![]));
    assert_eq!((read("empty"), shape("empty")), (vec![], vec![0, 4]));
    assert_eq!(shape("transposed"), [6, 4]);
    assert_eq!(read("transposed")[..5], values(&[0, 6, 12, 18, 1]));
    assert_eq!((read("columns"), shape("columns")), (values(&[8, 10, 14, 16, 20, 22]), vec![3, 2]));
    assert_eq!((read("permuted")[..7].to_vec(), shape("permuted")), (values(&[0, 4, 8, 12, 16, 20, 1]), vec![4, 2, 3]));

    let refused = |name: &str| match weights.read_f32(name) {
        Err(WeightsError::Tensor { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("expanded"), TensorProblem::Expanded);
    assert_eq!(refused("i64"), TensorProblem::UnsupportedDtype(Dtype::I64));
    assert_eq!(refused("bool"), TensorProblem::UnsupportedDtype(Dtype::BOOL));
    assert!(!weights.contains("step"));
    assert_eq!(weights.names().count(), 15);
    assert!(weights.names().is_sorted());
}

#[test]
fn reads_zip_checkpoints() {
    check_state_dict(&open(fixture!("zip.bin")).unwrap());
}

#[test]
fn reads_legacy_checkpoints() {
    check_state_dict(&open(fixture!("legacy.bin")).unwrap());
}

#[test]
fn finds_a_state_dict_inside_a_dict() {
    let weights = open(fixture!("wrapped.bin")).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a"]);
    assert_eq!(*weights.read_f32("a").unwrap(), [base(0), base(1)]);
}

#[test]
fn refuses_other_pickles_by_name() {
    for (bytes, needle) in [
        (fixture!("forbidden.bin"), "`posix.system`"),
        (fixture!("module.bin"), "`torch.nn.modules.linear.Linear`"),
        (fixture!("protocol4.bin"), "protocol 4"),
        (fixture!("list.bin"), "not a state dict"),
        // A tensor alone is a matrix for analyses and kernels, and no checkpoint.
        (fixture!("matrix.pt"), "not a state dict"),
        (fixture!("matrix-bf16.pt"), "not a state dict"),
    ] {
        let error = open(bytes).unwrap_err();
        assert!(error.to_string().starts_with("`file.bin` has a pickle"), "{error}");
        assert!(error.to_string().contains(needle), "{error}");
        assert!(error.hint().unwrap().contains("as safetensors"));
    }
}

#[test]
fn tells_files_apart_by_their_first_bytes() {
    assert!(matches!(problem(b""), FileProblem::Empty));
    assert!(matches!(problem(b"<!DOCTYPE html>"), FileProblem::UnknownFormat));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let lfs = tensors(Path::new("model.safetensors"), pointer).unwrap_err();
    assert!(lfs.to_string().contains("Git LFS pointer") && lfs.hint().unwrap().contains("git lfs pull"), "{lfs}");
    let misnamed = tensors(Path::new("model.safetensors"), fixture!("zip.bin")).unwrap_err();
    assert!(misnamed.to_string().contains("PyTorch checkpoint under the name of a safetensors"), "{misnamed}");
    assert!(misnamed.hint().unwrap().contains("pytorch_model.bin"), "{misnamed}");
    let misnamed = tensors(Path::new("model.safetensors"), fixture!("legacy.bin")).unwrap_err();
    assert!(misnamed.hint().unwrap().contains("pytorch_model.bin"), "{misnamed}");
    // A header of 0x0280 bytes begins as a pickle does.
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let padded = format!("{header:<640}");
    let bytes = [&0x0280u64.to_le_bytes()[..], padded.as_bytes(), &[0; 4]].concat();
    assert_eq!(tensors(Path::new("model.safetensors"), &bytes).unwrap().len(), 1);
    for name in ["model.safetensors", "pytorch_model.bin"] {
        let gguf = tensors(Path::new(name), b"GGUF\x03\0\0\0\0\0\0\0").unwrap_err();
        assert!(gguf.to_string().contains("GGUF") && gguf.hint().unwrap().contains("made from"), "{gguf}");
    }
}

#[test]
fn refuses_damaged_archives() {
    let zip = fixture!("zip.bin");
    assert!(matches!(problem(&zip[..zip.len() - 1]), FileProblem::BadZip(_)));
    let empty = HashMap::new();
    assert!(matches!(problem(&archive(b"\x80\x02}.", &empty, &[])), FileProblem::NoTensors));
    let pickle = Pickle::default().tensor("w", "HalfStorage", "0", 0, &[2], &[1]).end();
    assert!(matches!(problem(&archive(&pickle, &empty, &[])), FileProblem::MissingEntry(name) if name == "x/data/0"));
    let big = [("x/byteorder", b"big".as_slice())];
    assert!(matches!(problem(&archive(&pickle, &empty, &big)), FileProblem::BigEndian));
    let short = HashMap::from([("0", vec![0; 3])]);
    let error = tensors(Path::new("file.bin"), &archive(&pickle, &short, &[])).unwrap_err();
    assert_eq!(error.to_string(), "tensor `w` of `file.bin` needs 4 bytes of a storage of 3");
}

#[test]
fn refuses_compressed_entries() {
    // Method 8 (deflate) in the directory's entry of `data/0`, which is the last before the end record.
    let storages = HashMap::from([("0", vec![0; 4])]);
    let pickle = Pickle::default().tensor("w", "HalfStorage", "0", 0, &[2], &[1]).end();
    let mut bytes = archive(&pickle, &storages, &[]);
    let directory = bytes.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    bytes[directory + 10] = 8;
    assert!(matches!(problem(&bytes), FileProblem::NotStored(name) if name == "x/data/0"));
}

#[test]
fn opens_folders_of_shards_and_links_without_extension() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("a.safetensors"), serialize(&[("a", Dtype::F32, &[1], &1.5f32.to_le_bytes())])).unwrap();
    fs::write(path("blob"), serialize(&[("b", Dtype::F16, &[1], &f16::ONE.to_le_bytes())])).unwrap();
    fs::write(path("model.safetensors.index.json"), r#"{"weight_map": {"a": "a.safetensors", "b": "blob"}}"#).unwrap();
    let weights = Weights::open_files(&find_files(dir.path()).unwrap()).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
    assert!(matches!(weights.read_f32("a").unwrap(), Cow::Borrowed([1.5])));
    weights.release("a");
    assert_eq!(*weights.read_f32("a").unwrap(), [1.5]);
    assert_eq!(*weights.read_f32("b").unwrap(), [1.0]);

    let error = weights.read_f32("c").unwrap_err().to_string();
    assert!(error.contains("`c`") && error.contains("a.safetensors") && error.contains("blob"), "{error}");
    let files = |names: &[&str]| Files { paths: names.iter().map(|name| path(name)).collect(), index: None };
    let error = Weights::open_files(&files(&["a.safetensors", "absent.bin"])).unwrap_err();
    assert!(error.to_string().contains("absent.bin"), "{error}");
    fs::write(path("b.safetensors"), serialize(&[("a", Dtype::F32, &[1], &[0; 4])])).unwrap();
    let error = Weights::open_files(&files(&["a.safetensors", "b.safetensors"])).unwrap_err();
    assert!(matches!(error, WeightsError::DuplicateTensor { .. }), "{error}");
    fs::write(path("empty.bin"), "").unwrap();
    let error = Weights::open_files(&files(&["empty.bin"])).unwrap_err();
    assert!(error.to_string().ends_with("is empty"), "{error}");
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The weights of a folder with these files.
fn folder(files: &[(&str, &[u8])]) -> Result<Weights, WeightsError> {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
    Weights::open_files(&find_files(dir.path())?)
}

#[test]
fn the_index_says_which_of_two_tensors_counts() {
    let shard = |a: f32, other: &str| {
        serialize(&[("a", Dtype::F32, &[1], &f32s(&[a])), (other, Dtype::F32, &[1], &f32s(&[7.0]))])
    };
    let open = |map: &str| {
        let index = format!(r#"{{"weight_map": {{{map}}}}}"#);
        folder(&[
            ("model.safetensors.index.json", index.as_bytes()),
            ("1.safetensors", &shard(1.0, "b")),
            ("2.safetensors", &shard(2.0, "c")),
        ])
    };
    for (shard, value) in [("1.safetensors", 1.0), ("2.safetensors", 2.0)] {
        let map = format!(r#""a": "{shard}", "b": "1.safetensors", "c": "2.safetensors""#);
        assert_eq!(*open(&map).unwrap().read_f32("a").unwrap(), [value]);
    }
    let error = open(r#""b": "1.safetensors", "c": "2.safetensors""#).unwrap_err();
    assert!(matches!(error, WeightsError::DuplicateTensor { .. }) && error.hint().is_some(), "{error}");
    let error = open(r#""a": "1.safetensors", "b": "2.safetensors""#).unwrap_err();
    assert!(error.to_string().contains("names the tensor `b` in `2.safetensors`, but it is in"), "{error}");
}

#[test]
fn masks_are_applied_wherever_they_are() {
    let weight = f32s(&[1.5, 2.0, -3.0, 4.0]);
    let mask = f32s(&[1.0, 0.0, 0.0, 1.0]);
    let one = serialize(&[
        ("module.l.weight_orig", Dtype::F32, &[2, 2], &weight),
        ("module.l.weight_mask", Dtype::F32, &[2, 2], &mask),
        ("module.l.bias", Dtype::F32, &[2], &weight[..8]),
    ]);
    let (first, second) = (
        serialize(&[("l.weight_orig", Dtype::F32, &[2, 2], &weight), ("l.bias", Dtype::F32, &[2], &weight[..8])]),
        serialize(&[("l.weight_mask", Dtype::U8, &[2, 2], &[1, 0, 0, 1])]),
    );
    let index = br#"{"weight_map": {"l.weight_orig": "1", "l.bias": "1", "l.weight_mask": "2"}}"#.as_slice();
    for files in [
        vec![("model.safetensors", &one[..])],
        vec![("model.safetensors.index.json", index), ("1", &first), ("2", &second)],
    ] {
        let weights = folder(&files).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["l.bias", "l.weight"]);
        assert_eq!(weights.info("l.weight").unwrap().shape, [2, 2]);
        weights.check("l.weight").unwrap();
        assert_eq!(*weights.read_f32("l.weight").unwrap(), [1.5, 0.0, 0.0, 4.0]);
        assert_eq!(*weights.read_bytes("l.weight").unwrap(), *f32s(&[1.5, 0.0, 0.0, 4.0]));
        weights.release("l.weight");
    }
    let other =
        serialize(&[("l.weight_orig", Dtype::F32, &[2, 2], &weight), ("l.weight_mask", Dtype::F32, &[4], &mask)]);
    let error = folder(&[("model.safetensors", &other)]).unwrap_err();
    assert!(error.to_string().contains("`l.weight`") && error.to_string().contains("[2, 2] and [4]"), "{error}");
    assert!(error.hint().unwrap().contains("prune.remove"));
    // Without a mask there is nothing to join.
    let alone = serialize(&[("l.weight_orig", Dtype::F32, &[2, 2], &weight)]);
    assert!(folder(&[("model.safetensors", &alone)]).unwrap().contains("l.weight_orig"));
}

#[test]
fn adapters_are_refused_by_name() {
    for name in ["base_model.model.q_proj.lora_A.weight", "model.q_proj.base_layer.weight"] {
        let bytes = serialize(&[(name, Dtype::F32, &[1], &[0; 4]), ("base_model.model.x", Dtype::F32, &[1], &[0; 4])]);
        let error = folder(&[("model.safetensors", &bytes)]).unwrap_err();
        assert!(error.to_string().contains(&format!("such as `{name}`")), "{error}");
        assert!(error.hint().unwrap().contains("merge"), "{error}");
    }
}

#[test]
fn equal_tensors_are_known() {
    let bytes = serialize(&[
        ("a", Dtype::F32, &[2], &f32s(&[1.0, 2.0])),
        ("b", Dtype::F32, &[2], &f32s(&[1.0, 2.0])),
        ("c", Dtype::F32, &[2], &f32s(&[1.0, 2.5])),
        ("d", Dtype::F16, &[2], &[0, 0x3c, 0, 0x40]),
        ("e", Dtype::F32, &[2, 1], &f32s(&[1.0, 2.0])),
    ]);
    let weights = folder(&[("model.safetensors", &bytes)]).unwrap();
    let same = |other: &str| weights.same("a", other).unwrap();
    assert_eq!([same("a"), same("b"), same("c"), same("d"), same("e")], [true, true, false, true, false]);
    // The fixture's `tied` is the storage of `weight` again.
    assert!(open(fixture!("zip.bin")).unwrap().same("weight", "tied").unwrap());
}

/// A small file must not stand for a large tensor, nor integers for weights.
#[test]
fn what_can_not_be_read_is_known_without_reading() {
    let weights = open(fixture!("zip.bin")).unwrap();
    for (name, said) in [("expanded", "repeats elements"), ("i64", "dtype I64"), ("bool", "dtype BOOL")] {
        let error = weights.check(name).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        if name != "expanded" {
            assert!(error.hint().unwrap().contains("dequantise first"), "{:?}", error.hint());
        }
    }
    weights.check("transposed").unwrap();
    let shape = vec![1; 17];
    let bytes = serialize(&[("a", Dtype::F32, &shape, &[0; 4])]);
    let error = folder(&[("model.safetensors", &bytes)]).unwrap_err();
    assert!(error.to_string().contains("has 17 dimensions"), "{error}");
}

#[cfg(unix)]
#[test]
fn devices_in_place_of_weights_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    let error = Weights::open_files(&find_files(dir.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("not a regular file") && error.hint().is_some(), "{error}");
}

#[test]
fn every_flipped_byte_and_every_truncation_is_read_or_refused() {
    let safetensors = serialize(&[("a", Dtype::F32, &[2, 3], &[7; 24]), ("b", Dtype::BF16, &[2], &[1; 4])]);
    for file in [fixture!("zip.bin"), fixture!("legacy.bin"), &safetensors] {
        for length in 0..file.len() {
            assert!(!read_all(&file[..length]), "{length} of {} bytes", file.len());
        }
        let mut flipped = file.to_vec();
        for at in 0..file.len() {
            for mask in [0x01, 0x80, 0xff] {
                flipped[at] ^= mask;
                read_all(&flipped);
                flipped[at] ^= mask;
            }
        }
        assert_eq!(flipped, file);
    }
}

proptest! {
    #[test]
    fn any_damage_is_read_or_refused(
        legacy in any::<bool>(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut bytes = if legacy { fixture!("legacy.bin").to_vec() } else { fixture!("zip.bin").to_vec() };
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(&bytes);
    }

    #[test]
    fn any_bytes_behind_a_magic_are_read_or_refused(kind in 0usize..4, tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let head = [torch_file::ZIP_MAGIC, torch_file::LEGACY_MAGIC, b"\x20\0\0\0\0\0\0\0{", b""][kind];
        read_all(&[head, &tail].concat());
    }

    #[test]
    fn safetensors_round_trip((values, dtype, shape) in tensor()) {
        let (bytes, expected) = encode(&values, dtype);
        let file = serialize(&[("before", Dtype::U8, &[3], &[0; 3]), ("t", dtype, &shape, &bytes)]);
        let (info, read) = read_one(&file, "t");
        prop_assert_eq!(info, TensorInfo { dtype, shape });
        prop_assert!(same(&read, &expected));
    }

    /// The tensor is a permutation of the storage's dimensions, after `offset` other elements.
    #[test]
    fn torch_round_trip((values, dtype, stored) in tensor(), seed in any::<proptest::sample::Index>(), offset in 0usize..3) {
        let mut order: Vec<usize> = (0..stored.len()).collect();
        let steps = seed.index(order.len() + 1);
        order.rotate_left(steps);
        let mut strides = vec![1; stored.len()];
        for i in (1..stored.len()).rev() {
            strides[i - 1] = strides[i] * stored[i];
        }
        let shape: Vec<usize> = order.iter().map(|&i| stored[i]).collect();
        let strides: Vec<usize> = order.iter().map(|&i| strides[i]).collect();

        let padded = [vec![0.0; offset], values].concat();
        let (bytes, stored_values) = encode(&padded, dtype);
        let pickle = Pickle::default().tensor("t", storage_name(dtype), "7", offset, &shape, &strides).end();
        let (info, read) = read_one(&archive(&pickle, &HashMap::from([("7", bytes)]), &[]), "t");

        let mut expected = vec![offset];
        for (extent, stride) in shape.iter().zip(&strides) {
            expected = expected.iter().flat_map(|at| (0..*extent).map(move |i| at + i * stride)).collect();
        }
        let expected: Vec<f32> = expected.into_iter().map(|at| stored_values[at]).collect();
        prop_assert_eq!(info.shape, shape);
        prop_assert!(same(&read, &expected));
    }
}

/// Whether all was read; either way it must not panic, and an error must have its message.
fn read_all(bytes: &[u8]) -> bool {
    match tensors(Path::new("file.bin"), bytes) {
        Ok(tensors) => {
            for (_, view) in tensors {
                let _ = view.read(bytes);
            }
            true
        }
        Err(error) => {
            assert!(
                error.to_string().starts_with("`file.bin`") || error.to_string().contains("of `file.bin`"),
                "{error}"
            );
            false
        }
    }
}

fn read_one(bytes: &[u8], name: &str) -> (TensorInfo, Vec<f32>) {
    let tensors = tensors(Path::new("file.bin"), bytes).unwrap();
    let (_, view) = tensors.into_iter().find(|(found, _)| found == name).unwrap();
    let values = view.read(bytes).unwrap().into_owned();
    (view.info, values)
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Values, a type and a shape that fits their number.
fn tensor() -> impl Strategy<Value = (Vec<f32>, Dtype, Vec<usize>)> {
    let dtype = proptest::sample::select(vec![Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16]);
    (dtype, proptest::collection::vec(0usize..6, 0..4)).prop_flat_map(|(dtype, shape)| {
        let elements = shape.iter().product::<usize>();
        let values = proptest::collection::vec(proptest::num::f32::NORMAL | proptest::num::f32::ZERO, elements);
        (values, Just(dtype), Just(shape))
    })
}

/// The values as stored, and as they should be read.
fn encode(values: &[f32], dtype: Dtype) -> (Vec<u8>, Vec<f32>) {
    let encode = |value: &f32| match dtype {
        Dtype::F64 => (f64::from(*value).to_le_bytes().to_vec(), *value),
        Dtype::F32 => (value.to_le_bytes().to_vec(), *value),
        Dtype::F16 => (f16::from_f32(*value).to_le_bytes().to_vec(), f16::from_f32(*value).to_f32()),
        _ => (bf16::from_f32(*value).to_le_bytes().to_vec(), bf16::from_f32(*value).to_f32()),
    };
    let (bytes, expected): (Vec<_>, Vec<_>) = values.iter().map(encode).unzip();
    (bytes.concat(), expected)
}

fn storage_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "DoubleStorage",
        Dtype::F32 => "FloatStorage",
        Dtype::F16 => "HalfStorage",
        _ => "BFloat16Storage",
    }
}

fn serialize(tensors: &[(&str, Dtype, &[usize], &[u8])]) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// An archive as `torch.save` writes it: the pickle, the storages by key, and further entries.
fn archive(pickle: &[u8], storages: &HashMap<&str, Vec<u8>>, further: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut write = |name: &str, bytes: &[u8]| {
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    write("x/data.pkl", pickle);
    for (name, bytes) in further {
        write(name, bytes);
    }
    for (key, bytes) in storages {
        write(&format!("x/data/{key}"), bytes);
    }
    zip.finish().unwrap().into_inner()
}

/// Writes a pickled dict of tensors.
struct Pickle(Vec<u8>);

impl Default for Pickle {
    fn default() -> Self {
        Self(b"\x80\x02}(".to_vec())
    }
}

impl Pickle {
    fn tensor(
        mut self,
        name: &str,
        storage: &str,
        key: &str,
        offset: usize,
        shape: &[usize],
        strides: &[usize],
    ) -> Self {
        self.string(name);
        self.0.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.string("storage");
        self.0.extend_from_slice(format!("ctorch\n{storage}\n").as_bytes());
        self.string(key);
        self.string("cpu");
        self.0.extend_from_slice(b"K\x00tQ");
        self.int(offset);
        for sizes in [shape, strides] {
            self.0.push(b'(');
            sizes.iter().for_each(|&size| self.int(size));
            self.0.push(b't');
        }
        self.0.extend_from_slice(b"\x89}tR");
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"u.");
        self.0
    }

    fn string(&mut self, string: &str) {
        self.0.push(b'X');
        self.0.extend_from_slice(&(string.len() as u32).to_le_bytes());
        self.0.extend_from_slice(string.as_bytes());
    }

    fn int(&mut self, value: usize) {
        self.0.push(b'J');
        self.0.extend_from_slice(&(value as i32).to_le_bytes());
    }
}
