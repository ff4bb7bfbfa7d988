//! Pickles written by hand: what is read, what is refused, and how the refusal says where.

use proptest::prelude::*;

use super::*;

/// `OrderedDict(w=<a 2 × 3 tensor>)` as `torch.save` writes it, without the memo.
const STATE_DICT: &[u8] = b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n\
    ((X\x07\0\0\0storagectorch\nHalfStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQK\x01K\x02K\x03\x86K\x03K\x01\x86\
    \x89ccollections\nOrderedDict\n)RtRu.";

fn error(pickle: &[u8]) -> PickleError {
    match unpickle(pickle, 0) {
        Ok(unpickled) => unpickled.state_dict().unwrap_err(),
        Err(error) => error,
    }
}

#[test]
fn reads_a_state_dict() {
    let unpickled = unpickle(STATE_DICT, 0).unwrap();
    let storage = Storage { key: "0", dtype: Dtype::F16 };
    let tensor = Tensor { storage, offset: 1, shape: vec![2, 3], strides: vec![3, 1] };
    assert_eq!(unpickled.state_dict().unwrap(), [("w", &tensor)]);
    assert_eq!(unpickled.end, STATE_DICT.len());
}

#[test]
fn every_truncation_is_noticed() {
    for length in 0..STATE_DICT.len() {
        assert!(unpickle(&STATE_DICT[..length], 0).is_err(), "{length}");
    }
}

#[test]
fn names_forbidden_globals_and_their_place() {
    for (pickle, name) in [
        (b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R.".as_slice(), "posix.system"),
        (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.", "torch._utils._rebuild_qtensor"),
    ] {
        assert_eq!(error(pickle), PickleError::ForbiddenGlobal { name: name.into(), offset: 2 });
    }
}

#[test]
fn names_the_place_of_what_is_wrong() {
    assert_eq!(error(b"\x80\x02}\xff."), PickleError::UnknownOpcode { opcode: 0xff, offset: 3 });
    assert_eq!(error(b"\x80\x04}."), PickleError::Protocol { version: 4 });
    assert_eq!(error(b"\x80\x02]."), PickleError::NotAStateDict);
    assert_eq!(error(b"\x80\x02X\xff\xff\xff\xffab"), PickleError::Truncated { offset: 7 });
    for pickle in [
        b"\x80\x02.".as_slice(),
        b"}(s.",
        b"K\x01K\x02a.",
        b"t.",
        b"h\x01.",
        b"}(K\x01u.",
        b"(\x85.",
        b"NR.",
        b"NNb.",
        b"NQ.",
    ] {
        assert!(matches!(error(pickle), PickleError::Unexpected { .. }), "{pickle:?}: {:?}", error(pickle));
    }
}

#[test]
fn refuses_negative_sizes_and_unequal_ranks() {
    let change = |from: &[u8], to: &[u8]| {
        let at = STATE_DICT.windows(from.len()).position(|window| window == from).unwrap();
        [&STATE_DICT[..at], to, &STATE_DICT[at + from.len()..]].concat()
    };
    let negative = change(b"K\x02K\x03\x86", b"K\x02J\xff\xff\xff\xff\x86");
    assert!(error(&negative).to_string().contains("not negative"));
    let unequal = change(b"K\x02K\x03\x86", b"K\x03\x85");
    assert!(error(&unequal).to_string().contains("strides"));
}

/// Shapes and names that many tensors share stand in the file once, and would be copied for each of them.
#[test]
fn refuses_shapes_and_names_that_no_weight_has() {
    let shape = |dimensions: usize| [b"(".as_slice(), &b"K\x01".repeat(dimensions), b"t"].concat();
    let pickle = |dimensions: usize| {
        let at = STATE_DICT.windows(5).position(|window| window == b"K\x02K\x03\x86").unwrap();
        let end = at + b"K\x02K\x03\x86K\x03K\x01\x86".len();
        [&STATE_DICT[..at], &shape(dimensions), &shape(dimensions), &STATE_DICT[end..]].concat()
    };
    assert_eq!(unpickle(&pickle(16), 0).unwrap().state_dict().unwrap().len(), 1);
    for dimensions in [17, 500_000] {
        assert!(matches!(error(&pickle(dimensions)), PickleError::Dimensions { dimensions: d, .. } if d == dimensions));
    }
    let long = |length: usize| {
        let name = [b"X".as_slice(), &(length as u32).to_le_bytes(), &b"w".repeat(length)].concat();
        let at = STATE_DICT.windows(6).position(|window| window == b"X\x01\0\0\0w").unwrap();
        [&STATE_DICT[..at], &name, &STATE_DICT[at + 6..]].concat()
    };
    assert!(unpickle(&long(4096), 0).unwrap().state_dict().is_ok());
    assert_eq!(error(&long(4097)), PickleError::LongName(4097));
}

#[test]
fn longs_are_sign_extended() {
    for (pickle, value) in [
        (b"\x8a\x00.".as_slice(), Value::Int(0)),
        (b"\x8a\x01\xff.", Value::Int(-1)),
        (b"\x8a\x02\xff\x00.", Value::Int(255)),
        (b"\x8a\x05\x00\x00\x00\x00\x01.", Value::Int(1 << 32)),
        (b"\x8a\x09123456789.", Value::OtherNumber),
    ] {
        assert_eq!(unpickle(pickle, 0).unwrap().root, value);
    }
}

#[test]
fn survives_cycles_depth_and_length() {
    let cycle = b"}q\x00X\x0a\0\0\0state_dicth\x00s.";
    assert_eq!(unpickle(cycle, 0).unwrap().state_dict(), Ok(vec![]));
    let mut deep = vec![b'N'];
    deep.resize(1_000_000, 0x85);
    deep.push(b'.');
    assert!(unpickle(&deep, 0).is_ok());
    assert_eq!(unpickle(&vec![b'N'; MAX_OPCODES + 1], 0).unwrap_err(), PickleError::TooLong);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), start in 0usize..250) {
        let _ = unpickle(&bytes, start).map(|unpickled| unpickled.state_dict().map(|tensors| tensors.len()));
    }

    /// Opcodes only, so that the runs get further than with any bytes.
    #[test]
    fn any_opcodes_are_read_or_refused(bytes in proptest::collection::vec(
        proptest::sample::select(b"(NK\x00\x01M)]t\x85\x86\x87ae}suqhRbQ.0".to_vec()), 0..200,
    )) {
        let _ = unpickle(&bytes, 0).map(|unpickled| unpickled.strings());
    }
}
